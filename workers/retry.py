"""When to try again, and when to stop trying. Pure."""

from __future__ import annotations

from random import uniform
from typing import Final

#: A provider's refusals that may pass; more tries would only keep a customer waiting for an answer that is
#: stale.
SEND_TRIES: Final = 5
FAILURE_TRIES: Final = 10
MEDIA_TRIES: Final = 8
#: Over about an hour; the links that most mails hold end then.
MAIL_TRIES: Final = 12
_CAP_S: Final = 600.0


def backoff_s(attempt: int) -> float:
    """Seconds to wait after the attempt-th failure (1-based): 2, 4, 8 … 10 min, ±20 % so that a provider's
    return is not met by everyone at once."""
    return min(2.0 * 2.0 ** min(attempt - 1, 20), _CAP_S) * uniform(0.8, 1.2)


def outage_s(failures: int) -> float:
    """Seconds until an account whose provider could not be reached `failures` times in a row is tried again.
    Its messages lose no try by it, so this stays short: a provider that is back should not idle for
    minutes."""
    return min(2.0 * 2.0 ** min(failures - 1, 20), 30.0) * uniform(0.8, 1.2)


def failure_s(attempt: int) -> float:
    """Seconds to wait before a kept webhook is looked at again: 5 s, ×3, at most 1 h."""
    return min(5.0 * 3.0 ** min(attempt - 1, 20), 3600.0) * uniform(0.8, 1.2)
