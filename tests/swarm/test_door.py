"""The door of a node: who comes in, and where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shoal.errors import MachineError
from shoal.swarm.door import SOCKET_FILE, Caller, Door, Look, Looked


class Standing:
    """A node that has nothing to tell."""

    def status(self) -> None:
        return None


@pytest.mark.parametrize("deep", [False, True], ids=["short path", "path of 400 bytes"])
def test_a_door_opens_wherever_the_folder_is(tmp_path: Path, deep: bool) -> None:
    folder = tmp_path / "/".join(["a" * 90] * 4) if deep else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    files = len(os.listdir("/proc/self/fd"))
    with Door(Standing(), folder):  # type: ignore[arg-type]
        assert (folder / SOCKET_FILE).stat().st_mode & 0o777 == 0o600
        with Caller(folder) as caller:
            caller.ask(Look())
            assert caller.answer(20.0) == Looked(None)
    assert not (folder / SOCKET_FILE).exists()
    assert len(os.listdir("/proc/self/fd")) == files


def test_nobody_at_home(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no node is running here"):
        Caller(tmp_path / "nowhere")
