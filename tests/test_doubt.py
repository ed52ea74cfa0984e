"""Which listed tasks could be a lost one: too many is a question, too few is a second bill."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eggapi_async._doubt import AFTER, BEFORE, Doubt, Window, candidates, is_past, window
from eggapi_async.models import GenerationRequest, TaskSnapshot

NOON = datetime(2024, 1, 15, 12, tzinfo=UTC)
PICTURE = ("https://files.example/a.png",)
ALWAYS = Window(NOON - timedelta(days=1), NOON + timedelta(days=1))


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def doubt(sent: float = 0, lost: float = 10, **fields: Any) -> Doubt:
    """A request for a cat, lost in these seconds after noon."""
    request = GenerationRequest(**{"prompt": "A cat", "model": "m", **fields})
    return Doubt(request, NOON + seconds(sent), NOON + seconds(lost))


def listed(**fields: Any) -> TaskSnapshot:
    """A task in the list that is the lost one, as far as can be seen."""
    usual = {"id": "gen_1", "status": "pending", "model": "m", "type": "image_generate"}
    return TaskSnapshot(**{**usual, "created_at": NOON, **fields})


def fits(lost: Doubt, task: TaskSnapshot, when: Window = ALWAYS) -> bool:
    return bool(candidates(lost, [task], when=when, is_known=lambda _: False))


# --- which tasks -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "seen", "is_it"),
    [
        pytest.param({}, {}, True, id="the same model and kind could be it"),
        pytest.param({}, {"model": "n"}, False, id="another model is not it"),
        pytest.param({}, {"model": ""}, True, id="a task that does not say its model could be"),
        pytest.param({}, {"type": "image_edit"}, False, id="an edit is not it"),
        pytest.param(
            {"image_urls": PICTURE}, {"type": "image_edit"}, True, id="an edit could be an edit"
        ),
        pytest.param({"image_urls": PICTURE}, {}, False, id="an edit is no plain generation"),
        pytest.param({}, {"type": ""}, True, id="a task that does not say its kind could be"),
        pytest.param(
            {"image_urls": PICTURE}, {"type": ""}, True, id="also where pictures were sent"
        ),
        pytest.param({}, {"type": "video_generate"}, True, id="a video could be it"),
        pytest.param(
            {"image_urls": PICTURE},
            {"type": "video_generate"},
            True,
            id="a video that was made from pictures could be",
        ),
        pytest.param({}, {"raw": {"prompt": "A cat"}}, True, id="the same prompt could be it"),
        pytest.param({}, {"raw": {"prompt": "A dog"}}, False, id="another prompt is not it"),
        pytest.param({}, {"raw": {"prompt": None}}, True, id="a null prompt says nothing"),
        pytest.param({}, {"raw": {"prompt": " A c…"}}, True, id="a shortened prompt could be it"),
        pytest.param(
            {"prompt": "A  cat\n"}, {"raw": {"prompt": "A cat"}}, True, id="nor does a trimmed one"
        ),
        pytest.param({}, {"created_at": None}, True, id="a task without a time could be it"),
        pytest.param({}, {"status": "failed"}, True, id="it may have ended meanwhile"),
        pytest.param(
            {"extra": {"model": "n"}}, {"model": "n"}, True, id="the model that was sent counts"
        ),
        pytest.param(
            {"extra": {"model": "n"}}, {}, False, id="not the one that was overruled by extra"
        ),
        pytest.param(
            {"extra": {"prompt": "A dog"}},
            {"raw": {"prompt": "A dog"}},
            True,
            id="the prompt that was sent counts",
        ),
        pytest.param(
            {"extra": {"image_urls": list(PICTURE)}},
            {"type": "image_edit"},
            True,
            id="the pictures that were sent count",
        ),
    ],
)
def test_what_could_be_it(asked: dict[str, Any], seen: dict[str, Any], is_it: bool) -> None:
    """Only what the list contradicts is ruled out."""
    assert fits(doubt(**asked), listed(**seen)) is is_it


@pytest.mark.parametrize(
    ("at", "is_it"),
    [(-1, False), (0, True), (5, True), (10, True), (11, False)],
    ids=["before", "at the start", "within", "at the end", "after"],
)
def test_only_tasks_of_the_window_could_be_it(at: int, is_it: bool) -> None:
    """A task that was created before or after is somebody else's; the edges belong to it."""
    when = Window(NOON, NOON + seconds(10))
    assert fits(doubt(), listed(created_at=NOON + seconds(at)), when) is is_it


def test_each_candidate_comes_once_and_known_ones_never() -> None:
    """Pages that shift show a task twice; those of our own are no question."""
    tasks = [listed(id=task_id) for task_id in ("a", "b", "a", "c")]
    found = candidates(doubt(), tasks, when=ALWAYS, is_known=lambda task_id: task_id == "b")
    assert [task.id for task in found] == ["a", "c"]


# --- when ------------------------------------------------------------------------------------


def test_the_window_is_by_the_services_clock() -> None:
    """The time that passed here is taken off the service's own time, with some slack."""
    there = datetime(2031, 7, 1, tzinfo=UTC)
    assert window(doubt(0, 10), here=NOON + seconds(60), there=there) == Window(
        there - seconds(60) - BEFORE, there - seconds(50) + AFTER
    )


@settings(max_examples=100)
@given(
    skew=st.floats(-7200, 7200),
    sent=st.floats(0, 100),
    took=st.floats(0, 60),
    taken=st.floats(0, 1),
    later=st.floats(0, 600),
)
def test_a_wrong_clock_here_cannot_hide_the_lost_task(
    skew: float, sent: float, took: float, taken: float, later: float
) -> None:
    """However far our clock is off, a task created between sending and loss is in the window."""
    lost = doubt(sent + skew, sent + took + skew)
    when = window(
        lost,
        here=NOON + seconds(sent + took + later + skew),
        there=NOON + seconds(sent + took + later),
    )
    created = NOON + seconds(sent + took * taken)
    assert fits(lost, listed(created_at=created), when)
    assert fits(lost, listed(created_at=created.replace(microsecond=0)), when)


# --- rivals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "are_rivals"),
    [
        pytest.param(doubt(), True, id="two alike at the same time are rivals"),
        pytest.param(doubt(40, 50), True, id="so are two whose slack overlaps"),
        pytest.param(doubt(45, 50), True, id="also when it only touches"),
        pytest.param(doubt(46, 50), False, id="two far apart are not"),
        pytest.param(doubt(-50, -35), True, id="an earlier one whose slack touches is one"),
        pytest.param(doubt(-50, -36), False, id="an earlier one far apart is not"),
        pytest.param(doubt(model="n"), False, id="another model is none"),
        pytest.param(doubt(image_urls=PICTURE), False, id="another kind is none"),
        pytest.param(doubt(extra={"model": "n"}), False, id="the model that was sent counts"),
        pytest.param(
            doubt(model="n", extra={"model": "m"}), True, id="whatever the request's own field says"
        ),
    ],
)
def test_rivals(other: Doubt, are_rivals: bool) -> None:
    """Two doubts that one task could resolve are rivals, in both directions."""
    lost = doubt()
    assert lost.rivals(other) is are_rivals
    assert other.rivals(lost) is are_rivals


def test_nobody_is_its_own_rival() -> None:
    """A doubt is one question, however often it is compared; an equal one is another."""
    lost = doubt()
    assert not lost.rivals(lost)
    assert lost != doubt()


# --- when to stop reading --------------------------------------------------------------------


def times(*numbers: float | None) -> list[TaskSnapshot]:
    """Tasks created in these seconds after noon."""
    return [
        listed(created_at=None if number is None else NOON + seconds(number)) for number in numbers
    ]


@pytest.mark.parametrize(
    ("tasks", "is_over"),
    [
        pytest.param(times(9, 5, -1), True, id="newest first and past the window: read no more"),
        pytest.param(times(9, 5, 5, -1), True, id="also with two of one moment"),
        pytest.param(times(9, 5, 0), False, id="the window's edge belongs to it"),
        pytest.param(times(9, 5), False, id="the window is not passed yet"),
        pytest.param(times(-9, -5, -1), False, id="oldest first: what is sought comes later"),
        pytest.param(times(9, -1, 5, -2), False, id="no order: it could be anywhere"),
        pytest.param(times(9, None, -1), False, id="a task without a time breaks the order"),
        pytest.param(times(-1), False, id="one task has no order"),
        pytest.param(times(-1, -1, -1), False, id="tasks of one moment have no order"),
        pytest.param([], False, id="nothing was read"),
    ],
)
def test_is_past(tasks: list[TaskSnapshot], is_over: bool) -> None:
    """Reading ends early only where the rest of the list is certainly older."""
    assert is_past(tasks, Window(NOON, NOON + seconds(10))) is is_over


def test_a_doubt_is_frozen() -> None:
    """A doubt stays what was sent."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        doubt().request = GenerationRequest(prompt="A dog")  # type: ignore[misc]
