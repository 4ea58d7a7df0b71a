"""The floor of signing in: argon2 verifying passwords in two threads, nothing else.

python -m hub.bench.peers.argon2_alone '{"seconds": 2}' prints {"requests", "rate", "cpu_s"}.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from hub.auth.passwords import hash_password, verify_password


def main(seconds: float) -> None:
    stored = hash_password("a password of the benchmark")

    def work(until: float) -> int:
        n = 0
        while time.perf_counter() < until:
            assert verify_password(stored, "a password of the benchmark")
            n += 1
        return n

    used = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        done = sum(pool.map(work, [began + seconds] * 2))
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    print(json.dumps({"requests": done, "rate": done / took, "cpu_s": cpu}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1])["seconds"])
