"""``make release-check``: everything that is shipped, built twice and compared, listed, installed and tried.

Writes the wheel and the lists of parts (CycloneDX) into dist/. Exit code 0 where all of it is well.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import docker
from docker.errors import DockerException
from rich.console import Console
from testcontainers.core.config import testcontainers_config

from agp_agent import __version__
from agp_agent.models import TaskStatus
from agp_agent.testing import AgentContainer, ResultInbox
from demo.__main__ import EXAMPLES, EXPECTED_FAILURES, PLAYBOOKS
from release.images import NAMES, ROOT, built_again, differences, revision_of, tag_of, tree_of
from release.sbom import write_sbom
from release.wheel import built_wheel, installed, version_of

DIST = ROOT / "dist"
console = Console(soft_wrap=True, highlight=False)


class NotAsItShouldBe(Exception):
    """A part of the release is not fit to be shipped."""


def main() -> int:
    """Run every step, whatever the ones before found; the exit code."""
    steps: list[tuple[str, Callable[[], str]]] = [("one commit", check_commit), ("wheel", check_wheel)]
    steps += [(tag_of(name), lambda name=name: check_image(name)) for name in NAMES]  # type: ignore[misc]
    steps.append(("the demo, by the agent's image", check_demo))
    failed = [name for name, step in steps if not _done(name, step)]
    console.print(
        f"release-check: {'not fit: ' + ', '.join(failed) if failed else f'{__version__} is fit to be shipped'}."
    )
    return bool(failed)


def _done(name: str, step: Callable[[], str]) -> bool:
    console.print(f"{name} …")
    try:
        console.print(f"  ok: {step()}", markup=False)
    except (NotAsItShouldBe, TimeoutError, LookupError, AssertionError, subprocess.CalledProcessError) as error:
        console.print(f"  FAILED: {error}", style="red", markup=False)
        return False
    except DockerException as error:
        console.print(f"  FAILED: {error}", style="red", markup=False)
        return False
    return True


def check_commit() -> str:
    """Nothing is changed in the checkout, and every image says that it was built of its commit."""
    if changed := _git("status", "--porcelain"):
        raise NotAsItShouldBe(f"the checkout has changes that are not committed:\n{changed}")
    head, client = _git("rev-parse", "HEAD"), docker.from_env()
    of = {name: revision_of(client, name) for name in NAMES}
    if others := {name: revision for name, revision in of.items() if revision != head}:
        raise NotAsItShouldBe(f"HEAD is {head}, and these images are of other commits: {others}")
    return f"{head[:12]}, and all images are of it"


def _git(*arguments: str) -> str:
    return subprocess.run(("git", *arguments), cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def check_wheel() -> str:
    """Two builds are the same bytes; in an environment of its own it shows its help and knows its commit."""
    with tempfile.TemporaryDirectory(prefix="agp-release-") as folder:
        wheel, again = built_wheel(DIST), built_wheel(Path(folder) / "again")
        if wheel.read_bytes() != again.read_bytes():
            raise NotAsItShouldBe("two builds of the wheel differ")
        told = version_of(installed(wheel, Path(folder) / "venv"))
    if told["version"] != __version__ or not told["commit"]:
        raise NotAsItShouldBe(f"it says of itself {told}")
    return f"{wheel.relative_to(ROOT)}, built twice, installed, commit {told['commit'][:12]}"


def check_image(name: str) -> str:
    """Two builds have the same files; its list of parts is written."""
    client = docker.from_env(timeout=600)
    with built_again(client, name) as again:
        found = differences(tree_of(client, tag_of(name)), tree_of(client, again))
    if found:
        raise NotAsItShouldBe("two builds differ:\n" + "\n".join(f"    {line}" for line in found[:20]))
    parts = write_sbom(client, tag_of(name), DIST / f"{name}-{__version__}.cdx.json")
    size = client.images.get(tag_of(name)).attrs["Size"] / 10**6
    return f"built twice, {size:.0f} MB, {len(parts)} parts in dist/{name}-{__version__}.cdx.json"


def check_demo() -> str:
    """The demonstration's playbooks, sent to the agent's image, end as they should."""
    testcontainers_config.ryuk_disabled = True  # the helper removes what it made
    with ResultInbox() as inbox, AgentContainer(inbox.url, inbox.token) as agent:
        for name in PLAYBOOKS:
            answer = agent.send(name, (EXAMPLES / name).read_text(), name)
            if answer.status != 202:
                raise NotAsItShouldBe(f"{name}: {answer.body}")
        failed = {name for name in PLAYBOOKS if inbox.wait(name).status is TaskStatus.FAILED}
    if failed != EXPECTED_FAILURES:
        raise NotAsItShouldBe(f"these failed: {sorted(failed)}")
    return f"{len(PLAYBOOKS)} playbooks ran, and {', '.join(EXPECTED_FAILURES)} failed on purpose"


if __name__ == "__main__":
    sys.exit(main())
