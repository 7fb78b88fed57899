"""Pictures of the figures, as SVG written by hand: no library, no fonts, readable on a light and on a dark page."""

from __future__ import annotations

import math
from html import escape

WIDTH = 860
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
.title { font-size: 16px; font-weight: 600; }
.small { font-size: 12px; fill: #57606a; }
.page { fill: #ffffff; }
.grid { stroke: #d0d7de; stroke-width: 1; }
.axis { stroke: #57606a; stroke-width: 1; }
.strong { font-weight: 700; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .small { fill: #9da7b3; }
  .page { fill: #0d1117; }
  .grid { stroke: #30363d; }
  .axis { stroke: #9da7b3; }
}
"""
SAKER = "#e5484d"
SAKER_SECOND = "#f5a524"
# Middle tones, which have contrast to white and to black.
OTHERS = ["#3e8ed0", "#2f9e77", "#8e6fd8", "#b0792b", "#d1619f", "#5b8c2a", "#1fa2b8", "#8a8f98", "#6173d6", "#a86454", "#4f9d9d", "#9a7bb5", "#7d8c3a", "#c26d3f"]


def colour(name: str, names: list[str]) -> str:
    if name == "Saker":
        return SAKER
    if name.startswith("Saker"):
        return SAKER_SECOND
    others = sorted(one for one in names if not one.startswith("Saker"))
    return OTHERS[others.index(name) % len(OTHERS)]


def number(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1_000:,.0f}k" if value < 1_000_000 else f"{value / 1_000_000:.1f}M"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


class Drawing:
    def __init__(self, title: str, subtitle: str, height: int) -> None:
        self.height = height
        self._parts = [f'<rect class="page" x="0" y="0" width="{WIDTH}" height="{height}" rx="6"/>']
        self.text(20, 28, title, "title")
        self.text(20, 48, subtitle, "small")

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start", fill: str = "", turned: bool = False) -> None:
        style = f' style="fill:{fill}"' if fill else ""
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
        self._parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}{turn}>{escape(text)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self._parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def path(self, points: list[tuple[float, float]], stroke: str, width: float, dash: str = "") -> None:
        steps = " ".join(f"{'M' if number == 0 else 'L'}{x:.1f},{y:.1f}" for number, (x, y) in enumerate(points))
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(f'<path d="{steps}" fill="none" stroke="{stroke}" stroke-width="{width}" stroke-linejoin="round"{dashes}/>')

    def dot(self, x: float, y: float, fill: str, radius: float = 3.5) -> None:
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}"/>')

    def bar(self, x: float, y: float, width: float, height: float, fill: str, opacity: float = 1.0) -> None:
        self._parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" fill="{fill}" fill-opacity="{opacity}" rx="2"/>')

    def svg(self) -> str:
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" width="{WIDTH}" height="{self.height}" role="img">'
        return f"{head}\n<style>{STYLE}</style>\n" + "\n".join(self._parts) + "\n</svg>\n"


class LogAxis:
    """A range of values on a stretch of pixels, by their logarithm."""

    def __init__(self, values: list[float], low: float, high: float) -> None:
        self._from, self._to = math.log10(min(values) * 0.85), math.log10(max(values) * 1.15)
        self._low, self._high = low, high

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._from) / ((self._to - self._from) or 1)
        return self._low + share * (self._high - self._low)

    def ticks(self) -> list[float]:
        found = []
        for power in range(math.floor(self._from), math.ceil(self._to) + 1):
            steps = (1, 2, 5) if self._to - self._from < 3 else (1,)
            found += [step * 10.0**power for step in steps]
        return [value for value in found if self._from <= math.log10(value) <= self._to]


def labels(drawing: Drawing, x: float, wanted: list[tuple[float, str, str]], top: float, bottom: float) -> None:
    """Names beside the ends of lines, moved apart where they would cover each other."""
    gap = 15.0
    placed = sorted(wanted)
    heights = [max(top, y) for y, _, _ in placed]
    for number in range(1, len(heights)):
        heights[number] = max(heights[number], heights[number - 1] + gap)
    overflow = heights[-1] - bottom if heights else 0
    if overflow > 0:
        heights[-1] -= overflow
        for number in range(len(heights) - 2, -1, -1):
            heights[number] = min(heights[number], heights[number + 1] - gap)
    for (y, name, fill), height in zip(placed, heights):
        drawing.path([(x - 12, y), (x - 3, height - 4)], fill, 1)
        drawing.text(x, height, name, "strong" if name.startswith("Saker") else "", fill=fill)


def curves(title: str, subtitle: str, series: dict[str, list[tuple[float, float]]], y_name: str) -> str:
    """Recall against searches a second; recall is drawn by its distance to 1, where the differences are."""
    drawing = Drawing(title, subtitle, 520)
    left, right, top, bottom = 70, WIDTH - 170, 70, 460
    names = list(series)
    recalls = [0.8, 0.9, 0.95, 0.98, 0.99, 0.995]

    def x_of(recall: float) -> float:
        bounded = min(max(recall, 0.8), 0.998)
        low, high = -math.log10(1 - 0.8), -math.log10(1 - 0.998)
        return left + (-math.log10(1 - bounded) - low) / (high - low) * (right - left)

    shown = {name: [(recall, qps) for recall, qps in points if recall >= 0.8] for name, points in series.items()}
    shown = {name: points for name, points in shown.items() if points}
    if not shown:
        return drawing.svg()
    axis = LogAxis([qps for points in shown.values() for _, qps in points], bottom, top)
    for value in axis.ticks():
        drawing.line(left, axis.at(value), right, axis.at(value), "grid")
        drawing.text(left - 8, axis.at(value) + 4, number(value), "small", "end")
    for recall in recalls:
        drawing.line(x_of(recall), top, x_of(recall), bottom, "grid")
        drawing.text(x_of(recall), bottom + 18, f"{recall:g}", "small", "middle")
    drawing.line(left, bottom, right, bottom, "axis")
    drawing.text((left + right) / 2, bottom + 40, "recall@10", "small", "middle")
    drawing.text(22, (top + bottom) / 2, y_name, "small", "middle", turned=True)
    ends = []
    for name, points in sorted(shown.items(), key=lambda item: item[0].startswith("Saker")):
        fill = colour(name, names)
        places = [(x_of(recall), axis.at(qps)) for recall, qps in sorted(points)]
        drawing.path(places, fill, 3 if name.startswith("Saker") else 1.8)
        for x, y in places:
            drawing.dot(x, y, fill, 3.5 if name.startswith("Saker") else 2.5)
        ends.append((places[-1][1], name, fill))
    labels(drawing, right + 14, ends, top + 10, bottom)
    return drawing.svg()


def bars(title: str, subtitle: str, groups: list[str], rows: dict[str, list[float | None]], unit: str, *, log: bool = True) -> str:
    """A row for each name, in it a bar for each group; names in the order given."""
    each = 16
    block = each * len(groups) + 10
    drawing = Drawing(title, subtitle, 96 + block * len(rows))
    left, right, top = 190, WIDTH - 90, 84
    names = list(rows)
    values = [value for row in rows.values() for value in row if value]
    if not values:
        return drawing.svg()
    low = 10 ** math.floor(math.log10(min(values)) - 0.3)
    high = max(values)

    def length(value: float) -> float:
        share = math.log10(value / low) / math.log10(high / low) if log else value / high
        return share * (right - left)

    shades = [1.0, 0.55, 0.3]
    for number_of_group, group in enumerate(groups):
        drawing.bar(left + 180 * number_of_group, 60, 14, 10, "#8a8f98", shades[number_of_group])
        drawing.text(left + 180 * number_of_group + 20, 70, group, "small")
    for place, (name, row) in enumerate(rows.items()):
        y = top + place * block
        drawing.text(left - 10, y + each * len(groups) / 2 + 4, name, "strong" if name.startswith("Saker") else "", "end")
        for number_of_group, value in enumerate(row):
            at = y + number_of_group * each
            if not value:
                drawing.text(left + 6, at + 12, "-", "small")
                continue
            drawing.bar(left, at, length(value), each - 3, colour(name, names), shades[number_of_group])
            drawing.text(left + length(value) + 6, at + 11, f"{number(value)}{unit}", "small")
    return drawing.svg()


def spans(title: str, subtitle: str, rows: dict[str, list[tuple[str, float]]], x_name: str) -> str:
    """For each name its percentiles as dots on one logarithmic line."""
    each = 26
    drawing = Drawing(title, subtitle, 120 + each * len(rows))
    left, right, top = 190, WIDTH - 60, 70
    names = list(rows)
    values = [value for row in rows.values() for _, value in row if value > 0]
    if not values:
        return drawing.svg()
    axis = LogAxis(values, left, right)
    bottom = top + each * len(rows)
    for value in axis.ticks():
        drawing.line(axis.at(value), top, axis.at(value), bottom, "grid")
        drawing.text(axis.at(value), bottom + 16, number(value), "small", "middle")
    drawing.text((left + right) / 2, bottom + 36, x_name, "small", "middle")
    for place, (name, row) in enumerate(rows.items()):
        y = top + place * each + each / 2
        fill = colour(name, names)
        drawing.text(left - 10, y + 4, name, "strong" if name.startswith("Saker") else "", "end")
        places = [(axis.at(value), y) for _, value in row if value > 0]
        if not places:
            continue
        drawing.path([places[0], places[-1]], fill, 2)
        for size, (x, _) in enumerate(places):
            drawing.dot(x, y, fill, 6 - 1.2 * size)
    return drawing.svg()


def panels(title: str, subtitle: str, panels_of: dict[str, dict[str, list[tuple[float, float, bool]]]], x_name: str, y_name: str) -> str:
    """Two sets of curves beside each other; a hollow point did not reach the recall."""
    drawing = Drawing(title, subtitle, 470)
    names = sorted({name for series in panels_of.values() for name in series})
    values = [qps for series in panels_of.values() for points in series.values() for _, qps, _ in points]
    shares = sorted({share for series in panels_of.values() for points in series.values() for share, _, _ in points})
    if not values:
        return drawing.svg()
    top, bottom, left, gap, right = 90, 400, 70, 40, WIDTH - 150
    width = (right - left - gap * (len(panels_of) - 1)) / len(panels_of)
    vertical = LogAxis(values, bottom, top)
    ends: dict[str, tuple[float, str, str]] = {}
    for place, (panel, series) in enumerate(panels_of.items()):
        start = left + place * (width + gap)
        horizontal = LogAxis(shares, start + 10, start + width - 10)
        drawing.text(start, top - 12, panel, "strong")
        for value in vertical.ticks():
            drawing.line(start, vertical.at(value), start + width, vertical.at(value), "grid")
            if place == 0:
                drawing.text(start - 8, vertical.at(value) + 4, number(value), "small", "end")
        for share in shares:
            drawing.text(horizontal.at(share), bottom + 18, f"{share:g} %", "small", "middle")
        drawing.line(start, bottom, start + width, bottom, "axis")
        drawing.text(start + width / 2, bottom + 40, x_name, "small", "middle")
        for name, points in sorted(series.items(), key=lambda item: item[0].startswith("Saker")):
            fill = colour(name, names)
            places = [(horizontal.at(share), vertical.at(qps), reached) for share, qps, reached in sorted(points)]
            drawing.path([(x, y) for x, y, _ in places], fill, 3 if name.startswith("Saker") else 1.8)
            for x, y, reached in places:
                drawing.dot(x, y, fill, 4)
                if not reached:
                    drawing._parts.append(f'<circle class="page" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>')
            ends[name] = (places[-1][1], name, fill)
    drawing.text(22, (top + bottom) / 2, y_name, "small", "middle", turned=True)
    labels(drawing, right + 14, list(ends.values()), top + 10, bottom)
    return drawing.svg()
