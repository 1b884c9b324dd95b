"""One peer of hivemind's DecentralizedAverager for bench_swarm.py; runs in a Python that has hivemind.

    python bench/hivemind_peer.py RANK OF ADDRESS ELEMENTS

ADDRESS is where the first one's DHT is found, "-" for the first one itself, which prints it.  For each line on stdin:
finds its group, prints a line; at the next line it averages, and prints when it began and ended, by the machine's
monotonic clock.  Matchmaking is not in the time.  Ends with stdin.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import hivemind
import torch
from hivemind.averaging.control import AveragingStage


def say(**found: Any) -> None:
    print(json.dumps(found), flush=True)


def main() -> None:
    rank, count, elements = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4])
    peers = [] if sys.argv[3] == "-" else [sys.argv[3]]
    torch.set_num_threads(1)
    dht = hivemind.DHT(initial_peers=peers, start=True, host_maddrs=["/ip4/127.0.0.1/tcp/0"])
    address = str(dht.get_visible_maddrs()[0])
    averager = hivemind.DecentralizedAverager(
        [torch.full((elements,), float(rank))],
        dht,
        prefix="bench",
        start=True,
        target_group_size=count,
        min_group_size=count,
        min_matchmaking_time=2.0,
        request_timeout=1.0,
        allow_state_sharing=False,
    )
    try:
        while True:
            say(ready=True, address=address)
            if not sys.stdin.readline():
                return
            with averager.get_tensors() as (vector,):
                vector.fill_(float(rank))
            control = averager.step(wait=False, require_trigger=True, allow_retries=True, timeout=240)
            until = time.monotonic() + 200
            while control.stage != AveragingStage.AWAITING_TRIGGER and time.monotonic() < until:
                time.sleep(0.01)
            say(matched=True)
            if not sys.stdin.readline():
                return
            begin = time.monotonic()
            control.allow_allreduce()
            found = control.result(240)
            end = time.monotonic()
            assert found is not None and len(found) == count
            with averager.get_tensors() as (vector,):
                assert (
                    abs(float(vector[0]) - (count - 1) / 2) < 1e-3 and abs(float(vector[-1]) - (count - 1) / 2) < 1e-3
                )
            say(begin=begin, end=end)
    finally:
        averager.shutdown()
        dht.shutdown()


if __name__ == "__main__":
    main()
