"""From errors to exit codes, words and advice.

Its rule: a failure is one clear line on stderr, and what to do next where there is something to do.
0 all done, 1 failed, 2 usage, 3 some items failed, 4 the key, 5 money; 129, 130 and 143: a
signal.
"""

from __future__ import annotations

import click

from ..errors import (
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ConfigurationError,
    ConnectionFailedError,
    EggError,
    InsufficientBalanceError,
    InvalidRequestError,
    JournalError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    SubmissionUncertainError,
    TaskFailedError,
    TaskTimeoutError,
)

OK, FAILED, USAGE, PARTLY, NO_KEY, NO_MONEY = 0, 1, 2, 3, 4, 5

_KEY_HINT = (
    "set EGGAPI_API_KEY, or name a file that holds the key: eggapi --api-key-file FILE …\n"
    "      (without a key: `eggapi demo`, or --emulator with any command)"
)


def complain(error: EggError, *, about: str = "") -> int:
    """Say on stderr what went wrong (*about* what) and what to do; the exit code."""
    text = told(error)
    place = f"{about}: " if about not in text else ""
    click.echo(f"error: {place}{text}", err=True)
    if advice := hint(error):
        click.echo(f"hint: {advice}", err=True)
    return exit_code(error)


def told(error: EggError) -> str:
    """The error's text, without the advice that only Python can follow."""
    return str(error).partition(": await ")[0]


def exit_code(error: EggError) -> int:
    """The exit code of a command that *error* ended."""
    if isinstance(error, (InsufficientBalanceError, BudgetExceededError)):
        return NO_MONEY
    if isinstance(error, (AuthenticationError, PermissionDeniedError)):
        return NO_KEY
    if isinstance(error, ConfigurationError):
        return NO_KEY if str(error).startswith("api_key") else USAGE
    return USAGE if isinstance(error, InvalidRequestError) else FAILED


def is_hopeless(error: EggError | None) -> bool:
    """True when nothing else that is asked for with this key can succeed either."""
    return isinstance(error, EggError) and exit_code(error) in (NO_KEY, NO_MONEY)


def is_refusal(error: EggError) -> bool:
    """True when the same request would be refused again."""
    if isinstance(error, TaskFailedError):
        return error.is_moderation
    return isinstance(error, (InvalidRequestError, BadRequestError))


def is_passing(error: EggError) -> bool:
    """True when nothing was refused for good: a journal does not count it as failed."""
    return isinstance(error, (ConnectionFailedError, RateLimitedError, ServerError))


def hint(error: EggError) -> str:
    """What to do next about *error*, or nothing."""
    if isinstance(error, BudgetExceededError):
        return "a higher --max-cost lets it go on"
    if exit_code(error) == NO_MONEY:
        return "top up the account, then run the command again"
    if exit_code(error) == NO_KEY:
        return _KEY_HINT
    if isinstance(error, TaskTimeoutError):
        return f"eggapi tasks wait {error.task_id}"
    if isinstance(error, SubmissionUncertainError):
        return "`eggapi tasks list` shows whether the task exists"
    if isinstance(error, ConnectionFailedError):
        return "is the service within reach? `eggapi demo` needs no network"
    if isinstance(error, JournalError) and "a journal for each service" in str(error):
        return "another service needs another folder: -o DIR"
    return ""
