"""Spans as a collector gets them: one for each generation, under its caller, without a prompt."""

from __future__ import annotations

import asyncio
import io
import logging
import runpy
import sys
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import eggapi_async
from eggapi_async import (
    AsyncEggClient,
    ClientClosed,
    EggError,
    TaskCompleted,
    TaskFailedError,
    TasksPolled,
    TaskSubmitted,
    TaskTimeoutError,
)
from eggapi_async import otel as otel_module
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.otel import MOST_OPEN, spans
from eggapi_async.testing import connect
from tests.virtual_time import on_both

KEY = "canary-0123456789-abcdefghijkl"
PROMPT = "a forbidden egg, whispered"
EPOCH = 1_700_000_000 * 10**9


def wall() -> int:
    """A wall clock that goes with the virtual one."""
    return EPOCH + round(anyio.current_time() * 1e9)


class Collector:
    """A tracer provider of its own, and what it exported."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracer = self.provider.get_tracer("the application")

    def spans(self, name: str = "generate_content nanobanana") -> list[ReadableSpan]:
        return [span for span in self._memory.get_finished_spans() if span.name == name]

    def client(self, emulator: EggEmulator, **options: Any) -> AsyncEggClient:
        on_event = spans(self.provider, now=wall)
        return connect(emulator, KEY, on_event=on_event, **options)


def virtual() -> EggEmulator:
    return EggEmulator(clock=anyio.current_time)


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# --- one generation --------------------------------------------------------------------------


@on_both
async def test_a_generation_is_a_span_by_the_conventions() -> None:
    """Its name, its kind and its attributes, from the call to the news of the end."""
    collector = Collector()
    async with collector.client(virtual()) as egg:
        begun = anyio.current_time()
        result = await egg.run(PROMPT.replace("forbidden", "plain"))
        took = anyio.current_time() - begun
        [span] = collector.spans()
        assert told(span) == {
            "gen_ai.provider.name": "eggapi",
            "gen_ai.operation.name": "generate_content",
            "gen_ai.request.model": "nanobanana",
            "gen_ai.output.type": "image",
            "egg.task.id": result.id,
            "egg.cost": float(result.cost or 0),
            "egg.polls": egg.stats.polls,
        }
        assert span.kind is trace.SpanKind.CLIENT
        assert span.start_time == EPOCH + round(begun * 1e9)
        assert seconds(span) == pytest.approx(took)
        assert span.status.status_code is trace.StatusCode.UNSET
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name == "eggapi_async"
        assert span.instrumentation_scope.version == eggapi_async.__version__


async def test_waiting_for_a_turn_and_repetitions_are_in_it() -> None:
    """The logical operation, not the request that succeeded."""
    collector, emulator = Collector(), virtual()
    emulator.fail_next(Fault.refused(429, retry_after=30))
    async with collector.client(emulator) as egg:
        task = await egg.generate("A cat")
        await task
    [span] = collector.spans()
    assert seconds(span) > 30
    assert span.start_time is not None
    assert span.start_time == wall() - round(seconds(span) * 1e9)


async def test_a_failed_generation_is_an_error_without_words() -> None:
    """The service's text may quote the prompt."""
    collector = Collector()
    async with collector.client(virtual()) as egg:
        with pytest.raises(TaskFailedError):
            await egg.run(PROMPT)
    [span] = collector.spans()
    assert told(span)["error.type"] == "TaskFailedError"
    assert told(span)["egg.cost"] == 0.0
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.status.description is None
    assert span.events == ()


async def test_a_submission_that_fails_is_a_span_too() -> None:
    """With no task, and what `generate` raised."""
    collector, emulator = Collector(), virtual()
    emulator.fail_next(Fault.refused(401))
    async with collector.client(emulator) as egg:
        with collector.tracer.start_as_current_span("request") as parent:
            with pytest.raises(EggError):
                await egg.generate("A cat")
    [span] = collector.spans()
    assert told(span)["error.type"] == "AuthenticationError"
    assert "egg.task.id" not in told(span)
    assert span.parent == parent.get_span_context()
    assert span.status.status_code is trace.StatusCode.ERROR


async def test_a_video_is_called_one() -> None:
    """What comes out is told by the service's own word for the task."""
    collector = Collector()
    on_event = spans(collector.provider, now=wall)
    on_event(TaskSubmitted(task_id="gen_1", model="veo", type="video_generate", seconds=0.0))
    on_event(TaskCompleted(task_id="gen_1", model="veo", seconds=1.0, cost=None))
    [span] = collector.spans("generate_content veo")
    assert told(span)["gen_ai.output.type"] == "video"
    assert "egg.cost" not in told(span)


async def test_each_task_counts_the_polls_that_showed_it() -> None:
    """A page of the list shows many, and counts for each."""
    collector = Collector()
    seen: list[TasksPolled] = []
    make = spans(collector.provider, now=wall)

    def on_event(event: Any) -> None:
        make(event)
        if isinstance(event, TasksPolled):
            seen.append(event)

    async with connect(virtual(), on_event=on_event) as egg:
        tasks = [await egg.generate(f"cat {n}") for n in range(20)]
        await asyncio.gather(*tasks)
    by_task = {told(span)["egg.task.id"]: told(span)["egg.polls"] for span in collector.spans()}
    assert by_task == {task.id: sum(task.id in event.task_ids for event in seen) for task in tasks}
    assert sum(by_task.values()) > egg.stats.polls


# --- whose child it is -----------------------------------------------------------------------


@on_both
async def test_it_is_a_child_of_the_span_that_is_current_at_the_call() -> None:
    """Each of many at once has its own parent, whoever polls for it; and none becomes current."""
    collector = Collector()
    parents: dict[str, trace.SpanContext] = {}

    async def handle(egg: AsyncEggClient, name: str) -> None:
        with collector.tracer.start_as_current_span(name) as parent:
            task = await egg.generate(f"for {name}")
            assert trace.get_current_span() is parent
            parents[task.id] = parent.get_span_context()
        await task

    async with collector.client(virtual()) as egg:
        async with anyio.create_task_group() as group:
            for n in range(8):
                group.start_soon(handle, egg, f"request {n}")
    children = {told(span)["egg.task.id"]: span.parent for span in collector.spans()}
    assert children == parents
    assert len({context.span_id for context in parents.values()}) == 8


async def test_it_has_no_parent_where_there_is_none() -> None:
    """Then it begins a trace."""
    collector = Collector()
    async with collector.client(virtual()) as egg:
        await egg.run("A cat")
    [span] = collector.spans()
    assert span.parent is None


async def test_a_batch_is_under_the_span_in_which_it_runs() -> None:
    """Its workers are the batch's own, and carry on what was current."""
    collector = Collector()
    async with collector.client(virtual()) as egg:
        with collector.tracer.start_as_current_span("nightly") as parent:
            await egg.map([f"cat {n}" for n in range(5)], in_flight=2)
    assert [span.parent for span in collector.spans()] == [parent.get_span_context()] * 5


async def test_a_submission_whose_caller_is_cancelled_keeps_its_parent() -> None:
    """The POST is heard to its end, and its span is where it belongs."""
    collector = Collector()
    emulator = EggEmulator(clock=anyio.current_time, latency=2.0)
    async with collector.client(emulator) as egg:
        with collector.tracer.start_as_current_span("request") as parent:
            with anyio.move_on_after(1):
                await egg.generate("A cat")
        await egg.unfinished[0]
    [span] = collector.spans()
    assert span.parent == parent.get_span_context()
    assert "error.type" not in told(span)


# --- what never ends -------------------------------------------------------------------------


async def test_a_task_that_nobody_awaits_ends_with_its_client() -> None:
    """It is not lost, and says that its end is not known; no error, for there may be none."""
    collector = Collector()
    async with collector.client(virtual()) as egg:
        task = await egg.generate("A cat")
        with pytest.raises(TaskTimeoutError):
            await task.result(timeout=1)
        await anyio.sleep(60)
        assert collector.spans() == []
    [span] = collector.spans()
    assert told(span)["egg.unfinished"] is True
    assert told(span)["egg.task.id"] == task.id
    assert "error.type" not in told(span)


async def test_a_task_that_was_not_seen_to_begin_has_no_span() -> None:
    """It was bought by another process, or before anybody listened."""
    collector, emulator = Collector(), virtual()
    async with connect(emulator) as egg:
        earlier = await egg.generate("A cat")
    async with collector.client(emulator) as egg:
        assert (await egg.task(earlier.id)).is_completed
    on_event = spans(collector.provider, now=wall)
    on_event(TaskCompleted(task_id=earlier.id, model="nanobanana", seconds=None, cost=None))
    on_event(ClientClosed(task_ids=(earlier.id,)))
    assert collector.spans() == []


async def test_the_spans_under_way_are_bounded() -> None:
    """A client that is never closed, of tasks that nobody awaits, does not grow for ever."""
    collector = Collector()
    on_event = spans(collector.provider, now=wall)
    for n in range(MOST_OPEN + 3):
        on_event(TaskSubmitted(task_id=f"gen_{n}", model="nanobanana", seconds=0.0))
    ended = collector.spans()
    assert [told(span)["egg.task.id"] for span in ended] == ["gen_0", "gen_1", "gen_2"]
    assert all(told(span)["egg.unfinished"] for span in ended)
    on_event(TaskCompleted(task_id="gen_0", model="nanobanana", seconds=1.0, cost=None))
    assert len(collector.spans()) == 3


async def test_one_may_serve_several_clients() -> None:
    """The end of one client ends no span of another."""
    collector, emulator = Collector(), virtual()
    on_event = spans(collector.provider, now=wall)
    async with connect(emulator, on_event=on_event) as egg:
        async with connect(emulator, on_event=on_event) as other:
            task = await egg.generate("A cat")
            await other.generate("A dog")
        [given_up] = collector.spans()
        assert told(given_up)["egg.unfinished"] is True
        await task
    assert "egg.unfinished" not in told(collector.spans()[1])


# --- secrets ---------------------------------------------------------------------------------


async def test_a_console_shows_neither_prompt_nor_key(caplog: pytest.LogCaptureFixture) -> None:
    """What a real exporter writes, of everything that can happen."""
    caplog.set_level(logging.DEBUG)
    out = io.StringIO()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out)))
    emulator = virtual()
    emulator.fail_next(Fault.refused(429, retry_after=1), Fault.refused(503))
    async with connect(emulator, KEY, on_event=spans(provider)) as egg:
        await egg.map([PROMPT, "whispered too", "whispered as well"])
        emulator.fail_next(Fault.lost())
        with pytest.raises(EggError):
            await egg.generate(PROMPT)
        await egg.generate("whispered, and left alone")
    written = out.getvalue()
    assert written.count('"name": "generate_content nanobanana"') == 5
    assert '"error.type": "SubmissionUncertainError"' in written
    assert '"error.type": "TaskFailedError"' in written
    assert '"egg.unfinished": true' in written
    assert "whispered" not in written + caplog.text
    assert KEY not in written + caplog.text


# --- the package -----------------------------------------------------------------------------


def test_without_opentelemetry_the_words_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'eggapi-async\[otel\]'") as caught:
        runpy.run_path(str(otel_module.__file__), run_name="eggapi_async.otel")
    assert caught.value.name == "opentelemetry"


def test_it_is_a_room_of_the_package() -> None:
    """Loaded when it is first named."""
    assert eggapi_async.otel.spans is spans


async def test_the_process_s_provider_is_taken_unless_one_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where it is set after the client was made."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    on_event = spans(now=wall)
    collector = Collector()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", collector.provider)
    async with connect(virtual(), on_event=on_event) as egg:
        await egg.run("A cat")
    assert len(collector.spans()) == 1


async def test_without_a_provider_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API package alone makes spans that go nowhere."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    async with connect(virtual(), on_event=spans()) as egg:
        assert (await egg.run("A cat")).is_completed
