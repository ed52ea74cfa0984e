"""The public names: exactly those that were promised, sorted, and each with a docstring."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import eggapi_async

PUBLIC = [
    "APIError",
    "AsyncEggClient",
    "AuthenticationError",
    "BadRequestError",
    "Batch",
    "Budget",
    "BudgetExceededError",
    "CallRetried",
    "ClientClosed",
    "ClientEvent",
    "ConfigurationError",
    "ConnectionFailedError",
    "CooledDown",
    "DownloadError",
    "EggError",
    "Estimate",
    "GenerationRequest",
    "GenerationTask",
    "InsufficientBalanceError",
    "InvalidRequestError",
    "Journal",
    "JournalError",
    "JournalItem",
    "Ledger",
    "LedgerEntry",
    "ModelEstimate",
    "NotFoundError",
    "Outcome",
    "Outcomes",
    "OutputDownloaded",
    "Page",
    "PermissionDeniedError",
    "PollPolicy",
    "QuotaExceededError",
    "RateLimitedError",
    "RateLimiter",
    "RedisLedger",
    "RedisRateLimiter",
    "RetryPolicy",
    "ServerError",
    "Stats",
    "SubmissionFailed",
    "SubmissionUncertainError",
    "TaskCompleted",
    "TaskFailed",
    "TaskFailedError",
    "TaskSnapshot",
    "TaskSubmitted",
    "TaskTimeoutError",
    "TasksPolled",
    "Turn",
    "TurnCancelledError",
    "Turns",
    "UnexpectedResponseError",
    "UsageRecord",
    "UsageSummary",
    "WebhookEvent",
    "WebhookReceiver",
    "WebhookVerificationError",
    "WrongLoopError",
    "__version__",
    "estimate",
    "sign_webhook",
    "verify_webhook",
]
"""The contract: adding a name is a feature, and removing one breaks somebody's program."""

ROOT = Path(eggapi_async.__file__).parent

PUBLIC_MODULES = sorted(
    path.stem if path.name != "__init__.py" else path.parent.name
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*/__init__.py")]
    if not path.stem.startswith("_") or (path.name == "__init__.py" and path.parent != ROOT)
)

OPTIONAL_LIBRARIES = {
    "click",
    "opentelemetry",
    "pytest",
    "redis",
    "respx",
    "rich",
    "trio",
    "uvicorn",
}


def public_module(name: str) -> ModuleType:
    """The module, or a skipped test where the extra it belongs to is not installed."""
    try:
        return importlib.import_module(f"eggapi_async.{name}")
    except ModuleNotFoundError as exc:
        if exc.name not in OPTIONAL_LIBRARIES:
            raise
        pytest.skip(f"needs {exc.name}")


def exported(module: ModuleType) -> list[str]:
    """The module's `__all__`, which it must have."""
    names: list[str] = vars(module)["__all__"]
    return names


def unsorted(names: list[str]) -> list[str]:
    """The names that stand before one that should come first."""
    return [one for one, other in pairwise(names) if place(one) > place(other)]


def place(name: str) -> tuple[int, str]:
    """Constants, classes, the rest, each by name: the order that the linter wants (RUF022)."""
    if len(name) > 1 and name.isupper():
        return 0, name
    return (1 if name[0].isupper() else 2), name


def undocumented(module: ModuleType) -> list[str]:
    """Public classes and functions without a docstring that is their own."""
    members = {name: getattr(module, name) for name in exported(module)}
    return [
        name
        for name, member in members.items()
        if (inspect.isclass(member) or inspect.isroutine(member))
        and not (vars(member).get("__doc__") if inspect.isclass(member) else member.__doc__)
    ]


def imported_twice(source: str) -> list[str]:
    """Names that a module binds by more than one import."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    bound = [alias.asname or alias.name for node in nodes for alias in node.names]
    return sorted({name for name in bound if bound.count(name) > 1})


def test_the_public_names_are_the_promised_ones() -> None:
    """`__all__` is the contract, no more and no less."""
    assert sorted(exported(eggapi_async)) == sorted(PUBLIC)


def test_the_public_names_are_sorted() -> None:
    """`__all__` is in order and names nothing twice."""
    assert unsorted(exported(eggapi_async)) == []
    assert len(set(exported(eggapi_async))) == len(exported(eggapi_async))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_exists(name: str) -> None:
    """Every promised name can be imported from the top level."""
    assert hasattr(eggapi_async, name)


def test_every_public_name_is_documented() -> None:
    """Whatever is exported says what it is, and so does the package."""
    assert eggapi_async.__doc__
    assert undocumented(eggapi_async) == []


def test_the_top_level_imports_nothing_twice() -> None:
    """Every name of the top level comes from one place."""
    assert imported_twice((ROOT / "__init__.py").read_text("utf-8")) == []


def test_two_names_are_not_the_same_thing() -> None:
    """No object is exported under two names."""
    things = [id(getattr(eggapi_async, name)) for name in exported(eggapi_async)]
    assert len(set(things)) == len(things)


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_a_public_module_lists_its_names(name: str) -> None:
    """`__all__` of a public module is sorted, true and documented."""
    module = public_module(name)
    assert unsorted(exported(module)) == []
    assert [one for one in exported(module) if not hasattr(module, one)] == []
    assert undocumented(module) == []


def test_disorder_is_noticed() -> None:
    """The check of the order finds a name in the wrong place."""
    assert unsorted(["B", "A", "a", "_"]) == ["B", "a"]
    assert unsorted(["Page", "LIMIT"]) == ["Page"]
    assert unsorted(["LIMIT", "APIError", "Page", "__version__", "sign"]) == []


def test_a_missing_docstring_is_noticed() -> None:
    """An inherited docstring does not count; values need none."""
    module = ModuleType("synthetic")

    class Documented:
        """Yes."""

    class Heir(Documented):
        pass

    def silent() -> None:
        pass

    vars(module).update(Documented=Documented, Heir=Heir, silent=silent, NUMBER=1)
    vars(module)["__all__"] = ["NUMBER", "Documented", "Heir", "silent"]
    assert undocumented(module) == ["Heir", "silent"]


def test_a_second_import_is_noticed() -> None:
    """A name that comes from two places is found, under the name that it gets."""
    assert imported_twice("from a import X, Y as Z\nfrom b import Z, Y") == ["Z"]


def test_a_public_room_is_there_without_an_import_of_its_own() -> None:
    """`import eggapi_async; eggapi_async.errors.EggError` works, though nothing is loaded early."""
    code = "import eggapi_async as e; print(e.errors.EggError.__name__, 'AsyncEggClient' in dir(e))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.split() == ["EggError", "True"]
    assert eggapi_async.__getattr__("errors") is eggapi_async.errors
    assert set(dir(eggapi_async)) >= set(eggapi_async.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As in every module."""
    with pytest.raises(AttributeError, match="has no attribute 'AsyncEgClient'"):
        _ = eggapi_async.AsyncEgClient
