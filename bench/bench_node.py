# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast two `Node`s in one process are over loopback TCP, beside aioquic over loopback UDP.

    python -m bench node [--seconds S]

Both carry the same bytes from one end to the other on one event loop, both seal with ChaCha20-Poly1305, both
in packets of 1400 bytes.  They take turns in one run; the figures are medians of all rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent, StreamDataReceived
from aioquic.tls import CipherSuite
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.x509.oid import NameOID

from poolref.node import Node, Session

from .measure import alternate_async, report
from .sansio import EASY, MESSAGE

MESSAGES = 5000
TOTAL = MESSAGES * len(MESSAGE)
DATAGRAM = 1400
WINDOW = 16 * 1024 * 1024
HOST = "127.0.0.1"


class Nodes:
    """A client's and a server's end of one session."""

    def __init__(self, server: Node, client: Node, port: int, ours: Session, theirs: Session) -> None:
        self.server, self.client, self.port, self.ours, self.theirs = server, client, port, ours, theirs

    async def transfer(self) -> int:
        async def hear() -> None:
            for _ in range(MESSAGES):
                await self.theirs.recv()

        hearing = asyncio.create_task(hear())
        for _ in range(MESSAGES):
            await self.ours.send(MESSAGE)
        await hearing
        return TOTAL

    async def handshakes(self) -> int:
        """Connect, accept and close, one after the other."""
        for _ in range(20):
            session, accepted = await asyncio.gather(
                self.client.connect(HOST, self.port), self.server.accept()
            )
            await session.close()
            await accepted.wait_closed()
        return 20


@contextlib.asynccontextmanager
async def nodes() -> AsyncIterator[Nodes]:
    async with Node(EASY) as server, Node(EASY) as client:
        port = await server.listen(HOST, 0)
        ours, theirs = await asyncio.gather(client.connect(HOST, port), server.accept())
        yield Nodes(server, client, port, ours, theirs)


class QuicServer(QuicConnectionProtocol):
    """Counts what comes; `heard` is set when a whole transfer is there."""

    heard: asyncio.Event
    received = 0

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            QuicServer.received += len(event.data)
            if QuicServer.received >= TOTAL:
                QuicServer.heard.set()


def certificate(configuration: QuicConfiguration) -> None:
    """Give a server a key and a certificate for it."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))
    configuration.certificate = builder.not_valid_after(now + datetime.timedelta(days=1)).sign(
        key, hashes.SHA256()
    )
    configuration.private_key = key


class Quic:
    """One connection of aioquic."""

    def __init__(self, client: QuicConnectionProtocol) -> None:
        self.client = client

    async def transfer(self) -> int:
        QuicServer.received = 0
        QuicServer.heard = asyncio.Event()
        stream = self.client._quic.get_next_available_stream_id()
        self.client._quic.send_stream_data(stream, MESSAGE * MESSAGES, end_stream=True)
        self.client.transmit()
        await QuicServer.heard.wait()
        return TOTAL


@contextlib.asynccontextmanager
async def quic() -> AsyncIterator[Quic]:
    def configuration(is_client: bool) -> QuicConfiguration:
        return QuicConfiguration(
            is_client=is_client,
            alpn_protocols=["bench"],
            cipher_suites=[CipherSuite.CHACHA20_POLY1305_SHA256],
            max_datagram_size=DATAGRAM,
            max_data=WINDOW,
            max_stream_data=WINDOW,
            verify_mode=ssl.CERT_NONE,
        )

    serving = configuration(False)
    certificate(serving)
    server = await serve(HOST, 0, configuration=serving, create_protocol=QuicServer)
    port = server._transport.get_extra_info("sockname")[1]
    async with connect(HOST, port, configuration=configuration(True)) as client:
        yield Quic(client)
    server.close()


async def compare(seconds: float) -> None:
    async with nodes() as pool, quic() as other:
        rate, limit = await alternate_async(seconds, pool.transfer, other.transfer)
        figure = f"{rate * 8 / 1e6:.0f} Mbit/s = {rate / limit:.1f} x aioquic ({limit * 8 / 1e6:.0f} Mbit/s)"
        met = rate * 8 >= 250e6 and rate >= 2 * limit
        report("data, two nodes, TCP", figure, "at least 250 Mbit/s and 2 x aioquic", met=met)
        (rate,) = await alternate_async(seconds, pool.handshakes)
        report("handshakes, two nodes, TCP", f"{rate:,.0f} 1/s, connect to close")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench node", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each comparison (default: 10)")
    asyncio.run(compare(parser.parse_args(argv).seconds))


if __name__ == "__main__":
    main()
