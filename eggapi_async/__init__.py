"""An asyncio client for the Egg API: submit generations, await them by the hundred, save them.

Start at `AsyncEggClient`.
"""

from ._batch import Batch
from ._polling import PollPolicy
from ._retry import RetryPolicy
from ._version import __version__
from .client import AsyncEggClient, GenerationTask
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
    RateLimitedError,
    ServerError,
    SubmissionUncertainError,
    TaskFailedError,
    TaskTimeoutError,
    UnexpectedResponseError,
    WebhookVerificationError,
)
from .limiter import RateLimiter
from .models import (
    GenerationRequest,
    Outcome,
    Page,
    Stats,
    TaskSnapshot,
    UsageRecord,
    UsageSummary,
)

__all__ = [
    "APIError",
    "AsyncEggClient",
    "AuthenticationError",
    "BadRequestError",
    "Batch",
    "BudgetExceededError",
    "ConfigurationError",
    "ConnectionFailedError",
    "DownloadError",
    "EggError",
    "GenerationRequest",
    "GenerationTask",
    "InsufficientBalanceError",
    "InvalidRequestError",
    "JournalError",
    "NotFoundError",
    "Outcome",
    "Page",
    "PermissionDeniedError",
    "PollPolicy",
    "RateLimitedError",
    "RateLimiter",
    "RetryPolicy",
    "ServerError",
    "Stats",
    "SubmissionUncertainError",
    "TaskFailedError",
    "TaskSnapshot",
    "TaskTimeoutError",
    "UnexpectedResponseError",
    "UsageRecord",
    "UsageSummary",
    "WebhookVerificationError",
    "__version__",
]
