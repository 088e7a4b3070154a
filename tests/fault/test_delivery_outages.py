"""Row 17: the dashboard is away, in every way it can be: results are kept, and come once when it is back."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from fault.conftest import StartWatched
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub, Reply
from support.leaps import Leaps
from support.namespaces import with_bind
from support.waiting import eventually

NAME: Final = "dashboard.agp.invalid"
NOT_DELIVERED: Final = "result not delivered; kept"
HOURS: Final = 24

Trouble = Callable[[DashboardStub, Path], AbstractContextManager[None]]


@contextlib.contextmanager
def gone(dashboard: DashboardStub, _hosts: Path) -> Iterator[None]:
    """Connections are refused."""
    dashboard.go_away()
    try:
        yield
    finally:
        dashboard.come_back()


@contextlib.contextmanager
def nameless(dashboard: DashboardStub, hosts: Path) -> Iterator[None]:
    """The dashboard's name does not resolve."""
    known = hosts.read_text()
    hosts.write_text("")
    dashboard.go_away()  # a connection that is kept alive needs no name
    dashboard.come_back()
    try:
        yield
    finally:
        hosts.write_text(known)


def answering(reply: Reply) -> Trouble:
    """It answers everything so, and then as before."""

    @contextlib.contextmanager
    def trouble(dashboard: DashboardStub, _hosts: Path) -> Iterator[None]:
        before, dashboard.reply = dashboard.reply, reply
        try:
            yield
        finally:
            dashboard.reply = before

    return trouble


TROUBLES: Final[dict[str, tuple[Trouble, str]]] = {
    "gone": (gone, "the dashboard was not reached: ConnectError"),
    "no DNS": (nameless, "the dashboard was not reached: ConnectError: [Errno -"),
    "500": (answering(Reply(500, b"broken")), "the dashboard answered 500"),
    "502": (answering(Reply(502, b"<html>Bad Gateway</html>")), "the dashboard answered 502"),
    "503": (answering(Reply(503, b"", {"Retry-After": "0"})), "the dashboard answered 503"),
    "429": (answering(Reply(429, b"", {"Retry-After": "1"})), "the dashboard answered 429"),
    "resets": (answering(Reply(reset=True)), "the dashboard was not reached: "),
    "slow resets": (answering(Reply(reset=True, delay_s=0.7)), "the dashboard was not reached: "),
}
OUTAGES: Final = (("500", "gone"), ("502", "no DNS"), ("503", "resets"), ("429", "slow resets"))
"""One trouble on top of the other: a delivery that fails by the first is tried again, and fails by the second."""


def test_an_outage_of_any_kind_loses_nothing(
    start_watched: StartWatched, dashboard: DashboardStub, tmp_path: Path
) -> None:
    """Row 17: gone, nameless, 500, 502, 503, 429, resets, slow: one knock at a time, and each result comes once."""
    hosts, resolver = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text(f"{dashboard.host} {NAME}\n")
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    watched = start_watched(
        {"AGP_DASHBOARD_URL": f"http://{NAME}:{dashboard.port}"},
        wrapper=(*with_bind(hosts, Path("/etc/hosts")), *with_bind(resolver, Path("/etc/resolv.conf"))),
    )
    agent = watched.agent
    with answering(Reply(delay_s=0.7))(dashboard, hosts):
        slowly = [_quick(agent, f"slow {number}") for number in range(7)]
        for task_id in slowly:
            watched.note(task_id)
            dashboard.acknowledged(task_id)
        assert dashboard.most_at_once == 4
    assert {about for outage in OUTAGES for about in outage} == set(TROUBLES)
    for first, second in OUTAGES:
        dashboard.most_at_once = 0
        begin, why = TROUBLES[first]
        follow, why_then = TROUBLES[second]
        with begin(dashboard, hosts):
            kept = [watched.send(f"echo {first}"), _quick(agent, f"{first} quick")]
            watched.note(kept[-1])
            _wait_refused(agent, kept, {why})
            with follow(dashboard, hosts):
                _wait_refused(agent, kept, {why, why_then})
                if second == "resets":
                    watched.neighbours()
            assert dashboard.most_at_once <= 4
        for task_id in kept:
            dashboard.acknowledged(task_id)
    watched.check()


def _quick(agent: AgentProcess, task_id: str) -> str:
    """A task that no runner takes has its result at once."""
    agent.accept_task(task_id, "x", "p.none")
    return task_id


def _wait_refused(agent: AgentProcess, task_ids: list[str], whys: set[str]) -> None:
    """Wait until deliveries of these failed for each of these reasons and no other, with a time for the next try."""

    def look() -> bool:
        lines = [line for line in agent.log_lines() if line["event"] == NOT_DELIVERED and line["task_id"] in task_ids]
        found = [{why for why in whys if line["why"].startswith(why)} for line in lines]
        assert all(found), lines
        assert all(line["next_try_in_s"] >= 0 for line in lines), lines
        return set().union(*found) == whys

    eventually(look, f"deliveries that failed: {whys}")


def test_a_day_of_outage_by_the_agents_own_clocks(
    start_watched: StartWatched, dashboard: DashboardStub, tmp_path: Path
) -> None:
    """Row 17: away for 24 h, which pass in leaps: the agent knocks on, keeps what came before and meanwhile."""
    leaps = Leaps(tmp_path / "ahead")
    watched = start_watched(leaps.environment)
    agent = watched.agent
    agent.http.headers["Connection"] = "close"  # one that is kept alive is idle for an hour in a leap
    dashboard.go_away()
    watched.neighbours()
    eventually(lambda: len(agent.audit("task finished")) >= 10, "the neighbours' ends")
    for hour in range(1, HOURS + 1):
        before = _refusals(agent)
        leaps.leap(minutes=60)
        watched.note(_quick(agent, f"hour {hour}"))  # and wakes whoever sleeps by a clock that leapt
        eventually(lambda before=before: _refusals(agent) > before, f"a knock in hour {hour}")  # type: ignore[misc]
    assert dashboard.deliveries() == []
    times = [line["time"] for line in agent.log_lines() if line["event"] == NOT_DELIVERED]
    assert len({time[:13] for time in times}) >= HOURS, "the clock did not leap"
    dashboard.come_back()
    leaps.leap(minutes=10)
    watched.send("echo after", ends_well=True)
    watched.check()
    assert dashboard.most_at_once <= 4


def _refusals(agent: AgentProcess) -> int:
    return sum(line["event"] == NOT_DELIVERED for line in agent.log_lines())
