"""The command `eggapi`: doors to the library for shells and people.

It uses the public names of the package only, and is the only place that knows click and rich.
"""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import anyio
import anyio.lowlevel
import click

from .._version import __version__
from .batch import batch
from .completion import completion
from .demo import demo
from .doctor import doctor
from .emulator import emulator
from .gallery import gallery
from .generate import generate
from .session import Session, with_emulator, with_json
from .tasks import tasks
from .usage import usage
from .webhook import webhook

__all__ = ["eggapi", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--base-url", metavar="URL", help="Where the API is, else EGGAPI_BASE_URL.")
@click.option(
    "--api-key-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that holds the key, else EGGAPI_API_KEY.",
)
@with_emulator
@click.option(
    "--emulator-speed",
    envvar="EGGAPI_EMULATOR_SPEED",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    hidden=True,
)
@with_json
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-v", "--verbose", count=True, help="Show the library's log; -vv: all of it.")
@click.version_option(__version__, prog_name="eggapi-async", message="%(prog)s %(version)s")
@click.pass_context
def eggapi(
    context: click.Context,
    base_url: str | None,
    api_key_file: Path | None,
    emulator_speed: float,
    quiet: bool,
    verbose: int,
) -> None:
    """Generate images with the Egg API, one or thousands.

    \b
    eggapi demo                               see it work: no key, no network
    eggapi generate "An egg in a nest"        one image, saved here
    eggapi batch prompts.txt -o out           an image for every line
    eggapi doctor                             what is wrong, where something is

    The key is read from EGGAPI_API_KEY. Data goes to stdout, talk to stderr.

    \b
    Exit codes: 0 all done, 1 failed, 2 usage, 3 some items failed, 4 the key
    is missing or refused, 5 money, 129, 130 and 143 interrupted.
    """
    session = context.ensure_object(Session)
    session.base_url = base_url
    session.api_key_file = api_key_file
    session.speed = emulator_speed
    session.is_quiet = quiet
    session.verbosity = verbose
    _show_log(context, verbose)


def _show_log(context: click.Context, verbose: int) -> None:
    log, handler = logging.getLogger("eggapi_async"), logging.StreamHandler()
    level = log.level
    if verbose:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.setLevel(logging.INFO if verbose == 1 else logging.DEBUG)
    else:
        handler.setLevel(logging.WARNING)
        handler.addFilter(_is_news)
    log.addHandler(handler)
    context.call_on_close(lambda: log.removeHandler(handler))
    context.call_on_close(lambda: log.setLevel(level))


def _is_news(record: logging.LogRecord) -> bool:
    """False for what the command tells itself: lost answers, unless it was cancelled before."""
    return not getattr(record, "egg_is_lost", False) or "cancelled before" in record.getMessage()


COMMANDS = (batch, completion, demo, doctor, emulator, gallery, generate, tasks, usage, webhook)


def _is_inside_a_loop() -> bool:
    """True in a notebook, say, where no other loop can be run."""
    with suppress(anyio.NoEventLoopError):
        anyio.lowlevel.current_token()
        return True
    return False


for command in COMMANDS:
    eggapi.add_command(command)


def main() -> NoReturn:
    """Run the command line; leaves with its exit code."""
    if _is_inside_a_loop():
        sys.exit(
            "eggapi: an event loop is running here; in a notebook: !eggapi …, or await the client"
        )
    try:
        code = eggapi.main(prog_name="eggapi", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:  # Ctrl-C before there was anything to clean up
        code = 128 + signal.SIGINT
    sys.exit(code)
