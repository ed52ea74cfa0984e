"""Who waits for which task, and the polling that the waiting share.

There is no background poller. Of the coroutines that wait, one leads: it plans, asks and hands out
what came; when its own task has ended, or it is cancelled, it hands the lead to another. Tasks that
nobody waits for cost nothing. Webhook deliveries end waits here too (`show`).
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import copy
from decimal import Decimal
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

import anyio
import attrs
from anyio.abc import TaskGroup
from cattrs import BaseValidationError

from . import _protocol
from ._apart import Signal
from ._home import Home
from ._hooks import Trust, url_of
from ._polling import Ask, Peek, Sweep, Watched, Watchlist
from ._recent import Recent
from ._rhythm import History, PollPolicy, Rhythm
from ._telling import ended, outline, polled
from ._transport import Transport
from ._values import snapshot
from ._work import Work
from .budget import Reservation
from .client_events import TaskSubmitted, Tell
from .errors import (
    AuthenticationError,
    ConfigurationError,
    EggError,
    NotFoundError,
    PermissionDeniedError,
    TaskFailedError,
)
from .models import GenerationRequest, Stats, TaskSnapshot

log = logging.getLogger("eggapi_async")

LAG: Final = 3.0
"""Seconds after submission in which a 404 may come from a replica that lags."""
FORGOTTEN: Final = 86_400.0
"""Seconds after which a task that nobody waited for is no longer counted as unfinished."""
LINGER: Final = 0.5
"""Seconds that a leader who has its result still waits for polls under way, before dropping
them."""
EARLY: Final = 600.0
"""Seconds for which the end of a task that nobody here knows yet is kept: the answer to its
submission may still be under way."""
MOST_EARLY: Final = 4096
_RANK: Final[Mapping[str, int]] = {"pending": 0, "processing": 1}


class Waiter(Signal):
    """One coroutine that waits: it is woken by news, by an error, or to take the lead."""

    __slots__ = ("error",)

    def __init__(self) -> None:
        super().__init__()
        self.error: EggError | None = None


@attrs.define(eq=False, weakref_slot=True)
class Watch:
    """What is known of one task, shared by all its handles.

    *version* grows with every change of the snapshot, so that nobody misses one. *reservation* is
    the money set aside for it where it was submitted here.
    """

    task_id: str
    request: GenerationRequest | None = None
    since: float | None = None  # when it was submitted, by the event loop's clock
    began: float | None = None  # when `generate` was called, by the same; None: not on this loop
    snapshot: TaskSnapshot | None = None
    version: int = 0
    not_found: int = 0
    known: Watched | None = None
    waiting: list[Waiter] = attrs.field(factory=list)
    reservation: Reservation | None = None

    @property
    def is_done(self) -> bool:
        """True when the task has ended."""
        return self.snapshot is not None and self.snapshot.is_final


class Hub:
    """The tasks of one client: the open ones, and who waits for them."""

    def __init__(
        self,
        *,
        transport: Transport,
        policy: PollPolicy,
        stats: Stats,
        trust: Trust | None = None,
        tell: Tell | None = None,
        work: Work | None = None,
        home: Home | None = None,
    ) -> None:
        self._transport = transport
        self._home = home or Home("Hub")
        self._stats = stats
        self._policy = policy
        self._watchlist = Watchlist(policy)
        self._history = History(policy.advice)
        self._watches: WeakValueDictionary[str, Watch] = WeakValueDictionary()
        self._unfinished: OrderedDict[str, Watch] = OrderedDict()
        self._waited: OrderedDict[str, Watch] = OrderedDict()
        self._trust = trust or Trust()
        self._tell = tell
        self._work = work or Work()
        self._early: Recent[str, Mapping[str, Any]] = Recent(MOST_EARLY, EARLY)
        self._leader: Waiter | None = None
        self._news = anyio.Event()
        self._sleeps_until = math.inf
        self._token: Any = None

    def _arrive(self) -> None:
        """Notice another event loop: waiters of the last one never go on, its clock is not ours.

        Raises WrongLoopError while the last one still runs.
        """
        token = self._home.arrive()
        if token == self._token:
            return
        self._token = token
        self._leader, self._news, self._sleeps_until = None, anyio.Event(), math.inf
        self._watchlist = Watchlist(self._policy)
        self._waited.clear()
        self._early.restamp(anyio.current_time())
        ripe = anyio.current_time() - self._policy.first_delay
        for watch in list(self._watches.values()):
            watch.waiting, watch.known, watch.began = [], None, None
            watch.since = None if watch.since is None else ripe

    @property
    def home(self) -> Any:
        """The event loop on which the waiting is done, as a token; None before there was any."""
        return self._token

    @property
    def unfinished(self) -> tuple[Watch, ...]:
        """Tasks submitted here that have not ended, as far as is known."""
        return tuple(self._unfinished.values())

    @property
    def waited(self) -> int:
        """How many tasks somebody waits for."""
        return len(self._waited)

    def watch(self, task_id: str) -> Watch:
        """What is known of a task; shared by all who ask."""
        watch = self._watches.get(task_id)
        if watch is None:
            watch = self._watches[task_id] = Watch(task_id)
            self._catch_up(watch)
        return watch

    def knows(self, task_id: str) -> bool:
        """True for a task that somebody here holds a handle of."""
        return task_id in self._watches

    def submitted(
        self,
        task: TaskSnapshot,
        request: GenerationRequest,
        reservation: Reservation | None = None,
        *,
        began: float | None = None,
    ) -> Watch:
        """Take in the answer to a submission; from here on the task's id is not lost.

        *began* is when it was asked for.
        """
        self._arrive()
        watch = self._watches.setdefault(task.id, Watch(task.id))
        told = watch.snapshot if watch.request is None else None
        watch.reservation = reservation
        watch.request, watch.since = request, anyio.current_time()
        watch.began = watch.since if began is None else began
        self._stats.submitted += 1
        self._unfinished[task.id] = watch
        self._forget_old(watch.since - FORGOTTEN)
        if self._tell is not None:
            took = watch.since - watch.began
            self._tell(
                TaskSubmitted(task_id=task.id, model=request.model, type=task.type, seconds=took)
            )
        self.show(task)
        self._catch_up(watch)
        self._count_early(watch, told)
        return watch

    def collected(self, task_id: str, request: GenerationRequest) -> Watch:
        """Take up a task that was submitted earlier, maybe by another process."""
        watch = self._watches.setdefault(task_id, Watch(task_id))
        if watch.request is None:
            told, watch.request = watch.snapshot, request
            self._catch_up(watch)
            self._count_early(watch, told)
        return watch

    def _count_early(self, watch: Watch, told: TaskSnapshot | None) -> None:
        """Count an end that was *told* to somebody's handle before the task was known as ours."""
        if told is not None and told.is_final:
            self._unfinished.pop(watch.task_id, None)
            self._note_end(watch, told)

    def _catch_up(self, watch: Watch) -> None:
        """Show what a webhook told of a task before anybody here knew it."""
        fields = self._early.pop(watch.task_id)
        if fields is not None:
            self._lay_over(watch, fields)

    def delivered(self, fields: Mapping[str, Any]) -> TaskSnapshot:
        """Take in what a webhook tells of a task, laid over what is known of it; the task then.

        An end that nobody waits for is kept for a while: the task may not be known yet.
        """
        self._arrive()
        watch = self._watches.get(fields["id"])
        task = snapshot(fields) if watch is None else self._lay_over(watch, fields)
        if task.is_final and not (watch and watch.waiting):
            self._early.put(task.id, task.raw, now=anyio.current_time())
        return task

    def _lay_over(self, watch: Watch, fields: Mapping[str, Any]) -> TaskSnapshot:
        known = watch.snapshot.raw if watch.snapshot else {}
        task = snapshot({**known, **fields})
        if task.is_final:
            self._note_delivery(watch)
        self.show(task)
        return watch.snapshot or task

    def _note_delivery(self, watch: Watch) -> None:
        self._stats.delivered += watch.request is not None and not watch.is_done
        if url := _hook_of(watch):
            self._trust.came(url)

    def _forget_old(self, horizon: float) -> None:
        # A bot that relies on webhooks, and never awaits, must not grow for weeks.
        eldest = next(iter(self._unfinished.values()))
        while eldest.since is not None and eldest.since < horizon and not eldest.waiting:
            del self._unfinished[eldest.task_id]
            eldest = next(iter(self._unfinished.values()))

    def show(self, task: TaskSnapshot) -> None:
        """Take in what is known of a task now. An end is final; older news do not undo newer."""
        watch = self._watches.get(task.id)
        if watch is None:
            return
        watch.not_found = 0
        if not _is_news(watch.snapshot, task):
            return
        watch.snapshot = task
        watch.version += 1
        if task.is_final:
            self._unfinished.pop(watch.task_id, None)
            self._watchlist.remove(watch.task_id)
            self._note_end(watch, task)
        for waiter in watch.waiting:
            self._wake(waiter)

    def _wake(self, waiter: Waiter) -> None:
        waiter.set()
        if waiter is self._leader:  # who leads sleeps for all
            self._news.set()

    def _note_end(self, watch: Watch, task: TaskSnapshot) -> None:
        if watch.request is None:  # not submitted here, and may be looked up any number of times
            return
        self._stats.ended(task)
        if watch.reservation is not None:
            watch.reservation.settle(_cost(task))
        if task.created_at and task.completed_at:
            took = (task.completed_at - task.created_at).total_seconds()
            self._history.note(_kind(watch.request), took)
        if self._tell is not None:
            seconds = None if watch.began is None else anyio.current_time() - watch.began
            self._tell(ended(task, watch.request.model, seconds))

    # --- waiting -----------------------------------------------------------------------------

    async def result(self, watch: Watch) -> TaskSnapshot:
        """Wait until the task has ended. Raises TaskFailedError, and what ends a wait early."""
        while not watch.is_done:
            await self.change(watch, watch.version)
        assert watch.snapshot is not None, "a task that is done has a snapshot"
        if not watch.snapshot.is_completed:
            raise TaskFailedError(watch.snapshot)
        return watch.snapshot

    async def change(self, watch: Watch, version: int) -> None:
        """Wait until the task is beyond *version*; polls for it, or lets another poll."""
        self._arrive()
        waiter = Waiter()
        self._join(watch, waiter)
        try:
            with self._work:
                while watch.version == version and waiter.error is None:
                    if self._leader is not None:
                        await waiter.wait()
                    else:
                        await self._lead(watch, version, waiter)
        finally:
            self._leave(watch, waiter)
        if waiter.error is not None:
            raise waiter.error

    def _join(self, watch: Watch, waiter: Waiter) -> None:
        watch.waiting.append(waiter)
        if len(watch.waiting) > 1:
            return
        self._waited[watch.task_id] = watch
        watch.known = self._watchlist.add(
            watch.task_id,
            now=anyio.current_time(),
            since=watch.since,
            known=watch.known,
            rhythm=partial(self._rhythm, watch),
            net=self._net(watch),
        )
        self._plan_by(watch.task_id)

    def _plan_by(self, task_id: str) -> None:
        """Wake the leader, if it would oversleep what *task_id* makes necessary."""
        if self._watchlist.due_of(task_id, anyio.current_time()) < self._sleeps_until:
            self._news.set()

    def _rhythm(self, watch: Watch) -> Rhythm:
        request = watch.request if self._policy.learn else None
        return self._history.rhythm(None if request is None else _kind(request))

    def _net(self, watch: Watch) -> float | None:
        """Seconds between looks at a task whose end is left to a webhook; None: it is polled."""
        url = _hook_of(watch)
        return self._policy.safety_net if url and self._trust.holds(url) else None

    def _leave(self, watch: Watch, waiter: Waiter) -> None:
        if waiter not in watch.waiting:  # of an event loop that is gone
            return
        watch.waiting.remove(waiter)
        if not watch.waiting:
            del self._waited[watch.task_id]
            self._watchlist.remove(watch.task_id)
        self._hand_over(waiter)

    def _hand_over(self, leaving: Waiter) -> None:
        """Wake somebody to take the lead, if there is none; the youngest task will last longest."""
        if self._leader is not None:
            return
        for watch in reversed(self._waited.values()):
            for waiter in watch.waiting:
                if waiter is not leaving:
                    waiter.set()
                    return

    # --- polling -----------------------------------------------------------------------------

    async def _lead(self, watch: Watch, version: int, waiter: Waiter) -> None:
        """Poll for all, until the leader's own task has news."""
        self._leader = waiter
        try:
            async with anyio.create_task_group() as asks:
                try:
                    while watch.version == version and waiter.error is None:
                        await self._round(asks)
                finally:
                    asks.cancel_scope.deadline = anyio.current_time() + LINGER
                    self._step_down(waiter)  # at once: the last polls may take a while
        except ExceptionGroup as group:  # a bug somewhere: it is not hidden, but shown as it is
            raise group.exceptions[0] from None

    def _step_down(self, waiter: Waiter) -> None:
        if self._leader is waiter:
            self._leader = None
            self._hand_over(waiter)

    async def _round(self, asks: TaskGroup) -> None:
        """Ask whoever is due, then sleep until the next is, or until there is news."""
        self._news = anyio.Event()
        now = anyio.current_time()
        for ask in self._watchlist.plan(now):
            asks.start_soon(self._ask, ask)
        self._sleeps_until = self._watchlist.next_due(now)
        with anyio.CancelScope(deadline=self._sleeps_until):
            await self._news.wait()

    async def _ask(self, ask: Ask) -> None:
        is_answered, began = False, anyio.current_time()
        try:
            if isinstance(ask, Sweep):
                await self._sweep(ask, began)
            else:
                await self._peek(ask, began)
            is_answered = True
        except EggError as error:
            is_answered = True
            log.debug("%s failed: %s", ask, outline(error))
            self._tell_polled(ask, began, [], error)
            self._watchlist.failed(ask, now=anyio.current_time())
            if isinstance(error, (AuthenticationError, ConfigurationError)):
                self._end_waits(self._waited.values(), error)
            elif isinstance(ask, Peek):
                self._judge(ask.task_id, error)
        finally:
            if not is_answered:
                self._watchlist.dropped(ask)
            self._plan_after(ask)

    def _plan_after(self, ask: Ask) -> None:
        if isinstance(ask, Peek):
            self._plan_by(ask.task_id)
        elif not self._watchlist.is_reading:
            self._news.set()

    async def _peek(self, ask: Peek, began: float) -> None:
        task = await self._transport.ask(_protocol.get_task(ask.task_id, kind="peek"))
        self._tell_polled(ask, began, [])
        self._watchlist.seen(task, now=anyio.current_time())
        self._found(task)

    async def _sweep(self, ask: Sweep, began: float) -> None:
        page = await self._transport.ask(_protocol.sweep_tasks(ask.page), first=True)
        self._tell_polled(ask, began, page.items)
        for item in self._watchlist.seen_page(ask.page, page, now=anyio.current_time()):
            with suppress(BaseValidationError):  # a peek will say what is wrong with it
                self._found(snapshot(item))

    def _tell_polled(
        self,
        ask: Ask,
        began: float,
        items: Iterable[Mapping[str, Any]],
        error: EggError | None = None,
    ) -> None:
        if self._tell is None:
            return
        kind, ids = "peek", [ask.task_id] if isinstance(ask, Peek) else []
        if isinstance(ask, Sweep):
            kind = "sweep"
            shown = {item["id"] for item in items if isinstance(item.get("id"), str)}
            ids = [task_id for task_id in self._waited if task_id in shown]
        self._tell(polled(kind, ids, anyio.current_time() - began, error))

    def _found(self, task: TaskSnapshot) -> None:
        """Show what a poll found. An end that a webhook should have told may cost it the trust."""
        watch = self._waited.get(task.id)
        if task.is_final and watch and watch.known and watch.known.is_overdue(anyio.current_time()):
            url = _hook_of(watch)
            if url and self._trust.missed(url):
                log.warning("webhooks do not arrive: their tasks are polled until one does")
                self._watchlist.hurry(anyio.current_time())
                self._news.set()
        self.show(task)

    def _judge(self, task_id: str, error: EggError) -> None:
        """End the waits that an error makes hopeless; all other errors may pass."""
        watch = self._waited.get(task_id)
        if watch is None or not self._is_hopeless(watch, error):
            return
        self._end_waits([watch], error)

    def _end_waits(self, watches: Iterable[Watch], error: EggError) -> None:
        for watch in watches:
            for waiter in watch.waiting:
                waiter.error = copy(error)  # each has a traceback of its own
                self._wake(waiter)

    def _is_hopeless(self, watch: Watch, error: EggError) -> bool:
        if not isinstance(error, NotFoundError):
            return isinstance(error, PermissionDeniedError)
        if watch.since is None:
            return True
        if anyio.current_time() > watch.since + LAG:
            watch.not_found += 1
        return watch.not_found > 1


def _hook_of(watch: Watch) -> str | None:
    return None if watch.request is None else url_of(watch.request)


def _kind(request: GenerationRequest) -> tuple[str, str | None]:
    """What a generation's duration depends on, as far as is known."""
    return request.model, request.resolution


def _cost(task: TaskSnapshot) -> Decimal | None:
    """What an ended task cost; None where that is not known. One that failed is free."""
    return Decimal(0) if task.cost is None and not task.is_completed else task.cost


def _is_news(old: TaskSnapshot | None, new: TaskSnapshot) -> bool:
    """True when *new* says more than *old*: an end is final, and a status does not go back."""
    if old is None:
        return True
    if old.is_final or old == new:
        return False
    return new.is_final or _RANK.get(new.status, 1) >= _RANK.get(old.status, 0)
