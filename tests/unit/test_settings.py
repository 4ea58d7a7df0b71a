"""Settings: every bad one is refused by name, and docs/settings.md lists them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hub.settings import BadSettings, Plan, Secret, load_settings

GOOD = {
    "DATABASE_URL": "postgresql://hub_runtime:x@db/hub",
    "REDIS_URL": "redis://cache:6379/0",
    "HUB_SECRET_KEY": "k" * 32,
}
DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


class Recording(dict[str, str]):
    """An environment that remembers what was asked of it."""

    def __init__(self) -> None:
        super().__init__({**GOOD, "HUB_MIGRATE_URL": "postgresql://postgres@db/hub"})
        self.asked: set[str] = set()

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        self.asked.add(name)
        return super().get(name, default)


def test_settings_and_their_page_agree() -> None:
    environ = Recording()
    load_settings(environ)
    listed = set(re.findall(r"^\| `([A-Z_]+)` \|", DOCS.read_text(encoding="utf-8"), re.M))
    # not read by the settings, but documented beside them: see hub/failpoints.py and the bootstrap
    assert listed - {"HUB_FAILPOINTS", "HUB_CHROMIUM"} == environ.asked


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "mysql://db/hub"),
        ("DATABASE_URL", "postgresql://db:port/hub"),
        ("REDIS_URL", ""),
        ("REDIS_URL", "http://cache"),
        ("HUB_SECRET_KEY", ""),
        ("HUB_SECRET_KEY", "short"),
        ("HUB_SECRET_KEY", f"{'k' * 32},short"),
        ("HUB_PORT", "0"),
        ("HUB_PORT", "70000"),
        ("HUB_PORT", "http"),
        ("HUB_DEMO", "maybe"),
        ("HUB_LOG", "xml"),
        ("HUB_RATE_REST", "-1"),
        ("HUB_SEND_UNKNOWN_WAIT_S", "nan"),
        ("PUBLIC_BASE_URL", "hub.example.com"),
        ("META_GRAPH_BASE", "ftp://graph"),
        ("STRIPE_PRICE_IDS", "pro"),
        ("STRIPE_PRICE_IDS", '["price_1"]'),
        ("STRIPE_PRICE_IDS", '{"pro": 1}'),
        ("STRIPE_PRICE_IDS", '{"pro": ""}'),
        ("STRIPE_PRICE_IDS", '{"": "price_1"}'),
        ("STRIPE_PRICE_IDS", '{"a": "price_1", "b": {"price": "price_1"}}'),
        ("STRIPE_PRICE_IDS", '{"a": {"price": "price_1", "seats": 3}}'),
        ("STRIPE_API_BASE", "stripe"),
    ],
)
def test_a_bad_setting_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=name):
        load_settings({**GOOD, name: value})


def test_defaults_are_those_of_the_page() -> None:
    settings = load_settings(GOOD)
    assert (settings.host, settings.port, settings.public_base_url) == (
        "127.0.0.1",
        8080,
        "http://127.0.0.1:8080",
    )
    assert (settings.rate_functions, settings.rate_rest, settings.rate_external, settings.rate_web) == (
        100,
        1000,
        500,
        1200,
    )
    assert not settings.secure
    assert load_settings({**GOOD, "PUBLIC_BASE_URL": "https://hub.example.com/"}).secure


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret("open sesame")
    assert "sesame" not in f"{secret} {secret!r} {[secret]} {secret!s}"
    assert "sesame" not in repr(load_settings({**GOOD, "META_APP_SECRET": "sesame-app-secret"}))
    assert secret.reveal() == "open sesame"


def test_a_misspelt_name_is_reported_and_known_ones_are_not() -> None:
    environ = {
        "DATABASE_URL": "postgresql://h/d", "REDIS_URL": "redis://h", "HUB_SECRET_KEY": "k" * 40,
        "HUB_RATE_RESTT": "5", "HUB_FAILPOINTS": "", "HUB_PORT": "8081",
    }  # fmt: skip
    assert load_settings(environ).unknown_names == ("HUB_RATE_RESTT",)


def test_PAY_01_plans_are_prices_and_what_they_entitle_to() -> None:
    text = '{"team": "price_1", "pro": {"price": "price_2", "entitlements": {"members": 50, "sso": true}}}'
    settings = load_settings(
        {
            **GOOD,
            "STRIPE_PRICE_IDS": text,
            "STRIPE_SECRET_KEY": "sk_sesame",
            "STRIPE_WEBHOOK_SECRET": "a, sesame",
        }
    )
    assert settings.plans == {"team": Plan("price_1"), "pro": Plan("price_2", {"members": 50, "sso": True})}
    assert list(settings.plans) == ["team", "pro"]
    assert [secret.reveal() for secret in settings.stripe_webhook_secrets] == ["a", "sesame"]
    assert "sesame" not in repr(settings)
    assert load_settings(GOOD).stripe_secret_key is None
