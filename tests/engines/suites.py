"""What any Docker engine is asked to pass, what only the machine's is, and a second engine to try it on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agp_agent import __version__
from support.own_engine import RUNNER_IMAGES, OwnEngine

ROOT: Final = Path(__file__).parents[2]
ON_MACHINES_ENGINE: Final = (
    "tests/integration/testcontainers",  # the agent in a container, by the machine's own socket
    "tests/integration/test_real_work.py",  # machines on the bridge of the machine's own engine
    "tests/integration/test_registry.py",  # a registry on the machine's own loopback
    "tests/integration/test_engine_and_neighbours.py",
)
"""Of the contract and the integration suites, what needs the machine's own engine."""
ON_ANY_ENGINE: Final = ("tests/contract", "tests/integration", *(f"--ignore={path}" for path in ON_MACHINES_ENGINE))
"""Arguments of pytest: the rest of these two."""

_FENCE: Final = f"agp/fence:{__version__}"
_BASE: Final = "debian:trixie-slim"  # an image that is no runner image


def without_those() -> Iterator[str]:
    """Arguments of pytest that leave ``ON_ANY_ENGINE`` out of whatever else it is told to run."""
    yield "--ignore=tests/contract"
    for path in sorted((ROOT / "tests/integration").iterdir()):
        name = str(path.relative_to(ROOT))
        if name not in ON_MACHINES_ENGINE and path.name.startswith("test"):
            yield f"--ignore={name}"


@contextmanager
def engine_for_suites(programs: Path | None = None) -> Iterator[OwnEngine]:
    """A second daemon in a network namespace of its own, with the images of the machine's; see ``OwnEngine``."""
    with OwnEngine(programs=programs, bridge=True) as engine:
        engine.start()
        engine.load_runner_images(*RUNNER_IMAGES, _FENCE, _BASE)
        yield engine
