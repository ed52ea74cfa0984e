"""Litestar: a picture per request, its end told by a webhook.

    EGGAPI_API_KEY=… EGGAPI_WEBHOOK_SECRET=… WEBHOOK_URL=https://you.example/webhooks/egg \\
        uvicorn webhook_litestar:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, asgi, post
from litestar.types import Receive, Scope, Send

from eggapi_async import AsyncEggClient, WebhookReceiver


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


@post("/pictures")
async def picture(request: Request[Any, Any, Any]) -> dict[str, Any]:
    egg: AsyncEggClient = request.app.state.egg
    result = await egg.run((await request.body()).decode())
    return {"url": result.url, "polls": egg.stats.polls}


app = Litestar([webhook, picture], lifespan=[lifespan])
