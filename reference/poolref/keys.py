# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of one epoch of a session, packet protection with them (section 6), and the step to the next epoch
(RK-02).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from . import crypto, wire
from .constants import HEADER_SIZE, KEY_SIZE, NONCE_PREFIX_SIZE, VERSION, Flag
from .dialect import SPEC, Dialect
from .keylog import KeylogEntry
from .wire import Buffer, Header

_NONCE: Final = {"big": Struct(">4sQ"), "little": Struct("<4sQ")}
_ENCRYPTED: Final = int(Flag.ENCRYPTED)
_NO_HMAC: Final = wire.ZERO_HMAC
_ERASED: Final = "the keys were erased"
_HMAC_END: Final = wire.HMAC_OFFSET + len(wire.ZERO_HMAC)


class Keys:
    """``shared`` and what KEY-02 and section 16 derive from it.  One set serves both directions.

    Key material sits in bytearrays that :meth:`erase` overwrites; copies made inside the cryptographic
    library are beyond reach and go when its objects do.
    """

    __slots__ = (
        "_aead",
        "_mac",
        "_nonce",
        "_prefix",
        "epoch",
        "halves",
        "hmac_key",
        "k_int",
        "k_int_mac",
        "seq_key",
        "session_key",
        "shared",
    )

    def __init__(self, shared: Buffer, *, epoch: int = 0, dialect: Dialect = SPEC) -> None:
        self.epoch = epoch
        self.halves: tuple[bytearray, bytes] | None = None
        """This side's private and the peer's public key, where a dialect goes on from them (E-94)."""
        self.shared = bytearray(shared)
        self.session_key = bytearray(crypto.hkdf(shared, b"pool-session-key", KEY_SIZE))
        self.hmac_key = bytearray(crypto.hkdf(shared, b"pool-hmac-key", KEY_SIZE))
        self.seq_key = bytearray(crypto.hkdf(shared, b"pool-seq-key", KEY_SIZE))
        self.k_int = bytearray(crypto.hkdf(shared, b"pool-integrity-key", KEY_SIZE))
        self.k_int_mac = bytearray(crypto.hkdf(shared, b"pool-integrity-mac", KEY_SIZE))
        self._aead: crypto.ChaCha20Poly1305 | None = crypto.ChaCha20Poly1305(self.session_key)
        self._mac: crypto.Mac | None = crypto.Mac(self.hmac_key)
        self._prefix = bytes(self.hmac_key[:NONCE_PREFIX_SIZE])
        self._nonce = _NONCE[dialect.nonce_seq_order]

    @classmethod
    def from_log(cls, entry: KeylogEntry, *, dialect: Dialect = SPEC) -> Keys:
        """Keys out of a key log: they verify, open and seal, but have no ``shared`` to go on from."""
        keys = cls.__new__(cls)
        keys.epoch = entry.epoch
        keys.halves = None
        keys.shared, keys.seq_key, keys.k_int, keys.k_int_mac = (bytearray() for _ in range(4))
        keys.session_key, keys.hmac_key = bytearray(entry.session_key), bytearray(entry.hmac_key)
        keys._aead = crypto.ChaCha20Poly1305(keys.session_key)
        keys._mac = crypto.Mac(keys.hmac_key)
        keys._prefix = bytes(keys.hmac_key[:NONCE_PREFIX_SIZE])
        keys._nonce = _NONCE[dialect.nonce_seq_order]
        return keys

    def successor(self, private: Buffer, peer_public: Buffer) -> Keys:
        """The keys of the next epoch, from one's own new private key and the peer's new public one (RK-02);
        LowOrderKey when their X25519 result is zero (RK-03).
        """
        secret = bytearray(crypto.exchange(private, peer_public)) + self.shared
        shared = bytearray(crypto.hkdf(secret, b"pool-rekey", KEY_SIZE))
        secret[:] = bytes(len(secret))
        keys = Keys(shared, epoch=self.epoch + 1)
        keys._nonce = self._nonce
        shared[:] = bytes(len(shared))
        return keys

    @property
    def usable(self) -> bool:
        """False once erased."""
        return self._aead is not None

    def nonce(self, seq: int) -> bytes:
        """SEAL-02: hmac_key[0:4] followed by the seq, 12 bytes."""
        return self._nonce.pack(self._prefix, seq)

    def seal(self, seq: int, plaintext: Buffer) -> bytes:
        """SEAL-01: the sealed payload; nothing for an empty plaintext (WIRE-08)."""
        if self._aead is None:
            raise ValueError(_ERASED)
        return self._aead.encrypt(self._nonce.pack(self._prefix, seq), plaintext, None) if plaintext else b""

    def open(self, seq: int, payload: Buffer) -> bytes | None:
        """The plaintext; None when the tag is wrong."""
        if self._aead is None:
            raise ValueError(_ERASED)
        if not payload:
            return b""
        try:
            return self._aead.decrypt(self._nonce.pack(self._prefix, seq), payload, None)
        except crypto.InvalidTag:
            return None

    def sign(self, header: Header, payload: Buffer) -> bytes:
        """The packet for a header and its payload as on the wire: fills in payload_len and hmac (SEAL-03)."""
        if self._mac is None:
            raise ValueError(_ERASED)
        header.payload_len = len(payload)
        header.hmac = wire.ZERO_HMAC
        unsigned = header.pack()
        header.hmac = self._mac.digest(unsigned, payload)
        return unsigned[: wire.HMAC_OFFSET] + header.hmac + payload

    def protect(self, header: Header, plaintext: Buffer = b"") -> bytes:
        """Seal and sign: the whole packet; sets or clears ENCRYPTED as WIRE-08 asks."""
        if plaintext:
            header.flags |= _ENCRYPTED
        else:
            header.flags &= ~_ENCRYPTED
        return self.sign(header, self.seal(header.seq, plaintext))

    def packet(
        self,
        type: int,
        flags: int,
        seq: int,
        ack: int,
        session_id: bytes,
        timestamp: int,
        channel: int,
        plaintext: Buffer,
        version: int = VERSION,
    ) -> bytes:
        """The same as :meth:`protect` without a Header to fill in and read again, for every packet sent."""
        if self._aead is None or self._mac is None:
            raise ValueError(_ERASED)
        payload = b""
        flags &= ~_ENCRYPTED
        if plaintext:
            payload = self._aead.encrypt(self._nonce.pack(self._prefix, seq), plaintext, None)
            flags |= _ENCRYPTED
        unsigned = wire.pack_header(
            version << 4 | type, 0, flags, seq, ack, session_id, timestamp, len(payload), channel, 0, _NO_HMAC
        )
        return unsigned[: wire.HMAC_OFFSET] + self._mac.digest(unsigned, payload) + payload

    def authentic(self, packet: bytes) -> bool:
        """Whether a whole packet carries the right hmac (compared in constant time); False once erased."""
        if self._mac is None:
            return False
        expected = self._mac.digest(packet[: wire.HMAC_OFFSET] + wire.ZERO_HMAC, packet[HEADER_SIZE:])
        return crypto.constant_time_equal(expected, packet[wire.HMAC_OFFSET : _HMAC_END])

    def log_entry(self, session_id: bytes) -> KeylogEntry:
        """What a key log says about these keys."""
        return KeylogEntry(session_id, self.epoch, bytes(self.session_key), bytes(self.hmac_key))

    def erase(self) -> None:
        """Overwrite all key material; idempotent."""
        for secret in (
            self.shared, self.session_key, self.hmac_key, self.seq_key, self.k_int, self.k_int_mac
        ):  # fmt: skip
            secret[:] = bytes(len(secret))
        if self.halves is not None:
            self.halves[0][:] = bytes(KEY_SIZE)
            self.halves = None
        self._prefix = b""
        self._aead = None
        self._mac = None
