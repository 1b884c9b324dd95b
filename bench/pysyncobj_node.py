"""One of three nodes of PySyncObj, as it comes out of the box: the yardstick for bench_ledger_commit.py.

    python bench/pysyncobj_node.py NUMBER PORT PORT PORT LATENCIES PIPELINED

Runs in an environment of its own (pip install pysyncobj==0.3.17).  The node that leads prints one line of JSON and
every node ends when its stdin closes.  In memory, without signatures and without fsync.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from pysyncobj import SyncObj, replicated

SECONDS_MAX = 60.0


class Notes(SyncObj):
    def __init__(self, me: str, others: list[str]) -> None:
        super().__init__(me, others)
        self.count = 0

    @replicated
    def say(self, data: bytes) -> int:
        self.count += 1
        return self.count


def measure(notes: Notes, latencies: int, pipelined: int) -> dict[str, object]:
    data = bytes(500)
    for _ in range(5):
        notes.say(data, sync=True, timeout=5)
    found = []
    for _ in range(latencies):
        started = time.perf_counter()
        notes.say(data, sync=True, timeout=5)
        found.append(time.perf_counter() - started)
    done, failed = threading.Semaphore(0), []

    def answered(_: object, error: int) -> None:
        if error:
            failed.append(error)
        done.release()

    started = time.perf_counter()
    for _ in range(pipelined):
        notes.say(data, callback=answered)
    for _ in range(pipelined):
        done.acquire(timeout=SECONDS_MAX)
    return {"seconds": found, "pipelined": time.perf_counter() - started, "failed": len(failed), "count": notes.count}


def main() -> None:
    number, latencies, pipelined = int(sys.argv[1]), int(sys.argv[5]), int(sys.argv[6])
    addresses = [f"127.0.0.1:{port}" for port in sys.argv[2:5]]
    me = addresses.pop(number)
    notes = Notes(me, addresses)
    end = time.monotonic() + SECONDS_MAX
    while not (notes.isReady() and notes._getLeader() is not None) and time.monotonic() < end:
        time.sleep(0.05)
    if notes._isLeader():
        print(json.dumps(measure(notes, latencies, pipelined)), flush=True)
    else:
        print("{}", flush=True)
    threading.Timer(SECONDS_MAX, notes.destroy).start()
    sys.stdin.read()
    notes.destroy()
    import os

    os._exit(0)


if __name__ == "__main__":
    main()
