"""The course of a batch: from lines to the library, from outcomes to the report.

Its rule: what an earlier run has brought to its end is not begun again, and nothing is begun once
an error has come that all the rest would meet.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from ..models import GenerationRequest, TaskSnapshot
from . import past
from .gallery import check, show
from .inputs import Line, Source, Unreadable
from .kept import Kept
from .naming import Template
from .progress import progress
from .report import Report
from .session import Session

if TYPE_CHECKING:
    from .. import AsyncEggClient, Batch


@attrs.frozen(kw_only=True)
class Plan:
    """What a batch is to do, and how hard; *again* is the command that goes on with it."""

    source: Source
    folder: Path
    in_flight: int
    timeout: float
    template: Template | None
    max_cost: Decimal | None
    retries_failed: bool
    fails_fast: bool
    verifies: bool
    has_gallery: bool
    again: str | None


async def work(egg: AsyncEggClient, session: Session, plan: Plan, total: int | None) -> int:
    """Do what *plan* says; the exit code."""
    if plan.has_gallery:
        check(plan.folder)  # before anything is paid
    code = await _make(egg, session, plan, total)
    if plan.has_gallery:
        show(session, plan.folder)
    return code


async def _make(egg: AsyncEggClient, session: Session, plan: Plan, total: int | None) -> int:
    with past.past(None if plan.again is None else plan.folder) as before:
        lines = None if total is None else plan.source.lines()
        if words := before.words(lines, retries_failed=plan.retries_failed):
            session.say(f"going on: {words}")
        kept = Kept(plan.folder, plan.source.is_at(plan.folder / "failed.jsonl"))
        report = Report(
            session,
            egg.stats,
            folder=plan.folder,
            kept=kept,
            again=plan.again,
            source=plan.source.name,
            total=total,
        )
        course = _Course(plan, before, report)
        batch = course.batch(_within(egg, plan, before))
        try:
            await _follow(batch, session, report)
        except anyio.get_cancelled_exc_class():
            session.say(report.tally(batch.begun - batch.ended).words())
            raise
        finally:
            kept.close()
        return report.sum_up()


def _within(egg: AsyncEggClient, plan: Plan, before: past.Past) -> AsyncEggClient:
    """The client, with a budget if there is a limit."""
    from .. import Budget

    if plan.max_cost is None:
        return egg
    return egg.with_options(budget=Budget(plan.max_cost, spent=before.spent()))


async def _follow(batch: Batch, session: Session, report: Report) -> None:
    """Take the outcomes as they come, and show how far it is."""
    async with batch as outcomes:
        try:
            with progress(session, lambda: report.tally(batch.begun - batch.ended)) as put:
                async for outcome in outcomes:
                    report.take(outcome, put)
        except anyio.get_cancelled_exc_class():
            session.say("stopping: what is being submitted may end (again: leave at once)")
            raise


@attrs.define
class _Course:
    """The lines of the input on their way through the library, each under its name."""

    _plan: Plan
    _before: past.Past
    _report: Report
    _keys: dict[int, str] = attrs.field(init=False, factory=dict)

    def batch(self, egg: AsyncEggClient) -> Batch:
        """The batch of all lines."""
        plan = self._plan
        has_journal = plan.again is not None
        return egg.map(
            self._requests(),
            in_flight=plan.in_flight,
            timeout=plan.timeout,
            save_to=plan.folder,
            journal=plan.folder / past.NAME if has_journal else None,
            uncertain="verify" if plan.verifies else "raise",
            retry_failed=plan.retries_failed and has_journal,
            key=self._key if has_journal else None,
            name=None if plan.template is None else self._name,
        )

    async def _requests(self) -> AsyncIterator[Any]:
        index = 0
        async for line in self._plan.source.stream():
            if self._is_over:
                return
            self._report.begin(index, line, is_done=self._before.is_done(line))
            index += 1
            yield self._item(line)

    @property
    def _is_over(self) -> bool:
        """True when no more lines are to be begun."""
        failed = self._plan.fails_fast and self._report.has_failures
        return failed or self._report.is_hopeless

    def _item(self, line: Line) -> Any:
        if isinstance(line.item, Unreadable):
            return line.item
        item = dict(line.fields)  # one of its own, since it is known by its identity
        if line.key is not None and self._plan.again is not None:
            self._keys[id(item)] = line.key
        return item

    def _key(self, item: Any) -> str:
        return self._keys.pop(id(item))

    def _name(self, index: int, request: GenerationRequest, task: TaskSnapshot) -> str:
        assert self._plan.template is not None, "there is a template"
        line = self._report.line(index)
        return self._plan.template.name(line.index, line.number, request, task)
