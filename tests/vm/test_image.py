# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest image really boots, keeps its contract, and takes modules that were built for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from poolproof.image.modbuild import BuildFailure, BuiltModule, build_module
from poolproof.image.store import BuildTree, GuestImage, ImageStore
from poolproof.settings import default_cache

pytestmark = pytest.mark.vm

KERNELS = [spec.name for spec in ImageStore(default_cache()).kernels()]
Boot = Callable[..., dict[str, Any]]

HELLO = """\
#include <linux/module.h>
#include <crypto/curve25519.h>
#include "../common/greeting.h"
static int __init hello_init(void)
{
	u8 out[32], point[32] = { 9 }, secret[32] = { 1 };

	if (!curve25519(out, secret, point))
		return -EINVAL;
	pr_info(GREETING "\\n");
	return 0;
}
static void __exit hello_exit(void) { }
module_init(hello_init);
module_exit(hello_exit);
MODULE_LICENSE("GPL");
"""


@dataclass(frozen=True)
class Target:
    image: GuestImage
    tree: BuildTree


@pytest.fixture(scope="module", params=KERNELS)
def target(request: pytest.FixtureRequest) -> Target:
    store = ImageStore(default_cache())
    return Target(store.guest(request.param), store.build_tree(request.param))


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    def run(
        image: GuestImage,
        command: str = "",
        *,
        modules: tuple[Path, ...] = (),
        tools: bool = True,
        cmdline: str = "",
    ) -> dict[str, Any]:
        disk, key = tmp_path / "tools.squashfs", tmp_path / "key"
        directory = tmp_path / "tools"
        (directory / "ssh").mkdir(parents=True)
        for file in (key, directory / "ssh/host_ed25519"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
        (directory / "ssh/authorized_keys").write_text(key.with_suffix(".pub").read_text())
        for module in modules:
            (directory / module.name).write_bytes(module.read_bytes())
        subprocess.run(
            ["mksquashfs", directory, disk, "-quiet", "-no-progress"], check=True, capture_output=True
        )
        job = {
            "image": {name: str(value) for name, value in asdict(image).items()},
            "tools": str(disk) if tools else "",
            "key": str(key),
            "cmdline": cmdline,
            "command": command,
            "deadline": 90,
        }
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        helper = Path(__file__).with_name("boot_guest.py")
        done = subprocess.run(
            ["unshare", *user, "--net", sys.executable, helper],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    return run


def test_a_guest_keeps_its_contract(target: Target, boot: Boot) -> None:
    checks = {
        "release": f"test $(uname -r) = {target.image.release}",
        "name": "test $(hostname) = a",
        "addresses": "ip -br a show dev mgmt | grep -q '10.254.0.2/24' && "
        "ip -br a show dev wire | grep '10.253.0.2/24' | grep -q 'fd00:253::2/64'",
        "no address is tentative": "! ip -6 a | grep -q tentative",
        "the wire reaches the harness": "ping -c1 -W5 10.253.0.1 && ping -c1 -W5 fd00:253::1",
        "root is writable": "echo x > /usr/x",
        "tools disk": "test -f /mnt/tools/ssh/authorized_keys && ! touch /mnt/tools/x",
        "debugfs": "test -d /sys/kernel/debug/tracing",
        "modules on demand": "modprobe wireguard && modprobe sch_netem && "
        "tc qdisc add dev wire root netem delay 1ms",
        "orphans are reaped": "(sh -c 'sleep 0.1' & ) ; for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2; done; "
        "! ps -eo stat | grep -q '^Z'",
        "python": "python3 -c 'import base64, ctypes, fcntl, json, socket, struct, subprocess, threading'",
        "python is compiled": "python3 -v -c 'import json' 2>&1 | grep -q 'matches .*json/__init__'",
    }
    script = "\n".join(
        f"( {test} ) > /dev/null 2>&1 || echo 'FAILED: {name}'" for name, test in checks.items()
    )
    result = boot(target.image, f"{script}\necho done")
    assert result["ready"] is not None, result["console"]
    assert (result["status"], result["output"]) == (0, "done\n")


def test_a_module_is_built_and_loaded(target: Target, boot: Boot, tmp_path: Path) -> None:
    source = tmp_path / "tree/module"
    source.mkdir(parents=True)
    (tmp_path / "tree/.git").mkdir()
    (tmp_path / "tree/common").mkdir()
    (tmp_path / "tree/common/greeting.h").write_text('#define GREETING "hello from the enclosing tree"\n')
    (source / "Kbuild").write_text("obj-m := pool.o\npool-y := hello.o\n")
    (source / "hello.c").write_text(HELLO)
    built = build_module(target.tree, source, tmp_path / "out")
    assert isinstance(built, BuiltModule), built
    assert built.vermagic.split()[0] == target.image.release
    result = boot(target.image, "insmod /mnt/tools/pool.ko; dmesg | grep hello", modules=(built.ko,))
    assert result["status"] == 0, result
    assert "hello from the enclosing tree" in result["output"]


def test_a_kernel_that_the_user_brings_boots(target: Target, boot: Boot) -> None:
    store = ImageStore(default_cache(), offline=True)
    installed = target.tree.root / "usr/lib/modules" / target.image.release
    image, _tree = store.custom(target.image.bzimage, installed)
    assert (image.kernel, image.release) == ("custom", target.image.release)
    result = boot(image, "uname -r && modprobe wireguard")
    assert (result["status"], result["output"]) == (0, target.image.release + "\n"), result["console"]


def test_a_wrapping_makefile_and_errors_of_the_real_compiler(target: Target, tmp_path: Path) -> None:
    source = tmp_path / "module"
    source.mkdir()
    (source / "Makefile").write_text(
        "ifneq ($(KERNELRELEASE),)\nobj-m := x.o\nelse\nall:\n"
        "\t$(MAKE) -C /lib/modules/$(shell uname -r)/build M=$(PWD) modules\nendif\n"
    )
    code = source / "x.c"
    code.write_text('#include <linux/module.h>\nMODULE_LICENSE("GPL");\n')
    assert isinstance(build_module(target.tree, source, tmp_path / "out"), BuiltModule)
    errors = {
        '#include <linux/module.h>\nu33 x;\nMODULE_LICENSE("GPL");\n': "x.c:2:1: error: unknown type name",
        '#include "pool_absent.h"\n': "x.c:1:10: fatal error: pool_absent.h: No such file or directory",
        "#include <linux/module.h>\nint absent(void);\nint f(void);\nint f(void) { return absent(); }\n"
        'MODULE_LICENSE("GPL");\n': 'ERROR: modpost: "absent" [x.ko] undefined!',
        "#include <linux/module.h>\n": "ERROR: modpost: missing MODULE_LICENSE() in x.o",
    }
    for text, expected in errors.items():
        code.write_text(text)
        result = build_module(target.tree, source, tmp_path / "out")
        assert isinstance(result, BuildFailure), text
        assert expected in result.first_error
        assert sorted(path.name for path in source.iterdir()) == ["Makefile", "x.c"]


def test_a_guest_without_tools_disk_says_so(target: Target, boot: Boot) -> None:
    result = boot(target.image, tools=False)
    assert "POOLPROOF-READY a (no ssh keys on the tools disk)" in result["console"]


def test_a_guest_without_root_disk_says_so(target: Target, boot: Boot, tmp_path: Path) -> None:
    image = GuestImage(**{**asdict(target.image), "rootfs": ""})
    result = boot(image)
    assert "POOLPROOF-INIT-FAILED no disk with serial ppiroot" in result["console"]
    assert result["ready"] is None
