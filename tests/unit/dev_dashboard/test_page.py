"""The page, as text."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from agp_agent.dev_dashboard.page import PAGE_HEADERS, Page, render_locked, render_page
from agp_agent.dev_dashboard.store import ReceivedResult, ResultStore
from agp_agent.models import TaskResult


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
        if tag not in {"meta", "link", "br", "img"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that elements are closed in the order in which they were opened."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        if self._open:
            self.text[self._open[-1]] = self.text.get(self._open[-1], "") + data


@pytest.fixture
def received(store: ResultStore, result: TaskResult) -> ReceivedResult:
    """A hostile result that came three times."""
    store.add(result, "key")
    store.add(result, "key")
    return store.add(result, "key")


def page_of(*received: ReceivedResult, total: int | None = None) -> str:
    """Render a page of these results."""
    return render_page(Page(received, len(received) if total is None else total, "7"))


def test_nothing_foreign_becomes_html(received: ReceivedResult) -> None:
    """Scripts in id, error and output are text, and the page keeps its structure."""
    outline = Outline(page_of(received))
    assert outline.tags.count("script") == outline.tags.count("pre") == 1
    assert "b" not in outline.tags
    assert outline.text["h2"] == "<script>alert(1)</script>"
    assert outline.text["pre"].startswith("\n</pre><script>alert(2)</script>\n\\x1b[31mred")


def test_control_characters_are_visible(received: ReceivedResult) -> None:
    """Neither escapes nor direction marks reach the browser; newlines of the output do."""
    page = page_of(received)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
    assert r"exit code 2 &quot;&amp;&lt;b&gt;\x1b[2J\nforged" in page
    assert "\\u202etxt.exe\nlast\\rover</pre>" in page


def test_arrivals_and_duplicates_are_told(received: ReceivedResult) -> None:
    """First and last time, how often, and how many of these were duplicates."""
    text = re.sub("<[^>]+>", "", page_of(received))
    assert "received 2026-01-02 03:04:06 UTC, 3 times (2 duplicates), last 2026-01-02 03:04:08 UTC" in text
    assert "duplicate" not in page_of(replace(received, times_received=1))


def test_a_shortened_output_links_to_the_whole_one(received: ReceivedResult) -> None:
    """What the page leaves out is one click away."""
    assert '<a href="/results/1/output">' in page_of(replace(received, omitted_bytes=5))
    assert "<a " not in page_of(received)


def test_an_empty_output_and_no_error_are_said(received: ReceivedResult) -> None:
    """A silent success has neither an empty box nor an error line."""
    page = page_of(replace(received, output="", error=None))
    assert "no output" in page
    assert "<pre" not in page
    assert 'class="error"' not in page


def test_the_empty_page_says_how_results_come() -> None:
    """A newcomer sees what has to happen next."""
    assert "POST /api/v1/agents/report_result" in page_of()
    assert "0 results" in page_of()


def test_a_page_that_is_not_all_says_so(received: ReceivedResult) -> None:
    """The reader knows that there is more."""
    assert "The newest 1 of 60 results." in page_of(received, total=60)


@pytest.mark.parametrize("page", [page_of(), render_locked()])
def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    """No source, no external address, and a policy that allows exactly the inline style and script."""
    outline = Outline(page)
    assert not {"link", "img", "iframe"} & set(outline.tags)
    assert not {"src", "style", "onclick"} & {name for name, _ in outline.attributes}
    assert "//" not in re.sub(r"<script>.*</script>", "", page, flags=re.DOTALL)
    policy = PAGE_HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    for kind in {"style", "script"} & set(outline.tags):
        digest = base64.b64encode(hashlib.sha256(outline.text[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert "unsafe" not in policy


def test_the_page_suits_a_phone_and_the_dark() -> None:
    """Viewport, colour scheme and wrapping are there; the page shows its revision and works without script."""
    page = page_of()
    for needed in ("width=device-width", "color-scheme: light dark", "prefers-color-scheme: dark", "anywhere"):
        assert needed in page
    assert 'data-revision="7"' in page
    assert '<noscript><meta http-equiv="refresh"' in page
