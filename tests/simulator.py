"""Whole lives of a client against a service and a wire full of faults, drawn from a seed.

A history is up to fifty steps: submissions, waits with and without a time-out, cancellations of
both kinds, webhooks that come late, twice or never, batches with a journal, and processes that die
at any moment and are started again on what was durable then. Time is virtual, disks are slow and in
virtual time too, and all chance comes from one dice, so that a seed replays the very run.

What must hold, always: nothing is bought twice; every id that the service gave out is known, or a
doubt names its submission; waits end in time, and with what is true; the money adds up; nothing is
left running, and no error is left unread.

`python -m tests.simulator [histories]` lives so many; `--seed S` replays one and shows its trace.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from unittest import mock
from urllib.parse import urlsplit

import anyio
import attrs
import httpx

import eggapi_async
from eggapi_async import (
    AsyncEggClient,
    Budget,
    EggError,
    GenerationTask,
    Journal,
    RateLimiter,
    SubmissionUncertainError,
    TaskFailedError,
    TaskSnapshot,
    TaskTimeoutError,
)
from eggapi_async._events import read_event
from eggapi_async._hooks import reference_in
from tests.model_service import PRICE, Job, Service, Wire, now
from tests.virtual_time import VirtualLoop, refuse_leftovers

HOOK: Final = "https://bot.test/hook"
STEPS: Final = 50
LONGEST_LAG: Final = 2.5
"""Seconds by which a replica is behind: a task that is missing for longer is taken for lost."""
ALONE: Final = 10.0
"""Seconds after which what another process bought cannot be taken for an own loss."""
ROUNDING: Final = 1e-6
LONGEST_CALL: Final = 6 * 3600.0
"""Seconds in which whatever was begun must have ended, in the worst of times."""


@attrs.define
class Process:
    """One life of a program: its client, what runs in it, and what it was told."""

    egg: AsyncEggClient
    wire: Wire
    budget: Budget
    running: dict[asyncio.Task[Any], str] = attrs.field(factory=dict)
    prompts: set[str] = attrs.field(factory=set)
    known: set[str] = attrs.field(factory=set)
    told: set[str] = attrs.field(factory=set)
    is_dead: bool = False


class History:
    """One history, made of *seed*; what happens is told to *trace*."""

    def __init__(self, seed: int, folder: Path, trace: list[str]) -> None:
        self.dice = random.Random(seed)
        self.folder = folder
        self.uncertain: Any = self.dice.choice(("raise", "raise", "verify"))
        is_alone = self.uncertain == "verify"
        self.service = Service(
            self.dice,
            trouble=self.dice.choice((0.0, 0.1, 0.3, 0.6)),
            order=self.dice.choice(("newest", "newest", "oldest", "shuffled")),
            lag=self.dice.uniform(0, LONGEST_LAG),
            foreign=0.0 if is_alone else self.dice.choice((0.0, 0.0, 0.5)),
            trace=trace,
        )
        self.has_hook = self.dice.random() < 0.4
        self.count = 0
        self.journal: Path | None = None
        self.items: list[str] = []
        self.lives = 0
        self.process: Process = self.start()

    # --- processes ---------------------------------------------------------------------------

    def start(self) -> Process:
        """A process with a client of its own."""
        wire, budget = Wire(self.service), Budget("1000")
        egg = AsyncEggClient(
            "simulated-key",
            base_url="https://egg.test",
            http_client=httpx.AsyncClient(transport=wire),
            limiter=RateLimiter(per_second=self.dice.choice((None, 5.0, 80.0))),
            budget=budget,
            webhook_url=HOOK if self.has_hook else None,
        )
        engines = egg._engines
        for engine in (engines.transport, engines.submissions):
            engine._wall_clock = now
        return Process(egg, wire, budget)

    def spawn(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work* in the background; its end is noted, its errors are those it may have."""
        process = self.process

        async def run() -> None:
            started = anyio.current_time()
            end = "done"
            try:
                await work()
            except EggError as error:
                end = type(error).__name__
            except asyncio.CancelledError:
                end = "cancelled"
                raise
            finally:
                if not process.is_dead:
                    self.service.tell(f"{name}: {end}")
                    took = anyio.current_time() - started
                    assert took < LONGEST_CALL, f"{name} took {took} s"

        task = asyncio.get_running_loop().create_task(run(), name=name)
        process.running[task] = name

    async def _gather(self, process: Process) -> None:
        for task in list(process.running):
            with suppress(asyncio.CancelledError):
                await task
        process.running.clear()

    # --- steps -------------------------------------------------------------------------------

    async def submit(self) -> None:
        """Order a picture."""
        prompt = f"Egg {self.count}"
        self.count += 1
        process = self.process
        process.prompts.add(prompt)
        patience = self.dice.choice((None, None, 1.0))

        async def work() -> None:
            with anyio.move_on_after(patience):
                try:
                    task = await process.egg.generate(prompt, uncertain=self.uncertain)
                except SubmissionUncertainError as error:
                    process.told.add(error.request.prompt)
                    raise
                process.known.add(task.id)

        self.spawn(f"submit {prompt}", work)

    async def wait(self) -> None:
        """Let up to five wait for a task of which the id is known."""
        known = sorted(self.process.known)
        if not known:
            return
        task_id = self.dice.choice(known)
        for _ in range(self.dice.randint(1, 5)):
            timeout = self.dice.choice((0.5, 5.0, 30.0, 600.0))
            self.spawn(f"wait {task_id}", self._waiting(task_id, timeout))

    def _waiting(self, task_id: str, timeout: float) -> Callable[[], Awaitable[None]]:
        egg = self.process.egg

        async def work() -> None:
            started = anyio.current_time()
            try:
                self._check_end(await egg.task(task_id).result(timeout=timeout))
            except TaskFailedError as error:
                self._check_end(error.task)
                raise
            except TaskTimeoutError:
                assert anyio.current_time() - started > timeout - ROUNDING, "given up early"
                raise
            finally:
                took = anyio.current_time() - started
                assert took < timeout + ROUNDING, f"a wait of {timeout} s took {took} s"

        return work

    def _check_end(self, task: TaskSnapshot) -> None:
        job = self.service.jobs[task.id]
        assert job.ended(now()), f"{task.id} has not ended"
        assert task.status == job.status
        assert task.url == (None if job.is_failing else job.url)
        assert (task.cost or Decimal(0)) == job.cost

    async def look(self) -> None:
        """Read something, of which the answer does not matter."""
        egg, known = self.process.egg, sorted(self.process.known)

        async def work() -> None:
            if known and self.dice.random() < 0.5:
                await egg.get_task(self.dice.choice(known))
            else:
                await egg.tasks_page()

        self.spawn("look", work)

    async def cancel(self) -> None:
        """Cancel something that runs."""
        running = [task for task in self.process.running if not task.done()]
        if running:
            task = self.dice.choice(running)
            self.service.tell(f"cancel {task.get_name()}")
            task.cancel()

    async def sleep(self) -> None:
        """Let time pass."""
        await anyio.sleep(self.dice.choice((0.0, 0.05, 0.5, 5.0, 60.0)))

    async def deliver(self) -> None:
        """Let a webhook come, maybe one that came before."""
        ours = (job for job in self.service.jobs.values() if job.webhook_url and job.ended(now()))
        ended = list(ours)
        if ended:
            job, egg = self.dice.choice(ended), self.process.egg

            async def work() -> None:
                await egg.deliver(_event(job))

            self.spawn(f"deliver {job.task_id}", work)

    async def batch(self) -> None:
        """Begin a batch with a journal, or go on with it."""
        process = self.process
        if any(name == "batch" for name in process.running.values()):
            return
        if self.journal is None:
            self.items = [f"Item {n}" for n in range(self.dice.randint(1, 6))]
            self.journal = self.folder / "run.sqlite3"
        items, journal = self.items, self.journal
        process.prompts.update(items)

        async def work() -> None:
            outcomes = await process.egg.map(items, journal=journal, in_flight=3)
            for outcome in outcomes:
                if outcome.result is not None:
                    self._check_end(outcome.result)

        self.spawn("batch", work)

    async def restart(self) -> None:
        """Kill the process, and start another with what was durable at that moment."""
        self.service.tell("killed")
        old = self.process
        self._note_known()
        self.lives += 1
        if self.journal is not None:
            folder = self.folder / str(self.lives)
            folder.mkdir()
            for path in self.journal.parent.glob("run.sqlite3*"):
                if not path.name.endswith(("-shm", ".lock")):
                    shutil.copy(path, folder)
            self.journal = folder / "run.sqlite3"
        old.wire.is_dead = old.is_dead = True
        await self._end(old)
        self.check_purchases()
        if self.uncertain == "verify":  # it must alone use the key: not on the heels of another
            await anyio.sleep(ALONE)
        self.process = self.start()
        self.process.known |= old.known  # the program has noted what it was given

    async def _end(self, process: Process) -> None:
        for task in process.running:
            task.cancel()
        await self._gather(process)
        await process.egg.aclose()

    async def change_weather(self) -> None:
        """Let the wire be better or worse from now on."""
        self.service.trouble = self.dice.choice((0.0, 0.1, 0.5, 0.9))

    STEPS: Final = (
        *(submit, submit, submit, wait, wait, look, cancel, cancel),
        *(sleep, sleep, sleep, deliver, batch, restart, change_weather),
    )

    async def step(self) -> None:
        """One step, whichever."""
        chosen = self.dice.choice(self.STEPS)
        if chosen is not History.restart or self.dice.random() < 0.3:
            self.service.tell(f"step {chosen.__name__}")
            await chosen(self)
        await anyio.sleep(self.dice.choice((0.0, 0.02, 0.2, 1.0)))
        self.check()

    async def live(self, steps: int) -> None:
        """So many steps, and the end."""
        for _ in range(steps):
            await self.step()
        await self.end()

    # --- what must hold ----------------------------------------------------------------------

    def _note_known(self) -> None:
        process = self.process
        engines = process.egg._engines
        process.told |= {doubt.request.prompt for doubt in engines.submissions._doubts}
        process.known |= {task.id for task in process.egg.unfinished}

    def check(self) -> None:
        """After every step."""
        self._note_known()
        self.check_purchases()

    def check_purchases(self) -> None:
        """Nothing was bought twice."""
        twice = [prompt for prompt, times in self.service.accepted.items() if times > 1]
        assert not twice, f"bought twice: {twice}"

    async def end(self) -> None:
        """Good weather at last: all that runs ends, and all that was bought is found."""
        service, process = self.service, self.process
        service.trouble = 0.0
        service.tell("good weather")
        await self._gather(process)
        if self.journal is not None:
            await self.batch()
            await self._gather(process)
        self._note_known()
        for task in process.egg.unfinished:
            await self._finish(task)
        self.check()
        assert not process.egg.unfinished
        self._check_ids(process)
        self._check_money(process)
        await self._end(process)

    async def _finish(self, task: GenerationTask) -> None:
        with suppress(TaskFailedError):
            await task.result(timeout=3600)

    def _check_ids(self, process: Process) -> None:
        """Every id that the service gave out here is known, or a doubt names its submission."""
        recorded, doubted = set[str](), set[str]()
        if self.journal is not None:
            with Journal(self.journal) as journal:
                for item in journal:
                    if item.task_id is not None:
                        recorded.add(item.task_id)
                    elif item.state in ("intent", "uncertain"):
                        doubted.add(item.request.prompt)
        for job in self.service.jobs.values():
            if job.prompt in process.prompts and job.is_ours:
                is_known = job.task_id in process.known | recorded
                is_told = job.prompt in process.told | doubted
                assert is_known or is_told, f"{job.task_id} of {job.prompt!r} is lost"

    def _check_money(self, process: Process) -> None:
        """What ended is spent, what is in doubt is reserved, and nothing else."""
        ours = [job for job in self.service.jobs.values() if job.prompt in process.prompts]
        here = sum((job.cost for job in ours), Decimal(0))
        budget = process.budget
        assert budget.spent + budget.reserved >= here or self.lives, "money was not counted"
        most = PRICE * len(process.told)
        assert budget.reserved <= most, f"{budget.reserved} are reserved, {most} may be"
        assert budget.spent <= here, "money was counted that nobody took"


def _event(job: Job) -> Any:
    url = urlsplit(str(job.webhook_url))
    body = {"event": f"task.{job.status}", "task_id": job.task_id, "status": job.status}
    body |= {"model": "nanobanana", "cost": f"{job.cost:.6f}"}
    body |= {"error": "no"} if job.is_failing else {"output": {"url": job.url}}  # type: ignore[dict-item]
    event = read_event(json.dumps(body).encode())
    return attrs.evolve(event, reference=reference_in(url.query))


# --- running -------------------------------------------------------------------------------------


class SlowDisk:
    """Stands in for worker threads: each job is done a little later, in virtual time, in order."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._dice = random.Random(0)

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        """Do it in a moment."""
        job: Future[Any] = Future()

        def do() -> None:
            try:
                job.set_result(work(*args))
            except BaseException as error:
                job.set_exception(error)

        asyncio.get_running_loop().call_later(0.005, do)
        return job

    def shutdown(self, *, wait: bool = True) -> None:
        """What was submitted is still done."""


async def _in_no_thread(work: Callable[..., Any], *args: Any, **_: Any) -> Any:
    with anyio.CancelScope(shield=True):
        await anyio.sleep(0.001)
        owner = getattr(work, "__self__", None)
        while isinstance(owner, Future) and not owner.done():
            await anyio.sleep(0.001)
        return work(*args)


@contextmanager
def without_threads() -> Iterator[None]:
    """Disks in virtual time: which of two threads is first would be luck."""
    with mock.patch("eggapi_async._scribe.ThreadPoolExecutor", SlowDisk):
        with mock.patch("anyio.to_thread.run_sync", _in_no_thread):
            yield


class SimulationError(AssertionError):
    """A promise was broken; the text says by which seed, and shows the end of the trace."""


def run(seed: int, *, steps: int = STEPS) -> list[str]:
    """Live one history. Returns its trace; raises SimulationError where a promise is broken."""
    trace: list[str] = []
    try:
        with only_counted(), stage(seed, trace) as (runner, history):
            runner.run(_bounded(history.live(steps)))
    except Exception as error:
        raise SimulationError(_report(seed, error, trace)) from error
    return trace


@contextmanager
def only_counted() -> Iterator[None]:
    """No cycles are collected meanwhile: what a client still knows of a task that nobody holds
    would depend on when that happens to be, and so would its requests."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def stage(seed: int, trace: list[str]) -> Iterator[tuple[asyncio.Runner, History]]:
    """A history to be lived, and where. At the end nothing runs, and nothing was complained of."""
    complaints: list[str] = []
    dice = random.getstate()
    random.seed(seed)  # the client's own dice
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed database", ResourceWarning)  # of the dead
        try:
            with (
                without_threads(),
                tempfile.TemporaryDirectory(dir=_memory()) as folder,
                asyncio.Runner(loop_factory=VirtualLoop) as runner,
            ):
                loop = runner.get_loop()
                loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
                yield runner, History(seed, Path(folder), trace)
                refuse_leftovers(asyncio.all_tasks(loop))
        finally:
            random.setstate(dice)
        gc.collect(0)
    if complaints:
        raise AssertionError(complaints)


async def _bounded(life: Coroutine[Any, Any, None]) -> None:
    with anyio.fail_after(100 * LONGEST_CALL):
        await life


def _memory() -> str | None:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def _report(seed: int, error: Exception, trace: list[str]) -> str:
    shown = "\n  ".join(trace[-40:])
    return (
        f"seed {seed}, version {eggapi_async.__version__}: {error!r}\n  {shown}\n"
        f"replay it by: python -m tests.simulator --seed {seed}"
    )


def digest(trace: list[str]) -> str:
    """A short name for a trace."""
    return hashlib.sha256("\n".join(trace).encode()).hexdigest()[:16]


def main(arguments: list[str] | None = None) -> int:
    """Live many histories, or replay one."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator")
    parser.add_argument("histories", type=int, nargs="?", default=5000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="replay this one and show its trace")
    given = parser.parse_args(arguments)
    if given.seed is not None:
        try:
            trace = run(given.seed)
        except SimulationError as error:
            traceback.print_exception(error.__cause__)
            trace = str(error).splitlines()
        sys.stdout.write("\n".join(trace) + f"\n{digest(trace)}\n")
        return 0
    broken = requests = 0
    for seed in range(given.first, given.first + given.histories):
        try:
            requests += len(run(seed))
        except SimulationError as error:
            broken += 1
            sys.stdout.write(f"{error}\n")
    sys.stdout.write(
        f"{given.histories} histories, {requests} lines of trace, {broken} broken promises"
        f" (version {eggapi_async.__version__})\n"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    sys.exit(main())
