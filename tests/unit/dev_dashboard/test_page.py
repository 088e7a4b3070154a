"""The page, as text."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from agp_agent.dev_dashboard.page import PAGE_HEADERS, render_locked, render_page
from agp_agent.dev_dashboard.samples import SAMPLES


class Outline(HTMLParser):
    """Collects what a browser would see: elements, attributes, and the text of each kind of element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in {"meta", "link", "br", "img", "input"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that elements are closed in the order in which they were opened."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        if self._open:
            self.text[self._open[-1]] = self.text.get(self._open[-1], "") + data


@pytest.mark.parametrize("page", [render_page(), render_locked()])
def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    """No source, no external address, and a policy that allows exactly the inline style and script."""
    outline = Outline(page)
    assert not {"img", "iframe"} & set(outline.tags)
    assert [value for name, value in outline.attributes if name == "href"] == ["data:,"]
    assert not {"src", "style", "onclick"} & {name for name, _ in outline.attributes}
    shown = re.sub(r"<script.*</script>|placeholder=\"[^\"]*\"", "", page, flags=re.DOTALL)
    assert "//" not in shown
    policy = PAGE_HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    for kind, inline in re.findall(r"<(style|script)>(.*?)</(?:style|script)>", page, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert "unsafe" not in policy


def test_the_page_suits_a_phone_and_the_dark() -> None:
    """Viewport, colour scheme and wrapping are there; without script it says that it needs one."""
    page = render_page()
    for needed in (
        "width=device-width",
        "color-scheme: light dark",
        "prefers-color-scheme: dark",
        "anywhere",
        "<noscript>",
    ):
        assert needed in page


def test_the_script_never_makes_html_of_a_text() -> None:
    """No way of the browser's to do that is named in it; the policy would stop it, too."""
    script = Outline(render_page()).text["script"]
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"):
        assert way not in script
    assert "require-trusted-types-for 'script'" in PAGE_HEADERS["Content-Security-Policy"]


def test_samples_are_data_that_ends_no_script() -> None:
    """They stand in the page as JSON."""
    samples = re.search(r'<script type="application/json" id="samples">(.*?)</script>', render_page(), re.DOTALL)
    assert samples is not None
    assert json.loads(samples[1]) == SAMPLES
    assert {Path(name).suffix for name in SAMPLES} == {".sh", ".py", ".yml"}
