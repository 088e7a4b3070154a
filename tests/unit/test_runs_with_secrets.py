"""Runs whose runner has secrets: handed over at the release, masked on every way out, and over the agent's death."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agp_agent.catalog import Catalog
from agp_agent.engine import ContainerLog
from agp_agent.errors import ContainerMissing
from agp_agent.executor import release_lines
from agp_agent.lifecycle import Outcome, Reason, Verdict
from agp_agent.planner import RunSpec, plan
from agp_agent.redaction import Masker, Needles
from agp_agent.secret_files import Secret
from agp_agent.watch import LiveRun, NeverStarted, Stop
from fakes.fake_host import FakeHost
from support.agent_parts import LABELS, LIMITS, Parts, agent, catalog_of, machine
from support.async_waiting import PATIENCE_S, until
from support.catalogs import write_secret

NONCE = "0123456789abcdef" * 2
SLOT = "agp-1"
SECRET = b"hunter2-password"


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    """A secret that can be used."""
    return Secret("key", write_secret(tmp_path / "secrets" / "key", SECRET))


@pytest.fixture
def catalog(secret: Secret) -> Catalog:
    """A shell runner that has it."""
    granted = {"name": secret.name, "source": str(secret.source)}
    runners = {"shell": {"secrets": [granted], "match": {"suffixes": [".sh"]}}}
    return catalog_of(**runners)


@pytest.fixture
async def host() -> AsyncIterator[FakeHost]:
    """The machine."""
    async with machine() as made:
        yield made


@pytest.fixture
async def parts(tmp_path: Path, host: FakeHost, catalog: Catalog) -> AsyncIterator[Parts]:
    """An agent's parts."""
    async with agent(tmp_path, host, catalog=catalog) as made:
        yield made


@pytest.fixture
def spec(catalog: Catalog) -> RunSpec:
    """The plan of the runner."""
    return plan(catalog.runners["shell"], LIMITS, LABELS)


async def released(parts: Parts, spec: RunSpec, playbook: str) -> LiveRun:
    """Prepare and release a playbook with the secret."""
    prepared = await parts.executor.prepare(spec, SLOT)
    run = await parts.executor.release(prepared, playbook.encode(), {}, NONCE, {"key": SECRET})
    await until(lambda: run.control.startswith(run.marker), "the start marker")
    return run


async def output_of(parts: Parts, run: LiveRun) -> str:
    """Watch a run to its end; what it printed, as it is kept."""

    async def note(_reason: object) -> None:
        pytest.fail("the agent stopped it")

    await parts.executor.watch(run, Stop(PATIENCE_S, asyncio.Event(), 1, note))
    return run.spool.output().text()


def test_secrets_stand_before_the_release_line() -> None:
    """In base64: any byte may stand in them."""
    value = b"\n\x00agp1 release"
    assert release_lines(NONCE, {"key": value}) == (
        b"agp1 secret key " + base64.b64encode(value) + f"\nagp1 release {NONCE}\n".encode()
    )


async def test_a_secret_reaches_the_playbook_and_never_the_spool(parts: Parts, spec: RunSpec) -> None:
    """Also where it is printed byte by byte; the rest is kept as it was printed."""
    single = "".join(f"bytes {byte:02x}\n" for byte in SECRET)
    run = await released(parts, spec, f"print before\nsecret key\nprint  after\n{single}print .\nexit 0\n")
    assert await output_of(parts, run) == "before\n[redacted] after\n[redacted].\n"
    assert SECRET not in b"".join(path.read_bytes() for path in parts.folder.rglob("spool/*"))


async def test_an_entry_that_takes_no_secrets_is_told_in_its_own_words(parts: Parts, spec: RunSpec) -> None:
    """An operator sees what is wrong with the image; the playbook certainly never started."""
    no_place = replace(spec.container, tmpfs={})
    prepared = await parts.executor.prepare(replace(spec, container=no_place), SLOT)
    run = await parts.executor.release(prepared, b"exit 0\n", {}, NONCE, {"key": SECRET})
    why = "its entry ended with exit code 125 before the playbook: the secret key came, and there is no writable"
    with pytest.raises(NeverStarted, match=f"^{why} /run/secrets for it$"):
        await output_of(parts, run)


async def test_what_only_began_like_a_secret_comes_out_at_the_end(parts: Parts, spec: RunSpec) -> None:
    """It was held back, and turned out to be none."""
    run = await released(parts, spec, f"print before\nbytes {SECRET[:9].hex()}\nexit 0\n")
    assert await output_of(parts, run) == f"before\n{SECRET[:9].decode()}"


async def test_nothing_of_a_secret_is_on_container_slot_or_note(parts: Parts, spec: RunSpec, host: FakeHost) -> None:
    """Only its fingerprint is noted."""
    await released(parts, spec, "forever\n")
    (container,) = host.containers.values()
    assert container.spec is not None
    texts = [repr(container.spec), *(path.read_text() for path in parts.folder.rglob("slots/**/*") if path.is_file())]
    assert not any(SECRET.decode() in text or base64.b64encode(SECRET).decode() in text for text in texts)
    assert len(json.loads((parts.folder / "slots" / SLOT / "note.json").read_text())["secrets_fingerprint"]) == 128


async def test_an_adopted_run_is_completed_from_a_masked_log(parts: Parts, spec: RunSpec, secret: Secret) -> None:
    """The earlier agent held half of a secret back when it died; nothing is missing, nothing leaks."""
    half = len(SECRET) // 2
    run = await released(
        parts,
        spec,
        f"print before\nbytes {SECRET[:half].hex()}\nsleep 0.1\nbytes {SECRET[half:].hex()}\nprint .\nsecret key\n",
    )
    await until(lambda: b"before" in run.spool.newest(100), "the first line")
    assert run.pump is not None
    run.pump.cancel()
    run.spool.discard()
    taken = await parts.executor.adopt(run.container_id, SLOT, NONCE, None, 4096, [secret])
    assert await output_of(parts, taken) == "before\n[redacted].\n[redacted]"


@pytest.mark.parametrize("cut", range(1, len(SECRET) - 2))
async def test_a_rotated_log_that_begins_inside_a_secret_tells_nothing_of_it(
    parts: Parts, spec: RunSpec, secret: Secret, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """Wherever the engine cut it off; the gap is stated."""
    run = await released(parts, spec, "print before\nexit 0\n")
    await parts.engine.wait(run.container_id)
    run.spool.discard()
    rotated = ContainerLog(SECRET[cut:] + b" and more\n" + SECRET + b"\n", run.marker, rotated=True)

    async def log(_container_id: str) -> ContainerLog:
        return rotated

    monkeypatch.setattr(parts.engine, "log", log)
    taken = await parts.executor.adopt(run.container_id, SLOT, NONCE, None, 4096, [secret])
    kept = await output_of(parts, taken)
    assert kept == "before\n[agp-agent: an unknown number of bytes omitted]\n and more\n[redacted]\n"


async def test_a_log_is_not_used_where_the_secret_is_another_one_now(
    parts: Parts, spec: RunSpec, secret: Secret
) -> None:
    """Nothing would mask what the playbook printed of the old one: a gap is stated in its place."""
    run = await released(parts, spec, "print before\nsleep 0.1\nsecret key\nexit 0\n")
    await until(lambda: b"before" in run.spool.newest(100), "the first line")
    assert run.pump is not None
    run.pump.cancel()
    run.spool.discard()
    write_secret(secret.source, b"the-password-of-today")
    taken = await parts.executor.adopt(run.container_id, SLOT, NONCE, None, 4096, [secret])
    assert await output_of(parts, taken) == "before\n[agp-agent: an unknown number of bytes omitted]\n"


@pytest.mark.parametrize("gone", ["file", "runner"])
async def test_a_log_is_not_used_where_the_secret_is_gone(
    parts: Parts, spec: RunSpec, secret: Secret, gone: str
) -> None:
    """The file, or the whole runner that had it."""
    run = await released(parts, spec, "secret key\nexit 0\n")
    await parts.engine.wait(run.container_id)
    run.spool.discard()
    secret.source.unlink()
    taken = await parts.executor.adopt(run.container_id, SLOT, NONCE, None, 4096, [secret] if gone == "file" else [])
    assert SECRET.decode() not in await output_of(parts, taken)
    assert taken.started


@pytest.mark.parametrize("note", [None, '{"secrets_fing'])
async def test_a_log_is_not_used_where_note_and_secrets_are_gone(
    parts: Parts, spec: RunSpec, secret: Secret, note: str | None
) -> None:
    """Nobody knows any more whether the run had secrets: nothing would mask them."""
    run = await released(parts, spec, "secret key\nexit 0\n")
    await parts.engine.wait(run.container_id)
    run.spool.discard()
    secret.source.unlink()
    path = parts.folder / "slots" / SLOT / "note.json"
    path.unlink() if note is None else path.write_text(note)
    taken = await parts.executor.adopt(run.container_id, SLOT, NONCE, None, 4096)
    assert SECRET.decode() not in await output_of(parts, taken)


async def test_a_run_that_had_no_secrets_is_completed_whatever_its_runner_has_now(parts: Parts, secret: Secret) -> None:
    """The catalog was changed meanwhile: there is nothing to hide in its log."""
    plain = plan(catalog_of().runners["shell"], LIMITS, LABELS)
    prepared = await parts.executor.prepare(plain, SLOT)
    run = await parts.executor.release(prepared, b"print before\nprint after\nexit 0\n", {"task_id": "t"}, NONCE)
    await parts.engine.wait(run.container_id)
    run.spool.discard()
    taken = await parts.executor.adopt(run.container_id, SLOT, NONCE, None, 4096, [secret])
    assert await output_of(parts, taken) == "before\nafter\n"


async def test_half_a_secret_is_not_told_where_the_rest_is_gone(
    parts: Parts, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream broke in the middle of one, and the container was removed with its log."""

    async def missing(container_id: str) -> ContainerLog:
        raise ContainerMissing(f"the container is gone: {container_id}")

    run = await released(parts, spec, f"print before\nbytes {SECRET[:9].hex()}\nsleep 0.2\nexit 0\n")
    await until(lambda: b"before" in run.spool.newest(100), "the first line")
    monkeypatch.setattr(parts.engine, "log", missing)
    parts.container().pipes[0].close()
    run.interrupted = True
    assert await output_of(parts, run) == "before\n[agp-agent: an unknown number of bytes omitted]\n"


async def test_the_agents_own_words_are_masked_while_a_run_has_secrets(
    parts: Parts, spec: RunSpec, host: FakeHost
) -> None:
    """In logs, audit and errors; with the run's end they are forgotten."""
    masker = parts.executor._masker
    run = await released(parts, spec, "exit 0\n")
    assert parts.executor.masked(f"why: {SECRET.decode()}") == "why: [redacted]"
    assert masker.tree({"a": [base64.b64encode(SECRET).decode()]}) == {"a": ["[redacted]"]}
    assert parts.executor.masked(None) is None
    await output_of(parts, run)
    await parts.executor.discard(SLOT)
    assert masker.text(SECRET.decode()) == SECRET.decode()
    assert host.containers == {}


def test_a_masker_holds_several_runs_apart() -> None:
    """Letting one go keeps the others masked."""
    masker = Masker(lambda: ())
    masker.hold("one", Needles([b"first-secret"]))
    masker.hold("two", Needles([b"second-secret"]))
    masker.let_go("one")
    masker.let_go("one")
    assert masker.text("first-secret second-secret \udcff") == "first-secret [redacted] \udcff"


async def test_a_task_whose_secret_cannot_be_read_ends_in_that_sentence(parts: Parts, secret: Secret) -> None:
    """It was not started, and nothing of it is left."""
    secret.source.chmod(0o644)
    parts.go(parts.dispatcher.run())
    run_id = await parts.post("print hi\n")
    error = (
        f"secret key is not available: {secret.source} has mode 0644, so everybody on this machine can read it; "
        "expected 0600 or 0400, or 0640 or 0440 where a group of its own reads it (for a Secret of Kubernetes: "
        "defaultMode 0440 and fsGroup)"
    )
    assert await parts.verdict(run_id) == Verdict(Outcome.ERROR, Reason.SECRET_UNAVAILABLE, error)
    await parts.clean()
    assert "task started" not in await parts.events()


async def test_a_task_runs_under_the_runner_it_was_accepted_under(parts: Parts) -> None:
    """The catalog was changed while it waited; its end is forgotten."""
    run_id = await parts.post("secret key\nexit 0\n")
    parts.catalogs.keep(run_id, parts.catalogs.current.runners["shell"])
    parts.catalogs.replace(catalog_of(other={}))
    parts.go(parts.dispatcher.run())
    verdict, due = await parts.result(run_id)
    assert verdict.outcome is Outcome.SUCCEEDED
    assert due.output.text() == "[redacted]"
    await parts.clean()
    assert parts.catalogs._kept == {}


async def test_an_entry_that_never_reads_keeps_nobody_waiting(
    parts: Parts, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile image takes no secrets: the run is watched all the same, and its deadline holds."""
    monkeypatch.setattr("agp_agent.executor._HAND_OVER_S", 0.01)
    prepared = await parts.executor.prepare(spec, SLOT)

    async def never(_data: bytes) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(prepared.attachment, "send", never)
    run = await parts.executor.release(prepared, b"exit 0\n", {}, NONCE, {"key": SECRET})
    assert run.interrupted
