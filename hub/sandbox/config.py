"""What the sandbox is told at start; no environment is read here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from hub.sandbox.personas import PERSONAS, Persona


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A business number at the provider. `app_secret` and `callback_url` None = the sandbox's own."""

    phone_number_id: str
    waba_id: str
    display_phone_number: str = "15550001111"
    name: str = "ConnectGain Demo"
    access_token: str = "sandbox-token"
    app_secret: str | None = None
    callback_url: str | None = None


DEMO_ACCOUNT = Account(phone_number_id="100000000000001", waba_id="200000000000001")


class SandboxConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set; docs/sandbox.md section 1."""

    host: str = "127.0.0.1"
    port: int = 8090
    data_dir: str = "./data"
    callback_url: str = "http://127.0.0.1:8080/functions/v1/whatsapp-cloud-webhook"
    app_secret: str = "sandbox-app-secret"
    verify_token: str = "sandbox-verify-token"
    seed: int = 1
    accounts: tuple[Account, ...] = (DEMO_ACCOUNT,)
    personas: tuple[Persona, ...] = PERSONAS
    enforce_window: bool = True
    enforce_rates: bool = True
    batch_max: int = 10
    concurrency: int = 8
    retry_base_s: float = 1.0
    retry_cap_s: float = 30.0
    allow_remote: bool = False
    stripe_key: str = "sk_test_sandbox"
    stripe_webhook_secret: str = "whsec_sandbox"
    stripe_callback_url: str | None = None
    """None: `stripe-webhook` beside `callback_url`."""

    @property
    def stripe_callback(self) -> str:
        """Where Stripe's webhooks go."""
        return self.stripe_callback_url or f"{self.callback_url.rpartition('/')[0]}/stripe-webhook"

    @property
    def folder(self) -> Path:
        """Where ledger, journal and media are."""
        return Path(self.data_dir) / "sandbox"

    @classmethod
    def from_settings(cls, settings: Any) -> SandboxConfig:
        """From any object with some of the attributes sandbox_port, sandbox_callback, data_dir, host, port,
        meta_app_secret, meta_verify_token, stripe_secret_key and stripe_webhook_secrets; an absent or None
        one leaves the default."""

        def given(name: str) -> Any:
            value = getattr(settings, name, None)
            # A secret may be a str that hides itself from str(); here its value is wanted.
            return str.__str__(value) if isinstance(value, str) else value

        chosen: dict[str, Any] = {
            "port": given("sandbox_port"),
            "data_dir": None if given("data_dir") is None else str(given("data_dir")),
            "callback_url": given("sandbox_callback"),
            "app_secret": given("meta_app_secret"),
            "verify_token": given("meta_verify_token"),
            "stripe_key": given("stripe_secret_key"),
            "stripe_webhook_secret": next(
                (str.__str__(s) for s in getattr(settings, "stripe_webhook_secrets", ())), None
            ),
        }
        if not chosen["callback_url"] and given("port"):
            host = given("host") or "127.0.0.1"
            host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
            chosen["callback_url"] = f"http://{host}:{given('port')}/functions/v1/whatsapp-cloud-webhook"
        return cls(**{name: value for name, value in chosen.items() if value is not None and value != ""})
