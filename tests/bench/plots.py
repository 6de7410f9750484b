#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what bench.py --json FILE saw as SVG: throughput by variant, and lag over time.

usage: plots.py FILE [FOLDER]     writes throughput.svg and lag.svg (into docs/ by default)
"""

import json
import sys
from html import escape
from pathlib import Path

from measure import ROOT

WIDTH, LEFT, RIGHT = 720, 70, 24
_STYLE = ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
          'font-family="sans-serif" font-size="13" fill="#222">'
          '<rect width="{w}" height="{h}" fill="#fff"/>')


def _text(x, y, text, anchor="start", **more):
    extra = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in more.items())
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def _step(largest, steps=5):
    """A round distance of grid lines."""
    raw = max(largest, 1e-9) / steps
    power = 10 ** len(str(int(raw))) / 10 if raw >= 1 else 0.1
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)


def throughput(rates, head):
    """Horizontal bars, rows (answers) per second."""
    rates = sorted(rates.items(), key=lambda item: -item[1])
    label, bar, top = 230, 26, 56
    height = top + len(rates) * (bar + 14) + 26
    scale = (WIDTH - label - RIGHT - 60) / max(rate for _, rate in rates)
    parts = [_STYLE.format(w=WIDTH, h=height),
             _text(16, 24, "Requests per second, hey -c 50, NORMAL, best repetition", font_size=15),
             _text(16, 42, head, fill="#666", font_size=11)]
    for index, (name, rate) in enumerate(rates):
        y = top + index * (bar + 14)
        parts += [_text(label - 8, y + 18, name, "end"),
                  f'<rect x="{label}" y="{y}" width="{rate * scale:.1f}" height="{bar}" '
                  f'fill="{"#9aa5b1" if "without database" in name else "#2f6db5"}"/>',
                  _text(label + rate * scale + 6, y + 18, f"{rate:,.0f}")]
    return "\n".join(parts + ["</svg>\n"])


def _panel(points, name, top, height):
    """One line chart: seconds to the right, milliseconds upwards."""
    seconds = max(at for at, _ in points)
    largest = max(max(ms for _, ms in points), 1)
    step = _step(largest)
    limit = step * (int(largest / step) + 1)
    width = WIDTH - LEFT - RIGHT

    def place(at, ms):
        return LEFT + at / seconds * width, top + height - ms / limit * height
    parts = [_text(LEFT, top - 8, name)]
    mark = 0.0
    while mark <= limit + 1e-9:
        _, y = place(0, mark)
        parts += [f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                  'stroke="#ddd"/>', _text(LEFT - 8, y + 4, f"{mark:g} ms", "end", font_size=11)]
        mark += step
    for second in range(0, int(seconds) + 1, max(1, int(seconds) // 10)):
        parts.append(_text(place(second, 0)[0], top + height + 16, f"{second} s", "middle",
                           font_size=11))
    line = " ".join("{:.1f},{:.1f}".format(*place(at, ms)) for at, ms in points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#2f6db5" stroke-width="1.2"/>')
    return parts


def lag(series, head):
    panel, gap, top = 150, 62, 84
    height = top + len(series) * (panel + gap) - 20
    parts = [_STYLE.format(w=WIDTH, h=height),
             _text(16, 24, "Lag as /status tells it, local MinIO, interval 0", font_size=15),
             _text(16, 42, head, fill="#666", font_size=11)]
    for index, (name, points) in enumerate(series):
        parts += _panel(points, name, top + index * (panel + gap), panel)
    return "\n".join(parts + ["</svg>\n"])


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__.strip())
    seen = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[2]) if len(sys.argv) == 3 else ROOT / "docs"
    plots, head = seen["plots"], f"{seen['machine']}; {seen['started'][:10]}"
    if plots.get("rates"):
        (folder / "throughput.svg").write_text(throughput(plots["rates"], head))
    series = [(name, points) for name, points in plots.items() if name != "rates" and points]
    if series:
        (folder / "lag.svg").write_text(lag(series, head))


if __name__ == "__main__":
    main()
