"""Pictures to disk: whole or not at all, never with the key, never outside the folder."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
import pytest

from eggapi_async import (
    AsyncEggClient,
    DownloadError,
    InvalidRequestError,
    RetryPolicy,
)
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.testing import connect
from tests.content_host import (
    JPEG,
    MP4,
    PNG,
    WEBP,
    Host,
    Piece,
    Reply,
    broken,
    customer,
    finished,
    gif,
    jpeg,
    part,
    png,
    says,
    webp,
    whole,
)
from tests.virtual_time import VirtualLoop, on_both, run_virtual
from tests.wire import Received, Step, Wire, answer, cut, raw

URL = "https://cdn.test/a/one.png"
ONCE = RetryPolicy(max_attempts=1)
ETAG = {"ETag": '"v1"'}
KINDS = {"png": PNG, "jpg": JPEG, "webp": WEBP}


def names(folder: Path) -> set[str]:
    """What is in a folder, hidden files included."""
    return {path.name for path in folder.iterdir()}


HERE = "http://127.0.0.1:1"
"""An API on this machine."""


async def refused(
    host: Host, folder: Path, source: Any = None, base_url: str | None = None, **options: Any
) -> DownloadError:
    """The error of a download that must leave nothing behind."""
    before = names(folder)
    async with customer(host, base_url=base_url) as egg:
        with pytest.raises(DownloadError) as caught:
            await egg.download(source or finished(URL), folder, **options)
    assert names(folder) == before
    return caught.value


# --- what arrives -----------------------------------------------------------------------------


@on_both
async def test_save_stores_a_picture_under_its_tasks_id(tmp_path: Path) -> None:
    """A completed task's output is in the folder, whole, named by the id and by its bytes."""
    host = Host(whole(JPEG))
    async with customer(host) as egg:
        paths = await egg.download(finished(URL), tmp_path)
    assert paths == [tmp_path / "gen_1.jpg"]
    assert paths[0].read_bytes() == JPEG
    assert names(tmp_path) == {"gen_1.jpg"}


@on_both
async def test_every_output_of_a_task_is_saved(tmp_path: Path) -> None:
    """The four pictures of a num_outputs=4 task are four files, in the order of the URLs."""
    emulator = EggEmulator(clock=anyio.current_time)
    async with connect(emulator) as egg:
        task = await egg.generate("A cat", num_outputs=4)
        paths = await task.save(tmp_path)
        urls = (await task).urls
    assert [path.name for path in paths] == [f"{task.id}-{n}.png" for n in (1, 2, 3, 4)]
    assert names(tmp_path) == {path.name for path in paths}
    assert len({path.read_bytes() for path in paths}) == len(urls) == 4


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        pytest.param(PNG, ".png", id="png"),
        pytest.param(JPEG, ".jpg", id="jpeg"),
        pytest.param(WEBP, ".webp", id="webp"),
        pytest.param(MP4, ".mp4", id="mp4"),
    ],
)
async def test_the_suffix_follows_from_the_bytes(
    tmp_path: Path, content: bytes, suffix: str
) -> None:
    """The URL and the Content-Type are somebody's opinion; the file's start is not."""
    async with customer(Host(whole(content, Content_Type="image/gif"))) as egg:
        [path] = await egg.download("https://cdn.test/one.php?x=.exe", tmp_path)
    assert path.name == f"one{suffix}"
    assert path.read_bytes() == content


async def test_the_key_never_leaves_with_a_download(tmp_path: Path) -> None:
    """No header and no URL of a download carries the key, at no hop, whatever the host."""
    host = Host(says(302, Location="https://other.test/b.png"), whole())
    async with customer(host) as egg:
        await egg.download(finished(URL), tmp_path)
    assert host.urls == [URL, "https://other.test/b.png"]
    for request in host.requests:
        assert "authorization" not in request.headers
        assert "the-secret-key" not in f"{request.url} {request.headers.raw}"


async def test_a_compressed_body_is_neither_asked_for_nor_taken(tmp_path: Path) -> None:
    """Identity is asked for; a body that comes compressed all the same is refused unread."""
    host = Host(says(200, PNG, Content_Encoding="gzip"))
    error = await refused(host, tmp_path)
    assert "compressed" in str(error)
    assert host.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html><h1>Sign in</h1></html>", id="html"),
        pytest.param(b'  {"error": "expired"}', id="json"),
        pytest.param(b"[]", id="a json list"),
        pytest.param(b'<?xml version="1.0"?><Error/>', id="xml"),
    ],
)
async def test_text_in_place_of_a_picture_is_refused(tmp_path: Path, body: bytes) -> None:
    """An answer of 200 with a page or JSON in it is no picture, and asking again is no use."""
    host = Host(says(200, body, Content_Type="image/png"))
    assert "expected a picture" in str(await refused(host, tmp_path))
    assert len(host.requests) == 1


async def test_a_body_of_no_known_end_needs_a_length(tmp_path: Path) -> None:
    """A format without end mark that ends with its connection may be cut: it is refused."""
    assert "whole" in str(await refused(Host(Reply([MP4])), tmp_path))


async def test_a_chunked_body_tells_its_own_end(tmp_path: Path) -> None:
    """A format without end mark is taken where the framing proves its end."""
    async with customer(Host(Reply([MP4], headers={"Transfer-Encoding": "chunked"}))) as egg:
        [path] = await egg.download(URL, tmp_path)
    assert path.read_bytes() == MP4


# --- where it comes from ----------------------------------------------------------------------

UNSAFE = [
    pytest.param("http://cdn.test/one.png", id="plain http"),
    pytest.param("ftp://cdn.test/one.png", id="ftp"),
    pytest.param("file:///etc/passwd", id="a file"),
    pytest.param("data:image/png;base64,AAAA", id="a data URL"),
    pytest.param("//cdn.test/one.png", id="no scheme"),
    pytest.param("one.png", id="a bare name"),
    pytest.param("https:///one.png", id="no host"),
    pytest.param("https://[::1/one.png", id="a broken address"),
    pytest.param("https://cdn.test:x/one.png", id="a port that is no number"),
    pytest.param("https://cdn.test/a b.png", id="a space in it"),
    pytest.param("https://cdn.test/\r\nX: y", id="a line break in it"),
    pytest.param("http://127.0.0.1.evil.test/one.png", id="a host that only starts like loopback"),
]


@pytest.mark.parametrize("url", UNSAFE)
@pytest.mark.parametrize("is_task", [True, False], ids=["of a task", "as it is"])
async def test_only_https_is_asked(tmp_path: Path, url: str, is_task: bool) -> None:
    """A URL that is not https is refused without a request."""
    host = Host()
    await refused(host, tmp_path, finished(url) if is_task else url)
    assert host.requests == []


@pytest.mark.parametrize("host_name", ["127.0.0.1:8000", "localhost", "[::1]:80"])
async def test_plain_http_to_this_machine_is_allowed(tmp_path: Path, host_name: str) -> None:
    """The one exception: an emulator or a proxy on loopback."""
    async with customer(Host(whole()), base_url=HERE) as egg:
        [path] = await egg.download(f"http://{host_name}/one.png", tmp_path)
    assert path.read_bytes() == PNG


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "target"),
    [
        pytest.param("https://b.test/x.png", "https://b.test/x.png", id="to another host"),
        pytest.param("/x.png?y=1", "https://cdn.test/x.png?y=1", id="to another path"),
        pytest.param("x.png", "https://cdn.test/a/x.png", id="to a sibling"),
        pytest.param("//b.test/x.png", "https://b.test/x.png", id="keeping the scheme"),
    ],
)
async def test_redirects_are_followed(
    tmp_path: Path, status: int, location: str, target: str
) -> None:
    """All five redirect codes, with absolute and relative locations."""
    host = Host(says(status, Location=location), whole())
    async with customer(host) as egg:
        [path] = await egg.download(URL, tmp_path)
    assert path.read_bytes() == PNG
    assert host.urls == [URL, target]


NOT_HTTPS: Final = "expected an https URL, no user and no password in it"


@pytest.mark.parametrize(
    ("location", "told"),
    [
        pytest.param("http://cdn.test/x.png", NOT_HTTPS, id="plain http"),
        pytest.param("http://127.0.0.1/x.png", NOT_HTTPS, id="plain http to this machine"),
        pytest.param("http://localhost:9/x.png", NOT_HTTPS, id="the same by name"),
        pytest.param("file:///etc/passwd", NOT_HTTPS, id="a file"),
        pytest.param("https://[::1/x.png", "Invalid URL in location", id="a broken address"),
        pytest.param("https://a]b/x.png", ": a redirect to no URL", id="half an address"),
    ],
)
async def test_a_redirect_never_leaves_https(tmp_path: Path, location: str, told: str) -> None:
    """What is refused at the start is refused at every hop; from https even loopback http."""
    host = Host(play=lambda _: says(302, Location=location))
    assert told in str(await refused(host, tmp_path))
    assert set(host.urls) == {URL}


async def test_a_redirect_by_way_of_https_does_not_go_back_to_http(tmp_path: Path) -> None:
    """Once a hop was https, plain http is over, though the first URL was loopback's."""
    start, middle = "http://127.0.0.1:1/x.png", "https://cdn.test/x.png"
    host = Host(says(302, Location=middle), says(302, Location=start))
    await refused(host, tmp_path, start, base_url=HERE)
    assert host.urls == [start, middle]


async def test_loopback_may_redirect_to_itself(tmp_path: Path) -> None:
    """Plain http on this machine may lead to plain http on this machine."""
    host = Host(says(302, Location="/y.png"), whole())
    async with customer(host, base_url=HERE) as egg:
        await egg.download("http://127.0.0.1:1/x.png", tmp_path)
    assert host.urls == ["http://127.0.0.1:1/x.png", "http://127.0.0.1:1/y.png"]


async def test_redirects_in_a_circle_end(tmp_path: Path) -> None:
    """Five redirects are followed, a sixth is not; nor is one without a location for ever."""
    host = Host(play=lambda _: says(302))
    assert "more than 5 redirects" in str(await refused(host, tmp_path))
    assert len(host.requests) == 6


# --- how it arrives ---------------------------------------------------------------------------


@pytest.mark.real_time
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_body_cut_on_the_wire_is_no_file(tmp_path: Path, kind: str, framing: Any) -> None:
    """Cut at every byte, with and without Content-Length: no final file, no temporary one."""
    content = KINDS[kind]
    cuts = [cut(content[:at], framing=framing, missing=len(content) - at) for at in _all(content)]
    with Wire(cuts) as server:
        async with AsyncEggClient("a-key", base_url=server.url, retry=ONCE) as egg:
            for _ in cuts:
                with pytest.raises(DownloadError):
                    await egg.download(finished(f"{server.url}/x.{kind}"), tmp_path)
                assert names(tmp_path) == set()
        assert len(server.requests) == len(content)


def _all(content: bytes) -> Iterable[int]:
    return range(len(content))


INSIDE = bytes(range(256)) + PNG + JPEG + gif(b"inside") + os.urandom(360)
DETAILED = {
    "png": png(INSIDE),
    "jpg": jpeg(INSIDE.replace(b"\xff", b"\xfe"), JPEG + PNG),
    "webp": webp(INSIDE[: len(INSIDE) // 2 * 2]),
    "gif": gif(INSIDE),
}
"""Pictures with whole pictures inside, as many a one has: a preview, or where it comes from."""


@pytest.mark.parametrize("is_sized", [True, False], ids=["with a length", "without"])
@pytest.mark.parametrize("kind", DETAILED)
async def test_a_body_cut_at_any_byte_is_no_file(tmp_path: Path, kind: str, is_sized: bool) -> None:
    """Neither where a picture inside it ends; whole, it is one. No part is left by either."""
    content = DETAILED[kind]
    length = len(content) if is_sized else None

    def play(request: httpx.Request) -> Reply:
        return Reply([content[: int(request.url.path[1:])]], length=length)

    urls = [f"https://cdn.test/{at}" for at in _all(content)]
    async with customer(Host(play=play), retry=ONCE) as egg:
        for few in (urls[n : n + 50] for n in range(0, len(urls), 50)):
            with pytest.raises(DownloadError, match=r"before its end|expected a|nothing tells"):
                await egg.download(finished(*few), tmp_path)
            assert names(tmp_path) == set()
        [path] = await egg.download(f"https://cdn.test/{len(content)}", tmp_path)
    assert path.read_bytes() == content
    assert path.suffix == f".{kind}"


@pytest.mark.parametrize("kind", ["png", "jpg", "gif"])
async def test_a_rest_without_an_end_cut_at_any_byte_is_no_file(tmp_path: Path, kind: str) -> None:
    """The chunks of what came first say nothing of where the rest of it ends."""
    content = DETAILED[kind]
    first = Reply(
        [content[:20], httpx.ReadError("reset")], headers={"Transfer-Encoding": "chunked", **ETAG}
    )
    where = {"Content-Range": f"bytes 20-{len(content) - 1}/*", **ETAG}

    def play(request: httpx.Request) -> Reply:
        rest = content[20 : int(request.url.path[1:])]
        return Reply([rest], 206, where) if "range" in request.headers else first

    twice = RetryPolicy(max_attempts=2, base_delay=0.001)
    async with customer(Host(play=play), retry=twice) as egg:
        for at in range(21, len(content)):
            with pytest.raises(DownloadError, match="before its end"):
                await egg.download(f"https://cdn.test/{at}", tmp_path)
            assert names(tmp_path) == set()
        [path] = await egg.download(f"https://cdn.test/{len(content)}", tmp_path)
    assert path.read_bytes() == content


def test_that_was_at_five_thousand_places() -> None:
    """Of the three kinds of pictures that the service makes."""
    pictures = [DETAILED[kind] for kind in ("png", "jpg", "webp")]
    assert 2 * sum(map(len, pictures)) >= 5000, [len(picture) for picture in pictures]


@pytest.mark.real_time
@pytest.mark.parametrize("kind", KINDS)
async def test_a_whole_body_is_a_file_however_it_is_framed(tmp_path: Path, kind: str) -> None:
    """The samples of the cuts, uncut: with length, in chunks, and ended by the connection."""
    content = KINDS[kind]
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    steps: list[Step] = [
        answer(200, body=content),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks),
        cut(content, framing="close"),
    ]
    with Wire(steps) as server:
        async with AsyncEggClient("a-key", base_url=server.url, retry=ONCE) as egg:
            for n in range(len(steps)):
                [path] = await egg.download(f"{server.url}/{n}", tmp_path)
                assert path == tmp_path / f"{n}.{kind}"
                assert path.read_bytes() == content


@pytest.mark.real_time
async def test_a_broken_stream_goes_on_where_it_ended(tmp_path: Path) -> None:
    """On real sockets: Range and If-Range ask for the rest, and the file is whole."""

    def serve(request: Received) -> Step:
        if request.number == 1:
            return cut(PNG[:20], missing=len(PNG) - 20, headers=ETAG)
        where = {"Content-Range": f"bytes 20-{len(PNG) - 1}/{len(PNG)}"}
        return answer(206, {**where, **ETAG}, PNG[20:])

    with Wire(serve) as server:
        async with AsyncEggClient(
            "a-key", base_url=server.url, retry=RetryPolicy(base_delay=0.001)
        ) as egg:
            [path] = await egg.download(finished(f"{server.url}/x.png"), tmp_path)
    assert path.read_bytes() == PNG
    assert [r.headers.get("range") for r in server.requests] == [None, "bytes=20-"]
    assert server.requests[1].headers["if-range"] == '"v1"'
    assert not any("authorization" in r.headers for r in server.requests)


RESUMED = [None, "bytes=20-"]
AFRESH = [None, "bytes=20-", None]
HALF = broken(PNG, 20, **ETAG)


@pytest.mark.parametrize(
    ("replies", "ranges"),
    [
        pytest.param([HALF, part(PNG, 20, **ETAG)], RESUMED, id="206 with the rest"),
        pytest.param([HALF, part(PNG, 20)], RESUMED, id="206 without an ETag"),
        pytest.param([HALF, whole(PNG, **ETAG)], RESUMED, id="200 starts again"),
        pytest.param([HALF, whole(ETag='"v2"')], RESUMED, id="200 of a newer version"),
        pytest.param(
            [HALF, part(PNG, 10, **ETAG), whole()], AFRESH, id="206 from too early a byte"
        ),
        pytest.param([HALF, part(PNG, 30, **ETAG), whole()], AFRESH, id="206 from too late a byte"),
        pytest.param([HALF, part(PNG, 20, ETag='"v2"'), whole()], AFRESH, id="206 of another ETag"),
        pytest.param([HALF, says(206, PNG[20:]), whole()], AFRESH, id="206 that tells no place"),
        pytest.param([HALF, says(416), whole()], AFRESH, id="416"),
        pytest.param([HALF, says(503), whole()], AFRESH, id="503"),
        pytest.param([broken(PNG, 20), whole()], [None, None], id="no ETag, no Range"),
        pytest.param(
            [broken(PNG, 20, ETag='W/"v1"'), whole()], [None, None], id="a weak ETag, no Range"
        ),
        pytest.param([broken(PNG, 0, **ETAG), whole()], [None, None], id="nothing came, no Range"),
        pytest.param(
            [HALF, broken(PNG, 5, **ETAG), part(PNG, 5, **ETAG)],
            [None, "bytes=20-", "bytes=5-"],
            id="200 in its place breaks too",
        ),
        pytest.param(
            [
                HALF,
                Reply(
                    [PNG[20:30], httpx.ReadError("")],
                    206,
                    {"Content-Range": f"bytes 20-{len(PNG) - 1}/{len(PNG)}", **ETAG},
                ),
                part(PNG, 30, **ETAG),
            ],
            [None, "bytes=20-", "bytes=30-"],
            id="206 breaks too",
        ),
    ],
)
async def test_a_resumed_body_is_one_version_only(
    tmp_path: Path, replies: list[Reply], ranges: list[str | None]
) -> None:
    """What is joined is provably one file from byte to byte; otherwise it starts again."""
    host = Host(*replies)
    async with customer(host) as egg:
        [path] = await egg.download(finished(URL), tmp_path)
    assert path.read_bytes() == PNG
    assert host.ranges == ranges
    assert names(tmp_path) == {"gen_1.png"}


OTHER = png(b"another version of the picture")
FIRST = {
    "a strong ETag": {"ETag": '"v1"'},
    "a weak ETag": {"ETag": 'W/"v1"'},
    "no ETag": {},
    "an ETag without quotes": {"ETag": "v1"},
}
THEN: dict[str, Reply] = {
    "the rest": part(PNG, 20, **ETAG),
    "the rest, and no ETag": part(PNG, 20),
    "the rest of another ETag": part(OTHER, 20, ETag='"v2"'),
    "the rest of another size": part(OTHER, 20),
    "the rest from too early a byte": part(PNG, 19, **ETAG),
    "the rest from too late a byte": part(PNG, 21, **ETAG),
    "the rest of nobody knows what": says(206, PNG[20:], **ETAG),
    "a part that was not asked for": part(PNG, 0, **ETAG),
    "ranges of another unit": Reply([PNG[20:]], 206, {"Content-Range": "items 20-71/72"}),
    "a part that ends before it begins": Reply([PNG], 206, {"Content-Range": "bytes 20-1"}),
    "all of it": whole(PNG, **ETAG),
    "all of another version": whole(OTHER, ETag='"v2"'),
    "416": says(416),
    "304": says(304),
}


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("then", THEN)
async def test_whatever_comes_after_a_break_is_one_version(
    tmp_path: Path, first: str, then: str
) -> None:
    """The rest is asked for by a strong ETag only, with If-Range; the file is one or the other."""
    host = Host(broken(PNG, 20, **FIRST[first]), THEN[then], whole(OTHER))
    if then == "304":
        assert "HTTP 304" in str(await refused(host, tmp_path, finished(URL)))
    else:
        async with customer(host) as egg:
            [path] = await egg.download(finished(URL), tmp_path)
        assert path.read_bytes() in (PNG, OTHER)
    asked = host.requests[1].headers
    is_strong = first == "a strong ETag"
    assert asked.get("range") == ("bytes=20-" if is_strong else None)
    assert asked.get("if-range") == ('"v1"' if is_strong else None)
    is_rest = then in ("the rest", "the rest, and no ETag")
    assert len(host.requests) == 2 or not (is_rest and is_strong)


def test_those_were_more_than_24() -> None:
    """Combinations of what was promised first and what came then."""
    assert len(FIRST) * len(THEN) >= 24


async def test_a_part_of_the_rest_is_not_the_rest(tmp_path: Path) -> None:
    """A 206 that covers less than was asked for does not end a file without an end mark."""
    short = {"Content-Range": f"bytes 20-29/{len(MP4)}", **ETAG}
    middle = Reply([MP4[20:30]], 206, short, length=10)
    host = Host(broken(MP4, 20, **ETAG), middle, part(MP4, 30, **ETAG))
    async with customer(host) as egg:
        [path] = await egg.download(finished(URL), tmp_path)
    assert path.read_bytes() == MP4
    assert host.ranges == [None, "bytes=20-", "bytes=30-"]


async def test_the_length_of_a_part_counts_where_the_total_is_not_told(tmp_path: Path) -> None:
    """`bytes 20-…/*` with a Content-Length is enough to know the end; with neither it is not."""
    rest = Reply([MP4[20:]], 206, {"Content-Range": "bytes 20-51/*"}, length=len(MP4) - 20)
    unframed = Reply([MP4[:20], httpx.ReadError("reset")], headers=ETAG)
    async with customer(Host(unframed, rest)) as egg:
        [path] = await egg.download(finished(URL), tmp_path)
    assert path.read_bytes() == MP4
    endless = Reply([MP4[20:]], 206, {"Content-Range": "bytes 20-51/*"})
    assert "whole" in str(await refused(Host(unframed, endless), tmp_path, URL))


@pytest.mark.parametrize("fault", [Fault.cut(), Fault.truncated()], ids=["cut", "truncated"])
@on_both
async def test_half_a_file_is_completed(tmp_path: Path, fault: Fault) -> None:
    """Half an output, with or without its length, is noticed, and the rest is fetched."""
    emulator = EggEmulator(clock=anyio.current_time)
    async with connect(emulator) as egg:
        result = await egg.run("A cat")
        [whole_path] = await egg.download(result, tmp_path / "whole")
        emulator.fail_next(fault, on="GET /outputs")
        [path] = await egg.download(result, tmp_path / "halved")
    assert path.read_bytes() == whole_path.read_bytes()
    assert emulator.leaks == []
    assert names(tmp_path / "halved") == {path.name}


@pytest.mark.parametrize(
    ("reply", "sent"),
    [
        pytest.param(says(500), 5, id="500 may pass"),
        pytest.param(says(503), 5, id="503 may pass"),
        pytest.param(says(429), 5, id="429 may pass"),
        pytest.param(says(408), 5, id="408 may pass"),
        pytest.param(says(416), 5, id="416 to no Range may pass"),
        pytest.param(says(206, PNG), 5, id="206 to no Range may pass"),
        pytest.param(broken(PNG, 20), 5, id="a broken stream may pass"),
        pytest.param(Reply([PNG[:-1]]), 5, id="a missing end may pass"),
        pytest.param(whole(PNG[:-1]), 5, id="an end that is never there may pass"),
        pytest.param(says(400), 1, id="400 stays"),
        pytest.param(says(401), 1, id="401 stays"),
        pytest.param(says(304), 1, id="304 stays"),
    ],
)
async def test_a_download_is_repeated_by_the_policy(
    tmp_path: Path, reply: Reply, sent: int
) -> None:
    """What may pass is tried max_attempts times, what will not once; then DownloadError."""
    host = Host(play=lambda _: reply)
    error = await refused(host, tmp_path)
    assert len(host.requests) == sent
    assert error.url == URL


async def test_a_download_error_hides_the_signature(tmp_path: Path) -> None:
    """A URL's query may be a signature: it is in no message and not in `error.url`."""
    error = await refused(Host(says(400)), tmp_path, finished(f"{URL}?signature=secret"))
    assert error.url == URL
    assert "secret" not in f"{error!r} {error}"


async def test_a_drip_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """An attempt ends after ten minutes, though a byte comes now and then."""
    drip: list[Piece] = [25.0, b"x"]
    host = Host(Reply([b"\x89", *drip * 50], length=1000))
    started = anyio.current_time()
    assert "600 s" in str(await refused(host, tmp_path))
    assert anyio.current_time() - started == 600
    assert len(host.requests) == 1


# --- how much ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply([AssertionError("read on")], length=101), id="by its length"),
        pytest.param(Reply([PNG, bytes(99), 1.0, AssertionError("read on")]), id="by its bytes"),
        pytest.param(
            Reply([bytes([n]) * 40 for n in range(3)], length=100), id="by more than it stated"
        ),
    ],
)
@on_both
async def test_a_file_beyond_the_cap_is_refused(tmp_path: Path, reply: Reply) -> None:
    """`max_bytes` bounds a file by what is stated, before it is read, and by what comes."""
    error = await refused(Host(reply), tmp_path, max_bytes=100)
    assert "max_bytes=100" in str(error)


async def test_a_file_of_just_the_cap_is_taken(tmp_path: Path) -> None:
    """The cap itself is allowed."""
    async with customer(Host(whole())) as egg:
        assert await egg.download(URL, tmp_path, max_bytes=len(PNG))


async def test_the_cap_holds_over_a_resume(tmp_path: Path) -> None:
    """The bytes before the break count too."""
    half = Reply([PNG[:20], httpx.ReadError("reset")], headers=ETAG)
    host = Host(half, part(PNG + bytes(50), 20, **ETAG))
    assert "max_bytes" in str(await refused(host, tmp_path, max_bytes=len(PNG)))


async def test_a_big_file_is_written_piece_by_piece(tmp_path: Path) -> None:
    """A megabyte in many pieces arrives as it was sent."""
    content = PNG[:-12] + os.urandom(1 << 20) + PNG[-12:]
    pieces = [content[n : n + 50_000] for n in range(0, len(content), 50_000)]
    async with customer(Host(Reply(pieces, length=len(content)))) as egg:
        [path] = await egg.download(URL, tmp_path)
    assert path.read_bytes() == content


@on_both
async def test_never_more_than_eight_at_once(tmp_path: Path) -> None:
    """However many tasks are saved at once, eight files are fetched at a time, and all come."""
    busy, most = 0, 0

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await anyio.sleep(1)
            busy -= 1
            return whole().response()

    async with customer(Slow()) as egg, anyio.create_task_group() as group:
        started = anyio.current_time()
        for n in range(10):
            urls = [f"https://cdn.test/{n}/{k}" for k in range(4)]
            group.start_soon(egg.download, finished(*urls, task_id=f"gen_{n}"), tmp_path)
    assert most == 8
    assert anyio.current_time() - started == 5  # 40 files in turns of 8, a second each
    assert len(names(tmp_path)) == 40


# --- where it goes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task_id",
    [
        pytest.param("../../etc/passwd", id="going up"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("..", id="the folder above"),
        pytest.param(".", id="the folder itself"),
        pytest.param("a\x00b", id="a NUL"),
        pytest.param("a\\..\\b", id="backslashes"),
        pytest.param("C:evil", id="a drive"),
        pytest.param("gen_é中", id="beyond ASCII"),
        pytest.param("x" * 5000, id="very long"),
        pytest.param("a\nb", id="a line break"),
    ],
)
async def test_an_id_cannot_leave_the_folder(tmp_path: Path, task_id: str) -> None:
    """Whatever a task is called, its file is one plain name inside the folder."""
    folder = tmp_path / "a" / "b"
    async with customer(Host(whole())) as egg:
        [path] = await egg.download(finished(URL, task_id=task_id), folder)
    assert [path] == list(folder.iterdir())
    assert path.name.isascii()
    assert len(path.name) <= 104
    assert not set(path.stem) & set("/\\:.\x00\n")
    assert names(tmp_path) == {"a"}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        pytest.param("https://cdn.test/../../x.png", "x.png", id="dots"),
        pytest.param("https://cdn.test/a%2F..%2F..%2Fx.png", "x.png", id="slashes in disguise"),
        pytest.param("https://cdn.test/%2Fetc%2Fpasswd", "passwd.png", id="absolute in disguise"),
        pytest.param("https://cdn.test/a%00b.png", "a_b.png", id="a NUL"),
        pytest.param("https://cdn.test/%E4%B8%AD.png", "_.png", id="beyond ASCII"),
        pytest.param("https://cdn.test/..", "output.png", id="only dots"),
        pytest.param("https://cdn.test/", "output.png", id="no name"),
        pytest.param("https://cdn.test", "output.png", id="no path"),
        pytest.param("https://cdn.test/.bashrc", "output.png", id="hidden"),
        pytest.param("https://cdn.test/" + "x" * 3000, "x" * 100 + ".png", id="very long"),
    ],
)
async def test_a_url_cannot_leave_the_folder(tmp_path: Path, url: str, name: str) -> None:
    """Whatever a URL ends in, the file is one plain name inside the folder."""
    folder = tmp_path / "a" / "b"
    async with customer(Host(whole(Content_Disposition="attachment; filename=../x"))) as egg:
        [path] = await egg.download(url, folder)
    assert path == folder / name
    assert list(folder.iterdir()) == [path]
    assert names(tmp_path) == {"a"}


async def test_a_file_name_may_be_given_for_one_output(tmp_path: Path) -> None:
    """A destination with a suffix is the file itself, and its folder is made."""
    async with customer(Host(whole())) as egg:
        paths = await egg.download(finished(URL), tmp_path / "new" / "cat.jpeg")
    assert paths == [tmp_path / "new" / "cat.jpeg"]
    assert names(tmp_path / "new") == {"cat.jpeg"}


async def test_a_file_name_for_two_outputs_is_refused(tmp_path: Path) -> None:
    """One name is not enough for two files; nothing is asked for."""
    host = Host()
    async with customer(host) as egg:
        with pytest.raises(InvalidRequestError, match="destination"):
            await egg.download(finished(URL, URL + "2"), tmp_path / "cat.png")
    assert host.requests == []


async def test_a_task_without_output_is_refused(tmp_path: Path) -> None:
    """A task that has no URL has nothing to fetch."""
    host = Host()
    async with customer(host) as egg:
        with pytest.raises(DownloadError, match="no output"):
            await egg.download(finished(), tmp_path)
    assert host.requests == []


# --- what is there already --------------------------------------------------------------------


async def test_a_whole_file_of_the_same_task_is_taken_as_it_is(tmp_path: Path) -> None:
    """Saving again costs no request."""
    host = Host(whole())
    async with customer(host) as egg:
        first = await egg.download(finished(URL), tmp_path)
        assert await egg.download(finished(URL), tmp_path) == first
    assert len(host.requests) == 1


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(PNG[:-1], id="a cut picture"),
        pytest.param(b"my notes", id="something else"),
        pytest.param(b"", id="an empty file"),
    ],
)
async def test_what_is_not_a_whole_picture_is_not_overwritten(
    tmp_path: Path, content: bytes
) -> None:
    """A file of that name which we did not leave stays as it is, and no request is made."""
    (tmp_path / "gen_1.png").write_bytes(content)
    host = Host()
    assert "exists already" in str(await refused(host, tmp_path))
    assert (tmp_path / "gen_1.png").read_bytes() == content
    assert host.requests == []


async def test_a_file_of_the_same_name_from_another_url_is_not_taken_for_it(
    tmp_path: Path,
) -> None:
    """Two URLs may end alike: without a task's id, an existing file proves nothing."""
    host = Host(whole())
    async with customer(host) as egg:
        await egg.download("https://cdn.test/1/x.png", tmp_path)
        with pytest.raises(DownloadError, match="exists already"):
            await egg.download("https://cdn.test/2/x.png", tmp_path)
    assert len(host.requests) == 1


async def test_an_existing_file_of_the_given_name_is_not_overwritten(tmp_path: Path) -> None:
    """A whole picture under the name that was given is somebody's, and stays."""
    mine = tmp_path / "cat.png"
    mine.write_bytes(PNG)
    host = Host()
    async with customer(host) as egg:
        with pytest.raises(DownloadError, match="exists already"):
            await egg.download(finished(URL), mine)
    assert host.requests == []


@pytest.mark.parametrize("name", ["gen_1.png", ""], ids=["by its name", "in a folder"])
async def test_an_existing_file_is_overwritten_when_asked(tmp_path: Path, name: str) -> None:
    """`overwrite=True` replaces it in one step."""
    (tmp_path / "gen_1.png").write_bytes(b"old")
    async with customer(Host(whole())) as egg:
        paths = await egg.download(finished(URL), tmp_path / name, overwrite=True)
    assert paths == [tmp_path / "gen_1.png"]
    assert paths[0].read_bytes() == PNG


async def test_a_failed_overwrite_leaves_the_old_file(tmp_path: Path) -> None:
    """The old file is replaced by a whole one or not at all."""
    (tmp_path / "gen_1.png").write_bytes(PNG)
    await refused(Host(says(400)), tmp_path, overwrite=True)
    assert (tmp_path / "gen_1.png").read_bytes() == PNG


@pytest.mark.parametrize("is_named", [True, False], ids=["by its name", "in a folder"])
async def test_a_file_that_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, is_named: bool
) -> None:
    """Of two who make one file, the second finds it taken, and leaves no trace."""

    def play(_: httpx.Request) -> Reply:
        (tmp_path / "gen_1.png").write_bytes(b"theirs")
        return whole()

    async with customer(Host(play=play)) as egg:
        with pytest.raises(DownloadError, match="exists already"):
            await egg.download(finished(URL), tmp_path / ("gen_1.png" if is_named else ""))
    assert (tmp_path / "gen_1.png").read_bytes() == b"theirs"
    assert names(tmp_path) == {"gen_1.png"}


# --- URLs that expire -------------------------------------------------------------------------

NEW_URL = "https://cdn.test/new.png"


def service(task: dict[str, Any], then: Reply, *, expired: int = 403) -> Host:
    """A service that shows *task*, and a content host that no longer knows the first URL."""

    def play(request: httpx.Request) -> Reply:
        if request.url.host == "api.eggapi.ai":
            body = httpx.Response(200, json={"data": task, "error": None}).content
            return says(200, body)
        return says(expired) if str(request.url) == URL else then

    return Host(play=play)


def _shown(*urls: str) -> dict[str, Any]:
    return {"id": "gen_1", "status": "completed", "output": {"url": urls[0], "urls": list(urls)}}


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_an_expired_url_is_renewed_once(tmp_path: Path, status: int) -> None:
    """One GET of the task gives the newer URL."""
    host = service(_shown(NEW_URL), whole(), expired=status)
    async with customer(host) as egg:
        [path] = await egg.download(finished(URL), tmp_path)
    assert path.read_bytes() == PNG
    assert host.urls == [URL, "https://api.eggapi.ai/v1/tasks/gen_1", NEW_URL]


async def test_what_breaks_off_under_the_newer_url_is_continued(tmp_path: Path) -> None:
    """As under the first one."""
    renewed = [Reply([PNG[:20], httpx.ReadError("reset")], headers={"ETag": '"v1"'})]

    def play(request: httpx.Request) -> Reply:
        if request.url.host == "api.eggapi.ai":
            return says(200, json.dumps({"data": _shown(NEW_URL), "error": None}).encode())
        if str(request.url) == URL:
            return says(403)
        return renewed.pop() if renewed else whole()

    async with customer(Host(play=play)) as egg:
        [path] = await egg.download(finished(URL), tmp_path)
    assert path.read_bytes() == PNG
    assert not renewed


async def test_each_output_gets_its_own_newer_url(tmp_path: Path) -> None:
    """The second output is renewed by the second URL."""
    host = service(_shown("https://cdn.test/other.png", NEW_URL), whole())
    async with customer(host) as egg:
        await egg.download(finished("https://cdn.test/first.png", URL), tmp_path)
    assert sorted(host.urls) == sorted(
        ["https://cdn.test/first.png", URL, "https://api.eggapi.ai/v1/tasks/gen_1", NEW_URL]
    )


@pytest.mark.parametrize(
    ("task", "then"),
    [
        pytest.param(_shown(NEW_URL), says(404), id="the newer URL has expired too"),
        pytest.param(_shown(URL), whole(), id="the newer URL is the old one"),
        pytest.param({"id": "gen_1", "status": "completed"}, whole(), id="there is no newer URL"),
    ],
)
async def test_an_expired_url_is_not_renewed_twice(
    tmp_path: Path, task: dict[str, Any], then: Reply
) -> None:
    """After one refresh it is over."""
    host = service(task, then)
    error = await refused(host, tmp_path)
    assert "HTTP 40" in str(error)
    assert len(host.requests) == 3


async def test_a_refresh_that_fails_is_a_download_error(tmp_path: Path) -> None:
    """Where the task itself cannot be had, the reason is the cause of the DownloadError."""
    host = service({"id": "gen_other", "status": "completed"}, whole())

    async with customer(host, retry=ONCE) as egg:
        with pytest.raises(DownloadError) as caught:
            await egg.download(finished(URL), tmp_path)
    assert "gen_other" in str(caught.value.__cause__)
    assert names(tmp_path) == set()


async def test_a_bare_url_that_has_expired_is_over(tmp_path: Path) -> None:
    """There is no task to ask for a newer one."""
    host = Host(says(410))
    assert "HTTP 410" in str(await refused(host, tmp_path, URL))
    assert len(host.requests) == 1


# --- several outputs --------------------------------------------------------------------------


async def test_one_failed_output_does_not_spoil_the_others(tmp_path: Path) -> None:
    """The others are there, the error names the one that is not, and saving again gets it."""
    urls = [f"https://cdn.test/{n}.png" for n in range(3)]
    replies = {urls[0]: whole(), urls[1]: says(400), urls[2]: whole(JPEG)}
    host = Host(play=lambda request: replies[str(request.url)])
    async with customer(host) as egg:
        with pytest.raises(DownloadError) as caught:
            await egg.download(finished(*urls), tmp_path)
        assert caught.value.url == urls[1]
        assert names(tmp_path) == {"gen_1-1.png", "gen_1-3.jpg"}
        replies[urls[1]] = whole(WEBP)
        paths = await egg.download(finished(*urls), tmp_path)
    assert [path.name for path in paths] == ["gen_1-1.png", "gen_1-2.webp", "gen_1-3.jpg"]
    assert len(host.requests) == 4


# --- trouble with the disk --------------------------------------------------------------------


class FullDisk(io.FileIO):
    """A file to which nothing can be written."""

    def write(self, _: Any) -> Any:
        """Fail."""
        _fail()


def _buffered(descriptor: int, _: str) -> io.BufferedWriter:
    return io.BufferedWriter(FullDisk(descriptor, "wb"))


def _unbuffered(descriptor: int, _: str) -> FullDisk:
    return FullDisk(descriptor, "wb")


def _fail(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("name", "failing"),
    [
        pytest.param("open", _fail, id="when the file is made"),
        pytest.param("fdopen", _unbuffered, id="when it is written"),
        pytest.param("fdopen", _buffered, id="when it is flushed"),
        pytest.param("fsync", _fail, id="when it is synced"),
        pytest.param("replace", _fail, id="when it is renamed"),
    ],
)
def test_a_full_disk_is_a_download_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, failing: Callable[..., Any]
) -> None:
    """Whatever step the disk refuses: DownloadError with its reason, and nothing left."""

    async def download() -> None:
        async with customer(Host(whole(), whole())) as egg:
            with monkeypatch.context() as disk:
                disk.setattr(os, name, failing)
                with pytest.raises(DownloadError) as caught:
                    await egg.download(finished(URL), tmp_path, overwrite=True)
            told = f"cannot write to {tmp_path}: No space left on device"
            assert told in str(caught.value)
            assert caught.value.url == URL
            assert isinstance(caught.value.__cause__, OSError)
            assert names(tmp_path) == set()
            await egg.download(finished(URL), tmp_path)

    run_virtual(download)


def test_a_temporary_file_that_stays_is_no_other_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even the temporary file cannot be taken away, the first trouble is told."""

    async def download() -> None:
        async with customer(Host(says(400))) as egg:
            with monkeypatch.context() as disk:
                disk.setattr(os, "unlink", _fail)
                with pytest.raises(DownloadError, match="HTTP 400"):
                    await egg.download(finished(URL), tmp_path)

    run_virtual(download)


def _a_file_for_a_folder(folder: Path) -> Path:
    (folder / "taken").write_text("a file")
    return folder / "taken" / "deeper"


def _a_folder_for_a_file(folder: Path) -> Path:
    (folder / "gen_1.png").mkdir()
    return folder


def _a_name_beyond_all_limits(folder: Path) -> Path:
    return folder / ("x" * 300)


def _a_file_name_beyond_all_limits(folder: Path) -> Path:
    return folder / ("x" * 300 + ".png")


def _a_nul(folder: Path) -> Path:
    return folder / "a\x00b"


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(_a_file_for_a_folder, id="a file where the folder should be"),
        pytest.param(_a_folder_for_a_file, id="a folder where the file should be"),
        pytest.param(_a_name_beyond_all_limits, id="a folder's name beyond all limits"),
        pytest.param(_a_file_name_beyond_all_limits, id="a file's name beyond all limits"),
        pytest.param(_a_nul, id="a NUL in the folder's name"),
    ],
)
async def test_an_impossible_destination_is_a_download_error(
    tmp_path: Path, prepare: Callable[[Path], Path]
) -> None:
    """No foreign exception crosses the surface, and no request is made."""
    host = Host()
    destination = prepare(tmp_path)
    before = names(tmp_path)
    async with customer(host) as egg:
        with pytest.raises(DownloadError):
            await egg.download(finished(URL), destination)
    assert names(tmp_path) == before
    assert host.requests == []


async def test_a_folder_is_tidied_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process left is gone with the next picture; then nobody looks again."""
    monkeypatch.setattr("eggapi_async._downloads.FOLDERS", 2)
    stray = ".gen_9.0123456789ab.part"
    async with customer(Host(play=_png)) as egg:
        for folder in ("a", "b", "c"):  # one more than are remembered
            (tmp_path / folder).mkdir()
            (tmp_path / folder / stray).touch()
            await egg.download(finished(URL), tmp_path / folder)
            assert names(tmp_path / folder) == {"gen_1.png"}
        (tmp_path / "c" / stray).touch()
        await egg.download(finished(URL, task_id="gen_2"), tmp_path / "c")
    assert names(tmp_path / "c") == {"gen_1.png", "gen_2.png", stray}


# --- cancellation -----------------------------------------------------------------------------


@pytest.mark.parametrize("cancels", [1, 2], ids=["cancelled once", "cancelled twice"])
def test_a_cancelled_download_leaves_nothing(tmp_path: Path, cancels: int) -> None:
    """Cancelled natively after any number of steps: a whole file or none, nothing beside it."""
    endings = [run_virtual(_cancelled_after, steps, cancels, tmp_path) for steps in range(120)]
    assert False in endings
    assert True in endings


async def _step() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    await asyncio.sleep(0)
    while loop.threads_at_work():  # how fast they are must not decide where the step ends
        await asyncio.sleep(0)


async def _cancelled_after(steps: int, cancels: int, folder: Path) -> bool:
    pieces: list[Any] = [PNG[:20], 0.0, PNG[20:40], 0.0, PNG[40:]]
    host = Host(Reply(pieces, length=len(PNG)))
    async with customer(host) as egg:
        task = asyncio.create_task(egg.download(finished(URL), folder, overwrite=True))
        for _ in range(steps):
            if not task.done():
                await _step()
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0)
        ended = await asyncio.gather(task, return_exceptions=True)
    was_cancelled = isinstance(ended[0], asyncio.CancelledError)
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert left in ({}, {"gen_1.png": PNG})
    assert was_cancelled or left
    for path in folder.iterdir():
        path.unlink()
    return was_cancelled


@pytest.mark.parametrize("name", ["open", "fdopen", "fsync", "replace", "unlink"])
@pytest.mark.parametrize("cancels", [1, 3], ids=["cancelled once", "cancelled again and again"])
def test_cancelled_while_a_thread_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, cancels: int
) -> None:
    """The thread is waited for: what it made is taken away, or is a whole file."""

    async def cancel_inside() -> None:
        loop = asyncio.get_running_loop()
        cancelled = asyncio.Event()
        seen: list[str] = []
        real = getattr(os, name)

        async def cancel_repeatedly() -> None:
            for _ in range(cancels):
                task.cancel()
                await asyncio.sleep(0)
            cancelled.set()

        def slow(*args: Any, **kwargs: Any) -> Any:
            if not seen:
                seen.append(name)
                asyncio.run_coroutine_threadsafe(cancel_repeatedly(), loop).result(10)
            return real(*args, **kwargs)

        async with customer(Host(whole())) as egg:
            task = asyncio.create_task(egg.download(finished(URL), tmp_path, overwrite=True))
            with monkeypatch.context() as disk:
                disk.setattr(os, name, slow)
                with pytest.raises(asyncio.CancelledError):
                    await task
        assert cancelled.is_set()

    run_virtual(cancel_inside)
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left in ({}, {"gen_1.png": PNG})


@on_both
async def test_a_download_whose_time_is_over_leaves_nothing(tmp_path: Path) -> None:
    """A scope around it ends it in the middle of a body, and its turn is given back."""
    host = Host(*[Reply([PNG[:20], 1e6], length=len(PNG))] * 9, whole())
    async with customer(host) as egg:
        for _ in range(9):
            with anyio.move_on_after(5) as scope:
                await egg.download(finished(URL), tmp_path)
            assert scope.cancelled_caught
            assert names(tmp_path) == set()
        assert await egg.download(finished(URL), tmp_path)


def test_downloads_work_on_one_event_loop_after_another(tmp_path: Path) -> None:
    """A client outlives its event loop; its turns are no property of it."""

    async def make() -> AsyncEggClient:
        return AsyncEggClient("a-key", http_client=httpx.AsyncClient(transport=Host(play=_png)))

    egg = run_virtual(make)

    async def fetch(number: int) -> None:
        tasks = [finished(URL, task_id=f"gen_{number}_{n}") for n in range(20)]
        await asyncio.gather(*(egg.download(task, tmp_path) for task in tasks))

    run_virtual(fetch, 1)
    run_virtual(fetch, 2)
    assert len(names(tmp_path)) == 40


def _png(_: httpx.Request) -> Reply:
    return whole()
