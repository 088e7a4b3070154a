"""What the agent is compared to: the same script in the same image under the same lockdown, without an agent.

Fair to the rivals:

* The image's entry waits for a release on stdin, which only an agent needs. So both rivals name ``agp-shell``, what the
  entry would start, as their entrypoint, and have no stdin: they are spared the entry and the round trip.
* Neither keeps a journal, syncs anything to disk, reads back what the engine made, or looks for the image.
* The SDK loop uses the low-level client (the high-level one inspects more often), one for all rounds with its
  connection kept open, and sends the very body that the agent's planner and translation make. It takes the log after
  the exit, which costs less than an attached stream. Its result is there before it removes the container.
* ``docker run`` cannot ask for a container without network device configuration; ``--network none`` is what it has. It
  says that it is done only when the container is removed.
"""

import subprocess
import time
from dataclasses import dataclass
from typing import Final

from docker import APIClient

from agp_agent.docker_engine.http import create_container
from agp_agent.docker_engine.translate import Json, creation, tmpfs_options
from agp_agent.engine import ContainerSpec
from bench.problem import BenchError
from bench.workbench import Workbench

SCRIPT: Final = "echo ok\n"
OUTPUT: Final = "ok\n"
_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Lap:
    """One run of one contender, in milliseconds."""

    result_ms: float
    """Until exit code and output were there."""
    gone_ms: float
    """Until the container was removed, too."""


def sdk_lap(bench: Workbench, client: APIClient | None = None) -> Lap:
    """What the best plain user of the SDK writes: create, start, wait, logs, remove. ``client``: a thread's own."""
    spec, client = bench.plan(), client or bench.client
    begin_s = time.perf_counter()
    container_id = create_container(client, _without_entry(bench.slot(spec, SCRIPT)))
    client.start(container_id)
    exit_code = client.wait(container_id, timeout=_TIMEOUT_S)["StatusCode"]  # type: ignore[arg-type]  # takes fractions
    output: bytes = client.logs(container_id)
    result_s = time.perf_counter()
    client.remove_container(container_id)
    end_s = time.perf_counter()
    _check("the SDK loop", exit_code, output)
    return Lap((result_s - begin_s) * 1000, (end_s - begin_s) * 1000)


def cli_lap(bench: Workbench) -> Lap:
    """``docker run --rm`` with the same lockdown."""
    begin_s = time.perf_counter()
    command = ["docker", "run", "--rm", *flags(bench, bench.slot(bench.plan(), SCRIPT))]
    done = subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL)
    taken_ms = (time.perf_counter() - begin_s) * 1000
    _check("docker run", done.returncode, done.stdout or done.stderr)
    return Lap(taken_ms, taken_ms)


def _check(who: str, exit_code: int, output: bytes) -> None:
    if exit_code or output.decode(errors="replace") != OUTPUT:
        raise BenchError(f"{who} ended with exit code {exit_code} and printed {output[:300]!r}.")


def _in_a_file(bench: Workbench, option: str) -> str:
    """The client takes a seccomp profile by the name of its file."""
    name, _, profile = option.partition("=")
    if name != "seccomp" or not profile.startswith("{"):
        return option
    file = bench.folder / "seccomp.json"
    if not file.exists():
        file.write_text(profile)
    return f"seccomp={file}"


def _without_entry(spec: ContainerSpec) -> Json:
    no_stdin = {"AttachStdin": False, "OpenStdin": False, "StdinOnce": False}
    return creation(spec) | no_stdin | {"Entrypoint": [spec.command[0]], "Cmd": list(spec.command[1:])}


def flags(bench: Workbench, spec: ContainerSpec) -> list[str]:
    """The lockdown as ``docker run`` spells it, image and command at the end."""
    host = creation(spec)["HostConfig"]
    log = host["LogConfig"]
    flags = [
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--init",
        "--no-healthcheck",
        "--cgroupns=private",
        "--ipc=private",
        f"--user={spec.uid}:{spec.uid}",
        f"--hostname={spec.hostname}",
        f"--workdir={spec.working_dir}",
        f"--stop-timeout={spec.stop_timeout_s}",
        f"--memory={spec.memory_bytes}",
        f"--memory-swap={spec.memory_bytes}",
        f"--cpus={spec.cpus}",
        f"--pids-limit={spec.pids}",
        f"--shm-size={spec.shm_bytes}",
        f"--log-driver={log['Type']}",
        f"--entrypoint={spec.command[0]}",
        *(f"--security-opt={_in_a_file(bench, option)}" for option in host["SecurityOpt"]),
        *(f"--ulimit={limit['Name']}={limit['Soft']}:{limit['Hard']}" for limit in host["Ulimits"]),
        *(f"--log-opt={name}={value}" for name, value in log["Config"].items()),
        *(f"--tmpfs={path}:{tmpfs_options(tmpfs, spec.uid)}" for path, tmpfs in spec.tmpfs.items()),
        *(f"--label={name}={value}" for name, value in spec.labels.items()),
        *(f"--env={name}={value}" for name, value in spec.env.items()),
    ]
    mounts = (f"type=bind,src={one.source},dst={one.target},readonly,bind-propagation=rprivate" for one in spec.mounts)
    return [*flags, *(f"--mount={mount}" for mount in mounts), spec.image, *spec.command[1:]]
