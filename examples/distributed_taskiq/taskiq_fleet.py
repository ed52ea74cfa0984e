"""Pictures by taskiq and Redis: any number of workers submit, one collects. See README.md."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from redis.asyncio import Redis
from taskiq import Context, TaskiqDepends, TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

from eggapi_async import AsyncEggClient, RedisLedger, RedisRateLimiter, SubmissionUncertainError
from eggapi_async.ledger import resolve

REDIS = os.environ.get("REDIS_URL", "redis://localhost")
RATE = float(os.environ.get("EGG_RATE", "20"))  # requests per second that your key allows
PROCESSES = int(os.environ.get("EGG_PROCESSES", "3"))  # submitters and the collector
TIMEOUT = float(os.environ.get("EGG_TIMEOUT", "30"))
IDLE = int(os.environ.get("EGG_IDLE_MS", "600000"))  # a job not done by then is delivered again

# From "0": jobs that were sent before the first worker started count too. Few are read at a time:
# what a worker has read nobody else can have for IDLE.
HOW: dict[str, Any] = {"consumer_id": "0", "idle_timeout": IDLE, "xread_count": 10}
submitting = RedisStreamBroker(REDIS, "egg-submit", **HOW)
collecting = RedisStreamBroker(REDIS, "egg-collect", **HOW)


@submitting.on_event(TaskiqEvents.WORKER_STARTUP)
@collecting.on_event(TaskiqEvents.WORKER_STARTUP)
async def start(state: TaskiqState) -> None:
    """One client for all jobs of a process."""
    state.redis = Redis.from_url(REDIS)
    limiter = RedisRateLimiter(state.redis, per_second=RATE, processes=PROCESSES)
    state.egg = AsyncEggClient(limiter=limiter, timeout=TIMEOUT)
    state.ledger = RedisLedger(state.redis)
    if not collecting.is_worker_process:  # a submitter sends jobs to the collector
        await collecting.startup()


@submitting.on_event(TaskiqEvents.WORKER_SHUTDOWN)
@collecting.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def stop(state: TaskiqState) -> None:
    """Nothing is lost: what was submitted is collected when its job comes again."""
    await state.egg.aclose()
    await state.redis.aclose()


@submitting.task
async def submit(job: str, prompt: str, context: Context = TaskiqDepends()) -> None:
    """Buy a picture, once however often this is delivered. Waits for no picture."""
    state = context.state
    try:
        task = await state.egg.once(job, prompt, ledger=state.ledger)
    except SubmissionUncertainError:  # a worker died in the very moment: somebody looks at it
        await state.redis.hset("egg-in-doubt", job, prompt)
        raise
    await collect.kiq(job, task.id)


@collecting.task
async def collect(job: str, task_id: str, context: Context = TaskiqDepends()) -> None:
    """Fetch a picture; repeating it costs a look. All that wait here share their looks."""
    folder = os.environ.get("EGG_FOLDER", "out") + "/"
    paths = await context.state.egg.task(task_id).save(folder, overwrite=True)
    await context.state.redis.hset("egg-pictures", job, str(paths[0]))


async def tick() -> None:
    """Nothing: but only when some message comes do workers look for the jobs of those that died."""


ticks = [broker.register_task(tick, task_name="tick") for broker in (submitting, collecting)]


async def main(command: str, *words: str) -> None:
    """`send JOB PROMPT`; `tick`, once a minute; `resolve JOB [TASK]`, which sends it again."""
    for broker in (submitting, collecting):
        await broker.startup()
    if command == "tick":
        await asyncio.gather(*(task.kiq() for task in ticks))
    else:
        await send(command, *words)
    for broker in (submitting, collecting):
        await broker.shutdown()


async def send(command: str, *words: str) -> None:
    """A new job, or one whose doubt is resolved."""
    async with Redis.from_url(REDIS, decode_responses=True) as redis:
        job, prompt = words[0], words[-1]
        if command == "resolve":
            await resolve(RedisLedger(redis), job, words[1] if len(words) > 1 else None)
            prompt = str(await redis.hget("egg-in-doubt", job))
            await redis.hdel("egg-in-doubt", job)
    await submit.kiq(job, prompt)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
