"""Pictures without a picture library: real PNG files of painted eggs, and one very short video.

Its rule: the same prompt and number give the same bytes. A picture has a palette and is put
together row by row from runs of bytes; no loop walks over the pixels of a face. Only the last few
are kept.
"""

from __future__ import annotations

import math
import random
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache

import attrs

from .colours import SHELL, SHELL_SHADES, Edge, lit_shade, palette, shadow_run, sky_shade

SIZES = {"1k": (1024, 576), "2k": (2048, 1152), "4k": (3840, 2160)}
"""Width and height in pixels at 16:9."""
LIGHT = (-0.44, -0.56, 0.70)
"""Where the light comes from: left, above, in front."""
BULGE = 0.17
"""How much wider than an ellipse the lower half is."""
_FINE = 1 << 18
_STEPS = 256

Band = tuple[float, float]
"""The heights (-1 top, 1 bottom) between which a stripe runs around the egg."""
Dot = tuple[float, float, float]
"""Longitude (radians, 0 in front), height (-1 to 1) and radius of a dot."""


@attrs.frozen
class Egg:
    """Where the egg is, in pixels, and how it is painted."""

    x: float
    y: float
    half_width: float
    half_height: float
    bands: tuple[Band, ...]
    dots: tuple[Dot, ...]

    def half_at(self, y: float) -> float:
        """Half the width of the egg in pixels at a height in pixels; 0 above and below it."""
        v = self.level(y)
        return self.half_width * math.sqrt(max(0.0, 1 - v * v)) * (1 + BULGE * v)

    def level(self, y: float) -> float:
        """A height in pixels as -1 (top of the egg) to 1 (its bottom)."""
        return (y - self.y) / self.half_height


@lru_cache(maxsize=16)
def picture(
    prompt: str, number: int, *, aspect_ratio: str = "16:9", resolution: str = "1k"
) -> bytes:
    """A PNG file of an egg; its looks follow from `prompt` and `number` (of the output, from 1)."""
    width, height = SIZES[resolution]
    if aspect_ratio == "9:16":
        width, height = height, width
    dice = random.Random(f"{prompt}/{number}".encode("utf-8", "surrogatepass"))
    colours = palette(dice)
    egg = _egg(dice, width=width, height=height)
    rows = b"".join(_row(egg, y, width=width, height=height) for y in range(height))
    return png(rows, width=width, height=height, colours=colours)


def png(rows: bytes, *, width: int, height: int, colours: bytes) -> bytes:
    """A PNG file of 8-bit palette indices; each row comes with its filter byte in front."""
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    packed = zlib.compress(rows, 4)
    chunks = ((b"IHDR", header), (b"PLTE", colours), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _egg(dice: random.Random, *, width: int, height: int) -> Egg:
    half_height = min(0.345 * height, 0.47 * width)
    bands, dots = dice.choice((_plain, _sash, _stripes, _dotted, _sash_and_dots))(dice)
    return Egg(
        x=width / 2,
        y=0.485 * height,
        half_width=0.745 * half_height,
        half_height=half_height,
        bands=bands,
        dots=dots,
    )


Pattern = tuple[tuple[Band, ...], tuple[Dot, ...]]


def _plain(_: random.Random) -> Pattern:
    return (), ()


def _sash(dice: random.Random) -> Pattern:
    middle, half = dice.uniform(-0.1, 0.3), dice.uniform(0.1, 0.17)
    top, bottom = middle - half, middle + half
    return ((top - 0.11, top - 0.06), (top, bottom), (bottom + 0.06, bottom + 0.11)), ()


def _stripes(dice: random.Random) -> Pattern:
    count, share = dice.randint(4, 7), dice.uniform(0.35, 0.55)
    step = 2 / count
    return tuple((-1 + n * step, -1 + (n + share) * step) for n in range(count)), ()


def _dotted(dice: random.Random) -> Pattern:
    radius, turn = dice.uniform(0.10, 0.15), dice.uniform(0, 0.7)
    return (), tuple(
        dot
        for row, level in enumerate((-0.74, -0.40, -0.03, 0.34, 0.70))
        for dot in _ring(level, turn + 0.36 * row, radius)
    )


def _sash_and_dots(dice: random.Random) -> Pattern:
    edge = dice.uniform(0.30, 0.38)
    dots = (*_ring(-0.06, dice.uniform(0, 0.7), 0.12), *_ring(0.12, dice.uniform(0, 0.7), 0.06))
    return ((-edge - 0.09, -edge), (edge, edge + 0.09)), dots


def _ring(level: float, turn: float, radius: float) -> Iterator[Dot]:
    """Dots around the egg at one height, the first one at longitude `turn`."""
    count = max(4, round(9 * math.sqrt(1 - level * level)))
    for n in range(count):
        longitude = (turn + math.tau * n / count) % math.tau - math.pi
        if abs(longitude) < 1.8:
            yield longitude, level, radius


def _row(egg: Egg, y: int, *, width: int, height: int) -> bytes:
    """One row of the picture, with the filter byte that PNG wants in front of it."""
    row = bytearray(bytes([sky_shade((y + 0.5) / height)]) * width)
    for reach, shade in shadow_run((y - egg.y) / egg.half_height):
        half = round(reach * egg.half_width)
        left = round(egg.x + 0.06 * egg.half_width) - half
        row[left : left + 2 * half] = bytes([shade]) * (2 * half)
    if egg.half_at(y + 0.5) > 1:
        _draw(row, egg, y)
    return b"\0" + row


def _draw(row: bytearray, egg: Egg, y: int) -> None:
    half, v = egg.half_at(y + 0.5), egg.level(y + 0.5)
    ends = egg.half_at(y), egg.half_at(y + 1)
    outer, inner = max(half, *ends), max(1.0, min(ends))
    start, stop = math.ceil(egg.x - inner), math.floor(egg.x + inner)
    painted = any(low <= v < high for low, high in egg.bands)
    body = bytearray(_face(v, stop - start, painted=painted))
    for left, right in _dot_spans(egg, v, half=half, middle=egg.x - start):
        body[left:right] = _face(v, stop - start, painted=not painted)[left:right]
    row[start:stop] = body
    _soften(row, egg, outer=outer, inner=inner, edge=Edge(low=v > 0, painted=painted))


def _soften(row: bytearray, egg: Egg, *, outer: float, inner: float, edge: Edge) -> None:
    """Blend both ends of the egg in this row with what is behind it."""
    reach = outer - inner + 1
    for n in range(math.ceil(inner), math.floor(outer + 0.5) + 1):
        cover = (outer + 0.5 - n) / reach
        row[math.ceil(egg.x) - n - 1] = edge.shade(cover, right=False)
        row[math.floor(egg.x) + n] = edge.shade(cover, right=True)


def _dot_spans(egg: Egg, v: float, *, half: float, middle: float) -> Iterator[tuple[int, int]]:
    """Where dots are in the row at height `v`, in pixels from the left end of the egg."""
    for longitude, level, radius in egg.dots:
        if abs(v - level) >= radius:
            continue
        spread = math.sqrt(radius**2 - (v - level) ** 2) / math.sqrt(1 - v * v) * 1.3
        west, east = max(-1.57, longitude - spread), min(1.57, longitude + spread)
        if west < east:
            left, right = (middle + half * math.sin(angle) for angle in (west, east))
            yield max(0, round(left)), max(0, round(right))


def _face(v: float, count: int, *, painted: bool) -> bytes:
    """The shades of `count` pixels from the left to the right end of the egg at height `v`."""
    step = _FINE // count
    first = (_FINE - step * count) // 2
    profile = _profile()[first + step // 2 :: step][:count]
    return profile.translate(_tables()[painted][round((v + 1) / 2 * _STEPS)])


@lru_cache(maxsize=1)
def _profile() -> bytes:
    """The longitude (0 west to 255 east) of every point across a ball, in very fine steps."""
    bounds = [round((math.sin(math.pi * (n / 256 - 0.5)) + 1) / 2 * _FINE) for n in range(257)]
    return b"".join(bytes([n]) * (bounds[n + 1] - bounds[n]) for n in range(256))


@lru_cache(maxsize=1)
def _tables() -> tuple[list[bytes], list[bytes]]:
    """From longitudes to shades, at each of the heights; first for the shell, then for paint."""
    to_paint = bytes(min(255, n + SHELL_SHADES) for n in range(256))
    shell = [_table(2 * n / _STEPS - 1) for n in range(_STEPS + 1)]
    return shell, [table.translate(to_paint) for table in shell]


def _table(v: float) -> bytes:
    across, along = math.sqrt(1 - v * v), LIGHT[1] * v
    angles = (math.pi * ((n + 0.5) / 256 - 0.5) for n in range(256))
    lights = (across * (LIGHT[0] * math.sin(a) + LIGHT[2] * math.cos(a)) + along for a in angles)
    return bytes(SHELL + lit_shade(light) for light in lights)


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


VIDEO = (
    _box(b"ftyp", b"isom\0\0\2\0isomiso2mp41")
    + _box(b"moov", _box(b"mvhd", struct.pack(">12xII", 1000, 0) + bytes(80)))
    + _box(b"mdat", bytes(64))
)
"""An MP4 file without a track: the right boxes, and nothing to see."""
