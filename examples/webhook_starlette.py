"""Starlette: a picture per request, its end told by a webhook.

    EGGAPI_API_KEY=… EGGAPI_WEBHOOK_SECRET=… WEBHOOK_URL=https://you.example/webhooks/egg \\
        uvicorn webhook_starlette:app

The receiver is a route: it takes every method itself, and is at this very path (a `Mount` would
redirect to a slash at the end, and a redirected webhook is a failed one).
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from eggapi_async import AsyncEggClient, WebhookReceiver


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with AsyncEggClient(webhook_url=os.environ["WEBHOOK_URL"]) as egg:
        app.state.egg = egg
        receiver = WebhookReceiver(os.environ["EGGAPI_WEBHOOK_SECRET"], deliver=egg.deliver)
        app.router.routes.append(Route("/webhooks/egg", receiver))
        yield


async def picture(request: Request) -> JSONResponse:
    egg: AsyncEggClient = request.app.state.egg
    result = await egg.run((await request.body()).decode())
    return JSONResponse({"url": result.url, "polls": egg.stats.polls})


app = Starlette(routes=[Route("/pictures", picture, methods=["POST"])], lifespan=lifespan)
