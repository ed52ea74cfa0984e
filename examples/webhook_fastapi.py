"""FastAPI: a picture per request, its end told by a webhook.

    EGGAPI_API_KEY=… EGGAPI_WEBHOOK_SECRET=… WEBHOOK_URL=https://you.example/webhooks/egg \\
        uvicorn webhook_fastapi:app

The receiver reads the raw body itself, which no model or middleware may have touched.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from starlette.routing import Route

from eggapi_async import AsyncEggClient, WebhookReceiver


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncEggClient(webhook_url=os.environ["WEBHOOK_URL"]) as egg:
        app.state.egg = egg
        receiver = WebhookReceiver(os.environ["EGGAPI_WEBHOOK_SECRET"], deliver=egg.deliver)
        app.router.routes.append(Route("/webhooks/egg", receiver))
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/pictures")
async def picture(request: Request) -> dict[str, Any]:
    egg: AsyncEggClient = request.app.state.egg
    result = await egg.run((await request.body()).decode())
    return {"url": result.url, "polls": egg.stats.polls}
