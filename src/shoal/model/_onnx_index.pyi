import numpy as np
import numpy.typing as npt

from shoal.model.structure import Graph
from shoal.model.tensor import TensorRef

class Index:
    path: str
    file: str
    ir_version: int
    opsets: dict[str, int]
    producer: dict[str, str | int]
    tensors: dict[str, TensorRef]
    outside: dict[str, list[tuple[str, str]]]
    graphs: dict[str, Graph]
    scale_uses: list[tuple[str, str]]
    mean_uses: list[tuple[str, str]]
    variance_uses: list[tuple[str, str]]
    sparse_shapes: dict[str, tuple[int, ...]]
    def __init__(self, file: str, fd: int, size: int, held: bytes | None = None) -> None: ...
    def model(self) -> None: ...

def decode(
    file: str, fd: int, size: int, start: int, stop: int, attribute: bool, held: bytes | None = None
) -> bytes | list[bytes]: ...
def node_parts(
    file: str, fd: int, size: int, start: int, stop: int, held: bytes | None = None
) -> tuple[str, str, str, str, list[str], list[str], dict[str, bytes]]: ...
def read_rows(descriptors: list[int], offsets: list[int], buffers: list[npt.NDArray[np.uint8]]) -> int: ...
def fields(message: bytes) -> list[tuple[int, int | bytes]]: ...
