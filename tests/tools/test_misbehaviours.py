# SPDX-License-Identifier: GPL-2.0-or-later
"""poold's options for a node that deviates on purpose."""

from __future__ import annotations

from typing import Any

import pytest

from poolref.dialect import POOL_KO_1_0, SPEC
from poolref.misbehaviour import SWITCHES
from poolref.tools import poold
from poolref.tools.misbehaviours import listing


def settings_of(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What poold would run a node with."""
    seen: list[Any] = []

    async def run(args: Any, settings: Any) -> None:
        seen.append(settings)

    monkeypatch.setattr(poold, "run", run)
    assert poold.main(argv) == 0
    return seen[0]


def test_a_node_that_misbehaves(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["--misbehave", "bad-hmac:nth=3,byte=31", "--misbehave", "silent-ack"]
    wrong = settings_of(argv, monkeypatch).misbehaviour
    assert str(wrong) == "bad-hmac:kind=DATA,nth=3,every=0,byte=31 silent-ack:every=1"
    assert settings_of([], monkeypatch).misbehaviour is None


def test_a_node_in_a_dialect(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(["--dialect", "pool-ko-1.0"], monkeypatch)
    assert (settings.dialect, settings.difficulty) == (POOL_KO_1_0, 8)
    settings = settings_of(["--dialect", "pool-ko-1.0", "--difficulty", "12"], monkeypatch)
    assert (settings.dialect, settings.difficulty) == (POOL_KO_1_0, 12)
    settings = settings_of([], monkeypatch)
    assert (settings.dialect, settings.difficulty) == (SPEC, 16)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--misbehave", "sing"], "there is no misbehaviour 'sing'"),
        (["--misbehave", "bad-hmac:byte=32"], "byte is within 0..31, not 32"),
        (["--dialect", "klingon"], "invalid choice: 'klingon'"),
    ],
)
def test_wrong_usage(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        poold.main(argv)
    assert error.value.code == 2
    assert said in capsys.readouterr().err


def test_the_list_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        poold.main(["--list-misbehaviours"])
    assert error.value.code == 0
    out = capsys.readouterr().out
    for switch in SWITCHES.values():
        assert f"\n{switch.name}  (" in "\n" + out
        assert switch.sentence in out
    lines = listing().splitlines()
    at = lines.index("bad-hmac  (client/server, data, tcp/raw)  SEAL-03 SEAL-04 SEAL-06")
    assert lines[at + 1] == "    One bit of the hmac is wrong."
    assert "    byte=0  which byte of it, from its start, 0..31" in lines
    assert "wrong-echo  (server, handshake, raw)  HS-14" in lines
