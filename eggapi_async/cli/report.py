"""What became of many items: printed as it comes, summed up at the end, failures kept in a file.

Its rule: `failed.jsonl` holds only what is safe to ask for again. A picture that was made but not
saved, or that may yet come, is named with the command that collects it, and a submission whose
answer was lost is added to `uncertain.jsonl`: to feed those to `eggapi batch` could pay twice. No
line gets lost: `uncertain.jsonl` only grows, and a `failed.jsonl` that is the input keeps what was
not tried.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import attrs
import click

from ..errors import EggError, SubmissionUncertainError, TaskTimeoutError
from ..models import GenerationRequest, Outcome, Stats, TaskSnapshot
from .inputs import Line, Unreadable, rest
from .progress import Tally
from .running import to_collect
from .session import Session
from .trouble import FAILED, OK, PARTLY, exit_code, hint, is_hopeless, is_refusal, told
from .wording import clock, counted, dollars

SHOWN = 10
"""Failures that are listed at the end."""


@attrs.define
class Report:
    """The outcomes of one command, as they come.

    *folder* is where the pictures go, *keeps_failures* whether the failures go there too, and
    *is_repeated* whether the input is the very file that they go to.
    """

    _session: Session
    _stats: Stats
    _folder: Path | None = None
    _keeps_failures: bool = False
    _is_repeated: bool = False
    _source: str = ""
    _total: int | None = None
    _started: float = attrs.field(init=False, factory=time.monotonic)
    _lines: dict[int, Line] = attrs.field(init=False, factory=dict)
    _read_to: int = attrs.field(init=False, default=0)
    _done: int = attrs.field(init=False, default=0)
    _failed: int = attrs.field(init=False, default=0)
    _images: int = attrs.field(init=False, default=0)
    _shown: list[str] = attrs.field(init=False, factory=list)
    _to_collect: list[str] = attrs.field(init=False, factory=list)
    _kept: int = attrs.field(init=False, default=0)
    _refused: int = attrs.field(init=False, default=0)
    _untried: int = attrs.field(init=False, default=0)
    _worst: EggError | None = attrs.field(init=False, default=None)
    _files: dict[str, TextIO] = attrs.field(init=False, factory=dict)

    @property
    def is_hopeless(self) -> bool:
        """True when an error came that will meet all other items too."""
        return is_hopeless(self._worst)

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
        )

    def begin(self, index: int, line: Line) -> None:
        """Note that a line of the input is under way, as the item *index*."""
        self._lines[index] = line
        self._read_to = line.number

    def take(self, outcome: Outcome, put: Callable[[str], None]) -> None:
        """Count an outcome and print it."""
        line = self._lines.pop(outcome.index, None)
        problem = _problem(outcome, line)
        if outcome.result is not None:
            self._images += len(outcome.result.urls)
        if outcome.error is None:
            self._done += 1
        else:
            self._note_failure(outcome, line, outcome.error, problem)
        for text in self._printed(outcome, line, problem):
            put(text)

    def _printed(self, outcome: Outcome, line: Line | None, problem: str) -> list[str]:
        if self._session.is_json:
            return [json.dumps(_as_json(outcome, line, problem))]
        if outcome.result is None or outcome.error is not None:
            return []
        return [str(path) for path in outcome.paths] or list(outcome.result.urls)

    # --- failures --------------------------------------------------------------------------------

    def _note_failure(
        self, outcome: Outcome, line: Line | None, error: EggError, problem: str
    ) -> None:
        self._failed += 1
        if self._worst is None or (is_hopeless(error) and not self.is_hopeless):
            self._worst = error
        if len(self._shown) < SHOWN:
            place = f"{self._source}:{line.number}: " if line and self._source else ""
            self._shown.append(place + problem)
        task_id = _made(outcome, error)
        if task_id is not None:
            self._to_collect.append(task_id)
            return
        is_uncertain = isinstance(error, SubmissionUncertainError)
        self._kept += not is_uncertain
        self._refused += is_refusal(error)
        if self._keeps_failures:
            self._keep("uncertain" if is_uncertain else "failed", _to_feed(outcome, line, problem))

    def _keep(self, name: str, text: str) -> None:
        if name not in self._files:
            assert self._folder is not None, "failures are kept in a folder"
            part = _part(self._folder, name)
            self._files[name] = part.open("w", encoding="utf-8", errors="surrogateescape")
        self._files[name].write(text + "\n")

    # --- the end ---------------------------------------------------------------------------------

    def close(self, unfinished: Iterable[GenerationRequest | None] = ()) -> None:
        """Give the kept files their names; *unfinished* is what the tasks under way are to make."""
        assert self._folder is not None, "failures are kept in a folder"
        final = self._folder / "failed.jsonl"
        is_input = self._is_repeated and self._read_to > 0
        if is_input:
            self._keep_rest(final, unfinished)
        for file in self._files.values():
            file.close()
        if "failed" in self._files:
            _part(self._folder, "failed").replace(final)
        elif is_input:
            final.unlink()
        if "uncertain" in self._files:
            _append(_part(self._folder, "uncertain"), self._folder / "uncertain.jsonl")

    def _keep_rest(self, path: Path, unfinished: Iterable[GenerationRequest | None]) -> None:
        for text in rest(path, after=self._read_to):
            self._untried += 1
            self._keep("failed", text)
        doubtful = list(_without_task(self._lines.values(), unfinished))
        for line in doubtful:
            self._keep("uncertain", line.text)
        if doubtful:
            self._advise_about("uncertain")

    def sum_up(self) -> int:
        """Say how it went; the exit code."""
        for problem in self._shown:
            click.echo(f"failed: {problem}", err=True)
        if self._failed > len(self._shown):
            click.echo(f"… and {self._failed - len(self._shown):,} more", err=True)
        tally = self.tally(0)
        failed = f", {tally.failed:,} failed" if tally.failed else ""
        self._session.say(
            f"{counted(tally.images, 'image')} in {clock(tally.elapsed)}{failed},"
            f" {dollars(tally.spent)}"
        )
        self._advise()
        return self.exit_code

    def _advise(self) -> None:
        if self._worst is not None and (self.is_hopeless or not self._keeps_failures):
            _hint(hint(self._worst))
        if self._to_collect:
            command = to_collect(self._to_collect, self._folder)
            _hint(f"made or still being made, and paid, so fetch: {command}")
        for name in self._files:
            self._advise_about(name)

    def _advise_about(self, name: str) -> None:
        path = f"{self._folder}/{name}.jsonl"
        if name == "failed":
            _hint(self._how_to_repeat(f"eggapi batch {path} -o {self._folder}"))
        else:
            _hint(f"{path}: these may exist and be billed; see `eggapi tasks list` first")

    def _how_to_repeat(self, command: str) -> str:
        untried = f" ({counted(self._untried, 'line')} not tried yet)" if self._untried else ""
        if not self._refused:
            return f"to try these again: {command}{untried}"
        refused = counted(self._refused, "refused line")
        if self._refused == self._kept:
            return f"mend {refused} first, then: {command}{untried}"
        return f"to try these again, but mend {refused} first: {command}{untried}"

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


def _part(folder: Path, name: str) -> Path:
    # The old file may be the very input that is being read.
    return folder / f".{name}.jsonl.part"


def _append(part: Path, final: Path) -> None:
    with final.open("ab") as file:
        file.write(part.read_bytes())
    part.unlink()


def _without_task(
    lines: Iterable[Line], unfinished: Iterable[GenerationRequest | None]
) -> Iterator[Line]:
    """The lines that no task is known for: they were not sent yet, or their answer was lost."""
    known = Counter(request.prompt for request in unfinished if request is not None)
    for line in lines:
        prompt = line.item.get("prompt") if isinstance(line.item, dict) else line.item
        if isinstance(prompt, str) and known[prompt] > 0:
            known[prompt] -= 1
        else:
            yield line


def _made(outcome: Outcome, error: EggError) -> str | None:
    """The id of a task that is paid for, or may be, though its item failed."""
    if outcome.result is not None:
        return outcome.result.id
    return error.task_id if isinstance(error, TaskTimeoutError) else None


def _problem(outcome: Outcome, line: Line | None) -> str:
    if line is not None and isinstance(line.item, Unreadable):
        return line.item.problem
    return "" if outcome.error is None else told(outcome.error)


def _as_json(outcome: Outcome, line: Line | None, problem: str) -> dict[str, Any]:
    task = outcome.result or getattr(outcome.error, "task", None)
    kind = type(outcome.error).__name__
    return {
        "index": outcome.index,
        "line": line.number if line else None,
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


def _to_feed(outcome: Outcome, line: Line | None, problem: str) -> str:
    """A line for `eggapi batch`: the request and why it failed, or the line as it was."""
    if outcome.request is None and line is not None and isinstance(line.item, Unreadable):
        return line.text
    given = line.item if line is not None else {}
    fields = {"prompt": given} if isinstance(given, str) else given
    if outcome.request is not None:
        fields = _fields(outcome.request)
    assert isinstance(fields, dict)
    error = {"type": type(outcome.error).__name__, "message": problem}
    return json.dumps({**fields, "error": error})


def _fields(request: GenerationRequest) -> dict[str, Any]:
    return {
        name: value
        for name, value in attrs.asdict(request, recurse=False).items()
        if value not in (None, (), {})
    }
