"""Coverage-guided fuzzing of one parser with atheris.

python -m tests.attack.atheris <target> <seconds> <corpus folder>... [-- libFuzzer options]

The first corpus folder grows. Inputs that crash, or take longer than -timeout, are left in .cache/fuzz/found.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["hub", "msgspec", "phonenumbers", "jwt"]):
    from tests.attack.atheris.targets import TARGETS


def main(arguments: list[str]) -> None:
    name, seconds, *folders = arguments
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", *folders], TARGETS[name])
    atheris.Fuzz()


main(sys.argv[1:])
