# SPDX-License-Identifier: GPL-2.0-or-later
"""Exceptions: misuse of the API, what a peer reported, and bytes that do not decode.

Bytes from a peer never raise out of a session (WIRE-07); :class:`DecodeError` is raised by codecs only
and turned into a drop reason by their callers.
"""

from __future__ import annotations

import errno as _errno
import os

from .constants import ErrorCode


class PoolError(Exception):
    """Base of everything this package raises on purpose."""


class LocalError(PoolError, OSError):
    """A call could not be carried out; ``errno`` tells the class of reason."""

    def __init__(self, errno: int, message: str | None = None) -> None:
        OSError.__init__(self, errno, message or os.strerror(errno))


class MessageTooBig(LocalError):
    """The next message does not fit ``max_size``; it stays queued and ``needed`` is its size (DATA-03)."""

    def __init__(self, needed: int) -> None:
        super().__init__(_errno.EMSGSIZE, f"the message has {needed} bytes")
        self.needed = needed


class PoolTimeout(LocalError, TimeoutError):
    """A deadline passed (ETIMEDOUT)."""

    def __init__(self, message: str) -> None:
        LocalError.__init__(self, _errno.ETIMEDOUT, message)


class RandomnessError(LocalError):
    """The source of random bytes failed; the operation is abandoned (SEAL-08)."""

    def __init__(self, message: str) -> None:
        super().__init__(_errno.EIO, message)


class LowOrderKey(LocalError):
    """An X25519 result is all zero: the peer's public key has low order (KEY-01)."""

    def __init__(self) -> None:
        super().__init__(_errno.EBADMSG, "X25519 public key of low order")


class MissingPrimitive(PoolError):
    """A cryptographic primitive is absent or answers wrongly; there is no fallback (KEY-04)."""


class HandshakeError(LocalError):
    """A connection attempt failed on this side's judgement."""


class PeerError(PoolError, OSError):
    """The peer ended an attempt or a session; ``code`` is what its CLOSE carried, None without one."""

    def __init__(self, code: int | None, message: str, errno: int = _errno.ECONNRESET) -> None:
        OSError.__init__(self, errno, message)
        self.code = code


class PeerRefused(PeerError, ConnectionRefusedError):
    """The peer has no room for another session (ECONNREFUSED, HS-10)."""

    def __init__(self, code: int | None, message: str) -> None:
        PeerError.__init__(self, code, message, _errno.ECONNREFUSED)


class DecodeError(PoolError):
    """Bytes do not have the stated layout: ``field`` at ``offset`` is wrong or missing."""

    def __init__(self, offset: int, field: str, message: str = "does not decode") -> None:
        super().__init__(f"{field} at offset {offset}: {message}")
        self.offset = offset
        self.field = field


def peer_error(code: int | None, during: str) -> PeerError:
    """The exception for a peer's CLOSE; an advisory 0x0A is EPROTONOSUPPORT, 0x09 ECONNREFUSED (section
    15).
    """
    name = "without a code" if code is None else code_name(code)
    message = f"the peer closed {during}: {name}"
    if code == ErrorCode.VERSION_MISMATCH:
        return PeerError(code, message, _errno.EPROTONOSUPPORT)
    if code == ErrorCode.OVERLOAD:
        return PeerRefused(code, message)
    return PeerError(code, message)


def code_name(code: int) -> str:
    """``0x09 OVERLOAD``, or just the number of an unknown code."""
    try:
        return f"{code:#04x} {ErrorCode(code).name}"
    except ValueError:
        return f"{code:#04x}"
