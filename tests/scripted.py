"""What tests of the wire share: the answers of a well-behaved service, and a client for a server.

The rule: nothing here waits, and no name of it needs a network.
"""

from __future__ import annotations

from typing import Any, Final

from eggapi_async import AsyncEggClient, RateLimiter
from tests.wire import Step, Wire, json_answer

KEY: Final = "canary-0123456789-abcdefghijkl"
"""A key that can be told from everything else, wherever it shows."""


def task(task_id: str = "gen_1", status: str = "pending", **fields: Any) -> dict[str, Any]:
    """A task object."""
    view = {"id": task_id, "status": status, "model": "nanobanana", "type": "image_generate"}
    return {**view, "cost": "$0.00", "created_at": "2025-01-01T00:00:00Z", **fields}


def data(value: object) -> dict[str, Any]:
    """A success envelope."""
    return {"data": value, "error": None}


def error(code: str, message: str = "no") -> dict[str, Any]:
    """An error envelope."""
    return {"data": None, "error": {"code": code, "message": message}}


def accepted(task_id: str = "gen_1") -> Step:
    """What a POST that was taken is answered with."""
    return json_answer(data(task(task_id)), 202)


def client_of(server: Wire | str, **options: Any) -> AsyncEggClient:
    """A client of the server, which no rate holds up."""
    url = server if isinstance(server, str) else server.url
    return AsyncEggClient(
        options.pop("api_key", KEY),
        base_url=url,
        **{"limiter": RateLimiter(per_second=None), "timeout": 5.0, **options},
    )
