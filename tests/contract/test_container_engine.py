"""Every promise of the ``ContainerEngine`` port, kept by the fake and by Docker alike."""

import asyncio
import base64
from dataclasses import replace

import pytest

from agp_agent.engine import ContainerEngine, NameTaken, PullPolicy, Signal, Stream, Tmpfs
from agp_agent.errors import ContainerMissing, EngineError, EngineUnavailable, ImageUnavailable, LockdownRefused
from agp_agent.secret_files import SECRETS_DIR
from contract.rig import FENCE, FENCE_IMAGE, MARKER, NO_IMAGE, NONCE, RELEASE, Rig, everything
from contract.scripts import (
    EAT_MEMORY,
    IGNORE_TERM,
    RUN_FOREVER,
    complain,
    emit,
    flood,
    leave,
    pause,
    say,
    show_secret,
)

NO_CONTAINER = "agp-no-such-container"


class TestEngineAndImages:
    """Who the engine is, and which images it has."""

    async def test_describes_itself(self, engine: ContainerEngine) -> None:
        """The engine tells its version and what its host has."""
        info = await engine.describe()
        assert info.version
        assert info.cores >= 1
        assert info.memory_bytes > 2**20

    @pytest.mark.parametrize("policy", [PullPolicy.NEVER, PullPolicy.MISSING])
    async def test_finds_an_image_that_is_there(self, rig: Rig, policy: PullPolicy) -> None:
        """An image that is on the engine is found without a pull, and its digest is a content hash."""
        image = await rig.engine.image(rig.image, policy)
        assert image.name == rig.image
        assert image.digest.startswith("sha256:")

    @pytest.mark.parametrize("policy", list(PullPolicy))
    async def test_says_which_image_is_not_available(self, engine: ContainerEngine, policy: PullPolicy) -> None:
        """An image that cannot be had is an error that names it, whatever the policy."""
        with pytest.raises(ImageUnavailable, match=f"image {NO_IMAGE} is not available: "):
            await engine.image(NO_IMAGE, policy)

    async def test_tells_everybody_that_a_name_leads_to_another_image(self, rig: Rig) -> None:
        """Each listener has an event of its own, which stays set until it takes note."""
        listeners = [rig.engine.image_news() for _ in range(2)]
        for listener in listeners:
            listener.clear()
        await rig.tag(f"{rig.name()}:1")
        async with asyncio.timeout(20):
            for listener in listeners:
                await listener.wait()


class TestCreate:
    """A container that exists and does nothing yet."""

    async def test_creates_without_starting(self, rig: Rig) -> None:
        """A created container neither runs nor has ended."""
        state = await rig.engine.inspect(await rig.created())
        assert (state.running, state.ended, state.error) == (False, False, "")

    async def test_the_image_may_be_named_by_its_id(self, rig: Rig) -> None:
        """So that what was found is what runs, wherever its tag points by then."""
        image = await rig.engine.image(rig.image, PullPolicy.NEVER)
        state = await rig.engine.inspect(await rig.engine.create(replace(rig.spec(), image=image.image_id)))
        assert (state.running, state.ended, state.error) == (False, False, "")

    async def test_a_name_is_a_mutex(self, rig: Rig) -> None:
        """Of many simultaneous creates with one name exactly one wins."""
        spec = rig.spec()
        made = await asyncio.gather(*(rig.engine.create(spec) for _ in range(10)), return_exceptions=True)
        assert sum(isinstance(one, str) for one in made) == 1
        assert sum(isinstance(one, NameTaken) for one in made) == 9

    async def test_refuses_an_empty_name(self, rig: Rig) -> None:
        """Without a name nothing would stop a second container for the same slot."""
        with pytest.raises(EngineError, match="needs a name"):
            await rig.engine.create(replace(rig.spec(), name=""))

    async def test_refuses_a_missing_image(self, rig: Rig) -> None:
        """An image that is gone is told apart from other refusals."""
        with pytest.raises(ImageUnavailable):
            await rig.engine.create(replace(rig.spec(), image=NO_IMAGE))

    async def test_refuses_a_missing_folder(self, rig: Rig) -> None:
        """A bind mount's missing source is an error, and no folder is made on the host."""
        spec = rig.spec()
        mount = replace(spec.mounts[0], source="/nonexistent/agp-contract")
        with pytest.raises(EngineError, match="/nonexistent/agp-contract"):
            await rig.engine.create(replace(spec, mounts=(mount,)))
        assert await rig.engine.owned(rig.labels) == []

    async def test_removes_and_refuses_what_is_weaker_than_asked(self, rig: Rig) -> None:
        """A container that reads back weaker is removed, and the error names the field."""
        rig.weaken()
        with pytest.raises(LockdownRefused, match=r"HostConfig\.Privileged"):
            await rig.created()
        assert await rig.engine.owned(rig.labels) == []

    async def test_refuses_a_runtime_that_the_engine_does_not_have(self, rig: Rig) -> None:
        """The error names it, and those that there are."""
        with pytest.raises(EngineError, match=r"the engine has no runtime agp-none; it has .*runc"):
            await rig.engine.create(replace(rig.spec(), runtime="agp-none"))
        assert await rig.engine.owned(rig.labels) == []

    async def test_takes_a_runtime_that_the_engine_has(self, rig: Rig) -> None:
        """And reads it back."""
        assert (await rig.run_spec(replace(rig.spec(say("hello")), runtime="runc"))).output == b"hello\n"

    async def test_refuses_a_network_that_is_not_there(self, rig: Rig) -> None:
        """A container that was to have a network and has none is of no use to its playbook."""
        with pytest.raises(EngineError, match="agp-no-such-network"):
            await rig.run_spec(replace(rig.spec(), network="agp-no-such-network"))


class TestMountsAndSecrets:
    """What the operator's catalog grants beside the playbook."""

    @pytest.mark.parametrize("read_only", [True, False])
    async def test_makes_further_mounts_as_asked(self, rig: Rig, *, read_only: bool) -> None:
        """Read-only or writable: what is made is what is read back."""
        mount = replace(rig.folder(), target="/inventory", read_only=read_only)
        spec = rig.spec(say("hello"))
        assert (await rig.run_spec(replace(spec, mounts=(*spec.mounts, mount)))).output == b"hello\n"

    async def test_secrets_come_before_the_release(self, rig: Rig) -> None:
        """Byte for byte, into a folder in memory."""
        spec = rig.spec(show_secret("key"))
        spec = replace(spec, tmpfs={**spec.tmpfs, SECRETS_DIR: Tmpfs(2**20)})
        value = bytes(range(256))
        run = await rig.run_spec(spec, before_release=b"agp1 secret key " + base64.b64encode(value) + b"\n")
        assert (run.output, run.control) == (value, MARKER)

    async def test_a_secret_without_a_place_for_it_is_refused(self, rig: Rig) -> None:
        """The playbook does not start, and the value is not told."""
        run = await rig.run_spec(rig.spec(say("hello")), before_release=b"agp1 secret key c2VjcmV0\n")
        assert (run.output, run.state.exit_code) == (b"", 125)
        assert run.control.startswith(b"agp1 error the secret key came")
        assert b"c2VjcmV0" not in run.control


class TestStreams:
    """The attachment: every byte, in order, from the first to the last."""

    @pytest.mark.parametrize("code", [0, 3, 255])
    async def test_passes_output_and_exit_code_on(self, rig: Rig, code: int) -> None:
        """Output and control are apart, stderr stands in its true place in the output, and the exit code is right."""
        run = await rig.run(say("one"), complain("two"), say("three"), leave(code))
        assert run.output == b"one\ntwo\nthree\n"
        assert run.control == MARKER
        assert (run.state.ended, run.state.running, run.state.exit_code) == (True, False, code)

    async def test_bytes_are_not_changed(self, rig: Rig) -> None:
        """What is no text comes through as it is."""
        data = bytes(range(256))
        assert (await rig.run(emit(data))).output == data

    async def test_waits_for_the_release(self, rig: Rig) -> None:
        """A prepared container runs and prints nothing."""
        container_id, attachment = await rig.prepared(say("hello"))
        assert (await rig.engine.inspect(container_id)).running
        assert (await rig.engine.log(container_id)).output == b""
        await attachment.aclose()

    async def test_release_may_come_in_pieces(self, rig: Rig) -> None:
        """Only the newline ends the release line."""
        _, attachment = await rig.prepared(say("hello"))
        await attachment.send(RELEASE[:10])
        await attachment.send(RELEASE[10:])
        assert await everything(attachment) == (b"hello\n", MARKER)
        await attachment.aclose()

    async def test_another_line_is_refused(self, rig: Rig) -> None:
        """The entry ends with 125 and says why on control, and the playbook never begins."""
        container_id, attachment = await rig.prepared(say("hello"))
        await attachment.send(b"agp1 something else\n")
        output, control = await everything(attachment)
        assert output == b""
        assert control.startswith(b"agp1 error ")
        assert (await rig.engine.wait(container_id)).exit_code == 125
        await attachment.aclose()

    async def test_a_prepared_container_ends_with_its_attachment(self, rig: Rig) -> None:
        """Its stdin closes when the attachment closes: it ends with 125 by itself, without a marker."""
        container_id, attachment = await rig.prepared(say("hello"))
        await attachment.aclose()
        assert (await rig.engine.wait(container_id)).exit_code == 125
        log = await rig.engine.log(container_id)
        assert (log.output, log.control) == (b"", b"")

    async def test_a_released_container_outlives_its_attachment(self, rig: Rig) -> None:
        """After the release nothing depends on the connection any more."""
        container_id, attachment = await rig.released(pause(0.3), say("done"))
        await attachment.aclose()
        assert (await rig.engine.wait(container_id)).exit_code == 0
        assert (await rig.engine.log(container_id)).output == b"done\n"

    async def test_nothing_can_be_sent_after_closing(self, rig: Rig) -> None:
        """A closed attachment says so, and closing it again changes nothing."""
        _, attachment = await rig.prepared()
        await attachment.aclose()
        await attachment.aclose()
        with pytest.raises(EngineUnavailable):
            await attachment.send(RELEASE)

    async def test_output_that_nobody_reads_stalls_the_container(self, rig: Rig) -> None:
        """No byte is lost while nobody reads: the container waits."""
        container_id, attachment = await rig.prepared(flood(8_000_000))
        await attachment.send(RELEASE)
        await asyncio.sleep(0.5)
        assert (await rig.engine.inspect(container_id)).running
        output, _ = await everything(attachment)
        assert len(output) == 8_000_000
        assert (await rig.engine.wait(container_id)).exit_code == 0
        await attachment.aclose()

    async def test_a_late_attachment_sees_only_what_comes(self, rig: Rig) -> None:
        """An attachment opened after the start begins where it was opened."""
        container_id, first = await rig.prepared(say("early"), pause(1), say("late"))
        await first.send(RELEASE)
        seen = b""
        async for stream, data in first.frames():
            seen += data if stream is Stream.OUTPUT else b""
            if seen:
                break
        second = await rig.engine.attach(container_id)
        assert seen == b"early\n"
        assert await everything(second) == (b"late\n", b"")
        await first.aclose()
        await second.aclose()


class TestEnd:
    """Starting, waiting, signals and the end."""

    async def test_start_is_idempotent_while_it_runs(self, rig: Rig) -> None:
        """A second start of a running container changes nothing."""
        container_id, attachment = await rig.prepared(say("once"))
        await rig.engine.start(container_id)
        await attachment.send(RELEASE)
        assert await everything(attachment) == (b"once\n", MARKER)
        await attachment.aclose()

    async def test_an_ended_container_is_never_started_again(self, rig: Rig) -> None:
        """A second start after the end is an error, and nothing runs."""
        container_id, attachment = await rig.prepared()
        await attachment.aclose()
        await rig.engine.wait(container_id)
        with pytest.raises(EngineError, match="never started again"):
            await rig.engine.start(container_id)
        assert (await rig.engine.inspect(container_id)).ended

    async def test_everybody_who_waits_is_told(self, rig: Rig) -> None:
        """Waiting may begin before the start, in the middle or after the end, any number of times."""
        container_id = await rig.created(leave(3))
        early = asyncio.create_task(rig.engine.wait(container_id))
        attachment = await rig.engine.attach(container_id)
        await rig.engine.start(container_id)
        middle = asyncio.create_task(rig.engine.wait(container_id))
        await attachment.send(RELEASE)
        states = [await early, await middle, await rig.engine.wait(container_id)]
        assert [state.exit_code for state in states] == [3, 3, 3]
        await attachment.aclose()

    async def test_wait_does_not_poll(self, rig: Rig) -> None:
        """While nothing happens the engine is not asked anything; in the end it is told that it was seen running."""
        container_id, attachment = await rig.released(RUN_FOREVER)
        waiter = asyncio.create_task(rig.engine.wait(container_id))
        await asyncio.sleep(1.5)  # the start's own event may still have been on its way
        before = rig.calls
        await asyncio.sleep(1.5)
        assert rig.calls == before
        await rig.engine.signal(container_id, Signal.KILL)
        state, later = await waiter, await rig.engine.wait(container_id)
        assert (state.ended, state.seen_ending) == (True, True)
        assert (later.ended, later.seen_ending) == (True, False)
        await attachment.aclose()

    @pytest.mark.parametrize("how", ["ends", "killed", "removed", "paused"])
    async def test_what_spoils_a_container_that_waits_is_told(self, rig: Rig, how: str) -> None:
        """Nothing is asked while it waits; whatever happens to it then is noticed, and a pause can be seen."""
        container_id, attachment = await rig.prepared(RUN_FOREVER)
        spoiled = asyncio.create_task(rig.engine.spoiled(container_id))
        await asyncio.sleep(1.5)  # the start's own event may still have been on its way
        before = rig.calls
        await asyncio.sleep(0.5)
        assert (spoiled.done(), rig.calls) == (False, before)
        match how:
            case "ends":
                await attachment.aclose()
            case "killed":
                await rig.engine.signal(container_id, Signal.KILL)
            case "removed":
                await rig.engine.remove(container_id)
            case _:
                await rig.pause(container_id)
        await spoiled
        if how == "paused":
            state = await rig.engine.inspect(container_id)
            assert (state.running, state.paused) == (True, True)
        await rig.engine.remove(container_id)
        await rig.engine.spoiled(container_id)
        await attachment.aclose()

    @pytest.mark.parametrize(("signal", "code"), [(Signal.TERM, 143), (Signal.KILL, 137)])
    async def test_a_signal_ends_the_playbook(self, rig: Rig, signal: Signal, code: int) -> None:
        """The exit code tells which signal it was."""
        container_id, attachment = await rig.released(RUN_FOREVER)
        assert await rig.engine.signal(container_id, signal)
        state = await rig.engine.wait(container_id)
        assert (state.exit_code, state.oom_killed) == (code, False)
        await attachment.aclose()

    async def test_a_playbook_may_ignore_term_but_not_kill(self, rig: Rig) -> None:
        """TERM is a request, KILL is none."""
        container_id, attachment = await rig.prepared(IGNORE_TERM, say("ready"), RUN_FOREVER)
        await attachment.send(RELEASE)
        async for stream, _ in attachment.frames():
            if stream is Stream.OUTPUT:
                break
        assert await rig.engine.signal(container_id, Signal.TERM)
        await asyncio.sleep(0.3)
        assert (await rig.engine.inspect(container_id)).running
        assert await rig.engine.signal(container_id, Signal.KILL)
        assert (await rig.engine.wait(container_id)).exit_code == 137
        await attachment.aclose()

    async def test_no_signal_reaches_what_does_not_run(self, rig: Rig) -> None:
        """Neither before the start nor after the end."""
        container_id = await rig.created()
        assert not await rig.engine.signal(container_id, Signal.TERM)
        attachment = await rig.engine.attach(container_id)
        await rig.engine.start(container_id)
        await attachment.aclose()
        await rig.engine.wait(container_id)
        assert not await rig.engine.signal(container_id, Signal.KILL)

    async def test_out_of_memory_is_told(self, rig: Rig) -> None:
        """A container that the kernel killed for want of memory says so."""
        run = await rig.run(EAT_MEMORY)
        assert (run.state.exit_code, run.state.oom_killed) == (137, True)

    async def test_history_counts_kills(self, rig: Rig) -> None:
        """The engine remembers the creation, every signal, and the end."""
        container_id, attachment = await rig.released(IGNORE_TERM, RUN_FOREVER)
        before = await rig.engine.history(container_id)
        await rig.engine.signal(container_id, Signal.TERM)
        await rig.engine.signal(container_id, Signal.KILL)
        await rig.engine.wait(container_id)
        after = await rig.engine.history(container_id)
        assert (before.created, before.kills, before.died) == (True, 0, False)
        assert (after.created, after.kills, after.died) == (True, 2, True)
        await attachment.aclose()

    async def test_history_of_nobody_is_empty(self, engine: ContainerEngine) -> None:
        """Of a container it never saw the engine remembers nothing."""
        history = await engine.history("0" * 64)
        assert (history.created, history.kills, history.died) == (False, 0, False)


class TestLog:
    """The engine's own record, for recovery."""

    async def test_equals_what_was_printed(self, rig: Rig) -> None:
        """Output and control are in the record byte for byte, stderr of the playbook merged."""
        container_id, attachment = await rig.prepared(say("a"), complain("b"), emit(b"\xff\x00\xfe"), leave(1))
        await attachment.send(RELEASE)
        output, control = await everything(attachment)
        await rig.engine.wait(container_id)
        log = await rig.engine.log(container_id)
        assert (log.output, log.control, log.rotated) == (output, control, False)
        assert output == b"a\nb\n\xff\x00\xfe"
        await attachment.aclose()

    async def test_keeps_the_newlines_of_long_lines(self, rig: Rig) -> None:
        """Lines that the engine cuts into parts are joined again as they were."""
        steps = [flood(40_000), say(" end"), say("")]
        for length in (16_383, 16_384, 16_384, 16_385, 32_768):
            steps += [flood(length), say("")]
        container_id, attachment = await rig.prepared(*steps)
        await attachment.send(RELEASE)
        output, _ = await everything(attachment)
        await rig.engine.wait(container_id)
        log = await rig.engine.log(container_id)
        assert log.output == output
        assert not log.rotated
        await attachment.aclose()

    async def test_can_be_read_while_it_runs(self, rig: Rig) -> None:
        """An agent that was started again finds what was printed so far."""
        container_id, attachment = await rig.prepared(say("so far"), RUN_FOREVER)
        await attachment.send(RELEASE)
        async for stream, _ in attachment.frames():
            if stream is Stream.OUTPUT:
                break
        assert (await rig.engine.log(container_id)).output == b"so far\n"
        await attachment.aclose()

    async def test_says_when_its_beginning_is_missing(self, rig: Rig) -> None:
        """A record that was rotated still holds its limit's worth of the end, and says that something is missing."""
        container_id, attachment = await rig.prepared(flood(4_000_000), say("the end"))
        await attachment.send(RELEASE)
        output, _ = await everything(attachment)
        await rig.engine.wait(container_id)
        log = await rig.engine.log(container_id)
        assert log.rotated
        assert 2**20 <= len(log.output) < len(output)
        assert output.endswith(log.output[-(2**20) :])
        await attachment.aclose()


class TestRemove:
    """Removing, and what is there to be removed."""

    async def test_removes_in_every_state(self, rig: Rig) -> None:
        """Created, running and ended containers go alike, and their names are free again."""
        created = rig.spec()
        await rig.engine.create(created)
        running, attachment = await rig.released(RUN_FOREVER)
        ended, closed = await rig.prepared()
        await closed.aclose()
        await rig.engine.wait(ended)
        for one in (created.name, running, ended):
            await rig.engine.remove(one)
        assert await rig.engine.owned(rig.labels) == []
        await rig.engine.create(created)
        await attachment.aclose()

    async def test_removing_what_is_gone_is_success(self, rig: Rig) -> None:
        """By id or by name, again and again, also at the same time."""
        spec = rig.spec()
        container_id = await rig.engine.create(spec)
        await asyncio.gather(*(rig.engine.remove(container_id) for _ in range(5)))
        await rig.engine.remove(spec.name)
        await rig.engine.remove(NO_CONTAINER)
        with pytest.raises(ContainerMissing):
            await rig.engine.inspect(container_id)

    async def test_who_waits_for_a_removed_container_is_told(self, rig: Rig) -> None:
        """Waiting ends when somebody takes the container away."""
        container_id, attachment = await rig.released(RUN_FOREVER)
        waiter = asyncio.create_task(rig.engine.wait(container_id))
        await asyncio.sleep(0)
        await rig.engine.remove(container_id)
        done = (await asyncio.gather(waiter, return_exceptions=True))[0]
        assert isinstance(done, ContainerMissing) or (not isinstance(done, BaseException) and done.exit_code == 137)
        await attachment.aclose()

    async def test_owned_are_those_with_all_labels(self, rig: Rig) -> None:
        """Containers are found by their labels in every state, with name, labels and time of creation."""
        plain = rig.spec()
        special = rig.spec(labels={"agp.test.special": "yes"})
        ids = [await rig.engine.create(plain), await rig.engine.create(special)]
        both = await rig.engine.owned(rig.labels)
        (one,) = await rig.engine.owned({**rig.labels, "agp.test.special": "yes"})
        assert {container.container_id for container in both} == set(ids)
        assert (one.container_id, one.name) == (ids[1], special.name)
        assert special.labels.items() <= one.labels.items()
        assert one.created_at_s > 1_600_000_000

    async def test_a_missing_container_is_told_apart(self, engine: ContainerEngine) -> None:
        """Every call that needs a container says when there is none."""
        calls = (engine.attach, engine.start, engine.inspect, engine.wait, engine.log, engine.mounts)
        for call in calls:
            with pytest.raises(ContainerMissing):
                await call(NO_CONTAINER)
        with pytest.raises(ContainerMissing):
            await engine.signal(NO_CONTAINER, Signal.TERM)


class TestMountsAndVolumes:
    """Files for containers, on the engine's host and in volumes."""

    async def test_tells_the_folders_behind_mounts(self, rig: Rig) -> None:
        """By id and by name; a volume is told as its folder on the engine's host."""
        volume = rig.name()
        await rig.engine.create_volume(volume, rig.labels)
        spec = rig.spec()
        bind = spec.mounts[0]
        container_id = await rig.engine.create(
            replace(spec, mounts=(bind, replace(bind, kind="volume", source=volume, target="/work/volume"))),
        )
        told = {mount.target: mount.source for mount in await rig.engine.mounts(container_id)}
        assert told["/playbook"] == bind.source
        assert volume in told["/work/volume"]
        assert told["/work/volume"].startswith("/")
        assert len(await rig.engine.mounts(spec.name)) == 2

    async def test_volumes_come_and_go(self, rig: Rig) -> None:
        """Creating twice and removing twice are success; volumes are found by their labels."""
        name = rig.name()
        await rig.engine.create_volume(name, rig.labels)
        await rig.engine.create_volume(name, rig.labels)
        assert await rig.engine.owned_volumes(rig.labels) == [name]
        await rig.engine.remove_volume(name)
        await rig.engine.remove_volume(name)
        assert await rig.engine.owned_volumes(rig.labels) == []

    async def test_a_volume_in_use_stays(self, rig: Rig) -> None:
        """Removing it is refused while a container mounts it."""
        name = rig.name()
        await rig.engine.create_volume(name, rig.labels)
        spec = rig.spec()
        await rig.engine.create(replace(spec, mounts=(replace(spec.mounts[0], kind="volume", source=name),)))
        with pytest.raises(EngineError, match=name):
            await rig.engine.remove_volume(name)

    @pytest.mark.parametrize("kind", ["bind", "volume"])
    async def test_files_are_written_and_read_without_running_anything(self, rig: Rig, kind: str) -> None:
        """A file arrives as it is, in folders too, may be written again, and no helper container stays behind."""
        mount = rig.folder()
        if kind == "volume":
            mount = replace(mount, kind="volume", source=rig.name())
            await rig.engine.create_volume(mount.source, rig.labels)
        for path, data in (("a", b"1"), ("b/c/d", bytes(range(256)) * 100), ("a", b"2"), ("e", b"")):
            await rig.engine.put_file(mount, rig.image, path, data, rig.labels)
            assert await rig.engine.get_file(mount, rig.image, path, rig.labels) == data
        assert await rig.engine.owned(rig.labels) == []

    async def test_a_playbook_runs_from_a_volume(self, rig: Rig) -> None:
        """What was put into a volume is what the container's user can read."""
        bind = rig.folder(say("from a volume"))
        mount = replace(bind, kind="volume", source=rig.name())
        await rig.engine.create_volume(mount.source, rig.labels)
        playbook = await rig.engine.get_file(bind, rig.image, "playbook.sh", rig.labels)
        await rig.engine.put_file(mount, rig.image, "playbook.sh", playbook, rig.labels)
        run = await rig.run_spec(rig.spec(), mount=mount)
        assert run.output == b"from a volume\n"

    @pytest.mark.parametrize("path", ["missing", "missing/too", "folder", "/absolute", "../outside", ""])
    async def test_a_file_that_is_not_in_the_mount_is_an_error(self, rig: Rig, path: str) -> None:
        """Missing files, folders and paths that lead out of the mount are refused, and nothing stays behind."""
        mount = rig.folder()
        await rig.engine.put_file(mount, rig.image, "folder/file", b"1", rig.labels)
        with pytest.raises(EngineError):
            await rig.engine.get_file(mount, rig.image, path, rig.labels)
        assert await rig.engine.owned(rig.labels) == []

    async def test_a_mount_that_is_not_there_is_an_error(self, rig: Rig) -> None:
        """So the agent finds out that the engine does not share its files."""
        mount = replace(rig.folder(), source="/nonexistent/agp-contract")
        with pytest.raises(EngineError):
            await rig.engine.get_file(mount, rig.image, "playbook.sh", rig.labels)


class TestInterruptions:
    """An engine that goes away and comes back."""

    async def test_the_epoch_stays_while_nothing_happens(self, rig: Rig) -> None:
        """Equal numbers mean the same engine process."""
        before = rig.engine.epoch
        await rig.run(say("hello"))
        assert rig.engine.epoch == before

    async def test_an_absent_engine_is_told(self, rig: Rig) -> None:
        """Every call says that the engine cannot be reached, and attachments end."""
        container_id, attachment = await rig.released(RUN_FOREVER)
        before = rig.engine.epoch
        await rig.cut()
        engine = rig.engine
        for call in (engine.attach, engine.start, engine.inspect, engine.remove, engine.log, engine.history):
            with pytest.raises(EngineUnavailable):
                await call(container_id)
        with pytest.raises(EngineUnavailable):
            await engine.describe()
        await everything(attachment)
        with pytest.raises(EngineUnavailable):
            await attachment.send(RELEASE)
        await rig.mend()
        assert engine.epoch > before
        await attachment.aclose()

    async def test_wait_outlives_an_absent_engine(self, rig: Rig) -> None:
        """A container that ends while nobody can see it is reported when the engine is back."""
        container_id, attachment = await rig.released(pause(0.3), leave(7))
        waiter = asyncio.create_task(rig.engine.wait(container_id))
        await asyncio.sleep(0)
        await rig.cut()
        await asyncio.sleep(1)
        assert not waiter.done()
        await rig.mend()
        assert (await waiter).exit_code == 7
        await attachment.aclose()

    async def test_wait_goes_on_after_an_interruption(self, rig: Rig) -> None:
        """A container that outlives the interruption is still watched."""
        container_id, attachment = await rig.released(RUN_FOREVER)
        waiter = asyncio.create_task(rig.engine.wait(container_id))
        await rig.cut()
        await rig.mend()
        await asyncio.sleep(0.5)
        assert not waiter.done()
        assert await rig.engine.signal(container_id, Signal.KILL)
        assert (await waiter).exit_code == 137
        await attachment.aclose()

    async def test_a_prepared_container_ends_when_its_connection_breaks(self, rig: Rig) -> None:
        """As when the agent had died: nobody could release it any more."""
        container_id, attachment = await rig.prepared(say("never"))
        await rig.cut()
        await rig.mend()
        assert (await rig.engine.wait(container_id)).exit_code == 125
        await attachment.aclose()

    async def test_history_survives_in_the_same_process(self, rig: Rig) -> None:
        """The engine that comes back can prove that it is the one that created the container."""
        container_id = await rig.created()
        await rig.cut()
        await rig.mend()
        assert (await rig.engine.history(container_id)).created

    async def test_closing_is_final_and_idempotent(self, rig: Rig) -> None:
        """After it every call says so."""
        await rig.engine.aclose()
        await rig.engine.aclose()
        with pytest.raises(EngineUnavailable):
            await rig.engine.describe()


def test_the_nonce_is_what_the_entry_expects() -> None:
    """32 lower-case hex digits."""
    assert len(NONCE) == 32
    assert set(NONCE) <= set("0123456789abcdef")


class TestBridges:
    """The agent's own network."""

    async def test_a_bridge_is_made_once_and_read_back(self, rig: Rig) -> None:
        """Its addresses are told, and the second call finds what the first one made."""
        made = await rig.engine.ensure_bridge(rig.bridge, rig.labels)
        assert made.name == rig.bridge
        assert made.gateway in made.subnet
        assert await rig.engine.ensure_bridge(rig.bridge, rig.labels) == made

    async def test_many_may_ask_for_a_bridge_at_once(self, rig: Rig) -> None:
        """One is made, whatever the engine thinks of two with one name."""
        made = await asyncio.gather(*(rig.engine.ensure_bridge(rig.bridge, rig.labels) for _ in range(5)))
        assert len(set(made)) == 1

    async def test_a_bridge_of_somebody_else_is_refused(self, rig: Rig) -> None:
        """It has the name and not the labels: it is left as it is."""
        await rig.engine.ensure_bridge(rig.bridge, rig.labels)
        with pytest.raises(LockdownRefused, match="differs in Labels"):
            await rig.engine.ensure_bridge(rig.bridge, {**rig.labels, "agp.instance": "another"})
        await rig.engine.ensure_bridge(rig.bridge, rig.labels)

    async def test_removing_a_missing_bridge_is_success(self, rig: Rig) -> None:
        """Twice is like once."""
        await rig.engine.ensure_bridge(rig.bridge, rig.labels)
        await rig.engine.remove_bridge(rig.bridge)
        await rig.engine.remove_bridge(rig.bridge)

    async def test_a_bridge_in_use_is_not_removed(self, rig: Rig) -> None:
        """The error is the engine's; without the container it goes."""
        await rig.engine.ensure_bridge(rig.bridge, rig.labels)
        container_id = await rig.engine.create(replace(rig.spec(RUN_FOREVER), network=rig.bridge))
        attachment = await rig.engine.attach(container_id)
        await rig.engine.start(container_id)
        with pytest.raises(EngineError, match="active endpoints"):
            await rig.engine.remove_bridge(rig.bridge)
        await attachment.aclose()
        await rig.engine.remove(container_id)
        await rig.engine.remove_bridge(rig.bridge)

    async def test_no_container_is_made_in_a_network_that_is_missing(self, rig: Rig) -> None:
        """It is an error before anything runs."""
        with pytest.raises(EngineError, match="not found"):
            await rig.run_spec(replace(rig.spec(), network=rig.bridge))


class TestHelpers:
    """A helper in another container's network namespace."""

    RULES = ("table inet agp_fence {", "chain outgoing {", "type filter hook output priority 0; policy drop;", "}", "}")

    async def test_a_helper_sets_rules_and_is_gone(self, rig: Rig) -> None:
        """What it printed is told, and nothing of it is left."""
        container_id, attachment = await rig.prepared(say("hello"))
        helped = await rig.engine.run_beside(container_id, FENCE_IMAGE, (FENCE, *self.RULES), rig.labels)
        assert (helped.exit_code, "policy drop;" in helped.output) == (0, True), helped.output
        assert [one.container_id for one in await rig.engine.owned(rig.labels)] == [container_id]
        await attachment.aclose()

    async def test_a_helper_that_fails_says_why(self, rig: Rig) -> None:
        """Its exit code and its stderr are told."""
        container_id, attachment = await rig.prepared(say("hello"))
        helped = await rig.engine.run_beside(container_id, FENCE_IMAGE, (FENCE, "table inet agp_fence {"), rig.labels)
        assert helped.exit_code != 0
        assert "syntax error" in helped.output
        assert len(await rig.engine.owned(rig.labels)) == 1
        await attachment.aclose()

    async def test_there_is_no_helper_beside_a_missing_container(self, rig: Rig) -> None:
        """It is told as the container's absence."""
        with pytest.raises(ContainerMissing):
            await rig.engine.run_beside(NO_CONTAINER, FENCE_IMAGE, (FENCE, *self.RULES), rig.labels)

    async def test_there_is_no_helper_beside_a_container_that_does_not_run(self, rig: Rig) -> None:
        """It has no namespace yet, and nothing is left behind."""
        container_id = await rig.created()
        with pytest.raises(EngineError):
            await rig.engine.run_beside(container_id, FENCE_IMAGE, (FENCE, *self.RULES), rig.labels)
        assert len(await rig.engine.owned(rig.labels)) == 1

    async def test_a_helper_without_its_image_is_told(self, rig: Rig) -> None:
        """As of any container."""
        container_id, attachment = await rig.prepared(say("hello"))
        with pytest.raises(ImageUnavailable):
            await rig.engine.run_beside(container_id, NO_IMAGE, (FENCE, *self.RULES), rig.labels)
        await attachment.aclose()

    async def test_a_helper_with_other_rights_is_refused(self, rig: Rig) -> None:
        """It is removed without being started."""
        container_id, attachment = await rig.prepared(say("hello"))
        rig.weaken()
        with pytest.raises(LockdownRefused, match=r"helper that differs .*Privileged"):
            await rig.engine.run_beside(container_id, FENCE_IMAGE, (FENCE, *self.RULES), rig.labels)
        assert len(await rig.engine.owned(rig.labels)) == 1
        await attachment.aclose()
