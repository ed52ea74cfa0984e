"""The errors: what they say, that they travel between processes, and that they keep to one tree."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from eggapi_async import errors
from eggapi_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ConfigurationError,
    ConnectionFailedError,
    DownloadError,
    EggError,
    InsufficientBalanceError,
    InvalidRequestError,
    JournalError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitedError,
    ServerError,
    SubmissionUncertainError,
    TaskFailedError,
    TaskTimeoutError,
    TurnCancelledError,
    UnexpectedResponseError,
    WebhookVerificationError,
    WrongLoopError,
    excerpt,
)
from eggapi_async.models import GenerationRequest, TaskSnapshot

NOON = datetime(2024, 1, 15, 12, tzinfo=UTC)
FAILED = TaskSnapshot(id="gen_1", status="failed", error="Content moderation: no", raw={"x": 1})
PENDING = TaskSnapshot(id="gen_1", status="pending")
EXCEEDED = BudgetExceededError(
    limit=Decimal("5.00"), spent=Decimal("4.90"), reserved=Decimal("0.08"), asked=Decimal("0.032")
)


def uncertain(**changes: Any) -> SubmissionUncertainError:
    """A lost submission."""
    fields: dict[str, Any] = {
        "request": GenerationRequest(prompt="A cat", extra={"seed": 7}),
        "sent_at": NOON,
        "lost_at": NOON,
    }
    return SubmissionUncertainError("the answer was lost", **{**fields, **changes})


ONE_OF_EACH: list[EggError] = [
    EggError("the root"),
    ConfigurationError("no key"),
    InvalidRequestError("prompt", "", "text of 1 to 2000 characters"),
    APIError("teapot", status_code=418, code="TEAPOT", request_id="req_1"),
    BadRequestError("num_outputs", status_code=400, code="VALIDATION_ERROR"),
    AuthenticationError("expired", status_code=401, code="UNAUTHORIZED"),
    PermissionDeniedError("suspended", status_code=403, code="FORBIDDEN"),
    InsufficientBalanceError("too poor", status_code=403, code="INSUFFICIENT_BALANCE"),
    NotFoundError("no such task", status_code=404, code="NOT_FOUND"),
    RateLimitedError("slow down", code="RATE_LIMITED", request_id="req_2", retry_after=2.5),
    ServerError("an answer without envelope: ''", status_code=502),
    ConnectionFailedError("ReadTimeout", is_passing=False, was_sent=True),
    uncertain(candidates=(PENDING,)),
    UnexpectedResponseError("expected text", where="$.data.id", status_code=200, body="{}"),
    TaskFailedError(FAILED),
    TaskTimeoutError("gen_1", timeout=600, snapshot=PENDING),
    EXCEEDED,
    QuotaExceededError(7, quota=5, per=60.0, retry_after=12.5),
    TurnCancelledError("a user"),
    DownloadError("HTTP 404", url="https://cdn.eggapi.ai/a.png"),
    JournalError("not a journal"),
    WebhookVerificationError("no signature"),
    WrongLoopError("in use elsewhere"),
]
each_error = pytest.mark.parametrize(
    "error", ONE_OF_EACH, ids=[type(error).__name__ for error in ONE_OF_EACH]
)


def shown(error: EggError) -> tuple[Any, ...]:
    """Everything public about *error*."""
    public = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    return type(error), str(error), error.args, public


def test_the_list_of_this_file_is_complete() -> None:
    """Every public error is in the table of this file."""
    assert {type(error).__name__ for error in ONE_OF_EACH} == set(errors.__all__)


@each_error
def test_a_pickled_error_is_the_same_error(error: EggError) -> None:
    """An error that crosses to another process keeps its type, text and public attributes."""
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert shown(pickle.loads(pickle.dumps(error, protocol))) == shown(error)


@each_error
def test_a_copied_error_is_the_same_error(error: EggError) -> None:
    """`copy` works like pickling."""
    assert shown(copy.copy(error)) == shown(error)
    assert shown(copy.deepcopy(error)) == shown(error)


@each_error
def test_every_error_is_an_egg_error_and_says_something(error: EggError) -> None:
    """`except EggError` catches everything, and no error has an empty text."""
    assert isinstance(error, EggError)
    assert str(error)
    assert type(error).__doc__


@each_error
def test_what_a_user_is_told_is_plain(error: EggError) -> None:
    """One or two sentences, none of them the service's, with no id, code or address in them."""
    message = error.user_message
    assert message[0].isupper()
    assert message.endswith(".")
    for text in ("gen_1", "http", "api", "$", "request", "req_", "no such", "Content moderation"):
        assert text not in message


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        pytest.param("Content moderation: no", "moderation", "other words", id="moderation"),
        pytest.param("Prohibited content", "moderation", "content filter", id="its other word"),
        pytest.param("Invalid prompt: empty", "prompt", "other words", id="a bad prompt"),
        pytest.param("upstream says: invalid prompt", "prompt", "as described", id="told later"),
        pytest.param("Provider error", "service", "try again", id="trouble of the service"),
        pytest.param(None, "service", "no fault of yours", id="no reason at all"),
    ],
)
def test_a_failed_task_is_told_kindly(text: str | None, kind: str, told: str) -> None:
    """By its kind, and never in the service's own words."""
    error = TaskFailedError(TaskSnapshot(id="gen_1", status="failed", error=text))
    assert error.kind == kind
    assert error.is_moderation is (kind == "moderation")
    assert told in error.user_message
    assert text is None or text not in error.user_message


@pytest.mark.parametrize(
    ("seconds", "span"),
    [
        (0.2, "1 second"),
        (59.1, "60 seconds"),
        (60, "60 seconds"),
        (61, "2 minutes"),
        (3600, "60 minutes"),
        (3601, "2 hours"),
        (86_400, "24 hours"),
    ],
)
def test_a_user_is_told_when_to_come_back(seconds: float, span: str) -> None:
    """In round figures, and never too early."""
    error = QuotaExceededError("me", quota=5, per=60, retry_after=seconds)
    assert f"come back in {span}." in error.user_message


def test_notes_travel_with_a_pickled_error() -> None:
    """What somebody noted on an error is not lost on the way."""
    error = ConnectionFailedError("reset")
    error.add_note("while saving gen_1")
    copied = pickle.loads(pickle.dumps(error))
    assert copied.__notes__ == ["while saving gen_1"]


def test_a_value_that_cannot_be_pickled_travels_as_its_text() -> None:
    """A refused value may be anything, so the error pickles even where the value does not."""
    error = InvalidRequestError("prompt", lambda: 0, "text")
    copied = pickle.loads(pickle.dumps(error))
    assert str(copied) == str(error)
    assert copied.value == excerpt(error.value)


@pytest.mark.parametrize(
    ("error", "also"),
    [
        pytest.param(ConfigurationError, ValueError, id="a bad configuration is a ValueError"),
        pytest.param(InvalidRequestError, ValueError, id="a refused request is a ValueError"),
        pytest.param(TaskTimeoutError, TimeoutError, id="a timeout of ours is a TimeoutError"),
        pytest.param(
            InsufficientBalanceError, PermissionDeniedError, id="no balance is a kind of no leave"
        ),
        pytest.param(RateLimitedError, APIError, id="a 429 is an answer of the service"),
        pytest.param(ServerError, APIError, id="a 5xx is an answer of the service"),
    ],
)
def test_the_tree(error: type[EggError], also: type[Exception]) -> None:
    """An error can be caught by what it also is."""
    assert issubclass(error, also)


@pytest.mark.parametrize("other", [ConnectionFailedError, APIError, TimeoutError, OSError])
def test_an_uncertain_submission_is_nothing_that_is_tried_again(other: type[Exception]) -> None:
    """Code that catches passing errors to try again never catches a doubt about money."""
    assert not issubclass(SubmissionUncertainError, other)


# --- what they say ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(
            InvalidRequestError("num_outputs", 9, "a whole number from 1 to 4"),
            "num_outputs: expected a whole number from 1 to 4, got 9",
            id="a refused request names the field, the rule and the value",
        ),
        pytest.param(
            APIError("no", status_code=400, code="BAD_REQUEST", request_id="req_1"),
            "400 BAD_REQUEST: no (request req_1)",
            id="an answer shows status, code, text and request id",
        ),
        pytest.param(
            ServerError("nothing", status_code=502),
            "502: nothing",
            id="an answer without code and request id shows neither",
        ),
        pytest.param(
            UnexpectedResponseError(
                "expected text", where="$.data.id", status_code=200, body='{"data"'
            ),
            "$.data.id: expected text (HTTP 200, body starts with '{\"data\"')",
            id="an unexpected answer says where, and shows its start",
        ),
        pytest.param(
            TaskFailedError(FAILED),
            "gen_1 failed: Content moderation: no",
            id="a failed task says why in the service's words",
        ),
        pytest.param(
            TaskFailedError(TaskSnapshot(id="gen_1", status="failed")),
            "gen_1 failed: the service gave no reason",
            id="a failed task without a reason says so",
        ),
        pytest.param(
            TaskTimeoutError("gen_1", timeout=600.0, snapshot=PENDING),
            "gen_1 was not finished after 600 s (last status: pending);"
            " it goes on: await egg.task('gen_1') waits again",
            id="a timeout says what was last seen, and how to go on",
        ),
        pytest.param(
            TaskTimeoutError("gen_1", timeout=0.5, snapshot=None),
            "gen_1 was not finished after 0.5 s (last status: unknown);"
            " it goes on: await egg.task('gen_1') waits again",
            id="a timeout before the first look says that nothing is known",
        ),
    ],
)
def test_text(error: EggError, text: str) -> None:
    """The text of an error is complete without its attributes."""
    assert str(error) == text


def test_a_download_error_hides_the_query() -> None:
    """A signed URL's signature is neither in the text nor in the attribute."""
    error = DownloadError("HTTP 500", url="https://cdn.eggapi.ai/a.png?signature=hush")
    assert error.url == "https://cdn.eggapi.ai/a.png"
    assert "hush" not in repr(error) + str(error) + repr(vars(error))


def test_a_timeout_tells_the_task_id_and_the_last_snapshot() -> None:
    """A timed-out wait can be taken up again from the error alone."""
    error = TaskTimeoutError("gen_1", timeout=3, snapshot=PENDING)
    assert (error.task_id, error.timeout, error.snapshot) == ("gen_1", 3, PENDING)


def test_a_failed_task_tells_its_id() -> None:
    """`task_id` is at hand on a failure as on a timeout."""
    assert TaskFailedError(FAILED).task_id == "gen_1"


@pytest.mark.parametrize(
    ("reason", "is_moderation"),
    [
        ("Content moderation: prompt contains prohibited content", True),
        ("CONTENT MODERATION", True),
        ("provider trouble", False),
        ("", False),
        (None, False),
    ],
)
def test_moderation(reason: str | None, is_moderation: bool) -> None:
    """A refusal of the content is told from a failure that another try may mend."""
    task = TaskSnapshot(id="gen_1", status="failed", error=reason)
    assert TaskFailedError(task).is_moderation is is_moderation


def test_a_rate_limit_without_a_wish_has_none() -> None:
    """`retry_after` is None where the service asked for no pause."""
    error = RateLimitedError("slow down")
    assert (error.status_code, error.retry_after) == (429, None)


def test_a_failed_connection_is_passing_and_unsent_unless_said_otherwise() -> None:
    """The defaults of a connection error are those of a refused connection."""
    error = ConnectionFailedError("refused")
    assert (error.is_passing, error.was_sent) == (True, False)


class Unspeakable:
    """A value whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param("short", "'short'", id="a short value is quoted whole"),
        pytest.param("x" * 198, "'" + "x" * 198 + "'", id="up to 200 characters"),
        pytest.param("x" * 500, "'" + "x" * 199 + "…", id="a long value is cut"),
        pytest.param(10**5000, "<int>", id="an int too long to print is named by its type"),
        pytest.param(Unspeakable(), "<Unspeakable>", id="a broken repr does not break the error"),
    ],
)
def test_excerpt(value: object, text: str) -> None:
    """A message quotes a foreign value briefly, and never fails over it."""
    assert excerpt(value) == text
    assert text in str(InvalidRequestError("extra", value, "something else"))


# --- reconcile -------------------------------------------------------------------------------


async def test_reconcile_asks_whoever_submitted() -> None:
    """`await error.reconcile()` is the question that the submitting client left in the error."""

    async def look() -> tuple[TaskSnapshot, ...]:
        return (PENDING,)

    assert await uncertain(reconcile=look).reconcile() == (PENDING,)


async def test_a_copied_doubt_has_lost_its_client() -> None:
    """A pickled doubt says who can resolve it instead of failing strangely."""

    async def look() -> tuple[TaskSnapshot, ...]:
        raise AssertionError("never asked")

    copied = pickle.loads(pickle.dumps(uncertain(reconcile=look)))
    with pytest.raises(ConfigurationError, match=r"AsyncEggClient\.reconcile\(error\)"):
        await copied.reconcile()


def test_a_doubt_keeps_what_is_needed_to_resolve_it() -> None:
    """Request, times and candidates survive pickling: another process can resolve the doubt."""
    copied = pickle.loads(pickle.dumps(uncertain(candidates=(FAILED,))))
    assert copied.request == GenerationRequest(prompt="A cat", extra={"seed": 7})
    assert (copied.sent_at, copied.lost_at, copied.candidates) == (NOON, NOON, (FAILED,))
