"""One site of bench_swarm_memory.py: swarm_site.py, with a look at how much memory the node takes.

    python bench/memory_site.py SITE.toml BASE.onnx SAMPLES

The training loop's own model is there before the node is; what this process holds then is the ground that the peak of
each round is measured from.  The peak is the kernel's (VmHWM), reset before each round.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import shoal
from shoal.model.model import load
from swarm_site import await_members, once, say, trained


def held_bytes(word: str) -> int:
    """VmRSS: what this process has in memory now; VmHWM: the most since `reset`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(word + ":"):
            return 1024 * int(line.split()[1])
    raise SystemExit(f"the kernel does not tell {word}")


def reset() -> None:
    """Let VmHWM begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    settings, base, samples = sys.argv[1], sys.argv[2], int(sys.argv[3])
    noise = np.random.default_rng(samples).standard_normal(2**20, np.float32) * np.float32(0.01)
    with load(base) as model:
        local = {name: trained(model[name], noise) for name in model}
    ground = held_bytes("VmRSS")
    with shoal.join(settings, base) as swarm:
        await_members(swarm)
        while True:
            say(ready=True, first=[float(array.reshape(-1)[0]) for array in local.values()])
            if not sys.stdin.readline():
                return
            reset()
            found = once(swarm, local, samples)
            say(**found, peak=held_bytes("VmHWM") - ground, after=held_bytes("VmRSS") - ground)
            for name in local:
                local[name][...] = trained(swarm.node.arrays[name], noise)


if __name__ == "__main__":
    main()
