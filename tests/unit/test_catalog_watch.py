"""Changes of the operator's catalog."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agp_agent import catalog
from agp_agent.audit import Audit
from agp_agent.catalog import Catalogs
from agp_agent.catalog_watch import CatalogWatch, unusable
from agp_agent.mount_rules import MountRules
from agp_agent.readiness import Readiness
from agp_agent.tokens import Tokens, TokenSource, fingerprint
from support.async_waiting import until
from support.catalogs import shell_runner, write_catalog, write_secret


class Watched:
    """A watch on a file, and all that it writes to."""

    def __init__(self, folder: Path) -> None:
        self.path = write_catalog(folder / "catalog.yaml", {"a": shell_runner(".a")})
        self.catalogs = Catalogs(catalog.load(self.path))
        self.readiness = Readiness()
        self.changed = self.catalogs.subscribe()
        self.audit_path = folder / "audit.jsonl"
        self.audit = Audit(self.audit_path)
        self.watch = CatalogWatch(self.catalogs, self.readiness, self.audit, self.path, MountRules())

    async def look(self, times: int = 2) -> None:
        """Look so often: twice sees what has been written to its end."""
        for _ in range(times):
            await self.watch.look(self.path)

    async def audited(self) -> list[dict[str, Any]]:
        """All lines of the trail."""
        await self.audit.flush()
        return [json.loads(line) for line in self.audit_path.read_text().splitlines()]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A watch that has seen nothing yet."""
    return Watched(tmp_path)


async def test_nothing_happens_while_nothing_changes(watched: Watched) -> None:
    """The same catalog written again is no change either."""
    await watched.look(4)
    write_catalog(watched.path, {"a": shell_runner(".a")})
    await watched.look(4)
    assert not watched.changed.is_set()
    assert await watched.audited() == []


async def test_a_file_that_is_being_written_is_left_alone(watched: Watched) -> None:
    """Half a catalog is not read, and not complained about: only what looks the same twice is."""
    await watched.look()
    watched.path.write_text("runners: {a: {image: ")
    await watched.look(1)
    write_catalog(watched.path, {"b": shell_runner(".b")})
    await watched.look(1)
    assert watched.readiness.warnings == {}
    assert "b" not in watched.catalogs.current.runners
    await watched.look(1)
    assert "b" in watched.catalogs.current.runners
    assert watched.changed.is_set()
    (line,) = await watched.audited()
    assert (line["event"], line["runners"]["b"]) == ("config loaded", shell_runner("")["image"])


async def test_what_else_is_configured_stands_in_the_audit_trail(watched: Watched) -> None:
    """The tokens that are valid, by their fingerprints: a rotation can be followed from where it began."""
    tokens = Tokens(
        TokenSource("AGP_TOKEN", SecretStr("inbound-token-of-now"), None),
        TokenSource("AGP_DASHBOARD_TOKEN", SecretStr("outbound-token-of-now"), None),
    )
    rules = MountRules()
    watch = CatalogWatch(watched.catalogs, Readiness(), watched.audit, None, rules, tokens.fingerprints)
    await watch.run()
    (line,) = await watched.audited()
    assert line["token_fingerprints"] == [fingerprint(b"inbound-token-of-now")]
    assert line["dashboard_token_fingerprints"] == [fingerprint(b"outbound-token-of-now")]


async def test_what_each_runner_is_granted_stands_in_the_audit_trail(watched: Watched, tmp_path: Path) -> None:
    """At the start, and after every change; of a secret its name alone. A runner without grants has none to tell."""
    start = asyncio.create_task(watched.watch.run())
    await until(lambda: watched.audit.head.seq == 1, "the catalog of the start")
    start.cancel()
    profile, folder = tmp_path / "profile.json", tmp_path / "data"
    profile.write_text('{"defaultAction": "SCMP_ACT_ERRNO"}')
    folder.mkdir()
    secret = write_secret(tmp_path / "held" / "file", b"hunter2-password")
    keys = {
        "network": "outbound",
        "allow": ["10.20.0.0/16:22"],
        "mounts": [{"source": str(folder), "target": "/data", "rw": True}],
        "user": 60000,
        "seccomp": str(profile),
        "runtime": "runsc",
    }
    secrets = [{"name": "db", "source": str(secret)}]
    write_catalog(watched.path, {"a": shell_runner(".a", **keys, secrets=secrets), "b": shell_runner(".b")})
    await watched.look(3)
    first, second = await watched.audited()
    assert first["grants"] == {}
    assert second["grants"] == {"a": keys | {"secrets": ["db"]}}
    assert second["sha256"] == watched.catalogs.current.sha256 != first["sha256"]
    assert str(secret) not in watched.audit_path.read_text()


@pytest.mark.parametrize(
    "change", [{"env": {"A": "b"}}, {"memory": "1GiB"}, {"command": ["agp-shell", "-x", "{playbook}"]}]
)
def test_whatever_changes_in_a_catalog_changes_its_hash(tmp_path: Path, change: dict[str, Any]) -> None:
    """The same one has the same."""
    one = catalog.load(write_catalog(tmp_path / "one.yaml", {"a": shell_runner(".a")}))
    same = catalog.load(write_catalog(tmp_path / "same.yaml", {"a": shell_runner(".a")}))
    other = catalog.load(write_catalog(tmp_path / "other.yaml", {"a": shell_runner(".a") | change}))
    assert one.sha256 == same.sha256 != other.sha256


async def test_an_invalid_catalog_leaves_the_old_one_in_force_until_it_is_mended(watched: Watched) -> None:
    """It is a warning, and no reason not to be ready."""
    await watched.look()
    before = watched.catalogs.current
    watched.path.write_text("runners: {a: {image: 5}}")
    await watched.look()
    assert watched.catalogs.current is before
    assert "runner a, image: expected text." in watched.readiness.warnings["catalog"]
    assert watched.readiness.problems == {}
    watched.path.unlink()
    await watched.look()
    assert "cannot be read" in watched.readiness.warnings["catalog"]
    write_catalog(watched.path, {"a": shell_runner(".a")})
    await watched.look()
    assert watched.readiness.warnings == {}
    assert watched.catalogs.current == before


async def test_a_file_beside_the_catalog_counts_too(watched: Watched, tmp_path: Path) -> None:
    """A seccomp profile that is changed, and one that was missing when the catalog was written."""
    profile = tmp_path / "profile.json"
    write_catalog(watched.path, {"a": shell_runner(".a", seccomp=str(profile))})
    await watched.look()
    assert f"{profile} cannot be read" in watched.readiness.warnings["catalog"]
    profile.write_text('{"defaultAction": "SCMP_ACT_ERRNO"}')
    await watched.look()
    runner = watched.catalogs.current.runners["a"]
    assert runner.seccomp is not None
    assert runner.seccomp.text == '{"defaultAction":"SCMP_ACT_ERRNO"}'
    profile.write_text('{"defaultAction": "SCMP_ACT_KILL_PROCESS"}')
    await watched.look()
    runner = watched.catalogs.current.runners["a"]
    assert runner.seccomp is not None
    assert "KILL" in runner.seccomp.text


def test_secrets_that_cannot_be_used_are_told_beforehand(tmp_path: Path) -> None:
    """One sentence each."""
    good = {"name": "good", "source": str(write_secret(tmp_path / "good", b"hunter2-password"))}
    bad = {"name": "bad", "source": str(tmp_path / "missing")}
    path = write_catalog(tmp_path / "catalog.yaml", {"a": shell_runner(".a", secrets=[good, bad])})
    (problem,) = unusable(catalog.load(path).runners["a"])
    assert problem.startswith("secret bad is not available: ")
