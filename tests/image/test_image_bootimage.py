# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel images taken apart."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from poolproof.errors import HarnessError
from poolproof.image import bootimage

ELF = b"\x7fELF" + bytes(range(256)) * 40 + b"Linux version 6.1.0-7-test (someone@somewhere) (gcc) #1"


def make_bzimage(payload: bytes, *, setup_sectors: int = 2, release: bytes = b"6.1.0-7-test") -> bytes:
    """An image with the fields of the x86 boot protocol (2.08) that point to the payload."""
    setup = bytearray((setup_sectors + 1) * 512)
    setup[0x1F1] = setup_sectors
    setup[0x202:0x206] = b"HdrS"
    text = release + b" (someone@somewhere) #1\0"
    setup[0x300 : 0x300 + len(text)] = text
    struct.pack_into("<H", setup, 0x20E, 0x300 - 0x200)
    stub = b"\x90" * 100
    struct.pack_into("<II", setup, 0x248, len(stub), len(payload))
    return bytes(setup) + stub + payload + b"\xcc" * 64


def tool(program: str) -> Callable[[bytes], bytes]:
    def compress(data: bytes) -> bytes:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
        arguments = [program, "-c"] + (["-l"] if program == "lz4" else [])
        return subprocess.run(arguments, input=data, capture_output=True, check=True).stdout

    return compress


@pytest.mark.parametrize(
    "compress",
    [
        pytest.param(gzip.compress, id="gzip"),
        pytest.param(lzma.compress, id="xz"),
        pytest.param(lambda data: lzma.compress(data, lzma.FORMAT_ALONE), id="lzma"),
        pytest.param(bz2.compress, id="bzip2"),
        pytest.param(tool("zstd"), id="zstd"),
        pytest.param(lambda data: data, id="none"),
    ],
)
def test_the_elf_kernel_is_found(compress: Callable[[bytes], bytes]) -> None:
    # The kernel's build appends the uncompressed size to the stream.
    image = make_bzimage(compress(ELF) + struct.pack("<I", len(ELF)))
    assert bootimage.extract_vmlinux(image)[: len(ELF)] == ELF
    assert bootimage.bzimage_release(image) == "6.1.0-7-test"


def test_an_image_without_elf_kernel_is_refused() -> None:
    with pytest.raises(HarnessError, match="no ELF kernel"):
        bootimage.extract_vmlinux(make_bzimage(gzip.compress(b"something else")))


def test_release_and_pvh_note_of_an_elf_kernel() -> None:
    assert bootimage.elf_release(ELF) == "6.1.0-7-test"
    assert bootimage.elf_release(b"\x7fELF nothing") is None
    assert not bootimage.has_pvh_entry(ELF)
    assert bootimage.has_pvh_entry(ELF + struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8))


def test_the_embedded_configuration() -> None:
    config = "CONFIG_MODULES=y\n"
    image = ELF + b"IKCFG_ST" + gzip.compress(config.encode()) + b"IKCFG_ED" + ELF
    assert bootimage.embedded_config(image) == config
    assert bootimage.embedded_config(ELF) is None


def test_files_that_are_no_kernel_are_named(tmp_path: Path) -> None:
    file = tmp_path / "README"
    file.write_text("hello")
    with pytest.raises(HarnessError, match="neither a bzImage nor an ELF"):
        bootimage.read_image(file)
    with pytest.raises(HarnessError, match="cannot read the kernel image"):
        bootimage.read_image(tmp_path / "absent")
