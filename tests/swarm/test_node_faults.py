"""Faults inside a node: nobody waits for a thread that died, nor is told of a model that is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_node import RealSwarm

from shoal.errors import InputError, MachineError
from shoal.model.model import save
from shoal.swarm.door import Caller, Door, Submit, Taken
from shoal.swarm.shelf import Shelf


def test_a_node_that_breaks_says_so_and_ends_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RealSwarm(tmp_path, 3, True) as swarm:
        node = swarm.nodes[0]
        ticket = node.submit(dict(node.arrays), 10)

        def broken() -> None:
            raise ValueError("nobody thought of this")

        monkeypatch.setattr(node._peer, "turn", broken)
        with pytest.raises(MachineError, match="ValueError: nobody thought of this") as raised:
            ticket.wait(30)
        assert raised.value.code == "node.internal" and node.failed is raised.value
        with pytest.raises(MachineError):
            node.submit(dict(node.arrays), 10)


def test_the_door_does_not_name_a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_disk(*_: object) -> None:
        raise MachineError("node.write", "the disk is full")

    with RealSwarm(tmp_path, 3, False) as swarm, Door(swarm.nodes[0], tmp_path / "0"), Caller(tmp_path / "0") as caller:
        monkeypatch.setattr(Shelf, "keep", no_disk)
        save({**swarm.base, "w": swarm.base["w"] + np.float32(0.1)}, tmp_path / "local.onnx")
        caller.ask(Submit(str(tmp_path / "local.onnx"), 10))
        for node in swarm.nodes[1:]:
            node.submit(dict(node.arrays), 10)
        assert isinstance(caller.answer(30), Taken)
        with pytest.raises(InputError, match="the disk is full") as raised:
            caller.answer(60)
        assert raised.value.code == "node.kept"
