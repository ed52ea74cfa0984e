"""A thousand histories of lost answers: whatever the list shows, no wrong task is adopted.

A service that is all lies and delays, as far as its documents allow: clocks hours off, other
programs' tasks, pages that shift while they are read, new tasks that the list does not show yet.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import anyio
import attrs
import pytest

from eggapi_async import GenerationRequest, Page, SubmissionUncertainError, TaskSnapshot
from eggapi_async._protocol import Answer, Call
from eggapi_async._purchase import Purchase
from eggapi_async._retry import Patience
from eggapi_async._submission import LOOKS, Submissions
from eggapi_async._transport import Lost
from tests.virtual_time import run_virtual

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
REQUEST = GenerationRequest(prompt="An egg", model="m")


def service_time() -> datetime:
    return EPOCH + timedelta(seconds=anyio.current_time())


@attrs.define
class Entry:
    """A task of the account, and from when on the list shows it."""

    task: TaskSnapshot
    shown_from: datetime


class Lot:
    """What one history is made of, drawn from its seed."""

    def __init__(self, seed: int) -> None:
        dice = self.dice = random.Random(seed)
        self.is_taken = dice.random() < 0.6
        self.is_dated = dice.random() < 0.9
        self.is_from_before = dice.random() < 0.5  # lost by a process that was killed
        self.skew = timedelta(seconds=dice.uniform(-7200, 7200))
        self.step = timedelta(seconds=dice.uniform(-7200, 7200)) * self.is_from_before
        self.pause = dice.uniform(0, 7200) * self.is_from_before  # until the next process
        self.lag = timedelta(seconds=dice.choice((0, 1, 5, 20, 40)))
        self.order = dice.choice(("newest", "newest", "oldest", "shuffled"))
        self.has_echo = dice.random() < 0.3
        self.own = dice.randrange(5)
        self.others = dice.choice((0, 5, 120, 250))
        self.has_double = self.is_from_before and dice.random() < 0.3
        self.per_page_arrivals = dice.choice((0, 0, 3))


@attrs.define
class Service:
    """The account, as a transport shows it."""

    lot: Lot
    entries: list[Entry] = attrs.field(factory=list)
    bought: list[Entry] = attrs.field(factory=list)
    read_at: datetime = EPOCH

    def add(self, made: datetime, **fields: Any) -> Entry:
        number = len(self.entries)
        usual = {"id": f"gen_{number}", "status": "pending", "model": "m", "type": "image_generate"}
        task = TaskSnapshot(**{**usual, "created_at": made, **fields})
        entry = Entry(task, made + self.lot.lag)
        self.entries.append(entry)
        return entry

    def buy(self) -> Entry:
        """Take our request in."""
        raw = {"prompt": "An egg"} if self.lot.has_echo else {}
        self.bought.append(self.add(service_time(), raw=raw))
        return self.bought[-1]

    def add_others(self, number: int) -> None:
        """Tasks of other programs that cannot be ours, as they may come at any time."""
        for _ in range(number):
            made = service_time() - timedelta(seconds=self.lot.dice.uniform(-30, 20_000))
            kinds: list[dict[str, Any]] = [{"model": "n"}, {"type": "image_edit"}]
            if self.lot.has_echo:
                kinds.append({"raw": {"prompt": "Another"}})
            self.add(min(made, service_time()), **self.lot.dice.choice(kinds))

    def arrive(self) -> None:
        """There is one event loop only."""

    async def call(self, call: Call[Any], _: Patience, *, accept: Any, **_how: Any) -> Any:
        """As `Transport.call`, without a wire."""
        await anyio.sleep(self.lot.dice.uniform(0.01, 0.5))
        if call.kind == "get":
            name = call.path.rpartition("/")[2]
            (task,) = (entry.task for entry in self.entries if entry.task.id == name)
            return accept(task, self.answer())
        if call.kind != "submit":
            return accept(self.page(**call.query), self.answer())
        return accept(self.buy().task, self.answer())

    def answer(self) -> Answer:
        date = format_datetime(service_time(), usegmt=True)
        return Answer(200, {"date": date} if self.lot.is_dated else {}, b"")

    def page(self, page: int, per_page: int) -> Page[TaskSnapshot]:
        self.add_others(self.lot.per_page_arrivals)
        self.read_at = service_time()
        shown = [entry.task for entry in self.entries if entry.shown_from <= self.read_at]
        shown.sort(key=lambda task: task.created_at or EPOCH, reverse=self.lot.order != "oldest")
        if self.lot.order == "shuffled":
            self.lot.dice.shuffle(shown)
        start = (page - 1) * per_page
        return Page(
            items=tuple(shown[start : start + per_page]),
            page=page,
            per_page=per_page,
            total=len(shown),
            total_pages=-(-len(shown) // per_page),
        )


@attrs.define
class History:
    """One loss and its resolution."""

    lot: Lot
    reference: str | None = None
    service: Service = attrs.field(init=False)
    clock_step: timedelta = timedelta(0)

    def __attrs_post_init__(self) -> None:
        self.service = Service(self.lot)

    def here(self) -> datetime:
        """Our clock, which was set anew since if it was another process."""
        return service_time() + self.lot.skew + self.clock_step

    def process(self, known: Collection[str]) -> Submissions:
        hub: Any = SimpleNamespace(
            knows=lambda _: False, submitted=lambda task, *_, **__: SimpleNamespace(task_id=task.id)
        )
        transport: Any = self.service
        submissions = Submissions(transport=transport, hub=hub, wall_clock=self.here)

        async def ledger(task_ids: Collection[str]) -> set[str]:
            return set(task_ids) & set(known)

        submissions.ledgers["the journal"] = ledger
        return submissions

    async def resolve(self) -> tuple[str, bool]:
        """What became of it: adopted, again or told; and whether the list had shown the task."""
        lot, service = self.lot, self.service
        service.add_others(lot.others)
        own = [service.add(service_time()).task.id for _ in range(lot.own)]
        await anyio.sleep(lot.dice.uniform(0, 3))
        sent_at = self.here()
        await anyio.sleep(lot.dice.uniform(0, 5))
        lost = service.buy() if lot.is_taken else None
        await anyio.sleep(lot.dice.uniform(0, 5))
        lost_at = self.here()
        self.clock_step = lot.step
        await anyio.sleep(lot.pause)
        if lot.has_double:  # somebody used the key by hand meanwhile
            service.add(service_time() - timedelta(seconds=lot.dice.uniform(60, 3000)))
        submissions = self.process(own)
        error = self.error(submissions, sent_at, lost_at)
        before = len(service.bought)
        try:
            async with anyio.create_task_group() as group:
                if self.reference is not None and lost is not None:
                    group.start_soon(self.deliver, submissions, lost)
                watch = await submissions.submit(REQUEST, Patience(), "verify", lost=error)
        except* SubmissionUncertainError:
            outcome = "told"
            if self.reference is not None and lost is not None:
                await self.deliver(submissions, lost)
                (found,) = await submissions.reconcile(error, Patience())
                assert found.id == lost.task.id, "the wrong task"
                outcome = "named"
        else:
            is_new = len(service.bought) > before
            outcome = "again" if is_new else "adopted"
            assert is_new or (lost is not None and watch.task_id == lost.task.id), "the wrong task"
        return outcome, lost is not None and lost.shown_from <= service.read_at

    async def deliver(self, submissions: Submissions, lost: Entry) -> None:
        """Let the lost task's webhook come."""
        await anyio.sleep(self.lot.dice.uniform(0, 20))
        assert self.reference is not None
        submissions.name(self.reference, lost.task.id)

    def error(
        self, submissions: Submissions, sent_at: datetime, lost_at: datetime
    ) -> SubmissionUncertainError:
        if not self.lot.is_from_before:
            purchase = Purchase(REQUEST, Patience(), None, None, lambda: None)
            purchase.reference = self.reference
            return submissions._lose(Lost("by chance", sent_at, lost_at), purchase)
        return submissions.recall(
            REQUEST,
            Patience(),
            sent_at=sent_at,
            lost_at=lost_at,
            name="an item",
            reference=self.reference,
        )


@pytest.mark.parametrize("part", range(4))
def test_no_history_ends_with_the_wrong_task_or_a_second_bill(part: int) -> None:
    """250 histories each: adopted only what was lost, sent again only what was not listed."""
    ends: Counter[str] = Counter()

    async def live() -> None:
        for seed in range(250 * part, 250 * (part + 1)):
            history = History(Lot(seed))
            outcome, is_shown = await history.resolve()
            ends[outcome] += 1
            lot = history.lot
            assert not (outcome == "again" and is_shown), f"seed {seed}: paid twice"
            if is_clear(lot, is_shown):
                assert outcome == ("adopted" if lot.is_taken else "again"), f"seed {seed}"
                ends["clear"] += 1

    run_virtual(live)
    assert ends["adopted"] > 30
    assert ends["again"] > 30
    assert ends["told"] > 10
    assert ends["clear"] > 50


def test_a_webhook_resolves_every_history() -> None:
    """Whatever the list shows, the delivery that carries the reference names the lost task."""
    ends: Counter[str] = Counter()

    async def live() -> None:
        for seed in range(300):
            history = History(Lot(seed), "egg-reference")
            outcome, _ = await history.resolve()
            ends[outcome] += history.lot.is_taken

    run_virtual(live)
    assert ends["named"] > 10
    assert ends["adopted"] > 100
    assert ends["told"] == 0
    assert ends["again"] == 0, "the delivery came before the looks had ended"


def is_clear(lot: Lot, is_shown: bool) -> bool:
    """True where everything needed can be seen, and nothing else could be it."""
    stands_still = lot.order != "shuffled" and not lot.per_page_arrivals
    can_be_read = stands_still or lot.others <= 5
    is_seen = is_shown or not lot.is_taken
    clocks_agree = lot.is_dated and not lot.step
    return can_be_read and is_seen and clocks_agree and not lot.has_double


def test_the_looks_are_longer_than_most_lags() -> None:
    """A list that lags by 30 s is waited for."""
    assert sum(LOOKS) >= 30
