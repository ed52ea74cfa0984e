"""The documented Egg API as a plain ASGI app, for tests, demonstrations and work without a key.

Its rule: written from the API's documents alone, it shares no code with the client, so that what
one side misreads is not hidden by the other. It has no clock and no dice of its own,
and no background tasks but the webhooks' while they are asked for.
"""

from __future__ import annotations

from .app import EggEmulator
from .deliveries import WebhookFault
from .faults import Fault

__all__ = ["EggEmulator", "Fault", "WebhookFault"]
