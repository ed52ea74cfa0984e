"""What reading an answer costs: one task, and a page of a hundred of which few have changed.

Ours are the package's own functions, beside others' decoders where those are installed. Peers get
the same fields, with money and times as plain text: that is less than ours read, so they look a
little better than they would be.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .figures import write
from .scenario import Scenario
from .tables import table
from .world import World

PAGE = 100
CHANGED = 3
"""Entries of a page that say something new, in a usual round."""
REPEATS = 7
SECONDS = 0.05
"""Of one repeat, of which the least counts."""
COLUMNS = ("decoder", "one task µs", f"a page of {PAGE} µs")
TEXTS = ("id", "status", "model", "type", "cost", "created_at")
OPTIONAL_TEXTS = ("started_at", "completed_at", "error")
Read = Callable[[bytes], object]


def decode(*, keep: Path | None = None, seconds: float = SECONDS) -> None:
    """Measure, print the table, and store the figures in *keep*."""
    content = measured(seconds)
    write(keep, "decode", content)
    sys.stdout.write(decode_table(content) + "\n")


def measured(seconds: float) -> list[dict[str, Any]]:
    """Microseconds for each decoder that is installed."""
    task, page = answers()
    return [
        {"name": name, "task": _cost(one, task, seconds), "page": _cost(many, page, seconds)}
        for name, one, many in _decoders()
    ]


def decode_table(content: list[dict[str, Any]]) -> str:
    """What `measured` gave, as Markdown."""
    rows = [[row["name"], f"{row['task']:.1f}", f"{row['page']:,.0f}"] for row in content]
    return table(COLUMNS, rows)


def answers() -> tuple[bytes, bytes]:
    """The bodies of one finished task, and of a page on which `CHANGED` have just finished."""
    world = World(Scenario(PAGE, latency=0.0), now=0.0, wall_now=1_705_314_600.0)
    jobs = [world.create(0.0) for _ in range(PAGE)]
    now = sorted(job.ends for job in jobs)[CHANGED - 1]
    shown = [job.shown(now, world.wall) for job in jobs]
    done = next(text for text in shown if b'"completed"' in text)
    place = {"page": 1, "per_page": PAGE, "total": PAGE, "total_pages": 1}
    tail = b'], "pagination": ' + json.dumps(place).encode() + b'}, "error": null}'
    page = b'{"data": {"items": [' + b", ".join(shown) + tail
    return b'{"data": ' + done + b', "error": null}', page


def _cost(read: Read, body: bytes, seconds: float) -> float:
    """Microseconds of CPU that *read* takes of *body*, the least of several repeats."""
    return 1e6 * min(_once(read, body, seconds) for _ in range(REPEATS))


def _once(read: Read, body: bytes, seconds: float) -> float:
    began, count = time.process_time(), 0
    while (spent := time.process_time() - began) < seconds or not count:
        for _ in range(10):
            read(body)
        count += 10
    return spent / count


def _decoders() -> Iterator[tuple[str, Read, Read]]:
    yield "json, nothing else", json.loads, json.loads
    yield "ours: json, entries scanned, values made of those that changed", _ours(), _ours_page()
    yield "ours, values made of all entries", _ours(), _ours_page_whole()
    for package, make in (("orjson", _orjson), ("msgspec", _msgspec), ("pydantic", _pydantic)):
        if find_spec(package) is not None:
            yield make()


# --- ours ------------------------------------------------------------------------------------


def _answer(body: bytes) -> Any:
    return import_module("eggapi_async._protocol").Answer(200, {}, body)


def _ours() -> Read:
    protocol = import_module("eggapi_async._protocol")
    call = protocol.get_task(json.loads(answers()[0])["data"]["id"])
    return lambda body: call.read(_answer(body))


def _ours_page() -> Read:
    call = import_module("eggapi_async._protocol").sweep_tasks(1)
    snapshot = import_module("eggapi_async._values").snapshot
    known = _known()
    return lambda body: [snapshot(item) for item in _changed(call.read(_answer(body)).items, known)]


def _ours_page_whole() -> Read:
    call = import_module("eggapi_async._protocol").list_tasks(per_page=PAGE)
    return lambda body: call.read(_answer(body))


def _known() -> Mapping[str, str]:
    """The statuses that a client knows from the round before."""
    items = json.loads(answers()[1])["data"]["items"]
    return {
        item["id"]: "processing" if item["status"] == "completed" else item["status"]
        for item in items
    }


def _changed(items: Any, known: Mapping[str, str]) -> list[Any]:
    return [item for item in items if known.get(item["id"]) != item["status"]]


# --- others ----------------------------------------------------------------------------------


def _orjson() -> tuple[str, Read, Read]:
    loads = import_module("orjson").loads
    snapshot = import_module("eggapi_async._values").snapshot
    known = _known()

    def page(body: bytes) -> object:
        return [snapshot(item) for item in _changed(loads(body)["data"]["items"], known)]

    name = "orjson in the place of json, the rest as ours"
    return name, lambda body: snapshot(loads(body)["data"]), page


def _msgspec() -> tuple[str, Read, Read]:
    msgspec = import_module("msgspec")
    texts = [(name, str) for name in TEXTS]
    others: list[Any] = [(name, str | None, None) for name in OPTIONAL_TEXTS]
    others.append(("output", dict[str, Any] | None, None))
    task: Any = msgspec.defstruct("Task", [*texts, *others])
    one = msgspec.defstruct("One", [("data", task)])
    items = msgspec.defstruct("Items", [("items", list[task])])
    many = msgspec.defstruct("Many", [("data", items)])
    decoders = [msgspec.json.Decoder(kind).decode for kind in (one, many)]
    return "msgspec, values made of all entries", decoders[0], decoders[1]


def _pydantic() -> tuple[str, Read, Read]:
    create: Any = import_module("pydantic").create_model
    texts: dict[str, Any] = dict.fromkeys(TEXTS, (str, ...))
    others: dict[str, Any] = dict.fromkeys(OPTIONAL_TEXTS, (str | None, None))
    task: Any = create("Task", **texts, **others, output=(dict[str, Any] | None, None))
    one = create("One", data=(task, ...))
    many = create("Many", data=(create("Items", items=(list[task], ...)), ...))
    name = "pydantic, values made of all entries"
    return name, one.model_validate_json, many.model_validate_json
