# SPDX-License-Identifier: GPL-2.0-or-later
"""POOL addresses (section 9): 32 bytes with a checksum, and the text form ``pool1:...``."""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import Final

from .constants import ADDRESS_SIZE
from .errors import DecodeError
from .wire import Buffer, offset_of, struct_of

ZERO_ADDRESS: Final = bytes(ADDRESS_SIZE)

_ADDRESS: Final = struct_of("address")
_CRC_OFFSET: Final = offset_of("address", "crc32")
_GROUPS: Final = (8, 16, 16, 16, 8)
_TEXT: Final = re.compile("pool1" + "".join(f":([0-9a-f]{{{size}}})" for size in _GROUPS))


def node_id_of(static_public_key: bytes) -> int:
    """The node_id bound to a static public key (ADDR-03)."""
    return int.from_bytes(hashlib.sha256(static_public_key).digest()[:8], "big")


def checksum_holds(address: Buffer) -> bool:
    """Whether 32 bytes carry the CRC-32 of their first 28 (ADDR-02)."""
    return len(address) == ADDRESS_SIZE and zlib.crc32(address[:_CRC_OFFSET]) == int.from_bytes(
        address[_CRC_OFFSET:], "big"
    )


def acceptable(address: Buffer) -> bool:
    """HS-12: all zero, or with a checksum that holds."""
    return bytes(address) == ZERO_ADDRESS or checksum_holds(address)


@dataclass(frozen=True, slots=True)
class Address:
    """An address without its checksum, which follows from the rest."""

    type_version: int
    org_id: int
    segment_id: int
    node_id: int

    def pack(self) -> bytes:
        """The 32 bytes of the wire; struct.error when a field does not fit."""
        body = _ADDRESS.pack(self.type_version, self.org_id, self.segment_id, self.node_id, 0)[:_CRC_OFFSET]
        return body + zlib.crc32(body).to_bytes(4, "big")

    @classmethod
    def unpack(cls, data: Buffer) -> Address:
        """DecodeError for a wrong length or checksum."""
        if len(data) != ADDRESS_SIZE:
            raise DecodeError(min(len(data), ADDRESS_SIZE), "address", f"{len(data)} bytes")
        if not checksum_holds(data):
            raise DecodeError(_CRC_OFFSET, "crc32", "wrong checksum")
        return cls(*_ADDRESS.unpack(data)[:4])

    def __str__(self) -> str:
        digits = self.pack().hex()
        groups = []
        start = 0
        for size in _GROUPS:
            groups.append(digits[start : start + size])
            start += size
        return "pool1:" + ":".join(groups)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read the text form; DecodeError unless it is exactly what :meth:`__str__` writes."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise DecodeError(0, "address", "not of the form pool1:8-16-16-16-8 lowercase hex digits")
        return cls.unpack(bytes.fromhex("".join(match.groups())))
