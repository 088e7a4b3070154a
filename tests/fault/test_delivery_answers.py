"""Row 18: the dashboard answers, and not with an acknowledgement: what becomes of the result stands in its answer."""

import email.utils
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import pytest

from fault.conftest import StartWatched
from support.agent_process import AgentProcess
from support.dashboard_stub import REPORT_PATH, DashboardStub, Reply
from support.leaps import Leaps
from support.ledger import Ledger
from support.secret_files import write_secret
from support.waiting import eventually

NOT_DELIVERED: Final = "result not delivered; kept"
HTML: Final = {"Content-Type": "text/html"}
SHRUNK_BYTES: Final = 64 * 1024
LARGE: Final = "yes 1234567 | head -c 200000\n"
ENOUGH_BYTES: Final = 16 * 2**20
"""What is on its way in sockets' buffers when the agent has had enough; the server would send a thousand times more."""


def test_a_token_that_is_refused_holds_results_until_it_is_rotated(
    start_watched: StartWatched, dashboard: DashboardStub, tmp_path: Path
) -> None:
    """Row 18: 401, then 403: held, and delivered by the same process once the file has another token."""
    token = tmp_path / "dashboard.token"
    write_secret(token, "a-token-that-was-revoked\n")
    watched = start_watched({"AGP_DASHBOARD_TOKEN_FILE": token})
    agent, pid = watched.agent, watched.agent.process.pid
    held = [watched.send("echo held") for _ in range(3)]
    why = "the dashboard answered 401: it does not accept the agent's token"
    _wait_refused(agent, held, why, times=2)
    dashboard.reply = Reply(403, b'{"detail":"not you"}')
    write_secret(token, f"{dashboard.token}\n")
    _wait_refused(agent, held, why.replace("401", "403"))
    waits = [line["next_try_in_s"] for line in agent.log_lines() if line["event"] == NOT_DELIVERED]
    assert max(waits) <= 60
    dashboard.reply = Reply()
    watched.neighbours()
    results = watched.check()
    assert agent.process.pid == pid
    assert {results[task_id]["status"] for task_id in held} == {"completed"}
    assert "a-token-that-was-revoked" not in agent.log_text()


def test_each_answer_decides_what_becomes_of_its_result(start_watched: StartWatched, dashboard: DashboardStub) -> None:
    """Row 18: 413 shrunk once, 400 and 422 dead letters, 302 not followed, HTML and endless bodies no answer at all."""
    watched = start_watched()
    agent = watched.agent
    shrunk = _scripted(watched, Reply(413), script=LARGE)
    dead = {_dead(agent, dashboard, Reply(status)): 1 for status in (400, 422)}
    dead[_dead(agent, dashboard, Reply(413), Reply(413))] = 2
    with DashboardStub(token=dashboard.token) as elsewhere:
        moved = Reply(302, b"", {"Location": elsewhere.url + REPORT_PATH})
        redirected = _scripted(watched, moved)
        _wait_refused(agent, [redirected], "the dashboard answered 302, which is no acknowledgement; redirects are not")
        dashboard.acknowledged(redirected)
        assert elsewhere.deliveries() == []
        httpx.post(elsewhere.url + REPORT_PATH, json={"task_id": "control"}, trust_env=False)
        assert len(elsewhere.deliveries()) == 1  # it would have been seen
    portal = Reply(200, b"<html>Please log in</html>", HTML)
    for reply in (portal, Reply(200, b'{"message":"' + b"x" * 2**16, endless=True)):
        task_id = _scripted(watched, reply)
        _wait_refused(agent, [task_id], 'the dashboard answered 200 without {"message": "…"}: not an acknowledgement')
        dashboard.acknowledged(task_id)
    assert SHRUNK_BYTES < dashboard.endless_bytes < ENOUGH_BYTES
    watched.neighbours()
    results = watched.check()
    large, small = (one.result["output"] for one in dashboard.deliveries(shrunk))
    assert len(large) > 200_000
    assert small == results[shrunk]["output"]
    assert SHRUNK_BYTES < len(small) < SHRUNK_BYTES + 100
    assert f"[agp-agent: {len(large) - SHRUNK_BYTES} bytes omitted]" in small
    assert {task_id: len(dashboard.deliveries(task_id)) for task_id in dead} == dead
    assert sorted(line["task_id"] for line in agent.audit("task dead-lettered")) == sorted(dead)


def test_retry_after_is_honoured_within_reason(
    start_watched: StartWatched, dashboard: DashboardStub, tmp_path: Path
) -> None:
    """Row 18: nonsense, negative numbers and dates of the past cost nothing; 1e9 is an hour or two, not for ever."""
    leaps = Leaps(tmp_path / "ahead")
    watched = start_watched(leaps.environment)
    agent = watched.agent
    agent.http.headers["Connection"] = "close"  # one that is kept alive is idle for long in a leap
    yesterday = email.utils.format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    for nothing in ("soon", "-5", "nan", yesterday):
        task_id = _scripted(watched, Reply(503, b"", {"Retry-After": nothing}), quick=True)
        assert _wait_refused(agent, [task_id], "the dashboard answered 503") <= 1
        dashboard.acknowledged(task_id)
    date = email.utils.format_datetime(datetime.now(UTC) + timedelta(minutes=30), usegmt=True)
    task_id = _scripted(watched, Reply(429, b"", {"Retry-After": date}), quick=True)
    assert 1700 <= _wait_refused(agent, [task_id], "the dashboard answered 429") <= 3600
    leaps.leap(minutes=61)
    watched.note(_quick(agent, "behind the date"))  # and wakes whoever sleeps by a clock that leapt
    dashboard.acknowledged(task_id)
    watched.neighbours()
    eventually(lambda: len(agent.audit("task delivered")) == len(watched.accepted), "nothing runs in a leap")
    far = _scripted(watched, Reply(503, b"", {"Retry-After": "1e9"}), quick=True)
    assert 3600 <= _wait_refused(agent, [far], "the dashboard answered 503") <= 7200
    for number in range(13):
        leaps.leap(minutes=10)
        watched.note(_quick(agent, f"meanwhile {number}"))
        agent.wait_audited("task finished", task_id=f"meanwhile {number}")
    watched.check()
    refused = agent.wait_log(NOT_DELIVERED, task_id=far)
    delivered = min(one["time"] for one in agent.log_lines() if one["event"] == "task delivered" and _is_new(one))
    waited = datetime.fromisoformat(delivered) - datetime.fromisoformat(refused["time"])
    assert waited >= timedelta(hours=1)


def _is_new(line: dict[str, object]) -> bool:
    return str(line["task_id"]).startswith("meanwhile")


def _scripted(watched: Ledger, reply: Reply, *, script: str = "echo hi\n", quick: bool = False) -> str:
    """Send a task whose result gets this answer first, and is taken then; ``quick``: one that no runner takes."""
    task_id = f"answer {len(watched.accepted)}"
    watched.dashboard.script(task_id, reply)
    if not quick:
        return watched.send(script, task_id)
    watched.note(_quick(watched.agent, task_id))
    return task_id


def _quick(agent: AgentProcess, task_id: str) -> str:
    agent.accept_task(task_id, "x", "p.none")
    return task_id


def _dead(agent: AgentProcess, dashboard: DashboardStub, *replies: Reply) -> str:
    """Send a task whose result is refused for good; nobody is owed that one."""
    task_id = f"refused by {[reply.status for reply in replies]}"
    dashboard.script(task_id, *replies)
    agent.accept_task(task_id, LARGE)
    agent.wait_audited("task dead-lettered", task_id=task_id)
    return task_id


def _wait_refused(agent: AgentProcess, task_ids: list[str], why: str, *, times: int = 1) -> float:
    """Wait until so many deliveries of these failed for this reason; return the last one's time until the next try."""

    def look() -> list[float]:
        lines = [line for line in agent.log_lines() if line["event"] == NOT_DELIVERED and line["task_id"] in task_ids]
        waits = [float(line["next_try_in_s"]) for line in lines if line["why"].startswith(why)]
        return waits if len(waits) >= times else []

    return eventually(look, f"{times} deliveries that failed: {why}")[-1]


@pytest.mark.campaign
def test_a_dashboard_that_never_answers_is_given_up(start_watched: StartWatched) -> None:
    """Row 17: silent for longer than the agent waits: the delivery is given up, tried again, and comes once."""
    watched = start_watched()
    task_id = _scripted(watched, Reply(delay_s=45.0))
    assert _wait_refused(watched.agent, [task_id], "the dashboard was not reached: ReadTimeout") >= 0
    watched.neighbours()
    watched.check()
