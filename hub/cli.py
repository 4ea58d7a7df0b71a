"""The command line: reads arguments, calls the room that does the work.

Heavy things are imported inside the commands, so that `hub --help` answers at once. Exit codes: 0, 1
failed, 2 usage.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import rich_click as click

from hub import __version__

if TYPE_CHECKING:
    from uuid import UUID

    from hub.bench.figures import Report
    from hub.rest.schema import Schema
    from hub.settings import Settings

click.rich_click.COMMAND_GROUPS = {
    "hub": [
        {"name": "Run", "commands": ["run", "serve", "work", "sandbox"]},
        {"name": "Set up", "commands": ["migrate", "seed", "user", "keys"]},
        {"name": "Care", "commands": ["status", "doctor", "mail"]},
        {"name": "Developers", "commands": ["openapi", "postman", "bench"]},
    ]
}
click.rich_click.SHOW_ARGUMENTS = True

_data_dir = click.option(
    "--data-dir",
    envvar="HUB_DATA_DIR",
    default="./data",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of this instance: databases, keys, logs.",
)
_json = click.option("--json", "as_json", is_flag=True, help="For machines.")


class _Port(click.ParamType[int]):
    """A TCP port; a refusal says what to write instead."""

    name = "port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
            what = f"{text!r} is no port; set HUB_PORT to a number from 1 to 65535, 8080 for example."
            self.fail(what, param, ctx)
        return int(text)


@click.group(name="hub", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hub")
def cli() -> None:
    """ConnectGain Hub: customers' messages, live in every inbox.

    Start here: hub run
    """


@cli.command()
@click.option("--host", envvar="HUB_HOST", default="127.0.0.1", show_default=True, show_envvar=True)
@click.option(
    "--port", envvar="HUB_PORT", default=8080, show_default=True, show_envvar=True, type=_Port(),
)  # fmt: skip
@_data_dir
@click.option(
    "--sandbox/--no-sandbox", envvar="HUB_SANDBOX", default=True, show_envvar=True,
    help="The provider's double and the customer's phone.",
)  # fmt: skip
@click.option(
    "--demo/--no-demo", envvar="HUB_DEMO", default=True, show_envvar=True,
    help="A demo organization with a known sign-in.",
)  # fmt: skip
def run(host: str, port: int, data_dir: Path, sandbox: bool, demo: bool) -> None:
    """Everything, on databases of its own, until Ctrl-C.

    Example: HUB_PORT=8081 HUB_DATA_DIR=./data2 hub run
    """
    from hub import run as supervisor

    options = supervisor.RunOptions(
        host=host,
        port=port,
        data_dir=data_dir,
        sandbox=sandbox,
        demo=demo,
        database_url=os.environ.get("DATABASE_URL") or None,
        migrate_url=os.environ.get("HUB_MIGRATE_URL") or None,
        redis_url=os.environ.get("REDIS_URL") or None,
        public_url=os.environ.get("PUBLIC_BASE_URL") or None,
        sandbox_port=int(os.environ.get("HUB_SANDBOX_PORT") or 0),
    )
    sys.exit(supervisor.main(options))


@cli.command()
def serve() -> None:
    """One hub process; its settings come from the environment (docs/settings.md).

    Example: DATABASE_URL=… REDIS_URL=… HUB_SECRET_KEY=… hub serve
    """
    from hub.app import serve as serve_hub

    serve_hub(_settings(os.environ))


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def work(arguments: tuple[str, ...]) -> None:
    """One worker process.

    Example: hub work
    """
    os.execv(sys.executable, [sys.executable, "-P", "-m", "workers", *arguments])


@cli.command()
def sandbox() -> None:
    """The provider's double: WhatsApp Cloud's wire format and a phone to play the customer on.

    Example: HUB_SANDBOX_PORT=8090 hub sandbox
    """
    from hub.sandbox.server import main as serve_sandbox

    serve_sandbox(_settings(os.environ))


@cli.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when something is to be done.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@_data_dir
def migrate(check: bool, dry_run: bool, data_dir: Path) -> None:
    """Bring the database to this version's schema. Safe to repeat.

    Example: HUB_MIGRATE_URL=postgresql://owner@db/hub hub migrate --check
    """
    import asyncio

    from hub.db.migrate import SchemaError
    from hub.db.migrate import migrate as migrate_database

    with _databases(data_dir) as environ:
        runtime = environ.get("DATABASE_URL")
        try:
            report = asyncio.run(migrate_database(_owner(environ), runtime, dry_run=check or dry_run))
        except (SchemaError, OSError) as error:
            raise click.ClickException(str(error)) from error
    done = [*report.applied, *(kind for kind in ("functions", "policies") if getattr(report, kind))]
    verb = "to apply" if check or dry_run else "applied"
    click.echo(f"{verb}: {', '.join(done)}" if done else "up to date")
    sys.exit(1 if check and done else 0)


@cli.command()
@click.option("--reset", is_flag=True, help="Throw the demo organization away and make it anew.")
@_data_dir
def seed(reset: bool, data_dir: Path) -> None:
    """Fill in what a new instance needs; in demo mode a lively organization too. Safe to repeat.

    Example: hub seed
    """
    from hub.db.seed import main as seed_database

    with _databases(data_dir) as environ:
        _owner(environ)
        sys.exit(seed_database(_settings(environ), reset=reset))


@cli.group()
def user() -> None:
    """People who sign in.

    Example: hub user create --email dana@example.com --org "Nile Home" --role OWNER
    """


@user.command("create")
@click.option("--email", required=True)
@click.option("--org", required=True, help="Id or exact name; an unknown name makes the organization.")
@click.option(
    "--role", default="OWNER", show_default=True,
    type=click.Choice(["OWNER", "ADMIN", "AGENT"], case_sensitive=False),
)  # fmt: skip
@click.option("--first-name")
@click.option("--last-name")
@_json
@_data_dir
def user_create(
    email: str,
    org: str,
    role: str,
    first_name: str | None,
    last_name: str | None,
    as_json: bool,
    data_dir: Path,
) -> None:
    """Let somebody in. The password is asked for, or read from standard input; never an argument.

    Example: hub user create --email dana@example.com --org "Nile Home" < password.txt
    """
    import asyncio
    from typing import cast

    from hub.auth.accounts import AccountError, create_account, has_account
    from hub.domain.permissions import Role

    async def create(owner: str) -> None:
        password = None if await has_account(owner, email) else _password()
        kind = cast(Role, role.upper())
        made = await create_account(owner, email, password, org, kind, first_name, last_name)
        shown = {"user_id": str(made.user_id), "organization_id": str(made.organization_id)}
        if as_json:
            click.echo(json.dumps(shown, indent=2))
            return
        if not made.made_user:
            click.echo("They had an account already and keep its password.", err=True)
        if made.made_organization:
            click.echo(f"Made the organization {org!r}.", err=True)
        for name, value in shown.items():
            click.echo(f"{name:<18} {value}")

    with _databases(data_dir) as environ:
        try:
            asyncio.run(create(_owner(environ)))
        except AccountError as error:
            raise click.ClickException(str(error)) from error


@user.command("password")
@click.option("--email", required=True)
@_data_dir
def user_password(email: str, data_dir: Path) -> None:
    """Give somebody a new password; their sessions end. It is asked for, or read from standard input.

    Example: hub user password --email dana@example.com
    """
    import asyncio

    from hub.auth.accounts import AccountError, change_password

    with _databases(data_dir) as environ:
        try:
            asyncio.run(change_password(_owner(environ), email, _password()))
        except AccountError as error:
            raise click.ClickException(str(error)) from error
    click.echo("Changed.")


@user.command("remove-factors")
@click.option("--email", required=True)
@_data_dir
def user_remove_factors(email: str, data_dir: Path) -> None:
    """Let somebody who lost phone and recovery codes in again with the password alone; their sessions end.

    Example: hub user remove-factors --email dana@example.com
    """
    import asyncio

    from hub.auth.accounts import AccountError, remove_factors

    with _databases(data_dir) as environ:
        try:
            gone = asyncio.run(remove_factors(_owner(environ), email))
        except AccountError as error:
            raise click.ClickException(str(error)) from error
    click.echo(f"Removed {gone}.")


@cli.group()
def mail() -> None:
    """Mails that wait to be sent; all of them, where there is no mail server (HUB_SMTP_URL).

    Example: hub mail list
    """


@mail.command("list")
@_json
@_data_dir
def mail_list(as_json: bool, data_dir: Path) -> None:
    """Who is written to, what about, and why it has not left yet.

    Example: hub mail list --json
    """
    import asyncio

    from hub.auth.accounts import waiting_mails

    with _databases(data_dir) as environ:
        rows = asyncio.run(waiting_mails(_owner(environ), None))
    if as_json:
        shown = ("id", "recipient", "template", "state", "attempts", "last_error", "created_at")
        click.echo(json.dumps([{name: row[name] for name in shown} for row in rows], indent=2, default=str))
        return
    for row in rows:
        error = f"  {row['last_error']}" if row["last_error"] else ""
        click.echo(
            f"{row['id']}  {row['created_at']:%Y-%m-%d %H:%M}  {row['state']:<9} "
            f"{row['template']:<16} {row['recipient']}{error}"
        )
    if not rows:
        click.echo("Nothing waits.")


@mail.command("show")
@click.argument("mail_id", type=click.UUID)
@_data_dir
def mail_show(mail_id: UUID, data_dir: Path) -> None:
    """One mail as its reader would see it, with its link. Pass it on to that person alone.

    Example: hub mail show 0199e4a6-…
    """
    import asyncio

    from hub.auth.accounts import waiting_mails
    from hub.auth.mail import open_mail
    from hub.auth.secrets import CannotOpen
    from hub.domain.mails import write

    with _databases(data_dir) as environ:
        rows = asyncio.run(waiting_mails(_owner(environ), mail_id))
        if not rows:
            raise click.ClickException("No such mail waits.")
        row = rows[0]
        try:
            values = open_mail(_settings(environ), row["id"], row["organization_id"], row["payload"])
        except CannotOpen as error:
            raise click.ClickException(f"{error}.") from error
    found = write(row["template"], {"organization": row["organization"] or "", **values}, row["locale"])
    click.echo(f"To: {row['recipient']}\nSubject: {found.subject}\n\n{found.text}", nl=False)


@mail.command("retry")
@click.argument("mail_id", type=click.UUID, required=False)
@_data_dir
def mail_retry(mail_id: UUID | None, data_dir: Path) -> None:
    """Send mails that were given up once more: one, or all of them.

    Example: hub mail retry
    """
    import asyncio

    from hub.auth.accounts import retry_mails

    with _databases(data_dir) as environ:
        click.echo(f"{asyncio.run(retry_mails(_owner(environ), mail_id))} will be tried again.")


@mail.command("test")
@click.argument("address")
@_data_dir
def mail_test(address: str, data_dir: Path) -> None:
    """Write a mail to this address, to see whether it arrives.

    Example: hub mail test dana@example.com
    """
    import asyncio

    from hub.auth.accounts import AccountError, write_test_mail

    with _databases(data_dir) as environ:
        settings = _settings(environ)
        try:
            made = asyncio.run(write_test_mail(_owner(environ), settings, address))
        except AccountError as error:
            raise click.ClickException(str(error)) from error
    if settings.smtp is None:
        click.echo(f"HUB_SMTP_URL is not set, so nothing is sent. Read it with: hub mail show {made}")
    else:
        click.echo(f"It leaves within seconds via {settings.smtp.host}. If it does not: hub mail list")


@cli.group(invoke_without_command=True)
@_json
@_data_dir
@click.pass_context
def keys(context: click.Context, as_json: bool, data_dir: Path) -> None:
    """The keys and the owner of this instance; `rotate` for the key that signs access tokens.

    Example: hub keys --json
    """
    if context.invoked_subcommand is None:
        _show_keys(as_json, data_dir)


@keys.command("rotate")
@click.option(
    "--now", is_flag=True,
    help="The old key is known to others: it signs and verifies nothing from now on.",
)  # fmt: skip
@_data_dir
def keys_rotate(now: bool, data_dir: Path) -> None:
    """A new key for access tokens, without anybody being signed out.

    It is published at once, signs after ten minutes, and the old one verifies until its last token has run
    out. With --now access tokens end within seconds; sessions go on with their refresh tokens.

    Example: hub keys rotate
    """
    import asyncio

    from hub.auth.accounts import rotate_signing_key

    with _databases(data_dir) as environ:
        kid, begins = asyncio.run(rotate_signing_key(_owner(environ), _settings(environ), now=now))
    click.echo(f"{kid} signs from {begins:%Y-%m-%d %H:%M:%S} UTC on.")


def _show_keys(as_json: bool, data_dir: Path) -> None:
    from hub.run import read_json

    kept = read_json(data_dir / "keys.json")
    if not kept:
        raise click.ClickException(
            f"{data_dir / 'keys.json'} is not there: start the instance first (make run), or name its folder "
            "with HUB_DATA_DIR."
        )
    url = read_json(data_dir / "runtime.json").get("url") or kept.get("url")
    owner = kept.get("owner") or {}
    shown = {
        "url": url,
        **{
            name: kept.get(name)
            for name in (
                "anon_key",
                "service_role_key",
                "publishable_key",
                "secret_key",
                "organization_id",
                "organization_key",
            )
        },
        "owner": {"email": owner.get("email"), "password": owner.get("password")},
    }
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    flat = {**shown, "owner": f"{owner.get('email')} / {owner.get('password') or '(not kept)'}"}
    for name, value in flat.items():
        click.echo(f"{name:<18} {value}")


@cli.command()
@_json
@_data_dir
def status(as_json: bool, data_dir: Path) -> None:
    """Does the instance run, where, and which processes have been started again? Exit code 1 when it is down.

    Example: hub status --json
    """
    from hub.run import is_locked, read_json

    running = is_locked(data_dir)
    found = read_json(data_dir / "runtime.json")
    shown: dict[str, Any] = {
        "running": running,
        **{name: found.get(name) for name in ("url", "phone_url", "started_at", "ports", "restarts")},
        "processes": found.get("processes") if running else {},
    }
    if as_json:
        click.echo(json.dumps(shown, indent=2))
    elif not running:
        click.echo(f"Nothing runs on {data_dir}. Start it: make run")
    else:
        click.echo(f"{found.get('url')}, since {found.get('started_at')}")
        for name, pid in (found.get("processes") or {}).items():
            again = (found.get("restarts") or {}).get(name, 0)
            click.echo(f"  {name:<10} {pid or 'down'}" + (f"   started again {again} times" if again else ""))
    sys.exit(0 if running else 1)


@cli.command()
@click.option("--fix", is_flag=True, help="Put right what can be put right without asking.")
@_json
@_data_dir
def doctor(fix: bool, as_json: bool, data_dir: Path) -> None:
    """Check this machine and this instance: ok, warn or fail, and what to do.

    Exit code 1 when something fails.

    Example: hub doctor
    """
    from hub.doctor import main as examine

    sys.exit(examine(data_dir, _instance(data_dir), fix=fix, as_json=as_json))


def _instance(data_dir: Path) -> Mapping[str, str]:
    """Our environment; what it leaves open from the instance that runs on this folder, if one does."""
    from hub.run import is_locked, read_json

    found = read_json(data_dir / "runtime.json").get("environment", {}) if is_locked(data_dir) else {}
    return {**found, **{name: value for name, value in os.environ.items() if value}}


@cli.command()
@click.argument("file", default="-", type=click.File("w", encoding="utf-8", atomic=True))
@_data_dir
def openapi(file: IO[str], data_dir: Path) -> None:
    """OpenAPI 3.1 of the whole HTTP surface, as the database at hand shows it.

    Example: hub openapi openapi.json
    """
    from hub.openapi import describe

    file.write(
        json.dumps(describe(_schema(data_dir), _base_url(data_dir)), indent=1, ensure_ascii=False) + "\n"
    )


@cli.command()
@click.argument("file", default="-", type=click.File("w", encoding="utf-8", atomic=True))
@_data_dir
def postman(file: IO[str], data_dir: Path) -> None:
    """The Postman collection with the API document's folders.

    Example: hub postman docs/api/ConnectGain_API.postman_collection.json
    """
    from hub.postman import text

    file.write(text(_schema(data_dir), "http://127.0.0.1:8080"))


def _base_url(data_dir: Path) -> str:
    """Where clients reach this hub."""
    from hub.run import read_json

    told = os.environ.get("PUBLIC_BASE_URL") or read_json(data_dir / "runtime.json").get("url")
    return str(told or "http://127.0.0.1:8080")


def _schema(data_dir: Path) -> Schema:
    """The tables and functions that the API shows."""
    import asyncio

    import asyncpg

    from hub.rest.catalog import read_schema

    async def read(url: str) -> Schema:
        conn = await asyncpg.connect(url, timeout=10)
        try:
            return await read_schema(conn)
        finally:
            await conn.close()

    with _databases(data_dir) as environ:
        try:
            found = asyncio.run(read(environ.get("HUB_MIGRATE_URL") or environ["DATABASE_URL"]))
        except (OSError, asyncpg.PostgresError) as error:
            raise click.ClickException(f"The database cannot be read: {error}") from error
    if not found.tables:
        raise click.ClickException("The database is empty. Run `hub migrate`.")
    return found


@cli.group()
def bench() -> None:
    """What the hot paths cost, as ratios against a bare limit measured in the same run.

    Example: hub bench ingest
    """


_Command = TypeVar("_Command", bound=Callable[..., Any])
_peers = click.option(
    "--peers/--no-peers", default=True, show_default=True,
    help="Also those that must be installed first, into <data dir>/bench-peers.",
)  # fmt: skip


def _rounds(default: int) -> Callable[[_Command], _Command]:
    return click.option("--rounds", default=default, show_default=True, type=click.IntRange(1, 20))


def _seconds(default: float) -> Callable[[_Command], _Command]:
    """How long each row is measured in each round."""
    return click.option(
        "--seconds", default=default, show_default=True, type=click.FloatRange(0.2, 60),
        help="A row in a round.",
    )  # fmt: skip


@bench.command("ingest")
@_rounds(3)
@_seconds(2.0)
@_peers
@click.option("--profile", is_flag=True, help="Say where the time goes instead (py-spy, auto_explain).")
@_data_dir
def bench_ingest(rounds: int, seconds: float, peers: bool, profile: bool, data_dir: Path) -> None:
    """Webhook, commit, 200: requests a second at 1, 64 and 256 connections.

    Example: hub bench ingest --rounds 5
    """
    from hub.bench import ingest
    from hub.bench import profile as profiler

    if profile:
        _bench(data_dir, lambda: profiler.run(data_dir / "bench-profile", max(seconds, 5.0)))
    else:
        _bench(data_dir, lambda: ingest.run(rounds=rounds, seconds=seconds, peers=peers))


@bench.command("fanout")
@_rounds(2)
@_seconds(1.5)
@_peers
@_data_dir
def bench_fanout(rounds: int, seconds: float, peers: bool, data_dir: Path) -> None:
    """Frames a second at 1,000 sessions in one organization and in a hundred; memory of a session.

    Example: hub bench fanout --no-peers
    """
    from hub.bench import fanout

    _bench(data_dir, lambda: fanout.run(rounds=rounds, seconds=seconds, peers=peers))


@bench.command("latency")
@_rounds(3)
@_seconds(2.0)
@_data_dir
def bench_latency(rounds: int, seconds: float, data_dir: Path) -> None:
    """Commit to websocket frame; catching up under load; an idle hub.

    Example: hub bench latency --seconds 5
    """
    from hub.bench import latency

    _bench(data_dir, lambda: latency.run(rounds=rounds, seconds=seconds))


@bench.command("queue")
@_rounds(3)
@_seconds(1.0)
@_peers
@_data_dir
def bench_queue(rounds: int, seconds: float, peers: bool, data_dir: Path) -> None:
    """Jobs that do nothing, enqueued and drained.

    Example: hub bench queue --no-peers
    """
    from hub.bench import queues

    _bench(data_dir, lambda: queues.run(rounds=rounds, seconds=seconds, peers=peers))


@bench.command("rest")
@_rounds(3)
@_seconds(2.0)
@_peers
@_data_dir
def bench_rest(rounds: int, seconds: float, peers: bool, data_dir: Path) -> None:
    """A list of 100 contacts and the insert of one.

    Example: hub bench rest --rounds 5
    """
    from hub.bench import rest

    _bench(data_dir, lambda: rest.run(rounds=rounds, seconds=seconds, peers=peers))


@bench.command("auth")
@_rounds(3)
@_seconds(2.0)
@_data_dir
def bench_auth(rounds: int, seconds: float, data_dir: Path) -> None:
    """Sign-in beside bare argon2, tokens without the database, and how soon an ended caller is refused.

    Example: hub bench auth --rounds 5
    """
    from hub.bench import auth

    _bench(data_dir, lambda: auth.run(rounds=rounds, seconds=seconds))


@bench.command("all")
@click.option("--rounds", type=click.IntRange(1, 20), help="Instead of each benchmark's own.")
@click.option("--seconds", type=click.FloatRange(0.2, 60), help="Instead of each benchmark's own.")
@_peers
@click.option("--write", type=click.Path(path_type=Path, dir_okay=False), help="The page to write.")
@_data_dir
def bench_all(
    rounds: int | None, seconds: float | None, peers: bool, write: Path | None, data_dir: Path
) -> None:
    """All of them, on a machine that does nothing else; about a quarter of an hour.

    Example: hub bench all --write docs/performance.md
    """
    from hub.bench import auth, fanout, ingest, latency, queues, rest
    from hub.bench.report import page

    load_before = os.getloadavg()[0]
    own: dict[str, Any] = {"rounds": rounds, "seconds": seconds}
    own = {name: value for name, value in own.items() if value is not None}
    reports = [
        _bench(data_dir, lambda: ingest.run(peers=peers, **own)),
        _bench(data_dir, lambda: fanout.run(peers=peers, **own)),
        _bench(data_dir, lambda: latency.run(**own)),
        _bench(data_dir, lambda: queues.run(peers=peers, **own)),
        _bench(data_dir, lambda: rest.run(peers=peers, **own)),
        _bench(data_dir, lambda: auth.run(**own)),
    ]
    if write is not None:
        write.write_text(page(reports, load_before), encoding="utf-8")
        click.echo(f"Wrote {write}.")


def _bench(data_dir: Path, run: Callable[[], Report]) -> Report:
    """Run one benchmark, print what it found, and return it."""
    import time

    from hub.bench import install
    from hub.bench.figures import markdown

    install.set_cache(data_dir / "bench-peers")
    began = time.monotonic()
    try:
        report = run()
    except install.NotInstalled as error:
        raise click.ClickException(f"{error}\nWithout the peers: --no-peers") from error
    report.took_s = time.monotonic() - began
    click.echo("\n" + markdown(report))
    return report


@contextmanager
def _databases(data_dir: Path) -> Iterator[Mapping[str, str]]:
    """The environment with databases: ours, the running instance's, or embedded ones started for this."""
    environ = _instance(data_dir)
    if environ.get("HUB_MIGRATE_URL") or environ.get("DATABASE_URL"):
        yield environ
        return
    from hub.db.embedded import EmbeddedServerError
    from hub.run import RunError, embedded_databases

    try:
        with embedded_databases(data_dir.absolute()) as found:
            yield {**found, **environ}
    except (RunError, EmbeddedServerError) as error:
        raise click.ClickException(str(error)) from error


def _owner(environ: Mapping[str, str]) -> str:
    """The login that owns the schema; the hub itself never uses it."""
    owner = environ.get("HUB_MIGRATE_URL")
    if not owner:
        raise click.ClickException(
            "HUB_MIGRATE_URL is not set; give a login that may create roles, or unset DATABASE_URL to use "
            "the embedded database."
        )
    return owner


def _password() -> str:
    """Asked for twice on a terminal; else the first line of standard input."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\n")


def _settings(environ: Mapping[str, str]) -> Settings:
    """The settings of a process; a bad one ends it with a message that names the variable."""
    from hub.settings import BadSettings, load_settings

    try:
        settings = load_settings(environ)
    except BadSettings as error:
        raise click.ClickException(str(error)) from error
    for name in settings.unknown_names:
        click.echo(f"{name} is not a setting of this version (docs/settings.md); it is ignored.", err=True)
    return settings


def main() -> None:
    cli()
