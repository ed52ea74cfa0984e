"""Formats are told by bytes alone, and so is whether a file's end is there."""

from __future__ import annotations

import pytest

from eggapi_async._formats import (
    AVIF,
    GIF,
    HEAD,
    JPEG,
    KNOWN,
    MP4,
    PNG,
    TAIL,
    TEXT,
    UNKNOWN,
    WEBM,
    WEBP,
    Format,
    sniff,
)
from tests.content_host import gif, jpeg, png, webp

IEND = b"\x00\x00\x00\x00IEND\xaeB`\x82"
WHOLE_PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 40 + IEND
WHOLE_JPEG = b"\xff\xd8\xff\xe0" + b"\x01" * 40 + b"\xff\xd9"
WHOLE_GIF = b"GIF89a" + b"\x01" * 40 + b"\x00\x3b"
WHOLE_WEBP = b"RIFF" + (44).to_bytes(4, "little") + b"WEBP" + b"\x01" * 40


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        pytest.param(WHOLE_PNG, PNG, id="a PNG"),
        pytest.param(WHOLE_JPEG, JPEG, id="a JPEG"),
        pytest.param(WHOLE_WEBP, WEBP, id="a WebP"),
        pytest.param(WHOLE_GIF, GIF, id="a GIF"),
        pytest.param(b"GIF87a", GIF, id="an old GIF"),
        pytest.param(b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00", MP4, id="a video"),
        pytest.param(b"\x00\x00\x00\x14ftypqt  ", MP4, id="a video of another brand"),
        pytest.param(b"\x00\x00\x00\x1cftypavif\x00\x00", AVIF, id="an AVIF"),
        pytest.param(b"\x00\x00\x00\x1cftypavis", AVIF, id="a moving AVIF"),
        pytest.param(b"\x1aE\xdf\xa3\x01", WEBM, id="a WebM"),
        pytest.param(b"RIFF\x00\x00\x00\x00WAVE", UNKNOWN, id="a sound is not known"),
        pytest.param(b"\x00\x01\x02\x03", UNKNOWN, id="noise is not known"),
        pytest.param(b"\x89PNG", UNKNOWN, id="half a signature is not known"),
        pytest.param(b"", UNKNOWN, id="nothing is not known"),
        pytest.param(b"<!doctype html>", TEXT, id="HTML is text"),
        pytest.param(b"\r\n  <html>", TEXT, id="HTML after blanks is text"),
        pytest.param(b'\xef\xbb\xbf<?xml version="1.0"?>', TEXT, id="XML after a mark is text"),
        pytest.param(b'{"error": "gone"}', TEXT, id="JSON is text"),
        pytest.param(b"[]", TEXT, id="a JSON list is text"),
    ],
)
def test_sniff(start: bytes, kind: Format) -> None:
    """The first bytes tell the format."""
    assert sniff(start[:HEAD]) is kind


def is_whole(data: bytes) -> bool | None:
    """What is told from the head, the tail and the size of *data*."""
    head = data[:HEAD]
    return sniff(head).is_whole(head, data[-TAIL:], len(data))


@pytest.mark.parametrize(
    "data", [WHOLE_PNG, WHOLE_JPEG, WHOLE_GIF, WHOLE_WEBP], ids=["PNG", "JPEG", "GIF", "WebP"]
)
def test_a_cut_anywhere_is_seen(data: bytes) -> None:
    """A whole file is whole; one that lacks its last bytes never is."""
    assert is_whole(data) is True
    for length in range(12, len(data)):
        assert is_whole(data[:length]) is False


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        pytest.param(PNG, png(b"a"), id="a PNG"),
        pytest.param(PNG, png(png(b"")), id="a PNG in a PNG"),
        pytest.param(JPEG, jpeg(b"a"), id="a JPEG"),
        pytest.param(JPEG, jpeg(b"a", jpeg(b"b")), id="a JPEG in a JPEG"),
        pytest.param(JPEG, jpeg(b"a") + b"\x00" * 9, id="a padded JPEG"),
        pytest.param(JPEG, jpeg(b"a") + jpeg(b"b"), id="a JPEG of two pictures"),
        pytest.param(GIF, gif(b"\x3b" * 30), id="a GIF"),
        pytest.param(GIF, gif(b"").replace(b"\x80", b"\x00").replace(b"\x3b" * 6, b""), id="grey"),
        pytest.param(WEBP, webp(b"aa"), id="a WebP, of which nothing more is known"),
    ],
)
def test_a_file_is_walked_through(kind: Format, data: bytes) -> None:
    """Its parts end where it does; where a picture inside it ends, they do not."""
    assert sniff(data[:HEAD]) is kind
    assert kind.ends_there(data)
    first = len(jpeg(b"a"))  # a JPEG of two is also one of one
    cuts = set(range(12, len(data))) - ({first} if kind is JPEG else set())
    if kind is JPEG:
        cuts -= set(range(first, len(data))) if data[first:].strip(b"\x00") == b"" else set()
    if kind is not WEBP:
        assert not any(kind.ends_there(data[:at]) for at in cuts)
        assert not kind.ends_there(data + b"more")


@pytest.mark.parametrize("colours", [None, 2, 8, 256])
@pytest.mark.parametrize("more", [None, 4, 128])
def test_the_tables_of_a_gif_are_passed_over(colours: int | None, more: int | None) -> None:
    """That of the screen and those of its pictures: in any of them an end mark may stand."""
    data = b"GIF89a\x01\x00\x01\x00" + _flags(colours) + b"\x3b\x3b" + _table(colours)
    data += b"\x21\xf9\x04\x3b\x3b\x3b\x3b\x00"
    for table in (more, None, more):
        data += b"\x2c" + b"\x3b" * 8 + _flags(table) + _table(table)
        data += b"\x3b" + b"\x05\x3b\x3b\x3b\x3b\x3b" + b"\xff" + b"\x3b" * 255 + b"\x00"
    data += b"\x3b"

    assert GIF.ends_there(data)
    assert not any(GIF.ends_there(data[:at]) for at in range(13, len(data)))


def _flags(colours: int | None) -> bytes:
    """Says that there is a table of so many; the other bits mean nothing for it."""
    return b"\x78" if colours is None else bytes([0xF8 | (colours.bit_length() - 2)])


def _table(colours: int | None) -> bytes:
    return b"\x3b" * (3 * (colours or 0))


@pytest.mark.parametrize("more", [b"X", b"\xff\xd9", b"more\xff\xd9"], ids=["X", "mark", "words"])
def test_behind_a_jpeg_only_another_or_zeros_may_stand(more: bytes) -> None:
    """An end mark behind something else is none."""
    assert not JPEG.ends_there(jpeg(b"a") + more)
    assert is_whole(WHOLE_JPEG + b"X") is False


@pytest.mark.parametrize(
    "data", [b"\xff\xd8\xff\xda\x00\x02\xff", b"\xff\xd8nonsense"], ids=["broken off", "none"]
)
def test_no_nonsense_is_a_whole_jpeg(data: bytes) -> None:
    """Where it breaks off, or is none after all."""
    assert not JPEG.ends_there(data)


def test_jpegs_may_be_padded() -> None:
    """Some encoders put zeros after the end."""
    assert is_whole(WHOLE_JPEG + b"\x00" * 20) is True


def test_webps_may_be_padded_to_an_even_size() -> None:
    """A chunk of odd size is followed by one byte that its size does not count."""
    assert is_whole(WHOLE_WEBP + b"\x00") is True
    assert is_whole(WHOLE_WEBP + b"\x00\x00") is False


@pytest.mark.parametrize(
    "data",
    [b"\x00\x00\x00\x18ftypisom", b"\x1aE\xdf\xa3", b"\x00", b"{}"],
    ids=["MP4", "Matroska", "a zero", "JSON"],
)
def test_some_formats_have_no_end_mark(data: bytes) -> None:
    """Where nothing marks the end, it cannot be told from the bytes."""
    assert is_whole(data) is None


def test_every_suffix_of_an_output_is_known() -> None:
    """An earlier fetch is found under any suffix that `sniff` gives; text is no output."""
    suffixes = {kind.suffix for kind in (PNG, JPEG, WEBP, GIF, MP4, AVIF, WEBM, UNKNOWN)}
    assert set(KNOWN) == suffixes
    assert TEXT.suffix not in KNOWN
