"""Files on disk, the blocking way: where outputs go, and how one appears there whole or not at all.

The only module that touches files. Every function blocks, so it is called in a worker thread.
"""

from __future__ import annotations

import filecmp
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import attrs

from ._formats import HEAD, KNOWN, TAIL, sniff
from .errors import DownloadError, InvalidRequestError
from .models import TaskSnapshot, checked_name


@attrs.frozen
class Output:
    """One output and where it goes. *name* is None where the suffix follows from the bytes.

    *is_of_task*: the stem is a task's id, so that nothing else has that name. *is_named*: the stem
    is the caller's, and only its bytes tell whether a file of that name is the same. *part* is the
    stem of the file in the making, by which what a kill has left of it is known. *task_id* is None
    for the output of a URL.
    """

    url: str
    folder: Path
    stem: str
    name: str | None = None
    is_of_task: bool = True
    is_named: bool = False
    part: str = ""
    task_id: str | None = None

    def path(self, suffix: str) -> Path:
        """The final path, for a file of that format."""
        return self.folder / (self.name or self.stem + suffix)


def plan(
    source: TaskSnapshot | str,
    destination: str | os.PathLike[str],
    overwrite: bool,
    stem: str | None = None,
) -> list[Output]:
    """Where each output of *source* goes; makes the folder. Raises before anything is fetched.

    *stem* takes the place of the task's id, and may lead into folders below.
    """
    urls = (source,) if isinstance(source, str) else source.urls
    if not urls:
        raise DownloadError("the task has no output to fetch", url=getattr(source, "id", ""))
    folder, name = _folder_and_name(destination)
    if name is not None and len(urls) > 1:
        raise InvalidRequestError("destination", name, f"a folder, for {len(urls)} outputs")
    if name is not None and not overwrite and (folder / name).exists():
        raise DownloadError(f"{folder / name} exists already", url=urls[0])
    if stem is not None:
        place = folder / checked_name(stem)
        folder, stem = place.parent, place.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DownloadError(f"cannot make {folder}: {exc.strerror}", url=urls[0]) from exc
    own = _stems(source, len(urls))
    stems = own if stem is None else _numbered(stem, len(urls))
    task_id = None if isinstance(source, str) else source.id
    is_of_task, is_named = task_id is not None, stem is not None
    return [
        Output(url, folder, each, name, is_of_task, is_named, part, task_id)
        for url, each, part in zip(urls, stems, own, strict=True)
    ]


def _folder_and_name(destination: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """A folder where it is one, ends in a separator or has no suffix; otherwise a file's name."""
    text = os.fspath(destination)
    path = Path(text)
    if path.is_dir() or text.endswith(("/", os.sep)) or not path.suffix:
        return path, None
    return path.parent, path.name


def _stems(source: TaskSnapshot | str, number: int) -> list[str]:
    if isinstance(source, str):
        last = unquote(urlsplit(source).path).rpartition("/")[2]
        return [_plain(last.partition(".")[0]) or "output"]
    return _numbered(_plain(source.id), number)


def _numbered(stem: str, number: int) -> list[str]:
    return [stem] if number == 1 else [f"{stem}-{n}" for n in range(1, number + 1)]


def _plain(text: str) -> str:
    """*text* as a file name that is the same on every system, and leads nowhere."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:100]


def whole_file(output: Output) -> Path | None:
    """The file that an earlier fetch of this task's output left, if it is there and whole.

    Raises DownloadError where something else stands in its place.
    """
    for suffix in () if output.is_named else KNOWN:
        path = output.path(suffix)
        if not path.exists():
            continue
        if output.is_of_task and output.name is None and _is_whole(path):
            return path
        raise DownloadError(f"{path} exists already", url=output.url)
    return None


def _is_whole(path: Path) -> bool:
    if not path.is_file():
        return False
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, size - TAIL))
        tail = file.read()
    return sniff(head).is_whole(head, tail, size) is True


def kept_in(folder: str, paths: Iterable[Path]) -> list[Path]:
    """*paths* as seen from *folder*, if all are outputs in it, there and whole; otherwise none."""
    there, files = Path(folder).resolve(), list(paths)
    kept: list[Path] = []
    with suppress(OSError, ValueError):  # gone while we look, or elsewhere
        names = [path.resolve().relative_to(there) for path in files]
        kept = [Path(folder, name) for name in names] if all(map(_is_whole, files)) else []
    return kept


def sweep(folder: Path) -> None:
    """Remove what dead fetches left in *folder*: who fetches keeps its part locked, and the lock
    ends with it, however that ends."""
    with suppress(OSError):
        for name in filter(_PART.fullmatch, os.listdir(folder)):
            _remove_if_dead(folder / name)


def _remove_if_dead(part: Path) -> None:
    with suppress(OSError):  # it is locked, or not ours to remove
        if os.name == "nt":  # where an open file cannot be removed
            part.unlink()
            return
        with open(part, "rb", opener=_no_link) as file:
            _lock(file.fileno(), waits=False)
            part.unlink()


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _lock(descriptor: int, *, waits: bool) -> None:
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)


_PART = re.compile(r"\.(.{1,60})\.[0-9a-f]{12}\.part")


def remove_strays(folder: str, known: Callable[[Collection[str]], Collection[str]]) -> None:
    """Remove what killed fetches left in *folder* of tasks that *known* says are the caller's."""
    with suppress(OSError):  # tidying up: it may be somebody else's to mend
        names = [match for path in Path(folder).iterdir() if (match := _PART.fullmatch(path.name))]
        stems = {match[1]: {match[1], match[1].rpartition("-")[0]} for match in names}
        ours = set(known(set().union(*stems.values())))
        for match in names:
            if stems[match[1]] & ours:
                Path(folder, match[0]).unlink(missing_ok=True)


_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")


class Part:
    """An output in the making: a file beside its final place and under another name, or memory."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._path = path
        self._file = file
        self._etag = ""
        self.total: int | None = None
        self.size = 0
        self.head = b""
        self.tail = b""
        self.is_framed = False

    @classmethod
    def open(cls, output: Output) -> Part:
        """A new, empty one, locked for as long as it is open."""
        path = output.folder / f".{(output.part or output.stem)[:60]}.{secrets.token_hex(6)}.part"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        part = cls(os.fdopen(os.open(path, flags, 0o666), "w+b"), path)
        with suppress(OSError, ImportError):  # a system, or a file system, without such locks
            _lock(part._file.fileno(), waits=True)
        if path.exists():
            return part
        part.discard()  # somebody took it for a dead one's, in the moment before it was locked
        return cls.open(output)

    def write(self, data: bytes) -> None:
        """Append *data*."""
        self._file.write(data)
        self.size += len(data)
        self.head = (self.head + data[:HEAD])[:HEAD]
        self.tail = (self.tail + data[-TAIL:])[-TAIL:]

    def restart(self, etag: str, total: int | None = None) -> None:
        """Forget what came: a body begins again from its start. *etag* names the version, *total*
        is its size."""
        self._etag, self.total = etag, total
        if self.size:
            self._file.seek(0)
            self._file.truncate()
            self.size, self.head, self.tail = 0, b"", b""

    def resume(self) -> dict[str, str]:
        """Headers that ask for the rest; only a strong ETag proves that it is the same file."""
        if not self.size or not self._etag.startswith('"'):
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self._etag}

    def continues(self, content_range: str, etag: str = "") -> bool:
        """True when *content_range* starts exactly where we are, in a file of the same size, and
        *etag*, if any, is ours."""
        found = _RANGE.fullmatch(content_range)
        if not found or not self.size or int(found[1]) != self.size:
            return False
        is_same_size = found[2] == "*" or self.total in (None, int(found[2]))
        return is_same_size and etag in ("", self._etag)

    def ends_there(self) -> bool:
        """True where the parts of the file end where it does, as far as its format tells."""
        self._file.seek(0)
        return sniff(self.head).ends_there(self._file.read())

    def publish(self, output: Output, overwrite: bool) -> Path:
        """Make the file durable and give it its name, in one step."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if os.name == "nt":  # where an open file cannot be renamed; elsewhere the lock must stay
            self._file.close()
        final = output.path(sniff(self.head).suffix)
        if overwrite:
            os.replace(self._path, final)
        else:
            _rename_to_free_name(self._path, final, output)
        self._file.close()
        _sync_folder(output.folder)
        return final

    def discard(self) -> None:
        """Leave nothing behind; harmless after `publish`."""
        with suppress(OSError):  # what a full disk refused is not wanted any more
            self._file.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _rename_to_free_name(part: Path, final: Path, output: Output) -> None:
    try:
        os.link(part, final)  # unlike a rename, fails where the name is taken
    except FileExistsError:
        _accept_only_the_same(part, final, output)
    except OSError:  # a file system without links
        if not final.exists():
            os.replace(part, final)
            return
        _accept_only_the_same(part, final, output)
    part.unlink()


def _accept_only_the_same(part: Path, final: Path, output: Output) -> None:
    # A process that ended between the rename and its record of it left this very file.
    if not output.is_named or not filecmp.cmp(part, final, shallow=False):
        raise DownloadError(f"{final} exists already", url=output.url) from None


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
