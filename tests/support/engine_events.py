"""What the engine says while it says it: every event of an agent's containers, in order."""

import contextlib
import json
import socket
import threading
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote

from support.engine_proxy import connect_to_engine
from support.waiting import eventually

_READ_BYTES: Final = 65536
_PATIENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One event of a container."""

    action: str
    container_id: str
    name: str
    exit_code: int | None
    at_ns: int
    """By the engine's clock."""


class EngineEvents:
    """Follows the events in a thread: dockerd itself remembers only the last 256 of all."""

    def __init__(self, instance: str, docker_host: str | None = None) -> None:
        """Begin to follow the containers of this instance."""
        self._events: list[EngineEvent] = []
        filters = {"label": [f"agp.instance={instance}"], "type": ["container"]}
        self._stream: socket.socket = connect_to_engine(docker_host)
        path = f"/events?filters={quote(json.dumps(filters))}"
        self._stream.sendall(f"GET {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n".encode())
        self._rest = self._stream.recv(_READ_BYTES)  # the head of the answer: from now on no event is missed
        self._thread = threading.Thread(target=self._follow, name="engine-events", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._thread.join(_PATIENCE_S)
        self._stream.close()

    def seen(self, *actions: str) -> list[EngineEvent]:
        """All events until now with one of these actions."""
        return [event for event in list(self._events) if event.action in actions]

    def wait(self, action: str, container_id: str) -> EngineEvent:
        """Return the first such event of a container as soon as it is there."""

        def look() -> EngineEvent | None:
            return next((event for event in self.seen(action) if event.container_id == container_id), None)

        found = eventually(look, f"event {action} of {container_id[:12]}")
        assert found is not None
        return found

    def seconds_run(self, container_id: str) -> float:
        """How long a container ran, by the engine's clock, once it has ended."""
        return (self.wait("die", container_id).at_ns - self.wait("start", container_id).at_ns) / 1e9

    def most_at_once(self) -> int:
        """How many containers ran at the same time at most."""
        running, most = set[str](), 0
        for event in self.seen("start", "die"):
            if event.action == "start":
                running.add(event.container_id)
            else:
                running.discard(event.container_id)
            most = max(most, len(running))
        return most

    def _follow(self) -> None:
        rest = self._rest
        with contextlib.suppress(OSError):
            while True:
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    if line.startswith(b'{"'):  # else a part of HTTP's own
                        self._take(json.loads(line))
                chunk = self._stream.recv(_READ_BYTES)
                if not chunk:
                    return
                rest += chunk

    def _take(self, document: dict[str, object]) -> None:
        actor = document["Actor"]
        assert isinstance(actor, dict)
        facts = actor["Attributes"]
        code = facts.get("exitCode")
        event = EngineEvent(
            action=str(document["Action"]),
            container_id=str(actor["ID"]),
            name=str(facts.get("name", "")),
            exit_code=None if code is None else int(code),
            at_ns=int(str(document["timeNano"])),
        )
        self._events.append(event)
