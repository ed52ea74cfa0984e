"""The files that the emulator makes: pictures, a video, and how they are served."""

from __future__ import annotations

import struct
import zlib

import httpx
import pytest

from eggapi_async.emulator.pictures import picture
from tests.emulated import Desk, desk, error_of


async def _url(here: Desk, **fields: object) -> str:
    task = await here.finish(await here.submit(**fields))
    return str(task["output"]["url"])


def _chunks(content: bytes) -> dict[bytes, bytes]:
    """The chunks of a PNG file, their checksums being right."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    found, place = {}, 8
    while place < len(content):
        size, name = struct.unpack_from(">I4s", content, place)
        body = content[place + 8 : place + 8 + size]
        assert struct.unpack_from(">I", content, place + 8 + size) == (zlib.crc32(name + body),)
        found[name], place = body, place + 12 + size
    assert list(found) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    return found


@pytest.mark.parametrize(
    ("resolution", "aspect_ratio", "size"),
    [
        pytest.param("1k", "16:9", (1024, 576), id="1k"),
        pytest.param("1k", "9:16", (576, 1024), id="1k tall"),
        pytest.param("2k", "16:9", (2048, 1152), id="2k"),
        pytest.param("4k", "9:16", (2160, 3840), id="4k tall"),
    ],
)
def test_pictures_are_png_files_of_the_asked_shape(
    resolution: str, aspect_ratio: str, size: tuple[int, int]
) -> None:
    """Size, rows and palette fit each other, so that any viewer can show the file."""
    chunks = _chunks(picture("A cat", 1, aspect_ratio=aspect_ratio, resolution=resolution))
    width, height = size
    rows = zlib.decompress(chunks[b"IDAT"])
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (width, height, 8, 3, 0, 0, 0)
    assert len(rows) == height * (width + 1)
    assert not any(rows[:: width + 1])
    assert 3 * max(rows) < len(chunks[b"PLTE"]) <= 3 * 256


def test_pictures_of_many_prompts_can_be_made() -> None:
    """Every pattern and palette gives a whole picture with an egg in the middle of it."""
    for n in range(60):
        chunks = _chunks(picture(f"egg {n}", 1))
        rows = zlib.decompress(chunks[b"IDAT"])
        assert len(rows) == 576 * 1025
        assert rows[288 * 1025 + 512] != rows[288 * 1025 + 1]
        assert 3 * max(rows) < len(chunks[b"PLTE"])


def test_a_picture_follows_from_prompt_and_number() -> None:
    """The same again for the same, another for another prompt or number; odd text is fine."""
    first = picture("A cat", 1)
    picture.cache_clear()
    assert picture("A cat", 1) == first
    assert len({first, picture("A cat", 2), picture("A dog", 1), picture("\ud800", 1)}) == 4


async def test_an_output_is_served_whole_without_a_key() -> None:
    """200 with type, exact length, a strong ETag and the offer of ranges."""
    async with desk() as here:
        url = await _url(here)
        answer = await here.file(url)
    assert answer.status_code == 200
    assert answer.content == picture("A cat", 1)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"].startswith('"')
    assert here.emulator.leaks == []


async def test_every_output_of_a_task_is_a_file_of_its_own() -> None:
    """Outputs of one task differ, in the asked shape."""
    async with desk() as here:
        fields = {"num_outputs": 2, "aspect_ratio": "9:16", "resolution": "2k"}
        task = await here.finish(await here.submit(**fields))
        files = [(await here.file(url)).content for url in task["output"]["urls"]]
    assert files == [picture("A cat", n, aspect_ratio="9:16", resolution="2k") for n in (1, 2)]
    assert files[0] != files[1]


async def test_head_tells_the_length_and_sends_nothing() -> None:
    """HEAD has the headers of GET and an empty body, a Range notwithstanding."""
    async with desk() as here:
        url = await _url(here)
        head = await here.file(url, method="HEAD", Range="bytes=0-1")
        whole = await here.file(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == whole.headers
    assert here.emulator.requests["HEAD /outputs"] == 1


async def test_a_video_is_an_mp4_file() -> None:
    """Video models give a file with the boxes of MP4."""
    async with desk() as here:
        answer = await here.file(await _url(here, model="veo3.1"))
    content, boxes = answer.content, []
    while content:
        size, name = struct.unpack_from(">I4s", content)
        boxes.append(name)
        content = content[size:]
    assert answer.headers["Content-Type"] == "video/mp4"
    assert boxes == [b"ftyp", b"moov", b"mdat"]


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        pytest.param("bytes=100-", 100, None, id="from a byte to the end"),
        pytest.param("bytes=0-0", 0, 1, id="the first byte"),
        pytest.param("bytes=10-99", 10, 100, id="both ends are included"),
        pytest.param("bytes=10-999999999", 10, None, id="the end may lie beyond"),
        pytest.param("bytes=-7", -7, None, id="the last bytes"),
        pytest.param("bytes=-999999999", 0, None, id="more of the last bytes than there are"),
    ],
)
async def test_a_range_gets_its_part(asked: str, start: int, stop: int | None) -> None:
    """206 with exactly these bytes, and a Content-Range that says which."""
    async with desk() as here:
        url = await _url(here)
        part = await here.file(url, Range=asked)
    whole = picture("A cat", 1)
    first, last, _ = slice(start, stop).indices(len(whole))
    assert (part.status_code, part.content) == (206, whole[start:stop])
    assert part.headers["Content-Range"] == f"bytes {first}-{last - 1}/{len(whole)}"
    assert part.headers["Content-Length"] == str(len(part.content))


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param("bytes=999999999-", id="beyond the end"),
        pytest.param("bytes=-0", id="the last no bytes"),
    ],
)
async def test_a_range_without_bytes_cannot_be_satisfied(asked: str) -> None:
    """416 with the length of the file."""
    async with desk() as here:
        answer = await here.file(await _url(here), Range=asked)
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{len(picture('A cat', 1))}"


@pytest.mark.parametrize(
    "asked", ["bytes=9-3", "bytes=-", "bytes=0-1,5-6", "lines=1-2", "bytes=x-"]
)
async def test_a_range_that_is_not_understood_is_ignored(asked: str) -> None:
    """200 with the whole file."""
    async with desk() as here:
        answer = await here.file(await _url(here), Range=asked)
    assert (answer.status_code, answer.content) == (200, picture("A cat", 1))


async def test_if_range_gets_a_part_of_the_same_file_only() -> None:
    """With the file's own ETag the part, with any other validator the whole."""
    async with desk() as here:
        url = await _url(here)
        etag = (await here.file(url)).headers["ETag"]
        same = await here.file(url, **{"Range": "bytes=5-", "If-Range": etag})
        other = await here.file(url, **{"Range": "bytes=5-", "If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)


async def test_outputs_exist_from_the_completion_of_their_task_on() -> None:
    """404 for outputs of open and failed tasks, of numbers beyond, and of nothing at all."""
    async with desk() as here:
        task_id = await here.submit()
        url = f"/outputs/{task_id[4:]}-1.png"
        answers = [await here.get(url)]
        await here.finish(task_id)
        assert (await here.get(url)).status_code == 200
        failed = await here.submit(prompt="broken")
        await here.finish(failed)
        gone = (url.replace("-1", "-2"), url.replace("png", "mp4"), f"/outputs/{failed[4:]}-1.png")
        answers += [await here.get(path) for path in (*gone, "/outputs/x")]
    assert [error_of(answer) for answer in answers] == [(404, "NOT_FOUND")] * 5


async def test_a_key_sent_for_an_output_is_noted() -> None:
    """`leaks` has the path of every output that was asked for with an Authorization header."""
    async with desk() as here:
        url = await _url(here)
        await here.get(url)
        await here.file(url, method="HEAD", Authorization="Bearer x")
    assert here.emulator.leaks == [httpx.URL(url).path] * 2
