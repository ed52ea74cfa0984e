"""Starlette: a picture is ordered (202), then looked at or followed; a webhook tells its end.

    EGGAPI_API_KEY=… EGGAPI_WEBHOOK_SECRET=… WEBHOOK_URL=https://you.example/webhooks/egg \\
        uvicorn app_starlette:app

The receiver is a route: it takes every method itself, and is at this very path (a `Mount` would
redirect to a slash at the end, and a redirected webhook is a failed one).
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from eggapi_async import (
    AsyncEggClient,
    EggError,
    GenerationTask,
    InvalidRequestError,
    NotFoundError,
    TaskSnapshot,
    WebhookReceiver,
)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with AsyncEggClient(webhook_url=os.environ["WEBHOOK_URL"]) as egg:
        app.state.egg = egg
        receiver = WebhookReceiver(os.environ["EGGAPI_WEBHOOK_SECRET"], deliver=egg.deliver)
        app.router.routes.append(Route("/webhooks/egg", receiver))
        yield


async def order(request: Request) -> Response:
    task = await request.app.state.egg.generate((await request.body()).decode())
    place = f"/pictures/{task.id}"
    return JSONResponse({"id": task.id, "look": place, "follow": f"{place}/events"}, 202)


async def look(request: Request) -> Response:
    task = request.app.state.egg.task(request.path_params["task_id"])
    return JSONResponse(shown(await known(task)))


async def follow(request: Request) -> Response:
    task = request.app.state.egg.task(request.path_params["task_id"])
    await known(task)  # a stream that has begun can no longer say 404
    return StreamingResponse(told(task), media_type="text/event-stream")


async def explain(request: Request, error: Exception) -> Response:
    if isinstance(error, InvalidRequestError):
        return JSONResponse({"error": str(error)}, 422)
    if isinstance(error, NotFoundError):
        return JSONResponse({"error": "there is no such picture"}, 404)
    return JSONResponse({"error": "pictures cannot be had just now"}, 503)


async def known(task: GenerationTask) -> TaskSnapshot:
    """As it is: told already, or asked for now."""
    return task.snapshot if task.snapshot and task.done else await task.refresh()


async def told(task: GenerationTask) -> AsyncIterator[str]:
    """Server-sent events; whoever comes back after a broken line is told where things stand."""
    async for snapshot in task.updates():
        yield f"event: {snapshot.status}\ndata: {json.dumps(shown(snapshot))}\n\n"


def shown(task: TaskSnapshot) -> dict[str, str | None]:
    return {"id": task.id, "status": task.status, "url": task.url, "error": task.error}


app = Starlette(
    routes=[
        Route("/pictures", order, methods=["POST"]),
        Route("/pictures/{task_id}", look),
        Route("/pictures/{task_id}/events", follow),
    ],
    exception_handlers={EggError: explain},
    lifespan=lifespan,
)
