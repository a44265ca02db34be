# SPDX-License-Identifier: GPL-2.0-or-later
"""Vectors of sections 6, 8 (puzzle), 9 and 3: keys, nonces, sealing, puzzles, addresses."""

from __future__ import annotations

import struct
import zlib

from casework import U64, Area, Values, drop, filler, flip
from derivations import ACK, CLOSE, DATA, ENCRYPTED, HEARTBEAT, REQUIRE_ACK, SERVER_BASE, TELEMETRY, public
from derive import (
    LOW_ORDER,
    RFC7748,
    P,
    address,
    aead_seal,
    header,
    hkdf,
    leading_zero_bits,
    nonce_of,
    session_keys,
    sha256,
    sign,
    solve,
    x25519,
)

SEQS = {
    "zero": 0, "one": 1, "u32": 2**32 - 1, "u32_plus_one": 2**32, "bytes": 0x0102030405060708,
    "client_start_max": 2**61 - 1, "client_last": 2**62 - 1, "server_first": 2**62,
    "server_start_max": 2**62 + 2**61 - 1, "server_last": 2**63 - 1,
}  # fmt: skip
SHAREDS = [RFC7748[1][2], bytes(31) + b"\x01", b"\xff" * 32, filler("shared a", 32), filler("shared b", 32)]


def keys() -> Area:
    given: Values
    area = Area("keys", "X25519, HKDF, the key schedule and nonces (section 6)")
    for number, (scalar, point, result) in enumerate(RFC7748):
        given = {"private": scalar, "public": point}
        area.case(f"x25519-rfc7748-{number}", "x25519", "KEY-01", "rfc valid", given, {"shared": result})
    for number in range(6):
        scalar, point = filler(f"scalar {number}", 32), public(filler(f"point {number}", 32))
        given, result = {"private": scalar, "public": point}, x25519(scalar, point)
        area.case(f"x25519-{number}", "x25519", "KEY-01", "valid", given, {"shared": result})
        given = {"private": scalar}
        area.case(
            f"x25519-public-{number}", "x25519.public", "KEY-01", "valid", given, {"public": public(scalar)}
        )
    scalar = filler("scalar 0", 32)
    for number, point in enumerate([RFC7748[0][1], public(filler("point 0", 32))]):
        high = point[:31] + bytes([point[31] | 0x80])
        area.case(
            f"x25519-bit255-{number}", "x25519", "KEY-01", "non_canonical valid",
            {"private": scalar, "public": high}, {"shared": x25519(scalar, high)},
        )  # fmt: skip
    for name, value in {"p_plus_2": P + 2, "p_plus_9": P + 9, "all_ones": 2**255 - 1}.items():
        point = value.to_bytes(32, "little")
        area.case(
            f"x25519-unreduced-{name}", "x25519", "KEY-01", "non_canonical valid",
            {"private": scalar, "public": point}, {"shared": x25519(scalar, point)},
        )  # fmt: skip
    for number, point in enumerate(LOW_ORDER):
        for variant, bits in (("", 0), ("-bit255", 0x80)):
            low = point[:31] + bytes([point[31] | bits])
            flags = "low_order non_canonical" if bits or number > 4 else "low_order"
            area.case(
                f"x25519-low-order-{number}{variant}", "x25519", "KEY-01", flags,
                {"private": scalar, "public": low}, drop("low_order_key"),
            )  # fmt: skip
    for length in (1, 31, 33, 64, 255 * 32):
        given = {"ikm": filler("ikm", 32), "info": b"pool-session-key", "length": length}
        okm = hkdf(filler("ikm", 32), b"pool-session-key", length)
        flags = "edge" if length in (1, 255 * 32) else "valid"
        area.case(f"hkdf-{length}", "hkdf", "KEY-03", flags, given, {"okm": okm})
    for length in (0, 255 * 32 + 1, 65536):
        given = {"ikm": filler("ikm", 32), "info": b"pool-session-key", "length": length}
        area.case(f"hkdf-{length}", "hkdf", "KEY-03", "beyond", given, {"refused": True})
    for label in ("pool-session-key", "pool-hmac-key", "pool-seq-key", "", "pool-session-key\0"):
        for size in (32, 64):
            ikm = filler("ikm", size)
            area.case(
                f"hkdf-{size}-{label.encode().hex() or 'empty'}", "hkdf", "KEY-02 KEY-03", "valid",
                {"ikm": ikm, "info": label.encode(), "length": 32}, {"okm": hkdf(ikm, label.encode(), 32)},
            )  # fmt: skip
    for number, shared in enumerate(SHAREDS):
        session_key, hmac_key = session_keys(shared)
        area.case(
            f"schedule-{number}", "keys.derive", "KEY-02", "valid", {"shared": shared},
            {
                "session_key": session_key,
                "hmac_key": hmac_key,
                "seq_key": hkdf(shared, b"pool-seq-key", 32),
            },
        )  # fmt: skip
    for number, shared in enumerate(SHAREDS[:2]):
        for name, seq in SEQS.items():
            hmac_key = session_keys(shared)[1]
            flags = "edge" if "max" in name or "last" in name else "valid"
            area.case(
                f"nonce-{number}-{name}", "nonce", "SEAL-02", flags,
                {"shared": shared, "seq": U64(seq)}, {"nonce": nonce_of(hmac_key, seq)},
            )  # fmt: skip
    return area


def protected(
    shared: bytes, type_: int, plaintext: bytes, *, flags: int = 0, seq: int, **fields: int
) -> bytes:
    """A whole packet of the session with the id below (SEAL-01 .. SEAL-03)."""
    session_key, hmac_key = session_keys(shared)
    payload = aead_seal(session_key, nonce_of(hmac_key, seq), plaintext) if plaintext else b""
    if plaintext:
        flags |= ENCRYPTED
    head = header(type_, flags=flags, seq=seq, session_id=SESSION_ID, payload_len=len(payload), **fields)  # type: ignore[arg-type]
    return sign(hmac_key, head, payload)


SESSION_ID = filler("session id", 16)


def sealing() -> Area:
    area = Area("sealing", "Sealed and signed packets (SEAL-01 .. SEAL-07)")
    shared = SHAREDS[3]
    sizes = [0, 1, 15, 16, 17, 44, 63, 64, 65, 127, 128, 255, 1304]
    for number, size in enumerate(sizes):
        plaintext = filler(f"plaintext {size}", size)
        seq = (SERVER_BASE if number % 2 else 0) + 1000 + number
        fields: Values = {
            "type": DATA if size else ACK,
            "flags": REQUIRE_ACK if size else 0,
            "seq": U64(seq),
            "ack": U64(7 * number),
            "session_id": SESSION_ID,
            "timestamp": U64(10**15 + number),
            "channel": number if size else 0,
        }
        packet = protected(
            shared, fields["type"], plaintext, flags=fields["flags"], seq=seq, ack=7 * number,
            timestamp=10**15 + number, channel=fields["channel"],
        )  # fmt: skip
        given = {"shared": shared, "header": fields, "plaintext": plaintext}
        reqs = "SEAL-01 SEAL-02 SEAL-03" if size else "SEAL-03 SEAL-04 WIRE-08"
        area.case(f"protect-{size}", "packet.protect", reqs, "valid", given, {"packet": packet})
        given = {"shared": shared, "packet": packet}
        area.case(f"open-{size}", "packet.open", reqs, "valid", given, {"plaintext": plaintext})
    for name, type_, flags, plaintext in (
        ("close-empty", CLOSE, 0, b""),
        ("close-code", CLOSE, 0, b"\x03"),
        ("heartbeat", HEARTBEAT, TELEMETRY, filler("heartbeat", 44)),
    ):
        for seq_name, seq in SEQS.items():
            packet = protected(shared, type_, plaintext, flags=flags, seq=seq)
            given = {"shared": shared, "packet": packet}
            area.case(
                f"open-{name}-{seq_name}", "packet.open", "SEAL-02 SEAL-04", "valid", given,
                {"plaintext": plaintext},
            )  # fmt: skip
    _negative(area, shared)
    return area


def _negative(area: Area, shared: bytes) -> None:
    packet = protected(shared, DATA, filler("tampered", 40), flags=REQUIRE_ACK, seq=77, ack=3, channel=9)
    # Bits of every field whose change leaves the header well-formed.
    bits = {
        "flags": 16 + 13, "seq-first": 32, "seq-last": 95, "ack": 96, "ack-last": 159, "session-id": 160,
        "session-id-last": 287, "timestamp": 288, "timestamp-last": 351, "channel": 368, "hmac": 384,
        "hmac-last": 639, "ciphertext": 640, "ciphertext-last": 640 + 319, "tag": 960, "tag-last": 1087,
    }  # fmt: skip
    for name, bit in bits.items():
        given = {"shared": shared, "packet": flip(packet, bit)}
        area.case(f"bit-{name}", "packet.open", "SEAL-03 SEAL-06", "tampered", given, drop("auth_fail"))
    for size in (0, 40):
        signed = protected(SHAREDS[4], DATA if size else ACK, filler("foreign", size), seq=5)
        given = {"shared": shared, "packet": signed}
        area.case(f"foreign-keys-{size}", "packet.open", "SEAL-06", "wrong_key", given, drop("auth_fail"))
    zeroed = packet[:48] + bytes(32) + packet[80:]
    given = {"shared": shared, "packet": zeroed}
    area.case("hmac-zero", "packet.open", "SEAL-04 SEAL-06", "tampered", given, drop("auth_fail"))
    session_key, hmac_key = session_keys(shared)
    head, payload = packet[:48] + bytes(32), packet[80:]
    for name, bit in (("first", 0), ("middle", 160), ("tag-first", 320), ("tag-last", 447)):
        signed = sign(hmac_key, head, flip(payload, bit))
        given = {"shared": shared, "packet": signed}
        area.case(f"bad-tag-{name}", "packet.open", "SEAL-07", "tampered", given, drop("decrypt_fail"))
    for name, key, nonce, aad in (
        ("key", hmac_key, nonce_of(hmac_key, 77), b""),
        ("seq", session_key, nonce_of(hmac_key, 78), b""),
        ("little-endian-seq", session_key, hmac_key[:4] + struct.pack("<Q", 77), b""),
        ("prefix", session_key, session_key[:4] + struct.pack(">Q", 77), b""),
        ("header-as-aad", session_key, nonce_of(hmac_key, 77), head),
    ):
        signed = sign(hmac_key, head, aead_seal(key, nonce, filler("tampered", 40), aad))
        given = {"shared": shared, "packet": signed}
        area.case(
            f"sealed-wrongly-{name}", "packet.open", "SEAL-01 SEAL-02 SEAL-07", "wrong_key", given,
            drop("decrypt_fail"),
        )  # fmt: skip
    plaintext_mac = sign(hmac_key, head, filler("tampered", 40) + bytes(16))[48:80]
    given = {"shared": shared, "packet": packet[:48] + plaintext_mac + payload}
    area.case("hmac-over-plaintext", "packet.open", "SEAL-03", "contradiction", given, drop("auth_fail"))


def puzzle() -> Area:
    area = Area("puzzle", "Puzzle solutions (HS-03) and leading zero bits")
    for number, difficulty in enumerate([0, 1, 7, 8, 9, 12, 15, 16, 16]):
        seed = filler(f"puzzle {number}", 32)
        solution = solve(seed, difficulty)
        bits = leading_zero_bits(sha256(seed + solution))
        for asked in sorted({difficulty, bits, bits + 1, 24}):
            holds = bits >= asked
            flags = "edge" if asked == bits else "valid" if holds else "beyond"
            area.case(
                f"{number}-asked-{asked}", "puzzle.verify", "HS-03", flags,
                {"seed": seed, "solution": solution, "difficulty": asked}, {"holds": holds},
            )  # fmt: skip
    seed = filler("puzzle swapped", 32)
    solution = solve(seed, 12)
    for name, s, x in (
        ("swapped", solution, seed),
        ("other-seed", flip(seed, 255), solution),
        ("other-solution", seed, flip(solution, 0)),
    ):
        holds = leading_zero_bits(sha256(s + x)) >= 12
        area.case(
            name, "puzzle.verify", "HS-03", "contradiction",
            {"seed": s, "solution": x, "difficulty": 12}, {"holds": holds},
        )  # fmt: skip
    return area


def addresses() -> Area:
    area = Area("address", "Addresses (section 9)")
    samples = [(1, 0, 0), (1, 1, 2), (1, 2**64 - 1, 2**64 - 1), (0, 0, 0), (2**32 - 1, 0x0123456789ABCDEF, 5)]
    for number, (type_version, org, segment) in enumerate(samples):
        static = filler(f"static {number}", 32)
        data = address(static, type_version, org, segment)
        node_id = U64(int.from_bytes(sha256(static)[:8], "big"))
        groups = [data.hex()[a:b] for a, b in ((0, 8), (8, 24), (24, 40), (40, 56), (56, 64))]
        text = "pool1:" + ":".join(groups)
        fields = {
            "type_version": type_version, "org_id": U64(org), "segment_id": U64(segment), "node_id": node_id,
        }  # fmt: skip
        area.case(
            f"node-id-{number}", "address.node_id", "ADDR-03", "valid", {"static_pubkey": static},
            {"node_id": node_id},
        )  # fmt: skip
        both = {"address": data, "text": text}
        area.case(f"encode-{number}", "address.encode", "ADDR-01 ADDR-02", "valid", fields, both)
        area.case(f"decode-{number}", "address.decode", "ADDR-01 ADDR-02", "valid", {"address": data}, fields)
        area.case(f"text-{number}", "address.parse_text", "ADDR-01", "valid", {"text": text}, fields)
    data = address(filler("static 0", 32))
    text = "pool1:" + ":".join(data.hex()[a:b] for a, b in ((0, 8), (8, 24), (24, 40), (40, 56), (56, 64)))
    for bit in (0, 31, 32, 95, 96, 160, 223, 224, 255):
        given = {"address": flip(data, bit)}
        area.case(f"bit-{bit}", "address.decode", "ADDR-02", "tampered", given, drop("malformed"))
    for size in (0, 28, 31, 33):
        given = {"address": (data + b"\0")[:size]}
        flags = "truncated" if size < 32 else "oversized"
        area.case(f"size-{size}", "address.decode", "ADDR-01", flags, given, drop("malformed"))
    little = data[:28] + struct.pack("<I", zlib.crc32(data[:28]))
    over_all = data[:28] + struct.pack(">I", zlib.crc32(data[:28] + bytes(4)))
    for name, bad in (("crc-little-endian", little), ("crc-over-32", over_all), ("zero", bytes(32))):
        given = {"address": bad}
        area.case(name, "address.decode", "ADDR-02", "contradiction", given, drop("malformed"))
    for name, bad_text in {
        "upper-case": "pool1:" + text[6:].upper(),
        "no-prefix": text[6:],
        "pool2": "pool2" + text[5:],
        "grouping": text.replace(":", "", 2).replace("pool1", "pool1:", 1),
        "short": text[:-1],
        "long": text + "0",
        "newline": text + "\n",
        "blank": " " + text,
        "not-hex": text[:-1] + "g",
        "wrong-crc": text[:-1] + ("0" if text[-1] != "0" else "1"),
        "empty": "",
    }.items():
        area.case(
            f"text-{name}", "address.parse_text", "ADDR-01 ADDR-02", "contradiction", {"text": bad_text},
            {"refused": True},
        )  # fmt: skip
    return area
