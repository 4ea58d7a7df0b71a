"""Log lines: an event name and fields, one JSON object a line (or coloured text on a terminal).

Request, organization and session ids come from context variables. Message text, phone numbers, e-mail
addresses, tokens and passwords are never logged: fields with such names are dropped here, whatever looks like
a token inside a text is masked, and texts that quote others (exceptions above all: databases like to show the
row) lose the values they quote. This is the last step before the line is written.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

#: Names of fields that never reach a log, whoever passes them.
DROPPED: Final = frozenset(
    {
        "access_token", "api_key", "authorization", "body", "content", "cookie", "email", "emails", "headers",
        "message_text", "password", "payload", "phone", "phones", "preview", "refresh_token", "secret",
        "text",        "token", "wa_id",
    }
)  # fmt: skip
_TOKENS = re.compile(
    r"Bearer\s+[\w.~+/=-]+"
    r"|\bcg_[0-9A-Za-z]{8,}"
    r"|\bEAA[0-9A-Za-z]{10,}"
    r"|/bot\d+:[\w-]+"
    r"|\bwhsec_[\w-]+"
    r"|\bsb_(?:secret|publishable)_[\w-]+"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
#: Fields whose text was made elsewhere, of values we know nothing about. `event` is one for the standard
#: library's loggers; our own are names.
_QUOTING: Final = frozenset(
    {"detail", "details", "error", "event", "exception", "message", "reason", "stack"}
)
# What a database adds to its message: the row or key it spoke of, up to the next exception of a chain.
_DETAIL = re.compile(
    r"(?:\n|\\n)[ \t|]*(?:DETAIL|CONTEXT):.*?"
    r"(?=\n[ \t|]*\n[ \t|]*(?:The above exception was|During handling of)|\n[ \t|]*\+-|\Z)",
    re.DOTALL,
)
_VALUES = re.compile(
    r'(?<=: )"[^"]*"|(?<=\bvalue )"[^"]*"'  # invalid input syntax for type uuid: "…"
    r"|(?<=\bfor query argument )(\$\d+): .*"  # the driver's own, with the value as Python writes it
)
_PERSONAL = re.compile(
    r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"
    # Digits as providers write numbers, and as people do. Not inside ids: a uuid's digits touch a dash.
    r"|(?<![\w.-])\+?\d{8,15}(?![\w.-]?\w)"
    r"|\+\d{1,3}(?:[ .()-]{1,2}\d{1,5}){2,6}"
    r"|(?<![\w.-])0\d{2,4}(?:[ -]\d{2,4}){2,4}(?![\w-])"
)
_secrets: set[str] = set()


def hide(values: Iterable[str]) -> None:
    """Mask these strings wherever they would be logged from now on. Short ones are ignored: they would mask
    half the log."""
    _secrets.update(v for v in values if len(v) >= 8)


def mask(text: str) -> str:
    """``text`` without live secrets and without anything shaped like a token."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, "***")
    return _TOKENS.sub("***", text)


def without_values(text: str) -> str:
    """A text of somebody else's (a traceback, a driver's message) without the values it quotes, and without
    anything shaped like a phone number or an e-mail address.

    >>> without_values('duplicate key violates "x_key"\\nDETAIL:  Key (wa_id)=(201001383533) already exists.')
    'duplicate key violates "x_key"'
    """
    text = _DETAIL.sub("", text)
    text = _VALUES.sub(lambda found: f"{found[1]}: ***" if found[1] else '"***"', text)
    return _PERSONAL.sub("***", text)


def _masked(value: Any, quotes: bool) -> Any:
    if isinstance(value, str):
        return mask(without_values(value) if quotes else value)
    if isinstance(value, dict):
        return {k: _masked(v, quotes or k in _QUOTING) for k, v in value.items() if k not in DROPPED}
    if isinstance(value, (list, tuple)):
        return [_masked(v, quotes) for v in value]
    return value


def _last_filter(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {name: _masked(value, name in _QUOTING) for name, value in event.items() if name not in DROPPED}


def _dumps(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class _Unfailing:
    """A log that cannot be written (a full disk, a console that went away) must not stop what it tells of."""

    def __init__(self, to: TextIO) -> None:
        self._to = to

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return self._to.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._to.flush()


def configure(*, json: bool, level: int = logging.INFO) -> None:
    """Set up structlog and send the standard library's loggers the same way. Called once by each process."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]
    last: list[Any] = [structlog.processors.format_exc_info, _last_filter]
    if json or not sys.stderr.isatty():
        renderer: Any = structlog.processors.JSONRenderer(serializer=_dumps)
    else:
        renderer = structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[*shared, *last, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_Unfailing(sys.stderr))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
