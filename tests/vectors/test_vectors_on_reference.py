# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference gives the answers that the derivation gives, case by case."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from poolproof.vectors import check, reference_adapter, suite
from poolproof.vectors.check import Judgement
from poolref import crypto

CASES = suite.load()
AREAS = sorted({case.area for case in CASES})
# What poolref does not compute yet.  An entry here that it has learned fails the test, as does a new gap.
NOT_YET = {
    "mtu.probe", "mtu.answer", "rekey.derive", "rekey.encode", "rekey.decode", "rekey.tie", "config.hash",
    "config.encode", "config.judge", "journal.hash", "journal.encode_entry", "journal.chain",
    "journal.encode_sync", "journal.verify_sync", "exchange.encode", "exchange.decode", "exchange.room",
    "announce.encode", "announce.decode", "integrity.keys", "integrity.answer", "integrity.verify",
    "integrity.challenge", "integrity.state",
}  # fmt: skip


def judged(case: suite.Case) -> check.Judged:
    request = json.loads(json.dumps({"id": case.id, "op": case.op, "input": case.input}))
    return check.judge(case, reference_adapter.answer(request))


@pytest.mark.parametrize("area", AREAS)
def test_area(area: str) -> None:
    results = [judged(case) for case in CASES if case.area == area]
    wrong = [f"{j.case.id}: {j.detail}" for j in results if j.judgement is Judgement.WRONG]
    assert wrong == []
    for j in results:
        assert (j.judgement is Judgement.UNSUPPORTED) == (j.case.op in NOT_YET), j.case.id


def test_what_is_missing_is_counted() -> None:
    counts = Counter(judged(case).judgement for case in CASES)
    assert counts[Judgement.RIGHT] >= 600
    assert counts[Judgement.UNSUPPORTED] == sum(case.op in NOT_YET for case in CASES)
    assert counts[Judgement.RIGHT] + counts[Judgement.UNSUPPORTED] == len(CASES)
    assert {case.op for case in CASES} >= NOT_YET


def test_a_defect_in_the_reference_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    good = crypto.hkdf
    monkeypatch.setattr(crypto, "hkdf", lambda ikm, info, length: good(ikm, info + b"\0", length))
    wrong = Counter(case.area for case in CASES if judged(case).judgement is Judgement.WRONG)
    assert {"keys", "sealing", "handshake", "session"} <= set(wrong)
    assert {"header", "puzzle", "address", "fragments"}.isdisjoint(wrong)
