# SPDX-License-Identifier: GPL-2.0-or-later
"""The sandbox in which modules are built, tried with hostile Makefiles, and what is made of its output.

A stand-in for a kernel build directory serves: the sandbox is the same. Real modules are built in tests/vm.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from test_image_ko import make_elf

from poolproof.errors import HarnessError
from poolproof.image.modbuild import (
    BuildFailure,
    BuiltModule,
    build_module,
    enclosing_tree,
    first_error,
)
from poolproof.image.store import BuildTree


def _namespaces() -> bool:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *user, "--mount", "--pid", "--net", "--fork", "true"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


needs_namespaces = pytest.mark.skipif(
    not _namespaces() or not shutil.which("make"), reason="needs root or user namespaces, and make"
)


@pytest.fixture
def tree(tmp_path: Path) -> BuildTree:
    """The host's tools, and a "kernel build directory" that runs the module's own Makefile."""
    kdir = tmp_path / "kdir"
    kdir.mkdir()
    (kdir / "Makefile").write_text("modules:\n\t@$(MAKE) --no-print-directory -C $(M) attack\n")
    return BuildTree("6.1.0-9-test", Path("/"), str(kdir), (kdir,))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A module's directory inside a larger git work tree."""
    directory = tmp_path / "project" / "module"
    directory.mkdir(parents=True)
    (tmp_path / "project/.git").mkdir()
    (tmp_path / "project/.git/config").write_text("token = geheim-4711")
    (tmp_path / "project/common").mkdir()
    (tmp_path / "project/common/shared.h").write_text("/* shared */\n")
    (directory / "valid.elf").write_bytes(make_elf())
    return directory


def snapshot(root: Path) -> dict[str, tuple[int, int, int, bytes | None]]:
    found = {}
    for path in sorted(root.rglob("*")):
        stat = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        found[str(path)] = (stat.st_mode, stat.st_uid, stat.st_mtime_ns, content)
    return found


def attack(source: Path, *commands: str) -> None:
    lines = "".join(f"\t-@{command}\n" for command in commands)
    (source / "Makefile").write_text(f"attack:\n{lines}\t@cp valid.elf pool.ko\n")


@needs_namespaces
def test_a_build_gives_the_module_and_its_log(tree: BuildTree, source: Path, tmp_path: Path) -> None:
    attack(source, "echo compiling", "cat ../common/shared.h")
    result = build_module(tree, source, tmp_path / "out")
    assert isinstance(result, BuiltModule)
    assert result.ko.read_bytes() == make_elf()
    assert len(result.build_id) == 64
    assert (result.srcversion, result.vermagic.split()[0]) == ("ABCDEF", "6.1.0-9-test")
    assert "compiling" in result.log.read_text()
    assert "/* shared */" in result.log.read_text(), "includes of the enclosing tree resolve"


@needs_namespaces
def test_the_users_tree_is_not_written_to(tree: BuildTree, source: Path, tmp_path: Path) -> None:
    attack(
        source,
        "echo spoiled > ../common/shared.h",
        "echo new > ../new-file",
        "rm -rf ../common/shared.h valid.elf.bak Makefile",
        "chmod -R 777 ..",
        "touch -d 2001-01-01 valid.elf",
        "ls .. ../common && id -u",
    )
    (source / "secret.key").write_text("k")
    (source / "secret.key").chmod(0o600)
    before = snapshot(tmp_path / "project")
    result = build_module(tree, source, tmp_path / "out")
    assert isinstance(result, BuiltModule)
    assert snapshot(tmp_path / "project") == before
    log = result.log.read_text()
    assert "new-file" in log, "the build itself must be able to write, or this proves nothing"


@needs_namespaces
def test_the_build_is_unprivileged_and_sees_nothing_of_the_host(
    tree: BuildTree, source: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("geheim-0815")
    secret.chmod(0o644)
    attack(
        source,
        f"cat {secret}",
        f"ls {Path.home()} /home /root /var /mnt",
        "cat ../.git/config",
        "cat /etc/passwd /etc/hostname",
        "echo uid=$$(id -u)",
        "grep CapEff /proc/self/status",
        "grep CapBnd /proc/self/status",
        "mount -t tmpfs none /tmp && echo mounted",
        "echo x > /usr/bin/spoiled && echo wrote-usr",
        # Only opened: nothing is written to the host should it work.
        ": >> /proc/sys/kernel/printk && echo wrote-sysctl",
        ": >> /proc/sysrq-trigger && echo wrote-sysrq",
        "env | sort",
    )
    os.environ["POOLPROOF_TEST_SECRET"] = "geheim-env"
    try:
        result = build_module(tree, source, tmp_path / "out")
    finally:
        del os.environ["POOLPROOF_TEST_SECRET"]
    assert isinstance(result, BuiltModule)
    log = result.log.read_text()
    for found in ("geheim", "mounted", "wrote-", "root:"):
        assert found not in log
    assert "uid=65534" in log
    assert "CapEff:\t0000000000000000" in log
    assert f"cannot access '{Path.home()}'" in log or "No such file" in log
    assert not Path("/usr/bin/spoiled").exists()


@needs_namespaces
def test_the_build_has_no_network(tree: BuildTree, source: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        attack(
            source,
            "cat /proc/net/dev",
            f"bash -c 'echo hello > /dev/tcp/127.0.0.1/{port}' && echo connected",
        )
        result = build_module(tree, source, tmp_path / "out")
        assert isinstance(result, BuiltModule)
        log = result.log.read_text()
        devices = {
            line.split(":")[0].strip() for line in log.splitlines() if line.count(":") == 1 and " 0 " in line
        }
        assert devices == {"lo"}
        assert "connected" not in log
        with pytest.raises(BlockingIOError):
            server.accept()


def processes_with(marker: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
    return found


@needs_namespaces
def test_nothing_survives_the_end_of_the_build(tree: BuildTree, source: Path, tmp_path: Path) -> None:
    marker = f"survivor-{uuid.uuid4()}"
    (source / "stay.sh").write_text("echo started; trap '' TERM HUP; while :; do sleep 1; done\n")
    attack(source, f"setsid sh stay.sh {marker} &", f"setsid setsid nohup sh stay.sh {marker} &")
    result = build_module(tree, source, tmp_path / "out")
    assert isinstance(result, BuiltModule)
    assert processes_with(marker) == []


@needs_namespaces
def test_a_build_without_end_is_stopped(tree: BuildTree, source: Path, tmp_path: Path) -> None:
    marker = f"endless-{uuid.uuid4()}"
    attack(source, f"echo waiting; sh -c 'trap \"\" TERM; while :; do sleep 1; done' {marker}")
    start = time.monotonic()
    result = build_module(tree, source, tmp_path / "out", timeout=1)
    assert isinstance(result, BuildFailure)
    assert result.first_error == "the build took longer than 1 s and was stopped"
    assert result.exit_status == -1
    assert "waiting" in result.log.read_text()
    assert time.monotonic() - start < 20
    assert processes_with(marker) == []


@needs_namespaces
def test_a_module_that_is_a_link_to_a_file_of_the_host_is_not_followed(
    tree: BuildTree, source: Path, tmp_path: Path
) -> None:
    (source / "Makefile").write_text(
        "attack:\n\t@ln -s /etc/shadow pool.ko; mkfifo other.ko; mkdir -p dir.ko\n"
    )
    result = build_module(tree, source, tmp_path / "out")
    assert isinstance(result, BuildFailure)
    assert "made no module" in result.first_error


@needs_namespaces
@pytest.mark.parametrize(
    ("made", "wanted", "outcome"),
    [
        (["pool.ko", "other.ko"], None, "pool.ko"),
        (["other.ko"], None, "other.ko"),
        (["sub/pool.ko"], None, "pool.ko"),
        (["pool.ko", "other.ko"], "other.ko", "other.ko"),
        (["b.ko", "a.ko"], None, "the build made several modules and no pool.ko: a.ko, b.ko"),
        (["a.ko"], "pool.ko", "the build made several modules and no pool.ko: a.ko"),
        ([], None, "the build ended well but made no module"),
    ],
)
def test_which_module_is_taken(
    tree: BuildTree, source: Path, tmp_path: Path, made: list[str], wanted: str | None, outcome: str
) -> None:
    (source / "stale.ko").write_bytes(make_elf())
    copies = "".join(f"\t@mkdir -p sub; cp valid.elf {name}\n" for name in made)
    (source / "Makefile").write_text(f"attack:\n\t@true\n{copies}")
    result = build_module(tree, source, tmp_path / "out", ko_name=wanted)
    if outcome.endswith(".ko") and " " not in outcome:
        assert isinstance(result, BuiltModule)
        assert result.ko == tmp_path / "out" / outcome
    else:
        assert isinstance(result, BuildFailure)
        assert outcome in result.first_error
        assert result.exit_status == 0


@needs_namespaces
def test_a_failing_build_says_its_first_error(tree: BuildTree, source: Path, tmp_path: Path) -> None:
    (source / "Makefile").write_text(
        "attack:\n\t@echo '/poolproof/module/a.c:1:2: error: no such thing'\n"
        "\t@echo 'b.c:1: error: later'; exit 1\n"
    )
    result = build_module(tree, source, tmp_path / "out")
    assert isinstance(result, BuildFailure)
    assert result.first_error == "module/a.c:1:2: error: no such thing"
    assert result.exit_status == 2
    assert "later" in result.log.read_text()


@needs_namespaces
def test_the_sandbox_holds_for_users_too(tmp_path: Path) -> None:
    """Without root there is one user only: the same attacks again, as root of such a user namespace."""
    enter = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*enter, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("user namespaces are not allowed here")
    attacks = "users_tree or unprivileged or no_network or survives"
    command = [
        *enter,
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "-k",
        attacks,
        __file__,
    ]
    done = subprocess.run(
        [*command, "--basetemp", str(tmp_path / "inner")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "...." in done.stdout


@needs_namespaces
def test_a_sandbox_that_cannot_be_set_up_is_no_fault_of_the_sources(source: Path, tmp_path: Path) -> None:
    attack(source)
    with pytest.raises(HarnessError, match="cannot set up the build sandbox"):
        build_module(BuildTree("x", tmp_path / "no-such-tree", "/k"), source, tmp_path / "out")


def test_bad_usage_is_named(tree: BuildTree, source: Path, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no such directory"):
        build_module(tree, tmp_path / "absent", tmp_path / "out")
    with pytest.raises(HarnessError, match="neither a Kbuild file nor a Makefile"):
        build_module(tree, source, tmp_path / "out")
    attack(source)
    with pytest.raises(HarnessError, match="does not lie below"):
        build_module(tree, source, tmp_path / "out", top=tmp_path / "kdir")
    blank = tmp_path / "with blank"
    shutil.copytree(source, blank)
    with pytest.raises(HarnessError, match="kbuild cannot work"):
        build_module(tree, blank, tmp_path / "out", top=tmp_path)


def test_the_enclosing_tree(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert enclosing_tree(source) == tmp_path / "project"
    monkeypatch.setenv("HOME", str(tmp_path / "project" / "home" / "me"))
    assert enclosing_tree(source) == source, "a repository around the whole home directory does not count"


# "@" stands for /poolproof, where a build sees the sources.
LOGS = {
    "compiler": (
        "  CC [M]  @/m/a.o\n@/m/a.c:3:1: warning: unused\n@/m/a.c:9:2: error: unknown type\n"
        "make[1]: *** [Makefile:250: @/m/a.o] Error 1\nmake: *** [Makefile:2: all] Error 2\n",
        "m/a.c:9:2: error: unknown type",
    ),
    "no such include": ("@/m/a.c:1:10: fatal error: pool.h: No such file or directory\n", None),
    "undefined symbol": ('ERROR: modpost: "no_such_symbol" [@/m/pool.ko] undefined!\n', None),
    "no licence": ("ERROR: modpost: missing MODULE_LICENSE() in @/m/pool.o\n", None),
    "linker": (
        "ld: @/m/a.o: in function `f':\n@/m/a.c:3: undefined reference to `g'\n",
        "m/a.c:3: undefined reference to `g'",
    ),
    "make syntax": ("@/m/Kbuild:3: *** missing separator.  Stop.\n", None),
    "no rule": (
        "make[1]: *** No rule to make target '@/m/b.o'.  Stop.\nmake: *** [x] Error 2\n",
        "make[1]: *** No rule to make target 'm/b.o'.  Stop.",
    ),
    "command": (
        "  CC [M]  @/m/a.o\n/bin/sh: 1: python2: not found\nmake[1]: *** [@/m/Makefile:4: x] Error 127\n",
        "/bin/sh: 1: python2: not found",
    ),
    "only make": ("make: *** [Makefile:2: all] Error 2\n", None),
    "BTF": (
        "Skipping BTF generation for @/m/b.ko due to unavailability of vmlinux\n@/m/a.c:1: error: x\n",
        "m/a.c:1: error: x",
    ),
    "colours": ("\x1b[1m@/m/a.c:1:\x1b[0m error: \x1b[31mred\x07\x1b[0m\n", "m/a.c:1: error: red?"),
    "nothing": ("", "make failed without a message"),
}


@pytest.mark.parametrize(("log", "first"), LOGS.values(), ids=LOGS)
def test_the_first_error_of_a_log(log: str, first: str | None) -> None:
    expected = first or log.splitlines()[0].replace("@/", "")
    assert first_error(log.replace("@", "/poolproof")) == expected


def test_an_error_line_is_bounded() -> None:
    assert len(first_error("a.c:1: error: " + "x" * 10_000)) == 300
