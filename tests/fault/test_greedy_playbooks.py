"""Row 22: playbooks that want everything for themselves get their share and no more."""

import os
from pathlib import Path

from fault.conftest import StartWatched
from support.agent_process import AgentProcess
from support.waiting import eventually

MIB = 2**20
PIDS = 256
FORK_BOMB = "bomb() { bomb | bomb & }\nbomb 2>/dev/null\nwhile :; do :; done\n"
MEMORY_BOMB = "echo begin\nexec tail /dev/zero\n"
PLACES = ("/tmp", "/work", "/dev/shm", "/dev/mqueue", "/", "/usr", "/playbook", "/run", "/var/tmp", "/home")
FILLER = f"""\
for place in {" ".join(PLACES)}; do
    dd if=/dev/zero of=$place/filler bs=1M count=1000 2>/dev/null || echo "$place: no"
done
stat -c %s /tmp/filler /work/filler /dev/shm/filler
until [ -e /work/go ]; do sleep 0.05; done
exit 4
"""
FILLED = "".join(f"{place}: no\n" for place in PLACES) + f"{64 * MIB}\n{256 * MIB}\n{MIB}\n"
DISK_TOLERANCE_BYTES = 1024 * MIB
"""What others may write to the same disks meanwhile; the filler wants ten times as much."""


def _disks(agent: AgentProcess) -> list[int]:
    """Bytes that are free where the agent and, if that is on this machine, the engine keep their files."""
    folders = [agent.state, Path(agent.engine.client.info()["DockerRootDir"])]
    found = [os.statvfs(folder) for folder in folders if folder.exists()]
    return [stat.f_bavail * stat.f_frsize for stat in found]


def _pids(agent: AgentProcess, container: str) -> int:
    stats = agent.engine.client.api.stats(container, stream=False, one_shot=True)
    return int(stats["pids_stats"].get("current", 0))


def test_bombs_and_fillers_get_their_share_and_no_more(start_watched: StartWatched) -> None:
    """Row 22: beside a fork bomb, a memory bomb and full tmpfs the neighbours end well; no disk is touched."""
    watched = start_watched()
    agent = watched.agent
    disks = _disks(agent)
    bomb = watched.send(FORK_BOMB)
    hog = watched.send(MEMORY_BOMB)
    filler = watched.send(FILLER)
    neighbours = watched.neighbours()
    filling = agent.container_of(filler)
    agent.engine.wait_printed(filling, f"{256 * MIB}\n{MIB}\n".encode())
    bombing = agent.container_of(bomb)
    most = eventually(lambda: (now := _pids(agent, bombing)) > PIDS * 0.8 and now, "a fork bomb that went off")
    assert most <= PIDS
    for task_id in neighbours:  # while all of that goes on
        assert watched.dashboard.result(task_id)["error"] is None
    assert agent.engine.inspect(bombing)["State"]["Running"]
    assert agent.engine.client.api.inspect_container(filling)["State"]["Running"]
    (listed,) = agent.engine.client.api.containers(filters={"id": filling}, size=True)
    assert listed.get("SizeRw", 0) == 0
    assert all(before - now < DISK_TOLERANCE_BYTES for before, now in zip(disks, _disks(agent), strict=True))
    agent.engine.let_go(filling)
    agent.cancel(bomb)
    results = watched.check()
    assert results[bomb]["error"] == "cancelled"
    assert results[hog]["error"] == "killed: out of memory (limit 512 MiB)"
    assert results[filler]["error"] == "exit code 4"
    assert results[filler]["output"].partition("\n")[2] == FILLED
