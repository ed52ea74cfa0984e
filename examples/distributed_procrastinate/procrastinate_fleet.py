"""Pictures by procrastinate and PostgreSQL: many workers submit, one collects. See README.md."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Collection, Mapping
from typing import Any

import psycopg
from procrastinate import App, PsycopgConnector
from psycopg_pool import AsyncConnectionPool

from eggapi_async import AsyncEggClient, JournalError, RateLimiter
from eggapi_async.ledger import resolve

DATABASE = os.environ.get("DATABASE_URL", "")
RATE = float(os.environ.get("EGG_RATE", "20"))  # requests per second that your key allows
PROCESSES = int(os.environ.get("EGG_PROCESSES", "3"))  # each gets its part of the rate
TIMEOUT = float(os.environ.get("EGG_TIMEOUT", "30"))
TABLE = "CREATE TABLE IF NOT EXISTS egg_ledger (key text PRIMARY KEY, entry text NOT NULL)"
PICTURES = "CREATE TABLE IF NOT EXISTS egg_pictures (job text PRIMARY KEY, path text NOT NULL)"

app = App(connector=PsycopgConnector(conninfo=DATABASE))


class PostgresLedger:
    """The ledger of jobs as a table: durable when a statement is."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool

    async def read(self, keys: Collection[str]) -> Mapping[str, str]:
        """The texts under those of *keys* that are there."""
        wanted = "SELECT key, entry FROM egg_ledger WHERE key = ANY(%s)"
        return dict(await self.ask(wanted, list(keys)))

    async def swap(self, key: str, old: str | None, new: str | None) -> bool:
        """Put *new* in the place of *old*; None is nothing there."""
        if old is None:
            insert = "INSERT INTO egg_ledger VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING 1"
            done = await self.ask(insert, key, new)
        elif new is None:
            delete = "DELETE FROM egg_ledger WHERE key = %s AND entry = %s RETURNING 1"
            done = await self.ask(delete, key, old)
        else:
            update = "UPDATE egg_ledger SET entry = %s WHERE key = %s AND entry = %s RETURNING 1"
            done = await self.ask(update, new, key, old)
        return bool(done) or (await self.read([key])).get(key) == new

    async def ask(self, statement: Any, *values: Any) -> list[Any]:
        """The rows of one statement."""
        try:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(statement, values)
                return await cursor.fetchall() if cursor.description else []
        except psycopg.Error as exc:
            raise JournalError(f"the ledger cannot be reached: {exc}") from exc


egg: AsyncEggClient  # made when a worker starts
ledger: PostgresLedger


@app.task(name="submit", queue="egg-submit")
async def submit(job: str, prompt: str) -> None:
    """Buy a picture, once however often this is run. Waits for no picture.

    SubmissionUncertainError, where a worker died in the very moment, leaves it as failed.
    """
    task = await egg.once(job, prompt, ledger=ledger)
    await collect.defer_async(job=job, task_id=task.id)


@app.task(name="collect", queue="egg-collect")
async def collect(job: str, task_id: str) -> None:
    """Fetch a picture; repeating it costs a look. All that wait here share their looks."""
    folder = os.environ.get("EGG_FOLDER", "out") + "/"
    paths = await egg.task(task_id).save(folder, overwrite=True)
    keep = "INSERT INTO egg_pictures VALUES (%s, %s) ON CONFLICT DO NOTHING"
    await ledger.ask(keep, job, str(paths[0]))


async def main(command: str, *words: str) -> None:
    """`setup`, `submitter`, `collector`, `send JOB PROMPT`, `resolve JOB [TASK]` or `again`."""
    global egg, ledger
    async with app.open_async(), AsyncConnectionPool(DATABASE) as pool:
        ledger = PostgresLedger(pool)
        if command == "setup":
            await app.schema_manager.apply_schema_async()
            for statement in (TABLE, PICTURES):
                await ledger.ask(statement)
        elif command == "send":
            await submit.defer_async(job=words[0], prompt=words[1])
        elif command == "resolve":  # then run the failed job again, as you like
            await resolve(ledger, words[0], words[1] if len(words) > 1 else None)
        elif command == "again":  # jobs of workers that were not heard of for so many seconds
            after = float(words[0]) if words else 30.0
            for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=after):
                await app.job_manager.retry_job(job)
        else:
            limiter = RateLimiter(per_second=RATE / PROCESSES)
            queue, many = ("egg-submit", 50) if command == "submitter" else ("egg-collect", 1000)
            async with AsyncEggClient(limiter=limiter, timeout=TIMEOUT) as egg:
                await app.run_worker_async(queues=[queue], concurrency=many)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
