"""Attempts on files: the playbook, mounts, other tasks' files, disks, programs on writable places."""

import ctypes
import glob
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from agp_agent.doctor.escape.programs.prelude import Held, call, libc, secret_marks, syscall, tell, tried, written

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC = 1, 32, 4096, 16384
AT_FDCWD = -100
MIB = 2**20
NOT_SEARCHED = ("/proc", "/sys", "/dev", "/usr")
"""What every container has of its own; /usr is the image's."""


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """Mount a file system, or change a mount."""
    call("mount", source.encode(), target.encode(), kind.encode(), flags, data.encode())


def change_the_playbook(facts: Mapping[str, Any]) -> None:
    """Write, replace and remount the mounted playbook, by every path that leads to it."""
    file = facts.get("playbook", __file__)
    folder = os.path.dirname(file)
    mark = b"\n# changed by the playbook itself\n"
    tried("remount the playbook's folder writable", lambda: mount("", folder, "", MS_REMOUNT | MS_BIND))
    with open(file, "rb") as opened:
        tried("reopen it through /proc/self/fd", _append, f"/proc/self/fd/{opened.fileno()}", mark)
    for path in (file, f"/proc/self/root{file}", f"/proc/1/root{file}"):
        tried(f"append to {path}", _append, path, mark)
    tried("chmod the playbook", lambda: os.chmod(file, 0o777))
    tried("make a file beside the playbook", lambda: os.close(os.open(f"{folder}/beside", os.O_CREAT | os.O_WRONLY)))
    tried("rename the playbook", lambda: os.rename(file, f"{file}.old"))
    tried("remove the playbook", lambda: os.unlink(f"{file}.old" if os.path.exists(f"{file}.old") else file))


def _append(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, data)
    os.close(fd)


def mount_anything(facts: Mapping[str, Any]) -> None:
    """Mount each kind of file system, below a folder that would pass the mount on to the host."""
    target, name = facts.get("target", "/tmp"), facts["name"]
    for kind in ("tmpfs", "proc", "sysfs", "cgroup", "cgroup2", "devpts", "debugfs", "tracefs", "bpf", "mqueue"):
        tried(f"mount {kind}", _mount_and_leave, name, target, kind)
    tried("mount overlay", lambda: mount(name, target, "overlay", 0, "lowerdir=/etc:/usr"))
    tried("bind the root elsewhere", lambda: mount("/", target, "", MS_BIND | MS_REC))
    tried("remount the root writable", lambda: mount("", "/", "", MS_REMOUNT | MS_BIND))
    tried("unmount the mask of /proc/keys", lambda: call("umount2", b"/proc/keys", 0))
    tried("fsopen", lambda: os.close(syscall("fsopen", b"tmpfs", 0)))
    tried("open_tree with a clone", lambda: os.close(syscall("open_tree", AT_FDCWD, b"/", 1)))
    tried("pivot_root", lambda: syscall("pivot_root", b"/tmp", b"/tmp"))


def _mount_and_leave(name: str, target: str, kind: str) -> None:
    """A tmpfs stays, for the judge to see; the others are taken away again."""
    mount(name, target, kind)
    if kind != "tmpfs":
        call("umount2", target.encode(), 0)


def find_others_files(facts: Mapping[str, Any]) -> None:
    """Look for marks that stand in files of the agent, of the host and of other tasks."""
    marks = secret_marks(facts)
    for root in facts["roots"]:
        for path in _files_below(root):
            for mark in _marks_in(path, marks):
                tell(found=mark.decode(), path=path)
    for folder in facts["forbidden"]:
        tried(f"list {folder}", _list, folder)


def _list(root: str) -> None:
    if not os.listdir(root):
        raise Held("empty")


def _files_below(root: str) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = [one for one in folders if os.path.join(folder, one) not in NOT_SEARCHED]
        for file in files:
            path = os.path.join(folder, file)
            if stat.S_ISREG(os.lstat(path).st_mode):
                yield path


def _marks_in(path: str, marks: list[bytes]) -> list[bytes]:
    try:
        with open(path, "rb") as opened:
            data = opened.read(64 * MIB)
    except OSError:
        return []
    return [mark for mark in marks if mark in data]


def own_and_make_devices(facts: Mapping[str, Any]) -> None:
    """Give files to root, make device files, read the host's disk, open files of the host by their handles."""
    place = facts.get("place", "/work")
    file = f"{place}/owned"
    os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
    tried("give a file to root", lambda: os.chown(file, 0, 0))
    tried("make /dev/mem", lambda: os.mknod(f"{place}/mem", 0o600 | stat.S_IFCHR, os.makedev(1, 1)))
    for major, minor in facts["disks"]:
        tried(f"make disk {major}:{minor} and read it", _read_disk, place, (major, minor))
    handle = ctypes.create_string_buffer(bytes((8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0)), 16)
    root = os.open("/playbook" if os.path.isdir("/playbook") else "/", os.O_RDONLY)
    tried(
        "open the root of the playbook's disk by its handle",
        lambda: _list_fd(syscall("open_by_handle_at", root, handle, 0)),
    )


def _list_fd(fd: int) -> None:
    os.listdir(fd)
    os.close(fd)


def _read_disk(place: str, disk: tuple[int, int]) -> None:
    path = f"{place}/disk-{disk[0]}-{disk[1]}"
    os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(*disk))
    with open(path, "rb") as opened:
        tell(found=opened.read(4096).hex(), path=path)


def fill_disks(facts: Mapping[str, Any]) -> None:
    """Write until nothing takes any more: every writable place, shared memory and the log."""
    limit = facts.get("limit_bytes", 400 * MIB)
    for folder in facts.get("folders", ("/work", "/tmp", "/dev/shm", "/var/tmp", "/", "/run", "/dev/mqueue")):
        what = f"write {limit // MIB} MiB to {folder}"
        if tried(what, _fill, f"{folder}/filler", limit) and not facts.get("keep"):
            os.unlink(f"{folder}/filler")
    lines = (b"x" * 1023 + b"\n") * 64
    for _ in range(facts.get("log_bytes", 0) // len(lines)):
        sys.stdout.buffer.write(lines)
    sys.stdout.flush()


def _fill(path: str, limit: int) -> None:
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    block = bytes(MIB)
    try:
        for _ in range(limit // MIB):
            os.write(fd, block)
    except OSError:
        os.ftruncate(fd, 0)
        raise
    finally:
        os.close(fd)


def execute_what_was_written(facts: Mapping[str, Any]) -> None:
    """Run a program from the writable places; overwrite the programs that the engine lends to the container."""
    with open("/bin/sleep", "rb") as sleep:
        program = sleep.read()
    for folder in facts.get("folders", ("/work", "/tmp", "/dev/shm")):
        tried(f"run a program from {folder}", _run_copy, f"{folder}/{facts['name']}", program)
    for path in ("/proc/1/exe", "/proc/self/exe", "/sbin/docker-init"):
        tried(f"open {path} for writing", written, path, b"")
    for fd in sorted(glob.glob("/proc/self/fd/*") + glob.glob("/proc/1/fd/*")):
        tried(f"leave by {fd}", _leave_by, fd, facts["name"])
    tried("map a written file as a program", lambda: _map_executable(f"{facts.get('place', '/work')}/mapped", program))


def _run_copy(path: str, program: bytes) -> None:
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o700)
    os.write(fd, program)
    os.close(fd)
    subprocess.Popen([path, "60"])


def _leave_by(fd: str, mark: str) -> None:
    """A descriptor that was left open and is a folder of the host leads to all of it (CVE-2024-21626)."""
    for up in range(8):
        try:
            names = os.listdir(fd + "/.." * up)
        except NotADirectoryError:
            raise Held("no folder") from None
        if "docker" in names or mark in names:
            return
    raise Held("inside")


def _map_executable(path: str, program: bytes) -> None:
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o700)
    os.write(fd, program)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
    ctypes.set_errno(0)
    if libc.mmap(None, 4096, 1 | 4, 2, fd, 0) == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")


def plant_links_and_fifos(facts: Mapping[str, Any]) -> None:
    """Leave symbolic links and fifos wherever something of the agent might read a file."""
    names = ("output", "result", "playbook.py", "note.json", "journal.db")
    for name in names:
        tried(f"plant a link {name}", os.symlink, facts["target"], f"{facts['place']}/{name}")
    tried("plant a fifo", lambda: os.mkfifo(f"{facts['place']}/spool"))
    for folder in ("/work", "/tmp"):  # these are its own; nobody reads there
        for name in names:
            os.symlink(facts["target"], f"{folder}/{name}")
        os.mkfifo(f"{folder}/spool")
