"""What a merge of files did, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Report:
    """What `merge_files` did.

    output                where the merged model is
    models                paths of the inputs, in the caller's order
    rule, parameters      the rule by its own name, and all its parameters (and the outer optimiser's)
    weights               as given; None: none were given
    outer                 the outer optimiser, or None
    tensors_merged        tensors that were merged
    tensors_passed        that are never merged and were equal (or chosen, see ``integers``)
    tensors_local         that were not selected and keep the first model's value
    numbers               merged numbers ("parameters" of the network)
    bytes_read, bytes_written   of tensors' values
    seconds               from opening the first file to the last rename
    passes                readings of the data
    notes                 what the rule chose: "chosen" models, "coefficients", "scores", by place in ``models`` from 0
    digest                of the merged model (docs/FORMAT.md, "Digests"), hexadecimal
    """

    output: str
    models: tuple[str, ...]
    rule: str
    parameters: Mapping[str, Any]
    weights: tuple[float, ...] | None
    outer: str | None
    tensors_merged: int
    tensors_passed: int
    tensors_local: int
    numbers: int
    bytes_read: int
    bytes_written: int
    seconds: float
    passes: int
    notes: Mapping[str, Any]
    digest: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)
