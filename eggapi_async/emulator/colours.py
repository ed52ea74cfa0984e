"""The palette of the pictures: which index is which shade, and what colour the dice give it.

Its rule: 256 colours are enough for a sky, a shadow, a shell, paint, and soft edges between them.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Iterator

import attrs

Colour = tuple[float, float, float]
"""Red, green and blue from 0 to 1."""

SKY, SKY_SHADES = 0, 88
SHADOW, SHADOW_SHADES = 88, 16
SHELL, SHELL_SHADES = 104, 56
PAINT = SHELL + SHELL_SHADES
EDGE, EDGE_SHADES = PAINT + SHELL_SHADES, 5
NIGHT = 2.2
"""The angle from the light, in radians, from which on a surface is as dark as it gets."""


@attrs.frozen
class Edge:
    """A stretch of the outline, in the upper or lower half, where the egg is painted or not."""

    low: bool
    painted: bool

    def shade(self, cover: float, *, right: bool) -> int:
        """The index of a pixel of which the egg covers this share (0 to 1)."""
        first = EDGE + EDGE_SHADES * (4 * self.low + 2 * self.painted + right)
        return first + min(EDGE_SHADES - 1, max(0, int(cover * EDGE_SHADES)))


def sky_shade(height: float) -> int:
    """The index of the background at a height from 0 (top) to 1 (bottom)."""
    t = min(1.0, height / 0.84)
    return SKY + round(t * t * (3 - 2 * t) * (SKY_SHADES - 1))


def shadow_run(level: float) -> Iterator[tuple[float, int]]:
    """How far each shade of the shadow reaches at a level of the egg, the outermost first."""
    v = (level - 0.97) / 0.20
    if abs(v) >= 1:
        return
    for n in range(SHADOW_SHADES):
        radius = 1 - n / SHADOW_SHADES
        if abs(v) < radius:
            yield 1.12 * math.sqrt(radius**2 - v * v), SHADOW + n


def lit_shade(light: float) -> int:
    """The shade of a surface that gets this much light (the cosine of its angle): 0 is the darkest.

    Even steps of the angle, not of the light, since that is what keeps the highlight smooth.
    """
    angle = math.acos(max(-1.0, min(1.0, light)))
    return round(max(0.0, 1 - angle / NIGHT) * (SHELL_SHADES - 1))


def palette(dice: random.Random) -> bytes:
    """All colours of one picture as PNG wants them: three bytes each."""
    dark = dice.random() < 0.3
    hue = dice.uniform(0.47, 0.93) if dark else dice.random()  # dark yellow and green look like mud
    top, floor = _sky(hue, dark=dark, turn=dice.choice((-0.09, 0.09, 0.14)))
    shell_hue = hue + dice.choice((0.42, 0.5, 0.58, 0.33, -0.33, 0.08))
    shell = _ramp(shell_hue, light=dice.uniform(0.56, 0.68), strength=dice.uniform(0.5, 0.75))
    paint = _paint(dice, hue=shell_hue)
    sky = _blend((top, floor), SKY_SHADES)
    shadow = _blend((floor, _mix(floor, _hls(hue, 0.08, 0.4), 0.66)), SHADOW_SHADES)
    colours = [*sky, *shadow, *shell, *paint, *_edges(sky, shell, paint)]
    return b"".join(bytes(round(255 * part) for part in colour) for colour in colours)


def _sky(hue: float, *, dark: bool, turn: float) -> tuple[Colour, Colour]:
    if dark:
        return _hls(hue, 0.17, 0.45), _hls(hue + turn, 0.44, 0.38)
    return _hls(hue, 0.76, 0.55), _hls(hue + turn, 0.93, 0.62)


def _paint(dice: random.Random, *, hue: float) -> list[Colour]:
    if dice.random() < 0.4:
        return _ramp(0.11, light=0.86, strength=0.55)
    turn = dice.choice((0.12, -0.12, 0.45, 0.55))
    return _ramp(hue + turn, light=dice.uniform(0.5, 0.75), strength=0.7)


def _ramp(hue: float, *, light: float, strength: float) -> list[Colour]:
    """The shades of a surface from darkness to its highlight."""
    stops = (
        (0.00, _hls(hue + 0.05, 0.32 * light, 0.80 * strength)),
        (0.30, _hls(hue + 0.03, 0.58 * light, 0.90 * strength)),
        (0.60, _hls(hue, light, strength)),
        (0.82, _hls(hue, 0.68 * light + 0.30, strength)),
        (0.89, _hls(hue, 0.46 * light + 0.50, strength)),
        (0.955, _hls(hue, 0.95, strength)),
        (1.0, _hls(hue, 0.99, strength)),
    )
    return [_between(stops, n / (SHELL_SHADES - 1)) for n in range(SHELL_SHADES)]


def _edges(sky: list[Colour], shell: list[Colour], paint: list[Colour]) -> Iterator[Colour]:
    """The blends of `Edge.shade`, in its order."""
    for behind, left, right in ((sky[34], 33, 11), (sky[78], 20, 0)):
        for surface in (shell, paint):
            for lit in (left, right):
                yield from _blend((behind, surface[lit]), EDGE_SHADES + 2)[1:-1]


def _between(stops: tuple[tuple[float, Colour], ...], t: float) -> Colour:
    low = max(n for n in range(len(stops) - 1) if stops[n][0] <= t)
    (start, first), (end, last) = stops[low : low + 2]
    return _mix(first, last, (t - start) / (end - start))


def _blend(ends: tuple[Colour, Colour], count: int) -> list[Colour]:
    return [_mix(ends[0], ends[1], n / (count - 1)) for n in range(count)]


def _mix(first: Colour, last: Colour, t: float) -> Colour:
    r, g, b = (one + (other - one) * t for one, other in zip(first, last, strict=True))
    return r, g, b


def _hls(hue: float, light: float, strength: float) -> Colour:
    strength *= 1 - 0.35 * math.exp(-(((hue % 1.0 - 0.33) / 0.1) ** 2))  # greens shout
    return colorsys.hls_to_rgb(hue % 1.0, light, strength)
