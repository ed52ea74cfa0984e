"""Django under ASGI: a picture per request, its end told by a webhook.

    EGGAPI_API_KEY=… EGGAPI_WEBHOOK_SECRET=… WEBHOOK_URL=https://you.example/webhooks/egg \\
        uvicorn webhook_django:app

Django has no lifespan and mounts no other application, so `app` at the end, in place of what
`asgi.py` has, does both: the client lives as long as the server, and webhooks go to the receiver
before Django sees them, which needs no exemption from its CSRF check then.
"""

import os
import sys
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from eggapi_async import AsyncEggClient, WebhookReceiver

if not settings.configured:  # in a project of yours: its own settings
    settings.configure(
        ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY=os.urandom(16).hex(), DEBUG=False
    )
django.setup(set_prefix=False)

needed = ["EGGAPI_API_KEY", "EGGAPI_WEBHOOK_SECRET", "WEBHOOK_URL"]
if missing := [name for name in needed if not os.environ.get(name)]:
    sys.exit(f"usage: uvicorn webhook_django:app, with {', '.join(missing)} set")

egg = AsyncEggClient(webhook_url=os.environ["WEBHOOK_URL"])
receiver = WebhookReceiver(os.environ["EGGAPI_WEBHOOK_SECRET"], deliver=egg.deliver)


async def picture(request: HttpRequest) -> JsonResponse:
    result = await egg.run(request.body.decode())
    return JsonResponse({"url": result.url, "polls": egg.stats.polls})


urlpatterns = [path("pictures", csrf_exempt(picture))]  # exempt so that it is easily tried
pages: Any = get_asgi_application()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receiver(scope, receive, send)
        await egg.aclose()
    elif scope["path"] == "/webhooks/egg":
        await receiver(scope, receive, send)
    else:
        await pages(scope, receive, send)
