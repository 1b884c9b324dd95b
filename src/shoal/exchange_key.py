"""Public keys for key agreement on Curve25519 (X25519, and CURVE of ZeroMQ): which bytes can be one.

Source: RFC 7748, section 6.1; the points of small order are those of Curve25519 and its twist.
"""

from __future__ import annotations

from typing import Final

KEY_BYTES: Final = 32
_P: Final = 2**255 - 19
_SMALL_ORDER_U: Final = frozenset(
    (
        0,
        1,
        _P - 1,
        int.from_bytes(bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), "little"),
        int.from_bytes(bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"), "little"),
    )
)


def exchange_key_fault(public_key: bytes, what: str) -> str:
    """Why these bytes cannot be an X25519 or CURVE public key called ``what``; "" if they can."""
    if len(public_key) != KEY_BYTES:
        return f"{what} has {len(public_key)} bytes, expected {KEY_BYTES}"
    u = int.from_bytes(public_key, "little")
    if u >= _P:  # also: the top bit is set, which RFC 7748 ignores; two spellings of one key must not pass
        return f"{what} is not in canonical form"
    if u in _SMALL_ORDER_U:
        return f"{what} is a point of small order"
    return ""
