"""What a journal holds of an item: rows that come back as they were, and names that last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest

from eggapi_async import (
    BadRequestError,
    EggError,
    GenerationRequest,
    JournalItem,
    NotFoundError,
    SubmissionUncertainError,
    TaskFailedError,
)
from eggapi_async._record import COLUMNS, STATES, as_item, as_row, content
from eggapi_async._values import snapshot
from tests.scripted import task

NOON = datetime(2024, 1, 15, 12, 0, 0, 123456, tzinfo=UTC)
RICH = GenerationRequest(
    prompt="An egg ☃ 'quoted' \"twice\"\n",
    model="nanobanana-pro",
    negative_prompt="",
    aspect_ratio="9:16",
    num_outputs=3,
    resolution="4k",
    image_urls=("https://files.example/a.png",),
    duration=7,
    webhook_url="https://hooks.example/x?y=z",
    extra={"style": {"ink": [1, 2.5, None]}},
)
DONE = snapshot(
    task(status="completed", cost="$0.0160", output={"url": "https://files.example/1.png"}, odd=[1])
)
LOST = SubmissionUncertainError("lost", request=RICH, sent_at=NOON, lost_at=NOON)


def item(state: str = "planned", **fields: Any) -> JournalItem:
    usual = {"index": 7, "key": "a key", "request": GenerationRequest(prompt="An egg")}
    return JournalItem(**{**usual, "state": state, **fields})


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(item(), id="one that was only planned"),
        pytest.param(item(request=RICH), id="a request with every field"),
        pytest.param(item("intent", sent_at=NOON, lost_at=NOON), id="one about to be sent"),
        pytest.param(item("intent", sent_at=NOON, reference="r-1"), id="one with a reference"),
        pytest.param(item("submitted", task_id="gen_1", snapshot=DONE), id="one with a task"),
        pytest.param(
            item("saved", snapshot=DONE, paths=(Path("a.png"), Path("ü/b.png")), ended_at=NOON),
            id="one with files",
        ),
    ],
)
def test_a_row_comes_back_as_it_was(kept: JournalItem) -> None:
    """Requests, times, tasks and paths survive the texts of a row."""
    row = as_row(kept)
    assert tuple(row) == COLUMNS
    assert as_item(row) == kept


def test_a_task_comes_back_with_all_that_came() -> None:
    """Money is Decimal, times are aware, unknown fields are in `raw`."""
    kept = as_item(as_row(item("finished", snapshot=DONE)))
    assert kept.snapshot == DONE
    assert kept.snapshot is not None
    assert kept.snapshot.raw["odd"] == [1]
    assert kept.cost == Decimal("0.0160")
    assert item().cost is None


def test_a_failed_item_comes_back_with_its_error() -> None:
    """The error of a failed task follows from the task."""
    task_that_failed = snapshot(task(status="failed", error="Content moderation: no"))
    error = as_item(as_row(item("failed", snapshot=task_that_failed))).error
    assert isinstance(error, TaskFailedError)
    assert error.task == task_that_failed
    assert error.is_moderation


@pytest.mark.parametrize("kind", [BadRequestError, NotFoundError])
def test_a_refusal_comes_back_as_itself(kind: type[BadRequestError]) -> None:
    """With its status, code, text and request id."""
    refused = kind("no eggs", status_code=400, code="BAD_REQUEST", request_id="r-1")
    error = as_item(as_row(item("failed", error=refused))).error
    assert type(error) is kind
    assert vars(error) == vars(refused)
    assert str(error) == str(refused)


def test_a_refusal_of_an_unknown_kind_is_an_api_error() -> None:
    """A newer version may have named it; nothing is lost but the name."""
    refused = BadRequestError("no", status_code=418)
    row = as_row(item("failed", error=refused))
    row["refusal"] = row["refusal"].replace("BadRequestError", "TeapotError")
    error = as_item(row).error
    assert isinstance(error, EggError)
    assert str(error) == "418: no"


def test_an_item_in_doubt_comes_back_with_its_error() -> None:
    """With the request and the time of the doubt; its client is another's to give."""
    later = NOON + timedelta(seconds=3)
    error = as_item(as_row(item("uncertain", request=RICH, sent_at=NOON, lost_at=later))).error
    assert isinstance(error, SubmissionUncertainError)
    assert (error.request, error.sent_at, error.lost_at) == (RICH, NOON, later)


@pytest.mark.parametrize("state", sorted(set(STATES) - {"failed", "uncertain"}))
def test_other_items_have_no_error(state: str) -> None:
    """Where there is a picture, or may still be one, nothing went wrong."""
    assert as_item(as_row(item(state, sent_at=NOON, lost_at=NOON, error=LOST))).error is None


# --- what makes two requests the same ----------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        pytest.param({}, True, id="nothing changed"),
        pytest.param({"prompt": "Another"}, False, id="another prompt"),
        pytest.param({"model": "nanobanana"}, False, id="another model"),
        pytest.param({"resolution": "2k"}, False, id="another resolution"),
        pytest.param({"extra": {"style": "oil"}}, False, id="another extra field"),
        pytest.param({"image_urls": ()}, False, id="no picture to edit"),
        pytest.param({"webhook_url": None}, True, id="told elsewhere"),
    ],
)
def test_content(change: dict[str, Any], is_same: bool) -> None:
    """Everything that the picture depends on counts; where its end is reported does not."""
    assert (content(attrs.evolve(RICH, **change)) == content(RICH)) is is_same


def test_content_is_the_same_in_every_process_and_version() -> None:
    """Journals outlive programs: to change this is to buy everything again."""
    assert content(GenerationRequest(prompt="An egg", model="nanobanana")) == (
        "8647466ef12029e8e59461b41dee09e3cb9c13c82eb23455cf2a5aa8e5e4d874"
    )


def test_a_lost_submission_comes_back_with_all_that_finds_it() -> None:
    """The error of the first process, in the next: its words, its times and its reference."""
    lost = item("uncertain", request=RICH, sent_at=NOON, lost_at=NOON, reference="r-1")
    error = as_item(as_row(lost)).error
    assert isinstance(error, SubmissionUncertainError)
    assert str(error) == "the submission's answer was lost; the task may exist and be billed"
    assert (error.request, error.sent_at, error.lost_at) == (RICH, NOON, NOON)
    assert error.reference == "r-1"
