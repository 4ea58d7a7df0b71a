"""Every setting, read once from the environment. Nothing else in the product reads the environment
(hub/failpoints.py and the bootstrap excepted). docs/settings.md lists them; a test keeps the two equal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec


class BadSettings(Exception):
    """A setting cannot be used: names the variable and the next step."""


class Secret(str):
    """A string that does not show itself in logs, tracebacks and dumps; ``reveal()`` gives the value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def reveal(self) -> str:
        return str.__str__(self)


class SmtpServer(msgspec.Struct, frozen=True):
    """Where mails go out. ``tls``: from the first byte, by STARTTLS (which is then insisted on), or not."""

    host: str
    port: int
    username: str | None = None
    password: Secret | None = None
    tls: Literal["implicit", "starttls", "off"] = "starttls"


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be bought: a price at Stripe, and what it entitles to, as `check-subscription` tells it."""

    price: str
    entitlements: dict[str, bool | int | str] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of one process. Durations in seconds, sizes in bytes."""

    database_url: str
    redis_url: str
    secret_keys: tuple[Secret, ...]
    migrate_url: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    data_dir: Path = Path("data")
    public_base_url: str = "http://127.0.0.1:8080"
    demo: bool = False
    sandbox: bool = False
    sandbox_port: int = 0
    sandbox_callback: str | None = None
    """Where the sandbox posts its webhooks; None = this hub's own address."""
    webhook_spool: bool = True
    unsafe_durability: bool = False
    log_json: bool = False
    reuse_port: bool = False
    clock_offset_s: float = 0.0
    disk_probe: Path | None = None
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    metrics_token: Secret | None = None
    worker_metrics_port: int = 0
    rate_functions: int = 100
    rate_rest: int = 1000
    rate_external: int = 500
    rate_web: int = 1200
    rate_address: int = 300
    rate_mail: int = 20
    rest_aggregates: bool = True
    send_unknown_wait_s: float = 120.0
    work_lease_s: float = 30.0
    work_poll_s: float = 1.0
    provider_total_s: float = 20.0
    provider_connect_s: float = 5.0
    provider_media_s: float = 60.0
    media_max_bytes: int = 25 * 1024 * 1024
    resume_keep_s: float = 7 * 86400.0
    meta_graph_base: str = "https://graph.facebook.com"
    meta_graph_version: str = "v25.0"
    meta_app_secret: Secret | None = None
    meta_verify_token: Secret | None = None
    stripe_api_base: str = "https://api.stripe.com"
    stripe_secret_key: Secret | None = None
    """None: nobody pays, and the functions of billing say so."""
    stripe_webhook_secrets: tuple[Secret, ...] = ()
    plans: dict[str, Plan] = {}
    """By name, in the order of the setting."""
    smtp: SmtpServer | None = None
    """None: mails wait in the outbox for the operator (`hub mail`)."""
    mail_from: str = "ConnectGain Hub <hub@localhost>"
    signup: bool = False
    """Whether people may make accounts by themselves; they belong to no organization then."""
    signup_autoconfirm: bool = False
    #: HUB_… variables that mean nothing here: most likely misspelt, so the start says so.
    unknown_names: tuple[str, ...] = ()

    @property
    def media_dir(self) -> Path:
        """Files of messages; hubs and workers share it."""
        return self.data_dir / "media"

    @property
    def secure(self) -> bool:
        """Whether browsers reach us over https (cookie prefix, HSTS)."""
        return self.public_base_url.startswith("https://")


#: Read before the settings are (failpoints), by tests, or by docker-compose.yml.
READ_ELSEWHERE = frozenset({"HUB_FAILPOINTS", "HUB_CHROMIUM", "HUB_RUNTIME_PASSWORD"})


_ADDR = r"[\x21-\x3b\x3d\x3f\x41-\x7e]+@[A-Za-z0-9.-]+"
_MAILBOX = re.compile(rf"{_ADDR}|[^<>\x00-\x1f\x7f]*<{_ADDR}>")


class _Reader:
    """Typed look-ups in one environment; each refusal names its variable."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.asked: set[str] = set()

    def text(self, name: str, default: str | None = None) -> str | None:
        self.asked.add(name)
        value = self.environ.get(name, "").strip()
        return value or default

    def flag(self, name: str, default: bool) -> bool:
        value = self.text(name)
        if value is None:
            return default
        if value.lower() in ("1", "on", "true", "yes"):
            return True
        if value.lower() in ("0", "off", "false", "no"):
            return False
        raise BadSettings(f"{name} is {value!r}; write on or off.")

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch(r"-?\d{1,18}", value) or not low <= int(value) <= high:
            raise BadSettings(f"{name} is {value!r}; write a whole number from {low} to {high}.")
        return int(value)

    def seconds(self, name: str, default: float, low: float, high: float) -> float:
        value = self.text(name)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise BadSettings(f"{name} is {value!r}; write seconds from {low:g} to {high:g}.")
        return number

    def url(self, name: str, schemes: tuple[str, ...], default: str | None = None) -> str:
        value = self.text(name, default)
        if value is None:
            raise BadSettings(
                f"{name} is not set; give a {schemes[0]}:// address,"
                " or start with `hub run`, which brings its own."
            )
        try:
            parts = urlsplit(value)
            good = parts.scheme in schemes and (bool(parts.hostname) or parts.scheme == "unix")
            _ = parts.port
        except ValueError:
            good = False
        if not good:
            raise BadSettings(f"{name} is not an address like {schemes[0]}://host…; check it.")
        return value.rstrip("/")

    def secret(self, name: str) -> Secret | None:
        value = self.text(name)
        return Secret(value) if value else None

    def smtp(self, name: str) -> SmtpServer | None:
        """smtp://user:password@host:587 (STARTTLS; ?tls=off without) or smtps://…:465."""
        value = self.text(name)
        if value is None:
            return None
        refusal = BadSettings(
            f"{name} is not an address like smtp://user:password@mail.example.com:587 or smtps://…; check it."
        )
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError as error:
            raise refusal from error
        asked = parse_qs(parts.query)
        tls = asked.pop("tls", ["on"])
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname or asked:
            raise refusal
        if tls not in (["on"], ["off"]):
            raise refusal
        implicit = parts.scheme == "smtps"
        if implicit and tls == ["off"]:
            raise refusal
        return SmtpServer(
            host=parts.hostname,
            port=port or (465 if implicit else 587),
            username=unquote(parts.username) if parts.username else None,
            password=Secret(unquote(parts.password)) if parts.password else None,
            tls="implicit" if implicit else "starttls" if tls == ["on"] else "off",
        )

    def plans(self, name: str) -> dict[str, Plan]:
        """{"pro": "price_1…"} or {"pro": {"price": "price_1…", "entitlements": {…}}}, one price a plan."""
        value = self.text(name)
        if value is None:
            return {}
        try:
            found = msgspec.json.decode(value, type=dict[str, str | Plan])
        except msgspec.DecodeError as error:
            raise BadSettings(f'{name} is no JSON like {{"pro": "price_1…"}} ({error}); check it.') from error
        plans = {plan: Plan(given) if isinstance(given, str) else given for plan, given in found.items()}
        if "" in plans or len({plan.price for plan in plans.values()} - {""}) != len(plans):
            raise BadSettings(f"{name} needs a name and a price of its own for each plan.")
        return plans

    def mailbox(self, name: str, default: str) -> str:
        """Name <address>, or the address alone."""
        value = self.text(name, default) or default
        if not _MAILBOX.fullmatch(value):
            raise BadSettings(f"{name} is {value!r}; write an address, or Name <address>.")
        return value

    def words(self, name: str) -> tuple[str, ...]:
        return tuple(filter(None, (w.strip() for w in (self.text(name) or "").split(","))))


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Raises BadSettings, which names the variable and the next step."""
    r = _Reader(environ)
    keys = tuple(Secret(k) for k in r.words("HUB_SECRET_KEY"))
    if not keys:
        raise BadSettings(
            "HUB_SECRET_KEY is not set; make one with `openssl rand -base64 32` and keep it safe."
        )
    for key in keys:
        if len(key.reveal()) < 32:
            raise BadSettings("HUB_SECRET_KEY is too short; each key needs at least 32 characters.")
    host = r.text("HUB_HOST", "127.0.0.1") or "127.0.0.1"
    port = r.integer("HUB_PORT", 8080, 1, 65535)
    log = r.text("HUB_LOG", "")
    if log not in ("", "json", "text"):
        raise BadSettings(f"HUB_LOG is {log!r}; write json or text.")
    if not re.fullmatch(r"[A-Za-z0-9._:-]+", host):
        raise BadSettings(f"HUB_HOST is {host!r}; write a name or an address to listen on.")
    shown_host = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    settings = Settings(
        database_url=r.url("DATABASE_URL", ("postgresql", "postgres")),
        redis_url=r.url("REDIS_URL", ("redis", "rediss", "unix")),
        migrate_url=r.url("HUB_MIGRATE_URL", ("postgresql", "postgres"))
        if r.text("HUB_MIGRATE_URL")
        else None,
        secret_keys=keys,
        host=host,
        port=port,
        data_dir=Path(r.text("HUB_DATA_DIR", "data") or "data").absolute(),
        public_base_url=r.url("PUBLIC_BASE_URL", ("http", "https"), f"http://{shown_host}:{port}"),
        demo=r.flag("HUB_DEMO", False),
        sandbox=r.flag("HUB_SANDBOX", False),
        sandbox_port=r.integer("HUB_SANDBOX_PORT", 0, 0, 65535),
        sandbox_callback=r.url("HUB_SANDBOX_CALLBACK", ("http", "https"))
        if r.text("HUB_SANDBOX_CALLBACK")
        else None,
        webhook_spool=r.flag("HUB_WEBHOOK_SPOOL", True),
        unsafe_durability=r.flag("HUB_UNSAFE_DURABILITY", False),
        log_json=log == "json",
        reuse_port=r.flag("HUB_REUSE_PORT", False),
        disk_probe=Path(probe) if (probe := r.text("HUB_DISK_PROBE")) else None,
        clock_offset_s=r.seconds("HUB_CLOCK_OFFSET_S", 0.0, -1e9, 1e9),
        allowed_origins=r.words("HUB_ALLOWED_ORIGINS"),
        trusted_proxies=r.words("HUB_TRUSTED_PROXIES"),
        metrics_token=r.secret("HUB_METRICS_TOKEN"),
        worker_metrics_port=r.integer("HUB_WORKER_METRICS_PORT", 0, 0, 65535),
        rate_functions=r.integer("HUB_RATE_FUNCTIONS", 100, 1, 1_000_000),
        rate_rest=r.integer("HUB_RATE_REST", 1000, 1, 1_000_000),
        rate_external=r.integer("HUB_RATE_EXTERNAL", 500, 1, 1_000_000),
        rate_web=r.integer("HUB_RATE_WEB", 1200, 1, 1_000_000),
        rest_aggregates=r.flag("HUB_REST_AGGREGATES", True),
        rate_address=r.integer("HUB_RATE_ADDRESS", 300, 1, 1_000_000),
        rate_mail=r.integer("HUB_RATE_MAIL", 20, 1, 1_000_000),
        send_unknown_wait_s=r.seconds("HUB_SEND_UNKNOWN_WAIT_S", 120.0, 0.0, 86400.0),
        work_lease_s=r.seconds("HUB_WORK_LEASE_S", 30.0, 1.0, 3600.0),
        work_poll_s=r.seconds("HUB_WORK_POLL_S", 1.0, 0.01, 60.0),
        provider_total_s=r.seconds("HUB_PROVIDER_TOTAL_S", 20.0, 0.1, 300.0),
        provider_connect_s=r.seconds("HUB_PROVIDER_CONNECT_S", 5.0, 0.1, 60.0),
        provider_media_s=r.seconds("HUB_PROVIDER_MEDIA_S", 60.0, 0.1, 600.0),
        media_max_bytes=r.integer("HUB_MEDIA_MAX_BYTES", 25 * 1024 * 1024, 1024, 1024 * 1024 * 1024),
        resume_keep_s=r.seconds("HUB_RESUME_KEEP_S", 7 * 86400.0, 1.0, 400 * 86400.0),
        meta_graph_base=r.url("META_GRAPH_BASE", ("https", "http"), "https://graph.facebook.com"),
        meta_graph_version=r.text("META_GRAPH_VERSION", "v25.0") or "v25.0",
        meta_app_secret=r.secret("META_APP_SECRET"),
        meta_verify_token=r.secret("META_VERIFY_TOKEN"),
        stripe_api_base=r.url("STRIPE_API_BASE", ("https", "http"), "https://api.stripe.com"),
        stripe_secret_key=r.secret("STRIPE_SECRET_KEY"),
        stripe_webhook_secrets=tuple(Secret(s) for s in r.words("STRIPE_WEBHOOK_SECRET")),
        plans=r.plans("STRIPE_PRICE_IDS"),
        smtp=r.smtp("HUB_SMTP_URL"),
        signup=r.flag("HUB_SIGNUP", False),
        signup_autoconfirm=r.flag("HUB_SIGNUP_AUTOCONFIRM", False),
        mail_from=r.mailbox("HUB_MAIL_FROM", "ConnectGain Hub <hub@localhost>"),
    )
    strangers = {name for name in environ if name.startswith("HUB_")} - r.asked - READ_ELSEWHERE
    return msgspec.structs.replace(settings, unknown_names=tuple(sorted(strangers)))
