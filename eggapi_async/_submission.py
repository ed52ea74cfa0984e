"""Buying: one submission, and what to do when its answer was lost.

The API knows no idempotency key, so a POST that may have been taken is never sent again blindly.
Its doubt is kept as a value; the task list can resolve it, since it shows what was created when.
Only a caller who alone uses the key may act on that (`uncertain="verify"`).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Final, Literal

import anyio
import attrs

from . import _protocol
from ._doubt import Doubt, Window, candidates, is_past, window
from ._hub import Hub, Watch
from ._protocol import Answer
from ._retry import Patience
from ._transport import Lost, Transport
from ._values import server_time
from .budget import Budget, Reservation
from .errors import EggError, InvalidRequestError, SubmissionUncertainError
from .models import GenerationRequest, TaskSnapshot

log = logging.getLogger("eggapi_async")

Uncertain = Literal["raise", "verify"]

LOOKS: Final = (2.0, 4.0, 8.0, 16.0)
"""Seconds before each look at the list: it may lag, and a slow service may still be at work."""
REMEMBERED: Final = 20_000
"""Ids of own tasks that are kept to tell them from a lost one."""
DOUBTED: Final = timedelta(minutes=10)
"""How long a doubt is remembered, since a listed task could be that one's instead."""
PAGES: Final = 100
"""List pages that are read at most to find a lost task."""


@attrs.frozen
class _Look:
    """What a reading of the list showed; *is_whole* when no page was left out."""

    found: tuple[TaskSnapshot, ...]
    is_whole: bool


class Submissions:
    """Submits requests, and remembers what is needed to resolve those that were lost."""

    def __init__(
        self, *, transport: Transport, hub: Hub, wall_clock: Callable[[], datetime]
    ) -> None:
        self._transport = transport
        self._hub = hub
        self._wall_clock = wall_clock
        self._own: OrderedDict[str, None] = OrderedDict()
        self._doubts: OrderedDict[Doubt, None] = OrderedDict()
        self._under_way: OrderedDict[object, anyio.Event] = OrderedDict()

    async def submit(
        self,
        request: GenerationRequest,
        patience: Patience,
        uncertain: Uncertain,
        *,
        budget: Budget | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Watch:
        """Buy one generation, if *budget* covers it, and *check* does not raise when it is about
        to leave. Raises SubmissionUncertainError where it is not known to be bought."""
        if uncertain not in ("raise", "verify"):
            raise InvalidRequestError("uncertain", uncertain, "'raise' or 'verify'")
        for attempts in count(1):
            try:
                return await self._post(request, patience, budget, check)
            except SubmissionUncertainError as error:
                if uncertain == "raise":
                    raise
                watch = await self._verify(error, patience)
                if watch is not None:
                    return watch
                if attempts >= patience.retry.max_attempts:
                    raise
        raise AssertionError("counting never ends")

    async def _post(
        self,
        request: GenerationRequest,
        patience: Patience,
        budget: Budget | None,
        check: Callable[[], None],
    ) -> Watch:
        reservation = Reservation() if budget is None else budget.reserve(request)
        ticket = object()
        ended = self._under_way[ticket] = anyio.Event()

        def accept(task: TaskSnapshot, _: Answer) -> Watch:
            return self._accept(task, request, reservation)

        def lose(lost: Lost) -> SubmissionUncertainError:
            return self._lose(lost, request, patience, reservation)

        try:
            return await self._transport.call(
                _protocol.submit(request), patience, accept=accept, lose=lose, check=check
            )
        finally:
            reservation.release()  # unless it was bought, or may have been
            del self._under_way[ticket]
            ended.set()

    def _accept(
        self, task: TaskSnapshot, request: GenerationRequest, reservation: Reservation
    ) -> Watch:
        reservation.keep()
        self._own[task.id] = None
        if len(self._own) > REMEMBERED:
            self._own.popitem(last=False)
        return self._hub.submitted(task, request, reservation)

    def _lose(
        self,
        lost: Lost,
        request: GenerationRequest,
        patience: Patience,
        reservation: Reservation,
    ) -> SubmissionUncertainError:
        reservation.keep()
        doubt = Doubt(request, lost.sent_at, lost.lost_at)
        self._doubts[doubt] = None
        self._forget_doubts_before(doubt.lost_at - DOUBTED)

        async def reconcile() -> tuple[TaskSnapshot, ...]:
            return (await self._look(doubt, patience)).found

        error = SubmissionUncertainError(
            f"the submission's answer was lost ({lost.problem}); the task may exist and be billed,"
            " so it is not sent again: await error.reconcile() looks for it",
            request=request,
            sent_at=lost.sent_at,
            lost_at=lost.lost_at,
            reconcile=reconcile,
        )
        error._doubt, error._reservation = doubt, reservation
        return error

    def _forget_doubts_before(self, horizon: datetime) -> None:
        while (oldest := next(iter(self._doubts))).lost_at < horizon:
            del self._doubts[oldest]

    # --- resolving ---------------------------------------------------------------------------

    async def reconcile(
        self, error: SubmissionUncertainError, patience: Patience
    ) -> tuple[TaskSnapshot, ...]:
        """The listed tasks that could be the lost one; also for an error from another process."""
        doubt = Doubt(error.request, error.sent_at, error.lost_at)
        return (await self._look(doubt, patience)).found

    async def _verify(self, error: SubmissionUncertainError, patience: Patience) -> Watch | None:
        """The lost task as an own one; None when it was not taken, so that it may be sent again.

        Raises *error* with its candidates where that is not certain.
        """
        doubt, reservation = error._doubt, error._reservation
        assert doubt is not None, "it was lost here"
        try:
            look = await self._look_until_found(doubt, patience)
        except EggError as problem:
            raise error from problem
        is_clear = look.is_whole and doubt in self._doubts
        if is_clear and not look.found:
            del self._doubts[doubt]
            reservation.settle(Decimal(0))
            return None
        if not is_clear or len(look.found) > 1 or any(map(doubt.rivals, self._doubts)):
            error.candidates = look.found
            raise error
        del self._doubts[doubt]
        log.warning("adopted %s for the submission whose answer was lost", look.found[0].id)
        return self._accept(look.found[0], doubt.request, reservation)

    async def _look_until_found(self, doubt: Doubt, patience: Patience) -> _Look:
        for pause in LOOKS:
            await anyio.sleep(pause)
            look = await self._look(doubt, patience)
            if look.found or not look.is_whole:
                break
        return look

    async def _look(self, doubt: Doubt, patience: Patience) -> _Look:
        """Read the list once. Own submissions under way may be in it, their ids not yet known."""
        tasks, when, is_whole = await self._read_list(doubt, patience)
        if candidates(doubt, tasks, when=when, is_known=self._is_known):
            for ended in list(self._under_way.values()):
                await ended.wait()
        return _Look(candidates(doubt, tasks, when=when, is_known=self._is_known), is_whole)

    def _is_known(self, task_id: str) -> bool:
        return task_id in self._own or self._hub.knows(task_id)

    async def _read_list(
        self, doubt: Doubt, patience: Patience
    ) -> tuple[list[TaskSnapshot], Window, bool]:
        """The list back to the doubt's window, that window, and whether nothing was left out."""
        tasks: list[TaskSnapshot] = []
        when: Window | None = None
        for number in range(1, PAGES + 1):
            page, there = await self._transport.call(
                _protocol.list_tasks(page=number, per_page=_protocol.PAGE_LIMIT),
                patience,
                accept=lambda page, answer: (page, server_time(answer.headers)),
            )
            here = self._wall_clock()
            when = when or window(doubt, here=here, there=there or here)
            tasks += page.items
            is_all = len({task.id for task in tasks}) >= page.total
            if is_all or is_past(tasks, when) or number >= page.total_pages:
                return tasks, when, is_all or is_past(tasks, when)
        assert when is not None, "there is a first page"
        return tasks, when, False
