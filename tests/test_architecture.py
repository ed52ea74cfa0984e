"""The floors of the package: imports only go down, quiet rooms stay quiet, one door per library."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "eggapi_async"
ROOT = Path(__file__).parent.parent / PACKAGE

FLOORS: list[set[str]] = [
    {"_version", "_display", "errors", "models", "client_events"},
    {
        "_protocol",
        "_values",
        "_doubt",
        "_record",
        "_formats",
        "gallery",
        "_retry",
        "_quota",
        "_rhythm",
        "_listing",
        "_pacing",
        "_polling",
        "_sweeping",
        "_watched",
        "_signing",
        "_events",
        "_hooks",
        "_reach",
        "_recent",
        "_fairness",
        "budget",
        "ledger",
        "prices",
    },
    {
        "_wire",
        "_lanes",
        "_dialling",
        "_discretion",
        "_foreign",
        "_transport",
        "_apart",
        "_telling",
        "_home",
        "_console",
        "_files",
        "limiter",
        "_work",
        "turns",
        "_journal",
        "_reading",
        "_scribe",
        "redis",
        "otel",
    },
    {
        "_hub",
        "_purchase",
        "_submission",
        "_once",
        "_downloads",
        "_batch",
        "_resume",
        "_task",
        "_deliveries",
    },
    {"client", "webhooks", "emulator", "_asgi", "_verification"},
    {"__init__", "cli", "pytest_plugin", "testing", "__main__"},
]

LOUD = {"asyncio", "anyio", "trio", "time", "random", "os", "io", "pathlib", "socket"}
LOUD |= {"threading", "logging", "httpx", "sqlite3"}
QUIET_EXCEPTIONS = {("models", "pathlib"), ("_record", "pathlib")}

DOORS: dict[str, set[str]] = {
    "httpx": {"_foreign", "_lanes", "_wire"},
    "httpx2": set(),  # who brings a client of it has loaded it
    "httpcore": {"_dialling", "_lanes", "_wire"},
    "sqlite3": {"_journal"},
    "redis": {"redis"},
    "opentelemetry": {"otel"},
    "click": {"cli"},
    "rich": {"cli"},
    "uvicorn": {"cli"},
    "asyncio": {"_apart", "testing"},
}

OPTIONAL = {"sqlite3", "click", "rich", "uvicorn", "trio", "redis", "respx", "pytest"}
OPTIONAL |= {"httpx2", "httpcore2", "opentelemetry"}
OPTIONAL |= {f"{PACKAGE}.cli", f"{PACKAGE}.emulator"}

TYPES_ONLY = {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


class Import(NamedTuple):
    """One imported module, as written in one place."""

    module: str
    """Absolute dotted name."""
    at_import_time: bool
    """False inside a function."""


Modules = Mapping[str, ast.Module]
"""Parsed sources by dotted name below the package: `client`, `cli.demo`, `__init__`."""


def parse(sources: Mapping[str, str]) -> dict[str, ast.Module]:
    return {name: ast.parse(source) for name, source in sources.items()}


def package() -> dict[str, ast.Module]:
    """The package as it is on disk."""
    paths = {_dotted(path): path for path in sorted(ROOT.rglob("*.py"))}
    return parse({name: path.read_text("utf-8") for name, path in paths.items()})


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def room(name: str) -> str:
    """The module or subpackage that has a place on a floor: `cli` for `cli.demo`."""
    return name.partition(".")[0]


def floor(name: str) -> int | None:
    return next((number for number, rooms in enumerate(FLOORS) if room(name) in rooms), None)


def imports(name: str, tree: ast.AST, *, at_import_time: bool = True) -> Iterator[Import]:
    """Everything that module `name` imports when it runs; `if TYPE_CHECKING` does not run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, at_import_time) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(module, at_import_time) for module in _from(name, node))
        elif isinstance(node, ast.If) and ast.unparse(node.test) in TYPES_ONLY:
            otherwise = ast.Module(node.orelse, [])
            yield from imports(name, otherwise, at_import_time=at_import_time)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(name, node, at_import_time=at_import_time and not inside)


def _from(name: str, node: ast.ImportFrom) -> list[str]:
    parts = [PACKAGE, *name.split(".")]
    base = parts[: len(parts) - node.level] if node.level else []
    module = ".".join([*base, node.module] if node.module else base)
    # `from package import name` may mean a module of that name.
    return [f"{module}.{alias.name}" for alias in node.names]


def own(name: str, tree: ast.Module, modules: Modules) -> list[tuple[str, bool]]:
    """The package's own modules among the imports, as (name in `modules`, at import time)."""
    return [
        (_known(module.split(".")[1:], modules), at_import_time)
        for module, at_import_time in imports(name, tree)
        if room(module) == PACKAGE
    ]


def _known(parts: list[str], modules: Modules) -> str:
    while parts:
        for candidate in (".".join(parts), ".".join([*parts, "__init__"])):
            if candidate in modules:
                return candidate
        parts = parts[:-1]
    return "__init__"


def foreign(name: str, tree: ast.Module) -> set[str]:
    return {room(module) for module, _ in imports(name, tree)} - {PACKAGE}


def without_a_floor(modules: Modules) -> list[str]:
    return [name for name in modules if floor(name) is None]


def upward(modules: Modules) -> list[str]:
    """Imports of a higher floor, at whatever time; a module without a floor is no part of it."""
    pairs = [
        (name, other) for name, tree in modules.items() for other, _ in own(name, tree, modules)
    ]
    return [f"{name} imports {other}" for name, other in pairs if _is_above(other, name)]


def _is_above(name: str, other: str) -> bool:
    ours, theirs = floor(name), floor(other)
    return ours is not None and theirs is not None and ours > theirs


def circular(modules: Modules) -> list[str]:
    """A cycle among the modules that import each other while they are imported, if there is one."""
    graph = {
        name: {other for other, now in own(name, tree, modules) if now and other != name}
        for name, tree in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return []


def noisy(modules: Modules) -> list[str]:
    """Imports of the world into the quiet rooms, floors 0 and 1."""
    return [
        f"{name} imports {library}"
        for name, tree in modules.items()
        for library in sorted(foreign(name, tree) & LOUD)
        if floor(name) in (0, 1) and (name, library) not in QUIET_EXCEPTIONS
    ]


def beside_the_door(modules: Modules) -> list[str]:
    """Imports of a library elsewhere than in the one module that is its door."""
    return [
        f"{name} imports {library}"
        for name, tree in modules.items()
        for library in sorted(foreign(name, tree) & DOORS.keys())
        if room(name) not in DOORS[library]
    ]


def prying(modules: Modules) -> list[str]:
    """What emulator and cli may not know: our own bugs, and anything private."""
    return [
        f"{name} imports {other}"
        for name, tree in modules.items()
        for other, _ in own(name, tree, modules)
        if room(other) != room(name) and not _allowed(room(name), room(other))
    ]


def _allowed(importer: str, imported: str) -> bool:
    if importer == "emulator":
        return imported == "_signing"
    private = imported.startswith("_") and imported not in ("__init__", "_version")
    return importer != "cli" or not private


def undocumented(modules: Modules) -> list[str]:
    return [name for name, tree in modules.items() if not ast.get_docstring(tree)]


Rule = Callable[[Modules], list[str]]
RULES: dict[str, Rule] = {
    "every module has a floor": without_a_floor,
    "imports only go down": upward,
    "no modules import each other": circular,
    "quiet rooms know nothing of the world": noisy,
    "one door per library": beside_the_door,
    "the emulator and the command line do not pry": prying,
    "every module says what it is": undocumented,
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    """No module of the package breaks a rule of the house."""
    modules = package()
    assert modules, "there is nothing to check"
    assert rule(modules) == []


BROKEN: dict[str, tuple[Rule, dict[str, str], list[str]]] = {
    "a module on no floor": (without_a_floor, {"utils": "", "cli.demo": ""}, ["utils"]),
    "an import of a higher floor": (
        upward,
        {"errors": "from .client import X", "client": ""},
        ["errors imports client"],
    ),
    "an absolute import of a higher floor": (
        upward,
        {"models": "import eggapi_async._hub", "_hub": ""},
        ["models imports _hub"],
    ),
    "a higher module by its name": (
        upward,
        {"_retry": "from . import client, errors", "client": "", "errors": ""},
        ["_retry imports client"],
    ),
    "a higher floor inside a function": (
        upward,
        {"_hub": "def f():\n    if f:\n        from .cli.demo import X", "cli.demo": ""},
        ["_hub imports cli.demo"],
    ),
    "the top level itself from below": (
        upward,
        {"client": "from eggapi_async import X", "__init__": ""},
        ["client imports __init__"],
    ),
    "a higher floor out of a subpackage": (
        upward,
        {"emulator.app": "from ..cli import X", "cli.__init__": ""},
        ["emulator.app imports cli.__init__"],
    ),
    "two modules of a floor that import each other": (
        circular,
        {"errors": "from .models import X", "models": "from .errors import Y"},
        ["errors", "models", "errors"],
    ),
    "a loop in a quiet room": (
        noisy,
        {"_pacing": "def f():\n    import asyncio.events", "_hub": "import anyio"},
        ["_pacing imports asyncio"],
    ),
    "files in a quiet room": (
        noisy,
        {"errors": "from pathlib import Path", "models": "from pathlib import Path"},
        ["errors imports pathlib"],
    ),
    "a library beside its door": (
        beside_the_door,
        {"client": "import httpx", "_wire": "import httpx", "cli.a": "from rich.b import c"},
        ["client imports httpx"],
    ),
    "asyncio outside its room": (
        beside_the_door,
        {"_hub": "from asyncio import sleep", "_apart": "import asyncio"},
        ["_hub imports asyncio"],
    ),
    "an emulator that shares our code": (
        prying,
        {
            "emulator.app": "from .tasks import T\nfrom .. import models, _signing",
            "emulator.tasks": "",
            "models": "",
            "_signing": "",
        },
        ["emulator.app imports models"],
    ),
    "a command line that reaches inside": (
        prying,
        {
            "cli.a": "from .b import B\nfrom .. import _hub, _version, client\nfrom .. import X",
            "cli.b": "",
            "_hub": "",
            "_version": "",
            "client": "",
            "__init__": "",
        },
        ["cli.a imports _hub"],
    ),
    "a module without a docstring": (
        undocumented,
        {"client": "a = 1", "errors": "'ok'"},
        ["client"],
    ),
}


@pytest.mark.parametrize(("rule", "sources", "found"), BROKEN.values(), ids=BROKEN)
def test_a_rule_catches(rule: Rule, sources: dict[str, str], found: list[str]) -> None:
    """Every rule finds what it is there for, and only that."""
    assert sorted(rule(parse(sources))) == sorted(found)


def test_every_rule_is_proved() -> None:
    """There is no rule that was never seen to catch anything."""
    assert {rule for rule, _, _ in BROKEN.values()} == set(RULES.values())


HARMLESS: dict[str, tuple[Rule, dict[str, str]]] = {
    "an import for types only": (
        upward,
        {"errors": "if TYPE_CHECKING:\n    from .client import X", "client": ""},
    ),
    "a cycle that closes inside a function": (
        circular,
        {"errors": "from .models import X", "models": "def f():\n    from .errors import Y"},
    ),
    "the same floor": (upward, {"_batch": "from ._hub import X", "_hub": ""}),
}


@pytest.mark.parametrize(("rule", "sources"), HARMLESS.values(), ids=HARMLESS)
def test_a_rule_lets_be(rule: Rule, sources: dict[str, str]) -> None:
    """What does no harm is no violation."""
    assert rule(parse(sources)) == []


@pytest.mark.parametrize(
    "guard", ["if not TYPE_CHECKING:", "if True:", "if TYPE_CHECKING:\n    pass\nelse:", "try:"]
)
def test_only_imports_for_types_are_overlooked(guard: str) -> None:
    """Every other branch counts, since it can run."""
    end = "\nfinally:\n    pass" if guard == "try:" else ""
    sources = {"errors": f"{guard}\n    from .client import X{end}", "client": ""}
    assert upward(parse(sources)) == ["errors imports client"]


FORGET = """
import sys, httpx
for name in [name for name in sys.modules if name.partition(".")[0] in ("click", "rich")]:
    del sys.modules[name]
"""
"""httpx loads click and rich for a command line of its own, if they are installed. What counts is
whether we ask for them too, so both are forgotten before our import."""


def loaded_by(statement: str) -> set[str]:
    """Names of all modules that an interpreter has loaded after httpx, `FORGET` and `statement`."""
    script = f"{FORGET}\nsys.path.insert(0, {str(ROOT.parent)!r}); {statement}"
    command = [sys.executable, "-I", "-c", f"{script}; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_optional() -> None:
    """A plain import costs no extra, no database, no command line and no emulator."""
    loaded = loaded_by(f"import {PACKAGE}")
    assert PACKAGE in loaded
    assert loaded & OPTIONAL == set()


def test_importing_the_package_loads_nothing_but_itself() -> None:
    """Names are loaded when they are first used: a plain import costs next to nothing."""
    script = f"import sys; sys.path.insert(0, {str(ROOT.parent)!r}); before = set(sys.modules)"
    script += f"; import {PACKAGE}; print(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    foreign = {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names
    own = {name for name in done.stdout.split() if name.startswith(PACKAGE)}
    assert foreign == {PACKAGE}
    assert own == {PACKAGE, f"{PACKAGE}._version"}


def test_the_client_loads_no_library_but_those_it_depends_on() -> None:
    """Beside httpx and its httpcore: attrs, cattrs and anyio, with what these load themselves."""
    loaded = loaded_by(f"from {PACKAGE} import AsyncEggClient") - loaded_by("import httpcore")
    foreign = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert foreign <= {PACKAGE, "attr", "attrs", "cattrs", "anyio", "typing_extensions", "sniffio"}


def test_a_loaded_library_is_noticed(tmp_path: Path) -> None:
    """The check sees what a statement loads, click included, which httpx may have had before."""
    (tmp_path / "click.py").touch()
    statement = f"sys.path.insert(0, {str(tmp_path)!r}); import sqlite3, click"
    assert loaded_by(statement) & OPTIONAL == {"sqlite3", "click"}
