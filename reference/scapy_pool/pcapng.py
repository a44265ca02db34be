# SPDX-License-Identifier: GPL-2.0-or-later
"""Key logs inside pcapng captures: Decryption Secrets Blocks of type "POOL"."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from poolref.errors import DecodeError

MAGIC: Final = bytes.fromhex("0a0d0d0a")
"""The first bytes of every pcapng file, whichever its byte order."""
SECRETS_TYPE: Final = int.from_bytes(b"POOL", "big")

_ORDERS: Final = {bytes.fromhex("4d3c2b1a"): "<", bytes.fromhex("1a2b3c4d"): ">"}
_SECRETS_BLOCK: Final = 0x0A


def key_logs(file: BinaryIO) -> Iterator[str]:
    """The text of each key log in a pcapng file read from its start; DecodeError where it is none."""
    order = ""
    offset = 0
    while head := file.read(8):
        if head[:4] == MAGIC:
            order = _ORDERS.get(file.read(4), "")
            file.seek(offset + 8)
        if not order or len(head) < 8:
            raise DecodeError(offset, "block", "not pcapng")
        kind, length = struct.unpack(order + "II", head)
        if length < 12 or length % 4:
            raise DecodeError(offset, "block", f"a length of {length}")
        if kind == _SECRETS_BLOCK:
            yield from _pool_secrets(file.read(length - 12), order, offset)
        offset += length
        file.seek(offset)


def _pool_secrets(body: bytes, order: str, offset: int) -> Iterator[str]:
    if len(body) < 8:
        raise DecodeError(offset, "secrets", "truncated")
    kind, length = struct.unpack_from(order + "II", body)
    if len(body) < 8 + length:
        raise DecodeError(offset, "secrets", "truncated")
    if kind == SECRETS_TYPE:
        yield body[8 : 8 + length].decode("utf-8", "replace")
