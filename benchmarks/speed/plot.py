"""Draws the figures as one SVG: what is accepted in a second, and every measure against its target."""

import math
from html import escape
from statistics import median

from benchmarks.speed.measures import Measure, figure, target

WIDTH = 1000
LABELS = 440
"""Where the labels end and the bars begin."""
BARS = 380
ROW = 24
_INK, _FAINT, _GRID = "#1f2328", "#59636e", "#d1d9e0"
_OURS, _THEIRS, _MET, _MISSED = "#0969da", "#a8b3bf", "#2da44e", "#cf222e"
_LEAST, _MOST = 0.25, 16.0
"""The second panel shows these multiples of the target. What is beyond them is drawn to its edge."""


def draw(measures: list[Measure], machine: dict[str, object], made_at: str) -> str:
    parts: list[str] = []
    y = _title(parts, machine, made_at)
    accepted = _accepted(measures)
    if accepted:
        y = _bars(parts, y, "Orders accepted in a second", accepted)
    judged = [measure for measure in measures if measure.target is not None and measure.judged is not None]
    if judged:
        y = _targets(parts, y, judged)
    height = y + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="13">\n'
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff" stroke="{_GRID}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _title(parts: list[str], machine: dict[str, object], made_at: str) -> int:
    parts.append(_text(24, 36, "QuikTrade against its references", size=18, weight=600))
    said = f"{machine['cores']} cores shared by database, server, client and venue; PostgreSQL {machine['postgresql']}"
    parts.append(_text(24, 58, f"{said}, fsync on; {made_at}", colour=_FAINT))
    return 76


def _accepted(measures: list[Measure]) -> list[tuple[str, float, bool]]:
    """Label, orders a second, and whether it is ours; the most first."""
    found: dict[str, tuple[float, bool]] = {}
    for measure in measures:
        if measure.unit != "orders/s" or measure.scenario not in ("accept", "batch"):
            continue
        found[f"QuikTrade, {measure.name}"] = (median(measure.ours), True)
        if measure.scenario == "accept" and measure.reference:
            found[measure.against] = (median(measure.reference), False)
    bars = [(label, value, ours) for label, (value, ours) in found.items()]
    return sorted(bars, key=lambda bar: -bar[1])


def _bars(parts: list[str], y: int, title: str, bars: list[tuple[str, float, bool]]) -> int:
    y = _heading(parts, y, title)
    most = max(value for _, value, _ in bars)
    for label, value, ours in bars:
        width = max(1.0, BARS * value / most)
        parts.append(_text(LABELS - 12, y + 16, label, anchor="end", weight=600 if ours else 400))
        parts.append(_rectangle(LABELS, y + 4, width, _OURS if ours else _THEIRS))
        parts.append(_text(LABELS + width + 8, y + 16, figure(value), colour=_FAINT))
        y += ROW
    return y + 12


def _targets(parts: list[str], y: int, measures: list[Measure]) -> int:
    y = _heading(parts, y, "How far beyond its target, or short of it (logarithmic; a dot for each repeat)")
    bottom = y + ROW * len(measures) + 4
    for share in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0):
        x = _x(share)
        colour, width = (_INK, 1.5) if share == 1.0 else (_GRID, 1.0)
        parts.append(
            f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{bottom}" stroke="{colour}" stroke-width="{width}"/>'
        )
        parts.append(
            _text(x, bottom + 15, "target" if share == 1.0 else f"{share:g} ×", anchor="middle", colour=_FAINT)
        )
    for measure in measures:
        assert measure.judged is not None
        middle, start = _x(_reached(measure, measure.judged)), _x(1.0)
        colour = _MET if measure.met else _MISSED
        label = f"{measure.name} vs {measure.against}" if measure.reference else measure.name
        parts.append(_text(LABELS - 12, y + 16, _shortened(label), anchor="end"))
        parts.append(_rectangle(min(start, middle), y + 7, max(1.0, abs(middle - start)), colour, height=10))
        for value in measure.ratios if measure.reference else measure.ours:
            x = _x(_reached(measure, value))
            parts.append(f'<circle cx="{x:.1f}" cy="{y + 12}" r="2.5" fill="{_INK}" fill-opacity="0.55"/>')
        said = f"{figure(measure.judged)}{' ×' if measure.reference else f' {measure.unit}'}"
        parts.append(_text(WIDTH - 16, y + 16, f"{said} ({target(measure)})", anchor="end", colour=_FAINT, size=12))
        y += ROW
    return bottom + 30


def _reached(measure: Measure, value: float) -> float:
    """1 is exactly the target, and more is better, even if the target is an upper limit."""
    assert measure.target is not None
    if not measure.target:  # nothing is allowed, so nothing can be better
        return 1.0 if value <= 0 else _LEAST
    if measure.at_most:
        return measure.target / value if value > 0 else _MOST
    return value / measure.target


def _x(share: float) -> float:
    share = min(_MOST, max(_LEAST, share))
    return LABELS + BARS * math.log(share / _LEAST) / math.log(_MOST / _LEAST)


def _heading(parts: list[str], y: int, text: str) -> int:
    parts.append(_text(24, y + 18, text, weight=600))
    return y + 30


def _shortened(text: str) -> str:
    return text if len(text) <= 62 else text[:61] + "…"


def _rectangle(x: float, y: float, width: float, colour: str, *, height: int = 16) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" rx="2" fill="{colour}"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = _INK, size: int = 13, weight: int = 400
) -> str:
    look = f'text-anchor="{anchor}" fill="{colour}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y}" {look}>{escape(text)}</text>'
