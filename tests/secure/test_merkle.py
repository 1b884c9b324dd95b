"""Merkle trees: every leaf's path shows it, and nothing else does."""

from __future__ import annotations

import pytest

from shoal.secure import merkle
from shoal.secure.kdf import digest

LEAVES = [digest("leaf", bytes([i])) for i in range(255)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 100, 255])
def test_paths(size: int) -> None:
    leaves = LEAVES[:size]
    top = merkle.root(leaves)
    for index in range(size):
        path = merkle.path(leaves, index)
        assert len(path) <= 8 and merkle.holds(top, leaves[index], index, size, path)
        other = (index + 1) % size
        if size > 1:
            assert not merkle.holds(top, leaves[other], index, size, path)
            assert not merkle.holds(top, leaves[index], other, size, path)
            assert not merkle.holds(top, leaves[index], index, size, path[:-1])
            flipped = [bytes([path[0][0] ^ 1]) + path[0][1:], *path[1:]]
            assert not merkle.holds(top, leaves[index], index, size, flipped)
        assert not merkle.holds(top, leaves[index], index, size, [*path, bytes(32)])
        assert not merkle.holds(top, leaves[index], size, size, path)
        assert not merkle.holds(top, leaves[index], -1, size, path)


def test_a_node_is_no_leaf() -> None:
    """The inner node of four leaves as the leaf of a tree of two."""
    left, right = merkle.root(LEAVES[:2]), merkle.root(LEAVES[2:4])
    top = merkle.root(LEAVES[:4])
    assert top == digest("node", left, right)
    assert not merkle.holds(top, left, 0, 4, [right])


def test_paths_of_wrong_lengths_are_no_paths() -> None:
    assert not merkle.holds(merkle.root(LEAVES[:2]), LEAVES[0], 0, 2, [b"short"])
    assert not merkle.holds(merkle.root(LEAVES[:2]), LEAVES[0], 0, 2, [])
