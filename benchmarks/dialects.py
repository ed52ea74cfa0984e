"""The routes that the contenders speak: the Egg API's, and those of the peers' SDKs.

A dialect turns (method, path, query) into a status and a body. The peers' answers have the fields
that their SDKs read; they are no larger than the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from .world import Job, World

Answer = tuple[int, bytes]
STAMP = "2024-01-15T10:30:00Z"
NOT_FOUND: Answer = 404, b'{"data": null, "error": {"code": "NOT_FOUND", "message": "no such"}}'
REFUSED: Answer = 429, b'{"data": null, "error": {"code": "RATE_LIMITED", "message": "slow down"}}'


def answer(world: World, method: str, target: str, *, origin: str, now: float) -> Answer:
    """What the service says to one request that the limit let in."""
    path, _, query = target.partition("?")
    name, _, rest = path[1:].partition("/")
    dialect = _DIALECTS.get(name, _egg)
    if method == "POST":
        world.counts["submit"] += 1
        return dialect(world, world.create(now), rest, origin, now)
    if dialect is _egg and path == "/v1/tasks":
        world.counts["list"] += 1
        return _egg_page(world, query, now)
    world.counts["get"] += 1
    job = world.jobs.get(_task_id(path))
    return NOT_FOUND if job is None else dialect(world, job, rest, origin, now)


def _task_id(path: str) -> str:
    return next((part for part in path.split("/") if part.startswith("gen_")), "")


def _egg(world: World, job: Job, path: str, _: str, now: float) -> Answer:
    status = 202 if path == "generate" else 200
    return status, b'{"data": ' + job.shown(now, world.wall) + b', "error": null}'


def _egg_page(world: World, query: str, now: float) -> Answer:
    asked = parse_qs(query)
    number, per_page = int(asked.get("page", ["1"])[0]), int(asked.get("per_page", ["20"])[0])
    jobs, total = world.page(number, per_page, now)
    place = {
        "page": number,
        "per_page": per_page,
        "total": total,
        "total_pages": -(-total // per_page),
    }
    items = b", ".join(job.shown(now, world.wall) for job in jobs)
    tail = b'], "pagination": ' + json.dumps(place).encode() + b'}, "error": null}'
    return 200, b'{"data": {"items": [' + items + tail


def _replicate(_: World, job: Job, path: str, origin: str, now: float) -> Answer:
    status = _word(job, now, "starting", "processing", "succeeded")
    where = f"{origin}/replicate/v1/predictions/{job.task_id}"
    return _json(
        201 if path.endswith("predictions") else 200,
        id=job.task_id,
        model="egg/nanobanana",
        version="hidden",
        status=status,
        input={"prompt": "A cat"},
        output=["https://cdn.eggapi.ai/0.png"] if status == "succeeded" else None,
        logs="",
        error=None,
        metrics={},
        created_at=STAMP,
        started_at=None,
        completed_at=None,
        urls={"get": where, "cancel": f"{where}/cancel"},
    )


def _fal(_: World, job: Job, path: str, origin: str, now: float) -> Answer:
    where = f"{origin}/fal/egg/nanobanana/requests/{job.task_id}"
    if path.endswith("/status"):
        status = _word(job, now, "IN_QUEUE", "IN_PROGRESS", "COMPLETED")
        return _json(200, status=status, queue_position=0, logs=None, metrics={})
    if path.endswith(job.task_id):
        picture = {"url": "https://cdn.eggapi.ai/0.png", "content_type": "image/png"}
        return _json(200, images=[picture], request_id=job.task_id)
    urls = {"response_url": where, "status_url": f"{where}/status", "cancel_url": f"{where}/cancel"}
    return _json(200, request_id=job.task_id, status="IN_QUEUE", queue_position=0, **urls)


def _runway(_: World, job: Job, path: str, __: str, now: float) -> Answer:
    cost = {"credits": 1}
    if path.endswith("text_to_image"):
        return _json(200, id=job.task_id, estimatedCost=cost)
    status = _word(job, now, "PENDING", "RUNNING", "SUCCEEDED")
    common = {"id": job.task_id, "createdAt": STAMP, "status": status}
    if status == "SUCCEEDED":
        return _json(200, **common, output=["https://cdn.eggapi.ai/0.png"], cost=cost)
    return _json(200, **common, progress=0.5, estimatedCost=cost)


def _openai(_: World, job: Job, __: str, ___: str, now: float) -> Answer:
    return _json(
        200,
        id=job.task_id,
        object="video",
        created_at=1705314600,
        model="sora-2",
        progress=0,
        seconds="4",
        size="720x1280",
        prompt="A cat",
        status=_word(job, now, "queued", "in_progress", "completed"),
    )


def _word(job: Job, now: float, pending: str, processing: str, completed: str) -> str:
    words = {"pending": pending, "processing": processing, "completed": completed}
    return words[job.status(now)]


def _json(code: int, /, **fields: Any) -> Answer:
    return code, json.dumps(fields).encode()


_DIALECTS: dict[str, Callable[[World, Job, str, str, float], Answer]] = {
    "replicate": _replicate,
    "fal": _fal,
    "runway": _runway,
    "openai": _openai,
}
