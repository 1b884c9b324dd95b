"""One peer of gloo's all-reduce for bench_swarm.py; runs in a Python that has torch.

    python bench/gloo_peer.py RANK OF HOST PORT ELEMENTS

Prints a line when the group stands; for each line on stdin it sums once and prints when it began and ended, by the
machine's monotonic clock; ends with stdin.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    rank, count, port, elements = (int(sys.argv[n]) for n in (1, 2, 4, 5))
    torch.set_num_threads(1)
    where = f"tcp://{sys.argv[3]}:{port}"
    dist.init_process_group("gloo", where, timedelta(seconds=120), count, rank)
    vector = torch.empty(elements)
    while True:
        vector.fill_(float(rank))
        print(json.dumps({"ready": True}), flush=True)
        if not sys.stdin.readline():
            return
        used, begin = cpu_s(), time.monotonic()
        dist.all_reduce(vector)
        end = time.monotonic()
        used = cpu_s() - used
        assert float(vector[0]) == float(vector[-1]) == count * (count - 1) / 2
        print(json.dumps({"begin": begin, "end": end, "cpu": used}), flush=True)


if __name__ == "__main__":
    main()
