"""What kind of file some bytes are, and whether their end is there.

Told by the bytes alone: a Content-Type is somebody's opinion. An end mark may also stand in the
middle, as that of a small picture inside does; where nothing else tells the end, a file is walked
through, part by part. No I/O.
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
    """A file format: its *suffix*, how its end is told from the head, the tail and the size, and
    where its parts end when one goes through them; -1 where one of them has no end."""

    suffix: str
    ends_well: Callable[[bytes, bytes, int], bool] | None = None
    end: Callable[[bytes], int] | None = None

    def ends_there(self, data: bytes) -> bool:
        """True where the parts of *data* end where it does, or nothing is known of them."""
        return self.end is None or self.end(data) == len(data)

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


def _end_of_png(data: bytes) -> int:
    place = 8
    while len(head := data[place : place + 8]) == 8:
        place += 12 + int.from_bytes(head[:4], "big")
        if head[4:] == b"IEND":
            return place
    return -1


def _end_of_jpeg(data: bytes) -> int:
    """Behind the last of the pictures: some have a second one after the first; and some zeros."""
    place = 0
    while data[place : place + 2] == b"\xff\xd8":
        place = _end_of_scans(data, place + 2)
        if place < 0:
            return -1
    return len(data) if not data[place : len(data)].strip(b"\x00") else place


def _end_of_scans(data: bytes, place: int) -> int:
    while len(mark := data[place : place + 4]) > 1 and mark[0] == 0xFF:
        if mark[1] == 0xD9:
            return place + 2
        if mark[1] == 0xFF:  # any number of these may come before a mark
            place += 1
            continue
        place += 2 + int.from_bytes(mark[2:], "big")
        if mark[1] == 0xDA:
            place = _end_of_scan(data, place)
    return -1


def _end_of_scan(data: bytes, place: int) -> int:
    """Where the coded data ends: at a mark that is neither an escape nor a restart."""
    while (place := data.find(b"\xff", place)) >= 0:
        after = data[place + 1 : place + 2]
        if after and not (after == b"\x00" or 0xD0 <= after[0] <= 0xD7):
            return place
        place += 2
    return len(data)


def _end_of_gif(data: bytes) -> int:
    place = 13 + _colours(data[10:11])
    while kind := data[place : place + 1]:
        if kind == b"\x3b":
            return place + 1
        is_picture = kind == b"\x2c"
        place += 11 + _colours(data[place + 9 : place + 10]) if is_picture else 2
        while size := data[place : place + 1]:
            place += 1 + size[0]
            if not size[0]:
                break
    return -1


def _colours(flags: bytes) -> int:
    """Bytes of a table of colours, if there is one."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


PNG: Final = Format(".png", _png, _end_of_png)
JPEG: Final = Format(".jpg", _jpeg, _end_of_jpeg)
WEBP: Final = Format(".webp", _riff)
GIF: Final = Format(".gif", _gif, _end_of_gif)
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
