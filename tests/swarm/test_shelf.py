"""The model files of a node: what was voted for survives, what is certified takes its place, what is half is not used."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_node import RealSwarm

from shoal import failpoint
from shoal.errors import MachineError
from shoal.merge.outer import find_outer
from shoal.model.model import Model, load, save
from shoal.swarm.carried import Carried, CarriedForm
from shoal.swarm.node import Times
from shoal.swarm.shelf import CARRIED_FILE, MODEL_FILE, NEXT_CARRIED_FILE, NEXT_FILE, Shelf

RMS = np.array([0.25, 0.5])


def arrays(seed: int) -> dict[str, np.ndarray]:
    return {"w": np.random.default_rng(seed).standard_normal(300).astype(np.float32), "n": np.array([3], np.int64)}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    save(arrays(0), tmp_path / "base.onnx")
    return tmp_path / "base.onnx"


def test_the_first_start_copies_the_base(base: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    book = Shelf(tmp_path / "data", base).open_book()
    assert book.digest == Model.from_tensors(arrays(0)).digest() and book.rms is None
    save(arrays(1), base)
    assert Shelf(tmp_path / "data", base).open_book().digest == book.digest


def test_a_model_that_was_voted_for_is_there_after_a_restart(base: Path, tmp_path: Path) -> None:
    book = Shelf(tmp_path, base).open_book()
    digest, beside = book.settle(np.full(300, 0.5, np.float32), RMS)
    again = Shelf(tmp_path, base).open_book()
    assert again.digest == book.digest
    assert again.adopt(digest, beside) and np.array_equal(again.rms, RMS)
    assert np.array_equal(again.arrays["w"], arrays(0)["w"] + np.float32(0.5))


def test_a_certified_model_takes_the_place_of_the_last(base: Path, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, base)
    book = shelf.open_book()
    for _ in range(3):
        digest, beside = book.settle(np.full(300, 0.5, np.float32), RMS)
        assert book.adopt(digest, beside)
        shelf.keep(digest, book.arrays, book.carried)
        again = Shelf(tmp_path, base).open_book()
        assert again.digest == digest and np.array_equal(again.rms, RMS)
        assert not (tmp_path / NEXT_FILE).exists() and not (tmp_path / NEXT_CARRIED_FILE).exists()


def test_a_model_from_a_peer_is_kept_too(base: Path, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, base)
    book = shelf.open_book()
    book.settle(np.full(300, 0.5, np.float32), RMS)  # another one was certified
    digest = Model.from_tensors(arrays(2)).digest()
    shelf.keep(digest, arrays(2), CarriedForm(book.layout).pack(Carried(RMS * 2)))
    again = Shelf(tmp_path, base).open_book()
    assert again.digest == digest and np.array_equal(again.rms, RMS * 2)


def test_models_with_a_data_file(tmp_path: Path) -> None:
    """Values beside the model: the file's name is in the model, so it is written anew."""
    save(arrays(0), tmp_path / "plain.onnx")
    onnx.save_model(
        onnx.load(tmp_path / "plain.onnx"), tmp_path / "base.onnx", save_as_external_data=True, location="base.bin",
        size_threshold=0,
    )  # fmt: skip
    (tmp_path / "data").mkdir()
    shelf = Shelf(tmp_path / "data", tmp_path / "base.onnx")
    book = shelf.open_book()
    for _ in range(2):
        digest, beside = book.settle(np.full(300, 0.25, np.float32), None)
        assert Shelf(tmp_path / "data", tmp_path / "base.onnx").open_book().adopt(digest, beside)
        assert book.adopt(digest, beside)
        shelf.keep(digest, book.arrays, book.carried)
        with load(tmp_path / "data" / MODEL_FILE) as kept:
            assert kept.digest() == digest


@pytest.mark.parametrize("damage", [b"", b"no model", None])
def test_what_is_half_is_not_used(base: Path, tmp_path: Path, damage: bytes | None) -> None:
    Shelf(tmp_path, base).open_book().settle(np.full(300, 0.5, np.float32), RMS)
    whole = (tmp_path / NEXT_FILE).read_bytes()
    (tmp_path / NEXT_FILE).write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    book = Shelf(tmp_path, base).open_book()
    assert book.digest == Model.from_tensors(arrays(0)).digest()
    digest = Model.from_tensors({**arrays(0), "w": arrays(0)["w"] + np.float32(0.5)}).digest()
    assert not book.adopt(digest, CarriedForm(book.layout).digest(Carried(RMS)))


@pytest.mark.parametrize("damage", ["cut", "bit", "gone"])
def test_a_damaged_memory_is_not_used(base: Path, tmp_path: Path, damage: str) -> None:
    """The model is there, but not what belongs to it: the node fetches both from a peer."""
    shelf, adam = Shelf(tmp_path, base), find_outer("adam", {})
    book = shelf.open_book(adam)
    digest, beside = book.settle(np.full(300, 0.5, np.float32), RMS)
    assert book.adopt(digest, beside)
    shelf.keep(digest, book.arrays, book.carried)
    assert Shelf(tmp_path, base).open_book(adam).holds(digest, beside)
    file = tmp_path / CARRIED_FILE
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[:-1], "bit": whole[:-9] + b"x" + whole[-8:], "gone": b""}[damage])
    book = Shelf(tmp_path, base).open_book(adam)
    assert book.digest == digest and not book.holds(digest, beside)


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", ["node.rename.before", "node.rename.after"])
def test_a_fall_between_two_names(base: Path, tmp_path: Path, point: str, nth: int) -> None:
    """Wherever it stops, the certified model can be had, and with it its statistics."""
    shelf = Shelf(tmp_path, base)
    book = shelf.open_book()
    digest, beside = book.settle(np.full(300, 0.5, np.float32), RMS)
    assert book.adopt(digest, beside)
    failpoint.arm(f"{point}:{nth}:error")
    try:
        with pytest.raises(MachineError, match=point):
            shelf.keep(digest, book.arrays, book.carried)
    finally:
        failpoint.arm("")
    assert (tmp_path / CARRIED_FILE).exists() == (nth == 2 or point.endswith("after"))
    goes_on(base, tmp_path, digest, beside)


@pytest.mark.parametrize("point", ["statistics.rename.before", "model.rename.before", "model.rename.after"])
def test_a_fall_before_the_vote(base: Path, tmp_path: Path, point: str) -> None:
    """Whatever is there then, it is the whole model with what it carries, or not used."""
    book = Shelf(tmp_path, base).open_book()
    failpoint.arm(f"{point}:1:error")
    try:
        with pytest.raises(MachineError, match=point):
            book.settle(np.full(300, 0.5, np.float32), RMS)
    finally:
        failpoint.arm("")
    again = Shelf(tmp_path, base)
    book = again.open_book()
    assert book.digest == Model.from_tensors(arrays(0)).digest()
    digest = Model.from_tensors({**arrays(0), "w": arrays(0)["w"] + np.float32(0.5)}).digest()
    beside = CarriedForm(book.layout).digest(Carried(RMS))
    if point == "model.rename.after":
        goes_on(base, tmp_path, digest, beside)
    else:
        assert not book.adopt(digest, beside)


def goes_on(base: Path, folder: Path, digest: bytes, beside: bytes) -> None:
    """An earlier life has left this model: it is adopted, kept, and there for the next life."""
    shelf = Shelf(folder, base)
    book = shelf.open_book()
    assert book.adopt(digest, beside) and np.array_equal(book.rms, RMS)
    shelf.keep(digest, book.arrays, book.carried)
    assert Shelf(folder, base).open_book().holds(digest, beside)
    assert not (folder / NEXT_FILE).exists() and not (folder / NEXT_CARRIED_FILE).exists()


def test_a_certified_model_outlives_the_fall_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets as far as to name it; all come back, and go on from it."""

    def no_disk(*_: object) -> None:
        raise MachineError("node.write", "the disk is full")

    with RealSwarm(tmp_path, 3, True) as swarm:
        with monkeypatch.context() as patch:
            patch.setattr(Shelf, "keep", no_disk)
            noise = 0.1 * np.random.default_rng(3).standard_normal((3, 3000)).astype(np.float32)
            tickets = [
                n.submit({**n.arrays, "w": n.arrays["w"] + e}, 9) for n, e in zip(swarm.nodes, noise, strict=True)
            ]
            assert [t.wait(60).lost for t in tickets] == ["the disk is full"] * 3
            for node in swarm.nodes:
                node.stop()
        for i in range(3):
            with load(tmp_path / str(i) / MODEL_FILE) as kept:
                assert np.array_equal(kept["w"], swarm.base["w"])
            swarm.restart(i)
        # Not before the model that was voted for is in force: an update of the one before would be void.
        while not all((status := node.status()) and status.round and not status.behind for node in swarm.nodes):
            time.sleep(0.02)
        merged = swarm.round(1)
        assert all(np.array_equal(m["w"], merged[0]["w"]) for m in merged)
        assert swarm.nodes[0].status().round == 2


def test_who_has_no_room_for_a_model_does_not_take_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told where it hands in; if the disk fills in the middle, the next attempt is without it."""
    monkeypatch.setattr("test_node.TIMES", Times(tick_s=0.02, election_s=0.3, progress_s=1.0, muster_s=1.0))

    def no_room(*_: object) -> None:
        raise MachineError("output.disk_full", "no room")

    with RealSwarm(tmp_path, 3, False) as swarm:
        with monkeypatch.context() as patch:
            patch.setattr(swarm.nodes[0]._shelf, "check_room", no_room)
            with pytest.raises(MachineError, match="no room"):
                swarm.nodes[0].submit(dict(swarm.nodes[0].arrays), 10)
        monkeypatch.setattr(swarm.nodes[0]._peer.book, "keep", no_room)
        tickets = [n.submit({**n.arrays, "w": n.arrays["w"] + np.float32(0.5)}, 10) for n in swarm.nodes]
        assert [t.wait(60).took_part for t in tickets] == [False, True, True]
        assert swarm.nodes[1].status().round == 1


def test_room_is_asked_for_before_it_is_needed(base: Path, tmp_path: Path) -> None:
    import resource

    shelf = Shelf(tmp_path, base)
    shelf.check_room()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(MachineError) as raised:
            shelf.check_room()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.code == "output.disk_full"
    assert {path.name for path in tmp_path.iterdir()} == {"base.onnx", MODEL_FILE}
