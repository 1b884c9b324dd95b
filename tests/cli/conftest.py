"""Small models, and the command line called in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_nets import save_net


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def error(self) -> str:
        """The one line of an error; fails if there is more, or a traceback."""
        assert self.code == 1, self
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].isprintable(), self.err
        return lines[0]


@pytest.fixture
def shoal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Call `shoal WORDS`; its exit code and what it printed."""
    from shoal.cli import main

    monkeypatch.delenv("SHOAL_DEBUG", raising=False)

    def call(*words: object) -> Done:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["shoal", *(str(w) for w in words)])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        with pytest.raises(SystemExit) as left:
            main.run()
        printed = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Done(left.value.code, printed.out, printed.err)

    return call


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """a.onnx, b.onnx, c.onnx and base.onnx in the current folder; the weights of the first three and the base."""
    monkeypatch.chdir(tmp_path)
    return [save_net(tmp_path / f"{name}.onnx", seed) for seed, name in enumerate(["a", "b", "c", "base"])]
