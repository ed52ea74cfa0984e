"""What became of many items: printed as it comes, summed up at the end, failures kept in files.

Its rule: what is advised is safe. A picture that was made but not saved, or that may yet come, is
named with the command that collects it; what may have been bought is never advised to be asked for
again. Where there is a journal that is the same command again.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import click

from ..errors import (
    BudgetExceededError,
    EggError,
    SubmissionUncertainError,
    TaskTimeoutError,
    dollars,
)
from ..models import GenerationRequest, Outcome, Stats, TaskSnapshot
from .inputs import Line, Unreadable
from .kept import Kept, candidates
from .past import without_limit
from .progress import Tally
from .running import to_collect
from .session import Session
from .trouble import FAILED, OK, PARTLY, exit_code, hint, is_hopeless, is_passing, is_refusal, told
from .wording import clock, counted

SHOWN = 10
"""Failures that are listed at the end."""


@attrs.define
class Report:
    """The outcomes of one command, as they come.

    *folder* is where the pictures go, *kept* where failures do, if anywhere; *again* is the command
    that goes on with the same journal, None where there is none.
    """

    _session: Session
    _stats: Stats
    _folder: Path | None = None
    _kept: Kept | None = None
    _again: str | None = None
    _source: str = ""
    _total: int | None = None
    _started: float = attrs.field(init=False, factory=time.monotonic)
    _lines: dict[int, Line] = attrs.field(init=False, factory=dict)
    _before: set[int] = attrs.field(init=False, factory=set)
    _done: int = attrs.field(init=False, default=0)
    _already: int = attrs.field(init=False, default=0)
    _failed: int = attrs.field(init=False, default=0)
    _unsent: int = attrs.field(init=False, default=0)
    _images: int = attrs.field(init=False, default=0)
    _shown: list[str] = attrs.field(init=False, factory=list)
    _to_collect: list[str] = attrs.field(init=False, factory=list)
    _to_repeat: int = attrs.field(init=False, default=0)
    _refused: int = attrs.field(init=False, default=0)
    _passing: int = attrs.field(init=False, default=0)
    _candidates: list[str] = attrs.field(init=False, factory=list)
    _worst: EggError | None = attrs.field(init=False, default=None)

    @property
    def is_hopeless(self) -> bool:
        """True when an error came that will meet all other items too."""
        return is_hopeless(self._worst)

    @property
    def has_failures(self) -> bool:
        """True when an item has failed."""
        return self._worst is not None

    def tally(self, running: int) -> Tally:
        """How things stand, with *running* items under way."""
        return Tally(
            done=self._done,
            failed=self._failed,
            running=running,
            total=self._total,
            images=self._images,
            spent=self._stats.cost,
            elapsed=time.monotonic() - self._started,
            already=self._already,
        )

    def begin(self, index: int, line: Line, *, is_done: bool = False) -> None:
        """Note that a line of the input is under way, as the item *index*.

        *is_done*: an earlier run has brought it to its end.
        """
        self._lines[index] = line
        if is_done:
            self._before.add(index)

    def line(self, index: int) -> Line:
        """The line of the item *index*, which is under way."""
        return self._lines[index]

    def take(self, outcome: Outcome, put: Callable[[str], None]) -> None:
        """Count an outcome and print it."""
        line = self._lines.pop(outcome.index, None)
        problem = _problem(outcome, line)
        self._count(outcome, line, problem)
        for text in self._printed(outcome, line, problem):
            put(text)

    def _count(self, outcome: Outcome, line: Line | None, problem: str) -> None:
        is_old = outcome.index in self._before
        self._before.discard(outcome.index)
        if outcome.result is not None and not is_old:
            self._images += len(outcome.result.urls)
        if outcome.error is not None:
            self._note_failure(outcome, line, outcome.error, problem)
            return
        self._done += 1
        self._already += is_old
        if self._kept is not None and line is not None:
            self._kept.settle(line)

    def _printed(self, outcome: Outcome, line: Line | None, problem: str) -> list[str]:
        if self._session.is_json:
            return [json.dumps(as_json(outcome, line, problem))]
        if outcome.result is None or outcome.error is not None:
            return []
        return [str(path) for path in outcome.paths] or list(outcome.result.urls)

    # --- failures --------------------------------------------------------------------------------

    def _note_failure(
        self, outcome: Outcome, line: Line | None, error: EggError, problem: str
    ) -> None:
        if self._worst is None or (is_hopeless(error) and not self.is_hopeless):
            self._worst = error
        if is_hopeless(error) and self._again is not None:
            self._unsent += 1  # the same command again tries it
            return
        self._failed += 1
        self._show(line, problem)
        task_id = _made(outcome, error)
        if task_id is not None:
            self._to_collect.append(task_id)
            return
        is_uncertain = isinstance(error, SubmissionUncertainError)
        self._to_repeat += not is_uncertain
        self._refused += is_refusal(error)
        self._passing += is_passing(error)
        self._candidates += [task for task in candidates(error) if task not in self._candidates]
        if self._kept is not None and line is not None:
            self._kept.settle(line)
            self._kept.keep(outcome, line, problem, is_uncertain=is_uncertain)

    def _show(self, line: Line | None, problem: str) -> None:
        if len(self._shown) < SHOWN:
            place = f"{self._source}:{line.number}: " if line and self._source else ""
            self._shown.append(place + problem)

    # --- the end ---------------------------------------------------------------------------------

    def sum_up(self) -> int:
        """Say how it went; the exit code."""
        for problem in self._shown:
            click.echo(f"failed: {problem}", err=True)
        if self._failed > len(self._shown):
            click.echo(f"… and {self._failed - len(self._shown):,} more", err=True)
        if self._unsent and self._worst is not None:
            click.echo(f"stopped: {told(self._worst)}", err=True)
        tally = self.tally(0)
        failed = f", {tally.failed:,} failed" if tally.failed else ""
        already = f"; {tally.already:,} of {tally.done:,} done before" if tally.already else ""
        self._session.say(
            f"{counted(tally.images, 'image')} in {clock(tally.elapsed)}{failed},"
            f" {dollars(tally.spent)}{already}"
        )
        self._advise()
        return self.exit_code

    def _advise(self) -> None:
        if self._worst is not None and (self.is_hopeless or self._kept is None):
            _hint(hint(self._worst))
        if self._to_collect:
            command = self._command or to_collect(self._to_collect, self._folder)
            _hint(f"made or still being made, and paid, so fetch: {command}")
        if self._kept is not None:
            self._advise_about(self._kept)
        if self._again is not None and self._left:
            _hint(f"to go on: {self._command}")

    @property
    def _command(self) -> str | None:
        """The command that goes on; a limit that was too low is left to be filled in."""
        if self._again is None or not isinstance(self._worst, BudgetExceededError):
            return self._again
        return without_limit(self._again)

    @property
    def _left(self) -> int:
        """How many lines were not tried, as far as is known."""
        total = self._total or 0
        return max(self._unsent, total - self._done - self._failed)

    def _advise_about(self, kept: Kept) -> None:
        if kept.failed.is_added_to:
            _hint(self._how_to_repeat(kept))
        if kept.uncertain.is_added_to:
            _hint(f"{kept.uncertain.path}: these may exist and be billed{self._what_to_see}")

    @property
    def _what_to_see(self) -> str:
        shown = ", ".join(self._candidates[:SHOWN])
        more = ", …" if len(self._candidates) > SHOWN else ""
        maybe = f", maybe as {shown}{more}" if shown else ""
        command = self._command
        is_idle = command is None or "--verify" in shlex.split(command)  # it was tried already
        then = "" if is_idle else f"; if nothing else uses the key: {command} --verify"
        return f"{maybe}; see `eggapi tasks list` first{then}"

    def _how_to_repeat(self, kept: Kept) -> str:
        """A mended line is a new one; the others are tried again only where that is asked for."""
        again = self._command or f"eggapi batch {kept.failed.path} -o {self._folder}"
        refused = counted(self._refused, "refused line")
        if self._refused == self._to_repeat:
            return f"mend {refused} first, then: {again}"
        is_untried = self._passing + self._refused == self._to_repeat
        is_asked = kept.is_input or "--retry-failed" in again
        is_enough = self._again is None or is_asked or is_untried
        command = again if is_enough else f"{again} --retry-failed"
        but = f", but mend {refused} first" if self._refused else ""
        return f"to try these again{but}: {command}"

    @property
    def exit_code(self) -> int:
        """The exit code that says how it went."""
        if self._worst is None:
            return OK
        if self.is_hopeless:
            return exit_code(self._worst)
        return PARTLY if self._done else FAILED


def _hint(text: str) -> None:
    if text:
        click.echo(f"hint: {text}", err=True)


def _made(outcome: Outcome, error: EggError) -> str | None:
    """The id of a task that is paid for, or may be, though its item failed."""
    if outcome.result is not None:
        return outcome.result.id
    return error.task_id if isinstance(error, TaskTimeoutError) else None


def _problem(outcome: Outcome, line: Line | None) -> str:
    if line is not None and isinstance(line.item, Unreadable):
        return line.item.problem
    return "" if outcome.error is None else told(outcome.error)


def as_json(outcome: Outcome, line: Line | None, problem: str) -> dict[str, Any]:
    """What `--json` tells of an item."""
    task = outcome.result or getattr(outcome.error, "task", None)
    kind = type(outcome.error).__name__
    return {
        "index": outcome.index,
        "line": line.number if line else None,
        "key": line.key if line else None,
        "ok": outcome.ok,
        **_task_as_json(task),
        "paths": [str(path) for path in outcome.paths],
        "error": None if outcome.ok else {"type": kind, "message": problem},
        "prompt": _prompt(outcome.request, line),
        **_request_as_json(outcome.request),
        "seconds": _seconds(task),
    }


def _request_as_json(request: GenerationRequest | None) -> dict[str, Any]:
    return {
        "model": request.model if request else None,
        "aspect_ratio": request.aspect_ratio if request else None,
        "resolution": request.resolution if request else None,
    }


def _seconds(task: TaskSnapshot | None) -> float | None:
    """How long the service took, by its own clock."""
    if task is None or task.created_at is None or task.completed_at is None:
        return None
    return round((task.completed_at - task.created_at).total_seconds(), 1)


def _task_as_json(task: TaskSnapshot | None) -> dict[str, Any]:
    return {
        "id": task.id if task else None,
        "status": task.status if task else None,
        "url": task.url if task else None,
        "urls": list(task.urls) if task else [],
        "cost": str(task.cost) if task and task.cost is not None else None,
    }


def _prompt(request: GenerationRequest | None, line: Line | None) -> str | None:
    if request is not None:
        return request.prompt
    return line.text if line else None
