# SPDX-License-Identifier: GPL-2.0-or-later
"""The handshake between two endpoints without sockets, in virtual time (section 8)."""

from __future__ import annotations

import copy
import errno
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from poolref_sim import EASY, PEER, START, Pair, World, flipped, seeded, solve
from test_poolref_crypto import LOW_ORDER, rfc5869

from poolref import crypto, wire
from poolref.address import Address
from poolref.constants import MAX_SESSIONS, SECOND, ErrorCode, Flag, Role, State, Type
from poolref.core import Peer
from poolref.counters import DropReason, Verdict
from poolref.dialect import Dialect
from poolref.errors import LocalError, PeerError, PeerRefused, RandomnessError
from poolref.events import HandshakeFailed, PuzzlePosed, SessionEstablished
from poolref.handshake import ClientHandshake, ServerHandshake
from poolref.keys import Keys
from poolref.settings import Settings
from poolref.wire import Challenge, Header, Init, Response


def take(endpoint: ClientHandshake | ServerHandshake) -> bytes:
    (packet,) = endpoint.packets_to_send()
    return packet


class Steps:
    """One handshake, packet by packet, up to the RESPONSE; an easy puzzle unless the world says otherwise."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World(server_settings=EASY)
        self.client = self.world.client_handshake()
        self.server = ServerHandshake(self.world.responder, PEER, self.world.now)
        self.init = take(self.client)

    def challenge(self) -> bytes:
        assert self.server.receive_packet(self.init, self.world.now) is Verdict.ACCEPTED
        return take(self.server)

    def respond(self, challenge: bytes) -> bytes:
        assert self.client.receive_packet(challenge, self.world.now) is Verdict.ACCEPTED
        event = self.client.next_event()
        assert isinstance(event, PuzzlePosed)
        self.client.solved(solve(event), self.world.now)
        return take(self.client)

    def response(self) -> bytes:
        return self.respond(self.challenge())


def advisory(packet: bytes) -> int:
    header = wire.parse(packet)
    code = wire.advisory_code(header, packet)
    assert code is not None
    assert header.session_id == bytes(16)
    return code


def failure(client: ClientHandshake) -> OSError:
    event = client.next_event()
    assert isinstance(event, HandshakeFailed)
    return event.error


# -- the good case ---------------------------------------------------------------------------------


def test_a_handshake_establishes_both_sides() -> None:
    pair = World().pair()
    assert pair.c.session_id == pair.s.session_id != bytes(16)
    assert pair.c.keys.session_key == pair.s.keys.session_key
    assert (pair.c.role, pair.s.role) == (Role.CLIENT, Role.SERVER)
    assert (pair.c.state, pair.s.state) == (State.ESTABLISHED, State.ESTABLISHED)
    assert SessionEstablished(pair.c.session_id, Role.CLIENT) in pair.events["client"]
    assert SessionEstablished(pair.c.session_id, Role.SERVER) in pair.events["server"]


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert Steps(World(7)).response() == Steps(World(7)).response()
    assert Steps(World(7)).response() != Steps(World(8)).response()


def test_packets_of_the_handshake_from_their_definition() -> None:
    """RESPONSE and ACK recomputed without the reference's own protection code."""
    steps = Steps(World())
    init = Init.unpack(steps.init[80:])
    challenge_packet = steps.challenge()
    challenge, session_id = Challenge.unpack(challenge_packet[80:]), challenge_packet[20:36]
    response_packet = steps.respond(challenge_packet)
    response = Response.unpack(response_packet[80:])
    assert steps.server.receive_packet(response_packet, steps.world.now) is Verdict.ACCEPTED
    ack = take(steps.server)

    private = seeded(2)(32)  # what World(seed=1) hands to its client first
    assert crypto.public_key(private) == init.client_pubkey == response.client_pubkey
    shared = crypto.exchange(private, challenge.server_pubkey)
    hmac_key = rfc5869(shared, b"pool-hmac-key", 32)
    for packet in (response_packet, ack):
        digest = hmac.new(hmac_key, packet[:48] + bytes(32) + packet[80:], hashlib.sha256).digest()
        assert packet[48:80] == digest
    seq = int.from_bytes(response_packet[4:12], "big")
    aead = crypto.ChaCha20Poly1305(rfc5869(shared, b"pool-session-key", 32))
    proof = aead.decrypt(hmac_key[:4] + seq.to_bytes(8, "big"), response.sealed_proof, b"")
    assert proof == hmac.new(shared, session_id, hashlib.sha256).digest()
    digest = hashlib.sha256(challenge.puzzle_seed + response.solution).digest()
    assert int.from_bytes(digest, "big") >> (256 - challenge.difficulty) == 0

    headers = [wire.parse(packet) for packet in (steps.init, challenge_packet, response_packet, ack)]
    assert [header.type for header in headers] == [Type.INIT, Type.CHALLENGE, Type.RESPONSE, Type.ACK]
    assert [header.flags for header in headers] == [0, 0, Flag.ENCRYPTED | Flag.REQUIRE_ACK, 0]
    assert [header.ack for header in headers] == [0, 0, 0, seq]
    assert [header.seq for header in headers[:3]] == [0, 0, seq]
    assert 0 <= seq < 2**61
    assert 2**62 <= headers[3].seq < 2**62 + 2**61
    assert headers[0].timestamp == steps.world.wall
    assert headers[0].session_id == bytes(16)
    assert {header.session_id for header in headers[1:]} == {session_id}


def test_the_keys_are_logged_alike_by_both_sides() -> None:
    lines: list[str] = []
    pair = World(keylog=lines.append).pair()
    assert lines == [pair.c.keys.log_entry(pair.c.session_id).line()] * 2


# -- statelessness, the secret, replay -------------------------------------------------------------


def test_an_init_leaves_nothing_at_the_server() -> None:
    world = World()

    def held() -> tuple[object, ...]:
        responder = world.responder
        return (bytes(responder._secret), responder._previous, dict(responder._used), world.slots.free)

    before = held()
    answers = []
    for _ in range(10):
        steps = Steps(world)
        answers.append(steps.challenge())
        assert steps.server.session is None
    assert held() == before
    # What is kept of ten challenges is ten moments, for the load; nothing of any client.
    assert list(world.responder._issued) == [world.now] * 10
    # And all of them can still be answered, on other connections than they came from.
    steps = Steps(world)
    response = steps.response()
    other = ServerHandshake(world.responder, PEER, world.now)
    assert other.receive_packet(response, world.now) is Verdict.ACCEPTED
    assert other.session is not None


@pytest.mark.parametrize("after", [0, 29, 30, 31, 32])
def test_a_challenge_lives_thirty_seconds(after: int) -> None:
    steps = Steps()
    response = steps.response()
    steps.world.now += after * SECOND
    expected = Verdict.ACCEPTED if after <= 30 else DropReason.STALE_RESPONSE
    assert steps.server.receive_packet(response, steps.world.now) is expected


def test_the_secret_rotates_and_the_old_one_is_kept_for_31_seconds_then_zeroed() -> None:
    world = World()
    responder = world.responder
    first = responder._secret
    assert responder.next_timer() == START + 300 * SECOND
    world.now = START + 299 * SECOND
    steps = Steps(world)
    response = steps.response()
    world.now = START + 300 * SECOND
    responder.handle_timer(world.now)
    assert responder._secret != first
    assert responder._previous is first
    assert steps.server.receive_packet(response, world.now) is Verdict.ACCEPTED
    responder.handle_timer(START + 331 * SECOND - 1)
    assert responder._previous is first
    world.now = START + 331 * SECOND
    assert responder.next_timer() <= world.now
    responder.handle_timer(world.now)
    assert responder._previous is None
    assert first == bytes(32)


def test_the_secret_rotates_every_300_seconds() -> None:
    responder = World().responder
    for rotation in range(1, 5):
        secret = responder._secret
        responder.handle_timer(START + rotation * 300 * SECOND - 1)
        assert responder._secret is secret
        responder.handle_timer(START + rotation * 300 * SECOND)
        assert responder._secret != secret
        assert responder._previous is secret


def test_without_a_timer_an_overdue_secret_is_not_used() -> None:
    steps = Steps()
    response = steps.response()
    steps.world.now += 10 * 300 * SECOND
    assert steps.server.receive_packet(response, steps.world.now) is DropReason.BAD_SESSION_ID
    assert steps.world.responder._previous is None


def test_a_response_is_single_use_also_after_its_session_ended() -> None:
    steps = Steps()
    response = steps.response()
    assert steps.server.receive_packet(response, steps.world.now) is Verdict.ACCEPTED
    assert steps.server.session is not None
    steps.server.session.close(steps.world.now)
    steps.world.slots.release(steps.server.session.index)
    for later in (0, 29 * SECOND, 31 * SECOND - 1):  # as long as its challenge is not too old
        again = ServerHandshake(steps.world.responder, PEER, steps.world.now)
        now = steps.world.now + later
        assert again.receive_packet(response, now) is DropReason.REPLAY
        assert again.session is None
        assert advisory(take(again)) == ErrorCode.AUTH_FAIL
    assert steps.world.slots.free == MAX_SESSIONS
    steps.world.responder.handle_timer(steps.world.now + 31 * SECOND)
    assert not steps.world.responder._used


def test_a_failing_response_does_not_use_up_the_challenge() -> None:
    steps = Steps()
    response = steps.response()
    assert steps.server.receive_packet(flipped(response), steps.world.now) is DropReason.AUTH_FAIL
    other = ServerHandshake(steps.world.responder, PEER, steps.world.now)
    assert other.receive_packet(response, steps.world.now) is Verdict.ACCEPTED


# -- what a RESPONSE must be -----------------------------------------------------------------------


def rebuilt(
    steps: Steps,
    *,
    solution: bytes | None = None,
    proof: bytes | None = None,
    seq: int | None = None,
    tag: int = 0,
    **header_fields: int,
) -> bytes:
    """The RESPONSE of ``steps`` with something else in it, rightly signed."""
    original = steps.response()
    keys = steps.client._keys
    assert keys is not None
    header, response = wire.parse(original), Response.unpack(original[80:])
    header.seq = header.seq if seq is None else seq
    plain = hmac.digest(keys.shared, header.session_id, "sha256") if proof is None else proof
    response.sealed_proof = keys.seal(header.seq, plain)
    response.sealed_proof = response.sealed_proof[:-1] + bytes([response.sealed_proof[-1] ^ tag])
    response.solution = response.solution if solution is None else solution
    for name, value in header_fields.items():
        setattr(header, name, value)
    return keys.sign(header, response.pack())


def wrong_solution(steps: Steps) -> bytes:
    return rebuilt(steps, solution=b"\xff" * 32)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (rebuilt, None),  # the control
        (lambda steps: rebuilt(steps, seq=2**62 - 1), None),
        (wrong_solution, DropReason.BAD_PUZZLE),
        (lambda steps: rebuilt(steps, proof=bytes(32)), DropReason.BAD_PROOF),
        (lambda steps: rebuilt(steps, tag=1), DropReason.DECRYPT_FAIL),
        (lambda steps: rebuilt(steps, seq=2**62), DropReason.REFLECTED),
        (lambda steps: rebuilt(steps, ack=1), DropReason.MALFORMED),
        (lambda steps: rebuilt(steps, flags=int(Flag.REQUIRE_ACK)), DropReason.MALFORMED),
        (lambda steps: flipped(steps.response()), DropReason.AUTH_FAIL),
        (lambda steps: flipped(steps.response(), 20), DropReason.BAD_SESSION_ID),
        (lambda steps: flipped(steps.response(), 24), DropReason.BAD_SESSION_ID),
        (lambda steps: flipped(steps.response(), 35), DropReason.BAD_SESSION_ID),
        (lambda steps: flipped(steps.response(), 80), DropReason.BAD_SESSION_ID),
        (
            lambda steps: wire.build(
                Type.RESPONSE, steps.response()[80:] + b"x", flags=Flag.ENCRYPTED, seq=1, hmac=b"h" * 32
            ),
            DropReason.MALFORMED,
        ),
        (
            lambda steps: wire.build(
                Type.RESPONSE, steps.response()[80:-1], flags=Flag.ENCRYPTED, seq=1, hmac=b"h" * 32
            ),
            DropReason.MALFORMED,
        ),
    ],
)
def test_a_response_that_fails(make: Callable[[Steps], bytes], reason: DropReason | None) -> None:
    steps = Steps(World())
    outcome = steps.server.receive_packet(make(steps), steps.world.now)
    if reason is None:
        assert outcome is Verdict.ACCEPTED
        assert steps.server.session is not None
        return
    assert outcome is reason
    assert steps.server.session is None
    assert steps.server.closing
    assert advisory(take(steps.server)) == ErrorCode.AUTH_FAIL
    assert steps.world.slots.free == MAX_SESSIONS
    assert steps.world.counters[reason] == 1


def test_the_keys_of_a_response_that_fails_are_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Keys] = []

    def watched(*arguments: Any, **options: Any) -> Keys:
        made.append(Keys(*arguments, **options))
        return made[-1]

    monkeypatch.setattr("poolref.responder.Keys", watched)
    steps = Steps()
    packet = rebuilt(steps, proof=bytes(32))
    assert steps.server.receive_packet(packet, steps.world.now) is DropReason.BAD_PROOF
    (keys,) = made
    for secret in (keys.shared, keys.session_key, keys.hmac_key, keys.seq_key, keys.k_int, keys.k_int_mac):
        assert secret == bytes(32)
    assert not keys.authentic(packet)


def test_the_cheap_checks_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """HS-02: no X25519 for a wrong session id, a wrong address or an unsolved puzzle."""
    calls: list[bytes] = []
    real = crypto.exchange

    def counting(private: bytes, public: bytes) -> bytes:
        calls.append(bytes(public))
        return real(private, public)

    steps = Steps()
    bad_id, unsolved = flipped(steps.response(), 30), wrong_solution(Steps(World(2)))
    monkeypatch.setattr(crypto, "exchange", counting)
    assert steps.server.receive_packet(bad_id, steps.world.now) is DropReason.BAD_SESSION_ID
    other_world = World(2)
    server = ServerHandshake(other_world.responder, PEER, other_world.now)
    assert server.receive_packet(unsolved, other_world.now) is DropReason.BAD_PUZZLE
    assert not calls
    good = Steps(World(3))
    good_response = good.response()
    calls.clear()
    assert good.server.receive_packet(good_response, good.world.now) is Verdict.ACCEPTED
    assert len(calls) == 1


def test_a_response_from_another_address_is_refused() -> None:
    steps = Steps()
    response = steps.response()
    elsewhere = ServerHandshake(steps.world.responder, Peer(bytes(15) + b"\1"), steps.world.now)
    assert elsewhere.receive_packet(response, steps.world.now) is DropReason.BAD_SESSION_ID
    assert steps.server.receive_packet(response, steps.world.now) is Verdict.ACCEPTED


def test_a_client_key_of_low_order_aborts_at_the_server() -> None:
    for point in LOW_ORDER[:2]:  # each costs a solved puzzle; all are tested where the check is made
        world = World()
        server = ServerHandshake(world.responder, PEER, world.now)
        init = wire.build(Type.INIT, Init(point, bytes(32)).pack(), timestamp=world.wall)
        assert server.receive_packet(init, world.now) is Verdict.ACCEPTED
        packet = take(server)
        challenge, session_id = Challenge.unpack(packet[80:]), packet[20:36]
        # An attacker knows the shared secret such a key leads to, so everything else is right.
        keys = Keys(bytes(32))
        proof = keys.seal(5, hmac.digest(bytes(32), session_id, "sha256"))
        solution = solve(PuzzlePosed(challenge.puzzle_seed, challenge.difficulty, 0))
        header = Header(Type.RESPONSE, int(Flag.ENCRYPTED | Flag.REQUIRE_ACK), 5, 0, session_id)
        response = keys.sign(header, Response(point, solution, proof).pack())
        assert server.receive_packet(response, world.now) is DropReason.LOW_ORDER_KEY
        assert server.session is None


# -- what an INIT must be --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "size", "reason"),
    [
        ({}, 64, None),
        ({"timestamp": 30 * SECOND}, 64, None),
        ({"timestamp": -30 * SECOND}, 64, None),
        ({"timestamp": 30 * SECOND + 1}, 64, DropReason.STALE_INIT),
        ({"timestamp": -30 * SECOND - 1}, 64, DropReason.STALE_INIT),
        ({}, 63, DropReason.MALFORMED),
        ({}, 65, DropReason.MALFORMED),
        ({"seq": 1}, 64, DropReason.MALFORMED),
        ({"session_id": b"x" * 16}, 64, DropReason.MALFORMED),
        ({"hmac": b"x" * 32}, 64, DropReason.MALFORMED),
        ({"flags": Flag.REQUIRE_ACK}, 64, DropReason.MALFORMED),
        ({"reserved1": 1}, 64, DropReason.MALFORMED),
    ],
)
def test_an_init_that_is_discarded(fields: dict[str, int], size: int, reason: DropReason | None) -> None:
    world = World()
    server = ServerHandshake(world.responder, PEER, world.now)
    stamped = {**fields, "timestamp": world.wall + fields.get("timestamp", 0)}
    outcome = server.receive_packet(
        wire.build(Type.INIT, bytes([9]) * 32 + bytes(size - 32), **stamped), world.now
    )
    assert outcome is (reason or Verdict.ACCEPTED)
    assert len(server.packets_to_send()) == (reason is None)
    assert not server.closing
    if reason is not None:
        assert world.counters[reason] == 1


@pytest.mark.parametrize("good", [True, False])
def test_addresses_are_checked_by_both_sides(good: bool) -> None:
    address = Address(1, 2, 3, 4).pack()
    if not good:
        address = flipped(address, 31)
    steps = Steps()
    init = wire.build(Type.INIT, Init(steps.init[80:112], address).pack(), timestamp=steps.world.wall)
    outcome = steps.server.receive_packet(init, steps.world.now)
    assert outcome is (Verdict.ACCEPTED if good else DropReason.MALFORMED)
    challenge = Challenge.unpack(Steps().challenge()[80:])
    challenge.server_addr = address
    packet = wire.build(Type.CHALLENGE, challenge.pack(), session_id=b"s" * 16)
    outcome = steps.client.receive_packet(packet, steps.world.now)
    assert outcome is (Verdict.ACCEPTED if good else DropReason.MALFORMED)


def test_another_version_is_answered_only_to_an_init() -> None:
    for version in (0, 2, 15):
        steps = Steps()
        packet = bytes([version << 4]) + steps.init[1:]
        assert steps.server.receive_packet(packet, steps.world.now) is DropReason.VERSION_MISMATCH
        answer = take(steps.server)
        assert advisory(answer) == ErrorCode.VERSION_MISMATCH
        assert answer[0] >> 4 == 1
    for type in set(Type) - {Type.INIT}:
        steps = Steps()
        packet = wire.build(type, version=2)
        assert steps.server.receive_packet(packet, steps.world.now) is DropReason.VERSION_MISMATCH
        assert steps.server.packets_to_send() == []
        assert steps.server.receive_packet(steps.init, steps.world.now) is Verdict.ACCEPTED


# -- difficulty ------------------------------------------------------------------------------------


def test_difficulty_rises_with_unverified_challenges_of_the_last_second_up_to_22() -> None:
    world = World()
    seen = []
    for _ in range(600):
        steps = Steps(world)
        seen.append(Challenge.unpack(steps.challenge()[80:]).difficulty)
    assert [seen.index(difficulty) for difficulty in range(16, 23)] == [64 * step for step in range(7)]
    assert set(seen[384:]) == {22}
    world.now += SECOND - 1
    assert world.responder.difficulty(world.now) == 22
    world.now += 1
    assert world.responder.difficulty(world.now) == 16


def test_difficulty_follows_the_configuration_and_stays_within_22_under_load() -> None:
    world = World()
    before = world.server_core.configuration.current
    params = replace(before.params, difficulty=19)
    world.server_core.configuration.current = replace(before, params=params)
    seen = [Challenge.unpack(Steps(world).challenge()[80:]).difficulty for _ in range(400)]
    assert [seen.index(difficulty) for difficulty in range(19, 23)] == [64 * step for step in range(4)]
    assert max(seen) == 22
    world.server_core.configuration.current = before
    world.now += SECOND
    assert world.responder.difficulty(world.now) == 16


def test_a_verified_challenge_no_longer_counts() -> None:
    world = World()
    steps = Steps(world)
    response = steps.response()
    for _ in range(63):
        Steps(world).challenge()
    assert world.responder.difficulty(world.now) == 17
    assert steps.server.receive_packet(response, world.now) is Verdict.ACCEPTED
    assert world.responder.difficulty(world.now) == 16


@pytest.mark.parametrize(("difficulty", "good"), [(15, False), (16, True), (20, True), (21, False)])
def test_configured_difficulty(difficulty: int, good: bool) -> None:
    if good:
        assert Settings(difficulty=difficulty).difficulty == difficulty
    else:
        with pytest.raises(LocalError) as error:
            Settings(difficulty=difficulty)
        assert error.value.errno == errno.EINVAL


def test_a_dialect_may_allow_less() -> None:
    assert Settings(difficulty=8, dialect=Dialect(min_difficulty=8)).difficulty == 8


# -- the client ------------------------------------------------------------------------------------


def with_challenge(steps: Steps, session_id: bytes = b"s" * 16, **changes: object) -> bytes:
    challenge = Challenge.unpack(steps.challenge()[80:])
    for name, value in changes.items():
        setattr(challenge, name, value)
    return wire.build(Type.CHALLENGE, challenge.pack(), session_id=session_id)


def test_difficulty_24_is_accepted_25_refused() -> None:
    steps = Steps()
    assert steps.client.receive_packet(with_challenge(steps, difficulty=24), START) is Verdict.ACCEPTED
    steps = Steps()
    packet = with_challenge(steps, difficulty=25)
    assert steps.client.receive_packet(packet, START) is DropReason.TOO_DIFFICULT
    error = failure(steps.client)
    assert error.errno == errno.ERANGE
    assert "25 bits" in str(error)


def test_server_keys_of_low_order_abort_at_the_client() -> None:
    for point in LOW_ORDER:
        steps = Steps()
        packet = with_challenge(steps, server_pubkey=point)
        assert steps.client.receive_packet(packet, START) is DropReason.LOW_ORDER_KEY
        assert failure(steps.client).errno == errno.EBADMSG
        assert steps.client.closing


def test_a_session_id_that_is_zero_or_in_use_is_refused() -> None:
    for session_id in (bytes(16), b"u" * 16, b"f" * 16):
        steps = Steps()
        steps.client = steps.world.client_handshake(in_use=lambda candidate: candidate == b"u" * 16)
        outcome = steps.client.receive_packet(with_challenge(steps, session_id), START)
        if session_id == b"f" * 16:
            assert outcome is Verdict.ACCEPTED
        else:
            assert outcome is DropReason.BAD_SESSION_ID
            assert failure(steps.client).errno == errno.EBADMSG


@pytest.mark.parametrize("fields", [{"seq": 1}, {"hmac": b"x" * 32}, {"flags": Flag.PRIORITY}])
def test_a_challenge_with_what_no_challenge_has_is_discarded(fields: dict[str, int]) -> None:
    steps = Steps()
    good = with_challenge(steps)
    bad = wire.build(Type.CHALLENGE, good[80:], session_id=b"s" * 16, **fields)
    assert steps.client.receive_packet(bad, START) is DropReason.MALFORMED
    assert steps.client.receive_packet(good[:-1], START) is DropReason.MALFORMED
    short = wire.build(Type.CHALLENGE, good[80:-1], session_id=b"s" * 16)
    assert steps.client.receive_packet(short, START) is DropReason.MALFORMED
    assert steps.client.receive_packet(good, START) is Verdict.ACCEPTED


def challenged() -> tuple[Steps, Keys, bytes]:
    """A client that waits for its ACK, the keys it has, and the right ACK."""
    steps = Steps()
    response = steps.response()
    assert steps.server.receive_packet(response, START) is Verdict.ACCEPTED
    keys = steps.client._keys
    assert keys is not None
    return steps, keys, take(steps.server)


def forged_ack(keys: Keys, packet: bytes, **changes: int | bytes) -> bytes:
    header = wire.parse(packet)
    for name, value in changes.items():
        setattr(header, name, value)
    return keys.protect(header)


def test_only_the_right_ack_establishes() -> None:
    steps, keys, ack = challenged()
    client = steps.client
    first = wire.parse(ack).ack
    assert (
        client.receive_packet(forged_ack(keys, ack, session_id=b"x" * 16), START)
        is DropReason.UNKNOWN_SESSION
    )
    assert client.receive_packet(forged_ack(keys, ack, ack=first + 1), START) is DropReason.BAD_ACK
    assert client.receive_packet(forged_ack(keys, ack, seq=first), START) is DropReason.REFLECTED
    assert client.receive_packet(forged_ack(keys, ack, seq=2**63), START) is DropReason.REFLECTED
    for type in (Type.DATA, Type.HEARTBEAT, Type.CHALLENGE, Type.RESPONSE, Type.INIT, Type.REKEY):
        packet = keys.protect(Header(type, seq=2**62, session_id=client._session_id), b"x" * 112)
        assert client.receive_packet(packet, START) is DropReason.UNEXPECTED_TYPE
    assert client.session is None
    assert client.receive_packet(ack, START) is Verdict.ACCEPTED
    assert client.session is not None
    assert client.session.window.highest == wire.parse(ack).seq


def test_an_ack_that_is_not_authentic_ends_the_attempt() -> None:
    steps, _keys, ack = challenged()
    assert steps.client.receive_packet(flipped(ack, 79), START) is DropReason.AUTH_FAIL
    assert failure(steps.client).errno == errno.EBADMSG
    assert steps.client.session is None
    assert steps.client.receive_packet(ack, START) is DropReason.UNEXPECTED_TYPE


def test_a_second_solution_is_ignored() -> None:
    steps, _keys, ack = challenged()
    steps.client.solved(bytes(32), START)
    assert steps.client.packets_to_send() == []
    assert steps.client.receive_packet(ack, START) is Verdict.ACCEPTED


def test_an_ack_before_the_response_is_discarded() -> None:
    steps = Steps()
    assert steps.client.receive_packet(steps.challenge(), START) is Verdict.ACCEPTED
    assert steps.client._keys is not None
    early = steps.client._keys.protect(Header(Type.ACK, 0, 2**62, 0, steps.client._session_id))
    assert steps.client.receive_packet(early, START) is DropReason.UNEXPECTED_TYPE


@pytest.mark.parametrize("state", [State.INIT_SENT, State.CHALLENGED])
@pytest.mark.parametrize(
    ("code", "kind", "number"),
    [
        (ErrorCode.VERSION_MISMATCH, PeerError, errno.EPROTONOSUPPORT),
        (ErrorCode.OVERLOAD, PeerRefused, errno.ECONNREFUSED),
        (ErrorCode.AUTH_FAIL, PeerError, errno.ECONNRESET),
    ],
)
def test_an_advisory_close_ends_the_attempt(
    state: State, code: ErrorCode, kind: type[PeerError], number: int
) -> None:
    steps = Steps() if state is State.INIT_SENT else challenged()[0]
    assert steps.client.state is state
    assert steps.client.receive_packet(wire.advisory_close(code, 0), START) is Verdict.CLOSED
    error = failure(steps.client)
    assert type(error) is kind
    assert isinstance(error, PeerError)
    assert (error.errno, error.code) == (number, code)


def test_the_answer_of_another_version_is_eprotonosupport() -> None:
    steps = Steps()
    close = wire.build(Type.CLOSE, bytes([ErrorCode.VERSION_MISMATCH]), version=2)
    other = wire.build(Type.CLOSE, bytes([ErrorCode.OVERLOAD]), version=2)
    assert steps.client.receive_packet(other, START) is DropReason.VERSION_MISMATCH
    assert steps.client.next_event() is None
    assert steps.client.receive_packet(close, START) is DropReason.VERSION_MISMATCH
    assert failure(steps.client).errno == errno.EPROTONOSUPPORT


def test_a_close_that_is_not_advisory_is_discarded() -> None:
    for make in (
        lambda: wire.build(Type.CLOSE, b"\x09", hmac=b"h" * 32),
        lambda: wire.build(Type.CLOSE, b"\x09", seq=1),
        lambda: wire.build(Type.CLOSE, b"\x09\x09"),
        lambda: wire.build(Type.CLOSE, b""),
    ):
        steps = Steps()
        assert steps.client.receive_packet(make(), START) is DropReason.MALFORMED
        assert steps.client.next_event() is None
        assert steps.client.receive_packet(steps.challenge(), START) is Verdict.ACCEPTED


# -- time ------------------------------------------------------------------------------------------


def test_client_timeouts() -> None:
    steps = Steps()
    assert steps.client.next_timer() == START + 10 * SECOND
    steps.client.handle_timer(START + 10 * SECOND - 1)
    assert steps.client.next_event() is None
    steps.client.handle_timer(START + 10 * SECOND)
    error = failure(steps.client)
    assert error.errno == errno.ETIMEDOUT
    assert "CHALLENGE" in str(error)

    steps = Steps()
    steps.client.receive_packet(steps.challenge(), START)
    event = steps.client.next_event()
    assert isinstance(event, PuzzlePosed)
    assert steps.client.next_timer() == event.deadline == START + 25 * SECOND
    steps.client.handle_timer(START + 25 * SECOND)
    assert "solution" in str(failure(steps.client))
    steps.client.solved(bytes(32), START + 26 * SECOND)
    assert steps.client.packets_to_send() == []

    steps, _keys, ack = challenged()
    assert steps.client.next_timer() == START + 30 * SECOND
    steps.client.handle_timer(START + 30 * SECOND)
    assert "ACK" in str(failure(steps.client))
    assert steps.client.receive_packet(ack, START) is DropReason.UNEXPECTED_TYPE


def test_server_timeouts() -> None:
    steps = Steps()
    server = steps.server
    assert server.next_timer() == START + 10 * SECOND
    server.handle_timer(START + 10 * SECOND - 1)
    assert not server.closing
    steps.challenge()
    assert server.next_timer() == START + 30 * SECOND
    steps.world.now = START + 20 * SECOND
    assert server.receive_packet(Steps(steps.world).init, steps.world.now) is Verdict.ACCEPTED
    assert server.next_timer() == START + 30 * SECOND, "a second INIT does not buy time"
    server.handle_timer(START + 30 * SECOND)
    assert server.closing
    assert steps.world.counters["handshake_timeouts"] == 1
    silent = Steps().server
    silent.handle_timer(START + 10 * SECOND)
    assert silent.closing


def test_the_stream_ending_during_the_handshake() -> None:
    steps = Steps()
    steps.client.end_of_stream(START)
    assert failure(steps.client).errno == errno.ECONNRESET
    steps.server.end_of_stream(START)
    assert steps.server.closing
    assert steps.world.counters["handshakes_failed"] == 1


# -- failure leaves nothing, randomness, capacity --------------------------------------------------


def test_a_failed_attempt_erases_its_keys() -> None:
    steps, keys, _ack = challenged()
    assert any(keys.session_key)
    steps.client.receive_packet(wire.advisory_close(1, 0), START)
    assert not any(keys.session_key)
    assert steps.client._private == bytes(32)
    steps = Steps()
    assert any(steps.client._private)
    steps.client.cancel()
    assert steps.client._private == bytes(32)


def failing_after(calls: int) -> Callable[[int], bytes]:
    source, left = seeded(99), [calls]

    def draw(size: int) -> bytes:
        if not left[0]:
            raise OSError("no entropy")
        left[0] -= 1
        return source(size)

    return draw


def test_failing_randomness_fails_the_operation_cleanly() -> None:
    world = World()
    world.client_core.rng = failing_after(0)
    with pytest.raises(RandomnessError):
        world.client_handshake()

    world.client_core.rng = seeded(3)
    steps = Steps(world)
    world.client_core.rng = failing_after(1)
    steps.client = world.client_handshake()
    steps.init = take(steps.client)
    steps.client.receive_packet(steps.challenge(), START)
    event = steps.client.next_event()
    assert isinstance(event, PuzzlePosed)
    steps.client.solved(solve(event), START)
    assert isinstance(failure(steps.client), RandomnessError)
    assert steps.client.packets_to_send() == []

    world.client_core.rng = seeded(4)
    steps = Steps(world)
    world.server_core.rng = failing_after(0)
    assert steps.server.receive_packet(steps.init, START) is DropReason.NO_RANDOMNESS
    world.server_core.rng = failing_after(1)
    response = steps.response()
    assert steps.server.receive_packet(response, START) is DropReason.NO_RANDOMNESS
    assert world.slots.free == MAX_SESSIONS
    world.server_core.rng = failing_after(0)
    with pytest.raises(RandomnessError):
        world.responder.handle_timer(START + 301 * SECOND)
    late = ServerHandshake(world.responder, PEER, START)
    assert late.receive_packet(flipped(response), START + 301 * SECOND) is DropReason.NO_RANDOMNESS


def test_the_65th_session_is_refused_at_init_and_at_response() -> None:
    world = World()
    steps = Steps(world)
    response = steps.response()
    taken = [world.slots.take() for _ in range(MAX_SESSIONS)]
    assert taken == list(range(MAX_SESSIONS))
    assert world.slots.take() is None
    late = Steps(world)
    assert late.server.receive_packet(late.init, START) is DropReason.NO_SLOT
    assert advisory(take(late.server)) == ErrorCode.OVERLOAD
    assert steps.server.receive_packet(response, START) is DropReason.NO_SLOT
    assert advisory(take(steps.server)) == ErrorCode.OVERLOAD
    world.slots.release(5)
    again = ServerHandshake(world.responder, PEER, START)
    assert again.receive_packet(response, START) is Verdict.ACCEPTED, "a refused RESPONSE is not used up"
    assert again.session is not None
    assert again.session.index == 5


def test_slots_are_given_out_round_robin() -> None:
    slots = World().slots
    assert slots.take() == 0
    slots.release(0)
    assert slots.take() == 1


def test_the_sessions_share_nothing() -> None:
    world = World()
    first, second = world.pair(), world.pair()
    assert first.c.session_id != second.c.session_id
    assert first.c.keys.session_key != second.c.keys.session_key
    assert first.c.first_seq != second.c.first_seq


def test_a_client_in_the_middle_of_the_stream_boundaries() -> None:
    """Byte by byte, and everything in one piece."""
    world = World()
    pair = Pair(world, world.client(), world.server())
    for byte in pair.client.data_to_send():
        pair.server.receive_data(bytes([byte]), world.now)
    pair.run()
    pair.c.send(b"one", world.now)
    pair.c.send(b"two", world.now)
    pair.run()
    assert [pair.server.take(world.now), pair.server.take(world.now)] == [(0, b"one"), (0, b"two")]


def test_a_monotonic_init_timestamp_is_a_matter_of_dialect() -> None:
    dialect = Dialect(init_timestamp="monotonic")
    world = World(client_settings=Settings(dialect=dialect))
    client = world.client_handshake()
    init = take(client)
    assert wire.parse(init).timestamp == world.now
    strict = ServerHandshake(world.responder, PEER, world.now)
    assert strict.receive_packet(init, world.now) is DropReason.STALE_INIT
    lenient = World(server_settings=Settings(dialect=dialect))
    server = ServerHandshake(lenient.responder, PEER, lenient.now)
    assert server.receive_packet(copy.copy(init), lenient.now) is Verdict.ACCEPTED
