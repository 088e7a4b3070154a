"""The README's table of settings, made from the code: ``python tests/docs/settings_table.py`` prints it."""

from pydantic_core import PydanticUndefined

from agp_agent.settings import PREFIX, Settings

BEGIN = "<!-- settings: made by tests/docs/settings_table.py -->"
END = "<!-- end of settings -->"


def table() -> str:
    """All settings with their defaults and descriptions, as Markdown."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "", PydanticUndefined) else f"`{_shown(field.default)}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


if __name__ == "__main__":
    print(table())  # noqa: T201  that is what it is for
