"""Rivals that come from PyPI, in an environment of their own that ``make bench-peers`` makes.

Each runs in a process of its own that has imported everything before the first lap: their start is not measured.
"""

import contextlib
import io
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from bench.problem import BenchError
from bench.rivals import Lap
from bench.workbench import Workbench, say

_ROOT: Final = Path(__file__).parents[2]
PYTHON: Final = _ROOT / ".venv-peers" / "bin" / "python"
_SIDE: Final = Path(__file__).parent / "peer_process.py"
RUNS: Final[Mapping[str, str]] = {
    "airflow": "Airflow DockerOperator",
    "dagster": "Dagster Pipes client",
    "ansible-runner": "ansible-runner run_command",
    "epicbox": "epicbox",
}
"""Those that can run a plain command, and how they are called in the table."""
PLAYS: Final = "ansible-runner-playbook"


class Peer:
    """One rival in its process."""

    def __init__(self, name: str, image: str, folder: Path) -> None:
        """Start it; ``folder`` is its own.

        Raises:
            BenchError: it cannot run here, with its reason.
        """
        self.name = name
        folder.mkdir()
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [PYTHON, _SIDE, name, image, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # Ctrl-C is for the bench, which then ends it
        )
        self._answer()

    def lap(self) -> Lap:
        """Have it do its work once."""
        assert self._process.stdin is not None
        begin_s = time.perf_counter()
        self._process.stdin.write("lap\n")
        self._process.stdin.flush()
        self._answer()
        taken_ms = (time.perf_counter() - begin_s) * 1000
        return Lap(taken_ms, taken_ms)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _answer(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        problem = json.loads(line)["problem"] if line else self._last_words()
        if problem:
            raise BenchError(f"{self.name}: {problem}")

    def _last_words(self) -> str:
        self._log.seek(0)
        return (self._log.read().strip().splitlines() or ["it ended without a word"])[-1]


@contextlib.contextmanager
def peers(bench: Workbench, names: Mapping[str, str], runner: str) -> Iterator[dict[str, Callable[[], Lap]]]:
    """Those of the rivals that can run here, by how they are called; why others cannot is said.

    They get the runner's image without its entry, which waits for a release that only an agent sends.
    """
    if not PYTHON.exists():
        say(f"  left out, for `make bench-peers` was not run: {', '.join(names.values())}")
        yield {}
        return
    with contextlib.ExitStack() as stack:
        image = stack.enter_context(_bare_image(bench, runner))
        found: dict[str, Callable[[], Lap]] = {}
        for name, called in names.items():
            try:
                peer = Peer(name, image, bench.folder / f"peer-{name}")
                stack.callback(peer.close)
                peer.lap()
            except BenchError as error:
                say(f"  left out: {error}")
                continue
            found[called] = partial(Peer.lap, peer)
        yield found


@contextlib.contextmanager
def _bare_image(bench: Workbench, runner: str) -> Iterator[str]:
    tag = f"agp-bench/{runner}:{bench.agent_id}"
    recipe = f'FROM {bench.runners[runner].image}\nENTRYPOINT []\nCMD ["sh"]\nUSER root\n'
    for line in bench.client.build(fileobj=io.BytesIO(recipe.encode()), tag=tag, rm=True, decode=True):
        if "error" in line:
            raise BenchError(f"The image for the rivals cannot be made: {line['error']}")
    try:
        yield tag
    finally:
        for left in bench.client.containers(all=True, quiet=True, filters={"ancestor": tag}):  # Dagster leaves its own
            bench.client.remove_container(left["Id"], v=True, force=True)
        bench.client.remove_image(tag, force=True)
