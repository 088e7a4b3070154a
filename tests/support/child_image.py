"""The example of a child image, built as its Dockerfile says: of packages fetched before, and without a network."""

import contextlib
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import docker
from docker.errors import APIError

from agp_agent import __version__

ROOT: Final = Path(__file__).parents[2]
_BUILD_S: Final = 120


@contextlib.contextmanager
def child_image(client: docker.DockerClient, folder: Path) -> Iterator[str]:
    """Its name. Nothing of it is on the engine afterwards; ``folder`` must not exist yet."""
    shutil.copytree(ROOT / "docs/examples/python-extra", folder)
    shutil.copytree(ROOT / "build/tools/wheelhouse", folder / "wheelhouse")  # .ci/test-tools makes it
    name = f"example/runner-python-extra:{secrets.token_hex(8)}"
    arguments = {"RUNNER_IMAGE": f"agp/runner-python:{__version__}", "VERSION": __version__}
    _, said = client.images.build(
        path=str(folder), tag=name, buildargs=arguments, network_mode="none", rm=True, forcerm=True, timeout=_BUILD_S
    )
    printed = "".join(str(line["stream"]) for line in said if isinstance(line, dict) and "stream" in line)
    try:
        yield name
    finally:
        client.images.remove(name)
        for step in reversed(re.findall(r"---> ([0-9a-f]{12})\n", printed)):
            # Of the stage that was thrown away. The images that it began with have names, and stay.
            with contextlib.suppress(APIError):
                if not client.images.get(step).tags:
                    client.images.remove(step)
