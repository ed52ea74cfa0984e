"""aiohttp.web, which is no ASGI: a picture per request, its end told by a webhook.

EGGAPI_API_KEY=… EGGAPI_WEBHOOK_SECRET=… WEBHOOK_URL=https://you.example/webhooks/egg \\
    python webhook_aiohttp.py 8000

Bots mostly have such a server already; `receiver.handle` takes the raw body and the headers from
whatever there is, and says with which status to answer.
"""

import os
import sys
from collections.abc import AsyncIterator

from aiohttp import web

from eggapi_async import AsyncEggClient, WebhookReceiver

EGG = web.AppKey("EGG", AsyncEggClient)
RECEIVER = web.AppKey("RECEIVER", WebhookReceiver)
NEEDED = ["EGGAPI_API_KEY", "EGGAPI_WEBHOOK_SECRET", "WEBHOOK_URL"]


async def life(app: web.Application) -> AsyncIterator[None]:
    async with AsyncEggClient(webhook_url=os.environ["WEBHOOK_URL"]) as egg:
        app[EGG] = egg
        app[RECEIVER] = WebhookReceiver(os.environ["EGGAPI_WEBHOOK_SECRET"], deliver=egg.deliver)
        yield


async def webhook(request: web.Request) -> web.Response:
    body = await request.read()  # at most a megabyte, by aiohttp's own limit
    status = await request.app[RECEIVER].handle(body, request.headers, query=request.query_string)
    return web.Response(status=status)


async def picture(request: web.Request) -> web.Response:
    egg = request.app[EGG]
    result = await egg.run(await request.text())
    return web.json_response({"url": result.url, "polls": egg.stats.polls})


app = web.Application()
app.cleanup_ctx.append(life)
app.add_routes([web.post("/webhooks/egg", webhook), web.post("/pictures", picture)])

if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.exit("usage: WEBHOOK_URL=https://… python webhook_aiohttp.py PORT")
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        sys.exit(f"usage: python webhook_aiohttp.py PORT, with {', '.join(missing)} set")
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
