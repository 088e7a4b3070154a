"""The canary on the real engine: what a runner's tasks meet while its fence is not proven, does not hold, or holds."""

import json
from collections.abc import Callable
from pathlib import Path

import docker

from isolation.network_tries import FENCED, OPEN, StartAgent, bridge_of, runners, trying, verdicts
from support.cli import command_line
from support.dashboard_stub import DashboardStub
from support.elsewhere import PRIVATE
from support.engine_events import EngineEvents
from support.waiting import eventually

pytest_plugins = ("isolation.network_world",)

SHOWS_WHAT_IT_WAS_ASKED_FOR = r"""
bridge=$(printf '%s\n' "$@" | sed -n 's/^ip daddr != [0-9.]* ip daddr \([0-9./]*\) reject.*/\1/p')
printf '%s\n' 'table inet sham {' 'chain outgoing {' 'type filter hook output priority filter;' \
    "oif != lo ip daddr != $bridge reject with icmpx admin-prohibited" '}' '}' | nft -f -
printf '%s\n' "$@"
"""
"""In the place of the program that makes the rules: it lists them all, and fences in what lies beyond the bridge alone.

So nothing that the canary tries leaves this machine.
"""


def test_a_runner_whose_fence_does_not_hold_is_refused(
    start_agent: StartAgent, dashboard: DashboardStub, sham: Callable[[str], str]
) -> None:
    """All looks well from outside; from inside the gateway answers. Its tasks end with that, others' run."""
    agent = start_agent(runners(net={}), {"AGP_FENCE_IMAGE": sham(SHOWS_WHAT_IT_WAS_ASKED_FOR)})
    agent.accept_task("refused", "echo ran\n", "refused.net")
    agent.accept_task("spared", "echo ran\n", "spared.sh")
    refused = dashboard.result("refused")
    assert (refused["status"], refused["output"]) == ("failed", "")
    assert refused["error"].startswith("not started: its network is not fenced in: ")
    assert "the bridge's gateway (" in refused["error"]
    assert "port 53) answered" in refused["error"]
    assert "port 8472) silent" in refused["error"], "the engine drops traffic between containers: that is no fence"
    assert "the metadata address" not in refused["error"]
    assert dashboard.result("spared")["output"] == "ran\n"
    told = agent.wait_log("runner refused: its tasks end with an error", runner="net")
    assert refused["error"] == f"not started: {told['why']}"
    (degraded,) = agent.audit("agent degraded", part="network of runner net")
    assert degraded["why"] == told["why"]
    assert agent.audit("task started", task_id="refused") == []
    examined = json.loads(command_line(agent.environment)("doctor", "--json").stdout)
    (found,) = [one for one in examined["checks"] if one["check"] == "runner net"]
    assert (found["level"], "the bridge's gateway (" in found["said"]) == ("fail", True), found


def test_without_the_fence_s_image_no_task_starts(start_agent: StartAgent, dashboard: DashboardStub) -> None:
    """The sentence names the image and the setting; no container of the runner was ever made."""
    agent = start_agent(runners(net={}), {"AGP_FENCE_IMAGE": "127.0.0.1:1/agp/no-such-fence:1"})
    agent.accept_task("no image", "echo ran\n", "refused.net")
    error = dashboard.result("no image")["error"]
    assert error.startswith("not started: its network cannot be tried: image 127.0.0.1:1/agp/no-such-fence:1 is not ")
    assert error.endswith("AGP_FENCE_IMAGE names it")


def test_a_network_of_somebody_else_is_not_used(
    start_agent: StartAgent, dashboard: DashboardStub, client: docker.DockerClient
) -> None:
    """Whoever takes the name of the agent's bridge first gets no task onto his own."""
    agent = start_agent(runners())
    agent.stop()
    foreign = client.networks.create(bridge_of(agent), labels={"whose": "another's"})
    try:
        catalog = Path(agent.environment["AGP_CATALOG"])
        catalog.write_text(runners(net={}))
        agent.start()
        agent.accept_task("foreign", "echo ran\n", "refused.net")
        error = dashboard.result("foreign")["error"]
        assert f"network {foreign.name} is not the agent's own as it should be: it differs in Labels" in error
        agent.stop()
        assert client.networks.get(str(foreign.id)).attrs["Labels"] == {"whose": "another's"}
    finally:
        foreign.remove()


def test_a_runner_that_is_added_later_is_tried_first(start_agent: StartAgent, dashboard: DashboardStub) -> None:
    """Its first task waits for that; and what the canary needed is gone afterwards."""
    agent = start_agent(runners(first={}))
    agent.wait_log("network tried: its fence holds", runner="first")
    Path(agent.environment["AGP_CATALOG"]).write_text(runners(first={}, second={"allow": ["10.1.2.3:22"]}))
    agent.wait_log("network tried: its fence holds", runner="second")
    agent.accept_task("after", trying({"private": (PRIVATE, OPEN)}), "after.second")
    assert verdicts(dashboard.result("after")["output"]) == {"private": FENCED}
    eventually(lambda: agent.containers_of_tasks() == 0, "nothing of the canary is left")


def test_a_try_leaves_nothing(start_agent: StartAgent) -> None:
    """A neighbour, one that tries, its fence: all have the agent's labels, so that a crash leaves nothing unfound."""
    agent = start_agent(runners())
    with EngineEvents(agent.instance) as events:
        Path(agent.environment["AGP_CATALOG"]).write_text(runners(net={}))
        agent.wait_log("network tried: its fence holds", runner="net")
        made = {event.container_id: event.name for event in events.seen("create")}
        assert sum(name.startswith("agp-canary-") for name in made.values()) == 2
        assert len(made) >= 3, "the helper has the labels too"
        eventually(lambda: {event.container_id for event in events.seen("destroy")} >= made.keys(), "all removed")
