"""Merkle trees over digests: one root for many, and a short path that shows that one of them is among them.

    node(left, right) = H("node", left, right)          a last one without a partner goes up as it is

Leaves are digests under labels of their own, so no node passes for a leaf.  A path is checked for one index in a tree
of one size: it cannot be used for another place.
"""

from __future__ import annotations

from collections.abc import Sequence

from shoal.secure.kdf import DIGEST_BYTES, digest


def _level(nodes: Sequence[bytes]) -> list[bytes]:
    pairs = [digest("node", nodes[i], nodes[i + 1]) for i in range(0, len(nodes) - 1, 2)]
    return pairs + list(nodes[len(nodes) - len(nodes) % 2 :])


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over one or more leaves."""
    nodes = list(leaves)
    while len(nodes) > 1:
        nodes = _level(nodes)
    return nodes[0]


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The partners from leaf ``index`` up to the root, lowest first."""
    found, nodes = [], list(leaves)
    while len(nodes) > 1:
        if index ^ 1 < len(nodes):
            found.append(nodes[index ^ 1])
        nodes, index = _level(nodes), index // 2
    return found


def holds(root_: bytes, leaf: bytes, index: int, size: int, partners: Sequence[bytes]) -> bool:
    """Whether ``leaf`` is at ``index`` of the tree of ``size`` leaves with this root."""
    if not 0 <= index < size or any(len(p) != DIGEST_BYTES for p in partners):
        return False
    node, left = leaf, list(partners)
    while size > 1:
        if index ^ 1 < size:
            if not left:
                return False
            partner = left.pop(0)
            node = digest("node", partner, node) if index % 2 else digest("node", node, partner)
        index, size = index // 2, (size + 1) // 2
    return not left and node == root_
