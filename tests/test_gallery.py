"""The page of a gallery is text: whole, escaped, of one policy, and the same for the same rows."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Iterator
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote

import attrs
import pytest

from eggapi_async.emulator.pictures import picture
from eggapi_async.errors import InvalidRequestError
from eggapi_async.gallery import GalleryItem, GalleryPicture, Totals, chunks, measured, render

VOID = {"meta", "link", "img", "input", "path"}


@attrs.define
class Read(HTMLParser):
    """What a page says: its elements with their attributes, the texts by class, what is open."""

    elements: list[tuple[str, dict[str, str | None]]] = attrs.field(factory=list)
    texts: dict[str, list[str]] = attrs.field(factory=dict)
    path: list[str] = attrs.field(factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, given: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(given)))
        if tag not in VOID:
            self.path.append(f"{tag}.{dict(given).get('class') or ''}")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.path.pop().startswith(f"{tag}."), f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        for name in {part for part in self.path if data.strip()}:
            self.texts.setdefault(name, []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [given for name, given in self.elements if name == tag]


def read(*items: GalleryItem, title: str = "Eggs") -> Read:
    """The page of these rows, read."""
    page = Read()
    page.feed(render(items, title=title))
    page.close()
    assert page.path == [], "something was left open"
    return page


def item(**changes: Any) -> GalleryItem:
    """A row of one picture."""
    given: dict[str, Any] = {
        "prompt": "An egg",
        "model": "nanobanana",
        "pictures": (GalleryPicture("gen_1.png", 1024, 576),),
    }
    return GalleryItem(**(given | changes))


def test_a_card_shows_the_picture() -> None:
    """It is described by its prompt, loaded when it is wanted, and its place is kept."""
    page = read(item())
    assert page.texts["p.prompt"] == ["An egg"]
    assert page.all("img") == [
        {
            "src": "gen_1.png",
            "alt": "An egg",
            "width": "1024",
            "height": "576",
            "loading": "lazy",
            "decoding": "async",
        }
    ]


def facts(*items: GalleryItem) -> dict[str, str]:
    """The facts on the cards of these rows, and the totals."""
    page = read(*items)
    return dict(zip(page.texts.get("dt.", []), page.texts.get("dd.", []), strict=True))


def test_what_is_known_of_a_picture_is_told_and_nothing_else() -> None:
    """Every fact has its name; what nobody knows leaves no gap."""
    known = item(
        resolution="2k",
        aspect_ratio="16:9",
        cost=Decimal("0.016"),
        duration=760.4,
        task_id="gen_1",
    )
    assert facts(known) == {
        "image": "1",
        "spent": "$0.016",
        "typical": "12 min 40 s",
        "Model": "nanobanana",
        "Resolution": "2k",
        "Shape": "16:9",
        "Size": "1024 × 576",
        "Time": "12 min 40 s",
        "Cost": "$0.016",
        "Task": "gen_1",
        "File": "gen_1.png",
    }
    assert facts(GalleryItem(pictures=(GalleryPicture("a.png"),))) == {
        "image": "1",
        "File": "a.png",
    }
    assert facts(GalleryItem(error="no")) == {"images": "0", "failed": "1"}


def test_the_pictures_of_one_row_are_told_apart() -> None:
    """Each has a card, says which it is, and that the money was for all of them."""
    both = (GalleryPicture("a-1.png"), GalleryPicture("sub/a-2.png"))
    page = read(item(pictures=both, cost=Decimal("0.08")))
    values = page.texts["dd."]
    assert [values.count("1 of 2"), values.count("2 of 2"), values.count("$0.08 for 2")] == [
        1,
        1,
        2,
    ]
    assert [link["href"] for link in page.all("a")] == ["a-1.png", "sub/a-2.png"]


def test_a_video_is_a_video() -> None:
    """It shows its first frame, makes no sound, and says that it is one."""
    page = read(item(pictures=(GalleryPicture("gen_1.MP4"),)), item())
    (shown,) = page.all("video")
    assert shown["src"] == "gen_1.MP4#t=0.1"
    assert shown["aria-label"] == "Video: An egg"
    assert {"muted", "playsinline"} <= shown.keys()
    assert facts(item(pictures=(GalleryPicture("gen_1.MP4"),)))["video"] == "1"
    assert facts(*[item(pictures=(GalleryPicture("a.webm"),))] * 2)["videos"] == "2"


TILES: dict[str, tuple[GalleryItem, str, bool]] = {
    "a failure": (GalleryItem(status="failed", error="No."), "Failed", True),
    "a lost answer": (GalleryItem(status="uncertain", error="Lost."), "Uncertain", True),
    "a task that goes on": (GalleryItem(status="processing"), "Processing", False),
    "a picture that is gone": (GalleryItem(error="Gone."), "Not here", True),
    "a row of no status": (GalleryItem(status=""), "Not here", False),
    "a picture of two": (item(error="One is missing."), "Not all here", True),
}


@pytest.mark.parametrize(("row", "word", "is_failed"), TILES.values(), ids=TILES)
def test_what_is_not_there_has_a_card_too(row: GalleryItem, word: str, is_failed: bool) -> None:
    """It says what happened and why, and counts as a failure where it is one."""
    page = read(row)
    assert page.texts["p.what"] == [word]
    assert page.texts.get("p.reason", []) == ([row.error] if row.error else [])
    classes = [(given["class"] or "").split() for given in page.all("li")]
    assert any("failed" in names for names in classes) is is_failed
    boxes = [given for given in page.all("input") if given.get("name") == "failures"]
    assert len(boxes) == is_failed


EVIL = [
    "</script><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "<!-- ",
    "]]>&amp;&#x27;",
    "\u202egge na",
    "🥚\u200d🔥",
]


@pytest.mark.parametrize("text", EVIL)
def test_text_stays_text(text: str) -> None:
    """Whatever field it is in, it comes out as it went in, and nothing else comes of it."""
    fields: dict[str, Any] = dict.fromkeys(
        ("prompt", "model", "resolution", "status", "error", "task_id"), text
    )
    page = read(item(**fields), GalleryItem(**fields), title=text)
    plain = read(item(), GalleryItem(error="x"))
    assert {name for name, _ in page.elements} == {name for name, _ in plain.elements}
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert page.texts["title."] == page.texts["h1."] == [text]
    assert page.texts["p.prompt"] == [text] * 3  # the row with a picture and an error has two
    assert page.texts["p.reason"] == [text, text]
    assert page.all("img")[0]["alt"] == text


def test_what_no_page_may_hold_is_replaced() -> None:
    """Controls and halves of characters become the sign for such; line ends and tabs stay."""
    page = read(item(prompt="a\x00b\x1b\udcff\ud800\n\tc\x85"))
    assert page.texts["p.prompt"] == ["a�b���\n\tc�"]
    render([item(prompt="\udcff")], title="\udcff").encode()


def test_a_long_text_is_folded_and_whole() -> None:
    """20,000 characters are all there, shown in part, and do not describe the picture."""
    long = "egg " * 5000
    page = read(item(prompt=long, error=long))
    assert page.texts["summary.prompt"] == [long, long]
    assert page.texts["summary.reason"] == [long]
    alt = page.all("img")[0]["alt"] or ""
    assert alt == ("egg " * 50).rstrip() + "…"


def test_every_text_keeps_its_direction_to_itself() -> None:
    """Texts of others stand in elements that isolate, and have no language of ours."""
    page = read(item(prompt="بيضة"), GalleryItem(prompt="long " * 50, error="خطأ"))
    isolated = [given for tag, given in page.elements if given.get("dir") == "auto"]
    assert len(isolated) == 4  # title, two prompts, a reason
    assert all(given["lang"] == "" for given in isolated)
    assert page.texts["bdi."] == ["nanobanana", "1024 × 576", "gen_1.png", "Not here"]


NAMES = ["a b.png", "50%.png", "what?.png", "#1.png", "a:b.png", "sub/ü🥚.png", "javascript:x.png"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_found_whatever_it_is_called(name: str) -> None:
    """Its address is relative, and leads to that very name."""
    (link,) = read(item(pictures=(GalleryPicture(name),))).all("a")
    address = link["href"] or ""
    assert not re.search("[:?#]", address)
    assert unquote(address) == name


def test_bytes_that_are_no_text_are_kept_in_an_address() -> None:
    """A file name of another age is found too."""
    (link,) = read(item(pictures=(GalleryPicture("\udcff.png"),))).all("a")
    assert link["href"] == "%FF.png"


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../a.png", "a/../../b.png", "", ".", "\ud800.png"]
)
def test_a_path_cannot_leave_the_folder(path: str) -> None:
    """What is not inside is refused by name."""
    with pytest.raises(InvalidRequestError, match="path: expected a path inside"):
        GalleryPicture(path)


# --- the page ------------------------------------------------------------------------------------


def test_the_policy_lets_nothing_out_and_only_ours_in() -> None:
    """Nothing is allowed that is not named; style and script are known by their hashes."""
    text = render([item()], title="Eggs")
    page = read(item())
    policy = next(m["content"] or "" for m in page.all("meta") if "http-equiv" in m)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for kind in ("style", "script"):
        (block,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    assert "http" not in "".join(rules.values())


def test_no_element_needs_what_the_policy_forbids() -> None:
    """No style and no handler in any element, and no address but of files beside the page."""
    page = read(item(), GalleryItem(error="No."))
    names = {name for _, given in page.elements for name in given}
    assert [name for name in names if name == "style" or name.startswith("on")] == []
    addresses = {given.get(name) for _, given in page.elements for name in ("src", "href")}
    assert {a for a in addresses if a and not a.startswith("data:image/svg")} == {"gen_1.png"}


def test_a_page_comes_in_pieces() -> None:
    """A head, a piece for every card, a tail and the list's ends; together they are the page."""
    rows = [item(prompt=f"Egg {n}") for n in range(50)]
    pieces = list(chunks(iter(rows), title="Eggs"))
    assert len(pieces) == 54
    assert "".join(pieces) == render(rows, title="Eggs")


@pytest.mark.parametrize(
    ("many", "parts"), [(400, []), (401, ["1 to 200", "201 to 400", "401 to 401"])]
)
def test_a_long_page_has_parts(many: int, parts: list[str]) -> None:
    """Every row is in one of them, in order; a page of an ordinary length is one list."""
    page = read(*[item(prompt=f"Egg {n}") for n in range(many)])
    assert page.texts.get("h3.", []) == parts
    assert page.texts["p.prompt"] == [f"Egg {n}" for n in range(many)]
    assert len(page.all("ul")) == max(1, len(parts))


def test_rows_that_can_be_read_again_are_not_collected() -> None:
    """Any number of rows passes through, one by one, twice."""

    rows = Counted([item()])
    list(chunks(rows, title="Eggs"))
    assert rows.times == 2


class Counted(list[GalleryItem]):
    """Rows that know how often they were gone through."""

    times = 0

    def __iter__(self) -> Iterator[GalleryItem]:
        self.times += 1
        return super().__iter__()


SHAPES = {
    "as it is": (GalleryPicture("a.png", 1024, 576), "", "r178"),
    "an upright one": (GalleryPicture("a.png", 576, 1024), "", "r56"),
    "a strip is cut": (GalleryPicture("a.png", 9000, 10), "", "r300"),
    "a pole is cut": (GalleryPicture("a.png", 10, 9000), "", "r40"),
    "unknown: as asked for": (GalleryPicture("a.png"), "9:16", "r56"),
    "unknown: as usual": (GalleryPicture("a.png"), "", "r178"),
    "nonsense: as usual": (GalleryPicture("a.png"), "0:0", "r178"),
}


@pytest.mark.parametrize(("shown", "asked", "shape"), SHAPES.values(), ids=SHAPES)
def test_a_place_is_kept_for_every_shape(shown: GalleryPicture, asked: str, shape: str) -> None:
    """A card has one of the shapes that the style knows."""
    text = render([item(pictures=(shown,), aspect_ratio=asked)], title="Eggs")
    assert f'class="card {shape}"' in text
    assert f".{shape}{{--r:" in text


def test_the_totals_add_up() -> None:
    """Pictures, videos, failures, what is not there yet, money, and the middle of the times."""
    rows = [
        item(cost=Decimal("0.1"), duration=1.0),
        item(pictures=(GalleryPicture("a.mp4"), GalleryPicture("b.png")), duration=9.0),
        item(cost=Decimal("0.2"), duration=2.0, error="One of two."),
        GalleryItem(status="processing"),
        GalleryItem(error="No."),
    ]
    totals = Totals.of(iter(rows))
    assert totals == Totals(
        images=3, videos=1, failed=2, waiting=1, cost=Decimal("0.3"), duration=2.0
    )
    assert facts(*rows) | {"not here yet": "1", "spent": "$0.30"} == facts(*rows)


def test_nothing_is_said_of_what_nobody_knows() -> None:
    """No money and no time where no row tells any."""
    totals = Totals.of([])
    assert (totals.cost, totals.duration) == (None, None)
    assert read().texts["dt."] == ["images"]


# --- sizes ---------------------------------------------------------------------------------------


def jpeg(*segments: bytes, width: int = 640, height: int = 480) -> bytes:
    """A JPEG's start, with these segments before its frame."""
    frame = b"\xff\xc2" + struct.pack(">HBHHB", 11, 8, height, width, 1) + bytes(3)
    return b"\xff\xd8" + b"".join(segments) + frame


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def exif(order: str, turned: int, tag: int = 0x0112) -> bytes:
    """A camera's note of how the picture is to be turned."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHIHH", tag, 3, 1, turned, 0)
    return segment(0xE1, b"Exif\0\0" + mark + struct.pack(f"{order}IH", 8, 1) + entry)


def webp(kind: bytes, content: bytes) -> bytes:
    """A WebP's start."""
    return b"RIFF" + bytes(4) + b"WEBP" + kind + struct.pack("<I", len(content)) + content


TABLE = segment(0xC4, bytes(20))
SIZES: dict[str, tuple[bytes, tuple[int, int] | None]] = {
    "a PNG": (picture("An egg", 1, aspect_ratio="9:16")[:32], (576, 1024)),
    "a GIF": (b"GIF89a" + struct.pack("<HH", 320, 200) + bytes(8), (320, 200)),
    "a JPEG": (jpeg(), (640, 480)),
    "a JPEG after its tables and profile": (jpeg(TABLE, segment(0xE2, bytes(9000))), (640, 480)),
    "a JPEG on its side": (jpeg(exif(">", 6)), (480, 640)),
    "a JPEG on its side, by another camera": (jpeg(exif("<", 8)), (480, 640)),
    "a JPEG upside down": (jpeg(exif("<", 3)), (640, 480)),
    "a JPEG that says nothing of its side": (jpeg(exif("<", 6, tag=0x0110)), (640, 480)),
    "a JPEG with a torn note": (jpeg(segment(0xE1, b"Exif\0\0II*\0\x08\0")), (640, 480)),
    "a JPEG with another note": (jpeg(segment(0xE1, b"http://ns.adobe.com")), (640, 480)),
    "a WebP with losses": (
        webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 0x4000 | 700, 400)),
        (700, 400),
    ),
    "a WebP without losses": (
        webp(b"VP8L", b"\x2f" + struct.pack("<I", (399 << 14) | 699)),
        (700, 400),
    ),
    "an extended WebP": (
        webp(b"VP8X", bytes(4) + (699).to_bytes(3, "little") + (399).to_bytes(3, "little")),
        (700, 400),
    ),
    "a WebP of another age": (webp(b"VP9 ", bytes(20)), None),
    "half a PNG": (picture("An egg", 1)[:20], None),
    "half a JPEG": (jpeg(TABLE)[:12], None),
    "a JPEG without a frame": (b"\xff\xd8\xff\xe0\0\x04abxxxx", None),
    "a PNG of no size": (b"\x89PNG\r\n\x1a\n" + bytes(24), None),
    "a video": (b"\0\0\0\x18ftypisom" + bytes(20), None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize(("head", "size"), SIZES.values(), ids=SIZES)
def test_the_first_bytes_tell_the_size(head: bytes, size: tuple[int, int] | None) -> None:
    """Width and height as a browser shows them, or nothing."""
    assert measured(head) == size


@pytest.mark.parametrize("head", [data for data, size in SIZES.values() if size])
def test_no_bytes_are_too_few_to_be_measured(head: bytes) -> None:
    """However much is missing, the answer is a size or nothing, never an error."""
    for length in range(min(len(head), 200)):
        measured(head[:length])
