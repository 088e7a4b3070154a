"""The lockdown as people are told it."""

from agp_agent import catalog
from agp_agent.catalog import Runner
from agp_agent.engine import Mount
from agp_agent.lacks import Lack
from agp_agent.lockdown import lockdown
from agp_agent.planner import Limits, plan

LIMITS = Limits(task_timeout_s=3600, stop_grace_s=10, output_limit_bytes=4 * 2**20)


def test_the_defaults_are_told() -> None:
    """Every measure has a name and a value."""
    told = lockdown(plan(catalog.load().runners["shell"], LIMITS, {}).container, network="none")
    assert told["user"] == "one of its own for each container, never root"
    assert (told["capabilities"], told["network"], told["swap"]) == ("none", "none", "none")
    assert (told["memory"], told["cpus"], told["processes"]) == ("512 MiB", "1", "256")
    assert told["writable"] == "/tmp (64 MiB in memory, noexec), /work (256 MiB in memory, noexec)"
    assert told["mounts"] == "the playbook alone, read-only"
    assert all(told.values())


def test_what_the_catalog_grants_is_told() -> None:
    """A writable mount is named among what is writable; values of the environment are not told."""
    runner = Runner.model_validate(
        {
            "name": "x",
            "image": "x",
            "command": ["{playbook}"],
            "memory": "1GiB",
            "env": {"WORD": "value"},
            "mounts": [{"source": "/srv/a", "target": "/a", "rw": True}, {"source": "/srv/b", "target": "/b"}],
            "runtime": "runsc",
        }
    )
    container = plan(runner, LIMITS, {}).in_slot("slot", 20007, Mount("bind", "/slot", "/playbook"))
    told = lockdown(container, network="none")
    assert (told["user"], told["memory"], told["runtime"], told["environment"]) == (
        "20007",
        "1024 MiB",
        "runsc",
        "WORD",
    )
    assert told["mounts"] == "/slot at /playbook, read-only, /srv/a at /a, writable, /srv/b at /b, read-only"
    assert told["writable"].endswith("/a (host)")
    assert "value" not in " ".join(told.values())


def test_what_the_engine_lacks_is_not_told_as_enforced() -> None:
    """Its operator accepted that; who reads the lockdown sees it."""
    container = plan(catalog.load().runners["shell"], LIMITS, {}).container
    told = lockdown(container, network="none", without={Lack.MEMORY, Lack.PIDS})
    missing = {name for name, value in told.items() if value.startswith("not enforced")}
    assert missing == {"memory", "swap", "processes"}
