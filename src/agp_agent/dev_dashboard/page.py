"""The one web page, as pure text: every foreign character goes through ``html.escape``, nothing is loaded from outside.

Style and script are the two files beside this module, put into the page; the policy header allows exactly their hashes.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib.resources import files
from typing import Final

from agp_agent.dev_dashboard.store import ReceivedResult
from agp_agent.visible import visible_line, visible_text

_STYLE: Final = files(__package__).joinpath("page.css").read_text("utf-8")
_SCRIPT: Final = files(__package__).joinpath("page.js").read_text("utf-8")


def _source(inline: str) -> str:
    """Name an inline style or script the way a Content-Security-Policy does."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"


PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_source(_STYLE)}; script-src {_source(_SCRIPT)}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Page:
    """What the page shows.

    Attributes:
        results: newest first; may be fewer than ``total``, and their outputs may be shortened.
        total: how many results are kept.
        revision: changes with every delivery; the page loads itself again when it did.
    """

    results: Sequence[ReceivedResult]
    total: int
    revision: str


def render_page(page: Page) -> str:
    """Render the page of received results."""
    body = "\n".join(_article(received) for received in page.results) or _EMPTY
    return (
        f'{_head(page.revision)}<noscript><meta http-equiv="refresh" content="5;url=/"></noscript>\n</head>\n<body>\n'
        f"<header>\n<h1>AGP development dashboard</h1>\n<p>{_summary(page)}</p>\n"
        '<p id="lost" role="status" hidden>The dashboard does not answer any more: what you see may be old. If it was '
        "started again, open the link that it printed.</p>\n"
        f"</header>\n<main>\n{body}\n</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def render_locked() -> str:
    """Render what a visitor without the link sees: where the link is, and nothing else."""
    return (
        f"{_head('')}</head>\n<body>\n<main>\n<h1>This page needs its link</h1>\n"
        "<p>The dashboard printed a link that ends in <code>/?key=…</code> in the terminal where it was started. "
        "Open that link; the key is a new one after each start.</p>\n</main>\n</body>\n</html>\n"
    )


_EMPTY: Final = (
    "<article><p>No result yet. An agent delivers each finished task with "
    "<code>POST /api/v1/agents/report_result</code>; it appears here by itself.</p></article>"
)


def _head(revision: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en" data-revision="{escape(revision)}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>AGP development dashboard</title>\n<style>{_STYLE}</style>\n"
    )


def _summary(page: Page) -> str:
    if len(page.results) < page.total:
        return f"The newest {len(page.results)} of {page.total} results. <code>GET /api/v1/results</code> has all."
    return f"{page.total} result{'' if page.total == 1 else 's'}, newest first."


def _article(received: ReceivedResult) -> str:
    status = escape(received.status)
    return (
        f'<article id="result-{received.id}">\n<div class="head"><span class="status {status}">{status}</span>'
        f"<h2>{escape(visible_line(received.task_id))}</h2></div>\n"
        f'<p class="facts">{_arrivals(received)}</p>\n{_error(received)}{_output(received)}</article>'
    )


def _arrivals(received: ReceivedResult) -> str:
    first = f"received {_time(received.received_at)}"
    if not received.duplicates:
        return first
    noun = "duplicate" if received.duplicates == 1 else "duplicates"
    last = _time(received.last_received_at)
    return f"{first}, {received.times_received} times ({received.duplicates} {noun}), last {last}"


def _time(moment: datetime) -> str:
    return f'<time datetime="{moment.isoformat()}">{moment:%Y-%m-%d %H:%M:%S} UTC</time>'


def _error(received: ReceivedResult) -> str:
    if received.error is None:
        return ""
    return f'<p class="error">{escape(visible_line(received.error))}</p>\n'


def _output(received: ReceivedResult) -> str:
    if not received.output:
        return '<p class="facts">no output</p>\n'
    # The line break after <pre> is the one that HTML drops; without it an output's own first empty line would go.
    output = f'<pre tabindex="0">\n{escape(visible_text(received.output))}</pre>\n'
    if not received.omitted_bytes:
        return output
    return f'{output}<p class="facts"><a href="/results/{received.id}/output">whole output</a></p>\n'
