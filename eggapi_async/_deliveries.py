"""Deliveries taken in: from what a webhook told to the waits that it ends.

What an event tells is believed as far as it is trusted and tells all; otherwise the service is
asked once. Waiters live on the event loop that submitted; a delivery that comes on another one is
taken there. It verifies nothing: that is the receiver's.
"""

from __future__ import annotations

from functools import partial

import anyio
import anyio.from_thread
import anyio.to_thread

from . import _protocol
from ._events import WebhookEvent, task_fields, tells_all
from ._home import Home
from ._hub import Hub
from ._retry import Patience
from ._submission import Submissions
from ._transport import Transport
from .models import TaskSnapshot


class Deliveries:
    """Hands what webhooks tell to the hub, and references to the submissions they belong to."""

    def __init__(
        self, *, transport: Transport, hub: Hub, submissions: Submissions, home: Home
    ) -> None:
        self._home = home
        self._transport = transport
        self._hub = hub
        self._submissions = submissions

    async def take(self, event: WebhookEvent, patience: Patience) -> TaskSnapshot | None:
        """Take in *event*; the task as it is known then, None where the event tells no status."""
        self._home.check_process()  # the parent's loop would never answer
        home = self._hub.home
        if home is None or home == anyio.lowlevel.current_token():
            return await self._take(event, patience)
        take = partial(self._take, event, patience)
        try:
            call = partial(anyio.from_thread.run, take, token=home)
            return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
        except anyio.RunFinishedError:  # that loop is gone, and so are its waiters
            return await take()

    async def _take(self, event: WebhookEvent, patience: Patience) -> TaskSnapshot | None:
        fields = task_fields(event)
        if event.is_final and not tells_all(event):
            call = _protocol.get_task(event.task_id)
            truth = await self._transport.call(call, patience, accept=lambda task, _: task)
            fields = dict(truth.raw)
        elif "status" not in fields or not event.is_trusted:
            return None
        if event.reference is not None:
            self._submissions.name(event.reference, event.task_id)
        return self._hub.delivered(fields)
