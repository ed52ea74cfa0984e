"""`eggapi webhook`: hear what the service tells, or check what it told.

A secret is never an option's value, so that no shell history keeps it.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from .options import with_port
from .serving import address, listening, need_server, serve
from .trouble import FAILED, complain

if TYPE_CHECKING:
    from collections.abc import Callable

    from .. import WebhookEvent

_secret_file = click.option(
    "--secret-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Holds the secret, or one a line, else EGGAPI_WEBHOOK_SECRET.",
)
_allow_unsigned = click.option(
    "--allow-unsigned", is_flag=True, help="Take deliveries without a signature, too."
)


def _tolerance(default: float | None) -> Callable[..., Any]:
    return click.option(
        "--tolerance",
        metavar="SECONDS",
        type=click.FloatRange(min=0),
        default=default,
        help="How old or early a delivery may be"
        + (f" [default: {default:g}]." if default is not None else " [default: any]."),
    )


@click.group(short_help="Hear webhooks, or check them.")
def webhook() -> None:
    """Hear what the service tells when tasks end, or check what it told.

    \b
    eggapi webhook listen --port 8787
    eggapi webhook verify body.json -H 'X-EggAPI-Timestamp: …' -H …

    The webhook secret is read from EGGAPI_WEBHOOK_SECRET.
    """


@webhook.command(short_help="Print webhooks as they come.")
@with_port(8787)
@click.option(
    "--host", metavar="HOST", default="127.0.0.1", show_default=True, help="At which address."
)
@_secret_file
@_tolerance(300)
@_allow_unsigned
def listen(
    port: int, host: str, secret_file: Path | None, tolerance: float, allow_unsigned: bool
) -> None:
    """Print every genuine webhook once, as a line of JSON, until Ctrl-C.

    \b
    eggapi webhook listen
    eggapi webhook listen --port 0 | jq .task_id

    Any path will do. The service needs an https URL that leads here: a tunnel or
    a reverse proxy. Nothing is printed for what is forged or comes again.
    """
    need_server("listening")
    from .. import WebhookReceiver

    receiver = WebhookReceiver(
        _secrets(secret_file, allow_unsigned) or None,
        on_event=_print,
        tolerance=tolerance,
        allow_unsigned=allow_unsigned,
    )
    with listening(host, port) as door:
        url = address(host, door.getsockname()[1])
        click.echo(f"listening for webhooks at {url} (Ctrl-C ends it)", err=True)
        serve(receiver, door, server_header=False)


@webhook.command(short_help="Check one webhook that was kept.")
@click.argument("body", type=click.File("rb"), default="-")
@click.option(
    "-H", "--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="As it came along."
)
@_secret_file
@_tolerance(None)
@_allow_unsigned
def verify(
    body: BinaryIO,
    headers: tuple[str, ...],
    secret_file: Path | None,
    tolerance: float | None,
    allow_unsigned: bool,
) -> None:
    """Check the raw BODY of a webhook (a file, or stdin) and print its event.

    \b
    eggapi webhook verify body.json -H "X-EggAPI-Timestamp: 1705314690" \\
        -H "X-EggAPI-Signature: sha256=…"

    Ends with 1 where it is not genuine. Its age does not matter by default.
    """
    from .. import WebhookVerificationError, verify_webhook

    pairs = [
        (name.strip(), value.strip()) for name, _, value in (h.partition(":") for h in headers)
    ]
    try:
        event = verify_webhook(
            body.read(),
            pairs,
            _secrets(secret_file, allow_unsigned),
            tolerance=math.inf if tolerance is None else tolerance,
            allow_unsigned=allow_unsigned,
        )
    except WebhookVerificationError as error:
        complain(error, about=error.reason)
        click.get_current_context().exit(FAILED)
    _print(event)


def _secrets(file: Path | None, is_optional: bool) -> list[str]:
    """The secrets that the file or the environment names."""
    text = os.environ.get("EGGAPI_WEBHOOK_SECRET", "") if file is None else file.read_text("utf-8")
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found and not is_optional:
        place = "EGGAPI_WEBHOOK_SECRET" if file is None else file
        raise click.UsageError(f"there is no webhook secret in {place}")
    return found


def _print(event: WebhookEvent) -> None:
    click.echo(json.dumps({**event.raw, "is_signed": event.is_trusted}))
