"""What the page works with, in the dashboard's file: registered agents, the history of tasks, their calls."""

import hashlib
import json
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agp_agent.dev_dashboard.store import ResultStore
from agp_agent.errors import InvalidBody
from agp_agent.models import Task

_CALLS_KEPT: Final = 40
"""Of one task: who follows a task that hangs should not fill the disk."""
_BODY_KEPT_CHARS: Final = 32 * 1024
_TURNED_AWAY_KEPT: Final = 20


@dataclass(frozen=True, slots=True)
class Agent:
    """A registered agent. ``token`` is what it is called with."""

    id: int
    name: str
    url: str
    token: str


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the contract and its answer. ``status``: None where no answer came, and ``answer`` says why."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: str
    status: int | None
    answer: str
    answer_headers: Mapping[str, str] = field(default_factory=dict)
    is_ours: bool = True
    is_whole: bool = True
    """Whether ``body`` is all that was sent."""

    def shown(self) -> dict[str, Any]:
        """For the page, and to be kept: without tokens, and without the middle of what is long."""
        return {
            "is_ours": int(self.is_ours),
            "method": self.method,
            "url": self.url,
            "request_headers": {name: _shown(name, value) for name, value in self.headers.items()},
            "request_body": _shortened(self.body),
            "request_is_cut": len(self.body) > _BODY_KEPT_CHARS or not self.is_whole,
            "status": self.status,
            "response_headers": dict(self.answer_headers),
            "response_body": _shortened(self.answer),
        }


class Desk:
    """Registered agents, history and calls. Safe to call from several threads; every call may wait for the disk."""

    def __init__(self, store: ResultStore) -> None:
        """Use the file of ``store``."""
        self._store = store
        self._turned_away: deque[Call] = deque(maxlen=_TURNED_AWAY_KEPT)

    # --- deliveries that were not taken -------------------------------------------------------------------------------

    def turn_away(self, call: Call) -> None:
        """A result was not taken: whose it is nobody knows, so it stands beside the history, in memory."""
        self._turned_away.append(call)

    def turned_away(self) -> list[dict[str, Any]]:
        """The latest of them, the newest first."""
        return [call.shown() for call in reversed(self._turned_away)]

    # --- agents -----------------------------------------------------------------------------------------------------

    def register(self, name: str, url: str, token: str, report_token: str | None = None) -> str:
        """Remember an agent; return the token that its results have to come with, a new one where none is given.

        Raises:
            InvalidBody: the name, or the token of its results, belongs to another agent.
        """
        report_token = report_token or secrets.token_urlsafe(32)
        values = {"name": name, "url": url.rstrip("/"), "token": token, "sha256": _sha256(report_token)}
        with self._store.transaction() as db:
            known = db.execute("SELECT 1 FROM agent WHERE name = :name OR report_token_sha256 = :sha256", values)
            if known.fetchone():
                raise InvalidBody("An agent of this name, or with this token for its results, is registered already.")
            db.execute(
                "INSERT INTO agent (name, url, token, report_token_sha256) VALUES (:name, :url, :token, :sha256)",
                values,
            )
        return report_token

    def forget(self, agent_id: int) -> None:
        """Forget an agent; its tasks stay in the history."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM agent WHERE id = ?", (agent_id,))

    def agents(self) -> list[Agent]:
        """All of them, by name."""
        with self._store.transaction() as db:
            rows = db.execute("SELECT id, name, url, token FROM agent ORDER BY name").fetchall()
        return [Agent(*row) for row in rows]

    def agent_of(self, report_token: bytes) -> int | None:
        """The agent whose results come with this token. Found by its hash: no time tells how much is right."""
        with self._store.transaction() as db:
            row = db.execute(
                "SELECT id FROM agent WHERE report_token_sha256 = ?", (_sha256(report_token.decode("latin-1")),)
            ).fetchone()
        return None if row is None else int(row[0])

    # --- the history ------------------------------------------------------------------------------------------------

    def begin(self, agent: Agent, task: Task) -> int:
        """Note a task before it is sent, so that its result finds it however fast it comes."""
        values = (agent.id, task.task_id, task.playbook.name, task.playbook.content, self._store.now())
        with self._store.transaction() as db:
            row = db.execute(
                "INSERT INTO entry (agent_id, task_id, name, content, created_at) VALUES (?, ?, ?, ?, ?) RETURNING id",
                values,
            ).fetchone()
        return int(row[0])

    def refused(self, entry_id: int, why: str) -> None:
        """The agent did not take it on."""
        with self._store.transaction() as db:
            db.execute("UPDATE entry SET refused = ? WHERE id = ?", (why, entry_id))

    def unanswered(self, entry_id: int, why: str) -> None:
        """No answer came: the agent may have it all the same."""
        with self._store.transaction() as db:
            db.execute("UPDATE entry SET unanswered = ? WHERE id = ?", (why, entry_id))

    def history(self, words: str, status: str, before: int, limit: int) -> list[dict[str, Any]]:
        """Tasks, the newest first, whose id or playbook has these words, in this state; without contents."""
        values = {"words": f"%{_escaped(words)}%", "status": status, "before": before, "limit": limit}
        with self._store.transaction() as db:
            rows = db.execute(
                f"{_ENTRY} WHERE id < :before AND (:status = '' OR status = :status)"
                " AND (task_id LIKE :words ESCAPE '\\' OR coalesce(name, '') LIKE :words ESCAPE '\\')"
                " ORDER BY id DESC LIMIT :limit",
                values,
            ).fetchall()
        return [dict(row) for row in rows]

    def entry(self, entry_id: int) -> dict[str, Any] | None:
        """One task of the history with its playbook and its calls."""
        with self._store.transaction() as db:
            row = db.execute(f"{_ENTRY} WHERE id = ?", (entry_id,)).fetchone()
            if row is None:
                return None
            content = db.execute("SELECT content FROM entry WHERE id = ?", (entry_id,)).fetchone()[0]
            calls = db.execute("SELECT * FROM call WHERE entry_id = ? ORDER BY id", (entry_id,)).fetchall()
        return dict(row) | {"content": content, "calls": [_call(one) for one in calls]}

    def status(self, entry_id: int) -> str | None:
        """Where one task is; None where there is none."""
        with self._store.transaction() as db:
            row = db.execute(f"{_ENTRY} WHERE id = ?", (entry_id,)).fetchone()
        return None if row is None else str(row["status"])

    def entry_of_result(self, result_id: int) -> int:
        """Where a result stands in the history."""
        with self._store.transaction() as db:
            return int(db.execute("SELECT id FROM entry WHERE result_id = ?", (result_id,)).fetchone()[0])

    def note(self, entry_id: int, call: Call) -> None:
        """Keep a call as it was, but for tokens and the middle of what is long; the oldest ones give way."""
        shown = call.shown()
        values = shown | {name: json.dumps(shown[name]) for name in ("request_headers", "response_headers")}
        values |= {"entry_id": entry_id, "at": self._store.now()}
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO call (entry_id, at, is_ours, method, url, request_headers, request_body, status,"
                " response_headers, response_body) VALUES (:entry_id, :at, :is_ours, :method, :url, :request_headers,"
                " :request_body, :status, :response_headers, :response_body)",
                values,
            )
            db.execute(
                "DELETE FROM call WHERE entry_id = ? AND id NOT IN"
                " (SELECT id FROM call WHERE entry_id = ? ORDER BY id DESC LIMIT ?)",
                (entry_id, entry_id, _CALLS_KEPT),
            )


_ENTRY: Final = """
SELECT * FROM (
    SELECT entry.id, entry.agent_id, agent.name AS agent, entry.task_id, entry.name, entry.created_at, entry.refused,
           entry.unanswered, entry.result_id, result.error, result.received_at, result.times_received,
           CASE WHEN result.status IS NOT NULL THEN result.status WHEN entry.refused IS NOT NULL THEN 'refused'
                WHEN entry.unanswered IS NOT NULL THEN 'unanswered' ELSE 'sent' END AS status
      FROM entry LEFT JOIN agent ON agent.id = entry.agent_id LEFT JOIN result ON result.id = entry.result_id)
"""


def _call(row: Any) -> dict[str, Any]:
    call = {name: row[name] for name in ("at", "is_ours", "method", "url", "request_body", "status", "response_body")}
    is_cut = len(row["request_body"]) > _BODY_KEPT_CHARS  # by the line that says so
    headers = {name: json.loads(row[name]) for name in ("request_headers", "response_headers")}
    return call | headers | {"request_is_cut": is_cut}


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _escaped(words: str) -> str:
    for char in "\\%_":
        words = words.replace(char, f"\\{char}")
    return words


def _shown(name: str, value: str) -> str:
    return "Bearer $TOKEN" if name.lower() == "authorization" else value


def _shortened(text: str) -> str:
    if len(text) <= _BODY_KEPT_CHARS:
        return text
    half = _BODY_KEPT_CHARS // 2
    return f"{text[:half]}\n[dashboard: {len(text) - 2 * half} characters not kept here]\n{text[-half:]}"
