"""What forgets, so that neither strangers nor weeks of work can fill the memory.

No I/O, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

import attrs

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

SIZE: Final = 8
"""Bytes of a mark."""


@attrs.define
class Recent(Generic[K, V]):
    """Keeps the latest *most* entries, each for *seconds*."""

    most: int
    seconds: float
    _kept: OrderedDict[K, tuple[float, V]] = attrs.field(init=False, factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: K, value: V, *, now: float) -> None:
        """Keep *value*, in the place of an older one under the same key."""
        self._kept.pop(key, None)
        self._kept[key] = (now, value)
        while len(self._kept) > self.most or self._eldest() < now - self.seconds:
            self._kept.popitem(last=False)

    def _eldest(self) -> float:
        return next(iter(self._kept.values()))[0]

    def get(self, key: K, *, now: float) -> V | None:
        """What is kept under *key*; None when it was never there, or too long ago."""
        since, value = self._kept.get(key, (float("-inf"), None))
        return value if since >= now - self.seconds else None

    def pop(self, key: K) -> V | None:
        """Take out what is kept under *key*."""
        return self._kept.pop(key, (0.0, None))[1]

    def items(self) -> Iterator[tuple[K, V]]:
        """All that is kept, the oldest first."""
        return ((key, value) for key, (_, value) in self._kept.items())

    def restamp(self, now: float) -> None:
        """Count every entry's age from *now*: the clock is another one."""
        for key, (_, value) in self._kept.items():
            self._kept[key] = (now, value)


@attrs.define
class Marks:
    """The latest *most* texts, of each no more than its hash: eight bytes.

    A text that was never added is found in it with a chance of 2 ** -49 only, and the hash is this
    process's own, so that nobody can choose a text that meets another's.
    """

    most: int
    _marks: bytearray = attrs.field(init=False, factory=bytearray)

    def __len__(self) -> int:
        return len(self._marks) // SIZE

    def add(self, text: str) -> None:
        """Remember *text*, and forget the oldest if there are too many."""
        self._marks += _mark(text)
        if len(self) > self.most:
            del self._marks[:SIZE]

    def __contains__(self, text: str) -> bool:
        mark = _mark(text)
        at = self._marks.find(mark)
        while at > 0 and at % SIZE:  # the end of one mark and the start of the next
            at = self._marks.find(mark, at + 1)
        return at >= 0


def _mark(text: str) -> bytes:
    return hash(text).to_bytes(SIZE, "little", signed=True)
