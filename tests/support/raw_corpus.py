"""What no honest client sends: broken, ambiguous and hostile bytes, each a connection's worth of them."""

from collections.abc import Mapping
from typing import Final

from support.wrong_bodies import MARK, WRONG_BODIES

_TASK: Final = b'{"task_id":"%b","playbook":{"name":"p.none","content":"%b"}}' % (b"smuggled", MARK.encode())
_TLS_HELLO: Final = bytes.fromhex("160301020001 0001fc0303".replace(" ", "")) + b"\x5a" * 507


def _get(target: bytes, headers: bytes = b"Host: agent\r\n", version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + headers + b"\r\n"


def corpus(token: str) -> Mapping[str, bytes]:
    """All of it by name. ``token`` is the right one: what is behind the guard must hold, too."""
    bearer = f"Host: agent\r\nAuthorization: Bearer {token}\r\n".encode()
    json = bearer + b"Content-Type: application/json\r\n"
    return _lines(bearer) | _headers(bearer) | _lengths(json) | _chunks(json) | _others(bearer, json)


def _lines(bearer: bytes) -> dict[str, bytes]:
    """Request lines."""
    return {
        "HTTP/0.9": b"GET /heartbeat\r\n\r\n",
        "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        "TLS hello": _TLS_HELLO,
        "random": bytes(range(256)) * 4,
        "NULs": b"\0" * 4096 + b"\r\n\r\n",
        "blank lines": b"\r\n" * 1000 + _get(b"/healthz"),
        "no target": b"GET  HTTP/1.1\r\n\r\n",
        "unknown version": _get(b"/healthz", version=b"HTTP/9.9"),
        "no version": _get(b"/healthz", version=b""),
        "small version": _get(b"/healthz", version=b"http/1.1"),
        "unknown method": b"BREW /heartbeat HTTP/1.1\r\n" + bearer + b"\r\n",
        "method with NUL": b"GE\0T / HTTP/1.1\r\n\r\n",
        "endless method": b"A" * 100_000 + b" / HTTP/1.1\r\n\r\n",
        "long target": _get(b"/" + b"a" * 70_000, bearer),
        "target with NUL": _get(b"/tasks/a\0b", bearer),
        "target not ASCII": _get(b"/tasks/\xff\xc3\xa9", bearer),
        "target with blanks": _get(b"/tasks/a b", bearer),
        "encoded NUL": _get(b"/tasks/%00", bearer),
        "encoded surrogate": _get(b"/tasks/%ED%A0%80", bearer),
        "encoded newline": _get(b"/tasks/%0d%0aX: y", bearer),
        "half an escape": _get(b"/tasks/%", bearer),
        "dots": _get(b"/tasks/../../../etc/passwd", bearer),
        "fragment": _get(b"/status#x", bearer),
        "query": _get(b"/tasks/a?" + b"x=1&" * 10_000, bearer),
        "absolute form": _get(b"http://elsewhere.example/healthz"),
        "absolute form, broken": _get(b"http://[::1/healthz", bearer),
        "authority form": b"CONNECT elsewhere.example:443 HTTP/1.1\r\n" + bearer + b"\r\n",
        "asterisk form": b"OPTIONS * HTTP/1.1\r\n" + bearer + b"\r\n",
        "target without slash": _get(b"heartbeat", bearer),
    }


def _headers(bearer: bytes) -> dict[str, bytes]:
    """Header fields."""
    return {
        "header with NUL": _get(b"/status", bearer + b"X: a\0b\r\n"),
        "bare LF": _get(b"/healthz").replace(b"\r\n", b"\n"),
        "bare CR": _get(b"/healthz", b"Host: agent\rX: y\r\n"),
        "folded": _get(b"/status", b"Host: agent\r\nAuthorization:\r\n Bearer x\r\n\t y\r\n"),
        "blank before the colon": _get(b"/status", bearer + b"X : y\r\n"),
        "blank before the name": _get(b"/status", b" Host: agent\r\n" + bearer),
        "no colon": _get(b"/status", bearer + b"nonsense\r\n"),
        "no name": _get(b"/status", bearer + b": y\r\n"),
        "name not ASCII": _get(b"/status", bearer + b"\xe9: y\r\n"),
        "value not UTF-8": _get(b"/status", bearer + b"X: \xff\xfe\r\n"),
        "10,000 headers": _get(b"/status", bearer + b"".join(b"X-%d: y\r\n" % number for number in range(10_000))),
        "a header of 1 MB": _get(b"/status", bearer + b"X: " + b"y" * 2**20 + b"\r\n"),
        "no host": _get(b"/healthz", b""),
        "two hosts": _get(b"/healthz", b"Host: a\r\nHost: b\r\n"),
        "host of rubbish": _get(b"/healthz", b"Host: ]][[\x7f\r\n"),
        "upgrade to WebSocket": _get(b"/status", bearer + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        "upgrade to HTTP/2": _get(b"/healthz", b"Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"),
        "connection of rubbish": _get(b"/healthz", b"Host: a\r\nConnection: \x01,,close,,\r\n"),
        "expects what nobody has": _get(b"/status", bearer + b"Expect: 200-maybe\r\n"),
    }


def _lengths(json: bytes) -> dict[str, bytes]:
    """What says how long a body is, and by which of them another request may be hidden in it."""
    post, hidden = b"POST /execute_task HTTP/1.1\r\n" + json, b"POST /execute_task HTTP/1.1\r\n" + json
    hidden += b"Content-Length: %d\r\n\r\n%b" % (len(_TASK), _TASK)
    lengths = {
        "negative": b"-1",
        "signed": b"+5",
        "in hex": b"0x10",
        "fractional": b"1.5",
        "empty": b"",
        "huge": b"9" * 30,
        "a list": b"5, 5",
        "with a blank": b"5 5",
    }
    return {f"length {name}": post + b"Content-Length: " + value + b"\r\n\r\n{}" for name, value in lengths.items()} | {
        "two lengths": post + b"Content-Length: 2\r\nContent-Length: %d\r\n\r\n{}" % (len(hidden) + 2) + hidden,
        "length, then chunks": post
        + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (len(hidden) + 5)
        + hidden,
        "chunks, then length": post + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + hidden,
        "chunks and identity": post + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + hidden,
        "chunks twice": post + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
        "nearly chunks": post + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden,
        "chunks behind a tab": post + b"Transfer-Encoding:\tchunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + hidden,
        "chunks behind a blank": post + b"Transfer-Encoding : chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + hidden,
        "gzip": post + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "a body for a GET": b"GET /status HTTP/1.1\r\n" + json + b"Content-Length: %d\r\n\r\n" % len(_TASK) + _TASK,
    }


def _chunks(json: bytes) -> dict[str, bytes]:
    """Bodies in chunks."""
    post = b"POST /execute_task HTTP/1.1\r\n" + json + b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = {
        "no number": b"zz\r\n{}\r\n0\r\n\r\n",
        "negative": b"-2\r\n{}\r\n0\r\n\r\n",
        "overflowing": b"F" * 17 + b"\r\n{}\r\n0\r\n\r\n",
        "too short": b"1\r\n{}\r\n0\r\n\r\n",
        "without end of line": b"2\r\n{}0\r\n\r\n",
        "in hex with sign": b"0x2\r\n{}\r\n0\r\n\r\n",
        "with a long extension": b"2;" + b"x" * 200_000 + b"\r\n{}\r\n0\r\n\r\n",
        "with trailers": b"2\r\n{}\r\n0\r\nAuthorization: Bearer x\r\nX: y\r\n\r\n",
        "by single bytes": b"".join(b"1\r\n%c\r\n" % byte for byte in _TASK[:-1]) + b"0\r\n\r\n",
    }
    return {f"chunk {name}": post + body for name, body in chunks.items()}


def _others(bearer: bytes, json: bytes) -> dict[str, bytes]:
    """Requests behind each other, and every wrong body."""
    heartbeat = b"POST /heartbeat HTTP/1.1\r\n" + bearer + b"Content-Length: 0\r\n\r\n"
    bodies = {
        f"body: {name}": b"POST /execute_task HTTP/1.1\r\n" + json + b"Content-Length: %d\r\n\r\n" % len(body) + body
        for name, (body, _) in WRONG_BODIES.items()
    }
    return bodies | {
        "100 at once": heartbeat * 100,
        "100 and rubbish": heartbeat * 100 + b"rubbish\r\n\r\n",
        "without a token, 100 at once": _get(b"/status") * 100,
    }


AMBIGUOUS: Final = (
    *("two lengths", "length, then chunks", "chunks, then length", "chunks and identity", "chunks twice"),
    *("nearly chunks", "chunks behind a tab", "chunks behind a blank"),
)
"""Two servers could read two different requests out of these."""

UNFINISHED: Final[dict[str, bytes]] = {
    "nothing": b"",
    "half a line": b"GET /heal",
    "half a header": b"GET /healthz HTTP/1.1\r\nHost: ag",
    "no end of headers": b"GET /healthz HTTP/1.1\r\nHost: agent\r\n",
    "half a TLS hello": _TLS_HELLO[:20],
}
"""What a server can only wait for, and not for ever."""
