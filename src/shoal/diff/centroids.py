"""Centroids of the quantisers that are optimal for a normal variable: what a code of 1, 2, 3, 4 or 8 bits stands for.

Each centroid is the mean of the N(0, 1) variable over its cell, and the cells meet half way between centroids (Lloyd,
1957/1982; Max, 1960).  Solved in float64 by Newton's method to a residual below 1e-13, then rounded to float32; the
literals are the shortest that read back as those float32.  The tables are part of the format: they never change.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]

#: bits of a code -> the positive half, ascending; the other half is the same with a minus
_POSITIVE: Final[dict[int, tuple[float, ...]]] = {
    1: (0.7978846,),
    2: (
        0.45278004,
        1.5104176,
    ),
    3: (
        0.24509418,
        0.7560053,
        1.3439093,
        2.1519456,
    ),
    4: (
        0.12839504,
        0.3880483,
        0.65675914,
        0.94234043,
        1.2562312,
        1.6180464,
        2.0690172,
        2.7325895,
    ),
    8: (
        0.008446193,
        0.025339384,
        0.042234983,
        0.059134603,
        0.07603986,
        0.092952356,
        0.10987372,
        0.12680559,
        0.14374956,
        0.16070732,
        0.17768049,
        0.19467075,
        0.21167976,
        0.2287092,
        0.24576078,
        0.26283622,
        0.27993724,
        0.2970656,
        0.31422305,
        0.3314114,
        0.34863243,
        0.365888,
        0.38317996,
        0.40051022,
        0.41788065,
        0.4352932,
        0.45274988,
        0.47025266,
        0.4878036,
        0.5054048,
        0.5230583,
        0.5407663,
        0.55853105,
        0.5763547,
        0.5942396,
        0.6121881,
        0.6302026,
        0.6482855,
        0.6664394,
        0.68466675,
        0.70297027,
        0.72135264,
        0.7398166,
        0.75836504,
        0.77700084,
        0.795727,
        0.8145467,
        0.833463,
        0.8524793,
        0.8715989,
        0.8908253,
        0.91016203,
        0.92961293,
        0.9491818,
        0.9688726,
        0.98868936,
        1.0086365,
        1.0287182,
        1.0489392,
        1.0693042,
        1.0898181,
        1.110486,
        1.1313132,
        1.1523054,
        1.1734682,
        1.1948076,
        1.2163299,
        1.2380418,
        1.2599499,
        1.2820615,
        1.304384,
        1.3269253,
        1.3496937,
        1.3726976,
        1.3959464,
        1.4194493,
        1.4432166,
        1.4672587,
        1.491587,
        1.5162132,
        1.5411496,
        1.5664098,
        1.5920075,
        1.6179578,
        1.6442765,
        1.6709803,
        1.6980875,
        1.7256169,
        1.7535894,
        1.7820269,
        1.8109531,
        1.8403933,
        1.8703752,
        1.900928,
        1.9320842,
        1.9638784,
        1.9963485,
        2.0295358,
        2.0634851,
        2.0982466,
        2.1338742,
        2.1704283,
        2.2079754,
        2.24659,
        2.2863545,
        2.3273618,
        2.3697171,
        2.4135387,
        2.4589622,
        2.5061426,
        2.5552595,
        2.6065214,
        2.660174,
        2.7165077,
        2.7758706,
        2.8386858,
        2.905473,
        2.9768822,
        3.053742,
        3.1371326,
        3.2285001,
        3.3298485,
        3.4440718,
        3.575588,
        3.7316663,
        3.9256377,
        4.1865954,
        4.6035357,
    ),
}


def _table(positive: tuple[float, ...]) -> Float32s:
    half = np.array(positive, np.float32)
    table = np.concatenate([-half[::-1], half])
    table.flags.writeable = False
    return table


def _boundaries(centroids: Float32s) -> Float32s:
    wide = centroids.astype(np.float64)
    table = ((wide[1:] + wide[:-1]) / 2).astype(np.float32)
    table.flags.writeable = False
    return table


#: bits -> float32[2**bits], ascending
CENTROIDS: Final = {bits: _table(positive) for bits, positive in _POSITIVE.items()}
#: bits -> float32[2**bits - 1]: half way between neighbours, rounded to float32
BOUNDARIES: Final = {bits: _boundaries(table) for bits, table in CENTROIDS.items()}
