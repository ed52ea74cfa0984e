"""What the command line says: numbers, tallies, advice and exit codes."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from decimal import Decimal
from threading import Event
from typing import Any

import pytest
from rich.console import Console

from eggapi_async.cli.demo import polls_by_advice
from eggapi_async.cli.progress import Tally, _live, _plain, drawn
from eggapi_async.cli.trouble import complain, exit_code, hint, is_hopeless
from eggapi_async.cli.wording import clock, counted, sized
from eggapi_async.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConfigurationError,
    ConnectionFailedError,
    EggError,
    InsufficientBalanceError,
    InvalidRequestError,
    PermissionDeniedError,
    ServerError,
    SubmissionUncertainError,
    TaskFailedError,
    TaskTimeoutError,
    dollars,
)
from eggapi_async.models import GenerationRequest, TaskSnapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)

WORDS = {
    counted(1, "task"): "1 task",
    counted(1200, "task"): "1,200 tasks",
    dollars(Decimal("2.0000")): "$2.00",
    dollars(Decimal("0.0160")): "$0.016",
    dollars(Decimal(0)): "$0.00",
    dollars(Decimal(100)): "$100.00",
    clock(7.9): "0:07",
    clock(760): "12:40",
    clock(11_100): "3:05:00",
    sized(812_000): "812 kB",
    sized(3_600_000): "3.6 MB",
}


@pytest.mark.parametrize(("said", "expected"), WORDS.items(), ids=WORDS.values())
def test_a_number_reads_well(said: str, expected: str) -> None:
    """Counts have commas and plurals, money its cents, times their units."""
    assert said == expected


def tally(**changes: Any) -> Tally:
    """A tally of a hundred items, a fifth of them done."""
    given: dict[str, Any] = {
        "done": 19,
        "failed": 1,
        "running": 80,
        "total": 100,
        "images": 38,
        "spent": Decimal("0.38"),
        "elapsed": 30.0,
    }
    return Tally(**(given | changes))


TALLIES: dict[str, tuple[Tally, str]] = {
    "everything known": (
        tally(total=1000),
        "19 of 1,000 done · 1 failed · 80 running · 76 images/min · $0.38 · 0:30 · 24:30 left",
    ),
    "all under way": (
        tally(),
        "19 of 100 done · 1 failed · 80 running · 76 images/min · $0.38 · 0:30",
    ),
    "an open end": (
        tally(total=None, failed=0),
        "19 done · 80 running · 76 images/min · $0.38 · 0:30",
    ),
    "nothing yet": (
        tally(done=0, failed=0, images=0, spent=Decimal(0), elapsed=0.0),
        "0 of 100 done · 80 running · $0.00 · 0:00",
    ),
    "all ended": (
        tally(done=99, running=0, images=99),
        "99 of 100 done · 1 failed · 0 running · 198 images/min · $0.38 · 0:30",
    ),
}


@pytest.mark.parametrize(("given", "expected"), TALLIES.values(), ids=TALLIES)
def test_a_tally_is_one_line(given: Tally, expected: str) -> None:
    """It says what is known, and nothing about what is not."""
    assert given.words() == expected


def on_screen(given: Tally, *, width: int) -> list[str]:
    """What a terminal of this width shows."""
    file = io.StringIO()
    Console(file=file, width=width).print(drawn(given, width=width, moment=1.0))
    return file.getvalue().splitlines()


def test_a_wide_terminal_shows_the_bar_beside_the_words() -> None:
    """One line holds the bar and the words."""
    (line,) = on_screen(tally(), width=120)
    assert line.startswith("━")
    assert line.rstrip().endswith(tally().words())


def test_a_narrow_terminal_shows_the_bar_above_the_words() -> None:
    """Where one line is too short, there are two."""
    bar, words = on_screen(tally(total=None), width=64)
    assert set(bar.strip()) <= set("━╸╺ ")
    assert words.rstrip() == tally(total=None).words()


def test_data_goes_above_the_bar_where_both_are_one_terminal() -> None:
    """At a shared terminal a line of data does not cut through the bar, and is not wrapped."""
    file = io.StringIO()
    console = Console(file=file, width=40, force_terminal=True)
    with _live(console, tally, is_shared=True) as put:
        put("a/very/long/path/" + 40 * "x")
    assert "a/very/long/path/" + 40 * "x" + "\n" in file.getvalue()


def test_without_a_terminal_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A plain line on stderr tells the tally, again and again; data goes to stdout."""
    told = Event()

    def look() -> Tally:
        told.set()
        return tally()

    with _plain(look, pause=0.001) as put:
        put("a path")
        assert told.wait(10)
    out, err = capsys.readouterr()
    assert out == "a path\n"
    assert set(err.splitlines()) == {tally().words()}


REQUEST = GenerationRequest(prompt="An egg")
EXCEEDED = BudgetExceededError(
    limit=Decimal("5.00"), spent=Decimal("4.90"), reserved=Decimal("0.08"), asked=Decimal("0.032")
)
ERRORS: dict[str, tuple[EggError, int, str]] = {
    "no money": (InsufficientBalanceError("no", status_code=403), 5, "top up"),
    "no budget": (EXCEEDED, 5, "--max-cost"),
    "a refused key": (AuthenticationError("no", status_code=401), 4, "set EGGAPI_API_KEY"),
    "a suspended account": (PermissionDeniedError("no", status_code=403), 4, "set EGGAPI_API_KEY"),
    "no key": (ConfigurationError("api_key: there is none"), 4, "set EGGAPI_API_KEY"),
    "a bad address": (ConfigurationError("base_url: expected"), 2, ""),
    "a bad request": (InvalidRequestError("prompt", "", "text"), 2, ""),
    "no network": (ConnectionFailedError("no"), 1, "within reach"),
    "a failing service": (ServerError("no", status_code=500), 1, ""),
    "a failed task": (TaskFailedError(TaskSnapshot(id="gen_1", status="failed")), 1, ""),
    "a long task": (
        TaskTimeoutError("gen_1", timeout=5, snapshot=None),
        1,
        "eggapi tasks wait gen_1",
    ),
    "a lost answer": (
        SubmissionUncertainError("lost", request=REQUEST, sent_at=NOW, lost_at=NOW),
        1,
        "eggapi tasks list",
    ),
}


@pytest.mark.parametrize(("error", "code", "advice"), ERRORS.values(), ids=ERRORS)
def test_an_error_has_a_code_and_advice(error: EggError, code: int, advice: str) -> None:
    """Scripts read the code, people the advice; where there is none, nothing is said."""
    assert exit_code(error) == code
    assert is_hopeless(error) == (code in (4, 5))
    assert advice in hint(error)
    assert bool(hint(error)) == bool(advice)


def test_no_error_is_not_hopeless() -> None:
    """Where nothing went wrong, nothing is lost."""
    assert not is_hopeless(None)


def test_a_complaint_is_told_without_python(capsys: pytest.CaptureFixture[str]) -> None:
    """What only a program could do is left out; what a person can do is added."""
    assert complain(TaskTimeoutError("gen_1", timeout=5, snapshot=None)) == 1
    assert capsys.readouterr().err == (
        "error: gen_1 was not finished after 5 s (last status: unknown); it goes on\n"
        "hint: eggapi tasks wait gen_1\n"
    )


def test_a_complaint_names_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    """An error that does not name its task gets the name in front."""
    complain(ServerError("oops", status_code=500), about="gen_1")
    assert capsys.readouterr().err == "error: gen_1: 500: oops\n"


ADVICE = {0.5: 1, 3.0: 1, 3.1: 2, 8.0: 2, 8.1: 3, 13.0: 3, 30.0: 7}


@pytest.mark.parametrize(("seconds", "polls"), ADVICE.items())
def test_the_advice_is_counted(seconds: float, polls: int) -> None:
    """A task of so many seconds is seen to have ended by the look after 3 s, or each 5 s later."""
    assert polls_by_advice(seconds) == polls
