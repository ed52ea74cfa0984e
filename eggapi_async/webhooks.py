"""Webhooks that end the await: deliveries verified, taken in once, and handed to the client.

Its rule: nothing of a body is looked at before its signature is known to be good, and 2xx is said
only after everybody who had to hear of it has. Strangers learn nothing: answers have no body.
It keeps no connection, no file and no task of its own.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import anyio
import attrs

from ._asgi import Receive, Scope, Send, live, read_body, refusal, respond
from ._events import WebhookEvent, confirmed, tells_all
from ._hooks import reference_in
from ._recent import Recent
from ._signing import Stamp, read_stamp, usable_secrets
from ._telling import outline
from ._verification import MAX_BODY, PROBLEMS, Secret, sign_webhook, verify_webhook
from .errors import ConfigurationError, EggError, NotFoundError, WebhookVerificationError
from .models import TaskSnapshot

__all__ = ["WebhookEvent", "WebhookReceiver", "sign_webhook", "verify_webhook"]

log = logging.getLogger("eggapi_async")

REMEMBERED: Final = 86_400.0
"""Seconds for which a delivery is known again: the service delivers up to five times more, each
within four hours of the one before."""
MOST_REMEMBERED: Final = 65_536

_STATUS: Final[Mapping[str, int]] = {"too_large": 413, "unreadable": 400}
"""What refusals are answered with; all others with the same 401."""


class _UnconfirmedError(EggError):
    """The service does not say what a delivery said."""


Handler = Callable[[WebhookEvent], Any]


class WebhookReceiver:
    """Takes in the service's deliveries: an ASGI application, or `handle` for anything else.

    secret            the webhook secret, or a list of several while one is replaced
    deliver           `egg.deliver`, or a list of them; or any function of a `WebhookEvent`
    on_event          told of every event once, after *deliver*; a plain or an async function.
                      What it raises is logged, and the service delivers again
    tolerance         seconds that a delivery's timestamp may differ from this machine's clock.
                      Authentic ones beyond are confirmed by *deliver*, or refused where there is
                      none
    allow_unsigned    take deliveries without a signature as hints, for *deliver* to confirm
    max_body          bytes of a body, a megabyte at most
    body_deadline     seconds in which a body must have come
    handler_deadline  seconds for *deliver* and *on_event*; the service waits for 30
    max_concurrent    deliveries under way at once; more are told to come again (503)
    now               the clock, in unix seconds

    2xx is answered when all have heard of the event, and to what was taken in before. The same
    event of the same task counts once, for a day, however often it comes. Raises
    ConfigurationError.
    """

    def __init__(
        self,
        secret: Secret | None = None,
        *,
        deliver: Handler | Iterable[Handler] = (),
        on_event: Handler | None = None,
        tolerance: float = 300.0,
        allow_unsigned: bool = False,
        max_body: int = MAX_BODY,
        body_deadline: float = 10.0,
        handler_deadline: float = 25.0,
        max_concurrent: int = 100,
        now: Callable[[], float] = time.time,
    ) -> None:
        is_given = secret is not None
        self._secrets = usable_secrets(secret)
        del secret  # so that no traceback with locals can show it
        self._deliver = (deliver,) if callable(deliver) else tuple(deliver)
        if not self._secrets and (is_given or not allow_unsigned):
            raise ConfigurationError("secret: expected the webhook secret, or several, none empty")
        if not self._deliver and on_event is None:
            raise ConfigurationError("deliver, on_event: expected at least one of them")
        self._on_event = on_event
        self._tolerance = tolerance
        self._allow_unsigned = allow_unsigned
        self._max_body = min(max_body, MAX_BODY)
        self._body_deadline = body_deadline
        self._handler_deadline = handler_deadline
        self._max_concurrent = max_concurrent
        self._now = now
        self._open = 0
        self._taken: Recent[tuple[str, str], bool] = Recent(MOST_REMEMBERED, REMEMBERED)
        self._under_way: dict[tuple[str, str], anyio.Event] = {}
        self._complaints: set[str] = set()

    def __repr__(self) -> str:
        return f"<WebhookReceiver {self._open} under way, {len(self._taken)} taken in>"

    # --- HTTP ----------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI call, at whatever path it is mounted."""
        if scope["type"] == "lifespan":
            await live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            raise NotImplementedError(f"webhooks come by HTTP, not {scope['type']}")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._open >= self._max_concurrent:
            await respond(send, 503)
            return
        self._open += 1
        try:
            status = await self._status(scope, receive)
        finally:
            self._open -= 1
        if status is not None:
            await respond(send, status)

    async def _status(self, scope: Scope, receive: Receive) -> int | None:
        """What to answer; None where the caller hung up."""
        status = refusal(scope, max_body=self._max_body) or self._refused_stamp(scope["headers"])
        if status is not None:
            return status
        body = await read_body(receive, max_body=self._max_body, seconds=self._body_deadline)
        if not isinstance(body, bytes):
            return body
        query = scope.get("query_string", b"").decode("latin-1")
        return await self.handle(body, scope["headers"], query=query)

    def _refused_stamp(self, headers: object) -> int | None:
        """401 for headers that no body can make good, so that the body need not be read."""
        flaw = read_stamp(headers)
        if isinstance(flaw, Stamp) or (flaw == "unsigned" and self._allow_unsigned):
            return None
        self._complain(flaw)
        return 401

    # --- deliveries ----------------------------------------------------------------------------

    async def handle(self, body: bytes, headers: object, *, query: str = "") -> int:
        """Take in one delivery; the HTTP status to answer with, and no body.

        *query* is the query of the URL it came to, which may carry a reference. Raises
        WebhookVerificationError only where *body* is not in bytes.
        """
        try:
            event = self._verified(body, headers)
        except WebhookVerificationError as error:
            if error.reason == "not_bytes":  # the caller's mistake, not the sender's
                raise
            self._complain(error.reason)
            return _STATUS.get(error.reason, 401)
        event = attrs.evolve(event, reference=reference_in(query))
        with anyio.move_on_after(self._handler_deadline):
            return await self._once(event)
        log.warning("the %s of %s was not handled in time", event.event, event.task_id)
        return 503

    def _verified(self, body: bytes, headers: object) -> WebhookEvent:
        try:
            return verify_webhook(
                body,
                headers,
                self._secrets,
                now=self._now(),
                tolerance=self._tolerance,
                allow_unsigned=self._allow_unsigned,
            )
        except WebhookVerificationError as error:
            if error.event is None or not self._deliver:
                raise
            return error.event  # authentic: its time is doubtful, so the service is asked

    async def _once(self, event: WebhookEvent) -> int:
        """Hand *event* on, unless it was before; the same one does not go on twice at a time."""
        key = (event.task_id, event.event)
        while key in self._under_way:
            await self._under_way[key].wait()
        if self._taken.get(key, now=self._now()):
            return 204
        ended = self._under_way[key] = anyio.Event()
        try:
            await self._hand_on(event)
        except Exception as error:
            self._lament(event, error)
            return 503
        finally:
            del self._under_way[key]
            ended.set()
        self._taken.put(key, True, now=self._now())
        return 204

    async def _hand_on(self, event: WebhookEvent) -> None:
        truth = await self._delivered(event)
        if truth is not None and event.is_final and not tells_all(event):
            if not truth.is_final:
                raise _UnconfirmedError(f"the service says that it is {truth.status}")
            event = confirmed(event, truth)
        if self._on_event is not None:
            await _called(self._on_event, event)

    async def _delivered(self, event: WebhookEvent) -> TaskSnapshot | None:
        """Tell every client; what one of them knows of the task. A task may be none of theirs."""
        found, strange = None, None
        for deliver in self._deliver:
            try:
                told = await _called(deliver, event)
            except NotFoundError as error:
                strange = error
                continue
            found = told if isinstance(told, TaskSnapshot) else found
        if strange is not None and found is None:
            raise strange
        return found

    # --- words ---------------------------------------------------------------------------------

    def _complain(self, reason: str) -> None:
        """Say once what is wrong: it may be the configuration, and floods must not fill a log."""
        level = logging.DEBUG if reason in self._complaints else logging.WARNING
        self._complaints.add(reason)
        log.log(level, "a webhook was refused (%s): %s", reason, PROBLEMS.get(reason, "no event"))

    def _lament(self, event: WebhookEvent, error: Exception) -> None:
        text = "the %s of %s could not be handled, it will be delivered again: %s"
        said = outline(error) if isinstance(error, EggError) else error
        trace = None if isinstance(error, EggError) else error
        log.warning(text, event.event, event.task_id, said, exc_info=trace)


async def _called(handler: Handler, event: WebhookEvent) -> Any:
    result = handler(event)
    return await result if inspect.isawaitable(result) else result
