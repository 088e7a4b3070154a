"""The one web page, as text without anything foreign in it: what tasks bring is put in by its script, as text alone.

Frame, style and script are the files beside this module, put into one document that loads nothing from outside; the
policy header allows exactly their hashes.
"""

import base64
import hashlib
import json
from importlib.resources import files
from typing import Final

from agp_agent.dev_dashboard.samples import SAMPLES


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


_STYLE: Final = _file("page.css")
_SCRIPT: Final = _file("output.js") + _file("page.js")
_FRAME: Final = _file("page.html")
# As JSON inside HTML: only the end of a script element, and what begins a comment, would end it early.
_SAMPLES: Final = json.dumps(SAMPLES).replace("<", "\\u003c")


def _source(inline: str) -> str:
    """Name an inline style or script the way a Content-Security-Policy does."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"


PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_source(_STYLE)}; script-src {_source(_SCRIPT)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def render_page() -> str:
    """Render the page: the same for everybody, always."""
    return (
        f'{_HEAD}</head>\n<body>\n{_FRAME}<script type="application/json" id="samples">{_SAMPLES}</script>\n'
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def render_locked() -> str:
    """Render what a visitor without the link sees: where the link is, and nothing else."""
    return (
        f"{_HEAD}</head>\n<body>\n<h1>This page needs its link</h1>\n"
        "<p>The dashboard printed a link that ends in <code>/?key=…</code> in the terminal where it was started. "
        "Open that link. It works once; for each that was used the terminal shows another.</p>\n</body>\n</html>\n"
    )


_HEAD: Final = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
    f"<title>AGP development dashboard</title>\n<style>{_STYLE}</style>\n"
)
