"""The table of metrics in docs/operations.md, made from the code: ``python tests/docs/metrics_table.py`` prints it."""

from prometheus_client.parser import text_string_to_metric_families

from agp_agent.metrics import Figures, Metrics, WarmFigures

BEGIN = "<!-- metrics: made by tests/docs/metrics_table.py -->"
END = "<!-- /metrics -->"
FIGURES = Figures(warm={"shell": WarmFigures(1, 1, 0, 0)})
"""With something of everything."""


def table() -> str:
    """One row a metric: its name as a scrape sees it, its labels, what it means."""
    metrics = Metrics()
    metrics._stage.labels("created", "cold").observe(1)  # a histogram shows its labels with its first observation
    metrics._until.labels("acknowledged", "cold").observe(1)
    rows = []
    for family in text_string_to_metric_families(metrics.text(FIGURES).decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        shown = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}` | {family.type} | {shown} | {family.documentation} |")
    return "\n".join(["| metric | kind | labels | |", "|---|---|---|---|", *sorted(rows)])


if __name__ == "__main__":
    print(table())  # noqa: T201  it is what the script is for
