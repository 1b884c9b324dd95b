"""Every limit, with its unit and its reason.  Relations between limits are asserted at the end."""

from __future__ import annotations

from typing import Final

# --- files -----------------------------------------------------------------------------------------------------------
#: bytes of one protobuf message.  The protobuf library itself stops at 2 GiB; larger models keep their data outside.
PROTO_BYTES_MAX: Final = 2**31 - 1
#: levels of graph inside graph (If, Loop, Scan, functions).  Real models stay below 10; each level costs stack.
NESTING_MAX: Final = 64
#: tensors that can be merged in one model.  A large language model has about 10**4.
TENSORS_MAX: Final = 2_000_000
#: nodes in one model, all graphs and functions together.
NODES_MAX: Final = 5_000_000
#: elements in one tensor: 2**48 float64 is 2 PiB, above any file system in use; keeps byte counts inside int64.
ELEMENTS_MAX: Final = 2**48
#: dimensions of one tensor.
DIMS_MAX: Final = 64
#: bytes of a name.  Longer ones are legal protobuf, and no use to anybody.
NAME_BYTES_MAX: Final = 65_536
#: bytes of one tensor that is not stored as little-endian bytes and must be decoded in memory.
DECODED_BYTES_MAX: Final = 256 * 2**20
#: bytes of a weights file that keeps its data inside; larger ones get a data file.  Below PROTO_BYTES_MAX by enough that
#: other tools can add a graph and still write one file.
EMBEDDED_BYTES_MAX: Final = 1_900_000_000

# --- merging ---------------------------------------------------------------------------------------------------------
#: models in one merge.
MODELS_MAX: Final = 1024
#: bytes of all input buffers of a streaming merge together, all threads.
STREAM_BYTES_MAX: Final = 48 * 2**20
#: elements after which the partial sums of a Gram matrix are closed; fixes the order of summation (docs/FORMAT.md).
GRAM_BLOCK: Final = 65_536
#: bytes of a tensor under one leaf of its digest (docs/FORMAT.md).
DIGEST_CHUNK_BYTES: Final = 2**20

# --- output for people -----------------------------------------------------------------------------------------------
#: differences between two models that are listed; the rest is counted.
DIFFERENCES_SHOWN_MAX: Final = 10
#: characters of a foreign name that are shown in a message.
NAME_SHOWN_MAX: Final = 120

assert EMBEDDED_BYTES_MAX < PROTO_BYTES_MAX
assert ELEMENTS_MAX * 8 < 2**63
assert DIGEST_CHUNK_BYTES % 8 == 0
assert NAME_SHOWN_MAX < NAME_BYTES_MAX
