"""The OpenAPI document as one page to read: no script, nothing from elsewhere, so it works on a closed network."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any, Final

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
section { border-top: 1px solid GrayText; padding: .5rem 0 1rem; }
code, pre { font: 14px/1.4 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid GrayText; border-radius: .25rem; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid GrayText; padding: .25rem .75rem .25rem 0; vertical-align: top; }
"""
PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def render(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    operations = "\n".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "\n".join(_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items()))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n"
        "<p>Every call but the two probes needs <code>Authorization: Bearer &lt;token&gt;</code>. For programs: "
        "<code>GET /openapi.json</code>.</p>\n"
        f"{operations}\n<h2>Models</h2>\n{schemas}\n</body></html>\n"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    text = escape(operation.get("description") or operation.get("summary", ""))
    rows = "".join(_rows(operation))
    return (
        f"<section><h3><code>{escape(method.upper())} {escape(path)}</code></h3>\n<p>{text}</p>\n"
        f"<table>{rows}</table></section>"
    )


def _rows(operation: dict[str, Any]) -> Iterator[str]:
    for one in operation.get("parameters", ()):
        yield _row(f"{one['in']} {one['name']}", one.get("description", "") or json.dumps(one["schema"]))
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield _row("body", _named(content["schema"]))
    for status, answer in operation["responses"].items():
        shapes = ", ".join(_named(one["schema"]) for one in answer.get("content", {}).values())
        yield _row(status, f"{answer['description']} {shapes}".strip())


def _row(name: str, text: str) -> str:
    return f"<tr><td><code>{escape(name)}</code></td><td>{escape(text)}</td></tr>"


def _named(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", schema.get("type", ""))).rpartition("/")[2]


def _schema(name: str, schema: dict[str, Any]) -> str:
    shown = json.dumps(schema, indent=2, ensure_ascii=False)
    return f"<section><h3>{escape(name)}</h3><pre>{escape(shown)}</pre></section>"
