"""A fleet that loses a worker: `python -m tests.integration.fleet taskiq 1000`, or procrastinate.

The examples as they are, on real servers: two submitters and a collector buy so many pictures from
an emulator over TCP. Some jobs are sent twice. One submitter is killed by SIGKILL while the service
has taken its order and not answered yet; its jobs are delivered again. What is in doubt then is
resolved as a person would: by looking which picture there is. Then the books are compared.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import psycopg
from redis import Redis

from eggapi_async.emulator import EggEmulator
from tests.integration.servers import PATIENCE, postgres_server, redis_server
from tests.mortal import is_whole
from tests.served import ROOT, environment, served

TWICE: Final = 20
"""Every so manieth job is sent twice."""
GRACE: Final = 10.0
"""Seconds in which a worker may end by itself."""
STALLED: Final = 1800.0
"""Seconds after which a fleet that does not come to its end has failed."""


class Shop:
    """An ASGI app: the emulator, which knows its customers by the first part of the path.

    The process group *victim* is killed at its order number *fatal*, when it is taken and before it
    is answered.
    """

    def __init__(self, emulator: EggEmulator) -> None:
        self.emulator = emulator
        self.requests: Counter[tuple[str, str]] = Counter()
        self.victim: int | None = None
        self.fatal = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        who, slash, rest = scope["path"].removeprefix("/").partition("/")
        if rest.startswith("v1/"):
            path = slash + rest
            scope = scope | {"path": path, "raw_path": path.encode()}
            what = f"{scope['method']} {'/'.join(path.split('/')[:3])}"
            self.requests[who, what if path.count("/") == 2 else f"{what}/…"] += 1

        async def send_if_alive(message: Any) -> None:
            if self.victim and self.requests["victim", "POST /v1/generate"] >= self.fatal > 0:
                os.killpg(self.victim, signal.SIGKILL)
                self.victim = None
            await send(message)

        await self.emulator(scope, receive, send_if_alive)

    def by(self, who: str) -> dict[str, int]:
        """What a customer has asked for."""
        return {what: number for (name, what), number in self.requests.items() if name == who}

    @property
    def sold(self) -> Counter[str]:
        """Tasks by prompt."""
        tasks = map(self.emulator.task, self.emulator.accepted)
        return Counter(str(task.fields["prompt"]) for task in tasks)

    def task_of(self, prompt: str) -> str | None:
        """The task with this prompt, as somebody sees who looks at the pictures."""
        ids = self.emulator.accepted
        return next((i for i in ids if self.emulator.task(i).fields["prompt"] == prompt), None)


@attrs.frozen
class Report:
    """How it went."""

    jobs: int
    seconds: float
    in_doubt: int
    sold: int
    twice: int
    pictures: int
    requests: dict[str, dict[str, int]]


class Crew:
    """The processes of one fleet, from one example."""

    def __init__(self, engine: str, shop: Shop, url: str, folder: Path, **env: str) -> None:
        self._folder = ROOT / "examples" / f"distributed_{engine}"
        self._shop, self._url = shop, url
        self._env = {
            "EGGAPI_API_KEY": "a-key",
            "EGG_RATE": "300",
            "EGG_PROCESSES": "3",
            "EGG_TIMEOUT": "10",
            "EGG_FOLDER": str(folder / "out"),
            **env,
        }
        self._log = (folder / "log").open("wb")
        self._members: list[subprocess.Popen[bytes]] = []

    def start(self, who: str, *command: str) -> int:
        """A worker in a process group of its own, whose number this is."""
        member = subprocess.Popen(
            [sys.executable, *command],
            cwd=self._folder,
            env=environment(**self._env, EGGAPI_BASE_URL=f"{self._url}/{who}"),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._members.append(member)
        return member.pid

    def run(self, *command: str, **more: Any) -> None:
        """A command that ends."""
        subprocess.run(
            [sys.executable, *command],
            cwd=self._folder,
            env=environment(**self._env, EGGAPI_BASE_URL=self._url),
            check=True,
            timeout=STALLED,
            **more,
        )

    def stop(self) -> None:
        """End all, gently first."""
        for member in self._members:
            if member.poll() is None:
                member.terminate()
        for member in self._members:
            with suppress(subprocess.TimeoutExpired):
                member.wait(GRACE)
            with suppress(ProcessLookupError):
                os.killpg(member.pid, signal.SIGKILL)
            member.wait(PATIENCE)
        self._log.close()


SEND = """
import asyncio, json, sys
import {module} as fleet
async def main():
    {begin}
        await asyncio.gather(*(fleet.submit.{send} for job, prompt in json.load(sys.stdin)))
    {end}
asyncio.run(main())
"""
TASKIQ_SEND = SEND.format(
    module="taskiq_fleet",
    begin="await fleet.submitting.startup()\n    if True:",
    send="kiq(job, prompt)",
    end="await fleet.submitting.shutdown()",
)
PROCRASTINATE_SEND = SEND.format(
    module="procrastinate_fleet",
    begin="async with fleet.app.open_async():",
    send="defer_async(job=job, prompt=prompt)",
    end="",
)


@attrs.frozen
class Engine:
    """How the fleets of one engine are led, and what their books say."""

    submitter: tuple[str, ...]
    collector: tuple[str, ...]
    send: str
    pictures: Callable[[], dict[str, str]]
    in_doubt: Callable[[], dict[str, str]]
    resolve: Callable[[Crew, str, str, str | None], None]
    again: Callable[[Crew], None]


@contextmanager
def on_taskiq() -> Iterator[tuple[Engine, dict[str, str]]]:
    """Redis keeps everything."""
    with redis_server() as server, Redis.from_url(server.url, decode_responses=True) as redis:

        def resolve(crew: Crew, job: str, _: str, task_id: str | None) -> None:
            crew.run("taskiq_fleet.py", "resolve", job, *([task_id] if task_id else []))

        worker = ("-m", "taskiq", "worker", "--workers", "1", "--log-level", "WARNING")
        engine = Engine(
            submitter=(*worker, "--max-async-tasks", "50", "taskiq_fleet:submitting"),
            collector=(*worker, "--max-async-tasks", "1000", "taskiq_fleet:collecting"),
            send=TASKIQ_SEND,
            pictures=lambda: dict(redis.hgetall("egg-pictures")),
            in_doubt=lambda: dict(redis.hgetall("egg-in-doubt")),
            resolve=resolve,
            again=lambda crew: crew.run("taskiq_fleet.py", "tick"),
        )
        yield engine, {"REDIS_URL": server.url, "EGG_IDLE_MS": "8000"}


@contextmanager
def on_procrastinate() -> Iterator[tuple[Engine, dict[str, str]]]:
    """PostgreSQL keeps everything."""
    with postgres_server() as url, psycopg.connect(url, autocommit=True) as rows:

        def in_doubt() -> dict[str, str]:
            failed = "FROM procrastinate_jobs WHERE status = 'failed'"
            return dict(rows.execute(f"SELECT args->>'job', args->>'prompt' {failed}").fetchall())

        def resolve(crew: Crew, job: str, prompt: str, task_id: str | None) -> None:
            crew.run("procrastinate_fleet.py", "resolve", job, *([task_id] if task_id else []))
            rows.execute("DELETE FROM procrastinate_jobs WHERE args->>'job' = %s", [job])
            crew.run("procrastinate_fleet.py", "send", job, prompt)

        engine = Engine(
            submitter=("procrastinate_fleet.py", "submitter"),
            collector=("procrastinate_fleet.py", "collector"),
            send=PROCRASTINATE_SEND,
            pictures=lambda: dict(rows.execute("SELECT job, path FROM egg_pictures").fetchall()),
            in_doubt=in_doubt,
            resolve=resolve,
            again=lambda crew: crew.run("procrastinate_fleet.py", "again", "12"),
        )
        yield engine, {"DATABASE_URL": url}


ENGINES: Final = {"taskiq": on_taskiq, "procrastinate": on_procrastinate}


def work_through(name: str, number: int) -> Report:
    """So many jobs, from sending them to comparing the books."""
    began = time.monotonic()
    shop = Shop(EggEmulator(seed=number, speed=20.0))
    jobs = [(f"job {n}", f"Egg {n}") for n in range(number)]
    with (
        tempfile.TemporaryDirectory(prefix="egg-") as folder,
        ENGINES[name]() as (engine, env),
        served(shop) as url,
    ):
        crew = Crew(name, shop, url, Path(folder), **env)
        try:
            if name == "procrastinate":
                crew.run("procrastinate_fleet.py", "setup")
            shop.fatal = max(2, number // 10)
            shop.victim = crew.start("victim", *engine.submitter)
            crew.start("survivor", *engine.submitter)
            crew.start("collector", *engine.collector)
            sent = json.dumps([*jobs, *jobs[::TWICE]]).encode()
            crew.run("-c", engine.send, input=sent)

            def is_through(wanted: set[str]) -> bool:
                if shop.victim is None:
                    engine.again(crew)
                return {*engine.pictures(), *engine.in_doubt()} >= wanted

            wait_until(lambda: is_through(set(dict(jobs))))
            doubts = engine.in_doubt()
            for job, prompt in doubts.items():
                engine.resolve(crew, job, prompt, shop.task_of(prompt))
            wait_until(lambda: len(engine.pictures()) >= number)
        finally:
            crew.stop()
            sys.stderr.write((Path(folder) / "log").read_text("utf-8", "replace")[-2000:])
        assert shop.victim is None, "nobody was killed"
        pictures = engine.pictures()
        whole = sum(is_whole(Path(path)) for path in pictures.values())
    sold = shop.sold
    names = ("victim", "survivor", "collector")
    return Report(
        jobs=number,
        seconds=round(time.monotonic() - began, 1),
        in_doubt=len(doubts),
        sold=sold.total(),
        twice=sum(times > 1 for times in sold.values()),
        pictures=whole,
        requests={who: shop.by(who) for who in names},
    )


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look four times a second."""
    until = time.monotonic() + STALLED
    while not is_so():
        assert time.monotonic() < until, "the fleet does not come to its end"
        time.sleep(0.25)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # with everything that was started
    sys.stdout.write(
        json.dumps(attrs.asdict(work_through(sys.argv[1], int(sys.argv[2]))), indent=2)
    )
