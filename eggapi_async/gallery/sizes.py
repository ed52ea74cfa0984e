"""Width and height of a picture, read from the first bytes of its file.

Its rule: no decoding, and no opinion where the bytes give none. A JPEG that says it lies on its
side is measured as browsers show it.
"""

from __future__ import annotations

import struct
from typing import Final

from .._formats import GIF, HEAD, JPEG, PNG, WEBP, sniff

ENOUGH: Final = 32
"""Bytes of a file's start that tell the size of all but a JPEG."""
ENOUGH_OF_A_JPEG: Final = 1 << 18
"""The size of a JPEG stands behind its metadata: colour profile, thumbnail, camera."""

Size = tuple[int, int]

_NO_FRAME = frozenset({0xC4, 0xC8, 0xCC})  # Huffman tables, reserved, arithmetic coding
_ORIENTATION = 0x0112


def measured(head: bytes) -> Size | None:
    """Width and height in pixels of the picture that starts with *head*; None if it cannot be
    told: another format, too few bytes, or nonsense."""
    readers = {PNG: _png, JPEG: _jpeg, WEBP: _webp, GIF: _gif}
    reader = readers.get(sniff(head[:HEAD]))
    try:
        size = None if reader is None else reader(head)
    except (struct.error, IndexError):  # the bytes end too early
        return None
    return size if size and all(size) else None


def _png(head: bytes) -> Size:
    width, height = struct.unpack_from(">II", head, 16)
    return width, height


def _gif(head: bytes) -> Size:
    width, height = struct.unpack_from("<HH", head, 6)
    return width, height


def _webp(head: bytes) -> Size | None:
    kind = head[12:16]
    if kind == b"VP8X":
        wide, high = head[24:27] + b"\0", head[27:30] + b"\0"
        return struct.unpack("<I", wide)[0] + 1, struct.unpack("<I", high)[0] + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg(head: bytes) -> Size | None:
    place, is_on_its_side = 2, False
    while head[place] == 0xFF:
        marker = head[place + 1]
        (length,) = struct.unpack_from(">H", head, place + 2)
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = struct.unpack_from(">HH", head, place + 5)
            return (height, width) if is_on_its_side else (width, height)
        if marker == 0xE1:
            is_on_its_side |= _orientation(head[place + 4 : place + 2 + length]) in (5, 6, 7, 8)
        place += 2 + length
    return None


def _orientation(exif: bytes) -> int:
    """How the picture is to be turned, 1 to 8; 1 where that is not said readably."""
    if not exif.startswith((b"Exif\0\0II*\0", b"Exif\0\0MM\0*")):
        return 1
    tiff, order = exif[6:], "<" if exif[6:7] == b"I" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        entries = [
            struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * n) for n in range(count)
        ]
    except struct.error:
        return 1
    return next((value for tag, _, _, value in entries if tag == _ORIENTATION), 1)
