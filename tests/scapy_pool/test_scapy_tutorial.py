# SPDX-License-Identifier: GPL-2.0-or-later
"""The tutorial's commands do what it says they do."""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.utils import wrpcap
from scapy_captured import capture

import scapy_pool as sp
from poolref.errors import LocalError
from poolref.node import Node

TUTORIAL = Path(sp.__file__).parent / "TUTORIAL.md"


@pytest.fixture
def echo_port() -> Iterator[int]:
    """The port of a node that sends messages back, on a thread of its own."""
    ready = threading.Event()
    ports: list[int] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with Node() as node:
            ports.append(await node.listen("127.0.0.1", 0))
            ready.set()
            session = await node.accept()
            while session.active:
                with contextlib.suppress(LocalError):  # it may end meanwhile
                    await session.send(await session.recv())
            await asyncio.Event().wait()

    task = loop.create_task(serve())

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(30)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


def test_the_tutorial_is_true(echo_port: int, tmp_path: Path) -> None:
    session = capture()
    (tmp_path / "keys.log").write_text(session.keylog)
    wrpcap(str(tmp_path / "x.pcap"), [IP(proto=253) / packet for packet in session.packets])
    names = {
        "node_port": echo_port,
        "keylog": str(tmp_path / "keys.log"),
        "capture": str(tmp_path / "x.pcap"),
        # load_contrib puts the layers where the shell would have them: into the main namespace.
        **{name: getattr(sp, name) for name in sp.__all__},
    }
    sp.keyring.clear()
    try:
        result = doctest.testfile(str(TUTORIAL), module_relative=False, globs=names)
    finally:
        sp.keyring.clear()
    assert result.attempted > 25
    assert result.failed == 0
