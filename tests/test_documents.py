"""The documents are true: the README's commands run, and what it names exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README speaks of: three sites' models of one architecture, and test data."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(3)
    for name in ("site-a", "site-b", "site-c", "base"):
        weight = numpy_helper.from_array(rng.normal(size=(4, 1)).astype(np.float32), "fc.weight")
        bias = numpy_helper.from_array(rng.normal(size=1).astype(np.float32), "fc.bias")
        graph = helper.make_graph(
            [
                helper.make_node("Gemm", ["x", "fc.weight", "fc.bias"], ["logit"]),
                helper.make_node("Sigmoid", ["logit"], ["y"]),
            ],
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
            [weight, bias],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.save(model, folder / f"{name}.onnx")
    x = rng.normal(size=(200, 4)).astype(np.float32)
    np.savez(folder / "patients.npz", x=x, y=(x.sum(axis=1) > 0).astype(np.int64))
    (folder / "mine.py").write_text(
        "import shoal\n\n\n@shoal.rule\ndef midrange(values, weights):\n    return (values.min() + values.max()) / 2\n"
    )
    return folder


def shell_lines() -> list[str]:
    found = []
    for block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.split("   #")[0].strip()
            if command.startswith("shoal "):
                found.append(command)
    return found


def test_readme_shows_commands() -> None:
    assert len(shell_lines()) >= 4
    assert any("make demo" in b for b in blocks("sh")) and any("make test" in b for b in blocks("sh"))


@pytest.mark.parametrize("line", shell_lines())
def test_readme_commands_run(line: str, sites: Path) -> None:
    words = shlex.split(line)
    done = subprocess.run(
        [sys.executable, "-m", "shoal", *words[1:]],
        cwd=sites,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("code", blocks("python"))
def test_readme_python_runs(code: str, sites: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=sites,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_make_verbs_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for verb in set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE)):
        assert re.search(rf"^{verb}:", makefile, re.MULTILINE), f"the README says make {verb}"
