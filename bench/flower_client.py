"""One client's masking of one vector, by Flower's own functions: run by bench_coding.py with a Python that has flwr.

The steps of _collect_masked_vectors in flwr/client/mod/secure_aggregation/secaggplus_mod.py (1.41.0) from the weights on
to the sum modulo 2**32, with the defaults of its workflow; key agreement, encryption of shares and serialisation are left
out.  Usage: flower_client.py LENGTH NEIGHBOURS; prints {"seconds": median of three, "version": ...}.
"""

from __future__ import annotations

import json
import sys
import time

import flwr
import numpy as np
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_combine,
    parameters_addition,
    parameters_mod,
    parameters_multiply,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

#: of SecAggPlusWorkflow: clipping_range, quantization_range, modulus_range
CLIP, TARGET, MODULUS = 8.0, 4_194_304, 4_294_967_296


def masked(x: np.ndarray, neighbours: int) -> list[np.ndarray]:
    q_ratio = round(0.8 * TARGET)
    words = quantize(parameters_multiply([x], q_ratio / TARGET), CLIP, TARGET)
    words = factor_combine(q_ratio, words)
    shapes = [a.shape for a in words]
    words = parameters_addition(words, pseudo_rand_gen(bytes(range(32)), MODULUS, shapes))
    for i in range(neighbours):
        mask = pseudo_rand_gen(bytes(range(i + 1, i + 33)), MODULUS, shapes)
        words = (parameters_subtraction, parameters_addition)[i % 2](words, mask)
    return parameters_mod(words, MODULUS)


def main() -> None:
    length, neighbours = int(sys.argv[1]), int(sys.argv[2])
    x = np.random.default_rng(1).standard_normal(length, dtype=np.float32)
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        words = masked(x, neighbours)
        taken.append(time.perf_counter() - start)
    assert words[1].shape == x.shape and words[1].min() >= 0 and words[1].max() < MODULUS
    print(json.dumps({"seconds": float(np.median(taken)), "version": flwr.__version__}))


if __name__ == "__main__":
    main()
