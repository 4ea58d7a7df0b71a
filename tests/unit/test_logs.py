"""Nothing secret and nothing personal reaches a log line."""

from __future__ import annotations

import json

import pytest
import structlog

from hub import logs

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
