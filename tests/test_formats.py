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
        pytest.param(b"\x00\x00\x00\x1cftypavif", AVIF, id="an AVIF"),
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


def test_jpegs_may_be_padded() -> None:
    """Some encoders put zeros after the end."""
    assert is_whole(WHOLE_JPEG + b"\x00" * 20) is True


def test_webps_may_be_padded_to_an_even_size() -> None:
    """A chunk of odd size is followed by one byte that its size does not count."""
    assert is_whole(WHOLE_WEBP + b"\x00") is True
    assert is_whole(WHOLE_WEBP + b"\x00\x00") is False


@pytest.mark.parametrize("data", [b"\x00\x00\x00\x18ftypisom", b"\x1aE\xdf\xa3", b"\x00", b"{}"])
def test_some_formats_have_no_end_mark(data: bytes) -> None:
    """Where nothing marks the end, it cannot be told from the bytes."""
    assert is_whole(data) is None


def test_every_suffix_of_an_output_is_known() -> None:
    """An earlier fetch is found under any suffix that `sniff` gives; text is no output."""
    suffixes = {kind.suffix for kind in (PNG, JPEG, WEBP, GIF, MP4, AVIF, WEBM, UNKNOWN)}
    assert set(KNOWN) == suffixes
    assert TEXT.suffix not in KNOWN
