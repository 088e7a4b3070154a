"""Measurement 2: a playbook of two tasks with facts, warm and cold, beside ansible-runner and plain docker run."""

import contextlib
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from bench import peers
from bench.lanes import Script
from bench.problem import BenchError
from bench.rivals import Lap, flags
from bench.single import COLD, WARM, lane, run_in_turn
from bench.stats import Row, median, paired_ratio, verdict
from bench.workbench import HAS_POOL, Workbench

_SECTION: Final = "A playbook of two tasks with facts, Ansible"
_RUNNER: Final = "ansible"
_LOCKED: Final = "docker run, same lockdown"
_PLAIN: Final = "docker run … ansible-playbook"
_PEER: Final = "ansible-runner, container isolation"
_GOAL: Final = 0.5
_TIMEOUT_S: Final = 120.0
_WARM_UP_ROUNDS: Final = 1
_PLAYBOOK: Final = """- hosts: localhost
  connection: local
  tasks:
    - name: a command
      ansible.builtin.command: echo ok
    - name: a fact
      ansible.builtin.debug:
        msg: "{{ ansible_facts.distribution }}"
"""
_SCRIPT: Final = Script("site.yml", _PLAYBOOK, "failed=0")


def measure(bench: Workbench, rounds: int) -> list[Row]:
    """All contenders in turn."""
    (bench.folder / "site.yml").write_text(_PLAYBOOK)  # where the rival looks for it
    with contextlib.ExitStack() as stack:
        lanes = {COLD: lane(bench, stack, _SCRIPT, runner=_RUNNER)}
        if HAS_POOL:
            lanes[WARM] = lane(bench, stack, _SCRIPT, warm=True, runner=_RUNNER)
        contenders: dict[str, Callable[[], Lap]] = {name: one.lap for name, one in lanes.items()}
        contenders |= {_LOCKED: partial(_locked_lap, bench), _PLAIN: partial(_plain_lap, bench)}
        contenders |= stack.enter_context(peers.peers(bench, {peers.PLAYS: _PEER}, _RUNNER))
        laps = run_in_turn(bench, contenders, rounds, list(lanes.values()), _WARM_UP_ROUNDS)
    result = {name: [lap.result_ms for lap in done] for name, done in laps.items()}
    return [_row(name, ms, result) for name, ms in result.items()]


def _row(name: str, ms: list[float], result: dict[str, list[float]]) -> Row:
    others = [other for other in (_PEER, _PLAIN) if other in result and other != name]
    beside = "; ".join(f"{paired_ratio(ms, result[other])} x {other}" for other in others)
    goal = ""
    if name == WARM and _PEER in result:
        goal = verdict(f"<= {_GOAL} x ansible-runner", met=median(ms) <= _GOAL * median(result[_PEER]))
    what = f"{name}: POST to acknowledged" if name in {COLD, WARM} else f"{name}: to its end"
    return Row(_SECTION, what, "ms", tuple(ms), beside, goal)


def _locked_lap(bench: Workbench) -> Lap:
    """With every flag that the agent asks for."""
    return _run(["docker", "run", "--rm", *flags(bench, bench.slot(bench.plan(_RUNNER), _PLAYBOOK))])


def _plain_lap(bench: Workbench) -> Lap:
    """As people type it: no flag but the mount."""
    spec = bench.slot(bench.plan(_RUNNER), _PLAYBOOK)
    mounts = [f"--volume={one.source}:{one.target}:ro" for one in spec.mounts]
    inventory = ["--inventory=localhost,", "--extra-vars=ansible_python_interpreter=/usr/bin/python3"]
    own = [f"--label=agp.agent_id={bench.agent_id}", "--entrypoint=ansible-playbook", "--user=root", *mounts]
    return _run(["docker", "run", "--rm", *own, spec.image, *inventory, spec.command[-1]])


def _run(command: list[str]) -> Lap:
    begin_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL)
    taken_ms = (time.perf_counter() - begin_s) * 1000
    if done.returncode or _SCRIPT.output.encode() not in done.stdout:
        raise BenchError(f"docker run ended with {done.returncode}: {(done.stdout + done.stderr)[-500:]!r}")
    return Lap(taken_ms, taken_ms)
