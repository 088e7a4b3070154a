"""The catalog as it is in force, for people and for programs. Pure."""

from typing import Any, Final

from agp_agent.catalog import Catalog, Runner

_HEAD: Final = ("RUNNER", "IMAGE", "PULL", "TAKES", "NETWORK", "MEMORY", "GRANTS")
_MIB: Final = 2**20


def table(catalog: Catalog) -> str:
    """One line for each runner, in the order in which they are asked whether a playbook is theirs."""
    rows = [_HEAD, *(_row(runner) for runner in catalog.runners.values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def document(catalog: Catalog) -> list[dict[str, Any]]:
    """Everything that the catalog says of each runner; of secrets their names and files, never their values."""
    return [_document(runner) for runner in catalog.runners.values()]


def _row(runner: Runner) -> tuple[str, ...]:
    grants = [
        *(["inventory"] if runner.inventory else []),
        *(f"{mount.target}{':rw' if mount.rw else ''}" for mount in runner.mounts),
        *(f"secret {secret.name}" for secret in runner.secrets),
        *([f"runtime {runner.runtime}"] if runner.runtime else []),
    ]
    network = ", ".join([runner.network, *map(str, runner.allow)])
    memory = f"{runner.memory // _MIB} MiB"
    return (runner.name, runner.image, runner.pull, _takes(runner), network, memory, ", ".join(grants) or "-")


def _takes(runner: Runner) -> str:
    match = runner.match
    shebangs = [f"#!{name}" for name in match.shebangs]
    return " ".join([*match.suffixes, *shebangs, *(["plays"] if match.plays else [])]) or "-"


def _document(runner: Runner) -> dict[str, Any]:
    plain = runner.model_dump(mode="json", exclude={"tmpfs", "allow", "seccomp"})
    return plain | {
        "tmpfs": {path: {"size": one.size_bytes, "exec": one.executable} for path, one in runner.tmpfs.items()},
        "allow": [str(destination) for destination in runner.allow],
        "seccomp": str(runner.seccomp.path) if runner.seccomp else None,
    }
