"""What the OpenAPI document shows as examples: one of each model, and the sentence of each error."""

from typing import Any, Final

_PLAYBOOK: Final = {"name": "site.yml", "content": "- hosts: all\n  tasks:\n  - ansible.builtin.ping:\n"}
_SHA256: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_DELIVERY: Final[dict[str, Any]] = {
    "state": "acknowledged",
    "attempts": 1,
    "last_error": None,
    "next_attempt_at": None,
    "acknowledged_at": "2026-11-26T21:00:07Z",
}
_RECAP: Final[dict[str, Any]] = {
    "host": "web1",
    "ok": 3,
    "changed": 1,
    "unreachable": 0,
    "failed": 1,
    "skipped": 0,
    "rescued": 0,
    "ignored": 0,
}
_FAILURE: Final = {"kind": "failed", "host": "web1", "task": "Render the config", "message": "no template"}
_SUMMARY: Final[dict[str, Any]] = {
    "task_id": "deploy 42",
    "attempt": 1,
    "state": "finished",
    "status": "failed",
    "outcome": "failed",
    "reason": "exit_code",
    "error": 'exit code 2: task "Render the config" failed on web1: no template',
    "exit_code": 2,
    "playbook_name": "site.yml",
    "playbook_sha256": _SHA256,
    "runner": "ansible",
    "image": "agp/runner-ansible:latest",
    "image_digest": f"sha256:{_SHA256}",
    "container_id": _SHA256,
    "accepted_at": "2026-11-26T21:00:00Z",
    "started_at": "2026-11-26T21:00:01Z",
    "finished_at": "2026-11-26T21:00:06Z",
    "output_bytes": 1234,
    "output_omitted_bytes": 0,
    "delivery": _DELIVERY,
}
_WARM: Final = {"wanted": 1, "ready": 1, "hits": 41, "misses": 1}
_FENCE: Final[dict[str, Any]] = {"problem": None, "checked_at_ms": 1_795_730_400_000, "found": {"internet": "closed"}}
_ENGINE: Final = {"name": "node1", "version": "28.5.2"}
_RUNNER: Final[dict[str, Any]] = {
    "image": "agp/runner-ansible:latest",
    "image_digest": f"sha256:{_SHA256}",
    "pull": "never",
    "network": "none",
    "allow": [],
    "fence": None,
    "memory_bytes": 536_870_912,
    "cpus": 1.0,
    "pids": 256,
    "timeout_s": 3600.0,
    "max_running": None,
    "warm": _WARM,
    "lockdown": {"network": "none", "capabilities": "none"},
}
_QUEUE: Final = {"queued": 0, "preparing": 1, "running": 2, "max_queued": 1000}
_SLOTS: Final = {"max_running": 8, "free": 5}
_OUTBOX: Final[dict[str, Any]] = {"pending": 0, "dead_letters": 0, "oldest_age_s": None}

MODELS: Final[dict[str, Any]] = {
    "Task": {"task_id": "deploy 42", "playbook": _PLAYBOOK},
    "Playbook": _PLAYBOOK,
    "TaskAccepted": {"message": "Task execution started", "task_id": "deploy 42", "status": "running"},
    "Heartbeat": {"status": "ok"},
    "Cancelling": {"message": "Task is being cancelled"},
    "Done": {"message": "Paused: tasks are taken on and wait"},
    "Problem": {"detail": "A task with the same task_id is already running."},
    "LogOutput": {"text": "step 1\n"},
    "LogGap": {"omitted_bytes": 4096},
    "LogEnd": {"state": "finished", "outcome": "succeeded", "reason": "exit_code", "error": None, "exit_code": 0},
    "TaskSummary": _SUMMARY,
    "TaskDetails": _SUMMARY | {"recap": [_RECAP], "failures": [_FAILURE]},
    "TaskList": {"tasks": [_SUMMARY], "next_cursor": "17"},
    "HostRecap": _RECAP,
    "Failure": _FAILURE,
    "DeliveryOfTask": _DELIVERY,
    "Status": {
        "version": "0.2.0",
        "agent_id": "node1",
        "ready": True,
        "draining": False,
        "paused": False,
        "problems": {},
        "warnings": {},
        "engine": _ENGINE,
        "runners": {"ansible": _RUNNER},
        "slots": _SLOTS,
        "queue": _QUEUE,
        "outbox": _OUTBOX,
        "audit_head": f"17:{_SHA256}",
    },
    "EngineStatus": _ENGINE,
    "RunnerStatus": _RUNNER,
    "FenceStatus": _FENCE,
    "WarmStatus": _WARM,
    "Queue": _QUEUE,
    "Slots": _SLOTS,
    "OutboxView": _OUTBOX,
}
"""By the model's name."""
ERRORS: Final[dict[str, str]] = {
    "400": "Invalid body: playbook.name must not be empty.",
    "401": "The bearer token is missing or invalid.",
    "404": "There is no task with this id.",
    "408": "The request body did not arrive within 10 s.",
    "409": "A task with the same task_id is already running.",
    "413": "playbook.content is larger than 1048576 bytes.",
    "415": "The Content-Type must be application/json.",
    "431": "Request line and headers are too large.",
    "500": "The agent failed to answer; its log tells why (reference 3f1c9a2e).",
    "503": "The queue is full (1000 tasks are waiting); send the task again later.",
}
"""By status."""
