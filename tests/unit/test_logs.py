"""Nothing secret and nothing personal reaches a log line."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
import structlog

from hub import logs
from hub.run import Child

SECRETS = [
    "Bearer abc.def-ghi", "cg_0123456789abcdef", "EAAGm0PX4ZCpsBAxyz", "/bot123456:AAE-abc", "whsec_abc123",
    "sb_secret_abc123", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "postgresql://user:hunter2@db/hub",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_tokens_are_masked(secret: str) -> None:
    shown = logs.mask(f"before {secret} after")
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert secret not in shown
    assert "hunter2" not in shown


def test_a_line_has_no_personal_fields(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    try:
        logs.configure(json=True)
        logs.hide(["a-live-secret-value"])
        log = structlog.get_logger()
        log.info(
            "x.done", phone="+201001383533", content="hello", email="a@b.c", n=1, note="a-live-secret-value"
        )
        log.info("x.done", nested={"token": "t", "kept": ["Bearer abcdefgh"]})
        try:
            raise ValueError("failed with cg_0123456789abcdef")
        except ValueError:
            log.exception("x.failed")
    finally:
        structlog.configure(**before)
    first, second, third = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {"event", "level", "timestamp", "n", "note"} == first.keys()
    assert first["note"] == "***"
    assert second["nested"] == {"kept": ["***"]}
    assert "cg_0123456789" not in third["exception"]
    assert "ValueError" in third["exception"]


KEPT = [
    "send 019abcde-1234-7000-8000-123456789012 failed",
    "12345678-1234-1234-1234-123456789abc",
    "2026-11-24T21:58:37.123456Z",
    'duplicate key value violates unique constraint "messages_conv_seq_key"',
    'File "/app/hub/edge.py", line 96, in edge',
    "request.failed",
]


@pytest.mark.parametrize("text", KEPT)
def test_what_an_operator_needs_stays_readable(text: str) -> None:
    assert logs.without_values(text) == text


@pytest.mark.parametrize(
    ("text", "planted"),
    [
        ("duplicate key\nDETAIL:  Key (wa_id)=(abc) already exists.", "abc"),
        ("check\nDETAIL:  Failing row contains (1, hello,\nworld, 2).\nHINT:  x", "world"),
        ('invalid input syntax for type uuid: "hello"', "hello"),
        ('value "hello" is out of range for type integer', "hello"),
        ("invalid input for query argument $3: 'hello' (expected str, got int)", "hello"),
        ("to 201001383533", "201001383533"), ("to=+201001383533.", "201001383533"),
        ("(+20 100 138 3533)", "138"), ("0100 138 3533", "138"), ("٢٠١٠٠١٣٨٣٥٣٣", "٢٠١"),
        ("201001383533@s.whatsapp.net", "2010"), ("no mailbox mona.h+x@example.co.uk here", "mona"),
    ],
)  # fmt: skip
def test_quoted_values_and_personal_data_are_cut(text: str, planted: str) -> None:
    assert planted in text
    assert planted not in logs.without_values(text)


def test_a_chain_of_exceptions_loses_the_details_and_nothing_else() -> None:
    chain = (
        "asyncpg.exceptions.UniqueViolationError: duplicate key\nDETAIL:  Key (a)=(secret\nplace).\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "Traceback (most recent call last):\nhub.errors.Unavailable: away"
    )
    assert logs.without_values(chain) == chain.replace("\nDETAIL:  Key (a)=(secret\nplace).", "")


class Full(io.StringIO):
    """A console whose file lies on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_D13_a_log_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = structlog.get_config()
    monkeypatch.setattr("sys.stderr", Full())
    try:
        logs.configure(json=True)
        structlog.get_logger().error("x.failed")
        logging.getLogger("asyncio").error("also by the standard library")
    finally:
        structlog.configure(**before)
        logging.getLogger().handlers.clear()


def test_D13_a_full_disk_does_not_stop_the_children_of_hub_run(tmp_path: Path) -> None:
    said: list[str] = []
    line = """print('a warning' if n % 1000 == 0 else '{"event": "x", "more": "' + 'y' * 100 + '"}')"""
    talk = f"for n in range(5000): {line}"
    child = Child("talker", ["-c", talk], {}, Path("/dev/full"), said.append)
    child.spawn()
    assert child.process is not None
    assert child.process.wait(30) == 0, "it was read to its end"
    child.finish_log()
    assert len([text for text in said if "a warning" in text]) == 5
