"""What the benchmarks' pages say is what the kept figures say. No time is measured here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import attrs
import pytest

from benchmarks import alone, decode, plans, report
from benchmarks.contenders import BY_NAME
from benchmarks.figures import Figures, Setting, read, write
from benchmarks.merging import caption, entries
from benchmarks.picture import picture
from benchmarks.runner import Result
from benchmarks.scenario import Scenario
from benchmarks.tables import DID_NOT_FINISH
from benchmarks.targets import targets_table

PAGES = report.pages(report.kept())
SVG = "{http://www.w3.org/2000/svg}"


def setting(date: str = "2024-01-15") -> Setting:
    return Setting(date, "CPython 3.11.7", "Linux x86_64", 2, {"httpx": "0.28.1"})


def figures(*blocks: dict[str, Any], date: str = "2024-01-15") -> Figures:
    return Figures("compare", setting(date), list(blocks))


def block(
    outcomes: Mapping[str, Result | str],
    *,
    scenario: Scenario = report.FEATURED,
    measured: str = "2024-01-15",
    repeats: int = 5,
) -> dict[str, Any]:
    """A block as `compare` stores it."""
    plain = {name: it if isinstance(it, str) else attrs.asdict(it) for name, it in outcomes.items()}
    return json.loads(  # type: ignore[no-any-return]
        json.dumps(
            {
                "scenario": attrs.asdict(scenario),
                "measured": measured,
                "repeats": repeats,
                "outcomes": plain,
            }
        )
    )


def result(**changes: Any) -> Result:
    usual = Result(0, 4.0, 1.5, 0.0, 0.3, 0.6, 30.0, 40.0, 20.0, (500, 200, 2))
    return attrs.evolve(usual, **changes)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_is_made_of_the_figures_agrees_with_them(path: Path) -> None:
    """`python -m benchmarks report` would change nothing."""
    assert path.read_text("utf-8") == PAGES[path]


@pytest.mark.parametrize("page", report.PAGES, ids=lambda path: path.name)
def test_every_section_of_a_page_is_one_that_is_written(page: Path) -> None:
    """No marker was broken by an edit, which would leave old figures standing."""
    text = page.read_text("utf-8")

    assert text.count("<!-- figures:") == text.count("<!-- /figures -->")
    assert text.count("<!-- figures:") == len(report.SECTION.findall(text)) > 0


def test_every_relative_link_of_the_page_leads_somewhere() -> None:
    """The page names only files that are there."""
    page = report.PAGES[0]
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text("utf-8"))

    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_page_without_figures_says_so() -> None:
    """Nothing measured, nothing claimed."""
    text = report.pages([])[report.PAGES[0]]

    assert text.count(report.NOTHING) >= 6
    assert " met |" not in text
    assert report.PICTURE not in report.pages([])


def test_files_of_different_days_make_one_table() -> None:
    """Its caption tells whose figures were measured when, as medians of how many."""
    files = [
        figures(block({"ours": result(), "openai": result()})),
        figures(block({"replicate": result()}, measured="2024-02-01", repeats=1)),
    ]

    shown = entries(files)[report.FEATURED]

    assert list(shown) == ["ours", "replicate", "openai"]
    assert caption(shown) == (
        "ours, openai: Medians of 5, measured on 2024-01-15; "
        "replicate: A single run, measured on 2024-02-01."
    )


@pytest.mark.parametrize("order", [1, -1], ids=["given first", "given last"])
def test_the_later_figures_of_a_contender_count(order: int) -> None:
    """Whatever the order of the files."""
    files = [
        figures(block({"ours": result(cpu_ms=9.0)})),
        figures(block({"ours": result(cpu_ms=5.0)}, measured="2024-02-01")),
    ]

    shown = entries(files[::order])[report.FEATURED]

    assert shown["ours"].outcome == result(cpu_ms=5.0)
    assert caption(shown) == "Medians of 5, measured on 2024-02-01."


def test_scenarios_that_differ_in_anything_stay_apart() -> None:
    """A limit, foreign tasks, Retry-After: each makes a table of its own."""
    usual = Scenario(500, limit=100.0)
    others = [
        attrs.evolve(usual, limit=None),
        attrs.evolve(usual, retry_after=True),
        attrs.evolve(usual, foreign=10.0),
        attrs.evolve(usual, longest=20.0),
    ]
    blocks = [block({"ours": result()}, scenario=it) for it in (usual, *others)]

    assert set(entries([figures(*blocks)])) == {usual, *others}


def test_who_did_not_finish_is_said_not_to_have() -> None:
    """In the table, in the picture, and with what was lost."""
    lossy = result(failed=372, problems="372 ClientResponseError")
    file = figures(block({"ours": result(), "openai": lossy, "fal-client": DID_NOT_FINISH}))
    measured = entries([file])

    table = report.summary(report.FEATURED, measured)
    drawn = picture(report.FEATURED, measured[report.FEATURED])

    assert f"| fal-client | {DID_NOT_FINISH} |" in table
    assert "| openai | 372 |" in table
    assert "372 tasks lost" in drawn
    assert "Nothing finished: fal-client." in drawn


def test_the_picture_is_told_in_words_and_loads_nothing() -> None:
    """A title, a description with the figures, two colour schemes, no script, no address."""
    measured = entries([figures(block({"ours": result(), "openai": result(lag_p95=90.0)}))])
    text = picture(report.FEATURED, measured[report.FEATURED])
    root = ElementTree.fromstring(text)

    assert root.get("role") == "img"
    assert "500" in (root.findtext(f"{SVG}title") or "")
    assert "openai: lag 0.30 s at the median, 90.00 s" in (root.findtext(f"{SVG}desc") or "")
    assert "prefers-color-scheme: dark" in text
    assert "<script" not in text
    assert "url(" not in text


def test_a_picture_of_nothing_still_says_who_took_part() -> None:
    """Nobody finished: no bars, but the names."""
    measured = entries([figures(block({"ours": DID_NOT_FINISH, "openai": DID_NOT_FINISH}))])
    text = picture(report.FEATURED, measured[report.FEATURED])

    assert "Nothing finished: eggapi-async, openai." in text


def test_every_scenario_has_a_line_for_ours_and_the_strongest_other() -> None:
    """Unless one of the two was not measured in it."""
    both: dict[str, Result | str] = {"ours": result(), "aiohttp-retries": DID_NOT_FINISH}
    blocks = [block(both), block({"ours": result()}, scenario=Scenario(10))]
    lines = report.scale(entries([figures(*blocks)])).splitlines()

    assert len(lines) == 3
    assert lines[2].startswith(f"| N = 500, 100/s, 429 | 0 · {DID_NOT_FINISH} | 0.30 · – |")


def test_a_target_is_judged_by_the_worst_scenario() -> None:
    """Met only where no scenario misses it; what was not measured is said not to be."""
    good, bad = Scenario(500), Scenario(2000)
    blocks = [
        block({"ours": result()}, scenario=good),
        block({"ours": result(lag_p95=0.9)}, scenario=bad),
    ]
    rows = targets_table(entries([figures(*blocks)]), None).splitlines()

    assert "| tasks lost | ≤ 0 | 0 (N = 500, no limit) | met |" in rows
    assert (
        "| lag p95, s, no limit or 100/s | ≤ 0.80 | 0.90 (N = 2,000, no limit) | missed |" in rows
    )
    assert "| peak memory at 10,000, of the best other's | ≤ 1.00 | not measured |  |" in rows


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    """With the setting of the process that measured them."""
    path = tmp_path / "figures.json"
    write(path, "decode", [{"name": "json", "task": 1.23456789, "page": 2.0}])
    write(None, "decode", [])

    found = read(path)

    assert found.content == [{"name": "json", "task": 1.23457, "page": 2.0}]
    assert found.setting.packages["httpx"]
    assert found.setting.cores >= 1


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"look": "compare", "content": []}', '{"setting": {"date": "x"}}'],
    ids=["nothing", "a bare list", "no setting", "a setting with holes"],
)
def test_a_file_that_is_not_figures_is_refused_by_name(tmp_path: Path, text: str) -> None:
    """Figures without their setting are not taken."""
    path = tmp_path / "odd.json"
    path.write_text(text)

    with pytest.raises(SystemExit, match=r"odd\.json"):
        read(path)


def test_without_the_featured_scenario_the_widest_is_shown() -> None:
    """Of those with the most contenders, the nearest in size."""
    sizes = (10, 400, 10_000)
    both = {"ours": result(), "openai": result()}
    blocks = [block(both, scenario=Scenario(n)) for n in sizes]
    blocks.append(block({"ours": result()}, scenario=Scenario(500)))

    assert report.featured(entries([figures(*blocks)])) == Scenario(400)


def test_a_lone_task_after_fifty_costs_no_more_looks_and_is_seen_sooner() -> None:
    """The look at lone tasks, in virtual time: exact, so it can be asserted."""
    theirs, ours = alone.measured(3, after=20)["rows"][:2]

    assert ours["tasks"] == theirs["tasks"] == 60
    assert ours["polls"] <= theirs["polls"]
    assert ours["mean"] < theirs["mean"]


def test_every_decoder_reads_the_answers() -> None:
    """A page on which as many entries have changed as it says, and one ended task."""
    task, page = decode.answers()
    items = json.loads(page)["data"]["items"]

    assert json.loads(task)["data"]["status"] == "completed"
    assert len(items) == decode.PAGE
    assert sum(item["status"] == "completed" for item in items) == decode.CHANGED
    assert len(decode.measured(0.0)) >= 3


def test_the_plans_name_contenders_that_there_are() -> None:
    """And in each block ours comes before the bare requests that repeat it."""
    for planned in [*plans.quick(), *plans.full(1)]:
        assert set(planned.names) <= set(BY_NAME)
        bare = [planned.names.index(it) for it in planned.names if it.startswith("bare")]
        assert all(planned.names.index("ours") < place for place in bare)
