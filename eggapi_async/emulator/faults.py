"""Trouble on demand: what can go wrong with a request, and which request it happens to.

Its rule: a fault is a value, and all bad luck follows from the seed. What becomes of an answer is
written at the end; waiting and raising are left to the app.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Final, Literal

import attrs

from .answers import CODES, Answer, error_answer, html_answer
from .outputs import cut_short
from .tasks import End

Kind = Literal[
    "cut",
    "empty",
    "html",
    "html_after",
    "idless",
    "lost",
    "refused",
    "slow",
    "stuck",
    "sync",
    "truncated",
]

API: Final = "/v1/"
SUBMIT: Final = "POST /v1/generate"
OUTPUTS: Final = "GET /outputs"


@attrs.frozen
class Fault:
    """One thing that goes wrong with one request; made by the class methods. Times in seconds."""

    kind: Kind
    status: int = 0
    code: str | None = None
    retry_after: float | None = None
    seconds: float = 0.0

    @property
    def end(self) -> End:
        """How a task ends that is submitted under this fault."""
        return _ENDS.get(self.kind, "drawn")

    @classmethod
    def lost(cls) -> Fault:
        """The work is done, then the answer is lost: `ConnectionResetError` leaves the app."""
        return cls("lost")

    @classmethod
    def refused(
        cls, status: int = 503, code: str | None = None, *, retry_after: float | None = None
    ) -> Fault:
        """Nothing is done; an error envelope. Without `code` the documented one of the status."""
        return cls("refused", status=status, code=code, retry_after=retry_after)

    @classmethod
    def html(cls, status: int = 502) -> Fault:
        """Nothing is done; a proxy answers with a page."""
        return cls("html", status=status)

    @classmethod
    def html_after(cls, status: int = 504) -> Fault:
        """The work is done, then a proxy answers with a page."""
        return cls("html_after", status=status)

    @classmethod
    def empty(cls) -> Fault:
        """The work is done; the normal status with an empty body."""
        return cls("empty")

    @classmethod
    def idless(cls) -> Fault:
        """The work is done; the data in the envelope has no id."""
        return cls("idless")

    @classmethod
    def truncated(cls) -> Fault:
        """Half of an output, without Content-Length: it looks whole."""
        return cls("truncated")

    @classmethod
    def cut(cls) -> Fault:
        """Half of an output under the Content-Length of all of it."""
        return cls("cut")

    @classmethod
    def stuck(cls) -> Fault:
        """The task that is submitted starts, and never ends."""
        return cls("stuck")

    @classmethod
    def slow(cls, seconds: float = 2.0) -> Fault:
        """The work is done at once; the answer comes that much later."""
        return cls("slow", seconds=seconds)

    @classmethod
    def sync(cls) -> Fault:
        """The task that is submitted is final in the answer already, with status 200."""
        return cls("sync")


_ENDS: dict[str, End] = {"stuck": "never", "sync": "at once"}
_ONLY: dict[str, str] = {"stuck": SUBMIT, "sync": SUBMIT, "truncated": OUTPUTS, "cut": OUTPUTS}
"""Where the faults that make sense in one place only can happen."""

_DRAWN: dict[str, tuple[Fault, ...]] = {
    "submit": (
        Fault.empty(),
        Fault.html_after(),
        Fault.idless(),
        Fault.lost(),
        Fault.stuck(),
        Fault.sync(),
    ),
    "read": (Fault.html(), Fault.refused()),
    "output": (Fault.cut(), Fault.truncated()),
    "api": (Fault.slow(),),
}
"""What chance may do to each sort of request; "api" is what may befall both the first two."""


@attrs.define
class FaultPlan:
    """Which request meets which fault: the queued ones first, then chance.

    `chances` maps kinds to probabilities (0 to 1). Submissions may draw empty, html_after, idless,
    lost, stuck and sync, other API requests html (502) and refused (503), both of them slow (2 s);
    outputs may draw cut and truncated.
    """

    _seed: int
    _chances: Mapping[str, float]
    _queue: list[tuple[str | None, Fault]] = attrs.field(factory=list, init=False)
    _dice: dict[str, random.Random] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        known = {fault.kind for faults in _DRAWN.values() for fault in faults}
        for kind, chance in self._chances.items():
            _check_chance(kind, chance, known=known)
        self._dice = {sort: random.Random(f"{self._seed}/faults/{sort}") for sort in _DRAWN}

    def queue(self, fault: Fault, *, on: str | None) -> None:
        """Let the next matching request meet this fault; see `EggEmulator.fail_next`."""
        only = _ONLY.get(fault.kind)
        if on and only and not (on.startswith(only) or only.startswith(on)):
            raise ValueError(f'a {fault.kind} fault happens on "{only}" only, not on "{on}"')
        self._queue.append((on, fault))

    def next(self, label: str) -> Fault | None:
        """The fault that the request "METHOD /path" meets, if any."""
        for place, (on, fault) in enumerate(self._queue):
            if _matches(label, on=on, only=_ONLY.get(fault.kind)):
                del self._queue[place]
                return fault
        return self._drawn(label)

    def _drawn(self, label: str) -> Fault | None:
        if not self._chances:
            return None
        hits = [
            fault for sort in _sorts(label) for fault in _DRAWN[sort] if self._hit(fault, sort=sort)
        ]
        return hits[0] if hits else None

    def _hit(self, fault: Fault, *, sort: str) -> bool:
        return self._dice[sort].random() < self._chances.get(fault.kind, 0.0)


def _sorts(label: str) -> tuple[str, ...]:
    if label.startswith(OUTPUTS):
        return ("output",)
    if not _is_api(label):
        return ()
    return ("submit" if label.startswith(SUBMIT) else "read", "api")


def _matches(label: str, *, on: str | None, only: str | None) -> bool:
    if only and not label.startswith(only):
        return False
    if on is None:
        return bool(only) or _is_api(label)
    return label.startswith(on)


def _check_chance(kind: str, chance: float, *, known: set[Kind]) -> None:
    if kind not in known:
        raise ValueError(f"no fault is called {kind!r}; there are {', '.join(sorted(known))}")
    if not 0 <= chance <= 1:
        raise ValueError(f"the probability of {kind} must be from 0 to 1, not {chance!r}")


def _is_api(label: str) -> bool:
    return label.partition(" ")[2].startswith(API)


def instead_of_work(fault: Fault, *, retry_after: float | None) -> Answer | None:
    """The answer to a request that is never worked on; `retry_after`: for a 429 without its own."""
    if fault.kind == "html":
        return html_answer(fault.status)
    if fault.kind != "refused":
        return None
    seconds = fault.retry_after
    if seconds is None and fault.status == 429:
        seconds = retry_after
    code = fault.code or CODES.get(fault.status, "INTERNAL_ERROR")
    return error_answer(fault.status, code=code, message="refused on demand", retry_after=seconds)


def after_work(fault: Fault, answer: Answer) -> Answer:
    """What is left of an answer once the fault has met it."""
    if fault.kind == "html_after":
        return html_answer(fault.status)
    if fault.kind == "empty":
        return attrs.evolve(answer, body=b"")
    if fault.kind == "idless":
        return attrs.evolve(answer, body=_without_id(answer.body))
    if fault.kind in ("truncated", "cut"):
        return cut_short(answer, sized=fault.kind == "cut")
    return answer


def _without_id(body: bytes) -> bytes:
    content = json.loads(body)
    if isinstance(content["data"], dict):
        content["data"].pop("id", None)
    return json.dumps(content).encode()
