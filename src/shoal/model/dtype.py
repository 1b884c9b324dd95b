"""The element types of ONNX tensors (onnx 1.23, ``TensorProto.DataType``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np

from shoal.errors import InputError


@dataclass(frozen=True)
class Dtype:
    """One element type.

    code    int               number in TensorProto.DataType
    name    str               ONNX's name in lower case; FLOAT and DOUBLE are called float32 and float64
    numpy   np.dtype | None   little-endian dtype of one element; None for strings, and where elements share bytes
    bits    int               bits of one element as stored in raw data; 0 for strings
    merged  bool              whether numbers of this type are merged; all others must be equal in all models
    """

    code: int
    name: str
    numpy: np.dtype[Any] | None
    bits: int
    merged: bool = False


def _whole(code: int, name: str, kind: object, *, merged: bool = False) -> Dtype:
    numpy = np.dtype(kind)  # type: ignore[call-overload]
    return Dtype(code, name, numpy, numpy.itemsize * 8, merged)


DTYPES: Final[dict[int, Dtype]] = {
    dtype.code: dtype
    for dtype in (
        _whole(1, "float32", "<f4", merged=True),
        _whole(2, "uint8", "u1"),
        _whole(3, "int8", "i1"),
        _whole(4, "uint16", "<u2"),
        _whole(5, "int16", "<i2"),
        _whole(6, "int32", "<i4"),
        _whole(7, "int64", "<i8"),
        Dtype(8, "string", None, 0),
        _whole(9, "bool", "?"),
        _whole(10, "float16", "<f2", merged=True),
        _whole(11, "float64", "<f8", merged=True),
        _whole(12, "uint32", "<u4"),
        _whole(13, "uint64", "<u8"),
        _whole(14, "complex64", "<c8"),
        _whole(15, "complex128", "<c16"),
        _whole(16, "bfloat16", ml_dtypes.bfloat16, merged=True),
        _whole(17, "float8e4m3fn", ml_dtypes.float8_e4m3fn),
        _whole(18, "float8e4m3fnuz", ml_dtypes.float8_e4m3fnuz),
        _whole(19, "float8e5m2", ml_dtypes.float8_e5m2),
        _whole(20, "float8e5m2fnuz", ml_dtypes.float8_e5m2fnuz),
        Dtype(21, "uint4", None, 4),
        Dtype(22, "int4", None, 4),
        Dtype(23, "float4e2m1", None, 4),
        _whole(24, "float8e8m0", ml_dtypes.float8_e8m0fnu),
        Dtype(25, "uint2", None, 2),
        Dtype(26, "int2", None, 2),
        Dtype(27, "float6e2m3", None, 6),
        Dtype(28, "float6e3m2", None, 6),
    )
}


def dtype_of(code: int, where: str) -> Dtype:
    """The type with this number; InputError ``tensor.dtype`` names ``where`` if ONNX has none."""
    found = DTYPES.get(code)
    if found is None:
        raise InputError("tensor.dtype", f"{where}: element type {code} is unknown; expected 1 to {max(DTYPES)}")
    return found
