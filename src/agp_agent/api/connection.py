"""One connection: uvicorn's protocol with what it lacks against slow and endless clients.

At any time either a complete request is being answered, or a deadline runs after which the connection is closed.
"""

import asyncio
import json
import math
import socket
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from agp_agent.api.bodies import BODY_DEADLINE_S
from agp_agent.api.visitor import VISITOR, Visitor

HEADERS_DEADLINE_S: Final = 10.0
ANSWER_DEADLINE_S: Final = 10.0
"""So long a client may leave what it is sent unread."""
KEEP_ALIVE_S: Final = 75.0
HEAD_LIMIT_BYTES: Final = 64 * 1024
"""Request line and headers together."""
_BODY_SLACK_S: Final = 1.0  # the route's own deadline for a body comes first, for it answers in the body's own words
_FLUSH_S: Final = 5.0
_HEAD_GRACE_S: Final = 0.1
_BODY_GRACE_S: Final = 0.5


class _Refused(Exception):
    """Ends the parsing of a request that was answered already."""


class Connection(HttpToolsProtocol):
    """Closes what arrives too slowly, what is not read, and what has too large a head; errors in the contract's shape.

    ``spare_from_s``, by the loop's clock: from then on it may be closed to make room for another. Never while a
    complete request is being answered.
    """

    spare_from_s: float = math.inf
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _raw_head_bytes = 0
    _in_head = True
    _deaf = False
    _arriving = False

    def __init__(
        self, config: Config, state: ServerState, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], None]
    ) -> None:
        """``on_lost`` is called when the connection is no more."""
        super().__init__(config, state, {}, loop)
        self._on_lost = on_lost
        self.visitor = Visitor(self.give_way)

    # --- what the transport tells ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection must send a request at once."""
        super().connection_made(transport)
        self.visitor.is_local = transport.get_extra_info("socket").family == socket.AF_UNIX
        self._wait(HEADERS_DEADLINE_S, self._no_request, _HEAD_GRACE_S)

    def data_received(self, data: bytes) -> None:
        """Take bytes in; a head is counted here too, for the parser says nothing of a header that does not end."""
        if self._deaf:
            return
        began_before = self._in_head
        super().data_received(data)
        self._raw_head_bytes = self._raw_head_bytes + len(data) if began_before and self._in_head else 0
        if self._raw_head_bytes > HEAD_LIMIT_BYTES:
            self._head_too_large()

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        super().pause_writing()
        self._unread = self.loop.call_later(ANSWER_DEADLINE_S, self.give_way)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        self._read_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._be_patient()
        self._read_on()
        super().connection_lost(exc)
        self._on_lost()

    # --- what the parser tells -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        cast("dict[str, object]", self.scope)[VISITOR] = self.visitor  # an extension of ours
        self._arriving = self._in_head = True
        self._head_bytes = 0
        self._wait(HEADERS_DEADLINE_S, self._no_request, math.inf if self._answering else _HEAD_GRACE_S)

    def on_url(self, url: bytes) -> None:
        """The path and the query, or a piece of them."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, as soon as it is complete. One behind the body is none: it must not pass for a token."""
        if self._in_head:
            super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """The route has a deadline of its own for the body, and an answer; this one is for bodies nobody reads.

        A request of HTTP/1.1 that does not say once whom it means is refused, as RFC 9112 (3.2) has it.
        """
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts != 1 and self.parser.get_http_version() == "1.1":
            self._refuse("400 Bad Request", f"Expected one Host header, and there are {hosts or 'none'}.")
            raise _Refused
        grace_s = math.inf if self._answering else _BODY_GRACE_S
        super().on_headers_complete()
        self._in_head = False
        self._wait(BODY_DEADLINE_S + _BODY_SLACK_S, self._end, grace_s)

    def on_message_complete(self) -> None:
        """All is there: from here on the client waits for us, unless it has its answer already."""
        self._arriving = False
        if self._answering:
            self._be_patient()
        else:
            self._keep_alive()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the rest of a request that was answered early, or for another request.

        uvicorn would forget its own keep-alive time at any byte, also at one that begins no request.
        """
        is_last = self._deaf and not self.pipeline
        super().on_response_complete()
        self._unset_keepalive_if_required()
        if self._arriving:
            self.spare_from_s = self.loop.time()
        elif self.transport.is_closing():
            self._end()
        elif is_last:
            self._hang_up()
        elif not self._answering:
            self._keep_alive()

    def send_400_response(self, msg: str) -> None:
        """Bytes that are no HTTP."""
        self._refuse("400 Bad Request", msg if msg.endswith(".") else f"{msg}.")

    @property
    def _answering(self) -> bool:
        """Whether a request, perhaps one that is not complete yet, has no answer yet."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    @property
    def _owes(self) -> bool:
        """Whether a request that is complete, before the one that is arriving, has no answer yet."""
        return bool(self.pipeline) or (self._answering and not self._in_body)

    @property
    def _in_body(self) -> bool:
        return self._arriving and not self._in_head

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_LIMIT_BYTES:
            self._head_too_large()
            raise _Refused

    # --- ends ------------------------------------------------------------------------------------------------------

    def give_way(self) -> None:
        """Be closed now, without a word."""
        self.transport.abort()

    def _wait(self, delay_s: float, too_late: Callable[[], None], grace_s: float) -> None:
        self._be_patient()
        self._deadline = self.loop.call_later(delay_s, too_late)
        self.spare_from_s = self.loop.time() + grace_s

    def _keep_alive(self) -> None:
        self._wait(KEEP_ALIVE_S, self._end, _HEAD_GRACE_S)

    def _be_patient(self) -> None:
        self.spare_from_s = math.inf
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _read_on(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _no_request(self) -> None:
        self._refuse("408 Request Timeout", "The request did not arrive in time.")
        if not self._owes:
            self._end()

    def _head_too_large(self) -> None:
        detail = f"Request line and headers are larger than {HEAD_LIMIT_BYTES} bytes."
        self._refuse("431 Request Header Fields Too Large", detail)

    def _refuse(self, status: str, detail: str) -> None:
        if self.transport.is_closing() or self._deaf:
            return
        if self._owes:
            self._leave_unanswered()
            return
        body = json.dumps({"detail": detail}).encode()
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        if self._answering:
            self._end()
        else:
            self._hang_up()

    def _leave_unanswered(self) -> None:
        """Close behind the answers to the requests before it: a refusal now would pass for one of those."""
        if self._in_body:
            self.pipeline.popleft()
        self._arriving, self._deaf = False, True
        self._be_patient()

    def _hang_up(self) -> None:
        """Say no more. Closed over unread bytes, it would be reset, and the client might never see what was said."""
        if not self.transport.can_write_eof():
            self._end()
            return
        self._deaf = True
        self.transport.write_eof()
        self._wait(_FLUSH_S, self._end, 0)

    def _end(self) -> None:
        """Close; what the client does not read until soon is thrown away, or it could keep the connection for ever."""
        self.transport.close()
        self._wait(_FLUSH_S, self.give_way, 0)


def order_of_leaving(connection: Any) -> tuple[bool, float]:
    """For ordering: who is closed first to make room. Strangers before those that have shown a right token."""
    return connection.visitor.trusted, connection.spare_from_s
