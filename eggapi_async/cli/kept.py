"""What did not come to a picture, kept in the batch's folder: `failed.jsonl`, `uncertain.jsonl`.

Its rule: no line gets lost. What is not of this run stays, what this run has settled goes, and a
`failed.jsonl` that is the input keeps what was not tried. Each kept line says why it failed and how
the journal knows it, so that it can be given to `eggapi batch` again. `failed.jsonl` holds only
what is safe to ask for again; what may have been bought is in `uncertain.jsonl`.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import attrs

from ..errors import EggError
from ..models import Outcome
from .inputs import Line, Unreadable, kept_key, texts


@attrs.define
class _File:
    """One of the files: the lines that it had and that stand, and those that this run adds."""

    path: Path
    _name_of: Callable[[int, str], object]
    _old: dict[object, str] = attrs.field(init=False, factory=dict)
    _new: list[str] = attrs.field(init=False, factory=list)
    _is_changed: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        with suppress(FileNotFoundError):
            self._old = {self._name_of(n, text): text for n, text in texts(self.path)}

    def settle(self, name: object) -> None:
        """The line with that *name* is no longer as it was."""
        self._is_changed |= self._old.pop(name, None) is not None

    def add(self, text: str) -> None:
        """Keep a line."""
        self._new.append(text)
        self._is_changed = True

    @property
    def is_added_to(self) -> bool:
        """True when this run has kept something here."""
        return bool(self._new)

    def close(self) -> None:
        """Write it anew, whole or not at all; without a line it goes. Unchanged, it stays."""
        lines = [*self._old.values(), *self._new]
        if not self._is_changed:
            return
        if not lines:
            self.path.unlink()
            return
        part = self.path.with_name(f".{self.path.name}.{secrets.token_hex(6)}.part")
        part.write_text("\n".join([*lines, ""]), "utf-8", "surrogateescape")
        os.replace(part, self.path)


@attrs.define
class Kept:
    """The two files of one run in *folder*; *is_input*: the run reads its own `failed.jsonl`."""

    _folder: Path
    is_input: bool = False
    failed: _File = attrs.field(init=False)
    uncertain: _File = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        by = (lambda number, _: number) if self.is_input else _by_key
        self.failed = _File(self._folder / "failed.jsonl", by)
        self.uncertain = _File(self._folder / "uncertain.jsonl", _by_key)

    def settle(self, line: Line) -> None:
        """What *line* asked for has come to an end: a file that has it need not keep it."""
        name = line.key or line.text
        self.failed.settle(line.number if self.is_input else name)
        self.uncertain.settle(name)

    def keep(self, outcome: Outcome, line: Line, problem: str, *, is_uncertain: bool) -> None:
        """Keep what failed, or may have been bought."""
        (self.uncertain if is_uncertain else self.failed).add(_to_feed(outcome, line, problem))

    def close(self) -> None:
        """Write both."""
        self.failed.close()
        self.uncertain.close()


def _by_key(_: int, text: str) -> object:
    return kept_key(text) or text


def _to_feed(outcome: Outcome, line: Line, problem: str) -> str:
    """A line for `eggapi batch`: the request and why it failed, or the line as it was."""
    if isinstance(line.item, Unreadable):
        return line.text
    error = {"type": type(outcome.error).__name__, "message": problem, "key": line.key}
    found = {"candidates": ids} if (ids := candidates(outcome.error)) else {}
    return json.dumps({**line.fields, "error": {**error, **found}})


def candidates(error: EggError | None) -> list[str]:
    """The ids of the tasks that a lost submission could be, where they were looked for."""
    return [task.id for task in getattr(error, "candidates", ())]
