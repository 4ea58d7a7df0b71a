"""`python -m hub.sandbox`: the sandbox alone, told by arguments and a JSON file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from hub.sandbox.config import SandboxConfig
from hub.sandbox.server import main

_ARGUMENTS: dict[str, tuple[str, type]] = {
    "--host": ("host", str),
    "--port": ("port", int),
    "--data": ("data_dir", str),
    "--callback": ("callback_url", str),
    "--app-secret": ("app_secret", str),
    "--verify-token": ("verify_token", str),
    "--seed": ("seed", int),
}


def read_arguments(argv: list[str] | None = None) -> SandboxConfig:
    """Arguments over the file over the defaults; ends the process with a message when one is wrong."""
    parser = argparse.ArgumentParser(prog="python -m hub.sandbox", description=__doc__)
    parser.add_argument("--config", type=Path, help="JSON object with the fields of docs/sandbox.md")
    for flag, (field, kind) in _ARGUMENTS.items():
        parser.add_argument(flag, dest=field, type=kind)
    given = parser.parse_args(argv)
    chosen: dict[str, Any] = {}
    if given.config is not None:
        try:
            chosen = msgspec.json.decode(given.config.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as error:
            parser.error(f"--config {given.config}: {error}")
    for field, _ in _ARGUMENTS.values():
        if getattr(given, field) is not None:
            chosen[field] = getattr(given, field)
    try:
        return msgspec.convert(chosen, SandboxConfig)
    except msgspec.ValidationError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main(read_arguments())
