"""Pictures to disk, or into memory: whole or not at all.

A body is streamed to a temporary file in the destination folder, checked (length, and the format's
own end mark: a cut body without a length looks whole to httpx), synced and renamed. The key is
never sent; https only (this machine excepted), and to no private address (`_reach`); names come
from us and cannot leave the folder; an existing file stays unless overwriting is asked for. Files
are touched in worker threads only.
"""

from __future__ import annotations

import os
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import anyio
import anyio.to_thread
import attrs

from ._apart import apart
from ._files import Output, Part, plan, sweep, whole_file
from ._formats import TEXT, sniff
from ._retry import RetryPolicy, next_delay
from ._telling import repeated
from ._transport import Transport
from ._wire import Stream
from .client_events import OutputDownloaded, Tell
from .errors import ConnectionFailedError, DownloadError, EggError, InvalidRequestError
from .models import TaskSnapshot, is_safe_url

T = TypeVar("T")

MAX_BYTES: Final = 64 * 1024 * 1024
PARALLEL: Final = 8
"""Files fetched at once: outputs are big, and come from hosts whose limits are not known."""
HOPS: Final = 5
"""Redirects that are followed."""
PATIENCE: Final = 600.0
"""Seconds that one attempt at one file may take, however slowly it drips."""
FOLDERS: Final = 1024
"""Folders that are remembered as tidied up."""
CHUNK: Final = 256 * 1024
"""Bytes that are gathered before a worker thread writes them."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_EXPIRED: Final = frozenset({403, 404, 410})
"""What a signed URL says when its time is over."""


class _GoneError(Exception):
    """The URL is no longer served; a newer one may be."""


class Downloads:
    """Fetches outputs into files or memory, a few at once."""

    def __init__(
        self, *, transport: Transport, dice: Callable[[], float], tell: Tell | None = None
    ) -> None:
        self._transport = transport
        self._dice = dice
        self._tell = tell
        self._turns = anyio.Semaphore(PARALLEL)
        self._swept: set[Path] = set()

    async def save(
        self,
        source: TaskSnapshot | str,
        destination: str | os.PathLike[str],
        *,
        policy: RetryPolicy,
        max_bytes: int = MAX_BYTES,
        overwrite: bool = False,
        refresh: Callable[[], Awaitable[TaskSnapshot]] | None = None,
        stem: str | None = None,
    ) -> list[Path]:
        """Fetch every output of *source*; *refresh* gives newer URLs where the old have expired.

        *stem* names the files in place of the task's id.
        Raises DownloadError, and InvalidRequestError where a file name is given for many outputs.
        """
        if isinstance(source, str) and not _is_safe(source):
            raise _not_https(source)
        url = source if isinstance(source, str) else source.url or ""
        files = await _in_thread(url, destination, plan, source, destination, overwrite, stem)
        await self._sweep(files[0].folder)

        async def fetch(index: int) -> Path:
            return await self._fetch(files[index], index, policy, max_bytes, overwrite, refresh)

        return await _each(range(len(files)), fetch)

    async def read(
        self,
        source: TaskSnapshot | str,
        *,
        index: int | None,
        policy: RetryPolicy,
        max_bytes: int = MAX_BYTES,
        refresh: Callable[[], Awaitable[TaskSnapshot]] | None = None,
    ) -> list[bytes]:
        """Fetch the output at *index*, or every one, into memory; checked as files are.

        Raises DownloadError, and InvalidRequestError where there is no such output.
        """
        urls = (source,) if isinstance(source, str) else source.urls
        if isinstance(source, str) and not _is_safe(source):
            raise _not_https(source)
        if not urls:
            raise DownloadError("the task has no output to fetch", url=getattr(source, "id", ""))

        async def fetch(index: int) -> bytes:
            memory, began = BytesIO(), anyio.current_time()
            part = Part(memory, Path())
            output = Output(urls[index], Path(), "", task_id=getattr(source, "id", None))
            output = await self._filled(output, index, part, policy, max_bytes, refresh)
            self._report(output, part, began)
            return memory.getvalue()

        return await _each(_chosen(index, len(urls)), fetch)

    async def _sweep(self, folder: Path) -> None:
        """Once for each folder, since a folder of thousands takes a while to read."""
        if folder in self._swept:
            return
        if len(self._swept) >= FOLDERS:
            self._swept.clear()
        self._swept.add(folder)
        await anyio.to_thread.run_sync(sweep, folder)

    async def _fetch(
        self,
        file: Output,
        index: int,
        policy: RetryPolicy,
        max_bytes: int,
        overwrite: bool,
        refresh: Callable[[], Awaitable[TaskSnapshot]] | None,
    ) -> Path:
        there = (file.url, file.folder)
        if not overwrite and (kept := await _in_thread(*there, whole_file, file)):
            return kept
        began = anyio.current_time()
        part = await _in_thread(*there, Part.open, file)
        try:
            file = await self._filled(file, index, part, policy, max_bytes, refresh)
            path = await _in_thread(*there, part.publish, file, overwrite)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(part.discard)
        self._report(file, part, began)
        return path

    def _report(self, file: Output, part: Part, began: float) -> None:
        if self._tell is not None:
            seconds = anyio.current_time() - began
            self._tell(OutputDownloaded(task_id=file.task_id, size=part.size, seconds=seconds))

    async def _filled(
        self,
        file: Output,
        index: int,
        part: Part,
        policy: RetryPolicy,
        max_bytes: int,
        refresh: Callable[[], Awaitable[TaskSnapshot]] | None,
    ) -> Output:
        """Get all of *file* into *part*; *file* as it was served, maybe under a newer URL."""
        try:
            try:
                await self._fill(file, part, policy, max_bytes)
            except _GoneError as gone:
                file = await _renewed(file, index, refresh, gone)
                await self._fill(file, part, policy, max_bytes)
        except _GoneError as gone:
            raise DownloadError(str(gone), url=file.url) from None
        return file

    async def _fill(self, file: Output, part: Part, policy: RetryPolicy, max_bytes: int) -> None:
        """Get the whole body into *part*, going on where a broken stream ended."""
        started = anyio.current_time()
        for attempt in count(1):
            try:
                async with self._turns:
                    await apart(partial(self._attempt, file, part, max_bytes))
                return
            except ConnectionFailedError as error:
                delay = next_delay(
                    policy,
                    error,
                    attempt=attempt,
                    spent=anyio.current_time() - started,
                    jitter=self._dice(),
                )
                if delay is None:
                    raise DownloadError(str(error), url=file.url) from error
                if self._tell is not None:
                    self._tell(repeated("download", attempt, delay, error))
            await anyio.sleep(delay)
        raise AssertionError("counting never ends")

    async def _attempt(self, file: Output, part: Part, max_bytes: int) -> None:
        with anyio.move_on_after(PATIENCE):
            async with self._open(file.url, part.resume()) as stream:
                length = _begin(file, part, stream)
                if length is not None and length > max_bytes:
                    raise _too_big(file, max_bytes)
                await _pour(file, part, stream, max_bytes)
                _check(file, part, length)
                await _check_parts(file, part)
            return
        raise ConnectionFailedError(f"not finished within {PATIENCE:g} s", is_passing=False)

    @asynccontextmanager
    async def _open(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Stream]:
        """A GET of *url*, redirects followed, from https never to anything else."""
        scheme = "http"
        for _ in range(HOPS + 1):
            if not _is_safe(url) or urlsplit(url).scheme not in (scheme, "https"):
                raise _not_https(url)
            scheme = urlsplit(url).scheme
            async with self._transport.stream(url, headers) as stream:
                if stream.status not in _REDIRECTS:
                    yield stream
                    return
                url = _next_url(url, stream.headers.get("location", ""))
        raise DownloadError(f"more than {HOPS} redirects", url=url)


async def _each(indexes: Iterable[int], fetch: Callable[[int], Coroutine[Any, Any, T]]) -> list[T]:
    """What *fetch* gets for each of *indexes*, all at once; if some fail, the first failure."""
    found: dict[int, T] = {}
    failures: list[EggError] = []

    async def one(index: int) -> None:
        try:
            found[index] = await fetch(index)
        except EggError as error:
            failures.append(error)

    async with anyio.create_task_group() as group:
        for index in indexes:
            group.start_soon(one, index)
    if failures:
        raise failures[0]
    return [found[index] for index in sorted(found)]


def _chosen(index: int | None, number: int) -> Sequence[int]:
    """The places of the outputs that are wanted among *number*."""
    if index is None:
        return range(number)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < number:
        raise InvalidRequestError("index", index, f"0 to {number - 1}")
    return (index,)


async def _pour(file: Output, part: Part, stream: Stream, max_bytes: int) -> None:
    """Append the body to *part* in big pieces; what came before a break is kept too."""
    buffer = bytearray()
    try:
        with anyio.CancelScope() as reading:
            async for chunk in stream.chunks():
                buffer += chunk
                if part.size + len(buffer) > max_bytes:
                    reading.cancel()  # an error here would leave generators behind, half run
                elif len(buffer) >= CHUNK:
                    await _write(file, part, buffer)
    except ConnectionFailedError:
        await _write(file, part, buffer)
        raise
    if part.size + len(buffer) > max_bytes:
        raise _too_big(file, max_bytes)
    await _write(file, part, buffer)


async def _write(file: Output, part: Part, buffer: bytearray) -> None:
    await _in_thread(file.url, file.folder, part.write, bytes(buffer))
    buffer.clear()


def _begin(file: Output, part: Part, stream: Stream) -> int | None:
    """Ready *part* for the body; the size it will have, None where nothing says so."""
    length = _number(stream.headers.get("content-length", ""))
    if stream.status == 206 and _continues(part, stream):
        total = _number(stream.headers["content-range"].rpartition("/")[2])
        size = total if length is None else total or part.size + length
        part.total = total or part.total
        # What came before says nothing of where this answer ends.
        part.is_framed = size is not None or _is_chunked(stream)
        return size
    if stream.status in _EXPIRED:
        raise _GoneError(f"HTTP {stream.status}")
    if stream.status != 200:
        may_pass = stream.status in (206, 408, 416, 425, 429) or stream.status >= 500
        part.restart("")
        raise ConnectionFailedError(f"HTTP {stream.status}", is_passing=may_pass)
    if stream.headers.get("content-encoding", "identity") != "identity":
        raise DownloadError("the body is compressed, though that was declined", url=file.url)
    part.restart(stream.headers.get("etag", ""), length)
    part.is_framed = length is not None or _is_chunked(stream)
    return length


def _is_chunked(stream: Stream) -> bool:
    return "transfer-encoding" in stream.headers


def _continues(part: Part, stream: Stream) -> bool:
    """True when a 206 starts exactly where we are, in the version that we have begun."""
    where, etag = stream.headers.get("content-range", ""), stream.headers.get("etag", "")
    return part.continues(where, etag)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _check(file: Output, part: Part, length: int | None) -> None:
    """Refuse what is no output, and what has no end."""
    kind = sniff(part.head)
    if kind is TEXT or length == 0:
        raise DownloadError(f"expected a picture or a video, got {part.head!r}", url=file.url)
    is_whole = kind.is_whole(part.head, part.tail, part.size)
    if (length is not None and part.size != length) or is_whole is False:
        raise _ended_early(part)
    if is_whole is None and not part.is_framed:
        raise DownloadError("nothing tells whether the body is whole", url=file.url)


async def _check_parts(file: Output, part: Part) -> None:
    """Walk through a body of unknown length: in its middle there may be an end mark, too."""
    if part.is_framed or await _in_thread(file.url, file.folder, part.ends_there):
        return
    raise _ended_early(part)


def _ended_early(part: Part) -> ConnectionFailedError:
    return ConnectionFailedError(f"the body ended after {part.size} bytes, before its end")


def _is_safe(url: str) -> bool:
    """True for https, and plain http to this machine; not with a password, which would be sent."""
    return is_safe_url(url) and "@" not in urlsplit(url).netloc


def _not_https(url: str) -> DownloadError:
    return DownloadError("expected an https URL, no user and no password in it", url=url)


def _next_url(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise DownloadError("a redirect to no URL", url=url) from None


def _too_big(file: Output, max_bytes: int) -> DownloadError:
    return DownloadError(f"more than max_bytes={max_bytes}", url=file.url)


async def _renewed(
    file: Output,
    index: int,
    refresh: Callable[[], Awaitable[TaskSnapshot]] | None,
    gone: _GoneError,
) -> Output:
    """*file* with the URL that its task has now."""
    if refresh is None:
        raise gone
    try:
        urls = (await refresh()).urls
    except EggError as error:
        raise DownloadError(f"{gone}, and its task tells no newer URL", url=file.url) from error
    return attrs.evolve(file, url=urls[index]) if index < len(urls) else file


async def _in_thread(url: str, folder: object, work: Callable[..., T], *args: object) -> T:
    """Do *work*, which touches files; what the system says against it is a DownloadError."""
    try:
        return await anyio.to_thread.run_sync(work, *args)
    except EggError:
        raise
    except (OSError, ValueError) as exc:  # ValueError: a NUL in a path
        reason = getattr(exc, "strerror", None) or exc
        raise DownloadError(f"cannot write to {folder}: {reason}", url=url) from exc
