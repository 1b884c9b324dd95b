"""Arrays of a device, without a device: what their interfaces say is believed only as far as it can be used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shoal.errors import ArgumentError, MachineError
from shoal.kernels import _cuda_host, cuda
from shoal.kernels.cuda import Kernels
from shoal.kernels.cuda_array import DEFAULT_STREAM, stream_of, view_of
from shoal.kernels.reference import BFLOAT16


class Device:
    """The host twin, taken for two devices: an array says itself on which it lies."""

    KIND = "cuda"
    INPUTS_MAX, ORDER_MAX, SUM_INPUTS_MAX = 128, 32, 257

    def __init__(self) -> None:
        self.followed: list[tuple[int, int, int]] = []
        self.devices: dict[int, int] = {}
        self.calls: list[tuple[Any, ...]] = []

    def device_of(self, pointer: int) -> int:
        return self.devices.get(pointer, -1)

    def follow(self, device: int, stream: int, other: int) -> None:
        self.followed.append((device, stream, other))

    def dlpack(self, capsule: object) -> Any:
        return _cuda_host.dlpack(capsule)

    def weighted_mean(self, *arguments: Any) -> None:
        self.calls.append(arguments)
        _cuda_host.weighted_mean(*arguments)


class Interfaced:
    """An array that has only ``__cuda_array_interface__``."""

    def __init__(self, native: Device, x: np.ndarray, device: int = 0, **changes: Any) -> None:
        self.x = x
        facts: dict[str, Any] = {
            "shape": x.shape, "typestr": x.dtype.str, "data": (x.ctypes.data, not x.flags.writeable), "version": 3,
            "strides": None if x.flags.c_contiguous else x.strides,
        }  # fmt: skip
        self.__cuda_array_interface__ = {**facts, **changes}
        native.devices[int(self.__cuda_array_interface__["data"][0] or 0)] = device


class Exported:
    """An array that has DLPack, on a device of that number."""

    def __init__(self, x: np.ndarray, device: tuple[int, int] = (2, 0), fails: Exception | None = None) -> None:
        self.x, self.device, self.fails = x, device, fails
        self.streams: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: Any = None) -> Any:
        self.streams.append(stream)
        if self.fails:
            raise self.fails
        return self.x.__dlpack__()


def code_of(call: Any) -> str:
    with pytest.raises(ArgumentError) as raised:
        call()
    return raised.value.code


X = np.arange(12, dtype=np.float32)


def test_an_interface_is_viewed_where_it_lies() -> None:
    native = Device()
    view = view_of(Interfaced(native, X, 3), "x", native, DEFAULT_STREAM)
    assert (view.pointer, view.length, view.dtype, view.device) == (X.ctypes.data, 12, np.float32, 3)
    assert not view.readonly and not native.followed


def test_another_stream_is_waited_for_on_the_device() -> None:
    native = Device()
    view_of(Interfaced(native, X, 1, stream=77), "x", native, 5)
    assert native.followed == [(1, 5, 77)]
    view_of(Interfaced(native, X, 1, stream=5), "x", native, 5)
    view_of(Interfaced(native, X[:0], 1, stream=6), "x", native, 5)
    assert len(native.followed) == 1, "the same stream, or nothing to wait for"


def test_dlpack_is_told_the_stream_and_viewed() -> None:
    x = Exported(X, (2, 4))
    view = view_of(x, "x", Device(), 99)
    assert (view.pointer, view.length, view.dtype, view.device) == (X.ctypes.data, 12, np.float32, 4)
    assert x.streams == [99]


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int64", "uint32"])
def test_dtypes_of_dlpack(dtype: str) -> None:
    view = view_of(Exported(np.zeros(3, dtype)), "x", Device(), 1)
    assert view.dtype == np.dtype(dtype)


def test_bfloat16_comes_by_no_typestr_of_its_own() -> None:
    """numpy writes its bytes as V2: that is no number, and is refused where numbers are wanted."""
    native = Device()
    x = np.zeros(4, BFLOAT16)
    kernels = Kernels(native)
    assert code_of(lambda: kernels.weighted_mean([Interfaced(native, x)], [1], Interfaced(native, x))) == "array.dtype"


def test_what_cannot_be_used_is_named() -> None:
    native = Device()
    odd, nowhere = np.zeros(49, np.uint8)[1:], X.copy()
    cases = [
        (X, "array.device"),
        (Exported(X, (1, 0)), "array.device"),
        (Exported(X, fails=BufferError("requires grad")), "array.type"),
        (Exported(np.zeros(3, np.complex64)), "array.dtype"),
        (Exported(np.zeros((3, 2), np.float32)), "array.shape"),
        (Exported(np.zeros(6, np.float32)[::2]), "array.layout"),
        (Interfaced(native, nowhere, -1), "array.device"),
        (Interfaced(native, X, typestr=">f4"), "array.dtype"),
        (Interfaced(native, X, typestr="nonsense"), "array.type"),
        (Interfaced(native, X, mask=object()), "array.layout"),
        (Interfaced(native, X, strides=(6,)), "array.layout"),
        (Interfaced(native, X[::2]), "array.layout"),
        (Interfaced(native, X.reshape(3, 4)), "array.shape"),
        (Interfaced(native, odd, typestr="<f4", shape=(12,), data=(odd.ctypes.data | 1, False)), "array.alignment"),
        ([1.0], "array.type"),
    ]
    for x, code in cases:
        assert code_of(lambda x=x: view_of(x, "x", native, 1)) == code, code


def test_empty_arrays_need_no_address() -> None:
    native = Device()
    none = Interfaced(native, X, shape=(0,), data=(0, False))
    view = view_of(none, "x", native, 1)
    assert view.length == 0
    Kernels(native).weighted_mean([none, none], [1, 2], none)
    assert not native.calls, "nothing is started for nothing"


def test_arrays_of_two_devices_are_refused() -> None:
    native = Device()
    here, there = Interfaced(native, X, 0), Interfaced(native, X.copy(), 1)
    assert code_of(lambda: Kernels(native).weighted_mean([here, there], [1, 1], here)) == "array.device"
    assert code_of(lambda: Kernels(native).weighted_mean([here, here], [1, 1], there)) == "array.device"
    flag = Interfaced(native, np.zeros(1, np.uint32), 1)
    assert code_of(lambda: Kernels(native).weighted_mean([here], [1], here, finite=flag)) == "array.device"


def test_a_call_runs_on_the_arrays_device_and_the_callers_stream() -> None:
    class TorchStream:
        cuda_stream = 4242

    native = Device()
    a, b, out = (Interfaced(native, x, 2) for x in (X, X + 2, np.zeros_like(X)))
    Kernels(native).weighted_mean([a, b], [1, 1], out, stream=TorchStream())
    assert native.calls[0][-2:] == (2, 4242)
    assert np.array_equal(out.x, X + 1)


def test_out_must_be_writable_and_apart() -> None:
    native = Device()
    frozen, both = X.copy(), np.zeros(13, np.float32)
    frozen.flags.writeable = False
    kernels = Kernels(native)
    here = Interfaced(native, both[:12])
    assert code_of(lambda: kernels.weighted_mean([here], [1], Interfaced(native, frozen))) == "array.readonly"
    assert code_of(lambda: kernels.weighted_mean([here], [1], Interfaced(native, both[1:]))) == "array.overlap"
    assert code_of(lambda: kernels.weighted_mean([here], [1], Interfaced(native, X[:5].copy()))) == "array.length"


def test_what_cuda_answers_becomes_an_error_of_the_machine() -> None:
    class Broken(Device):
        def __init__(self, answer: Exception) -> None:
            super().__init__()
            self.answer = answer

        def weighted_mean(self, *arguments: Any) -> None:
            raise self.answer

    for answer, code in ((MemoryError("2 GiB"), "device.memory"), (RuntimeError("cudaErrorX"), "device.cuda")):
        native = Broken(answer)
        x = Interfaced(native, X.copy())
        with pytest.raises(MachineError, match=str(answer)) as raised:
            Kernels(native).weighted_mean([x], [1], x)
        assert raised.value.code == code


def test_streams_of_torch_cupy_and_numbers() -> None:
    class CupyStream:
        ptr = 7

    assert stream_of(None) == stream_of(0) == DEFAULT_STREAM
    assert stream_of(CupyStream()) == 7 and stream_of(12) == 12
    for bad in ("1", -1, True, 1.5):
        assert code_of(lambda bad=bad: stream_of(bad)) == "stream.type"


def test_arguments_of_device_kernels_are_checked() -> None:
    kernels = Kernels(_cuda_host)
    words = np.zeros(48, np.uint8)
    from shoal.kernels.ring import Streams

    none = Streams.of([], [])
    bad = [
        (lambda: kernels.median([X] * 33, None, X.copy()), "inputs.count"),
        (lambda: kernels.weighted_mean([], [], X.copy()), "inputs.count"),
        (lambda: kernels.weighted_mean([X], [0], X.copy()), "weights.value"),
        (lambda: kernels.weighted_mean([X], [1, 2], X.copy()), "weights.value"),
        (lambda: kernels.weighted_mean([X], [np.nan], X.copy()), "weights.value"),
        (lambda: kernels.weighted_mean([X], ["many"], X.copy()), "weights.type"),
        (lambda: kernels.trimmed_mean([X] * 4, None, 2, X.copy()), "trim.value"),
        (lambda: kernels.scaled_add(X, np.inf, X, X.copy()), "scale.value"),
        (lambda: kernels.convert(X, np.zeros(12, np.int32)), "array.dtype"),
        (lambda: kernels.combine(X[:3].copy(), [X], [1], X.copy()), "array.length"),
        (lambda: kernels.stats(X, np.zeros(2), np.zeros(2)), "array.dtype"),
        (lambda: kernels.gram([X, X], None, np.zeros(3)), "array.length"),
        (lambda: kernels.add_streams(words, 7, none, 0, 0, words), "ring.bits"),
        (lambda: kernels.add_streams(words[:47], 12, none, 0, 0, words[:47]), "ring.length"),
        (lambda: kernels.add_streams(words, 8, none, -1, 0, words), "ring.place"),
        (lambda: kernels.add_streams(words, 8, none, 0, 2**60, words), "ring.place"),
        (lambda: kernels.sum_words([], 8, words), "ring.inputs"),
        (lambda: kernels.check_sums(words, 8, bytes(31), 0, 0, np.zeros(32, np.uint64)), "ring.key"),
    ]
    for call, code in bad:
        assert code_of(call) == code


def test_no_device_is_told_with_its_reason() -> None:
    there, reason = cuda.available()
    if there:
        pytest.skip("this machine has a CUDA device")
    assert reason
    with pytest.raises(MachineError, match="no CUDA device: ") as raised:
        cuda.kernels()
    assert raised.value.code == "device.cuda" and "\n" not in str(raised.value)
