"""FastAPI: a picture is ordered (202), then looked at or followed; a webhook tells its end.

    EGGAPI_API_KEY=… EGGAPI_WEBHOOK_SECRET=… WEBHOOK_URL=https://you.example/webhooks/egg \\
        uvicorn app_fastapi:app

    curl -d "An egg on a spoon" http://127.0.0.1:8000/pictures     # its id, and where to look
    curl http://127.0.0.1:8000/pictures/gen_…                      # as it is now
    curl -N http://127.0.0.1:8000/pictures/gen_…/events            # every change, until the end

One client serves the whole app. No task is kept here, so a restart loses nothing: ids are enough.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
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
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncEggClient(webhook_url=os.environ["WEBHOOK_URL"]) as egg:
        app.state.egg = egg
        receiver = WebhookReceiver(os.environ["EGGAPI_WEBHOOK_SECRET"], deliver=egg.deliver)
        app.router.routes.append(Route("/webhooks/egg", receiver))  # reads the raw body itself
        yield


app = FastAPI(lifespan=lifespan)


def the_client(request: Request) -> AsyncEggClient:
    egg: AsyncEggClient = request.app.state.egg
    return egg


Egg = Annotated[AsyncEggClient, Depends(the_client)]


@app.post("/pictures", status_code=202)
async def order(request: Request, egg: Egg) -> dict[str, str]:
    task = await egg.generate((await request.body()).decode())
    return {"id": task.id, "look": f"/pictures/{task.id}", "follow": f"/pictures/{task.id}/events"}


@app.get("/pictures/{task_id}")
async def look(task_id: str, egg: Egg) -> dict[str, Any]:
    return shown(await known(egg.task(task_id)))


@app.get("/pictures/{task_id}/events")
async def follow(task_id: str, egg: Egg) -> StreamingResponse:
    task = egg.task(task_id)
    await known(task)  # a stream that has begun can no longer say 404
    return StreamingResponse(told(task), media_type="text/event-stream")


@app.exception_handler(EggError)
async def explain(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, InvalidRequestError):
        return JSONResponse({"error": str(error)}, status_code=422)
    if isinstance(error, NotFoundError):
        return JSONResponse({"error": "there is no such picture"}, status_code=404)
    return JSONResponse({"error": "pictures cannot be had just now"}, status_code=503)


async def known(task: GenerationTask) -> TaskSnapshot:
    """As it is: told already, or asked for now."""
    return task.snapshot if task.snapshot and task.done else await task.refresh()


async def told(task: GenerationTask) -> AsyncIterator[str]:
    """Server-sent events; whoever comes back after a broken line is told where things stand."""
    async for snapshot in task.updates():
        yield f"event: {snapshot.status}\ndata: {json.dumps(shown(snapshot))}\n\n"


def shown(task: TaskSnapshot) -> dict[str, Any]:
    return {"id": task.id, "status": task.status, "url": task.url, "error": task.error}
