"""The page in a real browser: what is seen, what keys do, and that nothing leaves.

Skipped where there is no Chromium; `.ci/run` installs it where it can.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from eggapi_async.cli.gallery import write
from eggapi_async.emulator.pictures import picture
from eggapi_async.gallery import GalleryItem, GalleryPicture, measured
from tests.chromium import Browser, Page, chromium, executable

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(
        executable() is None, reason="the gallery is not tried: no Chromium (apt install chromium)"
    ),
]

EVIL = '</script><img src=x onerror="window.broken = 1">\'"&amp;\u202e 🥚'
LONG = "egg " * 5000
NAMES = ("1 of #1?.png", "50%.png", "a:b&c.png", "ü🥚.png", "e.png")
PROMPTS = ("A blue egg", EVIL, LONG, "بيضة زرقاء", "A BLUE hen")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests here."""
    path = executable()
    assert path is not None
    with chromium(path, tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of five pictures, a video without a track, two failures and one to come."""
    made = tmp_path_factory.mktemp("a gallery #1")
    write(made, [*map(_painted, [made] * 5, range(5)), *_others(made)], title=EVIL)
    return made


def _painted(folder: Path, number: int) -> GalleryItem:
    aspect_ratio = ("16:9", "9:16")[number % 2]
    data = picture(str(number), 1, aspect_ratio=aspect_ratio)
    (folder / NAMES[number]).write_bytes(data)
    return GalleryItem(
        prompt=PROMPTS[number],
        model="nanobanana" if number else "nanobanana-pro",
        resolution="1k",
        cost=Decimal("0.02"),
        duration=9.5,
        pictures=(GalleryPicture(NAMES[number], *(measured(data) or ())),),
        task_id=f"gen_{number}",
    )


def _others(folder: Path) -> list[GalleryItem]:
    (folder / "film.mp4").write_bytes(b"")
    return [
        GalleryItem(prompt="A film", pictures=(GalleryPicture("film.mp4"),)),
        GalleryItem(prompt="A blue fault", status="failed", error=EVIL),
        GalleryItem(prompt="A long fault", status="failed", error=LONG, aspect_ratio="9:16"),
        GalleryItem(prompt="Still to come", status="processing"),
    ]


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    """The gallery, just opened."""
    opened = browser.open(folder / "index.html")
    yield opened
    opened.close()


def visible(page: Page) -> list[str]:
    """The first words of the prompts on the cards that are shown."""
    words: list[str] = page.value(
        """Array.from(document.querySelectorAll(".card"))
        .filter((card) => card.checkVisibility())
        .map((card) => card.querySelector(".prompt").textContent.slice(0, 12))"""
    )
    return words


def settled(page: Page) -> None:
    """Wait until what was typed has been looked at."""
    page.value("new Promise((on) => requestAnimationFrame(() => requestAnimationFrame(on)))")


def look_for(page: Page, words: str) -> list[str]:
    """What is shown when the box holds *words*."""
    page.value("document.forms[0].words.select()")
    page.type(words) if words else page.press("Delete")
    settled(page)
    return visible(page)


def count(page: Page) -> str:
    """What the page says of how many are shown."""
    return str(page.value("document.querySelector('.shown').textContent"))


# --- the filter ----------------------------------------------------------------------------------


def test_the_filter_hides_what_does_not_fit(page: Page) -> None:
    """All words must occur, in whatever case, in prompt, model, file or reason."""
    whole = visible(page)
    assert (len(whole), count(page)) == (9, "9 shown")
    assert look_for(page, "blue") == ["A blue egg", "A BLUE hen", "A blue fault"]
    assert count(page) == "3 of 9 shown"
    assert look_for(page, "BLUE  hen") == ["A BLUE hen"]
    assert look_for(page, "nanobanana-pro") == ["A blue egg"]
    assert look_for(page, "زرقاء") == ["بيضة زرقاء"]
    assert look_for(page, "film.mp4") == ["A film"]
    assert look_for(page, "onerror") == [EVIL[:12], "A blue fault"]


def test_nothing_that_fits_is_said(page: Page) -> None:
    """An empty page says why it is empty, and Enter leads nowhere."""
    assert look_for(page, "no such words") == []
    page.press("Enter", "\r")
    assert page.value("document.querySelector('.none').checkVisibility()")
    assert count(page) == "0 of 9 shown"
    assert page.value("violations") == []


def test_failures_can_be_shown_alone(page: Page) -> None:
    """The box leaves what failed, the words narrow it down."""
    page.value("document.forms[0].failures.click()")
    settled(page)
    assert visible(page) == ["A blue fault", "A long fault"]
    assert look_for(page, "blue") == ["A blue fault"]
    page.value("document.forms[0].failures.click()")
    settled(page)
    assert look_for(page, "blue") == ["A blue egg", "A BLUE hen", "A blue fault"]


def test_a_long_page_is_filtered_as_one(browser: Browser, tmp_path: Path) -> None:
    """What fits flows together from all parts; where much fits, the parts stay."""
    rows = [GalleryItem(prompt=f"egg-{n:03}", status="failed", error="No.") for n in range(900)]
    page = browser.open(write(tmp_path, rows, title="Many"))
    part = "document.querySelector('.card:not([hidden])').closest('.part')"
    flow = f"getComputedStyle({part}).display"
    heads = "Array.from(document.querySelectorAll('h3')).filter((h) => h.checkVisibility()).length"
    assert (page.value(flow), page.value(heads), count(page)) == ("block", 5, "900 shown")
    assert look_for(page, "egg-77") == [f"egg-{n}" for n in range(770, 780)]
    assert (page.value(flow), page.value(heads)) == ("contents", 0)
    assert len(look_for(page, "egg-1")) == 100
    assert (page.value(flow), page.value(heads)) == ("contents", 0)
    assert len(look_for(page, "egg")) == 900
    assert (page.value(flow), page.value(heads)) == ("block", 5)
    page.close()


# --- full size -----------------------------------------------------------------------------------


def open_first(page: Page) -> None:
    """Open the first picture that is shown, as a keyboard does."""
    page.value(
        """Array.from(document.querySelectorAll(".open"))
        .find((link) => link.checkVisibility()).focus()"""
    )
    page.press("Enter", "\r")
    page.until("document.querySelector('dialog').open")


def place(page: Page) -> str:
    """Where in the pictures we are."""
    return str(page.value("document.querySelector('#place span').textContent"))


def test_arrows_move_through_the_pictures(page: Page) -> None:
    """Left, right, Home and End, to the ends and not beyond, the focus staying where it was."""
    open_first(page)
    assert place(page) == "1 of 6"
    assert page.value("document.activeElement.name") == "on"
    for key, expected in [
        ("ArrowLeft", "1 of 6"),
        ("ArrowRight", "2 of 6"),
        ("ArrowRight", "3 of 6"),
        ("ArrowLeft", "2 of 6"),
        ("End", "6 of 6"),
        ("ArrowRight", "6 of 6"),
        ("Home", "1 of 6"),
    ]:
        page.press(key)
        assert place(page) == expected
        assert page.value("document.activeElement.name") == "on"


def test_the_picture_is_shown_whole_and_told(page: Page) -> None:
    """It is in sight, loaded, with its prompt and facts; who does not see it is told."""
    open_first(page)
    page.press("ArrowRight")
    page.until("document.querySelector('.stage img').complete")
    box = page.value(
        """(() => { const image = document.querySelector(".stage img");
        const { left, top, right, bottom } = image.getBoundingClientRect();
        return [image.naturalWidth, left, top, innerWidth - right, innerHeight - bottom] })()"""
    )
    assert box[0] == 576
    assert min(box) >= 0
    told = page.value("document.querySelector('#place').textContent")
    assert told == f"2 of 6: {EVIL}"
    assert page.value("document.querySelector('#place').role") == "status"
    assert page.value("document.querySelector('.words .prompt').textContent") == EVIL
    assert page.value("document.querySelector('.words a').textContent") == "50%.png"


def test_escape_closes_and_leads_back(page: Page) -> None:
    """The focus goes to the picture that was seen last, which is in sight."""
    open_first(page)
    page.press("End")
    page.press("ArrowLeft")
    page.press("Escape")
    page.until("!document.querySelector('dialog').open")
    focused = "document.activeElement.closest('.card')?.querySelector('.prompt').textContent"
    page.until(f"{focused} === 'A BLUE hen'")
    top = page.value("document.activeElement.getBoundingClientRect().top")
    assert 0 <= top < 900


def test_only_what_is_shown_is_moved_through(page: Page) -> None:
    """The filter holds for the full size too; failures have none."""
    look_for(page, "blue")
    open_first(page)
    assert place(page) == "1 of 2"
    page.press("End")
    assert page.value("document.querySelector('.words .prompt').textContent") == "A BLUE hen"


def test_buttons_do_what_keys_do(page: Page) -> None:
    """Previous, next and close; at an end one says that it does nothing."""
    open_first(page)
    state = "['back', 'on'].map((n) => document.querySelector(`[name=${n}]`).ariaDisabled)"
    assert page.value(state) == ["true", "false"]
    page.value("document.querySelector('[name=on]').click()")
    assert place(page) == "2 of 6"
    assert page.value(state) == ["false", "false"]
    page.value("document.querySelector('[name=back]').click()")
    assert place(page) == "1 of 6"
    page.press("End")
    assert page.value(state) == ["false", "true"]
    page.value("document.querySelector('[name=close]').click()")
    page.until("!document.querySelector('dialog').open")


def test_a_video_plays_at_full_size(page: Page) -> None:
    """It has controls there, and its own keys."""
    open_first(page)
    page.press("End")
    assert page.value("document.querySelector('.stage video').controls")
    page.value("document.querySelector('.stage video').focus()")
    page.press("Home")
    assert place(page) == "6 of 6"
    page.value("document.querySelector('[name=back]').click()")
    assert page.value("document.activeElement.name") == "on"


# --- nothing leaves, nothing comes in ------------------------------------------------------------


def test_no_request_leaves(page: Page, folder: Path) -> None:
    """Opened and gone through, the page asks for its own files only, and breaks no rule of its."""
    open_first(page)
    for _ in range(6):
        page.press("ArrowRight")
    page.until("Array.from(document.images).every((image) => image.complete)")
    asked = [address for address in page.addresses() if not address.startswith("data:")]
    assert {address.rpartition("/")[0] for address in asked} == {folder.as_uri()}
    assert len(set(asked)) >= 6
    assert page.value("violations") == []


ADD = "const add = (kind, more) => document.body.append("
ADD += "Object.assign(document.createElement(kind), more));"
ATTEMPTS = {
    "a request": "fetch('https://egg.test/').catch(() => 0)",
    "a picture from elsewhere": "add('img', { src: 'https://egg.test/' })",
    "a page in the page": "add('iframe', { src: 'https://egg.test/' })",
    "a script from elsewhere": "add('script', { src: 'https://egg.test/' })",
    "a script of its own": "add('script', { text: 'window.broken = 1' })",
    "a handler": "document.body.setAttribute('onclick', 'window.broken = 1')",
    "a style": "document.body.setAttribute('style', 'color: red')",
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_an_attempt_is_stopped(page: Page, attempt: str) -> None:
    """Whatever were to get in: no connection, no other script, no other style."""
    page.value(f"(() => {{ {ADD} {attempt}; document.body.click() }})()")
    assert len(page.until("violations.length && violations")) == 1
    assert page.value("window.broken") is None


def test_text_stays_text_in_a_browser(page: Page) -> None:
    """A prompt that is a script is read, not run; so is a title, and so is a reason."""
    assert page.value("window.broken") is None
    assert page.value("document.title") == " ".join(EVIL.split())
    assert page.value("document.querySelector('h1').textContent") == EVIL
    prompts = page.value(
        "Array.from(document.querySelectorAll('.prompt'), (prompt) => prompt.textContent)"
    )
    assert prompts[:5] == list(PROMPTS)
    assert page.value("document.querySelector('p.reason').textContent") == EVIL
    assert page.value("document.querySelector('summary.reason').textContent") == LONG


def test_every_picture_is_found(page: Page) -> None:
    """Files of odd names are shown, in the place that was kept for them."""
    page.value("for (const image of document.images) image.loading = 'eager'")
    page.until("Array.from(document.images).every((image) => image.complete)")
    shown = page.value("Array.from(document.images, (i) => [i.naturalWidth, i.naturalHeight])")
    assert shown == [[1024, 576], [576, 1024]] * 2 + [[1024, 576]]


def test_it_works_without_scripts(browser: Browser, folder: Path) -> None:
    """Pictures, prompts and reasons are there; what needs a script is not."""
    page = browser.open(folder / "index.html", scripts=False)
    assert page.value("document.querySelector('.tools').checkVisibility()") is False
    page.until("document.images[0].complete && document.images[0].naturalWidth === 1024")
    assert len(visible(page)) == 9
    address = page.value("document.querySelectorAll('.open')[1].href")
    assert address == (folder / "50%.png").as_uri()
    page.close()


# --- looks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [320, 390, 768, 1440, 2560])
def test_nothing_is_wider_than_the_window(browser: Browser, folder: Path, width: int) -> None:
    """No scrolling sideways, neither in the page nor at full size."""
    page = browser.open(folder / "index.html", width=width, height=844)
    wide = "document.documentElement.scrollWidth"
    assert page.value(wide) == width
    open_first(page)
    assert page.value(f"[{wide}, document.querySelector('dialog').scrollWidth]") == [width] * 2
    page.close()


def test_nothing_jumps_when_pictures_come(browser: Browser, folder: Path, tmp_path: Path) -> None:
    """Every card is where it is with its picture there or not."""
    bare = tmp_path / "index.html"
    bare.write_bytes((folder / "index.html").read_bytes())
    boxes = """Array.from(document.querySelectorAll(".card"), (card) => {
        const { x, y, width, height } = card.getBoundingClientRect();
        return [x, y, width, height].map(Math.round).join() })"""
    seen = []
    for path in (folder / "index.html", bare):
        page = browser.open(path)
        page.value("for (const image of document.images) image.loading = 'eager'")
        page.until("Array.from(document.images).every((image) => image.complete)")
        seen.append(page.value(boxes))
        page.close()
    assert seen[0] == seen[1]


def test_pictures_of_a_row_are_of_one_height(page: Page) -> None:
    """Upright or not, they stand in line."""
    tops = page.value(
        """Array.from(document.querySelectorAll(".open"), (link) => link.getBoundingClientRect())
        .map(({ y, height }) => [Math.round(y), height])"""
    )
    rows: dict[int, list[float]] = {}
    for y, height in tops:
        rows.setdefault(y, []).append(height)
    assert len(rows) < len(tops)
    assert all(max(heights) - min(heights) < 1 for heights in rows.values())


def test_dark_is_dark(page: Page) -> None:
    """Paper and ink change places where the user prefers it."""
    colours = (
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    light = [luminance(colour) for colour in page.value(colours)]
    page.prefer(dark=True)
    dark = [luminance(colour) for colour in page.value(colours)]
    assert light[0] > 0.9 > 0.1 > light[1]
    assert dark[1] > 0.7 > 0.1 > dark[0]


def test_who_wants_no_motion_gets_none(page: Page) -> None:
    """A picture appears at once."""
    open_first(page)
    moves = "getComputedStyle(document.querySelector('.stage img')).animationName"
    assert page.value(moves) == "none"
    page.prefer(still=False)
    assert page.value(moves) == "appear"


# --- for everybody -------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance of an opaque colour, as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(ink: str, paper: str) -> float:
    """How well one colour is read on another, 1 to 21."""
    dark, light = sorted((luminance(ink), luminance(paper)))
    return (light + 0.05) / (dark + 0.05)


TEXTS = """Array.from(document.querySelectorAll("body *")).filter((element) =>
  element.checkVisibility({ visibilityProperty: true }) && !element.closest("script, style") &&
  (element.matches("input") ||
    Array.from(element.childNodes).some((node) => node.nodeType === 3 && node.data.trim()))
).map((element) => {
  let behind = element;
  const isClear = (at) => /, 0\\)$/.test(getComputedStyle(at).backgroundColor);
  while (behind && isClear(behind)) behind = behind.parentElement;
  const inner = element.matches("input") ? "::placeholder" : null;
  return [element.outerHTML.slice(0, 80), getComputedStyle(element, inner).color,
    getComputedStyle(behind ?? document.body).backgroundColor];
})"""


@pytest.mark.parametrize("dark", [False, True], ids=["by day", "by night"])
def test_every_text_can_be_read(page: Page, dark: bool) -> None:
    """A contrast of 4.5 or more, on the page and at full size."""
    page.prefer(dark=dark)
    found = page.value(TEXTS)
    open_first(page)
    found += page.value(TEXTS)
    assert len(found) > 40
    assert [text for text, ink, paper in found if contrast(ink, paper) < 4.5] == []


def test_the_page_has_its_landmarks_and_names(page: Page) -> None:
    """One heading of the first order, header, main, search; every control and picture is named."""
    tree = page.ask("Accessibility.getFullAXTree")["nodes"]
    named = [(role(node), name(node)) for node in tree if not node.get("ignored")]
    roles = [kind for kind, _ in named]
    assert {"banner", "main", "search", "list", "status"} <= set(roles)
    assert named.count(("heading", EVIL)) == 1
    controls = {"link", "button", "image", "searchbox", "checkbox", "Video"}
    assert [node for node in named if node[0] in controls and not node[1].strip()] == []
    assert roles.count("image") == 5
    assert page.value("document.documentElement.lang") == "en"
    assert page.value("document.querySelectorAll('h1').length") == 1
    ids = page.value("Array.from(document.querySelectorAll('[id]'), (element) => element.id)")
    assert len(set(ids)) == len(ids)


def test_the_dialog_is_named_and_modal(page: Page) -> None:
    """Nothing behind it can be reached, and its buttons say what they do."""
    open_first(page)
    tree = page.ask("Accessibility.getFullAXTree")["nodes"]
    named = [(role(node), name(node)) for node in tree if not node.get("ignored")]
    (dialog,) = [words for kind, words in named if kind == "dialog"]
    assert dialog.replace(" :", ":") == "1 of 6: A blue egg"
    buttons = [words for kind, words in named if kind == "button"]
    assert buttons == ["Previous picture", "Next picture", "Close"]
    assert "searchbox" not in {kind for kind, _ in named}


def role(node: dict[str, Any]) -> str:
    """What a node of the accessibility tree is."""
    return str(node.get("role", {}).get("value", ""))


def name(node: dict[str, Any]) -> str:
    """What it is called."""
    return str(node.get("name", {}).get("value", ""))


def test_the_focus_is_seen_wherever_it_goes(page: Page) -> None:
    """Tab goes through everything in order, and each has an outline that stands out."""
    seen = []
    for _ in range(9):
        page.press("Tab", "\t")
        ring = page.value(
            """(() => { const element = document.activeElement, style = getComputedStyle(element);
            return [element.localName, style.outlineStyle, style.outlineWidth, style.outlineColor]
            })()"""
        )
        seen.append(ring[0])
        assert ring[1:3] == ["solid", "2px"], json.dumps(ring)
        assert contrast(ring[3], page.value("getComputedStyle(document.body).backgroundColor")) >= 3
    assert seen == ["input", "input", "a", "a", "a", "summary", "a", "a", "a"]
