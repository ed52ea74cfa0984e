"""Buying: one submission, and what to do when its answer was lost.

The API knows no idempotency key, so a POST that may have been taken is never sent again blindly.
Its doubt is kept as a value; the task list can resolve it, since it shows what was created when.
Only a caller who alone uses the key may act on that (`uncertain="verify"`).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import count
from secrets import token_urlsafe
from typing import Final, Literal

import anyio
import attrs

from . import _protocol
from ._doubt import SLACK, Doubt, Window, candidates, is_past, is_sure, window
from ._hooks import Address, with_reference
from ._hub import Hub, Watch
from ._protocol import Answer
from ._purchase import Known, Purchase, Record
from ._recent import Marks, Recent
from ._retry import Patience
from ._telling import unsold
from ._transport import Lost, Transport
from ._values import server_time, snapshot
from .budget import Budget
from .client_events import Tell
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
    """What a reading of the list showed.

    *is_whole* when no page was left out, *is_sure* when what was found is of the very time.
    """

    found: tuple[TaskSnapshot, ...]
    is_whole: bool
    is_sure: bool


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
        tell: Tell | None = None,
    ) -> None:
        self._transport = transport
        self._hub = hub
        self._wall_clock = wall_clock
        self._address = address
        self._new_reference = new_reference
        self._tell = tell
        self._named: Recent[str, str] = Recent(REMEMBERED, NAMED)
        self._listening: dict[str, anyio.Event] = {}
        self._own = Marks(REMEMBERED)
        self._doubts: OrderedDict[Doubt, None] = OrderedDict()
        self._under_way: OrderedDict[object, anyio.Event] = OrderedDict()
        self.ledgers: dict[object, Known] = {}
        """Journals and ledgers whose tasks are known, and so never the lost one."""

    async def submit(
        self,
        request: GenerationRequest,
        patience: Patience,
        uncertain: Uncertain,
        *,
        budget: Budget | None = None,
        check: Callable[[], None] = lambda: None,
        record: Record | None = None,
        lost: SubmissionUncertainError | None = None,
    ) -> Watch:
        """Buy one generation. Raises SubmissionUncertainError where it is not known to be bought.

        Only if *budget* covers it, and *check* does not raise before it leaves. With *lost*, an
        error of `recall`, it was sent before, and that is resolved first.
        """
        if uncertain not in ("raise", "verify"):
            raise InvalidRequestError("uncertain", uncertain, "'raise' or 'verify'")
        self._transport.arrive()  # before money is set aside, or an intent recorded
        request = self._address.given_to(request)
        began = anyio.current_time()
        purchase = Purchase(request, patience, record, budget, check, began)
        try:
            return await self._buy(purchase, uncertain, lost)
        except EggError as error:
            if self._tell is not None:
                self._tell(unsold(request.model, anyio.current_time() - began, error))
            raise

    async def _buy(
        self, purchase: Purchase, uncertain: Uncertain, lost: SubmissionUncertainError | None
    ) -> Watch:
        for attempts in count(1):
            if lost is not None:
                watch = await self._resolve(lost, purchase, uncertain)
                if watch is not None:
                    return watch
                if attempts > purchase.patience.retry.max_attempts:
                    raise lost
            try:
                return await self._post(purchase)
            except SubmissionUncertainError as error:
                lost = error
        raise AssertionError("counting never ends")

    async def _post(self, purchase: Purchase) -> Watch:
        purchase.begin()
        purchase.reference = self._address.reference_for(purchase.request, self._new_reference)
        ticket = object()
        ended = self._under_way[ticket] = anyio.Event()

        def accept(task: TaskSnapshot, _: Answer) -> Watch:
            return self._accept(task, purchase)

        def lose(lost: Lost) -> SubmissionUncertainError:
            return self._lose(lost, purchase)

        try:
            return await self._transport.call(
                _protocol.submit(with_reference(purchase.request, purchase.reference)),
                purchase.patience,
                accept=accept,
                lose=lose,
                intent=purchase,
            )
        finally:
            purchase.withdraw()
            purchase.reservation.release()  # unless it was bought, or may have been
            del self._under_way[ticket]
            ended.set()

    def _accept(self, task: TaskSnapshot, purchase: Purchase) -> Watch:
        purchase.accept(task)
        self._own.add(task.id)
        return self._hub.submitted(
            task, purchase.request, purchase.reservation, began=purchase.began
        )

    def collect(self, task_id: str, request: GenerationRequest) -> Watch:
        """Take up a task that another process submitted."""
        self._own.add(task_id)
        return self._hub.collected(task_id, self._address.given_to(request))

    def _lose(self, lost: Lost, purchase: Purchase) -> SubmissionUncertainError:
        name = None if purchase.record is None else purchase.record.name
        doubt = Doubt(
            purchase.request,
            lost.sent_at,
            lost.lost_at,
            name=name,
            reference=purchase.reference,
        )
        purchase.lose(lost)
        self._doubts[doubt] = None
        self._forget_doubts_before(doubt.lost_at - DOUBTED)
        return self._error(doubt, purchase.patience, f" ({lost.problem})")

    def recall(
        self,
        request: GenerationRequest,
        patience: Patience,
        *,
        sent_at: datetime,
        lost_at: datetime,
        name: object,
        reference: str | None = None,
    ) -> SubmissionUncertainError:
        """The error of a submission that was lost earlier, maybe by another process."""
        for doubt in self._doubts:
            if doubt.name == name:
                return self._error(doubt, patience, " earlier")
        doubt = Doubt(request, sent_at, lost_at, SLACK, name, reference)
        self._doubts[doubt] = None
        return self._error(doubt, patience, " earlier")

    def _error(self, doubt: Doubt, patience: Patience, how: str) -> SubmissionUncertainError:
        async def reconcile() -> tuple[TaskSnapshot, ...]:
            return await self._candidates(attrs.evolve(doubt, slack=timedelta(0)), patience)

        error = SubmissionUncertainError(
            f"the submission's answer was lost{how}; the task may exist and be billed,"
            " so it is not sent again: await error.reconcile() looks for it",
            request=doubt.request,
            sent_at=doubt.sent_at,
            lost_at=doubt.lost_at,
            reference=doubt.reference,
            reconcile=reconcile,
        )
        error._doubt = doubt
        return error

    def _forget_doubts_before(self, horizon: datetime) -> None:
        # Those of earlier processes stay: they are old, and somebody may be at them just now.
        old = [one for one in self._doubts if not one.slack and one.lost_at < horizon]
        for doubt in old:
            del self._doubts[doubt]

    # --- resolving ---------------------------------------------------------------------------

    async def reconcile(
        self, error: SubmissionUncertainError, patience: Patience
    ) -> tuple[TaskSnapshot, ...]:
        """The listed tasks that could be the lost one; also for an error from another process."""
        doubt = Doubt(error.request, error.sent_at, error.lost_at, reference=error.reference)
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

    def _adopted(self, error: SubmissionUncertainError, purchase: Purchase) -> Watch | None:
        """The lost task as an own one, if a delivery has named it."""
        task_id = self._name_of(error.reference)
        if task_id is None:
            return None
        self._doubts.pop(error._doubt, None)
        log.warning("a webhook named %s for the submission whose answer was lost", task_id)
        return self._accept(snapshot({"id": task_id, "status": "pending"}), purchase)

    async def _resolve(
        self, error: SubmissionUncertainError, purchase: Purchase, uncertain: Uncertain
    ) -> Watch | None:
        """The lost task as an own one; None when it was not taken, so that it may be sent again.

        Raises *error* with its candidates where that is not certain.
        """
        if watch := self._adopted(error, purchase):
            return watch
        if uncertain == "raise":
            raise error
        doubt = error._doubt
        assert doubt is not None, "it was lost here"
        try:
            look = await self._look_until_found(doubt, purchase.patience)
        except EggError as problem:
            raise error from problem
        if watch := self._adopted(error, purchase):
            return watch
        is_clear = look.is_whole and doubt in self._doubts
        if is_clear and not look.found:
            del self._doubts[doubt]
            purchase.reservation.settle(Decimal(0))
            return None
        if not (is_clear and self._is_only(doubt, look)):
            error.candidates = look.found
            raise error
        del self._doubts[doubt]
        log.warning("adopted %s for the submission whose answer was lost", look.found[0].id)
        return self._accept(look.found[0], purchase)

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
        """True when one task was found for sure, and nobody else can claim it.

        Somebody who holds a handle of it may have bought it elsewhere.
        """
        is_one = look.is_sure and len(look.found) == 1 and not self._hub.knows(look.found[0].id)
        return is_one and not any(map(doubt.rivals, self._doubts))

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
            self._listening.pop(reference, None)

    async def _look(self, doubt: Doubt, patience: Patience) -> _Look:
        """Read the list once. Own submissions under way may be in it, their ids not yet known."""
        tasks, when, is_whole = await self._read_list(doubt, patience)
        found = self._strange(doubt, tasks, when)
        if found:
            for ended in list(self._under_way.values()):
                await ended.wait()
            known = await self._recorded([task.id for task in found])
            found = self._strange(doubt, [task for task in found if task.id not in known], when)
        return _Look(found, is_whole, all(is_sure(task, when) for task in found))

    def _strange(
        self, doubt: Doubt, tasks: Iterable[TaskSnapshot], when: Window
    ) -> tuple[TaskSnapshot, ...]:
        """Those of *tasks* that could be the lost one, and are not known to be another.

        A handle alone proves nothing: anybody can make one of a listed task.
        """
        others = {task for reference, task in self._named.items() if reference != doubt.reference}

        def is_known(task_id: str) -> bool:
            return task_id in self._own or task_id in others

        return candidates(doubt, tasks, when=when, is_known=is_known)

    async def _recorded(self, task_ids: list[str]) -> set[str]:
        """Those that journals have."""
        known: set[str] = set()
        for ledger in list(self.ledgers.values()):
            known.update(await ledger(task_ids))
        return known

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
            when = when or window(doubt, here=here, there=there)
            tasks += page.items
            is_all = len({task.id for task in tasks}) >= page.total
            if is_all or is_past(tasks, when) or number >= page.total_pages:
                return tasks, when, is_all or is_past(tasks, when)
        assert when is not None, "there is a first page"
        return tasks, when, False
