# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference as a peer that violates one requirement, and what the device has to do about it.

The switch says what is wrong, when it shows, and what a sound peer does; this plays it over a real network,
first with a peer that does the same and nothing wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from poolproof.devices.base import IPV4, Endpoint
from poolproof.devices.stage import SETTLE, Stage, TimedOut, eventually
from poolref.constants import Role
from poolref.misbehaviour import Phase, Reaction, Switch, misbehaviour, parse

PLAYABLE = (Phase.HANDSHAKE, Phase.DATA, Phase.FRAGMENTS, Phase.HEARTBEAT, Phase.CLOSE)
"""Phases that need no more than what every node can be told to do."""
_HEARTBEAT = 8.0
_BIG = 3000


class Deviant:
    """One encounter of the device with the reference in ``role``."""

    def __init__(self, stage: Stage, role: str, text: str) -> None:
        """ValueError for what is no switch, or one that cannot be played here."""
        self.switch: Switch
        self.switch, _values = parse(text)
        self.role = Role[role.upper()]
        if self.switch.phase not in PLAYABLE or self.role not in self.switch.roles:
            raise ValueError(f"{text} cannot be played as {role}")
        self.reaction: Reaction = self.switch.expected(self.role)
        self._stage = stage
        self._text = text
        self._side, self._other = role, "server" if role == "client" else "client"
        self._wrong = misbehaviour(text)
        self.failure: OSError | None = None
        self.sent: list[bytes] = []
        self.concerned: list[bytes] = []

    @property
    def device(self) -> Endpoint:
        return self._stage.roles[self._other]

    @property
    def done(self) -> int:
        """How often the peer did what it was told."""
        return self._wrong.done[self.switch.name]

    def control(self) -> None:
        """A sound peer does the same. AssertionError when the device does not serve it."""
        self._meet(self._stage.cast("reference", self._side))
        if self.failure is not None:
            raise self.failure
        self._act()
        if self.switch.phase is not Phase.CLOSE:
            self._receive(self.sent)
            self._carries_data()
            self._peer.close_session(self._index)
        eventually(lambda: not self._stage.live_sessions(self.device), "the end of the sound peer's session")
        discards = self._stage.discards(self._other)
        assert not discards, f"a sound peer had packets discarded: {discards}"
        self._stage.mark(self._other)
        self.sent, self.concerned = [], []

    def act(self) -> None:
        """The peer does it wrong."""
        peer = self._stage.replace(self._side, self._stage.device.deviant(self._wrong))
        for _ in range(self.switch.attempts - 1):
            self._meet(peer)
            peer.close_session(self._index)
        self._meet(peer)
        if self.failure is None and self.switch.phase is not Phase.HANDSHAKE:
            self._act()

    def check(self) -> None:
        """AssertionError unless the device reacts as the switch demands."""
        reaction = self.reaction
        patience = reaction.after_s + SETTLE + (_HEARTBEAT if self.switch.phase is Phase.HEARTBEAT else 0)
        eventually(lambda: self.done, f"the peer misbehaving with {self._text}", patience)
        self._discarded(patience)
        if reaction.error is not None:
            assert self.failure is not None, "the attempt succeeded"
            assert self.failure.errno == reaction.error, f"the attempt failed with {self.failure}"
        if reaction.error is not None or reaction.gives_up or reaction.ends is not None:
            eventually(lambda: not self._stage.live_sessions(self.device), "no session being left", patience)
        else:
            assert self.failure is None, f"the attempt failed: {self.failure}"
            self._receive([each for each in self.sent if reaction.delivers or each not in self.concerned])
            self._carries_data()
        self._discarded(SETTLE)

    def _discarded(self, patience: float) -> None:
        """The device counts what the switch says, and nothing else."""
        wanted = {str(counter): times for counter, times in self.reaction.counts.items()}
        for counter in wanted:
            self._stage.growth(self._other, counter)  # says so when the device has no such counter
        try:
            eventually(lambda: self._stage.discards(self._other) == wanted, "the discards", patience)
        except TimedOut:
            seen = self._stage.discards(self._other)
            raise AssertionError(f"the device counted {seen or 'nothing'} instead of {wanted}") from None

    # -- the encounter

    def _meet(self, peer: Endpoint) -> None:
        """Connect, whoever connects. A refusal becomes :attr:`failure`."""
        stage, self._peer, self.failure = self._stage, peer, None
        client, server = stage.roles["client"], stage.roles["server"]
        if self._side == "server":
            peer.listen(peer.port)
        try:
            index = client.connect(server.address(IPV4), server.port)
        except OSError as exc:
            self.failure = exc
            return
        finally:
            if self._side == "server":
                peer.stop()
        wanted = next(each.session_id for each in client.sessions() if each.index == index)
        other = eventually(
            lambda: next((each for each in server.sessions() if each.session_id == wanted), None),
            "the server listing the session",
        ).index
        stage.index["client"], stage.index["server"] = index, other
        self._index = stage.index[self._side]

    def _act(self) -> None:
        match self.switch.phase:
            case Phase.DATA:
                self._stage.roles[self._other].send(self._stage.index[self._other], self._stage.message(30))
                self._peer.recv(self._index)
                for _ in range(4):
                    self._say(30)
            case Phase.FRAGMENTS:
                for _ in range(2):
                    self._say(_BIG)
            case Phase.CLOSE:
                self._peer.close_session(self._index)

    def _say(self, size: int) -> None:
        message, before = self._stage.message(size), self.done
        try:
            self._peer.send(self._index, message)
        except OSError:
            return  # the device may have ended the session already
        self.sent.append(message)
        if self.done > before:
            self.concerned.append(message)

    def _receive(self, messages: Sequence[bytes]) -> None:
        """AssertionError unless the device's user gets exactly these messages."""
        index = self._stage.index[self._other]
        for message in messages:
            seen = self.device.recv(index)
            assert seen == message, f"it received {len(seen)} bytes {seen[:24].hex()} instead of a message"

    def _carries_data(self) -> None:
        for sender, receiver in (("client", "server"), ("server", "client")):
            message = self._stage.message(40)
            self._stage.roles[sender].send(self._stage.index[sender], message)
            seen = self._stage.roles[receiver].recv(self._stage.index[receiver])
            assert seen == message, f"the {receiver} received something else than the {sender} sent"
