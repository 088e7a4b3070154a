"""What an `ansible-playbook` that waits for its release has ready: imports, plugins, the most used modules packed.

Nothing of a playbook, an inventory, a secret or this container's facts is looked at: they are read after the release,
by Ansible's own command line, in Ansible's own order. Whatever here does not go as expected (another Ansible, a setting
that makes it speak or fail) gives the warmth up: the command is then started once more after the release, cold.
"""

import atexit
import gc
import importlib
import os
import pkgutil
import shutil
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

# Modules that ansible-playbook imports at its first playbook, or anew in each worker.
_LATER_IMPORTS = (
    "ansible.executor.process.worker",
    "ansible.executor.task_executor",
    "ansible.module_utils.connection",
    "ansible.modules",
    "ansible.playbook.handler_task_include",
    "ansible.playbook.included_file",
    "ansible.playbook.role_include",
    "ansible.utils.hashing",
    "ansible.utils.shlex",
    "multiprocessing.popen_fork",
    "multiprocessing.synchronize",
    "pty",
)

# Kinds of plugins of which ansible-playbook loads all at its start, and kinds of which it loads those that are used.
_ALL_AT_START = ("connection", "shell", "become", "callback")
_AT_FIRST_USE = ("action", "lookup", "filter", "test", "inventory", "cache", "strategy", "vars")

# The image's own plugins beside Ansible's.
_OUR_PLUGINS = "/usr/share/ansible/plugins/callback"
_OUR_FILES = frozenset({"agp_events.py", "agp_no_hosts.py", "__pycache__"})

# It says that it is deprecated.
_NEVER_EARLY = ("ansible.plugins.cache.base",)

# The modules that ansible.builtin's own actions lean on. Packing one takes longer than running it.
_PACKED_AHEAD = ("setup", "command", "stat", "copy", "file")


def warm_up(is_awaited: Callable[[], bool]) -> Callable[[], bool]:
    """Load all of it, or as much as there is time for until the first line from the agent (`is_awaited`).

    Returns what says, after the release, whether it is what a cold start would load now.
    """
    saying = os.memfd_create("said")
    kept = os.dup(1), os.dup(2)
    os.dup2(saying, 1)
    os.dup2(saying, 2)
    try:
        read = _load(is_awaited)
    except (Exception, SystemExit):  # noqa: BLE001 -- whatever it is: the cold start says it, in its own words
        read = None
    finally:
        _flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        silent = os.lseek(saying, 0, os.SEEK_CUR) == 0
        for descriptor in (saying, *kept):
            os.close(descriptor)
    sys.modules.pop(__name__, None)
    return lambda: (silent and read is not None and _configuration() == read) or _forget_all()


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _load(is_awaited: Callable[[], bool]) -> object:
    """Import and pack, step by step; returns the configuration file that was read, as `_configuration` gives it."""
    importlib.import_module("ansible.cli.playbook")
    read = _configuration()
    for step in (_load_what_every_start_loads, _load_what_is_used_first, _parse_routing, _take_packed_modules, _settle):
        if is_awaited():
            break
        step()
    return read


def _load_what_every_start_loads() -> None:
    for name in _LATER_IMPORTS:
        importlib.import_module(name)
    for kind in _ALL_AT_START:
        loader = _loader(kind)
        if not _has_other_plugins(loader):
            list(loader.all(class_only=True))


def _settle() -> None:
    """The forks of the workers share what is never looked through for garbage again."""
    gc.collect()
    gc.freeze()


def _loader(kind: str) -> Any:
    return getattr(importlib.import_module("ansible.plugins.loader"), f"{kind}_loader")


def _configuration() -> object:
    """Ansible's configuration file: its path and which version of it; secrets may bring one along."""
    path = sys.modules["ansible.config.manager"].find_ini_config_file()
    if path is None:
        return ("", 0, 0, 0)
    seen = os.stat(path)
    return (path, seen.st_ino, seen.st_size, seen.st_mtime_ns)


def _forget_all() -> bool:
    """Clean up as at the end of a process, because this one is about to be started anew; False."""
    atexit._run_exitfuncs()
    return False


def _load_what_is_used_first() -> None:
    """Import Ansible's own plugins of the kinds that are loaded at first use."""
    early: dict[object, list[str]] = {}
    _make_room_for_plugins_of_roles(early)
    for kind in _AT_FIRST_USE:
        loader = _loader(kind)
        if _has_other_plugins(loader):
            continue
        package = importlib.import_module(loader.package)
        names = [f"{loader.package}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
        early[loader] = [name for name in names if name not in sys.modules and name not in _NEVER_EARLY]
        for name in early[loader]:
            importlib.import_module(name)


def _has_other_plugins(loader: Any, **options: bool) -> bool:
    """Whether the operator has plugins of this kind: they may replace Ansible's own, and are not read ahead."""
    known, paths = loader._paths, loader._get_paths_with_context(**options)
    # To Ansible a loader that knows its paths is one that was used: of vars plugins it would then use none.
    loader._paths = known
    return any(os.path.isdir(path.path) and not (path.internal or _is_ours(path.path)) for path in paths)


def _is_ours(folder: str) -> bool:
    """Whether it is the folder that this image fills, as it was built: nothing mounted there, no other file in it."""
    mounted = os.stat(folder).st_dev != os.stat("/").st_dev
    return folder == _OUR_PLUGINS and not mounted and _OUR_FILES.issuperset(os.listdir(folder))


def _make_room_for_plugins_of_roles(early: dict[object, list[str]]) -> None:
    """A role's own plugin may bear the name of one of Ansible's, and Ansible takes what is imported under that name."""
    plugin_loader = importlib.import_module("ansible.plugins.loader").PluginLoader
    add_directory = plugin_loader.add_directory
    module_utils, packed = _loader("module_utils"), _ansibles_packs()

    def add_directory_and_forget(self: object, *args: object, **kwargs: object) -> None:
        for name in early.pop(self, ()):
            sys.modules.pop(name, None)
        if self is module_utils:
            shutil.rmtree(packed, ignore_errors=True)
        add_directory(self, *args, **kwargs)

    plugin_loader.add_directory = add_directory_and_forget


def _parse_routing() -> None:
    """Ansible's table of moved plugins is a large YAML file that each start parses."""
    finder = importlib.import_module("ansible.utils.collection_loader._collection_finder")
    table = pkgutil.get_data("ansible.config", "ansible_builtin_runtime.yml")
    parse = finder._meta_yml_to_dict
    parsed = [parse(table, ("ansible.builtin", "runtime.yml"))]

    def parse_or_take(data: bytes, content_id: object) -> object:
        return parsed.pop() if parsed and data == table else parse(data, content_id)

    finder._meta_yml_to_dict = parse_or_take


def pack_modules() -> None:
    """Pack the modules while the image is built: it takes as long as all else here together."""
    importlib.import_module("ansible.cli.playbook")
    importlib.import_module("ansible.plugins.loader").init_plugin_loader()
    packer = importlib.import_module("ansible.executor.module_common")
    templar = importlib.import_module("ansible.template").Templar(loader=None)
    constants = importlib.import_module("ansible.constants")
    folder = importlib.import_module("ansible.modules").__path__[0]
    packer.datetime = _stopped_clock(packer.datetime)
    for name in _PACKED_AHEAD:
        packer.modify_module(
            module_name=f"ansible.legacy.{name}",
            module_path=os.path.join(folder, f"{name}.py"),
            module_args={},
            templar=templar,
            task_vars={"ansible_python_interpreter": "/usr/bin/python3"},
            module_compression=constants.DEFAULT_MODULE_COMPRESSION,
        )
    shutil.copytree(_ansibles_packs(), _our_packs(), ignore=shutil.ignore_patterns("*.lock"))


def _stopped_clock(datetime: Any) -> Any:
    """Python's ``datetime`` as the packer uses it, at a moment that is the same in every build: archives tell it."""
    day = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
    return SimpleNamespace(datetime=SimpleNamespace(now=lambda _zone: day), timezone=datetime.timezone)


def _take_packed_modules() -> None:
    """Lay them where Ansible keeps those that it has packed in this run, unless the operator has module_utils too."""
    if os.path.isdir(_our_packs()) and not _has_other_plugins(_loader("module_utils"), subdirs=False):
        shutil.copytree(_our_packs(), _ansibles_packs())


def _our_packs() -> str:
    """The folder of the image with the packed modules of exactly this Ansible; an update of Ansible finds none."""
    release = importlib.import_module("ansible.release")
    return f"/usr/local/lib/agp/packed-{release.__version__}-{int(os.stat(release.__file__).st_mtime)}"


def _ansibles_packs() -> str:
    constants = importlib.import_module("ansible.constants")
    return os.path.join(constants.DEFAULT_LOCAL_TMP, "ansiballz_cache")
