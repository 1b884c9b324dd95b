"""External data that point where they must not, or at what is not there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import corpus
import numpy as np
import pytest

from shoal.errors import InputError
from shoal.model.external import FILES_OPEN_MAX
from shoal.model.file import ModelFile

FLOATS = np.array([1.5, -2.0], np.float32).tobytes()
EIGHT = {"location": "w.bin", "offset": "0", "length": "8"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """model/ with w.bin in it, and the same file outside."""
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "w.bin").write_bytes(FLOATS)
    (tmp_path / "outside.bin").write_bytes(FLOATS)
    return inside


def as_initialiser(bad: bytes) -> bytes:
    return corpus.model(corpus.graph(bad))


def as_constant(bad: bytes) -> bytes:
    value = corpus.attribute("value", 4, corpus.field(5, bad))
    return corpus.model(corpus.graph(nodes=(corpus.node("Constant", (), ("y",), value),)))


def in_branch(bad: bytes) -> bytes:
    return corpus.model(corpus.nested(1, corpus.graph(bad)))


def in_function(bad: bytes) -> bytes:
    value = corpus.attribute("value", 4, corpus.field(5, bad))
    body = corpus.field(1, "f") + corpus.field(7, corpus.node("Constant", (), ("y",), value))
    return corpus.model(corpus.graph(), more=corpus.field(25, body))


def as_sparse_values(bad: bytes) -> bytes:
    indices = corpus.field(2, corpus.tensor("", (2,), 7, b"\0" * 8 + b"\1" + b"\0" * 7))
    return corpus.model(corpus.graph(more=corpus.field(15, corpus.field(1, bad) + indices + corpus.field(3, 9))))


PLACES = [as_initialiser, as_constant, in_branch, in_function, as_sparse_values]


def refusal(folder: Path, data: bytes) -> InputError:
    (folder / "m.onnx").write_bytes(data)
    with pytest.raises(InputError) as caught, ModelFile.open(folder / "m.onnx"):
        pass
    assert str(caught.value).isprintable()
    assert "m.onnx" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("place", PLACES)
def test_good_ones_are_read(place: Callable[[bytes], bytes], folder: Path) -> None:
    (folder / "m.onnx").write_bytes(place(corpus.external(**EIGHT)))
    with ModelFile.open(folder / "m.onnx") as file:
        ref = next(iter(file.tensors.values()))
        assert file.array(ref).tolist() == [1.5, -2.0]


LOCATIONS = [
    "", ".", "../outside.bin", "a/../../outside.bin", "a/../w.bin", "..", "/etc/passwd", "/proc/self/mem", "//w.bin", "w.bin/",
    "a//w.bin", "..\\outside.bin", "a\\w.bin", "C:\\w.bin", "C:w.bin", "c:/w.bin", "\\\\host\\share\\w.bin", "file:///etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("location", LOCATIONS)
def test_locations_that_lead_out(location: str, folder: Path) -> None:
    for place in PLACES:
        assert refusal(folder, place(corpus.external(location=location))).code == "external.location"


@pytest.mark.parametrize(
    "location", ["%2e%2e/outside.bin", "\u2024\u2024/outside.bin", "\uff0e\uff0e/outside.bin", "~/w.bin"]
)
def test_names_are_taken_as_they_are(location: str, folder: Path) -> None:
    """Nothing is decoded, normalised or expanded: such files are not there."""
    assert refusal(folder, as_initialiser(corpus.external(location=location))).code == "external.missing"


def test_no_location(folder: Path) -> None:
    assert refusal(folder, as_initialiser(corpus.external(offset="0"))).code == "external.location"
    assert refusal(folder, as_initialiser(corpus.external())).code == "external.location"


def test_nul_in_a_location(folder: Path) -> None:
    assert refusal(folder, as_initialiser(corpus.external(location="w.bin\0.txt"))).code == "name.nul"


def test_long_names(folder: Path) -> None:
    for location in ("n" * 300, "/".join(["d" * 200] * 50)):
        assert refusal(folder, as_initialiser(corpus.external(location=location))).code in (
            "external.location",
            "external.missing",
        )


def test_links_are_not_followed(folder: Path) -> None:
    (folder / "link.bin").symlink_to("w.bin")
    (folder / "out.bin").symlink_to("../outside.bin")
    (folder / "real").mkdir()
    (folder / "real" / "w.bin").write_bytes(FLOATS)
    (folder / "dir").symlink_to("real")
    for location in ("link.bin", "out.bin", "dir/w.bin"):
        assert refusal(folder, as_initialiser(corpus.external(location=location))).code == "external.link", location


def test_hard_links_are_refused(folder: Path) -> None:
    os.link(folder.parent / "outside.bin", folder / "hard.bin")
    assert refusal(folder, as_initialiser(corpus.external(location="hard.bin"))).code == "external.hard_link"


def test_what_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    for location in ("fifo", "folder"):
        assert refusal(folder, as_initialiser(corpus.external(location=location))).code == "external.not_regular"
    assert refusal(folder, as_initialiser(corpus.external(location="none.bin"))).code == "external.missing"
    assert refusal(folder, as_initialiser(corpus.external(location="w.bin/x"))).code == "external.link"


def test_the_model_itself_is_no_data_file(folder: Path) -> None:
    assert refusal(folder, as_initialiser(corpus.external(location="m.onnx"))).code == "external.self"


RANGES = {
    "offset beyond the end": ("external.range", {"offset": "9"}),
    "length beyond the end": ("external.range", {"offset": "4", "length": "8"}),
    "a petabyte": ("external.range", {"length": str(2**50)}),
    "shorter than its dims": ("external.size", {"length": "4"}),
    "rest shorter than its dims": ("external.size", {"offset": "4"}),
    **{f"length {text!r}": ("external.number", {"length": text}) for text in ("-8", "+8", " 8", "8 ", "0x8", "8.0", "1e1", "", "٨", str(10**30))},
    **{f"offset {text!r}": ("external.number", {"offset": text}) for text in ("-1", "+0", " 0", "0x0", "0_0", str(10**30))},
}  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
def test_ranges(name: str, folder: Path) -> None:
    code, entries = RANGES[name]
    assert refusal(folder, as_initialiser(corpus.external(location="w.bin", **entries))).code == code


def test_a_longer_file_without_a_length(folder: Path) -> None:
    (folder / "w.bin").write_bytes(FLOATS + b"\0")
    assert refusal(folder, as_initialiser(corpus.external(location="w.bin"))).code == "external.size"


def test_overlaps(folder: Path) -> None:
    (folder / "w.bin").write_bytes(FLOATS * 2)
    same = corpus.external("a", **EIGHT), corpus.external("b", **EIGHT)
    half = corpus.external("a", **EIGHT), corpus.external("b", location="./w.bin", offset="4", length="8")
    for pair in (same, half):
        error = refusal(folder, corpus.model(corpus.graph(*pair)))
        assert error.code == "external.overlap"
        assert "'a'" in str(error) and "'b'" in str(error)


def test_neighbours_do_not_overlap(folder: Path) -> None:
    (folder / "w.bin").write_bytes(FLOATS * 2)
    pair = corpus.external("a", **EIGHT), corpus.external("b", location="w.bin", offset="8", length="8")
    (folder / "m.onnx").write_bytes(corpus.model(corpus.graph(*pair)))
    with ModelFile.open(folder / "m.onnx") as file:
        assert len(file.tensors) == 2


def test_both_inside_and_outside(folder: Path) -> None:
    both = corpus.external(**EIGHT) + corpus.field(9, FLOATS)
    assert refusal(folder, as_initialiser(both)).code == "external.both"
    half = corpus.tensor(more=corpus.field(13, corpus.field(1, "location") + corpus.field(2, "w.bin")))
    assert refusal(folder, as_initialiser(half)).code == "external.location"


def test_strings_outside(folder: Path) -> None:
    assert refusal(folder, as_initialiser(corpus.external(code=8, **EIGHT))).code == "external.strings"


@pytest.mark.parametrize("key", ["__class__", "basepath", "Location", "", "size"])
def test_unknown_keys(key: str, folder: Path) -> None:
    assert refusal(folder, as_initialiser(corpus.external(**EIGHT, **{key: "1"}))).code == "external.keys"


def test_a_key_twice(folder: Path) -> None:
    twice = corpus.field(13, corpus.field(1, "offset") + corpus.field(2, "0"))
    assert refusal(folder, as_initialiser(corpus.external(**EIGHT) + twice)).code == "external.keys"


def test_checksums(folder: Path) -> None:
    good = hashlib.sha1(FLOATS).hexdigest()
    for checksum in (good, good.upper()):
        (folder / "m.onnx").write_bytes(as_initialiser(corpus.external(**EIGHT, checksum=checksum)))
        with ModelFile.open(folder / "m.onnx") as file:
            assert list(file.tensors) == ["w"]
    for checksum in ("0" * 40, good[:-1], "md5"):
        bad = as_initialiser(corpus.external(**EIGHT, checksum=checksum))
        assert refusal(folder, bad).code == "external.checksum"


def test_attributes_of_other_nodes(folder: Path) -> None:
    value = corpus.attribute("value", 4, corpus.field(5, corpus.external(**EIGHT)))
    data = corpus.model(corpus.graph(nodes=(corpus.node("ConstantOfShape", ("s",), ("y",), value),)))
    assert refusal(folder, data).code == "external.attribute"


def test_a_sparse_file_of_48_gib_that_matches_its_shape(folder: Path) -> None:
    """A few kilobytes on the disk must not make a merge that lasts for hours and fills the disk."""
    with open(folder / "big.bin", "wb") as big:
        big.truncate(48 * 2**30)
    data = as_initialiser(corpus.external(dims=(12 * 2**30,), location="big.bin"))
    assert refusal(folder, data).code == "external.holes"


def test_a_sparse_file_of_6_gib_is_read_to_its_end(folder: Path) -> None:
    with open(folder / "big.bin", "wb") as big:
        big.truncate(6 * 2**30)
    (folder / "m.onnx").write_bytes(as_initialiser(corpus.external(dims=(3 * 2**29,), location="big.bin")))
    with ModelFile.open(folder / "m.onnx") as file:
        (ref,) = file.tensors.values()
        buffer = np.ones(3, np.float32)
        file.read_into(ref, ref.elements - 3, buffer)
        assert not buffer.any()


def test_more_files_than_descriptors(folder: Path) -> None:
    count = 3 * FILES_OPEN_MAX
    for number in range(count):
        (folder / f"{number}.bin").write_bytes(np.full(2, number, np.float32).tobytes())
    tensors = [corpus.external(f"t{number}", location=f"{number}.bin") for number in range(count)]
    (folder / "m.onnx").write_bytes(corpus.model(corpus.graph(*tensors)))
    before = len(os.listdir("/proc/self/fd"))
    with ModelFile.open(folder / "m.onnx") as file:
        assert len(os.listdir("/proc/self/fd")) <= before + FILES_OPEN_MAX + 1
        for number, ref in enumerate(file.tensors.values()):
            assert file.array(ref).tolist() == [number, number]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_data_file_replaced_behind_our_back(folder: Path) -> None:
    """The first descriptor is kept or its file compared: never another file's bytes."""
    count = FILES_OPEN_MAX + 1
    for number in range(count):
        (folder / f"{number}.bin").write_bytes(FLOATS)
    tensors = [corpus.external(f"t{number}", location=f"{number}.bin") for number in range(count)]
    (folder / "m.onnx").write_bytes(corpus.model(corpus.graph(*tensors)))
    with ModelFile.open(folder / "m.onnx") as file:
        (folder / "new.bin").write_bytes(b"\1" * 8)
        os.replace(folder / "new.bin", folder / "0.bin")
        with pytest.raises(InputError) as caught:
            for ref in file.tensors.values():
                file.array(ref)
        assert caught.value.code == "file.changed"


def test_each_model_has_its_own_folder(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "w.bin").write_bytes(np.full(2, number, np.float32).tobytes())
        (tmp_path / str(number) / "m.onnx").write_bytes(as_initialiser(corpus.external(**EIGHT)))
    for number in (1, 2):
        with ModelFile.open(tmp_path / str(number) / "m.onnx") as file:
            assert file.array(file.tensors["w"]).tolist() == [number, number]
