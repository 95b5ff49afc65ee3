"""Draws docs/reference/lives.svg: how packs of a simulated fleet age, and what their BMS says of it.

python tests/benchmarks/plot_lives.py docs/reference/lives.svg
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from firmware_bridge.lives import Law
from firmware_bridge.lives.life import courses_of
from firmware_bridge.lives.packs import PROFILES, Pack
from firmware_bridge.lives.record import recorded

PACKS, SEED = 40, 1
COLOURS = dict(zip((profile.name for profile in PROFILES), ("#4477aa", "#228833", "#ccbb44", "#ee6677"), strict=True))
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 400, 52, 14, 14, 40
MOST_EFC, LEAST = 3650.0, 0.78


def at(efc: float, soh: float) -> str:
    x = LEFT + efc / MOST_EFC * (WIDTH - LEFT - RIGHT)
    y = TOP + (1.01 - soh) / (1.01 - LEAST) * (HEIGHT - TOP - BOTTOM)
    return f"{x:.1f},{y:.1f}"


def line(points: Iterable[str], colour: str, more: str = "") -> str:
    return f'<polyline fill="none" stroke="{colour}" points="{" ".join(points)}" {more}/>'


def text(efc: float, soh: float, words: str, more: str = "") -> str:
    x, y = at(efc, soh).split(",")
    return f'<text x="{x}" y="{y}" {more}>{words}</text>'


def curves() -> list[str]:
    rngs = [np.random.default_rng([SEED, number]) for number in range(PACKS)]
    packs = [Pack.drawn(rng) for rng in rngs]
    days, courses = courses_of(packs, rngs, Law())
    drawn = []
    for pack, course in zip(packs, courses, strict=True):
        rows = zip(course.efc()[::2].tolist(), course.soh(pack)[::2].tolist(), strict=True)
        drawn.append(line((at(*row) for row in rows), COLOURS[pack.profile], 'stroke-width="1.3"'))
    told = recorded(packs[2], courses[2], days[2].until(courses[2].end_efc(packs[2]) or MOST_EFC), rngs[2])
    rows = zip(told.columns["cycles"][::4].tolist(), told.columns["soh_bms"][::4].tolist(), strict=True)
    drawn.append(line((at(*row) for row in rows if row[0] == row[0]), "#222", 'stroke-dasharray="3 2"'))
    return drawn


def main(path: Path) -> None:
    axes = [line((at(0, soh), at(MOST_EFC, soh)), "#ddd") for soh in (0.8, 0.85, 0.9, 0.95, 1.0)]
    axes += [text(-30, soh - 0.003, f"{soh:.2f}", 'text-anchor="end"') for soh in (0.8, 0.85, 0.9, 0.95, 1.0)]
    axes += [text(efc, 0.765, str(efc), 'text-anchor="middle"') for efc in range(0, 3501, 500)]
    names = [
        text(2750, 0.99 - 0.012 * row, name, f'fill="{colour}"')
        for row, (name, colour) in enumerate([*COLOURS.items(), ("- - what one BMS says", "#222")])
    ]
    legend = text(1750, 0.755, "equivalent full cycles", 'text-anchor="middle"')
    body = "\n".join([*axes, *curves(), *names, legend])
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
