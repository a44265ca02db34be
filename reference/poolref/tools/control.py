# SPDX-License-Identifier: GPL-2.0-or-later
"""Control socket of a running reference node: one JSON object a line over a Unix stream socket.

Request: {"method": NAME, "params": {...}}; bytes travel as {"b64": TEXT}.
Reply: {"result": ...} or {"errno": N, "error": TEXT}. Methods are those of `backend.Control`.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

from poolref.tools.backend import Backend, Control
from poolref.tools.kernel_abi import DEFAULT_PORT, MAX_MESSAGE, SessionInfo
from poolref.tools.plain import decode, encode

METHODS = frozenset(name for name in vars(Control) if not name.startswith("_")) | frozenset(
    name for name in vars(Backend) if not name.startswith("_")
)
MAX_LINE = 256 * 1024  # a request
MAX_REPLY = 8 * 1024 * 1024  # a whole journal


def default_socket() -> Path:
    """$POOLD_SOCKET, else poold.sock in the user's runtime directory."""
    explicit = os.environ.get("POOLD_SOCKET")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_RUNTIME_DIR") or "/run") / "poold.sock"


class ControlClient:
    """A Control that speaks to a running poold."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or default_socket()
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(self._path))
        except OSError as exc:
            self._socket.close()
            number = exc.errno or errno.ENOENT
            raise OSError(
                number,
                f"no reference node answers at {self._path} ({os.strerror(number)}); start one with `poold`",
            ) from exc
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shut()

    def shut(self) -> None:
        self._file.close()
        self._socket.close()

    def _call(self, method: str, **params: Any) -> Any:
        self._socket.sendall(json.dumps({"method": method, "params": encode(params)}).encode() + b"\n")
        line = self._file.readline(MAX_REPLY)
        if not line.endswith(b"\n"):
            raise OSError(errno.ECONNRESET, "the reference node went away")
        reply = json.loads(line)
        if "error" in reply:
            raise OSError(reply.get("errno") or errno.EIO, reply["error"])
        return decode(reply.get("result"))

    def listen(self, port: int = DEFAULT_PORT) -> int:
        return int(self._call("listen", port=port))

    def stop(self) -> None:
        self._call("stop")

    def connect(self, address: str, port: int = DEFAULT_PORT, version: int = 0) -> int:
        return int(self._call("connect", address=address, port=port, version=version))

    def send(self, index: int, data: bytes, channel: int = 0) -> None:
        self._call("send", index=index, data=data, channel=channel)

    def recv(self, index: int, channel: int = 0, max_size: int = MAX_MESSAGE) -> bytes:
        return bytes(self._call("recv", index=index, channel=channel, max_size=max_size))

    def sessions(self) -> list[SessionInfo]:
        return [SessionInfo(**row) for row in self._call("sessions")]

    def close_session(self, index: int) -> None:
        self._call("close_session", index=index)

    def channel(self, index: int, operation: int, channel: int = 0) -> list[int]:
        return list(self._call("channel", index=index, operation=operation, channel=channel))

    def counters(self) -> dict[str, int]:
        return dict(self._call("counters"))

    def rekey(self, index: int) -> None:
        self._call("rekey", index=index)

    def configure(self, index: int, deadline_ns: int, **params: int) -> int:
        return int(self._call("configure", index=index, deadline_ns=deadline_ns, **params))

    def confirm(self, index: int) -> int:
        return int(self._call("confirm", index=index))

    def rollback(self, index: int) -> int:
        return int(self._call("rollback", index=index))

    def request_journal(self, index: int) -> list[dict[str, Any]]:
        return list(self._call("request_journal", index=index))

    def exchange(self, index: int) -> None:
        self._call("exchange", index=index)

    def challenge(self, index: int) -> None:
        self._call("challenge", index=index)

    def probe_mtu(self, index: int) -> int:
        return int(self._call("probe_mtu", index=index))

    def journal(self) -> list[dict[str, Any]]:
        return list(self._call("journal"))

    def peers(self) -> list[dict[str, Any]]:
        return list(self._call("peers"))

    def add_peer(self, address: str, port: int, pubkey: bytes) -> None:
        self._call("add_peer", address=address, port=port, pubkey=pubkey)

    def forget_peer(self, address: str, port: int) -> None:
        self._call("forget_peer", address=address, port=port)

    def integrity(self) -> dict[str, str]:
        return dict(self._call("integrity"))

    def details(self) -> list[dict[str, str]]:
        return list(self._call("details"))

    def stats(self) -> dict[str, Any]:
        return dict(self._call("stats"))
