"""A bar chart as SVG: one bar per row, its label to the left, its value to the right, an axis below.

             0        100       200
             |         |         |
bakery.txt   ████████████████ 352
orchard.txt  ██████ 148
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "bar_chart"]

# Told apart by most people with a colour deficiency. Source: Okabe and Ito, "Color Universal Design" (2008).
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_WIDTH, _ROW, _BAR = 760, 26, 17
_LEFT_MIN, _LEFT_MAX, _RIGHT = 90, 260, 70
_CHAR = 7.2  # a little more than the mean width of a character at 13 px
_LABEL_CHARS_MAX = 34
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Bar:
    """One row. group: rows of one group have one colour, which the legend explains."""

    label: str
    value: int
    group: str


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """Return the chart as the text of an SVG file. Values are not negative."""
    labels = [_short(bar.label) for bar in bars]
    left = min(_LEFT_MAX, max(_LEFT_MIN, round(max(map(len, labels), default=0) * _CHAR) + 12))
    groups = list(dict.fromkeys(bar.group for bar in bars))
    colours = {group: _COLOURS[number % len(_COLOURS)] for number, group in enumerate(groups)}
    step = _nice_step(max((bar.value for bar in bars), default=0))
    top_value = step * max(1, -(-max((bar.value for bar in bars), default=0) // step))
    scale = (_WIDTH - left - _RIGHT) / top_value
    top = 78
    bottom = top + _ROW * len(bars)
    height = bottom + 34

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(12, 26, title, size=17, weight="bold"),
    ]
    at = 12.0
    for group in groups:
        parts.append(f'<rect x="{at:g}" y="42" width="12" height="12" fill="{colours[group]}"/>')
        parts.append(_text(at + 18, 52, _short(group)))
        at += 18 + len(_short(group)) * _CHAR + 20
    for value in range(0, top_value + 1, step):
        x = left + value * scale
        parts.append(f'<line x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{bottom + 4}" stroke="#dddddd"/>')
        parts.append(_text(x, bottom + 20, f"{value:,}", anchor="middle", fill="#555555"))
    for number, (bar, label) in enumerate(zip(bars, labels, strict=True)):
        y = top + number * _ROW
        parts.append(_text(left - 8, y + 13, label, anchor="end"))
        parts.append(
            f'<rect x="{left}" y="{y}" width="{max(1.0, bar.value * scale):.1f}" height="{_BAR}" '
            f'fill="{colours[bar.group]}"/>'
        )
        parts.append(_text(left + bar.value * scale + 6, y + 13, f"{bar.value:,}"))
    return "\n".join([*parts, "</svg>", ""])


def _nice_step(largest: int) -> int:
    """Return the distance of the ticks: 1, 2 or 5 times a power of ten, for at most ``_TICKS`` of them."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power * _TICKS >= largest:
                return factor * power
        power *= 10


def _short(label: str) -> str:
    return label if len(label) <= _LABEL_CHARS_MAX else label[: _LABEL_CHARS_MAX - 1] + "…"


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 13,
    weight: str = "normal",
    fill: str = "#222222",
) -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{fill}"'
    # XML knows no control characters, not even escaped.
    clean = "".join(mark if mark.isprintable() else "�" for mark in text)
    return f'<text x="{x:.1f}" y="{y:g}" {style}>{escape(clean)}</text>'
