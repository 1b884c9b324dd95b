"""Every codec of the table: sizes, errors, extreme numbers, and what others may have written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from shoal.diff.codec import BY_BITS, CODECS, Codec, Tile, find, of_bits
from shoal.diff.grid import Grid
from shoal.errors import ArgumentError, InputError

KEY = bytes(range(32))
#: (codec, largest error relative to the norm, squared) for normal numbers, with room for chance in few numbers
COARSE = {"eden-1": 0.8, "eden-2": 0.2, "eden-3": 0.06, "eden-4": 0.016, "eden-8": 8e-5, "int4": 0.02, "int8": 1e-4}
FINE = {"float16": 2.0**-22, "bfloat16": 2.0**-16, "float32": 0.0}


def tile(count: int) -> Tile:
    return Tile(count, Grid.of(count).within(0, count), KEY)


def encoded(codec: Codec, x: np.ndarray, base: np.ndarray | None = None) -> np.ndarray:
    out = np.full(codec.size(tile(len(x))), 0xA5, np.uint8)
    codec.encode(x, base, tile(len(x)), out)
    return out


def decoded(codec: Codec, raw: np.ndarray, count: int) -> np.ndarray:
    raw = raw.copy()
    raw.flags.writeable = False
    out = np.full(count, np.nan, np.float32)
    codec.decode(raw, tile(count), out)
    return out


def there_and_back(name: str, x: np.ndarray) -> np.ndarray:
    return decoded(CODECS[name], encoded(CODECS[name], x), len(x))


def nmse(found: np.ndarray, x: np.ndarray) -> float:
    wanted = x.astype(np.float64)
    return float(((found - wanted) ** 2).sum() / (wanted**2).sum())


def test_the_table() -> None:
    assert {name: codec.bits for name, codec in CODECS.items()} == {
        "eden-1": 1, "eden-2": 2, "eden-3": 3, "eden-4": 4, "eden-8": 8, "int4": 4, "int8": 8,
        "float16": 16, "bfloat16": 16, "float32": 32,
    }  # fmt: skip
    assert all(CODECS[name].bits == bits and of_bits(bits).name == name for bits, name in BY_BITS.items())
    assert [codec.name for codec in CODECS.values()] == list(CODECS) and find("int8") is CODECS["int8"]
    with pytest.raises(ArgumentError, match="eden-1, eden-2"):
        find("eden-5")
    with pytest.raises(ArgumentError, match="1, 2, 3, 4, 8, 16, 32"):
        of_bits(5)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 255, 257, 1023, 1025, 5001])
def test_round_trip_of_any_length(name: str, count: int) -> None:
    x = np.random.default_rng(count).normal(size=count).astype(np.float32)
    found = there_and_back(name, x)
    if name in FINE:
        assert (np.abs(found - x) <= np.sqrt(FINE[name]) * np.abs(x)).all()
    elif count > 1000:
        assert nmse(found, x) < COARSE[name]
    else:
        assert np.isfinite(found).all()


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [1e-30, 1e-7, 1e30])
def test_error_does_not_depend_on_the_size_of_the_numbers(name: str, size: float) -> None:
    x = (np.random.default_rng(3).normal(size=4096) * size).astype(np.float32)
    assert nmse(there_and_back(name, x), x) <= (COARSE | FINE)[name]


@pytest.mark.parametrize("name", CODECS)
def test_zeros_stay_zeros_and_the_least_numbers_do_no_harm(name: str) -> None:
    assert not there_and_back(name, np.zeros(1500, np.float32)).any()
    x = np.full(1500, 1e-45, np.float32)
    assert (np.abs(there_and_back(name, x)) <= 1e-38).all()


@pytest.mark.parametrize("name", CODECS)
def test_base_is_subtracted_in_float32(name: str) -> None:
    rng = np.random.default_rng(4)
    x, base = (rng.normal(size=3000).astype(np.float32) for _ in range(2))
    assert np.array_equal(encoded(CODECS[name], x, base), encoded(CODECS[name], x - base))


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(name: str, value: float) -> None:
    x = np.ones(2000, np.float32)
    x[1234] = value
    with pytest.raises(ArgumentError) as caught:
        encoded(CODECS[name], x)
    assert caught.value.code == "diff.nonfinite" and "1234" in str(caught.value)


@pytest.mark.parametrize("name", ["int4", "int8", "float16", "bfloat16", "float32"])
def test_the_largest_numbers(name: str) -> None:
    x = np.array([np.finfo(np.float32).max, -np.finfo(np.float32).max] * 100, np.float32)
    assert nmse(there_and_back(name, x), x) < 0.01


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["gaussian", "lognormal", "student-t"])
def test_error_of_eden_on_a_million_numbers(bits: int, kind: str) -> None:
    """Within 5 % of the theory of docs/PROTOCOL.md, whatever the numbers are distributed like."""
    rng, count = np.random.default_rng(7), 2**20
    x = {
        "gaussian": lambda: rng.normal(size=count),
        "lognormal": lambda: rng.lognormal(size=count) * rng.choice([-1, 1], count),
        "student-t": lambda: rng.standard_t(3, count),
    }[kind]().astype(np.float32)
    assert (
        nmse(there_and_back(f"eden-{bits}", x), x)
        < 1.05 * {1: 0.5708, 2: 0.1331, 3: 0.03578, 4: 0.009592, 8: 4.11e-5}[bits]
    )


def test_rotation_follows_the_key() -> None:
    x = np.random.default_rng(5).normal(size=4096).astype(np.float32)
    codec, other = CODECS["eden-4"], Tile(4096, Grid.of(4096).within(0, 4096), bytes(32))
    out = np.empty(codec.size(other), np.uint8)
    codec.encode(x, None, other, out)
    assert not np.array_equal(out, encoded(codec, x))


# --- what others may have written ---


def scale_at(raw: np.ndarray, value: float) -> None:
    raw[4:8] = np.array([value], "<f4").view(np.uint8)


def put(at: int, *values: int) -> Callable[[np.ndarray], None]:
    def change(raw: np.ndarray) -> None:
        start = at % len(raw)
        raw[start : start + len(values)] = values

    return change


BAD: list[tuple[str, str, Callable[[np.ndarray], None]]] = [
    *((name, what, lambda raw, value=value: scale_at(raw, value)) for name in ("eden-1", "eden-8", "int8")
      for what, value in (("scale 1 is nan", np.nan), ("scale 1 is inf", np.inf), ("scale 1 is -1", -1.0), ("scale 1 is -0", -0.0))),
    ("int8", "number 0 is -128", put(4 * 6, 0x80)),
    ("int4", "scale 0 is nan", put(0, 0xC1, 0x7F)),
    ("int4", "scale 0 is inf", put(0, 0x80, 0x7F)),
    ("int4", "scale 0 is -", put(0, 0x80, 0xBF)),
    ("int4", "number 0 is -8", put(2 * 22, 0x08)),
    ("int4", "number 1 is -8", put(2 * 22, 0x80)),
    ("int4", "half byte", put(-1, 0x10)),
    ("float16", "exponents are -128", put(0, 0x80)),
    ("float16", "exponents", put(0, 127)),
    ("float16", "number 1400 is nan", put(-1, 0x7E)),
    ("float16", "number 1400 is -inf", lambda raw: (put(-1, 0xFC)(raw), put(2 + 1400, 0)(raw))),  # type: ignore[func-returns-value]
    ("bfloat16", "number 1400 is nan", lambda raw: (put(-1, 0x7F)(raw), put(1400, 0xC0)(raw))),  # type: ignore[func-returns-value]
    ("float32", "number 1400 is nan", lambda raw: (put(-1, 0x7F)(raw), put(2 * 1401 + 1400, 0xC0)(raw))),  # type: ignore[func-returns-value]
]  # fmt: skip


@pytest.mark.parametrize(("name", "what", "change"), BAD, ids=[f"{name}: {what}" for name, what, _ in BAD])
def test_bytes_that_no_encoder_writes_are_refused(name: str, what: str, change: Callable[[np.ndarray], None]) -> None:
    raw = encoded(CODECS[name], np.random.default_rng(6).normal(size=1401).astype(np.float32))
    change(raw)
    with pytest.raises(InputError) as caught:
        decoded(CODECS[name], raw, 1401)
    assert caught.value.code == "update.codes" and what in str(caught.value)


@pytest.mark.parametrize("name", CODECS)
def test_any_other_bytes_give_numbers_or_one_error(name: str) -> None:
    rng = np.random.default_rng(8)
    for _ in range(30):
        raw = rng.integers(0, 256, CODECS[name].size(tile(700)), np.uint8)
        try:
            found = decoded(CODECS[name], raw, 700)
        except InputError as error:
            assert error.code == "update.codes"
        else:
            assert not np.isnan(found).any() or name.startswith("eden")
