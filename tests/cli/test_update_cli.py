"""shoal diff, shoal apply, and shoal inspect of an update file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper
from small_nets import save_net, weight_of

from shoal.ledger.key_file import create_key_file


def test_there_and_back(shoal: Callable, nets: list[np.ndarray]) -> None:
    done = shoal("diff", "base.onnx", "a.onnx", "-o", "a.shoal", "--bits", 32, "--samples", 812)
    assert done.code == 0 and "1 tensors, 3 numbers" in done.out and "-> a.shoal" in done.out and not done.err
    done = shoal("apply", "base.onnx", "a.shoal", "-o", "out.onnx")
    assert done.code == 0 and "1 update" in done.out
    assert np.allclose(weight_of("out.onnx"), nets[0], rtol=0, atol=1e-6)


def test_mean_by_samples_and_by_weights(shoal: Callable, nets: list[np.ndarray]) -> None:
    for name, samples in (("a", 300), ("b", 100)):
        assert (
            shoal("diff", "base.onnx", f"{name}.onnx", "-o", f"{name}.shoal", "--codec", "float32", "-n", samples).code
            == 0
        )
    found = shoal("apply", "base.onnx", "a.shoal", "b.shoal", "-o", "out.onnx", "--format", "json").json
    assert (found["weighted_by"], found["weights"], found["tensors"]) == ("samples", [300, 100], 1)
    assert np.allclose(weight_of("out.onnx"), np.average(nets[:2], axis=0, weights=[3, 1]), rtol=0, atol=1e-6)
    assert shoal("inspect", "out.onnx", "--format", "json").json["digest"] == found["digest"]
    assert "by samples" in shoal("apply", "base.onnx", "a.shoal", "b.shoal", "-o", "out.onnx").out
    assert shoal("apply", "base.onnx", "a.shoal", "b.shoal", "-o", "out.onnx", "--weights", "1,1", "-q").out == ""
    assert np.allclose(weight_of("out.onnx"), np.mean(nets[:2], axis=0), rtol=0, atol=1e-6)


def test_the_default_is_eight_bits(shoal: Callable, nets: list[np.ndarray]) -> None:
    assert shoal("diff", "base.onnx", "a.onnx", "-o", "a.shoal", "--format", "json").json["codec"] == "eden-8"
    for bits, codec in ((1, "eden-1"), (4, "eden-4"), (16, "float16"), (32, "float32")):
        found = shoal("diff", "base.onnx", "a.onnx", "-o", "a.shoal", "-b", bits, "--format", "json").json
        assert found["codec"] == codec and found["file_bytes"] == Path("a.shoal").stat().st_size


def test_seed(shoal: Callable, nets: list[np.ndarray]) -> None:
    data = []
    for name in ("x", "y"):
        shoal("diff", "base.onnx", "a.onnx", "-o", f"{name}.shoal", "--seed", 7, "--bits", 1)
        data.append(Path(f"{name}.shoal").read_bytes())
    assert data[0] == data[1]


def test_inspect(shoal: Callable, nets: list[np.ndarray]) -> None:
    shoal("diff", "base.onnx", "a.onnx", "-o", "a.shoal", "--bits", 32, "--samples", 5)
    found = shoal("inspect", "a.shoal", "--format", "json").json
    base = shoal("inspect", "base.onnx", "--format", "json").json
    assert (found["kind"], found["codec"], found["samples"], found["numbers"]) == ("update", "float32", 5, 3)
    assert (found["base"], found["model_bytes"]) == (base["digest"], 12)
    assert found["file_bytes"] == Path("a.shoal").stat().st_size and found["of_model"] == found["file_bytes"] / 12
    assert found["author"] is None and found["signature_holds"] is None and found["local"] == []
    assert found["tensors"] == [{"name": "w", "dtype": "float32", "shape": [3, 1], "numbers": 3}]
    done = shoal("inspect", "a.shoal")
    assert done.code == 0 and found["base"] in done.out and "float32" in done.out and "signature none" in done.out


def test_inspect_says_how_near_it_comes(shoal: Callable, nets: list[np.ndarray]) -> None:
    large = [np.random.default_rng(seed).normal(size=5000).astype(np.float32) for seed in (1, 2)]
    for name, more in zip(("x", "y"), large, strict=True):
        save_net(Path(f"{name}.onnx"), 0, more=[numpy_helper.from_array(more, "large")])
    shoal("diff", "x.onnx", "y.onnx", "-o", "u.shoal", "--bits", 2)
    found = shoal("inspect", "u.shoal", "--base", "x.onnx", "--new", "y.onnx", "--format", "json").json
    assert found["nmse"] == pytest.approx(0.133, rel=0.1)
    assert found["norm"] == pytest.approx(float(np.linalg.norm(large[1] - large[0])), rel=1e-5)
    assert "nmse      0.1" in shoal("inspect", "u.shoal", "--base", "x.onnx", "--new", "y.onnx").out
    assert "made from the base" in shoal("inspect", "u.shoal", "--base", "y.onnx", "--new", "x.onnx").error()
    shoal("diff", "x.onnx", "x.onnx", "-o", "same.shoal")
    assert "no difference" in shoal("inspect", "same.shoal", "--base", "x.onnx", "--new", "x.onnx").out


def test_signature(shoal: Callable, nets: list[np.ndarray]) -> None:
    identity = create_key_file(Path("site.key"))
    found = shoal("diff", "base.onnx", "a.onnx", "-o", "a.shoal", "--sign", "site.key", "--format", "json").json
    assert found["signed"] is True
    found = shoal("inspect", "a.shoal", "--format", "json").json
    assert found["author"] == identity.public.hex() and found["signature_holds"] is True
    assert "holds" in shoal("inspect", "a.shoal").out
    assert shoal("apply", "base.onnx", "a.shoal", "-o", "out.onnx").code == 0
    data = bytearray(Path("a.shoal").read_bytes())
    data[-1] ^= 1
    Path("a.shoal").write_bytes(data)
    assert "DOES NOT HOLD" in shoal("inspect", "a.shoal").out
    Path("out.onnx").write_bytes(b"old")
    assert "a.shoal: the signature by" in shoal("apply", "base.onnx", "a.shoal", "-o", "out.onnx").error()
    assert Path("out.onnx").read_bytes() == b"old"
    Path("site.key").chmod(0o644)
    assert "site.key" in shoal("diff", "base.onnx", "a.onnx", "-o", "a.shoal", "--sign", "site.key").error()


def test_local_tensors(shoal: Callable, nets: list[np.ndarray]) -> None:
    for name, count in (("x", 1), ("y", 2)):
        save_net(Path(f"{name}.onnx"), count, more=[numpy_helper.from_array(np.array([count]), "steps")])
    error = shoal("diff", "x.onnx", "y.onnx", "-o", "u.shoal").error()
    assert "y.onnx: tensor steps of int64" in error and "--exclude" in error and not Path("u.shoal").exists()
    done = shoal("diff", "x.onnx", "y.onnx", "-o", "u.shoal", "--exclude", "step*")
    assert done.code == 0 and "1 kept local" in done.out
    assert shoal("inspect", "u.shoal", "--format", "json").json["local"] == ["steps"]
    assert "1 tensors are left alone" in shoal("inspect", "u.shoal").out
    assert shoal("apply", "x.onnx", "u.shoal", "-o", "out.onnx").code == 0
    assert weight_of("out.onnx", "steps") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["diff", "base.onnx", "a.onnx"],
        ["diff", "base.onnx", "-o", "u.shoal"],
        ["diff", "base.onnx", "a.onnx", "-o", "u.shoal", "--bits", 4, "--codec", "int4"],
        ["diff", "base.onnx", "a.onnx", "-o", "u.shoal", "--bits", "four"],
        ["apply", "base.onnx", "u.shoal"],
        ["apply", "base.onnx", "-o", "out.onnx"],
        ["inspect", "a.onnx", "--base", "base.onnx", "--new", "a.onnx"],
        ["inspect", "a.onnx", "--base", "base.onnx"],
    ],
)
def test_wrong_usage(words: list[object], shoal: Callable, nets: list[np.ndarray]) -> None:
    done = shoal(*words)
    assert done.code == 2 and done.err.startswith("error: ") and not Path("u.shoal").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["diff", "base.onnx", "gone.onnx", "-o", "u.shoal"], "gone.onnx: is not there"),
        (["diff", "base.onnx", "a.onnx", "-o", "no/u.shoal"], "folder no is not there"),
        (["diff", "base.onnx", "a.onnx", "-o", "a.onnx"], "output a.onnx is one of the models"),
        (["diff", "base.onnx", "a.onnx", "-o", "u.shoal", "--bits", 5], "bits is 5"),
        (["diff", "base.onnx", "a.onnx", "-o", "u.shoal", "--codec", "zip"], "codec 'zip' is unknown"),
        (["diff", "base.onnx", "a.onnx", "-o", "u.shoal", "--samples", 0], "samples is 0"),
        (["diff", "base.onnx", "a.onnx", "-o", "u.shoal", "--exclude", "*"], "nothing to diff"),
        (["diff", "base.onnx", "a.onnx", "-o", "u.shoal", "--sign", "a.onnx"], "a.onnx"),
        (["apply", "base.onnx", "a.onnx", "-o", "out.onnx"], "a.onnx: not an update file"),
        (["apply", "base.onnx", "gone.shoal", "-o", "out.onnx"], "gone.shoal: is not there; expected an update file"),
        (["apply", "a.onnx", "ok.shoal", "-o", "out.onnx"], "ok.shoal was made from the base"),
        (["apply", "ok.shoal", "ok.shoal", "-o", "out.onnx"], "ok.shoal"),
        (["apply", "base.onnx", "ok.shoal", "-o", "out.onnx", "--weights", "1,2"], "2 weights given for 1 updates"),
        (["apply", "base.onnx", "ok.shoal", "-o", "out.onnx", "--weights", "x"], "'x'"),
        (["apply", "base.onnx", "cut.shoal", "-o", "out.onnx"], "cut.shoal: ends within"),
        (["inspect", "cut.shoal"], "cut.shoal: ends within"),
        (["inspect", "flipped.shoal"], "flipped.shoal: "),
        (["inspect", "."], "is a directory"),
    ],
)
def test_refused(words: list[object], said: str, shoal: Callable, nets: list[np.ndarray]) -> None:
    shoal("diff", "base.onnx", "b.onnx", "-o", "ok.shoal")
    data = Path("ok.shoal").read_bytes()
    Path("cut.shoal").write_bytes(data[:-1])
    Path("flipped.shoal").write_bytes(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    assert said in shoal(*words).error()
    assert not Path("u.shoal").exists() and not Path("out.onnx").exists()
    assert shoal(*words, "--format", "json").json["error"]["code"]


def test_hostile_names_are_shown_escaped(shoal: Callable, tmp_path: Path) -> None:
    for name, seed in (("x", 1), ("y", 2)):
        save_net(tmp_path / f"{name}.onnx", seed, name="[red]w\x1b[2J\u202e")
    assert shoal("diff", tmp_path / "x.onnx", tmp_path / "y.onnx", "-o", tmp_path / "u.shoal").code == 0
    done = shoal("inspect", tmp_path / "u.shoal")
    assert done.code == 0 and r"[red]w\x1b[2J\u202e" in done.out and "\x1b" not in done.out
