"""The canary: what it tries, when, what its findings mean, and whom it lets through."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agp_agent.canary import Periods, judge
from agp_agent.fence import addresses_of_this_machine
from agp_agent.lifecycle import Outcome
from agp_agent.planner import plan
from fakes.fake_host import FakeHost
from support.agent_parts import API_PORT, FENCE_IMAGE, LABELS, LIMITS, Parts, agent, catalog_of, machine
from support.async_waiting import settle, until, until_async

OUTBOUND = {"network": "outbound", "match": {"suffixes": [".net"]}}
GATEWAY = "172.30.0.1"
SOON = Periods(held_s=0.02, refused_s=0.02, unclear_s=0.02)
PART = "network of runner net"
TARGETS = {(IPv4Address("10.0.0.1"), 80): "the gateway", (IPv4Address("10.0.0.2"), 81): "a neighbour"}


@pytest.fixture
async def host() -> AsyncIterator[FakeHost]:
    """The machine."""
    async with machine() as made:
        yield made


@pytest.fixture
async def parts(tmp_path: Path, host: FakeHost) -> AsyncIterator[Parts]:
    """An agent's parts, with one network runner; everything is tried again soon."""
    async with agent(tmp_path, host, catalog=catalog_of(net=OUTBOUND), periods=SOON) as made:
        yield made


def problem(parts: Parts) -> str | None:
    """What is said of the network runner now."""
    return parts.readiness.warnings.get(PART)


async def proven(parts: Parts) -> None:
    """Wait for the first proof."""
    await until(lambda: parts.reach.proofs, "a proof")


async def test_a_fence_that_holds_lets_its_tasks_start(parts: Parts, host: FakeHost) -> None:
    """They wait until then, and nothing of the try is left."""
    parts.go(parts.dispatcher.run())
    run_id = await parts.post("print ran\n", runner="net")
    await settle()
    assert await parts.journal.verdict(run_id) is None
    canary = parts.go(parts.canary.run())
    assert (await parts.verdict(run_id)).outcome is Outcome.SUCCEEDED
    canary.cancel()
    await until(lambda: not host.containers, "nothing left")


async def test_runners_without_a_network_wait_for_nothing(parts: Parts) -> None:
    """The canary does not even run."""
    parts.go(parts.dispatcher.run())
    assert (await parts.verdict(await parts.post("print ran\n"))).outcome is Outcome.SUCCEEDED
    assert parts.reach.proofs == ()


async def test_what_answers_refuses_the_runner(parts: Parts, host: FakeHost) -> None:
    """Its tasks end with the sentence, no container of them was made, and others run."""
    host.answering.add(f"{GATEWAY} {API_PORT}")
    parts.go(parts.canary.run())
    parts.go(parts.dispatcher.run())
    verdict = await parts.verdict(await parts.post("print ran\n", runner="net"))
    assert verdict.outcome is Outcome.ERROR
    sentence = (
        f"its network is not fenced in: the agent's API at the bridge's gateway ({GATEWAY} port {API_PORT}) answered"
    )
    assert verdict.error == f"not started: {sentence}"
    assert problem(parts) == sentence
    assert (await parts.verdict(await parts.post("print ran\n", "other"))).outcome is Outcome.SUCCEEDED
    assert len(await parts.audited("task started")) == 1


async def test_a_refused_runner_is_used_again_once_its_fence_holds(parts: Parts, host: FakeHost) -> None:
    """And refused again when it does not: nothing is believed for ever."""
    answers = f"{GATEWAY} 53"
    parts.go(parts.canary.run())
    parts.go(parts.dispatcher.run())
    for number in range(2):
        host.answering.add(answers)
        await until(lambda: problem(parts), "refused")
        refused = await parts.verdict(await parts.post("print ran\n", f"refused {number}", "net"))
        assert refused.outcome is Outcome.ERROR
        host.answering.remove(answers)
        await until(lambda: not problem(parts), "held again")
        used = await parts.verdict(await parts.post("print ran\n", f"used {number}", "net"))
        assert used.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    "answers",
    [
        f"{GATEWAY} {API_PORT}",
        f"{GATEWAY} 53",
        "169.254.169.254 80",
        "168.63.129.16 80",
        "100.100.100.200 80",
        "10.255.255.254 80",
        "172.31.255.254 80",
        "192.168.255.254 80",
        "172.30.0.99 8472",
    ],
)
async def test_each_of_them_must_not_answer(parts: Parts, host: FakeHost, answers: str) -> None:
    """Gateway, API, the clouds' metadata, shared and private addresses, and a neighbour."""
    host.answering.add(answers)
    parts.go(parts.canary.run())
    await proven(parts)
    assert f"({answers.replace(' ', ' port ')}) answered" in (problem(parts) or "")


@pytest.mark.parametrize(
    ("allow", "answers", "refused"),
    [
        ([f"{GATEWAY}:{API_PORT}"], f"{GATEWAY} {API_PORT}", False),
        ([f"{GATEWAY}:{API_PORT}"], f"{GATEWAY} 53", True),
        (["169.254.169.254"], "169.254.169.254 80", False),
        (["10.0.0.0/8"], "10.255.255.254 80", False),
        (["10.0.0.0/8"], "192.168.255.254 80", True),
        (["172.16.0.0/12"], "172.30.0.99 8472", True),
    ],
)
async def test_what_the_catalog_allows_may_answer(
    tmp_path: Path, host: FakeHost, allow: list[str], answers: str, *, refused: bool
) -> None:
    """Only that, and never a neighbour."""
    host.answering.add(answers)
    async with agent(tmp_path, host, catalog=catalog_of(net=OUTBOUND | {"allow": allow})) as parts:
        parts.go(parts.canary.run())
        await proven(parts)
        assert (problem(parts) is not None) is refused


async def test_without_the_fence_s_image_the_runner_is_refused(parts: Parts, host: FakeHost) -> None:
    """Until somebody brings it."""
    digest = host.images.pop(FENCE_IMAGE)
    parts.go(parts.canary.run())
    await until(lambda: problem(parts), "refused")
    assert f"its network cannot be tried: image {FENCE_IMAGE} is not available" in (problem(parts) or "")
    host.images[FENCE_IMAGE] = digest
    await until(lambda: not problem(parts), "held")


async def test_while_the_engine_is_away_nothing_is_decided(parts: Parts) -> None:
    """Tasks wait; what was proven stays proven."""
    parts.engine.go_away()
    parts.go(parts.canary.run())
    await asyncio.sleep(3 * SOON.unclear_s)
    assert parts.reach.proofs == ()
    await parts.engine.come_back(restarted=False)
    await proven(parts)
    parts.engine.go_away()
    await asyncio.sleep(3 * SOON.held_s)
    assert problem(parts) is None
    assert len(parts.reach.proofs) == 1


async def test_before_the_first_contact_nothing_is_tried(parts: Parts, host: FakeHost) -> None:
    """What an earlier agent left is looked at first."""
    parts.readiness.report("engine", "the container engine has not been reached yet")
    parts.go(parts.canary.run())
    await asyncio.sleep(3 * SOON.unclear_s)
    assert (parts.reach.proofs, host.bridges) == ((), {})
    parts.readiness.report("engine", None)
    await proven(parts)


async def test_a_new_catalog_is_tried_at_once(tmp_path: Path, host: FakeHost) -> None:
    """Runners that were added get a proof, those that were removed lose theirs with its warning."""
    host.answering.add(f"{GATEWAY} 53")
    async with agent(tmp_path, host, catalog=catalog_of(net=OUTBOUND)) as parts:
        parts.go(parts.canary.run())
        await until(lambda: problem(parts), "refused")
        parts.catalogs.replace(catalog_of(other=OUTBOUND | {"allow": [GATEWAY]}))
        await until(lambda: [proof.runner for proof in parts.reach.proofs] == ["other"], "the other one's proof")
        assert parts.readiness.warnings == {}


async def test_a_task_of_an_earlier_catalog_is_proven_under_it(tmp_path: Path, host: FakeHost) -> None:
    """Its runner has changed meanwhile: it waits for a proof of the one it was accepted under."""
    async with agent(tmp_path, host, catalog=catalog_of(net=OUTBOUND | {"allow": ["10.1.1.1"]})) as parts:
        parts.go(parts.canary.run())
        await proven(parts)
        earlier = plan(catalog_of(net=OUTBOUND).runners["net"], LIMITS, LABELS)
        assert await asyncio.wait_for(parts.reach.problem(earlier), 10) is None


async def test_a_neighbour_that_cannot_be_set_up_proves_nothing(parts: Parts, host: FakeHost) -> None:
    """Without it nobody knows whether neighbours are reached."""
    host.neighbour = "agp-listen: nobody can be reached at no address 8472"
    parts.go(parts.canary.run())
    await until(lambda: problem(parts), "refused")
    assert "no neighbour could be set up (agp-listen: nobody" in (problem(parts) or "")


ALL_BUT_THE_NEIGHBOUR = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"]


@pytest.mark.parametrize(("more", "warned"), [(["168.63.129.16"], True), ([], False)])
async def test_an_allow_that_leaves_little_to_try_is_told(
    tmp_path: Path, host: FakeHost, more: list[str], *, warned: bool
) -> None:
    """Nobody should take that proof for more than it is."""
    own = [f"{address}" for address in addresses_of_this_machine(Path("/proc/net/fib_trie").read_text())]
    with capture_logs() as logged:
        allow = OUTBOUND | {"allow": [*ALL_BUT_THE_NEIGHBOUR, *more, *own]}
        async with agent(tmp_path, host, catalog=catalog_of(net=allow)) as parts:
            parts.go(parts.canary.run())
            await proven(parts)
    assert any("the proof says little" in line["event"] for line in logged) is warned


class TestJudge:
    """What a probe's lines mean."""

    CONTROL = "127.0.0.1 8471 answered"

    def test_what_is_refused_at_once_is_held(self) -> None:
        """All of it."""
        lines = [self.CONTROL, "10.0.0.1 80 fenced", "10.0.0.2 81 fenced"]
        assert judge(lines, TARGETS) == (None, {"10.0.0.1 80": "fenced", "10.0.0.2 81": "fenced"})

    @pytest.mark.parametrize(
        ("lines", "why"),
        [
            (["10.0.0.1 80 answered", "10.0.0.2 81 fenced"], "the gateway (10.0.0.1 port 80) answered"),
            (["10.0.0.2 81 fenced"], "the gateway (10.0.0.1 port 80) was not tried"),
            (["10.0.0.1 80 silent", "10.0.0.2 81 fenced"], "the gateway (10.0.0.1 port 80) silent"),
            (["10.0.0.1 80 unclear nc: what", "10.0.0.2 81 fenced"], "the gateway (10.0.0.1 port 80) unclear nc: what"),
        ],
    )
    def test_an_answer_is_not_held_and_neither_is_silence_or_doubt(self, lines: list[str], why: str) -> None:
        """Whatever is missing or unclear counts against the runner."""
        assert judge([self.CONTROL, *lines], TARGETS)[0] == f"its network is not fenced in: {why}"

    @pytest.mark.parametrize("control", [[], ["127.0.0.1 8471 silent"]])
    def test_a_probe_that_cannot_even_reach_itself_proves_nothing(self, control: list[str]) -> None:
        """All is silent to one who is deaf."""
        lines = [*control, "10.0.0.1 80 silent", "10.0.0.2 81 silent"]
        assert (judge(lines, TARGETS)[0] or "").startswith("its network could not be tried")


async def test_refusal_and_recovery_are_audited_as_a_degradation(parts: Parts, host: FakeHost) -> None:
    """`readiness` tells whoever listens; the agent's degradations are audited."""
    told: list[tuple[str, bool]] = []
    parts.readiness.on_news = lambda part, why: told.append((part, why is None))
    host.answering.add(f"{GATEWAY} 53")
    parts.go(parts.canary.run())

    async def look() -> bool:
        return (PART, False) in told

    await until_async(look, "told")
    host.answering.clear()
    await until(lambda: (PART, True) in told, "taken back")
