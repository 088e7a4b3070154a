"""A Python that was started before its release runs a script as one that is started after it."""

import base64
import time
from pathlib import Path

import docker
import pytest

from images.box import Boxes, Finished, started
from images.conftest import TAG, boxes_of, child_of

FILE = "/playbook/playbook.py"

SCRIPTS: dict[str, str | bytes] = {
    "what a script sees of itself": (
        "import sys\n"
        "print(sys.argv, sys.orig_argv, sys.executable, sys.flags, sys.path, sys.warnoptions, sys._xoptions)\n"
        "print(sorted((k, repr(v)) for k, v in globals().items() if k != '__loader__'))\n"
        "print(__loader__.__class__, __loader__.name, __loader__.path, sys.modules['__main__'].__dict__ is globals())\n"
    ),
    "what is imported before it": "import sys\nprint(sorted(sys.modules), len(sys.meta_path), len(sys.path_hooks))\n",
    "its surroundings": (
        "import os, sys, resource, locale, threading\n"
        "print(sorted(os.environ.items()), open('/proc/self/environ').read().split(chr(0)))\n"
        "print(os.getcwd(), os.umask(0o22), os.getuid(), os.getpgid(0) == os.getpid(), os.getsid(0), os.getppid())\n"
        "print(open('/proc/self/cmdline').read().split(chr(0)), threading.active_count(), locale.getlocale())\n"
        "print([os.readlink('/proc/self/fd/0'), os.fstat(1).st_ino == os.fstat(2).st_ino])\n"
        "print(sorted(os.listdir('/proc/self/fd')), resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    ),
    "its streams": (
        "import sys\n"
        "for s in (sys.stdin, sys.stdout, sys.stderr):\n"
        "  print(s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty(), s.buffer)\n"
        "print(sys.stdin.seekable(), repr(sys.stdin.read()), sys.__stdin__ is sys.stdin)\n"
    ),
    "its signals": (
        "import signal\n"
        "print([(s.name, signal.getsignal(s)) for s in sorted(signal.valid_signals()) if hasattr(s, 'name')])\n"
        "print([l for l in open('/proc/self/status') if l.startswith(('Sig', 'Shd')) and not l.startswith('SigQ')])\n"
    ),
    "an uncaught exception": "def f():\n    raise ValueError('no such host')\n\nprint('before')\nf()\n",
    "chained exceptions and notes": (
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    error.add_note('noted')\n"
        "    raise ExceptionGroup('both', [error, KeyError('x')]) from error\n"
    ),
    "exit with a number": "raise SystemExit(42)",
    "exit with a sentence": "import sys\nsys.exit('no such host')",
    "exit with nothing": "raise SystemExit",
    "exit with an object": "raise SystemExit((1, 2))",
    "exit with a large number": "raise SystemExit(1000)",
    "an end without clean-up": "import os, atexit\natexit.register(print, 'never')\nprint('x', end='')\nos._exit(9)",
    "functions at exit": "import atexit\natexit.register(print, 'second')\natexit.register(print, 'first')\n1 / 0\n",
    "threads at exit": (
        "import threading, time\ndef late():\n  time.sleep(0.2)\n  print('late')\n  raise ValueError('in a thread')\n"
        "threading.Thread(target=late, name='late').start()\nprint('main ends')\n"
    ),
    "an interrupt": "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n",
    "death by a signal": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "a broken pipe is an exception": "import os\nr, w = os.pipe()\nos.close(r)\nos.write(w, b'x')\n",
    "a hook of its own": "import sys\nsys.excepthook = lambda *args: print('hooked', args[0])\nundefined\n",
    "a syntax error": "print('never')\nif True\n    pass\n",
    "a tab error": "if True:\n        x = 1\n\ty = 2\n",
    "bytes that are no UTF-8": b"print('\xff')\n",
    "another encoding": b"# -*- coding: latin-1 -*-\nprint('\xe4', ascii('\xe4'))\n",
    "an unknown encoding": "# -*- coding: none-such -*-\nprint(1)\n",
    "a byte order mark": b"\xef\xbb\xbfprint('marked', __file__)\n",
    "a null byte": b"print(1)\n\x00\n",
    "Windows line ends": b"print('a')\r\nprint('b')\r\nraise KeyError\r\n",
    "an empty file": "",
    "warnings": (
        "import warnings\nwarnings.warn('careful')\nwarnings.warn('old', DeprecationWarning)\n"
        "x = '\\d'\nassert (1, 'always')\nopen('/dev/null')\n"
    ),
    "prints that no encoding can": "print('\\udc80')\n",
    "deep recursion": "def f(n):\n    return f(n + 1)\n\nf(0)\n",
    "spawned processes find it again": (
        "import multiprocessing, sys\ndef work(n):\n    return n * 2, __name__, sys.argv\n\n"
        "if __name__ == '__main__':\n"
        "    for method in ('spawn', 'forkserver', 'fork'):\n"
        "        with multiprocessing.get_context(method).Pool(2) as pool:\n"
        "            print(method, pool.map(work, [1, 2]))\n"
    ),
    "children have no more than it": (
        "import subprocess, sys\n"
        "print(subprocess.run([sys.executable, '-c', 'import os, sys; print(sorted(os.listdir(\"/proc/self/fd\")), "
        "sorted(sys.modules), sys.stdin.read())'], capture_output=True, text=True, close_fds=False).stdout)\n"
        "print(subprocess.check_output(['readlink', '/proc/self/fd/0'], text=True))\n"
    ),
    "its own source": (
        "import inspect, sys, traceback\nprint(inspect.getsource(sys.modules['__main__']))\ntraceback.print_stack()\n"
    ),
    "pickles of its classes": "import pickle\nclass A:\n    pass\n\nprint(pickle.dumps(A()))\n",
    "a profile and a trace": "import sys\nprint(sys.gettrace(), sys.getprofile(), sys._getframe().f_back)\n",
}


def cold(python: Boxes, script: str | bytes, *, file: str = FILE) -> Finished:
    """Run the script in an interpreter that starts after the release."""
    with python.open(script, command=("env", "python3", file)) as box:
        box.release()
        return box.finish()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_warm_as_it_runs_cold(python_alone: Boxes, name: str) -> None:
    """Output byte for byte, and exit code; a traceback has the script's own frames alone."""
    script = SCRIPTS[name]
    with python_alone.open(script) as box:
        nonce = box.release()
        warm = box.finish()

    assert warm.control == started(nonce)
    reference = cold(python_alone, script)
    assert (warm.exit_code, warm.output) == (reference.exit_code, reference.output)
    assert b"agp" not in warm.output


def test_a_file_that_is_not_there_is_said_as_ever(python_alone: Boxes) -> None:
    """Exit code 2 and Python's own sentence."""
    with python_alone.open("", command=("python3", "/playbook/none.py")) as box:
        box.release()
        warm = box.finish()

    reference = cold(python_alone, "", file="/playbook/none.py")
    assert (warm.exit_code, warm.output) == (reference.exit_code, reference.output)
    assert warm.exit_code == 2


def test_the_interpreter_is_there_before_the_release_and_has_printed_nothing(python: Boxes) -> None:
    """In the image and its child alike: the waiting process is Python, with the command line that it will keep."""
    with python.open("print('ran')") as box:
        while not any(command.startswith("python3 ") for command in box.commands()):
            time.sleep(0.05)
        assert box.printed_so_far() == b""
        box.release()
        finished = box.finish()

    assert (finished.exit_code, finished.output) == (0, b"ran\n")


def test_a_secret_leaves_no_module_behind(python_alone: Boxes) -> None:
    """What a script finds imported does not depend on the runner's secrets."""
    script = "import sys\nprint(sorted(sys.modules))\n"
    with python_alone.open(script, secrets_place=True) as box:
        box.send(f"agp1 secret key {base64.b64encode(b'hunter2').decode()}")
        box.release()
        warm = box.finish()

    assert warm.output == cold(python_alone, script).output


@pytest.mark.parametrize(
    "name", ["PYTHONVERBOSE", "PYTHONHOME", "PYTHONHASHSEED", "PYTHONPROFILEIMPORTTIME", "PYTHONPATH", "PYTHONOTHER"]
)
def test_a_variable_that_changes_pythons_start_makes_it_start_cold(python_alone: Boxes, name: str) -> None:
    """Whatever Python says about it comes after the release, and the entry waits as for every other command."""
    with python_alone.open("print('ran')", env={name: "1"}) as box:
        nonce = box.release()
        finished = box.finish()

    assert finished.control == started(nonce)
    with python_alone.open("print('ran')", env={name: "1"}) as box:
        assert any("agp-entry" in command for command in box.commands())
        box.hang_up()
        assert box.finish().output == b""


def test_modules_of_the_operator_are_found(python_alone: Boxes) -> None:
    """PYTHONPATH is read by an interpreter that starts after the release."""
    script = "import sys\nprint(sys.path)\n"
    with python_alone.open(script, env={"PYTHONPATH": "/playbook:/none"}) as box:
        box.release()
        assert b"'/playbook', '/playbook', '/none'" in box.finish().output


FOREIGN = "print('ran', flush=True)"


@pytest.mark.parametrize(
    ("commands", "command", "env", "after_release"),
    [
        (
            [f'echo "#!/usr/bin/python3\\n{FOREIGN}" >/usr/bin/ansible-playbook; chmod 755 /usr/bin/ansible-playbook'],
            ("ansible-playbook", FILE),
            {},
            (0, b"ran\n"),
        ),
        (
            ["mkdir /foreign", f'echo "{FOREIGN}\\ndef wait(): pass" >/foreign/agp_entry.py'],
            ("python3", FILE),
            {"PYTHONPATH": "/foreign"},
            (0, b"of the playbook\n"),
        ),
        (
            ["echo 'def wait(): pass' >$(python3 -c 'import site; print(site.getsitepackages()[0])')/agp_entry.py"],
            ("python3", FILE),
            {},
            (125, b""),
        ),
    ],
    ids=["an Ansible of its own", "a foreign module by PYTHONPATH", "a foreign module in the image"],
)
def test_nothing_runs_without_a_release_in_a_child_image_that_differs(
    client: docker.DockerClient,
    tmp_path: Path,
    commands: list[str],
    command: tuple[str, ...],
    env: dict[str, str],
    after_release: tuple[int, bytes],
) -> None:
    """It waits cold, or ends with 125; either way the playbook has not begun."""
    with child_of(client, f"agp/runner-python:{TAG}", *commands) as image:
        boxes = boxes_of(client, "python", tmp_path, image)
        with boxes.open("print('of the playbook')", command=command, env=env) as box:
            box.hang_up()
            assert box.finish() == Finished(125, b"", b"")
        with boxes.open("print('of the playbook')", command=command, env=env) as box:
            box.release()
            finished = box.finish()

    assert (finished.exit_code, finished.output) == after_release
