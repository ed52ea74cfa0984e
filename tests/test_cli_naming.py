"""Names of files by a template, and names of lines by what they ask for."""

from __future__ import annotations

import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eggapi_async import GenerationRequest, InvalidRequestError, TaskSnapshot
from eggapi_async.cli.keys import Keys
from eggapi_async.cli.naming import Template, slug
from eggapi_async.cli.past import command
from eggapi_async.models import checked_name

TASK = TaskSnapshot(id="gen_Ab1", status="completed")
EGG = GenerationRequest(prompt="An Egg!", model="veo3.1")

# --- templates -----------------------------------------------------------------------------------

GOOD = {
    "{index}": "7",
    "{index:04d}": "0007",
    "{line:03}-{slug}": "009-an-egg",
    "{id}": "gen_Ab1",
    "{id}.png": "gen_Ab1",
    "{id}.{ext}": "gen_Ab1",
    "{model}/{slug}-{id}": "veo3-1/an-egg-gen_Ab1",
    "v1.2 of {id}": "v1.2 of gen_Ab1",
    "{{{id}}}": "{gen_Ab1}",
}


@pytest.mark.parametrize(("text", "name"), GOOD.items(), ids=GOOD)
def test_a_template_names_files(text: str, name: str) -> None:
    """The suffix follows from the bytes, so one in the template is dropped."""
    assert Template.of(text).name(7, 9, EGG, TASK) == name


BAD = {
    "": "{index}, {line} or {id} in it",
    "egg": "{index}, {line} or {id} in it",
    "{slug}-{model}": "{index}, {line} or {id} in it",
    "{index}{n}": "the fields {index}, {line}, {id}, {slug}, {model} only",
    "{}": "the fields",
    "{0}": "the fields",
    "{index.__class__}": "the fields",
    "{id[0]}": "the fields",
    "{index:>9999}": "the fields",
    "{index:{line}}": "the fields",
    "{id:9}": "no format behind 'id'",
    "{id!r}": "no conversions",
    "{index": "a template (",
    "{index}}": "a template (",
    "../{id}": "stays in the folder",
    "a/../../{id}": "stays in the folder",
    "/{id}": "stays in the folder",
    "{id}/": "stays in the folder",
    "a//{id}": "stays in the folder",
    "a\\{id}": "stays in the folder",
    "c:{id}": "stays in the folder",
    ".{id}": "stays in the folder",
    "{id} ": "stays in the folder",
    "{id}\n": "stays in the folder",
    "{id}\0": "stays in the folder",
    "x" * 150 + "{id}": "at most 200 bytes",
}


@pytest.mark.parametrize(("text", "expected"), BAD.items(), ids=[repr(text)[:20] for text in BAD])
def test_a_template_that_cannot_name_files_is_refused(text: str, expected: str) -> None:
    """Whatever is not unique, not known, or leads out of the folder."""
    with pytest.raises(InvalidRequestError, match=re.escape(expected)) as caught:
        Template.of(text)
    assert caught.value.field == "--name"


@given(
    prompt=st.text(min_size=1, max_size=300),
    task_id=st.text(min_size=1, max_size=200),
    model=st.text(min_size=1, max_size=100),
)
def test_no_prompt_and_no_id_leads_out_of_the_folder(prompt: str, task_id: str, model: str) -> None:
    """Whatever is in them, the library takes the name."""
    request = attrs.evolve(EGG, model="m")
    object.__setattr__(request, "prompt", prompt)  # also what no request may hold
    object.__setattr__(request, "model", model)
    name = Template.of("{model}/{index}-{slug}-{id}").name(
        10**6, 1, request, attrs.evolve(TASK, id=task_id)
    )
    assert checked_name(name) == name


SLUGS = {
    "An Egg: on/in a *nest*": "an-egg-on-in-a-nest",
    "  -- ": "untitled",
    "Яйцо в гнезде": "яйцо-в-гнезде",
    "../../etc/passwd": "etc-passwd",
    "a" * 100: "a" * 60,
    "ж" * 100: "ж" * 30,
}


@pytest.mark.parametrize(("text", "piece"), SLUGS.items(), ids=SLUGS.values())
def test_a_prompt_becomes_a_piece_of_a_name(text: str, piece: str) -> None:
    """Letters and digits of any script, and not too many."""
    assert slug(text) == piece


# --- lines ---------------------------------------------------------------------------------------


def test_lines_are_known_by_what_they_ask_for() -> None:
    """The order of the fields does not matter, and alike ones are counted."""
    keys = Keys()
    one = keys.of({"prompt": "An egg", "model": "m"}, given=None)
    two = keys.of({"model": "m", "prompt": "An egg"}, given=None)
    other = keys.of({"prompt": "An egg"}, given=None)
    assert one.endswith("/1")
    assert two == one.replace("/1", "/2")
    assert other.endswith("/1")
    assert other != one


def test_a_line_keeps_its_name_unless_it_was_mended() -> None:
    """A name that does not fit what is asked for is of something else."""
    name = Keys().of({"prompt": "An egg"}, given=None)
    assert Keys().of({"prompt": "An egg"}, given=name.replace("/1", "/7")).endswith("/7")
    assert Keys().of({"prompt": "A hen"}, given=name) != name
    assert Keys().of({"prompt": "An egg"}, given="nonsense") == name


def test_a_command_can_be_typed_again() -> None:
    """Words with spaces in them are quoted."""
    assert command(["batch", "my prompts.txt"]) == "eggapi batch 'my prompts.txt'"
