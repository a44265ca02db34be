# SPDX-License-Identifier: GPL-2.0-or-later
"""The wire between the guests and the harness: every frame passes here, recorded and open to interference.

Three ports: the guests' taps `a` and `b`, and `harness`, our own interface `wire0`. In *relay* mode a thread
reads each port and sends on what the rules leave; in *bridge* mode the kernel forwards and we only listen.
"""

from __future__ import annotations

import errno
import heapq
import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from poolproof.errors import HarnessError
from poolproof.lab import netdev, rules
from poolproof.lab.capture import FrameLog, write_pcapng
from poolproof.lab.frames import Frame, Predicate, anything
from poolproof.lab.rules import Delivery, Rule

HARNESS = "harness"
HARNESS_MAC = "52:54:00:fd:00:01"
HARNESS_IP4 = "10.253.0.1"
HARNESS_IP6 = "fd00:253::1"
PREFIX4, PREFIX6 = 24, 64

_BRIDGE = "ppwire"
_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_IGNORE_OUTGOING = 23
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER = 8 << 20
_BATCH = 64
_MAX_FRAME = 65536


class Port:
    """One end of the wire: an interface of the sandbox, read and written below the host's IP stack."""

    def __init__(self, name: str, interface: str) -> None:
        self.name = name
        self.interface = interface
        self.undelivered = 0
        self.cut = False
        self.held: list[tuple[int, bytes]] = []  # reordered frames from this port: (overtakers left, data)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        for force, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, force, _BUFFER)
            except PermissionError:
                self.socket.setsockopt(socket.SOL_SOCKET, plain, _BUFFER)
        self.socket.bind((interface, _ETH_P_ALL))

    def send(self, data: bytes) -> None:
        """Give a frame to this port; a port that takes nothing (a dead guest) loses it, as on any switch."""
        try:
            self.socket.send(data)
        except OSError as exc:
            if exc.errno not in (errno.EAGAIN, errno.ENOBUFS, errno.ENETDOWN, errno.EMSGSIZE, errno.ENXIO):
                raise
            self.undelivered += 1


def setup(taps: Mapping[str, str]) -> None:
    """Make the harness's port and the guests' taps ({port: interface}) in the sandbox."""
    netdev.ip(
        [
            f"link add wire0 address {HARNESS_MAC} type veth peer name wire0p",
            *(f"tuntap add dev {tap} mode tap" for tap in taps.values()),
        ]
    )
    for name in ("wire0p", *taps.values()):
        netdev.silent(name)
    for name in ("wire0", "wire0p"):
        netdev.offloads_off(name)
    for key, value in (("accept_ra", "0"), ("accept_dad", "0"), ("router_solicitations", "0")):
        Path("/proc/sys/net/ipv6/conf/wire0", key).write_text(value)
    netdev.ip(
        [
            f"addr add {HARNESS_IP4}/{PREFIX4} dev wire0",
            f"addr add {HARNESS_IP6}/{PREFIX6} dev wire0 nodad",
            *(f"link set dev {name} up" for name in ("wire0p", "wire0", *taps.values())),
        ]
    )


class Wire:
    """Recording and interference. Rules are tried in the order they were made; the first that acts on a
    frame decides, and later ones do not see it. All times in seconds, all random choices from `seed`."""

    def __init__(self, interfaces: Mapping[str, str], log: FrameLog, seed: int) -> None:
        """`interfaces`: port name to interface, both guests' and `harness`."""
        self.log = log
        self.mode = "relay"
        self._seed = seed
        self._ports = {name: Port(name, interface) for name, interface in interfaces.items()}
        self._macs: dict[bytes, Port] = {}
        self._rules: tuple[Rule, ...] = ()
        self._rules_made = 0
        self._later: list[tuple[float, int, Port, bytes, str]] = []
        self._sequence = 0
        self._commands: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._thread.start()

    # -- interference ----------------------------------------------------------------------------------

    def rule(
        self,
        action: rules.Action,
        match: Predicate = anything,
        *,
        k: int = 1,
        count: int | None = 1,
        probability: float = 1.0,
    ) -> Rule:
        """Apply `action` to matches k .. k+count-1 (count None: all from the k-th), with `probability`."""
        if self.mode != "relay":
            raise HarnessError("a bridged wire cannot be interfered with", hint="set_mode('relay') first.")
        with self._lock:
            self._rules_made += 1
            rng = random.Random(f"{self._seed}:{self._rules_made}")
            made = Rule(match, action, k, count, probability, rng)
            self._rules += (made,)
        return made

    def drop(self, match: Predicate = anything, *, k: int = 1, count: int | None = 1) -> Rule:
        """Lose matching frames."""
        return self.rule(rules.Drop(), match, k=k, count=count)

    def lose(self, probability: float, match: Predicate = anything) -> Rule:
        """Lose every matching frame with `probability`."""
        return self.rule(rules.Drop(), match, count=None, probability=probability)

    def duplicate(
        self, match: Predicate = anything, *, k: int = 1, count: int | None = 1, copies: int = 1
    ) -> Rule:
        """Deliver matching frames `copies` times more."""
        return self.rule(rules.Duplicate(copies), match, k=k, count=count)

    def delay(
        self,
        seconds: float,
        match: Predicate = anything,
        *,
        k: int = 1,
        count: int | None = 1,
        jitter: float = 0.0,
    ) -> Rule:
        """Deliver matching frames `seconds` (plus up to `jitter`) later."""
        return self.rule(rules.Delay(seconds, jitter), match, k=k, count=count)

    def reorder(
        self, match: Predicate = anything, *, k: int = 1, count: int | None = 1, depth: int = 1
    ) -> Rule:
        """Let the next `depth` frames of the same origin overtake matching frames."""
        return self.rule(rules.Reorder(depth), match, k=k, count=count)

    def corrupt(
        self,
        match: Predicate = anything,
        *,
        k: int = 1,
        count: int | None = 1,
        offset: int | None = None,
        bits: int = 1,
        believable: bool = True,
    ) -> Rule:
        """Flip bits of matching frames' payload; see rules.Corrupt."""
        return self.rule(rules.Corrupt(offset, bits, believable), match, k=k, count=count)

    def rewrite(
        self,
        function: Callable[[Frame], bytes | Sequence[bytes]],
        match: Predicate = anything,
        *,
        k: int = 1,
        count: int | None = 1,
        believable: bool = True,
    ) -> Rule:
        """Replace matching frames by what `function(frame)` returns (whole frames)."""
        return self.rule(rules.Rewrite(function, believable), match, k=k, count=count)

    def remove(self, rule: Rule) -> None:
        """Take one rule away."""
        with self._lock:
            self._rules = tuple(other for other in self._rules if other is not rule)

    def clear(self) -> None:
        """Take all rules away, mend all cuts, deliver what is held back."""
        with self._lock:
            self._rules = ()
        self.restore()
        self._in_thread(self._release_all)

    def cut(self, *ports: str) -> None:
        """Unplug the given ports (all when none is named): their frames are recorded and lost."""
        for name in ports or tuple(self._ports):
            self._ports[name].cut = True

    def restore(self, *ports: str) -> None:
        """Plug the given ports (all when none is named) in again."""
        for name in ports or tuple(self._ports):
            self._ports[name].cut = False

    def inject(self, port: str, data: bytes, note: str = "injected") -> None:
        """Send a frame out of `port`, as if it had come over the wire."""
        target = self._ports[port]
        self._in_thread(lambda: self._emit(target, data, note))

    # -- evidence --------------------------------------------------------------------------------------

    def mark(self) -> int:
        """A point in the recording: the number of the next frame. HarnessError when the wire broke."""
        self._check()
        return self.log.mark()

    def frames(self, since: int = 0) -> Iterable[Frame]:
        """Recorded frames from a mark on."""
        return self.log.since(since)

    def wait_for(self, match: Predicate, since: int = 0, timeout: float = 10.0) -> Frame | None:
        """The first matching frame from a mark on, waiting up to `timeout` seconds; None without one."""
        return self.log.wait_for(match, since, timeout)

    def write_pcapng(self, path: Path, since: int = 0, secrets: str = "", comment: str = "") -> int:
        """Write the frames from a mark on, with the keylog text inside; returns how many."""
        return write_pcapng(path, self.log.since(since), list(self._ports), secrets=secrets, comment=comment)

    def missed(self) -> int:
        """Frames the recording missed because the kernel's buffer ran over, since this was last asked."""
        total = 0
        for port in self._ports.values():
            statistics = port.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            total += int.from_bytes(statistics[4:8], "little")
        return total

    # -- modes -----------------------------------------------------------------------------------------

    def set_mode(self, mode: str) -> None:
        """`relay` (frames pass through us) or `bridge` (the kernel forwards, we record)."""
        if mode == self.mode:
            return
        if mode == "bridge":
            self._in_thread(self._release_all)
            self.mode = mode
            netdev.ip([f"link add {_BRIDGE} type bridge mcast_snooping 0 stp_state 0"])
            netdev.silent(_BRIDGE)
            members = [f"link set dev {port.interface} master {_BRIDGE}" for port in self._ports.values()]
            netdev.ip([*members, f"link set dev {_BRIDGE} up"])
        elif mode == "relay":
            netdev.ip([f"link del dev {_BRIDGE}"])
            self.mode = mode
        else:
            raise ValueError(f"no such mode: {mode!r}")

    def close(self) -> None:
        """Stop carrying frames. The recording stays readable until its log is closed."""
        if self._closing:
            return
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        for port in self._ports.values():
            port.socket.close()
        os.close(self._wake)

    # -- the thread ------------------------------------------------------------------------------------

    def _in_thread(self, command: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            command()
            done.set()

        with self._lock:
            self._commands.append(run)
        os.eventfd_write(self._wake, 1)
        while not done.wait(0.5):
            self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise HarnessError(f"the wire broke: {self._failure!r}") from self._failure

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as exc:
            self._failure = exc

    def _loop(self) -> None:
        poll = select.epoll()
        poll.register(self._wake, select.EPOLLIN)
        by_fd = {port.socket.fileno(): port for port in self._ports.values()}
        for fd in by_fd:
            poll.register(fd, select.EPOLLIN)
        while not self._closing:
            timeout = max(0.0, self._later[0][0] - time.monotonic()) if self._later else -1
            for fd, _ in poll.poll(timeout):
                if fd == self._wake:
                    os.eventfd_read(self._wake)
                    self._run_commands()
                else:
                    self._receive(by_fd[fd])
            self._send_due(time.monotonic())
        poll.close()

    def _run_commands(self) -> None:
        with self._lock:
            commands, self._commands = self._commands, []
        for command in commands:
            command()

    def _receive(self, port: Port) -> None:
        for _ in range(_BATCH):
            try:
                data = port.socket.recv(_MAX_FRAME)
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno == errno.ENETDOWN:  # a guest's tap going away with it
                    return
                raise
            self._carry(port, Frame(data, port.name, time.time_ns()))

    def _carry(self, port: Port, frame: Frame) -> None:
        self._macs[frame.data[6:12]] = port
        if self.mode == "bridge":
            self.log.append(frame)
            return
        deciding: Rule | None = None
        deliveries: Sequence[Delivery] = (Delivery(frame.data),)
        if port.cut:
            frame.note, deliveries = "lost: the wire is cut", ()
        else:
            for rule in self._rules:
                result = rule.apply(frame)
                if result is not None:
                    deciding, deliveries, frame.note = rule, result, rule.action.name
                    break
        self.log.append(frame)
        for number, delivery in enumerate(deliveries):
            altered = delivery.data != frame.data or number > 0
            note = f"{frame.note} (frame {frame.number})" if altered else ""
            if delivery.overtakers:
                self._hold(port, delivery)
            elif delivery.delay_s > 0:
                self._schedule(port, delivery, note)
            else:
                self._forward(port, delivery.data, note)
        if deciding is None:
            self._overtaken(port)

    def _hold(self, port: Port, delivery: Delivery) -> None:
        port.held.append((delivery.overtakers, delivery.data))
        self._schedule(port, Delivery(b"", delivery.delay_s), "")  # an empty one releases what is still held

    def _overtaken(self, port: Port) -> None:
        if not port.held:
            return
        held, port.held = port.held, []
        for left, data in held:
            if left > 1:
                port.held.append((left - 1, data))
            else:
                self._forward(port, data, "")

    def _schedule(self, port: Port, delivery: Delivery, note: str) -> None:
        self._sequence += 1
        due = time.monotonic() + delivery.delay_s
        heapq.heappush(self._later, (due, self._sequence, port, delivery.data, note))

    def _send_due(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            _, _, port, data, note = heapq.heappop(self._later)
            if data:
                self._forward(port, data, note)
            else:
                self._release(port)

    def _release(self, port: Port) -> None:
        held, port.held = port.held, []
        for _, data in held:
            self._forward(port, data, "")

    def _release_all(self) -> None:
        for port in self._ports.values():
            self._release(port)
        while self._later:
            _, _, port, data, note = heapq.heappop(self._later)
            if data:
                self._forward(port, data, note)

    def _forward(self, origin: Port, data: bytes, note: str) -> None:
        known = None if data[0] & 1 else self._macs.get(data[:6])
        if known is origin:
            return
        for port in (known,) if known else self._ports.values():
            if port is not origin:
                self._emit(port, data, note)

    def _emit(self, port: Port, data: bytes, note: str) -> None:
        if note:
            self.log.append(Frame(data, port.name, time.time_ns(), outbound=True, note=note))
        if not port.cut:
            port.send(data)
