"""Data files: streamed the same as loaded whole, and refused when they are not what they say."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from shoal.errors import InputError
from shoal.evaluate.table import open_table


def gather(path: Path, names: list[str], rows: int) -> dict[str, np.ndarray]:
    batches = list(open_table(path).batches(names, rows))
    assert all(len(b[n]) <= rows for b in batches for n in names)
    return {n: np.concatenate([b[n] for b in batches]) for n in names}


@pytest.mark.parametrize("rows", [1, 3, 10, 64])
@pytest.mark.parametrize("compressed", [False, True])
def test_npz_in_batches_is_the_whole(tmp_path: Path, rows: int, compressed: bool) -> None:
    rng = np.random.default_rng(1)
    arrays = {
        "x": rng.normal(size=(10, 3, 2)).astype(np.float32),
        "by_columns": np.asfortranarray(rng.normal(size=(10, 4))),
        "y": rng.integers(0, 2, 10),
    }
    (np.savez_compressed if compressed else np.savez)(tmp_path / "d.npz", **arrays)
    found = gather(tmp_path / "d.npz", list(arrays), rows)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_csv_in_batches_is_the_whole(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b'\xef\xbb\xbfa,"b, quoted",y\r\n1,2.5,0\r\n\r\n-3e2,4,1\r\n5,6,0\r\n')
    found = gather(tmp_path / "d.csv", ["b, quoted", "a"], 2)
    np.testing.assert_array_equal(found["a"], [1, -300, 5])
    np.testing.assert_array_equal(found["b, quoted"], [2.5, 4, 6])


def refused(path: Path, names: list[str] | None = None) -> InputError:
    with pytest.raises(InputError) as error:
        gather(path, names or open_table(path).names, 4)
    assert path.name in str(error.value) and "\n" not in str(error.value)
    return error.value


def test_object_arrays_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{"a": 1}], object))
    assert refused(tmp_path / "d.npz").code == "data.array"


def test_rows_must_agree(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 2)), y=np.zeros(5))
    assert refused(tmp_path / "d.npz").code == "data.rows"


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut"])
def test_not_an_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    assert refused(tmp_path / "d.npz").code == "data.format"


def test_npz_cut_at_any_eighth(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", x=np.arange(1000.0), y=np.arange(1000))
    data = (tmp_path / "whole.npz").read_bytes()
    for eighth in range(8):
        (tmp_path / "d.npz").write_bytes(data[: len(data) * eighth // 8])
        refused(tmp_path / "d.npz")


def test_header_that_promises_more_than_is_there(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(10.0))
    lying = (tmp_path / "x.npy").read_bytes().replace(b"(10,), }   ", b"(90000,), }")
    assert b"90000" in lying
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", lying)
    assert "ends before" in str(refused(tmp_path / "d.npz"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n3\n", "line 3 has 1 cells"),
        ("a,b\n1,x\n", "column b holds 'x'"),
        ("a,b\n1,\n", "column b holds ''"),
        ("a,a\n1,2\n", "each once"),
        ("", "columns' names"),
        ('a,b\n1,"2\n', "not a CSV file"),
        ("a,b\n1,\x1b[31m\n", r"\x1b[31m"),
    ],
)
def test_csv_that_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "d.csv").write_text(text)
    assert says in str(refused(tmp_path / "d.csv"))


def test_other_endings_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "d.pkl").write_bytes(b"x")
    for name in ("d.pkl", "gone.npz"):
        with pytest.raises(InputError, match=name):
            open_table(tmp_path / name)
