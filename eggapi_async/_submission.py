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
from functools import partial
from itertools import count
from secrets import token_urlsafe
from typing import Final, Literal

import anyio
import attrs

from . import _protocol
from ._doubt import Doubt, Window, candidates, is_past, window
from ._hooks import Address, with_reference
from ._hub import Hub, Watch
from ._protocol import Answer
from ._recent import Recent
from ._retry import Patience
from ._transport import Lost, Transport
from ._values import server_time
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
NAMED: Final = 86_400.0
"""Seconds for which the task that a delivery named by its reference is remembered."""
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
        self,
        *,
        transport: Transport,
        hub: Hub,
        wall_clock: Callable[[], datetime],
        address: Address = Address(),
        new_reference: Callable[[], str] = partial(token_urlsafe, 16),
    ) -> None:
        self._transport = transport
        self._hub = hub
        self._wall_clock = wall_clock
        self._address = address
        self._new_reference = new_reference
        self._named: Recent[str, str] = Recent(REMEMBERED, NAMED)
        self._listening: dict[str, anyio.Event] = {}
        self._own: OrderedDict[str, None] = OrderedDict()
        self._doubts: OrderedDict[Doubt, None] = OrderedDict()
        self._under_way: OrderedDict[object, anyio.Event] = OrderedDict()

    async def submit(
        self, request: GenerationRequest, patience: Patience, uncertain: Uncertain
    ) -> Watch:
        """Buy one generation. Raises SubmissionUncertainError where it is not known to be
        bought."""
        if uncertain not in ("raise", "verify"):
            raise InvalidRequestError("uncertain", uncertain, "'raise' or 'verify'")
        request = self._address.given_to(request)
        for attempts in count(1):
            try:
                return await self._post(request, patience)
            except SubmissionUncertainError as error:
                if watch := self._adopted(error):
                    return watch
                if uncertain == "raise":
                    raise
                watch = await self._verify(error, patience)
                if watch is not None:
                    return watch
                if attempts >= patience.retry.max_attempts:
                    raise
        raise AssertionError("counting never ends")

    async def _post(self, request: GenerationRequest, patience: Patience) -> Watch:
        reference = self._address.reference_for(request, self._new_reference)
        ticket = object()
        ended = self._under_way[ticket] = anyio.Event()

        def accept(task: TaskSnapshot, _: Answer) -> Watch:
            return self._accept(task, request)

        def lose(lost: Lost) -> SubmissionUncertainError:
            return self._lose(lost, request, patience, reference)

        try:
            return await self._transport.call(
                _protocol.submit(with_reference(request, reference)),
                patience,
                accept=accept,
                lose=lose,
            )
        finally:
            del self._under_way[ticket]
            ended.set()

    def _accept(self, task: TaskSnapshot, request: GenerationRequest) -> Watch:
        self._own[task.id] = None
        if len(self._own) > REMEMBERED:
            self._own.popitem(last=False)
        return self._hub.submitted(task, request)

    def _lose(
        self,
        lost: Lost,
        request: GenerationRequest,
        patience: Patience,
        reference: str | None = None,
    ) -> SubmissionUncertainError:
        doubt = Doubt(request, lost.sent_at, lost.lost_at, reference)
        self._doubts[doubt] = None
        self._forget_doubts_before(doubt.lost_at - DOUBTED)

        async def reconcile() -> tuple[TaskSnapshot, ...]:
            return await self._candidates(doubt, patience)

        error = SubmissionUncertainError(
            f"the submission's answer was lost ({lost.problem}); the task may exist and be billed,"
            " so it is not sent again: await error.reconcile() looks for it",
            request=request,
            sent_at=lost.sent_at,
            lost_at=lost.lost_at,
            reference=reference,
            reconcile=reconcile,
        )
        error._doubt = doubt
        return error

    def _forget_doubts_before(self, horizon: datetime) -> None:
        while (oldest := next(iter(self._doubts))).lost_at < horizon:
            del self._doubts[oldest]

    # --- resolving ---------------------------------------------------------------------------

    async def reconcile(
        self, error: SubmissionUncertainError, patience: Patience
    ) -> tuple[TaskSnapshot, ...]:
        """The listed tasks that could be the lost one; also for an error from another process."""
        doubt = Doubt(error.request, error.sent_at, error.lost_at, error.reference)
        return await self._candidates(doubt, patience)

    async def _candidates(self, doubt: Doubt, patience: Patience) -> tuple[TaskSnapshot, ...]:
        found: tuple[TaskSnapshot, ...] = ()
        if self._name_of(doubt.reference) is None:
            found = (await self._look(doubt, patience)).found
        task_id = self._name_of(doubt.reference)  # it may have come while the list was read
        if task_id is None:
            return found
        call = _protocol.get_task(task_id)
        return (await self._transport.call(call, patience, accept=lambda task, _: task),)

    def name(self, reference: str, task_id: str) -> None:
        """A delivery to the URL with this *reference* was about this task."""
        if task_id in self._own:
            return
        self._named.put(reference, task_id, now=self._wall_clock().timestamp())
        for doubt in [doubt for doubt in self._doubts if doubt.reference == reference]:
            del self._doubts[doubt]
        if reference in self._listening:
            self._listening[reference].set()

    def _name_of(self, reference: str | None) -> str | None:
        """The task that a delivery has named by *reference*."""
        if reference is None:
            return None
        return self._named.get(reference, now=self._wall_clock().timestamp())

    def _adopted(self, error: SubmissionUncertainError) -> Watch | None:
        """The lost task as an own one, if a delivery has named it."""
        task_id = self._name_of(error.reference)
        if task_id is None:
            return None
        self._doubts.pop(error._doubt, None)
        log.warning("a webhook named %s for the submission whose answer was lost", task_id)
        return self._accept(TaskSnapshot(id=task_id, status="pending"), error.request)

    async def _verify(self, error: SubmissionUncertainError, patience: Patience) -> Watch | None:
        """The lost task as an own one; None when it was not taken, so that it may be sent again.

        Raises *error* with its candidates where that is not certain.
        """
        doubt = error._doubt
        assert doubt is not None, "it was lost here"
        try:
            look = await self._look_until_found(doubt, patience)
        except EggError as problem:
            raise error from problem
        if watch := self._adopted(error):
            return watch
        is_clear = look.is_whole and doubt in self._doubts
        if is_clear and not look.found:
            del self._doubts[doubt]
            return None
        if not is_clear or not self._is_only(doubt, look):
            error.candidates = look.found
            raise error
        del self._doubts[doubt]
        log.warning("adopted %s for the submission whose answer was lost", look.found[0].id)
        return self._accept(look.found[0], doubt.request)

    async def _look_until_found(self, doubt: Doubt, patience: Patience) -> _Look:
        for pause in LOOKS:
            await self._pause(pause, doubt.reference)
            look = await self._look(doubt, patience)
            is_open = look.found and not self._is_only(doubt, look)
            if is_open and doubt.reference and not self._name_of(doubt.reference):
                continue  # a delivery may still tell
            if look.found or not look.is_whole:
                break
        return look

    def _is_only(self, doubt: Doubt, look: _Look) -> bool:
        """True when one task was found, and no other doubt can claim it."""
        return len(look.found) == 1 and not any(map(doubt.rivals, self._doubts))

    async def _pause(self, seconds: float, reference: str | None) -> None:
        """Sleep, at most until a delivery names the task of *reference*."""
        if reference is None:
            await anyio.sleep(seconds)
            return
        named = self._listening[reference] = anyio.Event()
        try:
            with anyio.move_on_after(seconds):
                await named.wait()
        finally:
            del self._listening[reference]

    async def _look(self, doubt: Doubt, patience: Patience) -> _Look:
        """Read the list once. Own submissions under way may be in it, their ids not yet known."""
        tasks, when, is_whole = await self._read_list(doubt, patience)
        is_known = partial(self._is_known, self._named_for_others(doubt))
        if candidates(doubt, tasks, when=when, is_known=is_known):
            for ended in list(self._under_way.values()):
                await ended.wait()
            is_known = partial(self._is_known, self._named_for_others(doubt))
        return _Look(candidates(doubt, tasks, when=when, is_known=is_known), is_whole)

    def _is_known(self, others: set[str], task_id: str) -> bool:
        return task_id in self._own or task_id in others or self._hub.knows(task_id)

    def _named_for_others(self, doubt: Doubt) -> set[str]:
        """The tasks that deliveries gave to other submissions than the lost one."""
        return {task for reference, task in self._named.items() if reference != doubt.reference}

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
