"""Django under ASGI: a picture is ordered, then looked at or followed; a webhook tells its end.

    EGGAPI_API_KEY=… EGGAPI_WEBHOOK_SECRET=… WEBHOOK_URL=https://you.example/webhooks/egg \\
        uvicorn app_django:app

Django has no lifespan and mounts no other application, so `app` at the end, in place of what
`asgi.py` has, does both: the client lives as long as the server, and webhooks go to the receiver
before Django sees them, which needs no exemption from its CSRF check then.
"""

import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from eggapi_async import (
    AsyncEggClient,
    EggError,
    GenerationTask,
    InvalidRequestError,
    NotFoundError,
    TaskSnapshot,
    WebhookReceiver,
)

if not settings.configured:  # in a project of yours: its own settings
    settings.configure(
        ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY=os.urandom(16).hex(), DEBUG=False
    )
django.setup(set_prefix=False)

needed = ["EGGAPI_API_KEY", "EGGAPI_WEBHOOK_SECRET", "WEBHOOK_URL"]
if missing := [name for name in needed if not os.environ.get(name)]:
    sys.exit(f"usage: uvicorn app_django:app, with {', '.join(missing)} set")

egg = AsyncEggClient(webhook_url=os.environ["WEBHOOK_URL"])
receiver = WebhookReceiver(os.environ["EGGAPI_WEBHOOK_SECRET"], deliver=egg.deliver)


def explained(view: Callable[..., Awaitable[HttpResponseBase]]) -> Any:
    @wraps(view)
    async def answer(request: HttpRequest, **parts: str) -> HttpResponseBase:
        try:
            return await view(request, **parts)
        except InvalidRequestError as error:
            return JsonResponse({"error": str(error)}, status=422)
        except NotFoundError:
            return JsonResponse({"error": "there is no such picture"}, status=404)
        except EggError:
            return JsonResponse({"error": "pictures cannot be had just now"}, status=503)

    return csrf_exempt(answer)  # exempt so that it is easily tried


@explained
async def order(request: HttpRequest) -> HttpResponseBase:
    task = await egg.generate(request.body.decode())
    place = f"/pictures/{task.id}"
    return JsonResponse({"id": task.id, "look": place, "follow": f"{place}/events"}, status=202)


@explained
async def look(request: HttpRequest, task_id: str) -> HttpResponseBase:
    return JsonResponse(shown(await known(egg.task(task_id))))


@explained
async def follow(request: HttpRequest, task_id: str) -> HttpResponseBase:
    task = egg.task(task_id)
    await known(task)  # a stream that has begun can no longer say 404
    return StreamingHttpResponse(told(task), content_type="text/event-stream")


async def known(task: GenerationTask) -> TaskSnapshot:
    """As it is: told already, or asked for now."""
    return task.snapshot if task.snapshot and task.done else await task.refresh()


async def told(task: GenerationTask) -> AsyncIterator[str]:
    """Server-sent events; whoever comes back after a broken line is told where things stand."""
    async for snapshot in task.updates():
        yield f"event: {snapshot.status}\ndata: {json.dumps(shown(snapshot))}\n\n"


def shown(task: TaskSnapshot) -> dict[str, str | None]:
    return {"id": task.id, "status": task.status, "url": task.url, "error": task.error}


urlpatterns = [
    path("pictures", order),
    path("pictures/<task_id>", look),
    path("pictures/<task_id>/events", follow),
]
pages: Any = get_asgi_application()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receiver(scope, receive, send)
        await egg.aclose()
    elif scope["path"] == "/webhooks/egg":
        await receiver(scope, receive, send)
    else:
        await pages(scope, receive, send)
