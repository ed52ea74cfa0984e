"""Buying: what becomes of a submission whose answer was lost, by default and with "verify"."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import attrs
import httpx
import pytest

from eggapi_async import (
    ConfigurationError,
    EggError,
    GenerationRequest,
    InvalidRequestError,
    PollPolicy,
    RateLimiter,
    RetryPolicy,
    SubmissionUncertainError,
)
from eggapi_async._hub import Hub, Watch
from eggapi_async._purchase import Purchase
from eggapi_async._retry import Patience
from eggapi_async._submission import (
    DOUBTED,
    LOOKS,
    PAGES,
    REMEMBERED,
    Submissions,
    Uncertain,
)
from eggapi_async._transport import Lost, Transport
from eggapi_async._wire import ApiKey, Wire, in_process
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.models import Stats
from eggapi_async.testing import connect
from tests.scripted import data, task
from tests.virtual_time import on_both

EPOCH = datetime(2025, 1, 1, tzinfo=UTC).timestamp()


@attrs.define
class Shop:
    """A service, and somebody who buys there, each with a clock of its own on virtual time."""

    emulator: EggEmulator
    submissions: Submissions
    hub: Hub
    patience: Patience

    async def buy(
        self, prompt: str = "An egg", *, uncertain: Uncertain = "verify", **fields: Any
    ) -> Watch:
        request = GenerationRequest.of({"model": "nanobanana", **fields, "prompt": prompt})
        return await self.submissions.submit(request, self.patience, uncertain)

    async def doubt(self, prompt: str = "An egg", **how: Any) -> SubmissionUncertainError:
        """Buy what must end in doubt."""
        with pytest.raises(SubmissionUncertainError) as caught:
            await self.buy(prompt, **how)
        return caught.value

    @property
    def posts(self) -> int:
        return self.emulator.requests["POST /v1/generate"]


def shop(
    *,
    skew: float = 0.0,
    dated: bool = True,
    patience: Patience = Patience(timeout=5.0),
    wire: Wire | None = None,
    **options: Any,
) -> Shop:
    """A shop whose service's clock is `skew` seconds ahead of ours."""
    emulator = EggEmulator(clock=lambda: EPOCH + anyio.current_time() + skew, **options)
    app = Dated(emulator, skew) if dated else emulator
    stats = Stats()
    transport = Transport(
        wire=wire or Wire(in_process(app)),
        key=ApiKey("test-key"),
        origin="https://egg.test",
        limiter=RateLimiter(per_second=None),
        stats=stats,
        poll_patience=Patience(),
        dice=lambda: 0.5,
        wall_clock=now,
    )
    hub = Hub(transport=transport, policy=PollPolicy(), stats=stats)
    submissions = Submissions(transport=transport, hub=hub, wall_clock=now)
    return Shop(emulator, submissions, hub, patience)


def purchase(request: GenerationRequest) -> Purchase:
    """One without a record, a budget, or anything against it."""
    return Purchase(request, Patience(timeout=5.0), None, None, lambda: None)


def now() -> datetime:
    return datetime.fromtimestamp(EPOCH + anyio.current_time(), UTC)


class Dated:
    """An ASGI app before another that adds the service's `Date` to every answer."""

    def __init__(self, app: Any, skew: float) -> None:
        self._app = app
        self._skew = skew

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_dated(message: Any) -> None:
            if message["type"] == "http.response.start":
                date = format_datetime(now() + timedelta(seconds=self._skew), usegmt=True)
                message["headers"] = [*message["headers"], (b"date", date.encode())]
            await send(message)

        await self._app(scope, receive, send_dated)


SKEWS = pytest.mark.parametrize(
    "skew", [0.0, 7200.0, -7200.0], ids=["clocks agree", "2 h ahead", "2 h behind"]
)
DONE = {
    "the connection breaks": Fault.lost(),
    "504 as a page": Fault.html_after(504),
    "202 without a body": Fault.empty(),
    "202 without an id": Fault.idless(),
    "no answer within the timeout": Fault.slow(10.0),
}
"""Faults after which the task exists."""


# --- the default -----------------------------------------------------------------------------


@on_both
@pytest.mark.parametrize("fault", DONE.values(), ids=DONE)
async def test_by_default_a_doubt_is_raised(fault: Fault) -> None:
    """The POST is sent once; the error says what was sent and when."""
    it = shop()
    it.emulator.fail_next(fault)
    began = now()
    error = await it.doubt(uncertain="raise")
    assert (it.posts, len(it.emulator.accepted)) == (1, 1)
    assert error.request.prompt == "An egg"
    assert began == error.sent_at <= error.lost_at == now()
    assert error.candidates == ()
    assert it.hub.unfinished == ()


@on_both
async def test_a_submission_is_remembered() -> None:
    """What was bought is open until it ends."""
    it = shop()
    watch = await it.buy(uncertain="raise")
    assert [watch.task_id] == it.emulator.accepted
    assert it.hub.unfinished == (watch,)


async def test_another_word_for_uncertain_is_refused_before_sending() -> None:
    """A misspelling must not be found out by a lost answer."""
    it = shop()
    wrong: Any = "verfy"
    with pytest.raises(InvalidRequestError, match=r"^uncertain: expected"):
        await it.buy(uncertain=wrong)
    assert it.posts == 0


# --- reconcile -------------------------------------------------------------------------------


@on_both
@SKEWS
async def test_reconcile_finds_the_lost_task(skew: float) -> None:
    """The one task that could be it is returned, whatever the clocks say; nothing is bought."""
    it = shop(skew=skew)
    await it.buy("An egg before")
    it.emulator.fail_next(Fault.lost())
    error = await it.doubt(uncertain="raise")
    await anyio.sleep(60)
    await it.buy("An egg after")
    (task,) = await error.reconcile()
    assert task.id == it.emulator.accepted[1]
    assert it.posts == 3


@on_both
@SKEWS
async def test_reconcile_takes_an_error_from_another_process(skew: float) -> None:
    """A pickled error has lost its client; any client of the key can take it."""
    it, other = shop(skew=skew), shop(skew=skew)
    it.emulator.fail_next(Fault.lost())
    error = await it.doubt(uncertain="raise")
    copy: SubmissionUncertainError = pickle.loads(pickle.dumps(error))
    with pytest.raises(ConfigurationError):
        await copy.reconcile()
    (task,) = await it.submissions.reconcile(copy, it.patience)
    assert [task.id] == it.emulator.accepted
    assert await other.submissions.reconcile(copy, it.patience) == ()


@on_both
async def test_reconcile_by_the_clients_own_method() -> None:
    """`egg.reconcile(error)` is the same, with the machine's own clock."""
    emulator = EggEmulator()
    emulator.fail_next(Fault.lost())
    egg = connect(emulator)
    with pytest.raises(SubmissionUncertainError) as caught:
        await egg.generate("An egg")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert [task.id for task in await egg.reconcile(copy)] == emulator.accepted
    assert [task.id for task in await caught.value.reconcile()] == emulator.accepted


@on_both
@pytest.mark.parametrize(
    "other",
    [
        {"model": "nanobanana-pro"},
        {"image_urls": ["https://pictures.test/1.png"]},
    ],
    ids=["another model", "another type"],
)
async def test_tasks_that_cannot_be_it_are_no_candidates(other: Mapping[str, Any]) -> None:
    """Model and type have to fit."""
    it = shop()
    it.emulator.fail_next(Fault.html(502))
    error = await it.doubt(uncertain="raise")
    stranger = connect(it.emulator)
    await stranger.generate("Somebody else's egg", **other)
    assert await error.reconcile() == ()
    await stranger.generate("Somebody else's egg")
    assert len(await error.reconcile()) == 1


# --- verify: the answers ---------------------------------------------------------------------


@on_both
@SKEWS
@pytest.mark.parametrize("fault", DONE.values(), ids=DONE)
async def test_a_lost_task_is_adopted(
    fault: Fault, skew: float, caplog: pytest.LogCaptureFixture
) -> None:
    """One candidate for one open question is it: one POST, one task, and a word about it."""
    it = shop(skew=skew)
    it.emulator.fail_next(fault)
    watch = await it.buy()
    assert [watch.task_id] == it.emulator.accepted
    assert it.posts == 1
    assert it.hub.unfinished == (watch,)
    assert watch.request is not None
    assert f"adopted {watch.task_id}" in caplog.text


@on_both
async def test_a_list_that_lags_is_waited_for() -> None:
    """A task that shows up late is adopted; it is not submitted again before that."""
    it = shop(list_delay=20.0)
    it.emulator.fail_next(Fault.lost())
    watch = await it.buy()
    assert [watch.task_id] == it.emulator.accepted
    assert it.posts == 1


@on_both
@SKEWS
async def test_what_was_never_taken_is_submitted_again(skew: float) -> None:
    """After the list has had time to catch up, and only then."""
    it = shop(skew=skew)
    it.emulator.fail_next(Fault.html(502))
    began = anyio.current_time()
    watch = await it.buy()
    assert [watch.task_id] == it.emulator.accepted
    assert it.posts == 2
    assert it.emulator.requests["GET /v1/tasks"] == len(LOOKS)
    assert anyio.current_time() - began >= sum(LOOKS) == 30.0


@on_both
async def test_without_a_date_the_clocks_are_taken_to_agree() -> None:
    """A service that does not tell its time is believed to have ours."""
    it = shop(dated=False)
    it.emulator.fail_next(Fault.lost())
    assert [(await it.buy()).task_id] == it.emulator.accepted


@on_both
async def test_an_outage_does_not_go_on_for_ever() -> None:
    """A submission is sent as often as the policy allows, and then the doubt is raised."""
    it = shop(patience=Patience(timeout=5.0, retry=RetryPolicy(max_attempts=3)))
    it.emulator.fail_next(*[Fault.html(502)] * 99)
    with anyio.fail_after(1000):
        await it.doubt()
    assert (it.posts, it.emulator.accepted) == (3, [])


@on_both
async def test_a_second_loss_is_verified_as_well() -> None:
    """Submitted again and lost again, it is looked for again."""
    it = shop()
    it.emulator.fail_next(Fault.html(502), Fault.lost())
    assert [(await it.buy()).task_id] == it.emulator.accepted
    assert it.posts == 2


# --- verify: what is not certain is raised ---------------------------------------------------


@on_both
async def test_two_candidates_are_raised() -> None:
    """Nobody can tell which one it is: the error holds both."""
    it = shop()
    stranger = connect(it.emulator)

    async def meddle() -> None:
        await anyio.sleep(1)
        await stranger.generate("Somebody else's egg")

    it.emulator.fail_next(Fault.lost())
    async with anyio.create_task_group() as group:
        group.start_soon(meddle)
        error = await it.doubt()
    assert {task.id for task in error.candidates} == set(it.emulator.accepted)
    assert len(error.candidates) == 2
    assert it.posts == 2
    assert it.hub.unfinished == ()


@on_both
async def test_another_open_doubt_is_raised() -> None:
    """A candidate that could be somebody else's lost task is not adopted."""
    it = shop()
    it.emulator.fail_next(Fault.html(502), Fault.lost())
    errors: list[EggError] = []

    async def buy() -> None:
        errors.append(await it.doubt())

    async with anyio.create_task_group() as group:
        group.start_soon(buy)
        group.start_soon(buy)
    assert len(errors) == 2
    assert (it.posts, len(it.emulator.accepted)) == (2, 1)
    assert it.hub.unfinished == ()


@on_both
async def test_a_doubt_that_was_raised_before_stays_open() -> None:
    """A caller who was told has perhaps not acted yet."""
    it = shop()
    it.emulator.fail_next(Fault.html(502), Fault.lost())
    await it.doubt(uncertain="raise")
    error = await it.doubt()
    assert [task.id for task in error.candidates] == it.emulator.accepted


@on_both
async def test_a_doubt_of_another_model_does_not_matter() -> None:
    """No task could be both's."""
    it = shop()
    it.emulator.fail_next(Fault.html(502), Fault.lost())
    await it.doubt(uncertain="raise", model="nanobanana-pro")
    assert [(await it.buy()).task_id] == it.emulator.accepted


@on_both
async def test_an_old_doubt_does_not_matter() -> None:
    """A doubt of hours ago is about other tasks, and is forgotten at last."""
    it = shop()
    it.emulator.fail_next(Fault.html(502), Fault.lost())
    await it.doubt(uncertain="raise")
    await anyio.sleep(DOUBTED.total_seconds() + 60)
    assert [(await it.buy()).task_id] == it.emulator.accepted
    assert len(it.submissions._doubts) == 0


@on_both
async def test_a_doubt_is_resolved_however_many_others_there_are() -> None:
    """Thousands of losses meanwhile push none out that is still being looked into."""
    it = shop()
    it.emulator.fail_next(Fault.html(502))
    request = GenerationRequest(prompt="Another egg", model="nanobanana")

    async def lose_many() -> None:
        await anyio.sleep(1)
        for _ in range(3000):
            it.submissions._lose(Lost("by chance", now(), now()), purchase(request))

    async with anyio.create_task_group() as group:
        group.start_soon(lose_many)
        watch = await it.buy()
    assert [watch.task_id] == it.emulator.accepted
    assert len(it.submissions._doubts) == 3000


@on_both
async def test_a_doubt_that_was_forgotten_is_not_resolved_by_a_guess() -> None:
    """When looking took so long that others were forgotten too, the doubt is raised."""
    it = shop()
    it.emulator.fail_next(Fault.lost())
    far = now() + timedelta(days=9)
    request = GenerationRequest(prompt="Another egg", model="nanobanana-pro")

    async def forget() -> None:
        await anyio.sleep(1)
        it.submissions._lose(Lost("much later", far, far), purchase(request))

    async with anyio.create_task_group() as group:
        group.start_soon(forget)
        error = await it.doubt()
    assert [task.id for task in error.candidates] == it.emulator.accepted


@on_both
async def test_a_list_that_cannot_be_read_leaves_the_doubt() -> None:
    """The reason is the error's cause; nothing is submitted again."""
    it = shop(patience=Patience(timeout=5.0, retry=RetryPolicy(max_attempts=2)))
    it.emulator.fail_next(Fault.lost())
    it.emulator.fail_next(*[Fault.refused(500)] * 9, on="GET /v1/tasks")
    error = await it.doubt()
    assert isinstance(error.__cause__, EggError)
    assert it.posts == 1


@on_both
async def test_a_list_that_is_not_whole_proves_nothing() -> None:
    """Pages in no order may leave out the very one: neither adopted nor submitted again."""
    it = shop(order="shuffled")
    stranger = connect(it.emulator, limiter=RateLimiter(per_second=None))
    for n in range(250):
        await stranger.generate(f"Egg {n}", model="nanobanana-pro")
    it.emulator.fail_next(Fault.html(502))
    error = await it.doubt()
    assert it.posts == 251
    assert error.candidates == ()


@on_both
async def test_a_list_without_end_proves_nothing() -> None:
    """After a hundred pages the doubt stands."""

    def serve(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(502)
        page = int(request.url.params["page"])
        pages.append(page)
        paging = {"page": page, "per_page": 1, "total": 5000, "total_pages": 5000}
        item = task(f"gen_{page}", created_at=now().isoformat(), model="nanobanana-pro")
        return httpx.Response(200, json=data({"items": [item], "pagination": paging}))

    pages: list[int] = []
    it = shop(wire=Wire(httpx.AsyncClient(transport=httpx.MockTransport(serve))))
    await it.doubt()
    assert pages == list(range(1, PAGES + 1))


@on_both
async def test_a_long_list_is_read_back_to_the_loss_and_no_further() -> None:
    """Newest first, the pages from before the loss are of no interest."""
    it = shop()
    stranger = connect(it.emulator, limiter=RateLimiter(per_second=None))
    for n in range(350):
        await stranger.generate(f"Egg {n}")
    await anyio.sleep(3600)
    it.emulator.fail_next(Fault.lost())
    assert (await it.buy()).task_id == it.emulator.accepted[-1]
    assert it.emulator.requests["GET /v1/tasks"] == 1


@on_both
async def test_a_list_in_another_order_is_read_whole() -> None:
    """Oldest first, the lost task is on the last page."""
    it = shop(order="oldest")
    stranger = connect(it.emulator, limiter=RateLimiter(per_second=None))
    for n in range(250):
        await stranger.generate(f"Egg {n}")
    await anyio.sleep(3600)
    it.emulator.fail_next(Fault.lost())
    assert (await it.buy()).task_id == it.emulator.accepted[-1]
    assert it.emulator.requests["GET /v1/tasks"] == 3


# --- verify: siblings ------------------------------------------------------------------------


@on_both
async def test_a_sibling_under_way_is_never_adopted() -> None:
    """Its task is in the list before its id is known here: the look waits for it."""
    it = shop()
    it.patience = Patience(timeout=30.0)
    watches: dict[str, str] = {}

    async def buy(prompt: str) -> None:
        watches[prompt] = (await it.buy(prompt)).task_id

    it.emulator.fail_next(Fault.html(502), Fault.slow(12.0))
    async with anyio.create_task_group() as group:
        group.start_soon(buy, "lost and not taken")
        await anyio.sleep(0.5)
        group.start_soon(buy, "slow")
    assert set(watches.values()) == set(it.emulator.accepted)
    assert len(set(watches.values())) == 2
    assert it.posts == 3


@on_both
async def test_a_sibling_that_is_lost_meanwhile_is_a_rival() -> None:
    """What was under way during the look, and then lost, makes the candidate anybody's."""
    it = shop()
    it.patience = Patience(timeout=10.0)
    it.emulator.fail_next(Fault.html(502), Fault.slow(60.0))
    errors: list[SubmissionUncertainError] = []

    async def buy() -> None:
        errors.append(await it.doubt())

    async with anyio.create_task_group() as group:
        group.start_soon(buy)
        await anyio.sleep(0.5)
        group.start_soon(buy)
    assert len(errors) == 2
    assert len(it.emulator.accepted) == 1


@on_both
async def test_a_task_that_somebody_holds_is_not_adopted() -> None:
    """Nor is anything bought again: it may be the lost one, or somebody else's."""
    it = shop()
    held: list[Watch] = []
    stranger = connect(it.emulator)

    async def meddle() -> None:
        await anyio.sleep(1)
        task = await stranger.generate("Known by its id")
        held.append(it.hub.watch(task.id))

    it.emulator.fail_next(Fault.html(502))
    async with anyio.create_task_group() as group:
        group.start_soon(meddle)
        error = await it.doubt()
    assert [task.id for task in error.candidates] == it.emulator.accepted
    assert it.posts == 2


@on_both
async def test_a_handle_of_the_lost_task_does_not_buy_it_twice() -> None:
    """A dashboard makes handles of all that is listed."""
    it = shop()
    held: list[Watch] = []

    async def show_all() -> None:
        await anyio.sleep(1)
        held.extend(map(it.hub.watch, it.emulator.accepted))

    it.emulator.fail_next(Fault.lost())
    async with anyio.create_task_group() as group:
        group.start_soon(show_all)
        error = await it.doubt()
    assert [task.id for task in error.candidates] == it.emulator.accepted
    assert it.posts == 1


@on_both
@pytest.mark.parametrize("seed", range(8))
async def test_no_crowd_adopts_a_wrong_task(seed: int) -> None:
    """Under random faults every task belongs to one buyer at most, and no id to two."""
    it = shop(
        seed=seed,
        list_delay=1.5,
        latency=0.2,
        faults={"lost": 0.1, "html_after": 0.05, "idless": 0.05, "slow": 0.1},
    )
    owners: dict[str, int] = {}
    raised: list[SubmissionUncertainError] = []

    async def buy(number: int) -> None:
        await anyio.sleep(number * 4.0)
        try:
            watch = await it.buy(f"Egg {number}", model=f"model-{number % 7}")
        except SubmissionUncertainError as error:
            raised.append(error)
            return
        assert watch.task_id not in owners
        owners[watch.task_id] = number

    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(buy, number)
    for task_id, number in owners.items():
        assert it.emulator.task(task_id).fields["prompt"] == f"Egg {number}"
    assert len(owners) + len(raised) == 40
    assert len(it.emulator.accepted) <= 40


@on_both
async def test_only_so_many_own_ids_are_remembered() -> None:
    """Weeks of buying do not grow without end."""
    it = shop()
    for n in range(REMEMBERED):
        it.submissions._own.add(f"gen_{n}")
    await it.buy()
    assert len(it.submissions._own) == REMEMBERED
    assert "gen_0" not in it.submissions._own


async def test_a_lost_task_is_found_by_the_services_clock_however_far_off_it_is() -> None:
    """The emulator lives in 1970 here; the loss is dated by this machine."""
    emulator = EggEmulator(clock=anyio.current_time)
    emulator.fail_next(Fault.lost())
    async with connect(emulator) as egg:
        task = await egg.generate("An egg", uncertain="verify")

    assert emulator.accepted == [task.id]
