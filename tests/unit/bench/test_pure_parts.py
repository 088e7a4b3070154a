"""The pure parts of the bench: what its figures say, how they are compared, and what becomes of them on the page."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import history, page, plot, report, trace
from bench.history import Figures
from bench.journal_of import add_finished
from bench.stats import Row, median, paired_ratio, quantile, verdict

MACHINE = {"processor": "2 x this", "memory": "1 GiB", "engine": "20", "kernel": "6"}
SVG = "{http://www.w3.org/2000/svg}"


def row(what: str = "agent", *samples: float, unit: str = "ms", section: str = "s", at: float | None = None) -> Row:
    """A row of a table."""
    return Row(section, what, unit, samples or (10.0,), digits=1, of=what if at is not None else "", at=at)


# --- samples -------------------------------------------------------------------------------------------------------


def test_quantiles_lie_between_their_neighbours() -> None:
    """Interpolated; of one sample all are that sample."""
    assert (median([3, 1, 2]), median([1, 2]), quantile([5], 0.99)) == (2, 1.5, 5)
    assert quantile(range(101), 0.99) == 99
    with pytest.raises(ValueError, match="no values"):
        median([])


def test_a_ratio_has_the_spread_of_its_rounds() -> None:
    """Noise that hits a whole round cancels out."""
    assert paired_ratio([10, 20, 30], [10, 20, 30]) == "1.00 (1.00 to 1.00)"
    assert paired_ratio([20, 40], [10, 10]).startswith("3.00 (2.2")


def test_a_verdict_says_met_or_missed() -> None:
    """Whatever the goal is."""
    assert (verdict("<= 3", met=True), verdict("<= 3", met=False)) == ("<= 3: met", "<= 3: missed")


# --- comparison ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "unit", "is_worse"),
    [
        (100, 114, "ms", False),
        (100, 116, "ms", True),
        (100, 50, "ms", False),
        (100, 86, "/s", False),
        (100, 84, "/s", True),
        (100, 200, "MB/s", False),
        (100, 84, "MB", False),
        (100, 116, "", True),
        (0, 0, "ms", False),
    ],
)
def test_worse_is_slower_or_larger_by_more_than_15_percent(
    before: float, after: float, unit: str, *, is_worse: bool
) -> None:
    """Of rates less is worse; of all else more."""
    assert history.is_worse(row("a", before, unit=unit), row("a", after, unit=unit)) is is_worse


def test_what_got_worse_is_named_with_its_ratio() -> None:
    """And only that; a new figure has nothing to be compared with."""
    old = Figures(MACHINE, (row("agent", 100), row("rival", 100)))
    new = Figures(MACHINE, (row("agent", 150), row("rival", 60), row("new", 1)))
    head, *worse = history.changes(old, new)
    assert head == "Compared with the last stored run: 2 figures, 1 worse, 1 better by over 15 %."
    assert worse == ["WORSE  s: agent: 100.0 → 150.0 ms (1.50 x)"]


def test_another_machine_is_said() -> None:
    """Its figures are another machine's."""
    old, new = Figures(MACHINE, (row(),)), Figures({**MACHINE, "processor": "64 x that"}, (row(),))
    assert history.changes(old, new)[1] == "The stored run was on another machine: processor differ."


def test_nothing_stored_is_said() -> None:
    """The first run of all."""
    assert history.changes(Figures({}, ()), Figures(MACHINE, (row(),))) == [
        "There are no stored figures to compare with."
    ]


def test_stored_figures_come_back_as_they_were(tmp_path: Path) -> None:
    """Through the file; of thousands of samples some are kept, with the same middle and the same ends."""
    many = row("many", *map(float, range(5000)))
    new = history.merged(Figures({}, ()), Figures(MACHINE, (row("a", 1, 2, 3), row("l", 5, at=200), many)))
    (tmp_path / "figures.json").write_text(report.as_json(new.machine, new.rows))
    again = history.read(tmp_path / "figures.json")
    assert (again.machine, again.rows[:2]) == (MACHINE, new.rows[:2])
    kept = again.rows[2].samples
    assert (len(kept), min(kept), max(kept), round(median(kept))) == (200, 0, 4999, 2500)
    assert history.read(tmp_path / "none.json") == Figures({}, ())


def test_a_part_that_was_measured_alone_replaces_its_sections_only() -> None:
    """The others stay as they were; that a part once failed does not."""
    old = Figures({"a": "1", "rate": history.FAILED}, (row("x", 1, section="one"), row("y", 2, section="two")))
    whole = history.merged(old, Figures({"b": "2"}, (row("z", 3, section="two"),)))
    assert (whole.machine, [one.what for one in whole.rows]) == ({"a": "1", "b": "2"}, ["x", "z"])


# --- the agent's trace ---------------------------------------------------------------------------------------------


def _scrape(count: int, total_s: float, start: str = "cold") -> str:
    labels = f'{{stage="output",start="{start}"}}'
    return "\n".join(
        f"agp_task_{kind}_seconds_{part}{labels} {value}"
        for kind in ("stage", "until")
        for part, value in (("count", float(count)), ("sum", total_s))
    )


def test_one_observation_more_is_read_exactly() -> None:
    """The difference of the sums, in milliseconds; buckets and others' lines are let pass."""
    after = _scrape(8, 3.25) + '\n# HELP x\nagp_task_stage_seconds_bucket{stage="output",start="cold",le="1.0"} 8.0'
    told = trace.between(trace.parsed(_scrape(7, 3.0)), trace.parsed(after))
    assert told == trace.Told("cold", {"output": 250.0}, {"output": 250.0})


def test_none_and_several_observations_are_no_task() -> None:
    """Neither says what one task took, nor do a cold and a warm one together."""
    before = trace.parsed(_scrape(1, 1.0))
    assert trace.between(before, before) is None
    assert trace.between(before, trace.parsed(_scrape(3, 2.0))) is None
    both = trace.parsed(_scrape(2, 2.0)) | trace.parsed(_scrape(1, 1.0, "warm"))
    assert trace.between(before, both) is None


# --- the page ------------------------------------------------------------------------------------------------------


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    """The words around them stay, and doing it again changes nothing."""
    text = "before\n<!-- bench:table -->\nold\n<!-- /bench:table -->\nafter\n"
    once = page.replaced(text, "table", "new\n")
    assert once == "before\n<!-- bench:table -->\nnew\n<!-- /bench:table -->\nafter\n"
    assert page.replaced(once, "table", "new") == once
    with pytest.raises(ValueError, match="markers"):
        page.replaced(text, "machine", "x")


def test_a_missed_goal_stands_out() -> None:
    """One that is met does not."""
    missed = Row("s", "slow", "ms", (1000.0, 3000.0), "2 x", "<= 1 ms: missed")
    table = page.tables([missed, Row("s", "fast", "/s", (5.0,), "", ">= 1: met")])
    assert "### s" in table
    assert "| slow | 2,000 ms | 1,200 to 2,800 | 2 | 2 x | **<= 1 ms: missed** |" in table
    assert "| fast | 5/s | 5 to 5 | 1 |  | >= 1: met |" in table


def test_the_goals_stand_together() -> None:
    """Each with its section; what has no goal is not among them."""
    rows = [
        row("plain"),
        Row("one", "slow", "ms", (9.0,), "3 x", "<= 1 ms: missed"),
        Row("two", "ok", "s", (1.0,), "", "y: met"),
    ]
    assert page.goals(rows).splitlines()[2:] == [
        "| one: slow | 9 ms | 3 x | **<= 1 ms: missed** |",
        "| two: ok | 1 s |  | y: met |",
    ]


def test_loads_become_one_line_each() -> None:
    """A column a figure; what was not measured at a load is empty."""
    rows = [row("memory", 70, unit="MB", at=0), row("memory", 75, unit="MB", at=10_000), row("wait", 4, at=0)]
    lines = page.tables(rows).splitlines()
    assert lines[-4:] == [
        "| how many | memory | wait |",
        "|---|---|---|",
        "| 0 | 70.0 MB | 4.0 ms |",
        "| 10,000 | 75.0 MB |  |",
    ]


def test_every_chart_is_well_formed_and_shows_its_figures() -> None:
    """Bars of one task, its stages cold and warm, and a panel a figure over a load."""
    stages = [
        row(name, value, section=page.STAGES.format(start=start))
        for start in ("cold", "warm")
        for name, value in (("accepted", 3.0), ("removed", 9.0))
    ]
    rows = [row("agent & <co>", 12, section=page.SINGLE), *stages, row("memory", 7, section="Scale: of it", at=5)]
    charts = page.charts(rows)
    assert list(charts) == ["performance-single.svg", "performance-stages.svg", "performance-scale-of-it.svg"]
    texts = {name: "".join(ET.fromstring(drawn).itertext()) for name, drawn in charts.items()}  # noqa: S314  our own
    assert "agent & <co>" in texts["performance-single.svg"]
    assert "removed" not in texts["performance-stages.svg"], "it is beside the way, not on it"
    assert "memory, ms" in texts["performance-scale-of-it.svg"]


def test_bars_are_as_long_as_their_figures() -> None:
    """Twice as much is twice as long; parts stand one behind the other."""
    drawn = ET.fromstring(plot.stacked("t", {"a": {"x": 1, "y": 1}, "b": {"x": 4}}, "ms"))  # noqa: S314  our own
    boxes = {box[0].text: box for box in drawn.iter(f"{SVG}rect") if len(box)}
    a, b = boxes["x: 1 ms"], boxes["x: 4 ms"]
    assert float(b.get("width", 0)) == pytest.approx(4 * float(a.get("width", 0)), abs=0.5)
    after_a = float(a.get("x", 0)) + float(a.get("width", 0))
    assert float(boxes["y: 1 ms"].get("x", 0)) == pytest.approx(after_a, abs=0.2)


def test_charts_of_nothing_and_of_zero_are_drawn() -> None:
    """Neither divides by zero."""
    for drawn in (plot.bars("t", {}, "ms"), plot.bars("t", {"a": 0}, "ms"), plot.lines("t", {"p": {0: 0}})):
        ET.fromstring(drawn)  # noqa: S314  our own


def test_the_page_is_written_with_its_charts(tmp_path: Path) -> None:
    """Markers of machine and table; the charts beside it."""
    (tmp_path / "performance.md").write_text(
        "# P\n" + "".join(f"<!-- bench:{name} --><!-- /bench:{name} -->\n" for name in ("machine", "goals", "table"))
    )
    files = page.write(Figures(MACHINE, (row(section=page.SINGLE),)), tmp_path)
    assert [file.name for file in files] == ["performance.md", "performance-single.svg"]
    assert "- processor: 2 x this" in files[0].read_text()


# --- a journal of very many tasks ----------------------------------------------------------------------------------


def _journal(path: Path, state: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(
            "CREATE TABLE attempts (seq INTEGER PRIMARY KEY, run_id TEXT UNIQUE, task_id TEXT UNIQUE, more TEXT)"
        )
        db.execute("CREATE TABLE outbox (seq INTEGER PRIMARY KEY REFERENCES attempts (seq), state TEXT)")
        db.execute("INSERT INTO attempts VALUES (5, 'r', 't', 'kept')")
        db.execute("INSERT INTO outbox VALUES (5, ?)", (state,))


def test_finished_tasks_are_copied_with_names_of_their_own(tmp_path: Path) -> None:
    """Twice, so that a larger load goes on where the smaller ended; all else is as in the task that really ran."""
    _journal(tmp_path / "journal.db", "acknowledged")
    add_finished(tmp_path / "journal.db", 3)
    add_finished(tmp_path / "journal.db", 2)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        assert db.execute("SELECT count(*), max(seq), count(DISTINCT more) FROM attempts").fetchone() == (6, 10, 1)
        assert db.execute("SELECT count(*), min(state) FROM outbox").fetchone() == (6, "acknowledged")


def test_results_that_are_not_delivered_are_not_copied(tmp_path: Path) -> None:
    """They would all be delivered."""
    _journal(tmp_path / "journal.db", "pending")
    with pytest.raises(ValueError, match="no acknowledged result"):
        add_finished(tmp_path / "journal.db", 3)


def test_json_has_every_sample() -> None:
    """For other tools."""
    document = json.loads(report.as_json(MACHINE, [row("a", 1, 2)]))
    assert (document["machine"], document["rows"][0]["samples"], document["rows"][0]["median"]) == (
        MACHINE,
        [1, 2],
        1.5,
    )
