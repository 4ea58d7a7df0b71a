"""How we start other programs: own process group, fewer rights where wanted, and never outliving us.

A child is started through a five-line Python launcher instead of `preexec_fn`: that one runs between fork and
exec in a process that may have threads (Python 3.12 warns about it), and dropping rights with `Popen(user=…)`
before exec would stop us from running an interpreter that lies in root's private home.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

# argv: parent pid, death signal, uid (or ""), program, its arguments.
# PR_SET_PDEATHSIG (1) comes after the change of user, which would clear it; Linux only, elsewhere a parent's
# kill -9 leaves the child, and the next start deals with it.
_LAUNCHER = """
import os, sys
parent, death, uid, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if death and sys.platform == "linux":
    import ctypes  # before the rights go: the library may lie in a private home
    libc = ctypes.CDLL(None)
if uid:
    os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid)); os.umask(0o077)
if death and sys.platform == "linux":
    libc.prctl(1, death, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
os.execv(program, sys.argv[4:])
"""


def spawn(
    argv: Sequence[str],
    *,
    output: int | IO[bytes] | None,
    uid: int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    stdin: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    death_signal: int = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start `argv` (argv[0] an absolute path) in a process group of its own, stdout and stderr to `output`.

    `uid`: run as this user and equally numbered group, without others; only root may.
    `death_signal` reaches the child when the *thread* that called us ends, so call from one that lives as
    long as the child should; 0 for none.
    """
    launcher = [
        sys.executable, "-I", "-S", "-c", _LAUNCHER,
        str(os.getpid()), str(int(death_signal)), "" if uid is None else str(uid), *argv,
    ]  # fmt: skip
    return subprocess.Popen(
        launcher,
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        env=None if env is None else dict(env),
        cwd=cwd,
        pass_fds=tuple(pass_fds),
        process_group=0,
    )


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Send to the child's whole group; a child that is already gone is fine."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def wait_gone(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """True once the child has ended (and is reaped), False after `timeout_s` seconds."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True
