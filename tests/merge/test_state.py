"""The outer optimiser's state in a file: it belongs to one base, and no crash parts the two."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

import shoal
from shoal.errors import ArgumentError, InputError, MachineError
from shoal.merge import files as files_module
from shoal.merge import state as state_module
from shoal.model import weights
from shoal.model.weights import save_weights
from shoal.model.write import ModelWriter

Array = npt.NDArray[Any]
SIZES = {"large": 300_001, "small": 5, "wide": 70}


def net(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=size).astype("f8" if name == "wide" else "f4") for name, size in SIZES.items()}


class Swarm:
    """Three sites that train in rounds from a base, which the outer optimiser moves."""

    def __init__(self, folder: Path, outer: str = "momentum", in_place: bool = False) -> None:
        self.folder, self.outer, self.in_place = folder, outer, in_place
        self.state = folder / "state.onnx"
        self.options = shoal.MergeOptions(outer=outer)
        save_weights(net(99), self.base(0))

    def base(self, number: int) -> Path:
        return self.folder / ("base.onnx" if self.in_place else f"base{number}.onnx")

    def sites(self, number: int) -> list[Path]:
        paths = [self.folder / f"site{i}.onnx" for i in range(3)]
        for i, path in enumerate(paths):
            save_weights(net(10 * number + i), path)
        return paths

    def merge(self, number: int, **other: Any) -> shoal.Report:
        base = other.get("base", self.base(number))
        return shoal.merge_files(
            self.sites(number), self.base(number + 1), self.options, base=base, outer_state=self.state
        )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("site")}


def rounds(folder: Path, count: int, **how: Any) -> dict[str, bytes]:
    """What is there after so many undisturbed rounds."""
    folder.mkdir()
    swarm = Swarm(folder, **how)
    for number in range(count):
        swarm.merge(number)
    return contents(folder)


@pytest.mark.parametrize("outer", ["sgd", "momentum", "adam"])
def test_rounds_with_files_are_rounds_in_memory(outer: str, tmp_path: Path) -> None:
    swarm, memory, base = Swarm(tmp_path, outer), dict[str, Any](), net(99)
    for number in range(3):
        report = swarm.merge(number)
        base = shoal.merge([net(10 * number + i) for i in range(3)], base=base, outer=outer, outer_state=memory)
        with shoal.load(swarm.base(number + 1)) as found:
            for key, value in base.items():
                assert found[key].tobytes() == value.tobytes()
    with shoal.load(swarm.state) as state:
        assert set(state) == {*memory, f"{outer}/base"}
        for key, value in memory.items():
            assert state[key].tobytes() == value.tobytes() and state[key].shape == value.shape
        assert state[f"{outer}/base"].tobytes().hex() == report.digest
    assert not any("previous" in path.name or path.name.startswith(".") for path in tmp_path.iterdir())


def test_another_base_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path)
    digest = swarm.merge(0).digest
    before = contents(tmp_path)
    with pytest.raises(InputError, match=f"state.onnx: the state of momentum belongs to .*{digest[:16]}") as caught:
        swarm.merge(1, base=swarm.base(0))
    assert caught.value.code == "state.base" and "remove the file to start anew" in str(caught.value)
    assert contents(tmp_path) == before
    swarm.state.unlink()
    swarm.merge(1, base=swarm.base(0))
    with shoal.load(swarm.state) as state:
        assert state["momentum/step"] == 1


def test_the_base_may_be_stored_in_another_way(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path)
    swarm.merge(0)
    model = onnx.load(swarm.base(1))
    model.doc_string = "saved by another tool"
    model.graph.initializer.reverse()
    onnx.save(model, tmp_path / "again.onnx", save_as_external_data=True, location="again.data")
    swarm.merge(1, base=tmp_path / "again.onnx")


def test_a_state_of_another_optimiser_is_refused_and_stays(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path, "adam")
    swarm.merge(0)
    before = contents(tmp_path)
    swarm.options = shoal.MergeOptions(outer="yogi")
    with pytest.raises(InputError, match="state of a merge of this model with yogi") as caught:
        swarm.merge(1)
    assert caught.value.code == "outer.state"
    assert contents(tmp_path) == before


def test_a_state_of_unknown_base_goes_with_any(tmp_path: Path) -> None:
    """As a state that was kept in a dict meanwhile."""
    swarm = Swarm(tmp_path)
    swarm.merge(0)
    with shoal.load(swarm.state) as state:
        memory = {key: np.array(value) for key, value in state.items()}
    base = shoal.merge([net(1)], base=net(2), outer="momentum", outer_state=memory)
    assert not memory["momentum/base"].any()
    save_weights(memory, swarm.state)
    save_weights(base, swarm.base(1))
    swarm.merge(1)
    with shoal.load(swarm.state) as state:
        assert state["momentum/step"] == 3


class Crash(BaseException):
    """The process ends here."""


def crash(*_: Any, **__: Any) -> None:
    raise Crash


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("rounds_before", [0, 1])
@pytest.mark.parametrize("where", ["before the state", "before the output", "after the output"])
def test_a_crash_parts_no_base_from_its_state(
    where: str, rounds_before: int, in_place: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Go on with the base that is there: the same bytes as if nothing had happened."""
    expected = rounds(tmp_path / "expected", 3, in_place=in_place)
    (tmp_path / "crashed").mkdir()
    swarm = Swarm(tmp_path / "crashed", in_place=in_place)
    for number in range(rounds_before):
        swarm.merge(number)
    before = swarm.base(rounds_before).read_bytes()
    with monkeypatch.context() as patch:
        # As if the process were killed: nothing is tidied up, either.
        patch.setattr(state_module.FileMoments, "_remove_unused", lambda _: None)
        if where == "before the state":
            patch.setattr(state_module, "keep_previous", crash)
        elif where == "after the output":
            patch.setattr(state_module.FileMoments, "finish", crash)
        else:
            patch.setattr(files_module.FileSink, "digest", crash_at_commit(patch, files_module.FileSink.digest))
        with pytest.raises(Crash):
            swarm.merge(rounds_before)
    done = where == "after the output"
    assert (swarm.base(rounds_before + done).read_bytes() == before) is not done
    for number in range(rounds_before + done, 3):
        swarm.merge(number)
    assert contents(swarm.folder) == expected


def crash_at_commit(patch: pytest.MonkeyPatch, digest: Any) -> Any:
    """The output's commit, the second one, crashes; the state's, before it, does not."""

    def wrapped(sink: Any) -> Any:
        commit, times = ModelWriter.commit, []

        def counted(writer: ModelWriter, *arguments: Any) -> None:
            times.append(writer)
            if len(times) == 2:
                raise Crash
            commit(writer, *arguments)

        patch.setattr(ModelWriter, "commit", counted)
        return digest(sink)

    return wrapped


def test_a_repeated_round_after_a_crash_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output was written, but the caller does not know: the round before is still possible."""
    swarm = Swarm(tmp_path)
    swarm.merge(0)
    with monkeypatch.context() as patch:
        patch.setattr(state_module.FileMoments, "finish", crash)
        with pytest.raises(Crash):
            swarm.merge(1)
    written = contents(tmp_path)
    swarm.merge(1)
    del written["state.onnx.previous"]
    assert contents(tmp_path) == written


def test_a_removed_state_starts_anew_whatever_lies_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = Swarm(tmp_path)
    swarm.merge(0)
    with monkeypatch.context() as patch:
        patch.setattr(state_module.FileMoments, "finish", crash)
        with pytest.raises(Crash):
            swarm.merge(1)
    assert (tmp_path / "state.onnx.previous").exists()
    swarm.state.unlink()
    swarm.merge(1)
    with shoal.load(swarm.state) as state:
        assert state["momentum/step"] == 1
    assert not (tmp_path / "state.onnx.previous").exists()


def test_a_refused_merge_leaves_no_state(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path)
    paths = swarm.sites(0)
    save_weights({**net(1), "small": np.full(5, np.nan, "f4")}, paths[1])
    before = contents(tmp_path)
    with pytest.raises(InputError, match="NaN"):
        shoal.merge_files(paths, tmp_path / "out.onnx", swarm.options, base=swarm.base(0), outer_state=swarm.state)
    assert contents(tmp_path) == before


def test_a_state_larger_than_protobuf_keeps_its_data_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = Swarm(tmp_path)
    monkeypatch.setattr(weights, "EMBEDDED_BYTES_MAX", 500_000)
    before = set(contents(tmp_path))
    for number in range(3):
        swarm.merge(number)
        data = [name for name in set(contents(tmp_path)) - before if name.startswith("state.onnx.")]
        assert len(data) == 1 and data[0].endswith(".data") and "previous" not in data[0]
    with shoal.load(swarm.state) as state:
        assert state["momentum/step"] == 3


def test_a_file_system_without_second_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rounds(tmp_path / "expected", 2)
    (tmp_path / "here").mkdir()
    swarm = Swarm(tmp_path / "here")
    swarm.merge(0)
    link = os.link

    def refuse(source: Any, target: Any, **how: Any) -> None:
        if how:  # the outputs' own files, which have no name yet
            link(source, target, **how)
        else:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    swarm.merge(1)
    assert contents(swarm.folder) == expected


def test_no_room_for_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = Swarm(tmp_path)
    swarm.merge(0)
    before = contents(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MachineError, match=r"state.onnx.previous: No space left") as caught:
        swarm.merge(1)
    assert caught.value.code == "output.previous"
    assert contents(tmp_path) == before


def test_a_private_state_stays_private(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path)
    swarm.merge(0)
    swarm.state.chmod(0o600)
    swarm.merge(1)
    assert swarm.state.stat().st_mode & 0o777 == 0o600


def test_the_output_is_not_the_state(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path)
    with pytest.raises(ArgumentError, match="both the output and the optimiser's state"):
        shoal.merge_files(swarm.sites(0), swarm.state, swarm.options, base=swarm.base(0), outer_state=swarm.state)


def test_random_numbers_of_dare_as_documented(tmp_path: Path) -> None:
    """docs/FORMAT.md, "DARE's random numbers", with Philox written out."""
    density, seed, count = 0.3, 2**40 + 5, 1003
    base, model = np.zeros(count), np.ones(count)
    models = [{"layer.w": model}, {"layer.w": model * 2}]
    found = shoal.merge(models, base={"layer.w": base}, method="dare", density=density, seed=seed, weights=[1.0, 0.5])[
        "layer.w"
    ]
    expected = np.zeros(count)
    for place, weight in ((0, 1.0), (1, 0.5)):
        name = b"layer.w"
        key = hashlib.sha256(b"shoal dare 1\n" + struct.pack("<QQ", seed, place) + name).digest()
        words = b"".join(philox(block, *struct.unpack("<QQ", key[:16])) for block in range(1, count // 8 + 2))
        kept = np.frombuffer(words, "<u4")[:count] < int(density * 2**32)
        expected += weight * np.where(kept, models[place]["layer.w"] / density, 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    assert 0.2 < (expected > 0).mean() < 0.8


def philox(count: int, key0: int, key1: int) -> bytes:
    """Philox4x64-10 (Salmon et al. 2011): four words of 64 bits, little-endian."""
    mask = 2**64 - 1
    x = [count, 0, 0, 0]
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
        x = [(b >> 64) ^ x[1] ^ key0, b & mask, (a >> 64) ^ x[3] ^ key1, a & mask]
        key0, key1 = (key0 + 0x9E3779B97F4A7C15) & mask, (key1 + 0xBB67AE8584CAA73B) & mask
    return struct.pack("<4Q", *x)
