# SPDX-License-Identifier: GPL-2.0-or-later
"""Transfers that prove themselves, for `pool_test`: numbered bytes, SHA-256 at both ends, resumable.

Everything travels in messages on channel 0 of one session, whose first byte tells its kind:

    O  offer   {"id", "direction", "size", "seed", "block", "offset"}   client to server
    A  answer  {"offset"} where to begin, or {"refused": why}           server to client
    D  data    offset (8 bytes, big-endian), then the bytes
    E  end     {"sha256"} of all `size` bytes, from whoever sent them
    R  result  {"sha256"} as computed by whoever received them
    P  ping    echoed

A server keeps how far an upload got, and its digest, so a client that lost its session offers the same id
again and goes on where it was. A download goes on where the client says. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

MAX_SIZE: Final = 1 << 44
MIN_BLOCK, MAX_BLOCK = 64, 65535
DEFAULT_BLOCK: Final = 1304  # what one packet carries at an mtu of 1400 (DATA-02)
KEPT: Final = 16
"""Interrupted uploads that a server remembers."""

_OFFSET_SIZE: Final = 8
_OVERHEAD: Final = 1 + _OFFSET_SIZE
_PAGE: Final = 65536
_READ: Final = _PAGE
_LOST: Final = (errno.ENOTCONN, errno.ECONNRESET, errno.ETIMEDOUT, errno.EPIPE, errno.ESHUTDOWN)

Progress = Callable[[int], None]
"""Told how many bytes of the whole have been moved."""


class Interrupted(Exception):
    """The session is gone or silent; what was `moved` (bytes) still counts. None outside of a transfer."""

    def __init__(self, reason: str, moved: int | None = None) -> None:
        super().__init__(reason)
        self.moved = moved


class Failed(Exception):
    """The transfer went wrong in a way that going on does not mend."""


class Port(Protocol):
    """One session. Failures are OSError, ENOTCONN when it has ended, ETIMEDOUT when nothing came."""

    @property
    def peer(self) -> str: ...
    async def send(self, data: bytes) -> None: ...
    async def recv(self, timeout: float) -> bytes: ...
    async def close(self) -> None: ...


class Source(Protocol):
    """Where the bytes come from: any part of them, any number of times."""

    size: int

    def read(self, offset: int, count: int) -> bytes: ...


class Generated:
    """`size` bytes that follow from `seed` alone."""

    def __init__(self, seed: int, size: int) -> None:
        self.size = size
        self._seed = seed
        self._number, self._page = -1, b""

    def read(self, offset: int, count: int) -> bytes:
        number, start = divmod(offset, _PAGE)
        if number != self._number:
            self._number = number
            self._page = random.Random(self._seed << 64 | number).randbytes(_PAGE)
        count = min(count, self.size - offset)
        data = self._page[start : start + count]
        return data if len(data) == count else data + self.read(offset + len(data), count - len(data))


class FromFile:
    """A regular file's bytes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, count: int) -> bytes:
        return os.pread(self._file.fileno(), count, offset)


@dataclass(frozen=True)
class Offer:
    """What a client wants moved. `direction` is seen from the client: up or down."""

    id: str
    direction: str
    size: int
    seed: int
    block: int = DEFAULT_BLOCK
    offset: int = 0

    def check(self) -> None:
        """Failed, with the reason, for an offer that nobody should accept."""
        numbers = (self.size, self.seed, self.block, self.offset)
        if not isinstance(self.id, str) or not 0 < len(self.id) <= 64:
            raise Failed("the transfer has no usable id")
        if self.direction not in ("up", "down") or any(type(each) is not int for each in numbers):
            raise Failed("the offer makes no sense")
        if not 0 < self.size <= MAX_SIZE or not MIN_BLOCK <= self.block <= MAX_BLOCK:
            raise Failed(f"{self.size} bytes in messages of {self.block} are not possible")
        if not 0 <= self.offset <= self.size or not 0 <= self.seed < 1 << 64:
            raise Failed("the offer begins outside of its bytes")


@dataclass
class Result:
    """A verified transfer. `seconds` and `moved` are about the last stretch, after `resumed_at`."""

    peer: str
    direction: str
    size: int
    sha256: str
    moved: int
    seconds: float
    resumed_at: int = 0

    @property
    def rate(self) -> float:
        """Bits per second."""
        return self.moved * 8 / self.seconds if self.seconds else 0.0


class Digest:
    """SHA-256 over bytes in their order, and how many there were."""

    def __init__(self) -> None:
        self.offset = 0
        self._sha = hashlib.sha256()

    def add(self, data: bytes | memoryview) -> None:
        self._sha.update(data)
        self.offset += len(data)

    def catch_up(self, source: Source, offset: int) -> None:
        """Add what a source has before `offset`."""
        while self.offset < offset:
            self.add(_some(source, self.offset, min(_READ, offset - self.offset)))

    def hex(self) -> str:
        return self._sha.hexdigest()


def _some(source: Source, offset: int, count: int) -> bytes:
    data = source.read(offset, count)
    if not data:
        raise Failed(f"the source ended at {offset} of {source.size} bytes")
    return data


def pack(kind: bytes, **fields: Any) -> bytes:
    """A message of one of the kinds that carry JSON."""
    return kind + json.dumps(fields).encode()


def unpack(message: bytes, *kinds: bytes) -> dict[str, Any]:
    """The fields of a message; Failed when it is of none of these kinds."""
    if message[:1] not in kinds:
        expected = b" or ".join(kinds).decode()
        raise Failed(f"the peer sent {message[:1]!r} where {expected} was due; does it run pool_test?")
    try:
        fields = json.loads(message[1:])
    except ValueError:
        raise Failed("the peer's message does not decode") from None
    if not isinstance(fields, dict):
        raise Failed("the peer's message does not decode")
    return fields


@contextlib.contextmanager
def _on(peer: str, digest: Digest | None = None) -> Iterator[None]:
    """Turns what a port raises into Interrupted or Failed."""
    try:
        yield
    except OSError as exc:
        reason = f"{peer}: {exc.strerror or exc}"
        if exc.errno not in _LOST:
            raise Failed(reason) from exc
        raise Interrupted(reason, None if digest is None else digest.offset) from exc


def _unseen(offset: int) -> None:
    """Progress that nobody follows."""


# -- both directions -------------------------------------------------------------------------------


async def pour(
    port: Port, source: Source, digest: Digest, block: int, timeout: float, progress: Progress = _unseen
) -> str:
    """Send all from `digest.offset` on, then compare: the digest that both ends agree on."""
    size, room = source.size, block - _OVERHEAD
    while digest.offset < size:
        data = _some(source, digest.offset, min(room, size - digest.offset))
        await port.send(b"D" + digest.offset.to_bytes(_OFFSET_SIZE, "big") + data)
        digest.add(data)
        progress(digest.offset)
    ours = digest.hex()
    await port.send(pack(b"E", sha256=ours))
    theirs = unpack(await port.recv(timeout), b"R").get("sha256")
    if theirs != ours:
        raise Failed(f"SHA-256 differs: {ours} was sent, {theirs} arrived")
    return ours


async def drink(
    port: Port,
    size: int,
    digest: Digest,
    timeout: float,
    progress: Progress = _unseen,
    ours: Callable[[], bool] = lambda: True,
) -> str:
    """Take everything from `digest.offset` on, then compare: the digest that both ends agree on.

    Interrupted once `ours` says that somebody else goes on with this transfer.
    """
    while True:
        message = await port.recv(timeout)
        if not ours():
            raise Interrupted("the transfer goes on over another session", digest.offset)
        if message[:1] != b"D":
            break
        offset = int.from_bytes(message[1:_OVERHEAD], "big")
        if (
            len(message) <= _OVERHEAD
            or offset != digest.offset
            or digest.offset + len(message) - _OVERHEAD > size
        ):
            raise Failed(f"after {digest.offset} of {size} bytes came {len(message) - _OVERHEAD} at {offset}")
        digest.add(memoryview(message)[_OVERHEAD:])
        progress(digest.offset)
    theirs = unpack(message, b"E").get("sha256")
    mine = digest.hex()
    await port.send(pack(b"R", sha256=mine))
    if digest.offset != size:
        raise Failed(f"{digest.offset} of {size} bytes came")
    if theirs != mine:
        raise Failed(f"SHA-256 differs: {theirs} was sent, {mine} arrived")
    return mine


# -- the client ------------------------------------------------------------------------------------


class Client:
    """One transfer, over as many sessions as it takes. `source` is only needed for an upload."""

    def __init__(self, offer: Offer, source: Source | None, timeout: float, progress: Progress) -> None:
        self.offer = offer
        self.offset = offer.offset
        """How far the last attempt got."""
        self._source = source or Generated(offer.seed, offer.size)
        self._timeout = timeout
        self._progress = progress
        self._digest = Digest()

    async def attempt(self, port: Port) -> Result:
        """Go on over a fresh session: the result, Interrupted or Failed."""
        with _on(port.peer):
            return await self._attempt(port)

    async def _attempt(self, port: Port) -> Result:
        offer, up = self.offer, self.offer.direction == "up"
        await port.send(pack(b"O", **asdict(replace(offer, offset=0 if up else self._digest.offset))))
        answer = unpack(await port.recv(self._timeout), b"A")
        if "refused" in answer:
            raise Failed(f"{port.peer} refused: {answer['refused']}")
        begin = answer.get("offset")
        if type(begin) is not int or not 0 <= begin <= offer.size or not (up or begin == self._digest.offset):
            raise Failed(f"{port.peer} would begin at {begin!r}")
        if up and begin != self._digest.offset:
            self._digest = Digest()
            self._digest.catch_up(self._source, begin)
        start = time.monotonic()
        try:
            if up:
                sha = await pour(port, self._source, self._digest, offer.block, self._timeout, self._progress)
            else:
                sha = await drink(port, offer.size, self._digest, self._timeout, self._progress)
        finally:
            self.offset = self._digest.offset
        seconds = time.monotonic() - start
        return Result(port.peer, offer.direction, offer.size, sha, offer.size - begin, seconds, begin)


# -- the server ------------------------------------------------------------------------------------


class _Upload:
    """How far an upload got; `port` is the session it goes on over."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.digest = Digest()
        self.port: Port | None = None


class Server:
    """Answers offers and pings of any number of sessions."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._uploads: dict[str, _Upload] = {}  # the longest untouched first

    async def serve(self, port: Port) -> AsyncIterator[Result]:
        """Whatever one session asks for, until it ends: Interrupted or Failed, as the session sees it."""
        with _on(port.peer):
            while True:
                message = await port.recv(self._timeout)
                if message[:1] == b"P":
                    await port.send(message)
                else:
                    yield await self._accept(port, message)

    async def _accept(self, port: Port, message: bytes) -> Result:
        try:
            fields = unpack(message, b"O")
            try:
                offer = Offer(**fields)
            except TypeError:
                raise Failed("the offer lacks something") from None
            offer.check()
        except Failed as failure:
            await port.send(pack(b"A", refused=str(failure)))
            raise
        return await (self._take(port, offer) if offer.direction == "up" else self._give(port, offer))

    async def _take(self, port: Port, offer: Offer) -> Result:
        upload = self._uploads.pop(offer.id, None)
        if upload is None or (upload.offer.size, upload.offer.seed) != (offer.size, offer.seed):
            upload = _Upload(offer)
        before, upload.port = upload.port, port
        if before is not None:
            await before.close()
        self._uploads[offer.id] = upload
        if len(self._uploads) > KEPT:
            del self._uploads[next(iter(self._uploads))]
        begin = upload.digest.offset
        await port.send(pack(b"A", offset=begin))
        start = time.monotonic()
        try:
            with _on(port.peer, upload.digest):
                sha = await drink(
                    port, offer.size, upload.digest, self._timeout, ours=lambda: upload.port is port
                )
        except Failed:
            self._uploads.pop(offer.id, None)
            raise
        self._uploads.pop(offer.id, None)
        return Result(port.peer, "up", offer.size, sha, offer.size - begin, time.monotonic() - start, begin)

    async def _give(self, port: Port, offer: Offer) -> Result:
        source, digest = Generated(offer.seed, offer.size), Digest()
        await port.send(pack(b"A", offset=offer.offset))
        digest.catch_up(source, offer.offset)
        start = time.monotonic()
        with _on(port.peer, digest):
            sha = await pour(port, source, digest, offer.block, self._timeout)
        moved = offer.size - offer.offset
        return Result(port.peer, "down", offer.size, sha, moved, time.monotonic() - start, offer.offset)
