"""An asyncio client for the Egg API: submit generations, await them by the hundred, save them.

Start at `AsyncEggClient`. Every public name is loaded when it is first used, so that importing the
package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from ._batch import Batch
    from ._reading import Journal
    from ._record import JournalItem
    from ._retry import RetryPolicy
    from ._rhythm import PollPolicy
    from ._task import GenerationTask
    from .budget import Budget
    from .client import AsyncEggClient
    from .client_events import (
        CallRetried,
        ClientClosed,
        ClientEvent,
        CooledDown,
        OutputDownloaded,
        SubmissionFailed,
        TaskCompleted,
        TaskFailed,
        TasksPolled,
        TaskSubmitted,
    )
    from .errors import (
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
    )
    from .ledger import Ledger, LedgerEntry
    from .limiter import RateLimiter
    from .models import (
        GenerationRequest,
        Outcome,
        Outcomes,
        Page,
        Stats,
        TaskSnapshot,
        UsageRecord,
        UsageSummary,
    )
    from .prices import Estimate, ModelEstimate, estimate
    from .redis import RedisLedger, RedisRateLimiter
    from .turns import Turn, Turns
    from .webhooks import WebhookEvent, WebhookReceiver, sign_webhook, verify_webhook

__all__ = [
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

_HOMES = {
    "Batch": "_batch",
    "Journal": "_reading",
    "JournalItem": "_record",
    "PollPolicy": "_rhythm",
    "RetryPolicy": "_retry",
    "Budget": "budget",
    "AsyncEggClient": "client",
    "CallRetried": "client_events",
    "ClientClosed": "client_events",
    "ClientEvent": "client_events",
    "CooledDown": "client_events",
    "OutputDownloaded": "client_events",
    "SubmissionFailed": "client_events",
    "TaskCompleted": "client_events",
    "TaskFailed": "client_events",
    "TaskSubmitted": "client_events",
    "TasksPolled": "client_events",
    "GenerationTask": "_task",
    "APIError": "errors",
    "AuthenticationError": "errors",
    "BadRequestError": "errors",
    "BudgetExceededError": "errors",
    "ConfigurationError": "errors",
    "ConnectionFailedError": "errors",
    "DownloadError": "errors",
    "EggError": "errors",
    "InsufficientBalanceError": "errors",
    "InvalidRequestError": "errors",
    "JournalError": "errors",
    "NotFoundError": "errors",
    "PermissionDeniedError": "errors",
    "QuotaExceededError": "errors",
    "RateLimitedError": "errors",
    "ServerError": "errors",
    "SubmissionUncertainError": "errors",
    "TaskFailedError": "errors",
    "TaskTimeoutError": "errors",
    "TurnCancelledError": "errors",
    "UnexpectedResponseError": "errors",
    "WebhookVerificationError": "errors",
    "WrongLoopError": "errors",
    "Ledger": "ledger",
    "LedgerEntry": "ledger",
    "RateLimiter": "limiter",
    "GenerationRequest": "models",
    "Outcome": "models",
    "Outcomes": "models",
    "Page": "models",
    "Stats": "models",
    "TaskSnapshot": "models",
    "UsageRecord": "models",
    "UsageSummary": "models",
    "Estimate": "prices",
    "ModelEstimate": "prices",
    "estimate": "prices",
    "Turn": "turns",
    "Turns": "turns",
    "RedisLedger": "redis",
    "RedisRateLimiter": "redis",
    "WebhookEvent": "webhooks",
    "WebhookReceiver": "webhooks",
    "sign_webhook": "webhooks",
    "verify_webhook": "webhooks",
}
"""Where each public name lives."""
_ROOMS = frozenset(
    {
        "budget",
        "client",
        "client_events",
        "emulator",
        "errors",
        "gallery",
        "ledger",
        "limiter",
        "models",
        "otel",
        "prices",
        "redis",
        "testing",
        "turns",
        "webhooks",
    }
)


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
