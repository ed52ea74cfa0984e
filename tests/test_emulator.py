"""The emulated API: tasks from submission to end, the list, usage, limits and routing."""

from __future__ import annotations

import asyncio
import re
import statistics
import sys
import time
from collections.abc import MutableMapping
from decimal import Decimal
from typing import Any

import anyio
import httpx
import pytest
import trio
from trio.testing import MockClock

from eggapi_async.emulator import EggEmulator
from tests.emulated import KEY, ORIGIN, desk, error_of


async def test_a_submission_is_answered_with_202_and_a_pending_task() -> None:
    """POST /v1/generate answers 202 with exactly the documented fields of a new task."""
    async with desk(start=1705314600.9) as here:
        answer = await here.post(model="nanobanana-pro")
    data = answer.json()["data"]
    assert answer.status_code == 202
    assert re.fullmatch("gen_[0-9a-f]{24}", data.pop("id"))
    assert data == {
        "status": "pending",
        "model": "nanobanana-pro",
        "type": "image_generate",
        "cost": "$0.00",
        "created_at": "2024-01-15T10:30:00Z",
    }


async def test_a_task_goes_from_pending_over_processing_to_completed() -> None:
    """Fields appear as the task goes on: first started_at, then output, cost and completed_at."""
    async with desk() as here:
        task_id = await here.submit(model="nanobanana-pro")
        life = here.emulator.task(task_id)
        here.clock.now = life.started_at - 0.001
        assert (await here.task(task_id))["status"] == "pending"
        here.clock.now = life.completed_at - 0.001
        processing = await here.task(task_id)
        completed = await here.finish(task_id)
    assert processing["status"] == "processing"
    assert set(processing) == {
        "id", "status", "model", "type", "cost", "created_at", "started_at",
    }  # fmt: skip
    assert completed["status"] == "completed"
    assert completed["cost"] == "$0.0160"
    assert completed["output"] == {"url": f"{ORIGIN}/outputs/{task_id[4:]}-1.png"}
    assert completed["completed_at"] == time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(life.completed_at)
    )


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        pytest.param(
            "A Forbidden cat",
            "Content moderation: prompt contains prohibited content",
            id="a forbidden prompt fails in moderation",
        ),
        pytest.param(
            "A broken cat",
            "Provider error: all providers are unavailable",
            id="a broken prompt fails at the provider",
        ),
    ],
)
async def test_certain_words_make_a_task_fail(prompt: str, error: str) -> None:
    """A failed task is HTTP 200 with the error's text, no output, and no cost."""
    async with desk() as here:
        failed = await here.finish(await here.submit(prompt=prompt))
    assert (failed["status"], failed["error"], failed["cost"]) == ("failed", error, "$0.00")
    assert "output" not in failed
    assert "completed_at" in failed


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        pytest.param({}, "$0.0100", id="one image of nanobanana"),
        pytest.param({"num_outputs": 3}, "$0.0300", id="every output is billed"),
        pytest.param({"resolution": "4k"}, "$0.0100", id="nanobanana costs the same at 4k"),
        pytest.param({"model": "nanobanana-pro", "resolution": "2k"}, "$0.0160", id="pro at 2k"),
        pytest.param(
            {"model": "nanobanana-pro", "resolution": "4k", "num_outputs": 2},
            "$0.0640",
            id="pro costs double at 4k",
        ),
    ],
)
async def test_completed_tasks_cost_the_published_prices(fields: dict[str, Any], cost: str) -> None:
    """The price follows from model, resolution and number of outputs."""
    async with desk() as here:
        assert (await here.finish(await here.submit(**fields)))["cost"] == cost


async def test_several_outputs_are_listed_in_urls() -> None:
    """With more than one output, `url` is the first of `urls`."""
    async with desk() as here:
        task = await here.finish(await here.submit(num_outputs=4))
    assert len(set(task["output"]["urls"])) == 4
    assert task["output"]["url"] == task["output"]["urls"][0]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        pytest.param({"image_urls": ["https://a.test/1.png"]}, "image_edit", id="image_urls edit"),
        pytest.param({"image_urls": []}, "image_generate", id="no image URLs, no edit"),
        pytest.param({"model": "veo3.1"}, "video_generate", id="veo makes videos"),
    ],
)
async def test_the_type_follows_from_the_fields(fields: dict[str, Any], kind: str) -> None:
    """`type` says what sort of generation was asked for."""
    async with desk() as here:
        assert (await here.post(**fields)).json()["data"]["type"] == kind


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        pytest.param({"duration": 30}, 30, id="as long as asked for"),
        pytest.param({}, 8, id="8 seconds unless asked for"),
    ],
)
async def test_a_video_has_a_duration(fields: dict[str, Any], seconds: int) -> None:
    """The output of a video model is an mp4 file and says how long it is."""
    async with desk() as here:
        task = await here.finish(await here.submit(model="veo3.1", **fields))
    assert task["output"]["duration_seconds"] == seconds
    assert task["output"]["url"].endswith("-1.mp4")


async def test_absent_fields_can_be_sent_as_null() -> None:
    """With output_null_fields every field is there from the start."""
    async with desk(output_null_fields=True) as here:
        data = (await here.post()).json()["data"]
    absent = {name for name, value in data.items() if value is None}
    assert absent == {"output", "error", "started_at", "completed_at"}


async def test_durations_are_like_the_published_ones() -> None:
    """12 s in the median, 95 % less than 25 s; 10 to 20 % of it is spent in the queue."""
    async with desk() as here:
        lives = [here.emulator.task(await here.submit()) for _ in range(600)]
    took = [life.completed_at - life.created_at for life in lives]
    assert 11 < statistics.median(took) < 13
    assert 0.92 < sum(seconds < 25 for seconds in took) / 600 < 0.98
    waits = [
        (one.started_at - one.created_at) / all_ for one, all_ in zip(lives, took, strict=True)
    ]
    assert 0.1 <= min(waits) <= max(waits) <= 0.2


async def _seconds(fields: dict[str, Any], **options: Any) -> float:
    async with desk(**options) as here:
        return here.emulator.task(await here.submit(**fields)).completed_at


async def test_speed_divides_and_4k_doubles_the_duration() -> None:
    """The same seed gives the same task, but for what was asked to be different."""
    normal = await _seconds({})
    assert await _seconds({}) == normal
    assert await _seconds({}, speed=10) == pytest.approx(normal / 10)
    assert await _seconds({"resolution": "4k"}) == pytest.approx(normal * 2)
    assert await _seconds({}, seed=1) != normal


async def test_the_view_of_a_task_tells_its_fields_and_cannot_change_them() -> None:
    """`task(id)` shows the request's body, unknown fields included, read only."""
    async with desk() as here:
        view = here.emulator.task(await here.submit(style="oil"))
        with pytest.raises(KeyError):
            here.emulator.task("gen_nothing")
    assert view.fields == {"model": "nanobanana", "prompt": "A cat", "style": "oil"}
    with pytest.raises(TypeError, match="item assignment"):
        view.fields["style"] = "ink"  # type: ignore[index]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        pytest.param("newest", [3, 2, 1, 0], id="newest first"),
        pytest.param("oldest", [0, 1, 2, 3], id="oldest first"),
    ],
)
async def test_the_list_has_the_asked_order(order: str, expected: list[int]) -> None:
    """Items come in the order of the option, over pages too."""
    async with desk(order=order) as here:
        ids = [await here.submit() for _ in range(4)]
        first = await here.data("/v1/tasks?page=1&per_page=3")
        last = await here.data("/v1/tasks?page=2&per_page=3")
        beyond = await here.data("/v1/tasks?page=999999999&per_page=3")
    assert [item["id"] for item in first["items"] + last["items"]] == [ids[n] for n in expected]
    assert first["pagination"] == {"page": 1, "per_page": 3, "total": 4, "total_pages": 2}
    assert beyond["items"] == []


async def test_in_the_order_of_completion_open_tasks_come_last() -> None:
    """order="completed" puts what finished last first, then open tasks, newest first."""
    async with desk(order="completed") as here:
        ids = [await here.submit() for _ in range(12)]
        lives = sorted((here.emulator.task(one) for one in ids), key=lambda one: one.completed_at)
        here.clock.now = lives[6].completed_at
        listed = await here.listed()
    open_ids = {life.id for life in lives[7:]}
    assert listed[:7] == [life.id for life in reversed(lives[:7])]
    assert listed[7:] == [one for one in reversed(ids) if one in open_ids]


async def test_a_shuffled_list_has_another_order_each_time() -> None:
    """order="shuffled" shows the same tasks, at every request in an order of its own."""
    async with desk(order="shuffled") as here:
        ids = [await here.submit() for _ in range(30)]
        lists = [await here.listed("?per_page=100") for _ in range(2)]
        half = await here.listed("?per_page=20&page=2")
    assert [sorted(one) for one in lists] == [sorted(ids)] * 2
    assert lists[0] != lists[1]
    assert len(set(half)) == 10


async def test_an_empty_list_has_no_pages() -> None:
    """Without tasks there are 0 pages, and 20 items per page by default."""
    async with desk() as here:
        data = await here.data("/v1/tasks")
    pagination = {"page": 1, "per_page": 20, "total": 0, "total_pages": 0}
    assert data == {"items": [], "pagination": pagination}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        pytest.param("page=0", "page", id="pages count from 1"),
        pytest.param("page=-1", "page", id="no negative page"),
        pytest.param("page=", "page", id="no empty page"),
        pytest.param("page=1.5", "page", id="no broken page"),
        pytest.param("page=" + "9" * 5000, "page", id="no astronomical page"),
        pytest.param("per_page=0", "per_page", id="at least one item per page"),
        pytest.param("per_page=101", "per_page", id="at most 100 items per page"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/usage"])
async def test_pages_outside_of_the_limits_are_refused(path: str, query: str, field: str) -> None:
    """400 VALIDATION_ERROR names the parameter."""
    async with desk() as here:
        answer = await here.get(f"{path}?{query}")
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    assert answer.json()["error"]["message"].startswith(f"{field} ")


async def test_a_lagging_list_shows_a_task_later() -> None:
    """With list_delay a task is known by its id at once, and in the list after the delay."""
    async with desk(list_delay=5) as here:
        task_id = await here.submit()
        here.clock.now = 4.9
        assert await here.listed() == []
        assert (await here.task(task_id))["id"] == task_id
        here.clock.now = 5
        assert await here.listed() == [task_id]


async def test_a_lagging_replica_does_not_know_a_new_task() -> None:
    """With get_delay a new task is answered with 404 until the delay is over."""
    async with desk(get_delay=3) as here:
        task_id = await here.submit()
        here.clock.now = 2.9
        assert error_of(await here.get(f"/v1/tasks/{task_id}")) == (404, "NOT_FOUND")
        here.clock.now = 3
        assert (await here.task(task_id))["id"] == task_id


async def test_tasks_of_others_appear_as_time_goes_on() -> None:
    """Foreign tasks are in the list, in time with those of callers, but are never accepted."""
    async with desk(foreign_per_second=0.5) as here:
        here.clock.now = 10
        own = await here.submit()
        here.clock.now = 20
        listed = await here.listed()
        foreign = await here.task(listed[0])
        models = {item["model"] for item in (await here.data("/v1/tasks"))["items"]}
    assert here.emulator.accepted == [own]
    assert listed.index(own) == 5
    assert len(listed) == 11
    assert foreign["created_at"] == "1970-01-01T00:00:20Z"
    assert models == {"nanobanana", "nanobanana-pro"}


async def test_tasks_of_others_do_not_change_those_of_callers() -> None:
    """A caller's tasks have the same ids and durations whoever else uses the account."""
    async with desk() as alone, desk(foreign_per_second=3) as together:
        together.clock.now = alone.clock.now = 50
        ids = await alone.submit(), await together.submit()
        lives = alone.emulator.task(ids[0]), together.emulator.task(ids[1])
    assert lives[0] == lives[1]


async def test_some_tasks_of_others_fail() -> None:
    """Other programs have failures too, which are in the list and not in the usage."""
    async with desk(foreign_per_second=1) as here:
        here.clock.now = 1000
        items = [item for n in range(1, 11) for item in await _page(here, n)]
        usage = await here.data("/v1/usage")
    ends = [item["status"] for item in items]
    assert len(items) == 1000
    assert 10 < ends.count("failed") < 80
    assert usage["pagination"]["total"] == ends.count("completed")


async def _page(here: Any, number: int) -> Any:
    return (await here.data(f"/v1/tasks?per_page=100&page={number}"))["items"]


async def test_usage_follows_from_completed_tasks() -> None:
    """Open and failed tasks are neither in the records nor in the summary."""
    async with desk() as here:
        for fields in ({"num_outputs": 2}, {"model": "nanobanana-pro"}, {"prompt": "broken"}, {}):
            await here.submit(**fields)
        here.clock.now = 500
        await here.submit()
        records = await here.data("/v1/usage?per_page=2")
        summary = await here.data("/v1/usage/summary")
    assert records["pagination"]["total"] == 3
    assert [set(one) for one in records["items"]] == [
        {"task_id", "model", "type", "units", "cost", "created_at"}
    ] * 2
    assert summary == [
        {"model": "nanobanana", "total_units": 3, "total_cost": "$0.0300", "request_count": 2},
        {"model": "nanobanana-pro", "total_units": 1, "total_cost": "$0.0160", "request_count": 1},
    ]


async def test_a_balance_covers_open_and_completed_tasks_but_no_failed_ones() -> None:
    """403 INSUFFICIENT_BALANCE as long as the rest of the balance does not cover the result."""
    async with desk(balance=Decimal("0.03")) as here:
        failing = await here.submit(prompt="forbidden", num_outputs=2)
        done = await here.submit()
        assert error_of(await here.post()) == (403, "INSUFFICIENT_BALANCE")
        await here.finish(failing)
        await here.finish(done)
        assert error_of(await here.post(num_outputs=3)) == (403, "INSUFFICIENT_BALANCE")
        assert (await here.post(num_outputs=2)).status_code == 202
    assert len(here.emulator.accepted) == 3


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no key"),
        pytest.param({"Authorization": "Bearer "}, id="an empty key"),
        pytest.param({"Authorization": "Basic right"}, id="another scheme"),
        pytest.param({"Authorization": "right"}, id="no scheme"),
        pytest.param({"Authorization": "Bearer wrong"}, id="a wrong key"),
    ],
)
async def test_requests_without_a_valid_key_are_refused(headers: dict[str, str]) -> None:
    """401 UNAUTHORIZED, and nothing is done."""
    async with desk(api_keys=["right", "other"]) as here:
        del here.http.headers["Authorization"]
        fields = {"model": "m", "prompt": "p"}
        answer = await here.http.post("/v1/generate", headers=headers, json=fields)
    assert error_of(answer) == (401, "UNAUTHORIZED")
    assert here.emulator.accepted == []


async def test_a_valid_key_is_taken_whatever_the_case_of_the_scheme() -> None:
    """Authentication schemes have no case (RFC 9110)."""
    async with desk(api_keys=["right"]) as here:
        assert (await here.get("/v1/tasks", Authorization="bearer right")).status_code == 200


async def test_too_many_requests_per_second_and_key_are_refused() -> None:
    """A bucket of one second's worth for each key; 429 RATE_LIMITED without Retry-After."""
    async with desk(per_second=2) as here:
        statuses = [(await here.get("/v1/tasks")).status_code for _ in range(3)]
        refused = await here.post()
        other = await here.get("/v1/tasks", Authorization="Bearer other")
        here.clock.now = 0.5
        later = [(await here.get("/v1/tasks")).status_code for _ in range(2)]
        here.clock.now = 60
        burst = [(await here.get("/v1/tasks")).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert error_of(refused) == (429, "RATE_LIMITED")
    assert "Retry-After" not in refused.headers
    assert other.status_code == 200
    assert later == [200, 429]
    assert burst == [200, 200, 429]
    assert here.emulator.refusals == 4
    assert here.emulator.accepted == []


async def test_a_429_can_carry_a_retry_after() -> None:
    """retry_after is sent with 429, and with nothing else."""
    async with desk(per_second=1, retry_after=1.5) as here:
        fine, refused = await here.get("/v1/tasks/x"), await here.get("/v1/tasks")
    assert "Retry-After" not in fine.headers
    assert refused.headers["Retry-After"] == "1.5"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        pytest.param("GET", "/", (404, "NOT_FOUND"), id="the root"),
        pytest.param("GET", "/v1/tasks/", (404, "NOT_FOUND"), id="a task without an id"),
        pytest.param("GET", "/v1/tasks/gen_1/x", (404, "NOT_FOUND"), id="below a task"),
        pytest.param("GET", "/v1/tasks/gen_1", (404, "NOT_FOUND"), id="an unknown task"),
        pytest.param("GET", "/v1/generate", (405, "BAD_REQUEST"), id="generate takes POST"),
        pytest.param("DELETE", "/v1/tasks/gen_1", (405, "BAD_REQUEST"), id="no cancellation"),
        pytest.param("POST", "/outputs/x-1.png", (405, "BAD_REQUEST"), id="outputs are read"),
    ],
)
async def test_what_does_not_exist_is_refused(
    method: str, path: str, expected: tuple[int, str]
) -> None:
    """404 for other paths, 405 for other methods, in the envelope."""
    async with desk() as here:
        answer = await here.http.request(method, path)
    assert error_of(answer) == expected


async def test_requests_are_counted_by_kind_and_logged() -> None:
    """`requests` counts routes, `log` keeps the last 10,000 requests with their times."""
    async with desk() as here:
        task_id = await here.submit()
        await here.finish(task_id)
        at = here.clock.now
        for path in (
            "/v1/tasks",
            "/v1/usage",
            "/v1/usage/summary",
            f"/outputs/{task_id[4:]}-1.png",
        ):
            await here.get(path)
        await here.http.request("PUT", "/v1/tasks")
        await here.get("/nothing")
    assert here.emulator.requests == {
        "POST /v1/generate": 1,
        "GET /v1/tasks/{id}": 1,
        "GET /v1/tasks": 1,
        "GET /v1/usage": 1,
        "GET /v1/usage/summary": 1,
        "GET /outputs": 1,
        "other": 2,
    }
    assert list(here.emulator.log)[:2] == [
        (0.0, "POST", "/v1/generate"),
        (at, "GET", f"/v1/tasks/{task_id}"),
    ]
    assert here.emulator.log.maxlen == 10_000
    assert repr(here.emulator) == "<EggEmulator accepted=1 requests=8>"


async def test_every_answer_but_files_takes_the_latency() -> None:
    """latency delays API answers, not outputs; the work is done before it."""
    async with desk(latency=0.25) as here:
        start = anyio.current_time()
        task_id = await here.submit()
        assert anyio.current_time() - start == pytest.approx(0.25)
        task = await here.finish(task_id)
        start = anyio.current_time()
        await here.file(task["output"]["url"])
        assert anyio.current_time() == start


async def test_a_submission_cancelled_while_it_waits_has_happened() -> None:
    """Who hangs up during the latency has bought the task."""
    async with desk(latency=1) as here:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(here.submit(), 0.5)
    assert len(here.emulator.accepted) == 1


def test_it_runs_on_trio() -> None:
    """The same app serves trio, latency included."""

    async def main() -> float:
        async with desk(latency=2) as here:
            await here.submit()
            return trio.current_time()

    clock = MockClock(autojump_threshold=0)
    start = clock.current_time()
    assert trio.run(main, clock=clock) - start == pytest.approx(2, abs=0.1)


async def _conversation(app: EggEmulator, kind: str, *messages: str) -> list[str]:
    """Play an ASGI connection that sends these messages; the types of the answers."""
    incoming, sent = list(messages), []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": incoming.pop(0), "more_body": True}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    await app({"type": kind}, receive, send)
    return sent


async def test_it_starts_and_shuts_down_when_told() -> None:
    """The lifespan protocol is spoken."""
    sent = await _conversation(EggEmulator(), "lifespan", "lifespan.startup", "lifespan.shutdown")
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_it_refuses_what_is_not_http() -> None:
    """A websocket is an error of the server's set-up."""
    with pytest.raises(NotImplementedError, match="websocket"):
        await _conversation(EggEmulator(), "websocket")


async def test_a_caller_who_hangs_up_in_the_body_gets_nothing_and_has_done_nothing() -> None:
    """A request that is not complete did not happen."""
    emulator = EggEmulator()
    assert await _conversation(emulator, "http", "http.request", "http.disconnect") == []
    assert emulator.requests == {}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"speed": 0}, id="a speed of zero"),
        pytest.param({"order": "random"}, id="an unknown order"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    """ValueError at once, not odd behaviour later."""
    with pytest.raises(ValueError, match="must be"):
        EggEmulator(**options)


async def test_urls_of_outputs_are_on_the_host_that_was_asked() -> None:
    """Scheme and host, port included, come from the request; without a host it is localhost."""
    async with desk() as here:
        task_id = await here.submit()
        await here.finish(task_id)
        transport = httpx.ASGITransport(here.emulator)
        url = f"http://127.0.0.1:8765/v1/tasks/{task_id}"
        async with httpx.AsyncClient(transport=transport, headers=KEY) as other:
            local = await other.get(url)
            del (request := other.build_request("GET", url)).headers["Host"]
            nameless = await other.send(request)
    urls = [answer.json()["data"]["output"]["url"] for answer in (local, nameless)]
    path = f"/outputs/{task_id[4:]}-1.png"
    assert urls == [f"http://127.0.0.1:8765{path}", f"http://localhost{path}"]


async def _calls_for_a_page(tasks: int) -> int:
    """How many calls of functions it takes to list 100 of so many tasks."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    async with desk(foreign_per_second=1) as here:
        here.clock.now = tasks
        assert (await here.data("/v1/tasks"))["pagination"]["total"] == tasks
        sys.setprofile(count)
        await here.listed("?per_page=100")
        sys.setprofile(None)
    return calls


async def test_a_page_of_a_long_list_costs_no_more_than_that_of_a_short_one() -> None:
    """The newest page is cut out of the list, whose length does not matter."""
    short, long = await _calls_for_a_page(200), await _calls_for_a_page(10_000)
    assert long < short * 1.5


async def test_every_answer_is_dated_by_the_emulators_clock() -> None:
    """Whoever compares times with the service's needs one clock for all of them."""
    async with desk(start=784111777.0) as here:
        answers = [await here.http.get(path) for path in ("/v1/tasks", "/nothing")]

    assert [answer.headers["date"] for answer in answers] == ["Sun, 06 Nov 1994 08:49:37 GMT"] * 2
