"""One site of bench_swarm.py: a node inside this process, as `shoal.join` makes it, that merges when it is told to.

    python bench/swarm_site.py SITE.toml BASE.onnx SAMPLES

Prints a line of JSON when its node is up; for each line on stdin it merges once and prints what that took; ends with
stdin.  Times are of the machine's monotonic clock, so that those of several sites can be compared.

    begin    the update is handed in
    end      the certified model is in force here, and in the site's file
    cpu      seconds of this process from begin to end
    sent     bytes that it gave to its transport in that time
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np

import shoal
from shoal.swarm.site import Swarm

SECONDS_MAX = 300.0
#: seconds after which the status tells everything that was sent in a round
SETTLED_S = 0.3


def say(**found: Any) -> None:
    print(json.dumps(found), flush=True)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def await_members(swarm: Swarm) -> None:
    """Until everybody is connected and somebody leads."""
    end = time.monotonic() + SECONDS_MAX
    while time.monotonic() < end:
        status = swarm.status
        if status is not None and all(m.connected for m in status.members) and any(m.leads for m in status.members):
            return
        time.sleep(0.05)
    raise SystemExit("the others did not come")


def once(swarm: Swarm, local: dict[str, np.ndarray], samples: int) -> dict[str, Any]:
    sent, used = _sent(swarm), cpu_s()
    begin = time.monotonic()
    outcome = swarm.node.submit(local, samples).wait(SECONDS_MAX)
    end = time.monotonic()
    used = cpu_s() - used
    assert outcome.took_part
    time.sleep(SETTLED_S)
    first = [float(array.reshape(-1)[0]) for array in outcome.arrays.values()]
    sent = _sent(swarm) - sent
    return {"begin": begin, "end": end, "cpu": used, "sent": sent, "digest": outcome.digest.hex(), "first": first}


def _sent(swarm: Swarm) -> int:
    status = swarm.status
    assert status is not None
    return status.sent_bytes


def main() -> None:
    settings, base, samples = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with shoal.join(settings, base) as swarm:
        await_members(swarm)
        rng = np.random.default_rng(samples)
        noise = rng.standard_normal(2**20, np.float32) * np.float32(0.01)
        local: dict[str, np.ndarray] = {}
        while True:
            local = {name: trained(array, noise) for name, array in swarm.node.arrays.items()}
            say(ready=True, first=[float(array.reshape(-1)[0]) for array in local.values()])
            if not sys.stdin.readline():
                return
            say(**once(swarm, local, samples))


def trained(array: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The array with something added to each element."""
    made = array.reshape(-1).copy()
    for at in range(0, made.size, noise.size):
        made[at : at + noise.size] += noise[: made.size - at]
    return made.reshape(array.shape)


if __name__ == "__main__":
    main()
