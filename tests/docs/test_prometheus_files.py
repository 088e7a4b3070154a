"""The alerts and the Grafana dashboard speak of metrics that there are, with labels that they have."""

import json
import re
from pathlib import Path

import pytest
import yaml

from agp_agent.metrics import Metrics
from docs.metrics_table import BEGIN, END, FIGURES, table

FOLDER = Path(__file__).parents[2] / "docs" / "prometheus"


def known() -> dict[str, set[str]]:
    """Every series' name with the labels that it has, as a scrape sees them; a histogram needs an observation."""
    metrics = Metrics()
    metrics._stage.labels("created", "cold").observe(1)
    metrics._until.labels("acknowledged", "cold").observe(1)
    found: dict[str, set[str]] = {}
    for line in metrics.text(FIGURES).decode().splitlines():
        if (match := re.match(r"(agp_\w+)(?:\{(.*)\})? ", line)) and not line.startswith("#"):
            labels = set(re.findall(r'(\w+)="', match[2] or ""))
            found.setdefault(match[1], set()).update(labels | {"instance", "job"})
    return found


def expressions(file: str) -> list[str]:
    """All that is asked of Prometheus in one of the files."""
    text = (FOLDER / file).read_text()
    if file.endswith(".json"):
        document = json.loads(text)
        asked = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
        return [*asked, *(one["query"] for one in document["templating"]["list"] if one["type"] == "query")]
    return [rule["expr"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("file", ["alerts.yaml", "dashboard.json"])
def test_what_is_asked_for_is_there(file: str) -> None:
    """A name or a label with a typo would be silent for ever."""
    series = known()
    for expression in expressions(file):
        for name, _, selector in re.findall(r"(agp_\w+)(\{([^}]*)\})?", expression):
            assert name in series, expression
            assert set(re.findall(r"(\w+)\s*=~?", selector)) <= series[name], expression
    assert len(expressions(file)) >= 9


def test_every_alert_has_its_advice() -> None:
    """docs/operations.md says what each means, and what to do."""
    page = (FOLDER.parent / "operations.md").read_text()
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        assert f"| {rule['alert']} |" in page


def test_the_table_of_metrics_is_the_codes() -> None:
    """``python tests/docs/metrics_table.py`` prints what has to stand there."""
    page = (FOLDER.parent / "operations.md").read_text()
    assert page.split(BEGIN)[1].split(END)[0].strip() == table()
