"""The CUDA kernels' host twin, as the tests call it."""

from __future__ import annotations

from shoal.kernels import _cuda_host
from shoal.kernels.cuda import Kernels
from shoal.kernels.cuda_coding import Coding

KERNELS = Kernels(_cuda_host)
CODING = Coding(_cuda_host, -1)
