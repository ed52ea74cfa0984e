"""Trouble on demand: what each fault does, to which request, and how often by chance."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from eggapi_async.emulator import Fault
from tests.emulated import Desk, desk, error_of


async def test_a_lost_answer_is_a_reset_after_the_work() -> None:
    """The caller sees a connection reset, and the task exists."""
    async with desk() as here:
        here.emulator.fail_next(Fault.lost())
        with pytest.raises(ConnectionResetError):
            await here.post()
        assert await here.listed() == here.emulator.accepted
    assert len(here.emulator.accepted) == 1


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        pytest.param(Fault.refused(), (503, "SERVICE_UNAVAILABLE"), id="unavailable by default"),
        pytest.param(Fault.refused(500), (500, "INTERNAL_ERROR"), id="the documented code"),
        pytest.param(Fault.refused(403, "FORBIDDEN"), (403, "FORBIDDEN"), id="the given code"),
        pytest.param(Fault.refused(418), (418, "INTERNAL_ERROR"), id="a code for odd statuses"),
    ],
)
async def test_a_refused_request_is_not_worked_on(fault: Fault, expected: tuple[int, str]) -> None:
    """An error envelope, and nothing is done."""
    async with desk() as here:
        here.emulator.fail_next(fault)
        answer = await here.post()
    assert error_of(answer) == expected
    assert "Retry-After" not in answer.headers
    assert here.emulator.accepted == []


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        pytest.param(Fault.refused(429, retry_after=7), "7", id="that of the fault"),
        pytest.param(Fault.refused(429), "2.5", id="that of the emulator for a 429"),
        pytest.param(Fault.refused(503), None, id="none for other statuses"),
        pytest.param(Fault.refused(503, retry_after=3), "3", id="unless the fault has one"),
    ],
)
async def test_a_refusal_can_carry_a_retry_after(fault: Fault, seconds: str | None) -> None:
    """The fault's own Retry-After, or for a 429 that of the emulator; 429s are counted."""
    async with desk(retry_after=2.5) as here:
        here.emulator.fail_next(fault)
        answer = await here.post()
    assert answer.headers.get("Retry-After") == seconds
    assert here.emulator.refusals == (answer.status_code == 429)


@pytest.mark.parametrize(
    ("fault", "status", "accepted"),
    [
        pytest.param(Fault.html(), 502, 0, id="html before the work"),
        pytest.param(Fault.html(520), 520, 0, id="a status without a name"),
        pytest.param(Fault.html_after(), 504, 1, id="html after the work"),
    ],
)
async def test_a_proxy_answers_with_a_page(fault: Fault, status: int, accepted: int) -> None:
    """The body is HTML in place of the envelope."""
    async with desk() as here:
        here.emulator.fail_next(fault)
        answer = await here.post()
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "text/html"
    assert answer.text.startswith("<html>")
    assert len(here.emulator.accepted) == accepted


async def test_an_empty_answer_has_the_normal_status() -> None:
    """202 without a body, and the task exists."""
    async with desk() as here:
        here.emulator.fail_next(Fault.empty())
        answer = await here.post()
    assert (answer.status_code, answer.content) == (202, b"")
    assert len(here.emulator.accepted) == 1


async def test_an_idless_answer_is_whole_but_for_the_id() -> None:
    """The envelope has a task without an id; an error envelope stays as it is."""
    async with desk() as here:
        here.emulator.fail_next(Fault.idless(), Fault.idless())
        answer, refused = await here.post(), await here.post(prompt="")
    assert answer.status_code == 202
    assert answer.json()["data"]["status"] == "pending"
    assert "id" not in answer.json()["data"]
    assert error_of(refused) == (400, "VALIDATION_ERROR")
    assert len(here.emulator.accepted) == 1


async def test_a_stuck_task_never_ends() -> None:
    """It is processed for ever, and holds no place in the usage."""
    async with desk() as here:
        here.emulator.fail_next(Fault.stuck())
        task_id = await here.submit()
        here.clock.now = 1e9
        task = await here.task(task_id)
        usage = await here.data("/v1/usage")
    assert task["status"] == "processing"
    assert here.emulator.task(task_id).completed_at == float("inf")
    assert usage["items"] == []


@pytest.mark.parametrize(("prompt", "status"), [("A cat", "completed"), ("A broken cat", "failed")])
async def test_a_synchronous_task_is_final_in_the_answer(prompt: str, status: str) -> None:
    """Status 200 with a task that has ended already."""
    async with desk() as here:
        here.emulator.fail_next(Fault.sync())
        answer = await here.post(prompt=prompt)
    task = answer.json()["data"]
    assert (answer.status_code, task["status"]) == (200, status)
    assert task["started_at"] == task["completed_at"] == task["created_at"]


async def test_a_slow_answer_comes_later() -> None:
    """The work is done at once, the answer comes after the seconds and the latency."""
    async with desk(latency=0.5) as here:
        here.emulator.fail_next(Fault.slow(30), Fault.slow())
        start = anyio.current_time()
        await here.post()
        assert anyio.current_time() - start == pytest.approx(30.5)
        await here.post()
        assert anyio.current_time() - start == pytest.approx(33)


async def _file(here: Desk, fault: Fault) -> tuple[Any, Any]:
    """An output under a fault and after it."""
    task = await here.finish(await here.submit())
    here.emulator.fail_next(fault, on="GET /outputs")
    url = task["output"]["url"]
    return await here.file(url), await here.file(url)


async def test_a_truncated_file_looks_whole() -> None:
    """Half the bytes, without a Content-Length."""
    async with desk() as here:
        broken, whole = await _file(here, Fault.truncated())
    assert broken.status_code == 200
    assert broken.content == whole.content[: len(whole.content) // 2]
    assert "Content-Length" not in broken.headers


async def test_a_cut_file_promises_more_than_it_has() -> None:
    """Half the bytes, under the Content-Length of all."""
    async with desk() as here:
        broken, whole = await _file(here, Fault.cut())
    assert broken.content == whole.content[: len(whole.content) // 2]
    assert broken.headers["Content-Length"] == str(len(whole.content))


async def test_faults_meet_the_requests_they_are_meant_for_one_each_in_turn() -> None:
    """A request that does not match `on` goes by; what is used up is gone."""
    async with desk() as here:
        here.emulator.fail_next(Fault.html(500), Fault.html(502), on="GET /v1/tasks")
        here.emulator.fail_next(Fault.html(503), on="GET /v1/usage/summary")
        paths = ("/v1/usage", "/v1/tasks", "/v1/usage/summary", "/v1/tasks/x", "/v1/tasks")
        statuses = [(await here.get(path)).status_code for path in paths]
        posted = await here.post()
    assert statuses == [200, 500, 503, 502, 200]
    assert posted.status_code == 202


async def test_submissions_are_what_fails_by_default() -> None:
    """Without `on` it is POST /v1/generate that meets the fault."""
    async with desk() as here:
        here.emulator.fail_next(Fault.html())
        assert (await here.get("/v1/tasks")).status_code == 200
        assert (await here.post()).status_code == 502


async def test_anywhere_means_any_api_request_that_the_fault_can_happen_to() -> None:
    """on=None spares outputs, except for faults of outputs; a stuck task awaits a submission."""
    async with desk() as here:
        task = await here.finish(await here.submit())
        url = task["output"]["url"]
        here.emulator.fail_next(Fault.html(), Fault.sync(), Fault.truncated(), on=None)
        first = await here.file(url)
        second = await here.file(url)
        usage = await here.get("/v1/usage")
        again = await here.get("/v1/usage")
        posted = await here.post()
    assert "Content-Length" not in first.headers
    assert "Content-Length" in second.headers
    assert (usage.status_code, again.status_code) == (502, 200)
    assert posted.status_code == 200


@pytest.mark.parametrize(
    ("fault", "on"),
    [
        pytest.param(Fault.stuck(), "GET /v1/tasks", id="only submissions get stuck"),
        pytest.param(Fault.cut(), "POST /v1/generate", id="only outputs are cut"),
    ],
)
async def test_a_fault_where_it_cannot_happen_is_refused(fault: Fault, on: str) -> None:
    """ValueError, since it would never come."""
    async with desk() as here:
        with pytest.raises(ValueError, match=f'{fault.kind} fault happens on .* not on "{on}"'):
            here.emulator.fail_next(fault, on=on)


async def _submissions(count: int, **options: Any) -> list[int]:
    """The statuses of so many submissions, 0 where the answer is lost."""
    statuses = []
    async with desk(**options) as here:
        for _ in range(count):
            try:
                statuses.append((await here.post()).status_code)
            except ConnectionResetError:
                statuses.append(0)
        assert len(here.emulator.accepted) == count
    return statuses


async def test_chance_follows_from_the_seed() -> None:
    """About as many as asked for fail, the same ones again with the same seed."""
    faults = {"lost": 0.1, "html_after": 0.1}
    statuses = await _submissions(400, faults=faults)
    assert 20 < statuses.count(0) < 60
    assert 20 < statuses.count(504) < 60
    assert await _submissions(400, faults=faults) == statuses
    assert await _submissions(400, faults=faults, seed=1) != statuses


async def test_chance_spares_the_requests_a_kind_is_not_for() -> None:
    """Submissions, reads and outputs each have faults of their own; other paths have none."""
    async with desk(faults={"html": 1, "truncated": 1, "sync": 1}) as here:
        posted = await here.post()
        read = await here.get("/v1/tasks")
        url = posted.json()["data"]["output"]["url"]
        file, head = await here.file(url), await here.file(url, method="HEAD")
    assert (posted.status_code, read.status_code, file.status_code) == (200, 502, 200)
    assert "Content-Length" not in file.headers
    assert "Content-Length" in head.headers


async def test_any_api_request_can_be_slow_by_chance() -> None:
    """A slow answer by chance takes 2 s more."""
    async with desk(faults={"slow": 1}) as here:
        start = anyio.current_time()
        await here.post()
        await here.get("/v1/usage")
        assert anyio.current_time() - start == pytest.approx(4)


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        pytest.param({"fire": 0.5}, "no fault is called 'fire'", id="an unknown kind"),
        pytest.param({"lost": 1.5}, "probability of lost must be from 0 to 1", id="too likely"),
    ],
)
async def test_impossible_chances_are_refused(faults: dict[str, float], message: str) -> None:
    """ValueError at once."""
    with pytest.raises(ValueError, match=message):
        async with desk(faults=faults):
            pass
