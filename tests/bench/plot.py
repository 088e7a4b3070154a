"""Small charts as SVG text: bars, bars of parts, and lines over a load. Pure; readable on light and dark pages."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

_WIDTH: Final = 860
_LABEL: Final = 300
_BAR: Final = 22
_ROW: Final = 32
_TOP: Final = 44
_PANEL: Final = (270, 170)
_COLOURS: Final = ("#4878a8", "#e49444", "#6a9f58", "#d1615d", "#85b6b2", "#967662", "#b07aa1", "#e7ca60", "#a6a6a6")
_HEAD: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    'font-family="sans-serif" font-size="13">\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
)


def bars(title: str, values: Mapping[str, float], unit: str) -> str:
    """One horizontal bar a value."""
    return stacked(title, {name: {"": value} for name, value in values.items()}, unit)


def stacked(title: str, rows: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """One horizontal bar a row, made of its parts; parts of the same name have the same colour everywhere."""
    most = max((sum(parts.values()) for parts in rows.values()), default=0.0) or 1.0
    scale = (_WIDTH - _LABEL - 110) / most
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    colour = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
    body = [_text(12, 24, title, weight="bold")]
    for number, (row, parts) in enumerate(rows.items()):
        top, left = _TOP + number * _ROW, float(_LABEL)
        body.append(_text(_LABEL - 8, top + 16, row, anchor="end"))
        for name, value in parts.items():
            body.append(_box(left, top, value * scale, _BAR, colour[name], f"{name or row}: {_figure(value)} {unit}"))
            left += value * scale
        body.append(_text(left + 6, top + 16, f"{_figure(sum(parts.values()))} {unit}"))
    height: float = _TOP + len(rows) * _ROW + 8
    if names != [""]:
        legend, height = _legend(colour, height)
        body += legend
    return _svg(_WIDTH, height, body)


def lines(title: str, panels: Mapping[str, Mapping[float, float]]) -> str:
    """A small panel for each name, three in a row: its values over a load, from zero on."""
    columns = min(3, max(1, len(panels)))
    rows = math.ceil(len(panels) / columns)
    body = [_text(12, 24, title, weight="bold")]
    for number, (name, points) in enumerate(panels.items()):
        row, column = divmod(number, columns)
        body += _panel(name, points, 12 + column * (_PANEL[0] + 10), _TOP + row * (_PANEL[1] + 14))
    return _svg(24 + columns * (_PANEL[0] + 10), _TOP + rows * (_PANEL[1] + 14), body)


def _panel(name: str, points: Mapping[float, float], left: float, top: float) -> list[str]:
    most_x, most_y = max(points, default=0.0) or 1.0, max(points.values(), default=0.0) or 1.0
    width, height, floor = _PANEL[0] - 70, _PANEL[1] - 62, top + _PANEL[1] - 30
    places = [
        (left + 50 + x / most_x * width, floor - y / (most_y * 1.1) * height, x, y) for x, y in sorted(points.items())
    ]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in places)
    axes = f"M{left + 50:.1f} {floor - height:.1f}V{floor:.1f}H{left + 50 + width:.1f}"
    return [
        _text(left + 4, top + 14, name),
        f'<path d="{axes}" fill="none" stroke="#999999"/>',
        f'<polyline points="{drawn}" fill="none" stroke="{_COLOURS[0]}" stroke-width="2"/>',
        *(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_COLOURS[0]}">'
            f"<title>{_figure(load)}: {_figure(value)}</title></circle>"
            for x, y, load, value in places
        ),
        _text(left + 46, floor, "0", anchor="end"),
        _text(left + 46, floor - height / 1.1 + 4, _figure(most_y), anchor="end"),
        _text(left + 50 + width, floor + 16, _figure(most_x), anchor="middle"),
    ]


def _legend(colour: Mapping[str, str], top: float) -> tuple[list[str], float]:
    body, left = [], 12.0
    for name, fill in colour.items():
        wide = 34 + 7.2 * len(name)
        if left + wide > _WIDTH:
            left, top = 12.0, top + 22
        body += [_box(left, top, 12, 12, fill, name), _text(left + 17, top + 11, name)]
        left += wide
    return body, top + 28


def _box(left: float, top: float, width: float, height: float, fill: str, tip: str) -> str:
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(0.0, width):.1f}" height="{height}" fill="{fill}">'
        f"<title>{escape(tip)}</title></rect>"
    )


def _text(left: float, top: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    place = f'x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text {place} fill="#222222">{escape(text)}</text>'


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _svg(width: float, height: float, body: Sequence[str]) -> str:
    return _HEAD.format(width=round(width), height=round(height)) + "\n".join(body) + "\n</svg>\n"
