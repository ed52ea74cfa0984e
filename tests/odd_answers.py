"""Answers as no service should give them: mutated bodies and bombs, read by every endpoint.

Whatever comes must be a value or one of the documented errors. Bodies are good ones with something
wrong: fields gone, doubled, of another type, or worse, and then maybe bytes changed, cut or put in,
or another encoding. The tests read some; `python -m tests.odd_answers [bodies]` as many as asked
for, for each of the five endpoints, and tells the memory that the bombs took.
"""

from __future__ import annotations

import copy
import gzip
import json
import pickle
import random
import resource
import sys
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from eggapi_async import EggError, GenerationRequest, Page, TaskSnapshot, _protocol
from eggapi_async._protocol import Answer, Call

FULL: Final = 200_000
TASK_ID: Final = "gen_1"
CALLS: Final[Mapping[str, Call[Any]]] = {
    "submit": _protocol.submit(GenerationRequest(prompt="an egg")),
    "get": _protocol.get_task(TASK_ID),
    "list": _protocol.list_tasks(),
    "usage": _protocol.usage(),
    "summary": _protocol.usage_summary(),
}
STATUSES: Final = (*(200,) * 12, 202, 204, 206, 302, 400, 401, 403, 404, 408, 429, 500, 502, 503)

_TASK: Final = {
    "id": TASK_ID,
    "status": "completed",
    "model": "nanobanana-pro",
    "type": "image_generate",
    "output": {"url": "https://cdn.test/a.png", "urls": ["https://cdn.test/a.png"]},
    "error": None,
    "cost": "$0.0160",
    "created_at": "2026-01-15T10:30:00Z",
    "started_at": "2026-01-15T10:30:02.5+08:00",
    "completed_at": "2026-01-15T10:31:00",
}
_PLACE: Final = {"page": 1, "per_page": 20, "total": 1, "total_pages": 1}
_USED: Final = {"model": "nanobanana", "total_units": 3, "total_cost": "$0.03", "request_count": 3}
GOOD: Final[tuple[Any, ...]] = (
    {"data": _TASK, "error": None},
    {"data": {"items": [_TASK, _TASK], "pagination": _PLACE}, "error": None},
    {"data": [_USED], "error": None},
    {"data": None, "error": {"code": "VALIDATION_ERROR", "message": "prompt: too long"}},
)
_WORDS: Final = (
    *("", "completed", "$0.01", "NaN", "1e999", "-0", "٣.٥", "1_0", "$", "9" * 5000),
    *("\ud800", "a\udfffb", "\x00", "😀", "‮", "x" * 3000),
    *("2026-02-30T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "T"),
)
_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 7, 10**30, 10**400, 1e308, -0.0, 0.1, [], {}, [[]], {"": None}),
    *(float("nan"), float("inf"), {"message": None}, {"message": {"x": []}}, [None], [{}]),
)
_ENCODINGS: Final = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1")


def odd_body(dice: random.Random) -> bytes:
    """A body that is nearly good."""
    document = copy.deepcopy(dice.choice(GOOD))
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 5))):
        document = _changed(document, dice)
    text = json.dumps(document, ensure_ascii=dice.random() < 0.3)
    if dice.random() < 0.1:  # a key twice
        text = text.replace('"status":', '"status": 7, "status":', 1)
    encoding = dice.choice(_ENCODINGS) if dice.random() < 0.2 else "utf-8"
    how = "replace" if encoding == "latin-1" else "surrogatepass"
    body = text.encode(encoding, how)
    return _damaged(body, dice) if dice.random() < 0.4 else body


def _changed(node: Any, dice: random.Random) -> Any:
    """*node* with one thing other than it should be, somewhere."""
    if isinstance(node, dict) and node and dice.random() < 0.8:
        name = dice.choice(sorted(node))
        what = dice.random()
        if what < 0.15:
            del node[name]
        elif what < 0.25:
            node[dice.choice(_WORDS)[:50]] = node.pop(name)
        else:
            node[name] = _changed(node[name], dice)
        return node
    if isinstance(node, list) and node and dice.random() < 0.8:
        at = dice.randrange(len(node))
        node[at] = _changed(node[at], dice)
        return node
    return copy.deepcopy(dice.choice((*_WORDS, *_VALUES, *GOOD)))


def _damaged(body: bytes, dice: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(dice.choice((1, 1, 2, 8))):
        at = dice.randrange(len(changed) + 1)
        how = dice.random()
        if how < 0.4 and at < len(changed):
            changed[at] = dice.randrange(256)
        elif how < 0.6:
            changed[at:at] = dice.randbytes(dice.choice((1, 3)))
        elif how < 0.8:
            del changed[at : at + dice.choice((1, 4, 40))]
        else:
            changed[at:at] = dice.choice(
                (b"NaN", b"\\ud800", b"\xef\xbb\xbf", b"[" * 2000, b"9" * 99)
            )
    return bytes(changed)


def read(call: Call[Any], answer: Answer) -> str:
    """Read *answer*, and use what comes of it; the name of what came. Foreign errors are raised."""
    try:
        value = call.read(answer)
    except EggError as error:
        _tell(error)
        return type(error).__name__
    for task in value.items if isinstance(value, Page) else (value,):
        if isinstance(task, TaskSnapshot):
            _use(task)
    return "a value"


def _tell(error: EggError) -> None:
    """What a program does with an error: print it, hand it to another process."""
    assert str(error).encode()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert type(error).__module__ == "eggapi_async.errors"


def _use(task: TaskSnapshot) -> None:
    """What a program does with a task: print it, store it, reckon with it."""
    assert repr(task).encode("utf-8", "strict")
    assert json.dumps(task.raw, ensure_ascii=False, allow_nan=False).encode()
    assert task.cost is None or task.cost >= 0
    for time in (task.created_at, task.started_at, task.completed_at):
        assert time is None or time.utcoffset() is not None


def read_odd(bodies: int, *, seed: int = 0) -> Counter[str]:
    """Read so many odd bodies by every endpoint; what came of them."""
    dice = random.Random(seed)
    ends: Counter[str] = Counter()
    for number in range(bodies):
        answer = Answer(dice.choice(STATUSES), {}, odd_body(dice))
        for name, call in CALLS.items():
            try:
                ends[read(call, answer)] += 1
            except Exception as error:
                raise AssertionError(
                    f"seed {seed}, body {number}, {name}: {answer.body!r}"
                ) from error
    return ends


# --- bombs ---------------------------------------------------------------------------------------

MIB: Final = 1024 * 1024


def bombs() -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Bodies that cost much where nobody is careful: what, the body, its headers."""
    yield "a hundred thousand lists in each other", b"[" * 100_000, {}
    yield "as many objects", b'{"a":' * 100_000, {}
    yield "a deep error", b'{"error":' + b"[" * 50_000 + b"]" * 50_000 + b"}", {}
    yield "5,000 digits", b'{"data": {"id": "gen_1", "cost": ' + b"9" * 5000 + b"}}", {}
    yield "a huge exponent", b'{"data": {"id": "gen_1", "status": "x", "cost": 1e999999999}}', {}
    yield "NaN", b'{"data": {"id": "gen_1", "status": "x", "cost": NaN}}', {}
    yield "Infinity", b'{"data": {"id": "gen_1", "status": "x", "cost": -Infinity}}', {}
    yield "a lone surrogate", b'{"data": {"id": "gen_1", "status": "\\ud800"}}', {}
    yield "a key twice", b'{"data": {"id": "gen_1", "id": "gen_1", "status": "x"}}', {}
    yield "a byte order mark", b'\xef\xbb\xbf{"data": {"id": "gen_1", "status": "x"}}', {}
    yield "UTF-16", '{"data": {"id": "gen_1", "status": "x"}}'.encode("utf-16"), {}
    yield "Latin-1", '{"data": {"id": "gen_1", "status": "é"}}'.encode("latin-1"), {}
    yield "zeros", b"\0" * MIB, {}
    yield "128 MiB in gzip", _zipped(128), {"Content-Encoding": "gzip"}
    yield "64 MiB in deflate", zlib.compress(b"[" * 64 * MIB), {"Content-Encoding": "deflate"}
    yield "gzip that is none", b"\x1f\x8b" + b"x" * 100, {"Content-Encoding": "gzip"}
    yield "half a gzip", gzip.compress(b"{}" * 1000)[:20], {"Content-Encoding": "gzip"}
    yield "an encoding of the future", b"{}", {"Content-Encoding": "br, gzip, egg"}


def _zipped(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = [packer.compress(b" " * MIB) for _ in range(mebibytes)]
    return b"".join((*packed, packer.flush()))


def peak(work: Callable[[], object]) -> float:
    """The most memory that *work* held at once beyond what was held before, in MB."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        work()
        return (tracemalloc.get_traced_memory()[1] - before) / 1e6
    finally:
        tracemalloc.stop()


def main(bodies: int = FULL) -> None:
    """Read them, and write what came of it."""
    ends = read_odd(bodies)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{bodies} bodies by {len(CALLS)} endpoints, 0 foreign exceptions: {ends}\n")
    sys.stdout.write(f"the process took {memory:.0f} MB at most\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
