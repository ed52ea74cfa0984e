"""What kind of file some bytes are, and whether their end is there.

Told by the bytes alone: a Content-Type is somebody's opinion. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

HEAD: Final = 16
"""Bytes of a file's start that `sniff` needs."""
TAIL: Final = 32
"""Bytes of a file's end that `Format.is_whole` needs."""


@attrs.frozen
class Format:
    """A file format: its *suffix*, and how its end is told from the head, the tail and the size."""

    suffix: str
    ends_well: Callable[[bytes, bytes, int], bool] | None = None

    def is_whole(self, head: bytes, tail: bytes, size: int) -> bool | None:
        """True or False where the format has an end mark, None where it cannot be told."""
        return None if self.ends_well is None else self.ends_well(head, tail, size)


def _png(_: bytes, tail: bytes, __: int) -> bool:
    return tail.endswith(b"\x00\x00\x00\x00IEND\xaeB`\x82")


def _jpeg(_: bytes, tail: bytes, __: int) -> bool:
    return tail.rstrip(b"\x00").endswith(b"\xff\xd9")  # some encoders pad with zeros


def _riff(head: bytes, _: bytes, size: int) -> bool:
    stated = int.from_bytes(head[4:8], "little") + 8
    return size in (stated, stated + 1)  # chunks are padded to even sizes


def _gif(_: bytes, tail: bytes, __: int) -> bool:
    return tail.endswith(b"\x3b")


PNG: Final = Format(".png", _png)
JPEG: Final = Format(".jpg", _jpeg)
WEBP: Final = Format(".webp", _riff)
GIF: Final = Format(".gif", _gif)
MP4: Final = Format(".mp4")
AVIF: Final = Format(".avif")
WEBM: Final = Format(".webm")
UNKNOWN: Final = Format(".bin")
TEXT: Final = Format(".txt")
KNOWN: Final = (".png", ".jpg", ".webp", ".mp4", ".gif", ".avif", ".webm", ".bin")


def sniff(head: bytes) -> Format:
    """The format that starts with *head*; `TEXT` for HTML, JSON and the like, which are no
    output."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WEBP
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head[4:8] == b"ftyp":
        return AVIF if head[8:12] in (b"avif", b"avis") else MP4
    if head.startswith(b"\x1aE\xdf\xa3"):
        return WEBM
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()  # a byte order mark is text's own
    return TEXT if text[:1] in (b"<", b"{", b"[") else UNKNOWN
