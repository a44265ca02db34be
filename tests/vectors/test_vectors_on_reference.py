# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference gives the answers that the derivation gives, case by case."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest

from poolproof.vectors import (
    check,
    reference_adapter,
    reference_discovery,
    reference_records,
    reference_secrets,
    suite,
)
from poolproof.vectors.check import Judgement
from poolref import (
    address,
    config,
    constants,
    crypto,
    exchange,
    fragments,
    integrity,
    journal,
    keys,
    mtu,
    raw_handshake,
    rekey,
    replay,
    responder,
    wire,
)
from poolref.errors import LowOrderKey

CASES = suite.load()
AREAS = sorted({case.area for case in CASES})


def judged(case: suite.Case) -> check.Judged:
    request = json.loads(json.dumps({"id": case.id, "op": case.op, "input": case.input}))
    return check.judge(case, reference_adapter.answer(request))


@pytest.mark.parametrize("area", AREAS)
def test_area(area: str) -> None:
    results = [judged(case) for case in CASES if case.area == area]
    wrong = [f"{j.case.id}: {j.detail}" for j in results if j.judgement is not Judgement.RIGHT]
    assert wrong == []


def test_what_the_reference_does_not_know_is_unsupported() -> None:
    reply = reference_adapter.answer({"id": "x/y", "op": "no.such", "input": {}})
    assert reply == {"id": "x/y", "unsupported": True}


def _little_endian_nonce(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(keys._NONCE, "big", keys._NONCE["little"])


def _label_with_nul(patch: pytest.MonkeyPatch) -> None:
    good = crypto.hkdf
    patch.setattr(crypto, "hkdf", lambda ikm, info, length: good(ikm, info + b"\0", length))


def _low_order_accepted(patch: pytest.MonkeyPatch) -> None:
    good = crypto.exchange

    def exchange(private: bytes, public: bytes) -> bytes:
        try:
            return good(private, public)
        except LowOrderKey:
            return bytes(32)

    patch.setattr(crypto, "exchange", exchange)


def _hmac_not_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(keys.Keys, "authentic", lambda self, packet: True)


def _reserved_bits_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wire, "_FORBIDDEN_FLAGS", 0)


def _no_replay_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replay.ReplayWindow, "fresh", lambda self, seq: True)


def _window_one_too_long(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replay, "REPLAY_WINDOW", 65)
    patch.setattr(replay, "_FULL", (1 << 65) - 1)


def _coverage_by_bytes_received(patch: pytest.MonkeyPatch) -> None:
    good = fragments._Partial.place
    received: dict[int, int] = {}
    kept: list[fragments._Partial] = []  # an object that is gone would lend its id to another

    def place(self: fragments._Partial, start: int, chunk: bytes) -> bool | None:
        kept.append(self)
        received[id(self)] = received.get(id(self), 0) + len(chunk)
        result = good(self, start, chunk)
        if received[id(self)] >= len(self.buffer):
            self.spans = [(0, len(self.buffer))]
        return result

    patch.setattr(fragments._Partial, "place", place)


def _no_clock_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constants, "INIT_CLOCK_TOLERANCE", 1 << 70)


def _challenges_never_expire(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constants, "CHALLENGE_LIFETIME_S", 31)


def _any_puzzle_solution(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(responder, "solves", lambda seed, solution, difficulty: True)


def _any_checksum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(address, "checksum_holds", lambda data: len(data) == 32)


def _harder_puzzles_accepted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constants, "MAX_ACCEPTED_DIFFICULTY", 25)


def _versions_may_jump_back(patch: pytest.MonkeyPatch) -> None:
    good = config.Configuration.judge

    def judge(self: config.Configuration, payload: config.ConfigPayload) -> object:
        result = good(self, payload)
        return config.Parameters.unpack(payload.params) if result is config.Refusal.VERSION else result

    patch.setattr(config.Configuration, "judge", judge)


def _hash_without_version(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(config, "config_hash", lambda version, params: hashlib.sha256(params).digest())
    patch.setattr(reference_records, "config_hash", config.config_hash)


def _links_not_followed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal, "first_break", lambda previous, entries: None)


def _count_ignored(patch: pytest.MonkeyPatch) -> None:
    good = exchange.unpack_exchange

    def unpack(plaintext: bytes) -> object:
        rows = max(len(plaintext) - 2, 0) // 38
        return good(rows.to_bytes(2, "big") + plaintext[2 : 2 + 38 * rows])

    patch.setattr(reference_discovery, "unpack_exchange", unpack)


def _probes_without_tag(patch: pytest.MonkeyPatch) -> None:
    good = mtu.probe
    patch.setattr(mtu, "probe", lambda size: good(size) + bytes(16))


def _raw_window_of_63(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constants, "RECEIVE_AHEAD", 63)


def _doubling_without_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constants, "RTO_RANGE", (constants.RTO_RANGE[0], 1 << 60))


def _no_echo(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(raw_handshake.RawClientHandshake, "_echoed", lambda self, header: True)


def _midpoints_rounded_up(patch: pytest.MonkeyPatch) -> None:
    good = mtu.Search.size.fget  # type: ignore[attr-defined]

    def size(self: mtu.Search) -> int | None:
        found: int | None = good(self)
        return found + (self.low + self._high) % 2 if found not in (None, self._high) else found

    patch.setattr(mtu.Search, "size", property(size))


def _old_secret_forgotten(patch: pytest.MonkeyPatch) -> None:
    def successor(self: keys.Keys, private: bytes, peer_public: bytes) -> keys.Keys:
        return keys.Keys(crypto.hkdf(crypto.exchange(private, peer_public), b"pool-rekey", 32))

    patch.setattr(keys.Keys, "successor", successor)


def _higher_key_wins(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reference_secrets, "own_wins", lambda own, peer: not rekey.own_wins(own, peer))


def _role_not_in_the_answer(patch: pytest.MonkeyPatch) -> None:
    good = integrity.answer
    patch.setattr(integrity, "answer", lambda keys, role, random: good(keys, constants.Role.CLIENT, random))


@pytest.mark.parametrize(
    ("defect", "areas"),
    [
        (_little_endian_nonce, "handshake keys raw sealing session"),
        (_label_with_nul, "handshake integrity keys raw rekey sealing session"),
        (_low_order_accepted, "handshake keys rekey"),
        (_hmac_not_checked, "handshake raw sealing session"),
        (_reserved_bits_ignored, "header session"),
        (_no_replay_window, "replay session"),
        (_window_one_too_long, "replay session"),
        (_coverage_by_bytes_received, "fragments"),
        (_no_clock_check, "handshake raw"),
        (_challenges_never_expire, "handshake"),
        (_any_puzzle_solution, "handshake raw"),
        (_any_checksum, "address discovery handshake"),
        (_harder_puzzles_accepted, "handshake"),
        (_versions_may_jump_back, "config"),
        (_hash_without_version, "config"),
        (_links_not_followed, "journal"),
        (_count_ignored, "discovery"),
        (_probes_without_tag, "mtu"),
        (_midpoints_rounded_up, "mtu"),
        (_old_secret_forgotten, "rekey"),
        (_higher_key_wins, "rekey"),
        (_role_not_in_the_answer, "integrity"),
        (_raw_window_of_63, "raw"),
        (_doubling_without_end, "raw"),
        (_no_echo, "raw"),
    ],
)
def test_a_defect_in_the_reference_shows(
    monkeypatch: pytest.MonkeyPatch, defect: Callable[[pytest.MonkeyPatch], None], areas: str
) -> None:
    defect(monkeypatch)
    wrong = {case.area for case in CASES if judged(case).judgement is Judgement.WRONG}
    assert wrong == set(areas.split())
