# SPDX-License-Identifier: GPL-2.0-or-later
"""Every call of pool.ko that can fail does so once, in each phase of a module's life.

Run by test_fault_sweep.py. A clean run tells which calls each phase makes (kernel/faults.h). Then, call by
call: the phase with that call failing, which must end well or with an errno; after it the same phase must
work. When the module goes, it must have freed everything; the guest must not have complained.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inside_lab import config

from poolproof.lab.agent import AgentError
from poolproof.lab.guest import Guest
from poolproof.lab.lab import Lab

pytestmark = pytest.mark.vm

ADDRESS = {"a": "10.253.0.2", "b": "10.253.0.3"}
CONTROLS = "/sys/kernel/debug/pool_faults"
PORT = 9253
SMALL, LARGE = b"small", b"fragmented" * 2000
PATIENCE_S = 120.0  # nothing waits longer than HS-09 lets it, on a machine ten times too slow
CMDLINE = os.environ.get("KERNEL_CMDLINE") or "slub_debug=FZPU"
ONLY = os.environ.get("POOLPROOF_SWEEP_ONLY", "")
STARTUP = ("load", "listen")
SESSION = ("query", "transfer", "rekey", "control")
ENDING = ("close", "closed")
PHASES = (*STARTUP, "accept", "connect", *SESSION, *ENDING, "unload")


class Ended(Exception):
    """The session is gone."""


class Journal:
    """One line of JSON a point, so that an interrupted sweep goes on where it was."""

    def __init__(self, path: Path, build: str) -> None:
        self._path = path
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.points: dict[tuple[str, str], dict[str, Any]] = {}
        if lines[:1] == [{"build": build}]:
            self.points = {(each["phase"], each["site"]): each for each in lines[1:]}
        else:
            path.write_text(json.dumps({"build": build}) + "\n")

    def add(self, **point: Any) -> None:
        self.points[point["phase"], point["site"]] = point
        with self._path.open("a") as file:
            file.write(json.dumps(point) + "\n")
        print(point, flush=True)


class Pair:
    """The module on both guests; faults happen on a."""

    def __init__(self, lab: Lab) -> None:
        self.a, self.b = lab.guests["a"], lab.guests["b"]
        for guest in (self.a, self.b):
            mount = "grep -q /sys/kernel/debug /proc/mounts || mount -t debugfs none /sys/kernel/debug"
            done = guest.agent.call("exec", argv=["sh", "-c", mount])
            assert done["rc"] == 0, done
        self.session: tuple[int, int] | None = None  # its index on a, on b
        self.b.agent.call("insmod", name="pool", timeout=PATIENCE_S)
        self.call(self.b, "listen", port=PORT)

    def call(self, guest: Guest, method: str, **params: Any) -> Any:
        return guest.agent.call(f"pool.{method}", timeout=PATIENCE_S, **params)

    def load(self, params: str = "") -> None:
        if exists(self.a, "/sys/module/pool"):  # an earlier test has failed
            self.unload()
        self.a.agent.call("insmod", name="pool", params=params, timeout=PATIENCE_S)

    def unload(self) -> str:
        """Take the module out of a; what it said then."""
        mark = self.a.console.mark()
        self.a.agent.call("rmmod", name="pool", timeout=PATIENCE_S)
        self.session = None
        return self.a.console.text(mark)

    def sites(self) -> dict[str, int]:
        """Calls made so far, by "file:line function"."""
        rows = [line.split() for line in self.a.agent.call("read", path=f"{CONTROLS}/sites").splitlines()]
        return {f"{place} {function}": int(calls) for _class, place, function, calls, _hits in rows}

    def arm(self, point: str) -> None:
        self.a.agent.call("write", path=f"{CONTROLS}/point", data=point)

    def hits(self) -> int:
        return int(self.a.agent.call("read", path=f"{CONTROLS}/hits"))

    # Phases. Each may be refused, and works when repeated.

    def listen(self) -> None:
        self.call(self.a, "stop")
        self.call(self.a, "listen", port=PORT)

    def accept(self) -> None:
        on_b = self.call(self.b, "connect", address=ADDRESS["a"], port=PORT)
        self.session = (self.peer_of(self.a, on_b, self.b), on_b)
        self.exchange()

    def connect(self) -> None:
        on_a = self.call(self.a, "connect", address=ADDRESS["b"], port=PORT)
        self.session = (on_a, self.peer_of(self.b, on_a, self.a))
        self.exchange()

    def peer_of(self, guest: Guest, index: int, other: Guest) -> int:
        """The index at `guest` of the session that is `index` at `other`."""
        wanted = next(s for s in self.call(other, "sessions") if s["index"] == index)["session_id"]
        found: list[int] = []

        def there() -> bool:
            found[:] = [s["index"] for s in self.call(guest, "sessions") if s["session_id"] == wanted]
            return bool(found)

        until(there, 20)
        return found[0]

    def exchange(self, payload: bytes = SMALL) -> None:
        """Both directions; what an earlier failure left behind is skipped."""
        assert self.session is not None
        ends = list(zip((self.a, self.b), self.session, strict=True))
        for (source, at_source), (target, at_target) in (ends, ends[::-1]):
            self.call(source, "send", index=at_source, data=payload)
            while self.call(target, "recv", index=at_target) != payload:
                pass

    def query(self) -> None:
        assert self.session is not None
        self.call(self.a, "sessions")
        self.call(self.a, "channel", index=self.session[0], operation=1, channel=7)
        self.call(self.a, "channel", index=self.session[0], operation=3)
        for name in self.a.agent.call("exec", argv=["ls", "/proc/pool"])["out"].split():
            self.a.agent.call("read", path=f"/proc/pool/{name}")

    def transfer(self) -> None:
        self.exchange(SMALL)
        self.exchange(LARGE)

    def rekey(self) -> None:
        assert self.session is not None
        for guest, index in zip((self.a, self.b), self.session, strict=True):
            before = self.rekeys(guest, index)
            self.call(guest, "rekey", index=index)
            until(lambda: self.rekeys(guest, index) > before, 8)  # noqa: B023
            self.exchange()

    def rekeys(self, guest: Guest, index: int) -> int:
        counts = [s["rekey_count"] for s in self.call(guest, "sessions") if s["index"] == index]
        if not counts:
            raise Ended
        return int(counts[0])

    def control(self) -> None:
        """What a session does by itself, and a configuration in each direction."""
        assert self.session is not None
        for guest, index in zip((self.a, self.b), self.session, strict=True):
            self.call(guest, "exchange", index=index)
            self.call(guest, "challenge", index=index)
            self.call(guest, "request_journal", index=index)
            until(lambda: self.agreed(guest, index), 30)  # noqa: B023
        self.exchange()

    def agreed(self, guest: Guest, index: int) -> bool:
        """A new configuration, confirmed. One of an ended session is in the way up to its deadline."""
        outcome = attempt(
            lambda: self.call(guest, "configure", index=index, deadline_ns=4 * 10**9, heartbeat_s=6)
        )
        if outcome == "ok":
            with suppress(TimeoutError):
                until(lambda: attempt(lambda: self.call(guest, "confirm", index=index)) == "ok", 3)
                return True
        if outcome == os.strerror(errno.ENOTCONN):
            raise Ended
        return False

    def close(self) -> None:
        self.end(self.a)

    def closed(self) -> None:
        self.end(self.b)

    def end(self, closer: Guest) -> None:
        """Close the session from that side; it goes from both."""
        assert self.session is not None
        ends = dict(zip((self.a, self.b), self.session, strict=True))
        self.session = None
        self.call(closer, "close_session", index=ends[closer])
        for guest, index in ends.items():
            until(lambda: index not in [s["index"] for s in self.call(guest, "sessions")], 20)  # noqa: B023

    def drop_all(self) -> None:
        """The table has 64 places only."""
        self.session = None
        for each in self.call(self.b, "sessions"):
            with suppress(AgentError):
                self.call(self.b, "close_session", index=each["index"])

    def established(self) -> None:
        """A session that works: the one there is, or else a new one."""
        try:
            self.exchange()
        except (AgentError, AssertionError):
            self.drop_all()
            self.connect()


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


@contextmanager
def quiet(guest: Guest) -> Iterator[None]:
    """The kernel has nothing to complain of meanwhile."""
    mark = guest.console.mark()
    yield
    found = [each for each in guest.console.findings(mark) if each.kind != "module_message"]
    assert found == [], guest.console.text(mark)[-4000:]


def left(said: str) -> tuple[int, int]:
    match = re.search(r"pool: (-?\d+) allocations and (-?\d+) sockets left", said)
    assert match is not None, said
    return int(match[1]), int(match[2])


def attempt(phase: Callable[[], None]) -> str:
    """How a phase ended: "ok", or how it was refused. Anything else but a clean errno propagates."""
    try:
        phase()
    except AgentError as exc:
        if not exc.errno:
            raise
        return os.strerror(exc.errno)
    except TimeoutError:
        return "incomplete"
    except Ended:
        return "session ended"
    return "ok"


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    modules = {"pool": Path(os.environ["POOLPROOF_TEST_MODULE"])}
    with Lab(replace(config(), modules=modules, extra_cmdline=CMDLINE)) as lab:
        yield Pair(lab)


@pytest.fixture(scope="module")
def journal() -> Journal:
    return Journal(Path(os.environ["POOLPROOF_SWEEP"]), os.environ["POOLPROOF_TEST_BUILD"])


@pytest.fixture(scope="module")
def plan(pair: Pair) -> dict[str, list[str]]:
    """The clean run: which calls each phase makes. It frees everything, too."""
    with quiet(pair.a):
        pair.load()
        calls = {"load": pair.sites()}
        seen = calls["load"]
        for phase in PHASES[1:-1]:
            if phase in SESSION + ENDING:
                pair.established()
                seen = pair.sites()
            getattr(pair, phase)()
            now = pair.sites()
            calls[phase] = {site: count - seen.get(site, 0) for site, count in now.items()}
            seen = now
            if phase == "accept":
                pair.drop_all()
        calls["unload"] = calls["close"]
        pair.connect()
        assert left(pair.unload()) == (0, 0)
    print({phase: sum(count > 0 for count in sites.values()) for phase, sites in calls.items()})
    return {phase: sorted(site for site, count in sites.items() if count) for phase, sites in calls.items()}


def test_a_call_that_fails_while_loading(pair: Pair, plan: dict[str, list[str]], journal: Journal) -> None:
    for site in todo("load", plan, journal):
        mark = pair.a.console.mark()
        with quiet(pair.a):
            outcome = attempt(lambda site=site: pair.load(f"fault_point={site.split()[0]}"))  # type: ignore[misc]
            assert "pool: fault at" in pair.a.console.text(mark)
            if outcome == "ok":
                pair.listen()
                pair.unload()
            traces = [p for p in ("/dev/pool", "/proc/pool", "/sys/module/pool") if exists(pair.a, p)]
            assert traces == [], site
            assert left(pair.a.console.text(mark)) == (0, 0), site
            pair.load()
            assert left(pair.unload()) == (0, 0)
        journal.add(phase="load", site=site, outcome=outcome, hits=1)


def exists(guest: Guest, path: str) -> bool:
    return bool(guest.agent.call("exec", argv=["test", "-e", path])["rc"] == 0)


def todo(phase: str, plan: dict[str, list[str]], journal: Journal) -> list[str]:
    return [s for s in plan[phase] if (phase, s) not in journal.points and ONLY in f"{phase} {s}"]


@pytest.mark.parametrize("phase", PHASES[1:-1])
def test_a_call_that_fails_later(
    pair: Pair, plan: dict[str, list[str]], journal: Journal, phase: str
) -> None:
    points = todo(phase, plan, journal)
    if not points:
        return
    with quiet(pair.a), quiet(pair.b):
        pair.load()
        pair.listen()
        for site in points:
            for fresh in (False, True):
                if fresh:  # some calls are made once a session
                    pair.drop_all()
                if phase in SESSION + ENDING:
                    pair.established()
                pair.arm(site.split()[0])
                outcome = attempt(getattr(pair, phase))
                hits = pair.hits()
                pair.arm("")
                if hits:
                    break
            if phase in SESSION + ENDING:
                pair.established()
            else:
                pair.session = None
            getattr(pair, phase)()
            if phase in ("accept", "connect"):
                pair.drop_all()
            journal.add(phase=phase, site=site, outcome=outcome, hits=hits)
        assert left(pair.unload()) == (0, 0), points


def test_a_call_that_fails_while_unloading(pair: Pair, plan: dict[str, list[str]], journal: Journal) -> None:
    for site in todo("unload", plan, journal):
        with quiet(pair.a), quiet(pair.b):
            pair.load()
            pair.listen()
            pair.connect()
            pair.arm(site.split()[0])
            said = pair.unload()
            assert left(said) == (0, 0), site
            assert not exists(pair.a, "/sys/module/pool")
        journal.add(phase="unload", site=site, outcome="ok", hits=said.count("pool: fault at"))


def test_memory_is_as_before(pair: Pair) -> None:
    """Slab and free memory: as many clean lives as it takes to see a leak of a page a life."""

    def life() -> None:
        pair.load()
        pair.listen()
        assert left(pair.unload()) == (0, 0)

    life()
    before = pair.a.agent.call("meminfo")
    for _ in range(5):
        life()
    after = pair.a.agent.call("meminfo")
    assert after["SUnreclaim"] - before["SUnreclaim"] < 1 << 20
    if exists(pair.a, "/sys/kernel/debug/kmemleak"):
        for _ in range(2):
            pair.a.agent.call("write", path="/sys/kernel/debug/kmemleak", data="scan")
            time.sleep(6)
        found = pair.a.agent.call("read", path="/sys/kernel/debug/kmemleak")
        assert "pool" not in found, found


def test_every_point_was_reached(plan: dict[str, list[str]], journal: Journal) -> None:
    """What a clean run calls was made to fail, and did, except for a few that the clock decides on."""
    if ONLY:
        pytest.skip("a part of the sweep")
    missing = [f"{phase} {site}" for phase, sites in plan.items() for site in sites
               if (phase, site) not in journal.points]  # fmt: skip
    assert missing == []
    later = {point: each for point, each in journal.points.items() if point[0] != "unload"}
    silent = [" ".join(point) for point, each in later.items() if not each["hits"]]
    print(f"{len(journal.points)} points; not reached again: {silent}")
    assert len(silent) < 0.05 * len(later)
