"""`python -m workers`: one worker process, configured by the environment like the hub."""

from __future__ import annotations

import asyncio
import os
import sys

from hub import clock, logs
from hub.settings import BadSettings, load_settings
from workers.runtime import WrongSchema, main

try:
    import uvloop
except ImportError:  # Windows
    _LOOP = None
else:
    _LOOP = uvloop.new_event_loop


def start() -> int:
    """The exit code: 0 stopped as told, 1 cannot work, 2 bad settings."""
    try:
        settings = load_settings(os.environ)
    except BadSettings as error:
        print(f"workers: {error}", file=sys.stderr)
        return 2
    logs.configure(json=settings.log_json)
    logs.hide(
        [
            *(key.reveal() for key in settings.secret_keys),
            *(s.reveal() for s in (settings.meta_app_secret, settings.meta_verify_token) if s),
        ]
    )
    clock.set_offset(settings.clock_offset_s)
    try:
        with asyncio.Runner(loop_factory=_LOOP) as runner:
            runner.run(main(settings))
    except WrongSchema as error:
        print(f"workers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(start())
