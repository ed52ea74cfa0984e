"""Litestar: a picture is ordered (202), then looked at or followed; a webhook tells its end.

    EGGAPI_API_KEY=… EGGAPI_WEBHOOK_SECRET=… WEBHOOK_URL=https://you.example/webhooks/egg \\
        uvicorn app_litestar:app
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, MediaType, Request, Response, asgi, get, post
from litestar.datastructures import State
from litestar.params import FromPath
from litestar.response import ServerSentEvent, ServerSentEventMessage
from litestar.types import Receive, Scope, Send

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
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    async with AsyncEggClient(webhook_url=os.environ["WEBHOOK_URL"]) as egg:
        secret = os.environ["EGGAPI_WEBHOOK_SECRET"]
        app.state.egg = egg
        app.state.receiver = WebhookReceiver(secret, deliver=egg.deliver)
        yield


@asgi("/webhooks/egg", copy_scope=True)
async def webhook(scope: Scope, receive: Receive, send: Send) -> None:
    await scope["litestar_app"].state.receiver(scope, receive, send)


@post("/pictures", status_code=202)
async def order(request: Request[Any, Any, State], state: State) -> dict[str, str]:
    task = await state.egg.generate((await request.body()).decode())
    return {"id": task.id, "look": f"/pictures/{task.id}", "follow": f"/pictures/{task.id}/events"}


@get("/pictures/{task_id:str}")
async def look(task_id: FromPath[str], state: State) -> dict[str, Any]:
    return shown(await known(state.egg.task(task_id)))


@get("/pictures/{task_id:str}/events")
async def follow(task_id: FromPath[str], state: State) -> ServerSentEvent:
    task = state.egg.task(task_id)
    await known(task)  # a stream that has begun can no longer say 404
    return ServerSentEvent(told(task))


def explain(request: Request[Any, Any, State], error: EggError) -> Response[dict[str, str]]:
    if isinstance(error, InvalidRequestError):
        text, status = str(error), 422
    elif isinstance(error, NotFoundError):
        text, status = "there is no such picture", 404
    else:
        text, status = "pictures cannot be had just now", 503
    return Response({"error": text}, status_code=status, media_type=MediaType.JSON)


async def known(task: GenerationTask) -> TaskSnapshot:
    """As it is: told already, or asked for now."""
    return task.snapshot if task.snapshot and task.done else await task.refresh()


async def told(task: GenerationTask) -> AsyncIterator[ServerSentEventMessage]:
    """Server-sent events; whoever comes back after a broken line is told where things stand."""
    async for snapshot in task.updates():
        yield ServerSentEventMessage(event=snapshot.status, data=json.dumps(shown(snapshot)))


def shown(task: TaskSnapshot) -> dict[str, Any]:
    return {"id": task.id, "status": task.status, "url": task.url, "error": task.error}


app = Litestar(
    [webhook, order, look, follow], lifespan=[lifespan], exception_handlers={EggError: explain}
)
