"""What notebooks show: pictures, costs and reasons; escaped, without I/O, and never the key."""

from __future__ import annotations

import pickle
import re
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import anyio
import pytest

from eggapi_async import (
    GenerationRequest,
    Outcome,
    Outcomes,
    ServerError,
    TaskSnapshot,
)
from eggapi_async._display import MOST_SHOWN
from eggapi_async.emulator import EggEmulator
from eggapi_async.testing import connect

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
KEY = "a-canary-key-0123456789"


class Elements(HTMLParser):
    """The elements of a piece of HTML, and whether each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], "something is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


def made(number: int = 0, **changes: object) -> TaskSnapshot:
    """A completed task."""
    url = f"https://cdn.test/{number}.png"
    fields = {"id": f"gen_{number}", "status": "completed", "url": url, "urls": (url,)}
    return TaskSnapshot(**{**fields, "cost": Decimal("0.010"), "model": "nanobanana", **changes})  # type: ignore[arg-type]


def asked(prompt: str = "An egg") -> GenerationRequest:
    return GenerationRequest(prompt=prompt)


def shown(thing: object) -> Elements:
    """What a notebook would show of it."""
    return Elements(thing._repr_html_())  # type: ignore[attr-defined]


def test_a_finished_task_shows_its_pictures_and_what_they_cost() -> None:
    """Every output, linked to its full size, and the facts below."""
    urls = ("https://cdn.test/1.png", "https://cdn.test/2.png")
    card = shown(made(urls=urls))
    assert [image["src"] for image in card.named("img")] == list(urls)
    assert [link["href"] for link in card.named("a")] == list(urls)
    assert card.text == "completed · $0.01 · nanobanana · gen_0"


def test_a_failed_task_says_why() -> None:
    """The service's own words, and no picture."""
    card = shown(TaskSnapshot(id="gen_1", status="failed", error="not that"))
    assert card.named("img") == []
    assert card.text == "failed · gen_1not that"


@pytest.mark.parametrize("url", ["javascript:alert(1)", "http://cdn.test/1.png", "data:x", EVIL])
def test_only_a_safe_address_becomes_a_picture(url: str) -> None:
    """Whatever the service sends as a URL, a notebook does not follow everything."""
    card = shown(made(urls=(url,)))
    assert card.named("img") == card.named("a") == []


def test_whatever_comes_from_outside_is_text() -> None:
    """Prompts, errors, ids, models and addresses cannot become elements."""
    things = [
        made(id=EVIL, model=EVIL, status=EVIL, urls=("https://cdn.test/?a=1&b='\"<x>",)),
        TaskSnapshot(id="gen_1", status="failed", error=EVIL),
        Outcome(index=0, request=asked(EVIL), result=made()),
        Outcome(index=0, request=asked(EVIL), error=ServerError(EVIL, status_code=500)),
        Outcomes([Outcome(index=0, request=asked(EVIL), result=made())]),
    ]
    for thing in things:
        page = shown(thing)
        assert page.named("script") == []
        assert all("onerror" not in attrs for _, attrs in page.found)
        assert {name for name, _ in page.found} <= {
            "a", "br", "div", "figcaption", "figure", "img", "p"
        }  # fmt: skip


def test_an_outcome_shows_its_prompt() -> None:
    """The prompt stands above the facts, and is what a reader hears of the picture."""
    card = shown(Outcome(index=3, request=asked(), result=made()))
    assert card.text.startswith("An eggcompleted")
    assert card.named("img")[0]["alt"] == "An egg"


def test_an_item_that_was_no_request_shows_its_place() -> None:
    """Where there is no prompt, the number tells which it was."""
    error = ServerError("no", status_code=500)
    assert shown(Outcome(index=3, request=None, error=error)).text.startswith("item 3ServerError")


def test_the_outcomes_of_a_batch_are_a_grid_with_its_cost() -> None:
    """How many were made, for how much, and a card for each."""
    error = ServerError("no", status_code=500)
    rows = [Outcome(index=n, request=asked(), result=made(n)) for n in range(3)]
    page = shown(Outcomes([*rows, Outcome(index=3, request=asked(), error=error)]))
    assert page.text.startswith("3 of 4 made · $0.03")
    assert len(page.named("figure")) == 4


def test_thousands_do_not_make_a_notebook_slow() -> None:
    """A large grid shows its beginning, and says so."""
    rows = [Outcome(index=n, request=asked(), result=made(n)) for n in range(MOST_SHOWN + 1)]
    page = shown(Outcomes(rows))
    assert len(page.named("figure")) == MOST_SHOWN
    assert f"the first {MOST_SHOWN} are shown" in page.text


def test_outcomes_are_a_list() -> None:
    """Nothing else about them has changed: equal, picklable, sliceable."""
    rows = [Outcome(index=0, request=asked(), result=made())]
    outcomes = Outcomes(rows)
    assert outcomes == rows
    assert isinstance(outcomes, list)
    assert pickle.loads(pickle.dumps(outcomes)) == rows


async def test_handles_and_batches_show_how_far_they_are(tmp_path: Path) -> None:
    """Before, while and after; without a request of their own, and without the key."""
    emulator = EggEmulator(clock=anyio.current_time)
    async with connect(emulator, KEY) as egg:
        task = await egg.generate("An egg")
        requests = emulator.requests.copy()
        pages = [shown(task), shown(egg.task("gen_other"))]
        assert pages[0].text == f"An eggpending · {task.id}await it for the result"
        assert pages[1].text == "not looked at yet · gen_otherawait it for the result"
        assert emulator.requests == requests
        await task
        pages.append(shown(task))
        assert len(pages[-1].named("img")) == 1

        batch = egg.map(["An egg", "A hen"], save_to=tmp_path)
        pages.append(shown(batch))
        assert "nothing begun" in pages[-1].text
        outcomes = await batch
        pages.append(shown(batch))
        assert pages[-1].named("progress") == [{"max": "2", "value": "2"}]
        assert pages[-1].text.strip() == "2 ended, 0 under way"
        pages.append(shown(outcomes))
        assert isinstance(outcomes, Outcomes)

    assert all(KEY not in page.text and KEY not in repr(page.found) for page in pages)


def test_nothing_has_a_colour_of_its_own() -> None:
    """It looks right on light and on dark: no text or ground is coloured."""
    page = Outcomes([Outcome(index=0, request=asked(), result=made())])._repr_html_()
    assert not re.search(r"(?:^|[;\"])(?:color|background)", page)
