"""The front door: what a client takes, gives, refuses and shows."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
import pytest

from eggapi_async import (
    AsyncEggClient,
    AuthenticationError,
    ConfigurationError,
    DownloadError,
    EggError,
    GenerationRequest,
    GenerationTask,
    InvalidRequestError,
    NotFoundError,
    PollPolicy,
    RateLimiter,
    RetryPolicy,
    SubmissionUncertainError,
    TaskFailedError,
    TaskSnapshot,
    TaskTimeoutError,
)
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.testing import connect
from tests.virtual_time import VirtualLoop, run_virtual
from tests.wire import Wire, json_answer

KEY = "sk-the-secret-key"


def emulated(*, options: Mapping[str, Any] | None = None, **app: Any) -> Any:
    """An emulator on virtual time, and a client of it."""
    emulator = EggEmulator(**{"clock": anyio.current_time} | app)
    return emulator, connect(emulator, **(options or {}))


def echoing(**answers: Any) -> tuple[list[httpx.Request], httpx.AsyncClient]:
    """An HTTP client that answers all with one envelope, and what it was asked."""
    seen: list[httpx.Request] = []
    task = {"id": "gen_1", "status": "completed", "output": {"url": "https://cdn.test/1"}}

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"data": {**task, **answers}, "error": None})

    return seen, httpx.AsyncClient(transport=httpx.MockTransport(answer))


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EGGAPI_API_KEY", raising=False)
    monkeypatch.delenv("EGGAPI_BASE_URL", raising=False)


# --- making one -------------------------------------------------------------------------------


def test_its_signatures_are_the_contract() -> None:
    """Names, order and defaults of what callers write."""
    made = inspect.signature(AsyncEggClient)
    assert list(made.parameters)[:8] == [
        "api_key",
        "base_url",
        "model",
        "limiter",
        "retry",
        "polling",
        "timeout",
        "http_client",
    ]
    assert made.parameters["model"].default == "nanobanana"
    assert made.parameters["timeout"].default == 30.0
    assert made.parameters["retry"].default == RetryPolicy()
    assert made.parameters["polling"].default == PollPolicy()
    assert made.parameters["base_url"].kind is inspect.Parameter.KEYWORD_ONLY
    assert made.parameters["on_event"].default is None
    mapped = inspect.signature(AsyncEggClient.map).parameters
    assert (mapped["in_flight"].default, mapped["timeout"].default) == (200, 600)
    fetched = inspect.signature(AsyncEggClient.download).parameters
    assert (fetched["max_bytes"].default, fetched["overwrite"].default) == (64 * 1024**2, False)
    paged = inspect.signature(AsyncEggClient.tasks_page).parameters
    assert (paged["page"].default, paged["per_page"].default) == (1, 20)


@pytest.mark.parametrize(
    ("argument", "environment", "sent"),
    [
        pytest.param("mine", None, "mine", id="the argument"),
        pytest.param(None, "theirs", "theirs", id="the environment"),
        pytest.param("mine", "theirs", "mine", id="the argument wins"),
        pytest.param(None, "  theirs\n", "theirs", id="blanks around it are none of it"),
    ],
)
async def test_where_the_key_comes_from(
    monkeypatch: pytest.MonkeyPatch, argument: str | None, environment: str | None, sent: str
) -> None:
    """EGGAPI_API_KEY, unless one is given."""
    if environment is not None:
        monkeypatch.setenv("EGGAPI_API_KEY", environment)
    seen, http = echoing()
    async with http, AsyncEggClient(argument, http_client=http) as egg:
        await egg.get_task("gen_1")
    assert seen[0].headers["authorization"] == f"Bearer {sent}"


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(None, id="none at all"),
        pytest.param("", id="empty"),
        pytest.param("two words", id="a space in it"),
        pytest.param("line\nbreak", id="a line break in it"),
        pytest.param("schlüssel", id="beyond ASCII"),
        pytest.param(b"bytes", id="bytes"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused(key: Any) -> None:
    """At once, and without showing it."""
    with pytest.raises(ConfigurationError) as caught:
        AsyncEggClient(key)
    assert isinstance(caught.value, ValueError)
    assert not key or str(key) not in str(caught.value)


@pytest.mark.parametrize("blank", ["", "   "])
def test_a_blank_key_in_the_environment_is_none(
    monkeypatch: pytest.MonkeyPatch, blank: str
) -> None:
    """A variable that is set to nothing is no key."""
    monkeypatch.setenv("EGGAPI_API_KEY", blank)
    with pytest.raises(ConfigurationError, match="api_key"):
        AsyncEggClient()


@pytest.mark.parametrize(
    ("argument", "environment", "asked"),
    [
        pytest.param(None, None, "https://api.eggapi.ai/v1/tasks/gen_1", id="the real service"),
        pytest.param(None, "https://a.test", "https://a.test/v1/tasks/gen_1", id="environment"),
        pytest.param(
            "https://b.test", "https://a.test", "https://b.test/v1/tasks/gen_1", id="argument wins"
        ),
        pytest.param("https://b.test/", None, "https://b.test/v1/tasks/gen_1", id="a slash"),
        pytest.param("https://b.test/egg/", None, "https://b.test/egg/v1/tasks/gen_1", id="a path"),
        pytest.param("https://b.test:8443", None, "https://b.test:8443/v1/tasks/gen_1", id="port"),
        pytest.param(
            "http://127.0.0.1:1", None, "http://127.0.0.1:1/v1/tasks/gen_1", id="loopback"
        ),
        pytest.param("http://localhost", None, "http://localhost/v1/tasks/gen_1", id="localhost"),
        pytest.param("http://[::1]:1", None, "http://[::1]:1/v1/tasks/gen_1", id="IPv6 loopback"),
    ],
)
async def test_where_the_service_is(
    monkeypatch: pytest.MonkeyPatch, argument: str | None, environment: str | None, asked: str
) -> None:
    """EGGAPI_BASE_URL, unless one is given; https, or plain http to this machine."""
    if environment is not None:
        monkeypatch.setenv("EGGAPI_BASE_URL", environment)
    seen, http = echoing()
    async with http, AsyncEggClient(KEY, base_url=argument, http_client=http) as egg:
        await egg.get_task("gen_1")
    assert str(seen[0].url) == asked


@pytest.mark.parametrize(
    "base_url",
    [
        pytest.param("http://api.eggapi.ai", id="plain http"),
        pytest.param("http://127.0.0.1.evil.test", id="a host that only starts like loopback"),
        pytest.param("api.eggapi.ai", id="no scheme"),
        pytest.param("ftp://api.eggapi.ai", id="another scheme"),
        pytest.param("https://", id="no host"),
        pytest.param("https://[::1", id="half an address"),
        pytest.param("https://a.test:x", id="a port that is no number"),
        pytest.param("https://a.test/ b", id="a space in it"),
        pytest.param("https://user@a.test", id="a user"),
        pytest.param("https://user:word@a.test", id="a password"),
        pytest.param("http://user:word@a.test", id="a password over plain http"),
        pytest.param("https://a.test?", id="an empty query"),
        pytest.param("https://a.test?x=1", id="a query"),
        pytest.param("https://a.test#x", id="a fragment"),
    ],
)
@pytest.mark.parametrize("is_argument", [True, False], ids=["given", "in the environment"])
def test_a_base_url_that_no_key_should_go_to_is_refused(
    monkeypatch: pytest.MonkeyPatch, base_url: str, is_argument: bool
) -> None:
    """ConfigurationError, before anything is sent."""
    monkeypatch.setenv("EGGAPI_BASE_URL", base_url)
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        AsyncEggClient(KEY, base_url=base_url if is_argument else None)
    assert "word" not in str(caught.value).replace("password", "")


def test_a_base_url_that_is_no_text_is_refused() -> None:
    """ConfigurationError, like every other."""
    with pytest.raises(ConfigurationError, match="base_url"):
        AsyncEggClient(KEY, base_url=httpx.URL("https://a.test"))  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [0, -1, "30", None, True, float("nan")])
def test_an_impossible_timeout_is_refused(timeout: Any) -> None:
    """Seconds above 0, here and in `with_options`."""
    with pytest.raises(ConfigurationError, match="timeout"):
        AsyncEggClient(KEY, timeout=timeout)
    if timeout is not None:
        with pytest.raises(ConfigurationError, match="timeout"):
            AsyncEggClient(KEY).with_options(timeout=timeout)


def test_what_is_no_http_client_is_refused() -> None:
    """The usual slips: a blocking client, or a URL."""
    for wrong in (httpx.Client(), "https://a.test", object()):
        with pytest.raises(ConfigurationError, match="http_client"):
            AsyncEggClient(KEY, http_client=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"colour": "red"}, {"api_keys": "x"}])
def test_unknown_arguments_are_named(wrong: dict[str, str]) -> None:
    """As by any function, and what failed half-way does not complain when it goes."""
    with pytest.raises(TypeError, match=next(iter(wrong))):
        AsyncEggClient(KEY, **wrong)  # type: ignore[arg-type]


# --- what it shows ----------------------------------------------------------------------------


async def test_its_repr_shows_the_state_and_not_the_key() -> None:
    """How many tasks are unfinished, and how many are awaited."""
    _, egg = emulated()
    async with egg:
        assert repr(egg) == "<AsyncEggClient 0 unfinished, 0 awaited>"
        task = await egg.generate("A cat")
        waiting = asyncio.create_task(task.result())
        await asyncio.sleep(0.1)
        assert repr(egg) == "<AsyncEggClient 1 unfinished, 1 awaited>"
        await waiting
        assert repr(egg) == "<AsyncEggClient 0 unfinished, 0 awaited>"
    secret = AsyncEggClient(KEY)
    assert KEY not in f"{secret!r} {secret.with_options()!r} {vars(secret)}"


async def test_a_task_shows_its_id_and_status() -> None:
    """The repr says what is known."""
    _, egg = emulated()
    async with egg:
        assert repr(egg.task("gen_1")) == "<GenerationTask gen_1 not looked at yet>"
        task = await egg.generate("A cat")
        assert repr(task) == f"<GenerationTask {task.id} pending>"


async def test_stats_count() -> None:
    """Requests by kind, retries, 429s, polls, tasks by end, and what they cost."""
    emulator, egg = emulated()
    emulator.fail_next(Fault.refused(429), Fault.refused(503))
    async with egg:
        result = await egg.run("A cat", model="nanobanana-pro", num_outputs=2)
        with pytest.raises(TaskFailedError):
            await egg.run("A forbidden egg")
        await egg.usage_summary()
        await egg.tasks_page()
        stats = egg.stats
    assert stats.requests["submit"] == 4
    assert (stats.retries, stats.rate_limited) == (2, 1)
    assert (stats.submitted, stats.completed, stats.failed) == (2, 1, 1)
    assert stats.cost == result.cost == Decimal("0.0320")
    assert stats.polls == stats.requests["peek"] > 0
    assert (stats.requests["usage"], stats.requests["list"]) == (1, 1)
    assert sum(stats.requests.values()) == emulator.requests.total()


# --- life -------------------------------------------------------------------------------------


@pytest.mark.real_time
async def test_closing_closes_the_connections_and_may_be_repeated() -> None:
    """`aclose()` and the block do the same; a client made by `with_options` owns nothing."""
    page = {"items": [], "pagination": {"page": 1, "per_page": 20, "total": 0, "total_pages": 0}}
    with Wire(lambda _: json_answer({"data": page, "error": None})) as server:
        async with AsyncEggClient(KEY, base_url=server.url) as egg:
            async with egg.with_options(timeout=5) as other:
                await other.tasks_page()
            await egg.tasks_page()
            assert server.connections == 1
        await server.wait_for(lambda server: server.hung_up == {1})
        await egg.aclose()
        await egg.aclose()


@pytest.mark.real_time
async def test_an_unclosed_client_warns() -> None:
    """ResourceWarning when it is dropped with open connections."""
    with Wire(lambda _: json_answer({"data": [], "error": None})) as server:
        egg = AsyncEggClient(KEY, base_url=server.url)
        await egg.usage_summary()
        with pytest.warns(ResourceWarning, match="unclosed <AsyncEggClient"):
            egg.__del__()
        await egg.aclose()
    AsyncEggClient(KEY).__del__()  # one that was never used has nothing to close


async def test_the_callers_http_client_stays_open() -> None:
    """What was given is used, and is the caller's to close."""
    seen, http = echoing()
    async with AsyncEggClient(KEY, http_client=http) as egg:
        await egg.get_task("gen_1")
    assert len(seen) == 1
    assert not http.is_closed
    await http.aclose()


def test_it_works_on_one_event_loop_after_another() -> None:
    """One client, two `asyncio.run`: a second loop finds all that the first has left."""
    emulator = EggEmulator(clock=lambda: 0.0)
    egg = connect(emulator)

    async def generate(prompt: str) -> str:
        return str((await egg.generate(prompt)).id)

    ids = [run_virtual(generate, "A"), run_virtual(generate, "B")]
    assert [task.id for task in egg.unfinished] == ids == emulator.accepted


async def test_with_options_shares_all_but_the_options() -> None:
    """Connections, limiter, tasks and counters are the same; the options are its own."""
    emulator, egg = emulated(options={"retry": RetryPolicy(max_attempts=1)})
    async with egg:
        pro = egg.with_options(model="nanobanana-pro")
        patient = pro.with_options(retry=RetryPolicy(max_attempts=3))
        emulator.fail_next(Fault.refused(503), Fault.refused(503))
        with pytest.raises(EggError):
            await pro.generate("A cat")
        task = await patient.generate("A cat")
        assert task.request is not None
        assert task.request.model == "nanobanana-pro"
        assert (await egg.generate("A cat")).request == GenerationRequest(prompt="A cat")
        assert egg.stats is pro.stats
        assert {one.id for one in patient.unfinished} == set(emulator.accepted)
        await pro.aclose()
        assert await egg.task(task.id)


async def test_with_options_has_its_own_timeout() -> None:
    """`timeout` bounds one attempt, of that client only."""
    emulator, egg = emulated(latency=10.0, options={"retry": RetryPolicy(max_attempts=1)})
    async with egg:
        with pytest.raises(EggError, match="timeout"):
            await egg.with_options(timeout=5).tasks_page()
        assert (await egg.tasks_page()).total == 0
    assert emulator.requests.total() == 2


# --- generating -------------------------------------------------------------------------------

ALL: dict[str, Any] = {
    "model": "nanobanana-pro",
    "negative_prompt": "dogs",
    "aspect_ratio": "9:16",
    "num_outputs": 2,
    "resolution": "2k",
    "image_urls": ("https://a.test/1.png",),
    "duration": 5,
    "webhook_url": "https://a.test/hook",
    "extra": {"seed": 7},
}


async def test_every_option_reaches_the_service() -> None:
    """All documented fields, and the undocumented ones of `extra`."""
    emulator, egg = emulated()
    async with egg:
        task = await egg.generate("A cat", **ALL)
    fields = dict(emulator.task(task.id).fields)
    expected = {**ALL, "prompt": "A cat", "seed": 7, "image_urls": ["https://a.test/1.png"]}
    assert fields == {name: value for name, value in expected.items() if name != "extra"}
    assert task.request == GenerationRequest(prompt="A cat", **ALL)


async def test_a_request_may_stand_for_the_prompt() -> None:
    """As it is, its model included; options beside it replace its fields."""
    _, egg = emulated(options={"model": "veo3.1"})
    asked = GenerationRequest(prompt="A cat", aspect_ratio="9:16")
    async with egg:
        assert (await egg.generate(asked)).request is asked
        changed = (await egg.generate(asked, resolution="2k", aspect_ratio=None)).request
    assert changed == GenerationRequest(prompt="A cat", aspect_ratio="9:16", resolution="2k")


async def test_none_is_the_same_as_absent() -> None:
    """An option that is None is not sent."""
    emulator, egg = emulated()
    nothing: dict[str, Any] = dict.fromkeys(ALL)
    async with egg:
        task = await egg.generate("A cat", **nothing)
    assert dict(emulator.task(task.id).fields) == {"prompt": "A cat", "model": "nanobanana"}


@pytest.mark.parametrize(
    ("prompt", "options", "field"),
    [
        pytest.param("", {}, "prompt", id="an empty prompt"),
        pytest.param("x" * 2001, {}, "prompt", id="an overlong prompt"),
        pytest.param(None, {}, "prompt", id="no prompt"),
        pytest.param("A cat", {"num_outputs": 5}, "num_outputs", id="a number out of range"),
        pytest.param("A cat", {"colour": "red"}, "colour", id="an unknown option"),
        pytest.param("A cat", {"aspect": "16:9"}, "aspect", id="a slip of the pen"),
        pytest.param("A cat", {"uncertain": "perhaps"}, "uncertain", id="an unknown wish"),
        pytest.param(
            GenerationRequest(prompt="A cat"), {"colour": "red"}, "colour", id="beside a request"
        ),
    ],
)
async def test_a_bad_request_names_its_field(
    prompt: Any, options: dict[str, Any], field: str
) -> None:
    """InvalidRequestError, before anything is sent."""
    emulator, egg = emulated()
    async with egg:
        with pytest.raises(InvalidRequestError) as caught:
            await egg.generate(prompt, **options)
    assert caught.value.field == field
    assert not emulator.requests


async def test_run_has_a_time_limit() -> None:
    """`timeout` bounds the wait; the task is not lost by it."""
    emulator, egg = emulated()
    emulator.fail_next(Fault.stuck())
    async with egg:
        with pytest.raises(TaskTimeoutError) as caught:
            await egg.run("A cat", timeout=50)
        assert [task.id for task in egg.unfinished] == [caught.value.task_id]


async def test_a_lost_submission_can_be_reconciled_by_any_client() -> None:
    """By the error itself, and by `reconcile(error)` of another client."""
    emulator, egg = emulated(clock=time.time)
    emulator.fail_next(Fault.lost())
    async with egg:
        with pytest.raises(SubmissionUncertainError) as caught:
            await egg.generate("A cat")
        [found] = await caught.value.reconcile()
        assert [found.id] == emulator.accepted
    async with connect(emulator) as other:
        assert [task.id for task in await other.reconcile(caught.value)] == emulator.accepted


async def test_uncertain_verify_adopts_the_lost_task() -> None:
    """`uncertain="verify"` of generate and run finds the one task that it must be."""
    emulator, egg = emulated(clock=time.time, speed=1000.0)
    emulator.fail_next(Fault.lost(), Fault.lost())
    async with egg:
        task = await egg.generate("A cat", uncertain="verify")
        assert [task.id] == emulator.accepted
        result = await egg.run("A dog", uncertain="verify")
    assert emulator.accepted == [task.id, result.id]


# --- handles and listing ----------------------------------------------------------------------


async def test_a_handle_for_a_known_id_makes_no_request() -> None:
    """What is known of it is nothing, until it is looked at."""
    emulator, egg = emulated()
    async with egg:
        task = egg.task("gen_1")
        assert (task.id, task.request, task.snapshot, task.status) == ("gen_1", None, None, None)
        assert not task.done
        assert egg.unfinished == ()
    assert not emulator.requests


async def test_a_handle_finds_a_task_of_another_process() -> None:
    """The id is all that has to be stored."""
    emulator, first = emulated()
    async with first:
        task_id = (await first.generate("A cat")).id
    async with connect(emulator) as second:
        result = await second.task(task_id)
    assert (result.id, result.status) == (task_id, "completed")


@pytest.mark.parametrize(
    "task_id", ["", "a/b", "../v1/usage", "..", ".", "a b", "a?b", "é", None, 7, "x" * 201]
)
async def test_an_id_that_cannot_be_one_is_refused(task_id: Any) -> None:
    """It never becomes a path of the API."""
    emulator, egg = emulated()
    async with egg:
        with pytest.raises(InvalidRequestError, match="task_id"):
            egg.task(task_id)
        with pytest.raises(InvalidRequestError, match="task_id"):
            await egg.get_task(task_id)
    assert not emulator.requests


async def test_get_task_is_one_get() -> None:
    """The task as it is now; NotFoundError for one that is not there."""
    emulator, egg = emulated()
    async with egg:
        task = await egg.generate("A cat")
        shown = await egg.get_task(task.id)
        assert (shown.id, shown.status) == (task.id, "pending")
        assert emulator.requests["GET /v1/tasks/{id}"] == 1
        with pytest.raises(NotFoundError) as caught:
            await egg.get_task("gen_none")
    assert caught.value.status_code == 404


async def test_tasks_are_listed_each_once_though_pages_shift() -> None:
    """Tasks that are submitted while the list is read push old ones on, and show none twice."""
    emulator, egg = emulated()
    async with egg:
        for n in range(150):
            await egg.generate(f"cat {n}")
        first = list(emulator.accepted)
        seen = []
        async for task in egg.tasks():
            seen.append(task.id)
            if len(seen) == 50:
                await egg.generate("one more")
    assert seen == first[::-1]


@pytest.mark.parametrize(
    ("max_items", "found", "requests"),
    [
        pytest.param(None, 150, 2, id="all"),
        pytest.param(0, 0, 0, id="none"),
        pytest.param(-1, 0, 0, id="less than none"),
        pytest.param(1, 1, 1, id="one"),
        pytest.param(100, 100, 1, id="just a page"),
        pytest.param(101, 101, 2, id="a page and one"),
        pytest.param(1000, 150, 2, id="more than there are"),
    ],
)
async def test_max_items_bounds_the_list_and_the_requests(
    max_items: int | None, found: int, requests: int
) -> None:
    """No page is read that no item is taken from."""
    emulator, egg = emulated()
    async with egg:
        for n in range(150):
            await egg.generate(f"cat {n}")
        assert len([task async for task in egg.tasks(max_items=max_items)]) == found
    assert emulator.requests["GET /v1/tasks"] == requests


async def test_an_empty_page_ends_the_list() -> None:
    """Though the service speaks of more pages."""
    page = {"items": [], "pagination": {"page": 1, "per_page": 100, "total": 9, "total_pages": 9}}
    seen, http = echoing(**page)
    async with http, AsyncEggClient(KEY, http_client=http) as egg:
        assert [task async for task in egg.tasks()] == []
    assert len(seen) == 1


@pytest.mark.parametrize("options", [{"page": 0}, {"per_page": 0}, {"per_page": 101}])
async def test_an_impossible_page_is_refused(options: dict[str, int]) -> None:
    """Pages count from 1, and hold 100 at most."""
    emulator, egg = emulated()
    async with egg:
        with pytest.raises(InvalidRequestError, match=next(iter(options))):
            await egg.tasks_page(**options)
    assert not emulator.requests


async def test_usage_reads_all_pages() -> None:
    """Each record once; the summary by model."""
    _, egg = emulated(speed=1000.0)
    async with egg:
        outcomes = await egg.map(f"cat {n}" for n in range(120))
        ids = [record.raw["task_id"] async for record in egg.usage()]
        [summary] = await egg.usage_summary()
    assert sorted(ids) == sorted(outcome.unwrap().id for outcome in outcomes)
    assert summary.total_cost == Decimal("1.20")


async def test_unfinished_is_what_a_bot_must_store() -> None:
    """Submitted here and not known to have ended; handles from ids are not in it."""
    emulator, egg = emulated()
    async with egg:
        first, second = await egg.generate("A"), await egg.generate("B")
        failing = await egg.generate("A forbidden egg")
        egg.task("gen_of_somebody_else")
        assert [task.id for task in egg.unfinished] == [first.id, second.id, failing.id]
        assert all(isinstance(task, GenerationTask) for task in egg.unfinished)
        assert [task.request for task in egg.unfinished[:2]] == [first.request, second.request]
        await first
        with pytest.raises(TaskFailedError):
            await failing
        assert [task.id for task in egg.unfinished] == [second.id]
        await anyio.sleep(1000)
        await second.refresh()
        assert egg.unfinished == ()
    assert len(emulator.accepted) == 3


# --- waiting ----------------------------------------------------------------------------------


async def test_any_number_may_wait_for_one_task() -> None:
    """A hundred waiters cost as many polls as one."""

    async def polls(waiters: int) -> int:
        emulator, egg = emulated()
        async with egg:
            task = await egg.generate("A cat", resolution="4k")
            handles = [task, *(egg.task(task.id) for _ in range(waiters - 1))]
            results = await asyncio.gather(*handles)
        assert len({id(result) for result in results}) == 1
        return int(emulator.requests["GET /v1/tasks/{id}"] + emulator.requests["GET /v1/tasks"])

    assert await polls(100) == await polls(1) <= 12


async def test_two_thousand_are_gathered() -> None:
    """`asyncio.gather` over 2,000 tasks: all come, and the polls are shared."""
    emulator, egg = emulated(options={"limiter": RateLimiter(per_second=None)})
    async with egg:
        tasks = await asyncio.gather(*(egg.generate(f"cat {n}") for n in range(2000)))
        started = anyio.current_time()
        results = await asyncio.gather(*(task.result() for task in tasks))
        seconds = anyio.current_time() - started
    assert [result.id for result in results] == [task.id for task in tasks]
    assert all(result.url for result in results)
    assert len(set(emulator.accepted)) == 2000
    assert egg.stats.polls < 2000 * seconds / 5 / 4
    assert egg.unfinished == ()


async def test_a_final_result_is_kept() -> None:
    """Awaiting again costs nothing, also by another handle, and a timeout of 0 is enough."""
    emulator, egg = emulated()
    async with egg:
        task = await egg.generate("A cat")
        result = await task
        before = emulator.requests.total()
        assert await task is result
        assert await egg.task(task.id).result(timeout=0) is result
        assert (task.snapshot, task.status, task.done) == (result, "completed", True)
        assert emulator.requests.total() == before


async def test_a_task_that_ends_with_its_submission_needs_no_poll() -> None:
    """200 with a completed task in the answer to the POST."""
    emulator, egg = emulated()
    emulator.fail_next(Fault.sync())
    async with egg:
        task = await egg.generate("A cat")
        assert task.done
        assert (await task).url
        assert egg.unfinished == ()
    assert emulator.requests.total() == 1


@pytest.mark.parametrize("timeout", [0, 1, 7.5])
async def test_result_stops_waiting_in_time(timeout: float) -> None:
    """TaskTimeoutError after just that long, with the id and the last snapshot; then success."""
    _, egg = emulated()
    async with egg:
        task = await egg.generate("A cat", resolution="4k")
        started = anyio.current_time()
        with pytest.raises(TaskTimeoutError, match=task.id) as caught:
            await task.result(timeout=timeout)
        assert anyio.current_time() - started == timeout
        assert isinstance(caught.value, TimeoutError)
        assert (caught.value.task_id, caught.value.timeout) == (task.id, timeout)
        assert caught.value.snapshot is not None
        assert caught.value.snapshot is task.snapshot
        assert (await task.result(timeout=None)).is_completed


async def test_a_timeout_before_anything_was_seen_has_no_snapshot() -> None:
    """A handle that was never looked at knows nothing to show."""
    emulator, egg = emulated(latency=5.0)
    async with egg:
        with pytest.raises(TaskTimeoutError) as caught:
            await egg.task("gen_1").result(timeout=1)
    assert caught.value.snapshot is None
    assert emulator.requests.total() == 1


async def test_what_comes_at_the_last_moment_is_taken() -> None:
    """A result that arrives together with the end of the wait is no time-out."""
    emulator, egg = emulated()
    async with egg:
        task = await egg.generate("A cat")
        waiting = asyncio.create_task(task.result(timeout=1000))
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        done = TaskSnapshot(id=task.id, status="completed")
        loop.call_at(loop.time() + 999, egg._engines.hub.show, done)
        emulator.fail_next(*[Fault.slow(10_000)] * 50, on="GET")
        assert (await waiting).id == task.id


async def test_asyncios_own_time_limits_work() -> None:
    """`asyncio.timeout` and `wait_for` end a wait, and the task can be awaited again."""
    _, egg = emulated()
    async with egg:
        task = await egg.generate("A cat", resolution="4k")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await task
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task.result(), 1)
        assert (await task).is_completed


async def test_a_task_group_may_hold_them_all() -> None:
    """One failure cancels the others, which stay unfinished and can be awaited again."""
    _, egg = emulated()

    async def together(*tasks: GenerationTask) -> None:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(task.result())

    async with egg:
        good = [await egg.generate("A cat", resolution="4k") for _ in range(5)]
        bad = await egg.generate("A forbidden egg")
        with pytest.raises(ExceptionGroup) as caught:
            await together(*good, bad)
        assert caught.group_contains(TaskFailedError)
        await together(*good)
        assert egg.unfinished == ()


async def test_a_refused_key_ends_the_wait() -> None:
    """401 is nothing that passes."""
    emulator, egg = emulated()
    async with egg:
        task = await egg.generate("A cat")
        emulator.fail_next(Fault.refused(401), on="GET")
        with pytest.raises(AuthenticationError):
            await task


@pytest.mark.parametrize(
    ("prompt", "error", "is_moderation"),
    [
        pytest.param("A forbidden egg", "Content moderation", True, id="by moderation"),
        pytest.param("A broken egg", "Provider error", False, id="by a provider"),
    ],
)
async def test_a_failed_generation_says_why(prompt: str, error: str, is_moderation: bool) -> None:
    """The service's own text, and whether the content was refused."""
    _, egg = emulated()
    async with egg:
        with pytest.raises(TaskFailedError, match=error) as caught:
            await egg.run(prompt)
    assert caught.value.is_moderation is is_moderation
    assert caught.value.task.id == caught.value.task_id
    assert caught.value.task.error is not None
    assert egg.stats.failed == 1


async def test_updates_begin_with_what_is_known_and_end_with_the_end() -> None:
    """Every change once; a second look at a finished task is its last snapshot."""
    _, egg = emulated()
    async with egg:
        task = await egg.generate("A cat", resolution="4k")
        known = task.snapshot
        seen = [snapshot async for snapshot in task.updates()]
        assert seen[0] is known
        assert [s.status for s in seen] == ["pending", "processing", "completed"]
        assert [s.is_final for s in seen] == [False, False, True]
        assert [snapshot async for snapshot in task.updates()] == seen[-1:]


async def test_updates_of_a_handle_begin_with_a_look() -> None:
    """Nothing is known of it: the first update is what the service says."""
    emulator, egg = emulated()
    async with egg:
        task_id = (await egg.generate("A cat")).id
    async with connect(emulator) as other:
        statuses = [snapshot.status async for snapshot in other.task(task_id).updates()]
    assert statuses[0] == "pending"
    assert statuses[-1] == "completed"


async def test_updates_of_a_failed_task_end_without_an_error() -> None:
    """The last snapshot says that it failed."""
    _, egg = emulated()
    async with egg:
        task = await egg.generate("A forbidden egg")
        last = [snapshot async for snapshot in task.updates()][-1]
    assert last.status == "failed"


async def test_a_slow_watcher_gets_the_latest() -> None:
    """Whoever looks seldom sees the newest, and the end."""
    _, egg = emulated()
    async with egg:
        task = await egg.generate("A cat")
        other = asyncio.create_task(task.result())
        seen = []
        async for snapshot in task.updates():
            seen.append(snapshot.status)
            await asyncio.sleep(1000)
        await other
    assert seen == ["pending", "completed"]


async def test_refresh_asks_once_now() -> None:
    """One GET; what it shows is known to all handles."""
    emulator, egg = emulated()
    async with egg:
        task = await egg.generate("A cat")
        await anyio.sleep(1000)
        assert task.status == "pending"
        shown = await task.refresh()
        assert shown.is_completed
        assert task.snapshot is egg.task(task.id).snapshot is shown
        assert emulator.requests["GET /v1/tasks/{id}"] == 1
        assert await task is shown
        with pytest.raises(NotFoundError):
            await egg.task("gen_none").refresh()


# --- files ------------------------------------------------------------------------------------


async def test_save_waits_within_its_time(tmp_path: Path) -> None:
    """`timeout` bounds the wait; `overwrite` is passed on."""
    _, egg = emulated()
    async with egg:
        task = await egg.generate("A cat")
        with pytest.raises(TaskTimeoutError):
            await task.save(tmp_path, timeout=1)
        [path] = await task.save(tmp_path / "cat.png")
        path.write_bytes(b"mine")
        with pytest.raises(EggError, match="exists already"):
            await task.save(path)
        assert await task.save(path, overwrite=True) == [path]
        assert path.read_bytes() != b"mine"


async def test_a_failed_task_is_not_saved(tmp_path: Path) -> None:
    """Its failure is raised, and no folder is made."""
    _, egg = emulated()
    async with egg:
        task = await egg.generate("A forbidden egg")
        with pytest.raises(TaskFailedError):
            await task.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_download_takes_a_snapshot_or_a_url(tmp_path: Path) -> None:
    """Both are saved; `max_bytes` bounds both."""
    _, egg = emulated()
    async with egg:
        result = await egg.run("A cat")
        [named] = await egg.download(result, tmp_path)
        [plain] = await egg.download(result.url, tmp_path)
        assert named.read_bytes() == plain.read_bytes()
        assert named != plain
        with pytest.raises(EggError, match="max_bytes=10"):
            await egg.download(result, tmp_path / "new", max_bytes=10)


async def test_an_expired_url_is_renewed(tmp_path: Path) -> None:
    """A stored snapshot whose URL is no longer served is saved by the task's URL of today."""
    emulator, egg = emulated()
    async with egg:
        result = await egg.run("A cat")
        stored = attrs.evolve(result, urls=(f"{result.url}.expired",))
        before = emulator.requests["GET /v1/tasks/{id}"]
        assert await egg.download(stored, tmp_path)
        assert emulator.requests["GET /v1/tasks/{id}"] == before + 1
    assert emulator.leaks == []


async def test_map_saves_into_the_working_folder_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `save_to` nothing is stored; `save_to="."` is the folder one is in."""
    monkeypatch.chdir(tmp_path)
    _, egg = emulated()
    async with egg:
        assert (await egg.map(["A cat"]))[0].paths == ()
        assert list(tmp_path.iterdir()) == []
        [outcome] = await egg.map(["A cat"], save_to=".")
    assert [path.name for path in tmp_path.iterdir()] == [path.name for path in outcome.paths]


async def test_only_snapshots_and_urls_can_be_downloaded() -> None:
    """A task that was not awaited has no output yet: it is named, not an AttributeError."""
    async with connect(EggEmulator()) as egg:
        with pytest.raises(InvalidRequestError, match="source: expected a TaskSnapshot"):
            await egg.download(egg.task("gen_a"), "out/")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"limiter": 5}, {"retry": 5}, {"polling": 5}, {"model": 5}])
def test_a_part_of_the_wrong_kind_is_refused_by_name(wrong: dict[str, Any]) -> None:
    """At once, not at the first call."""
    with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))}: expected a .*, got int"):
        AsyncEggClient("key", **wrong)


@pytest.mark.parametrize("timeout", ["5", -1, True, float("nan")], ids=repr)
async def test_an_impossible_timeout_is_refused_before_anything_is_bought(timeout: Any) -> None:
    """The error names it; a picture that nobody could wait for would be billed all the same."""
    emulator = EggEmulator()
    async with connect(emulator) as egg:
        with pytest.raises(InvalidRequestError, match="timeout: expected seconds"):
            await egg.run("An egg", timeout=timeout)
        with pytest.raises(InvalidRequestError, match="timeout: expected seconds"):
            egg.map(["An egg"], timeout=timeout)
        with pytest.raises(InvalidRequestError, match="timeout: expected seconds"):
            await egg.task("gen_a").result(timeout=timeout)

    assert emulator.accepted == []


async def test_a_batch_that_cannot_be_saved_is_refused_before_anything_is_bought(
    tmp_path: Path,
) -> None:
    """A file is no folder, nor is a folder a journal, and a number is no path."""
    file = tmp_path / "one.txt"
    file.write_text("taken")
    emulator = EggEmulator()
    async with connect(emulator) as egg:
        for wrong in (file, str(file)):
            with pytest.raises(InvalidRequestError, match="save_to: expected a folder"):
                await egg.map(["An egg"], save_to=wrong)
        with pytest.raises(InvalidRequestError, match="save_to: expected a folder"):
            egg.map(["An egg"], save_to=5)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequestError, match="journal: expected the path of a file"):
            await egg.map(["An egg"], journal=tmp_path)

    assert emulator.accepted == []


@pytest.mark.parametrize("url", ["https://xn--a.invalid/x.png", "https://xn--a.invalid"])
async def test_a_host_name_that_cannot_be_is_an_error_of_ours(url: str, tmp_path: Path) -> None:
    """The codec's own exceptions do not come through."""
    async with connect(EggEmulator()) as egg:
        with pytest.raises(DownloadError):
            await egg.download(url, tmp_path)
