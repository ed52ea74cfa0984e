"""Files of finished tasks as a content host serves them: whole, or the part a Range asks for.

Its rule: a pure function from a file and headers to an answer. Nothing is read from a disk.
"""

from __future__ import annotations

import hashlib
import re

import attrs

from .answers import Answer


@attrs.frozen
class File:
    """Bytes and what they are."""

    content: bytes
    media_type: str

    @property
    def etag(self) -> str:
        """A strong validator: the same for the same bytes only."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


def file_answer(
    file: File, *, method: str, asked_range: str | None, if_range: str | None
) -> Answer:
    """The answer to GET or HEAD: 200, 206 with Content-Range, or 416. Odd ranges are ignored."""
    size = len(file.content)
    whole = Answer(200, _headers(file), file.content)
    if method == "HEAD":
        return attrs.evolve(whole, body=b"", length=size)
    if asked_range is None or if_range not in (None, file.etag):
        return whole
    span = _span(asked_range, size=size)
    if span is None:
        return whole
    if not span:
        return Answer(416, (*_headers(file), ("content-range", f"bytes */{size}")), b"")
    where = f"bytes {span.start}-{span.stop - 1}/{size}"
    part = file.content[span.start : span.stop]
    return Answer(206, (*_headers(file), ("content-range", where)), part)


def cut_short(answer: Answer, *, sized: bool) -> Answer:
    """The first half of an answer; if `sized`, under the Content-Length of all of it."""
    half = answer.body[: len(answer.body) // 2]
    return attrs.evolve(answer, body=half, sized=sized, length=len(answer.body))


def _headers(file: File) -> tuple[tuple[str, str], ...]:
    return (
        ("content-type", file.media_type),
        ("accept-ranges", "bytes"),
        ("etag", file.etag),
    )


def _span(asked: str, *, size: int) -> range | None:
    """The bytes that a Range asks for: empty if there are none, None if it isn't a single range."""
    found = re.fullmatch(r"bytes=\s*([0-9]{0,15})-([0-9]{0,15})\s*", asked)
    if not found or found.group() == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)
