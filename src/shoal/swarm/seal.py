"""Sealing of chunks: AES-256-GCM under keys that two nodes agree on over their control connection.

Each control connection is worth one session.  Its two ends exchange fresh X25519 keys in frames that CURVE has
authenticated and hidden (RFC 7748), and forgets them.  From the shared secret come three values by HKDF-SHA256 (RFC
5869): a key for each direction, and the ticket with which the dialler's bulk connection is let in.  Both CURVE keys and
both exchanged keys go into the derivation, so a session belongs to these two nodes alone.

A key seals each nonce once: nonces count up from 0 and the receiver takes only higher ones than it has seen, so what is
replayed or out of order does not open (NIST SP 800-38D section 8.2.1; docs/adr/0012).

`Unsealed` stands in the place of both halves where a measurement asks what sealing costs.  It protects nothing.  No
frame of one kind is taken for the other: a node that seals refuses what is not sealed, and the other way round.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shoal.domain import labelled

TAG_BYTES: Final = 16
EXCHANGE_BYTES: Final = 32
COUNTER_BYTES: Final = 8
#: kind and counter
HEAD_BYTES: Final = 1 + COUNTER_BYTES
_KEY_BYTES: Final = 32
_DOMAIN: Final = b"swarm-bulk/v1/"
#: seals of one key; far below what GCM bears with counted nonces (2**64 blocks), far above any connection's life
SEALS_MAX: Final = 2**32
#: where the counter stands in a frame that is not sealed
_PLAIN_MARK: Final = b"unsealed"
assert len(_PLAIN_MARK) == COUNTER_BYTES and int.from_bytes(_PLAIN_MARK, "little") >= SEALS_MAX


class Exchange:
    """One half of an agreement, good for one session.  ``public``: 32 bytes, for the other side."""

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()

    def agree(self, other: bytes, dialler: tuple[bytes, bytes], listener: tuple[bytes, bytes]) -> tuple[bytes, ...]:
        """The values of the session with ``other``: key of the dialler, key of the listener, ticket; 32 bytes each.

        dialler, listener  (CURVE key, exchanged key) of each; one of the exchanged keys is ``public``, one ``other``
        raises             ValueError if ``other`` is no key, or one that makes the secret known to all
        """
        secret = self._private.exchange(X25519PublicKey.from_public_bytes(other))
        info = labelled(_DOMAIN, "session", *dialler, *listener)
        okm = HKDF(SHA256(), 3 * _KEY_BYTES, salt=None, info=info).derive(secret)
        return tuple(okm[i : i + _KEY_BYTES] for i in range(0, len(okm), _KEY_BYTES))


class Sealer:
    """Seals what goes in one direction."""

    def __init__(self, key: bytes, seals_max: int = SEALS_MAX) -> None:
        self._cipher = AESGCM(key)
        self._next = 0
        self._seals_max = seals_max

    @property
    def spent(self) -> bool:
        """The key must seal nothing more."""
        return self._next + 2 > self._seals_max

    def seal(self, kind: bytes, header: bytes, body: bytes | memoryview) -> tuple[bytes, bytes, memoryview]:
        """(kind || counter, sealed header, sealed body).  The header takes the nonce ``counter``, the body the next.

        Two seals, so that the body is read and written once; each is bound to kind and counter, the body to the header.
        """
        assert not self.spent
        count, self._next = self._next, self._next + 2
        head = kind + count.to_bytes(COUNTER_BYTES, "little")
        size = body.nbytes if isinstance(body, memoryview) else len(body)
        sealed = np.empty(size + TAG_BYTES, np.uint8).data
        self._cipher.encrypt_into(_nonce(count + 1), body, head + header, sealed)
        return head, self._cipher.encrypt(_nonce(count), header, head), sealed


class Opener:
    """Opens what comes from one direction."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._next = 0

    def open(self, head: bytes, header: memoryview, body: memoryview) -> tuple[bytes, memoryview] | None:
        """(header, body), the body in memory of its own; None if this was not sealed so by the other side, or came
        before.  Both parts hold at least a tag."""
        count = int.from_bytes(head[1:], "little")
        if len(head) != HEAD_BYTES or count < self._next or count >= SEALS_MAX:
            return None
        opened = np.empty(body.nbytes - TAG_BYTES, np.uint8).data
        try:
            plain = self._cipher.decrypt(_nonce(count), header, head)
            self._cipher.decrypt_into(_nonce(count + 1), body, head + plain, opened)
        except InvalidTag:
            return None
        self._next = count + 2
        return plain, opened.toreadonly()


def _nonce(count: int) -> bytes:
    return count.to_bytes(12, "big")


class Unsealed:
    """Parts as they are, in both directions.  As a counter, _PLAIN_MARK is above all that a sealer counts."""

    spent = False

    def seal(self, kind: bytes, header: bytes, body: bytes | memoryview) -> tuple[bytes, bytes, bytes | memoryview]:
        """(kind || mark, header, body): nothing is copied."""
        return kind + _PLAIN_MARK, header, body

    def open(self, head: bytes, header: memoryview, body: memoryview) -> tuple[bytes, memoryview] | None:
        """(header, body), the body where it lies; None if this is sealed."""
        return (header.tobytes(), body.toreadonly()) if head[1:] == _PLAIN_MARK else None


class Session:
    """What one node holds of an agreement.

    ticket  bytes  the dialler's bulk connection shows it; it lets in, it opens nothing
    sealed  bool   False: chunks go as they are, for measurements
    """

    def __init__(self, values: tuple[bytes, ...], *, dialled: bool, sealed: bool = True) -> None:
        of_dialler, of_listener, self.ticket = values
        self.sealer: Sealer | Unsealed = Sealer(of_dialler if dialled else of_listener) if sealed else Unsealed()
        self.opener: Opener | Unsealed = Opener(of_listener if dialled else of_dialler) if sealed else Unsealed()
