# SPDX-License-Identifier: GPL-2.0-or-later
"""x86 kernel images: the ELF kernel inside a bzImage, its release, its embedded configuration.

QEMU starts an ELF kernel that has a PVH entry note without the decompressor, which saves a second under
emulation.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

from ..errors import HarnessError

_PVH_NOTE = struct.pack("<III4s", 4, 8, 18, b"Xen\0")  # XEN_ELFNOTE_PHYS32_ENTRY with an 8-byte entry point
_PVH_NOTE_32 = struct.pack("<III4s", 4, 4, 18, b"Xen\0")


def is_bzimage(data: bytes) -> bool:
    return data[0x202:0x206] == b"HdrS"


def bzimage_release(data: bytes) -> str:
    """`uname -r` of a bzImage, from the version string that its setup header points to."""
    offset = struct.unpack_from("<H", data, 0x20E)[0] + 0x200
    text = data[offset : offset + 256].split(b"\0", 1)[0].decode(errors="replace")
    return text.split(" ", 1)[0]


def elf_release(data: bytes) -> str | None:
    """`uname -r` of an ELF kernel, from its banner."""
    match = re.search(rb"Linux version (\S+) \(", data)
    return match.group(1).decode(errors="replace") if match else None


def has_pvh_entry(vmlinux: bytes) -> bool:
    return _PVH_NOTE in vmlinux or _PVH_NOTE_32 in vmlinux


def _external(program: str, payload: bytes) -> bytes:
    if not shutil.which(program):
        raise HarnessError(
            f"{program} is needed to unpack this kernel image", hint=f"apt-get install {program}"
        )
    # Bytes after the frame make the exit status meaningless; the caller checks for ELF.
    done = subprocess.run([program, "-dc"], input=payload, capture_output=True, check=False)
    return done.stdout


def decompress(payload: bytes) -> bytes:
    """One compressed stream as the kernel's build makes it, trailing bytes ignored."""
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(payload)
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    if payload.startswith(b"]\0\0"):
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(payload)
    if payload.startswith(b"BZh"):
        return bz2.BZ2Decompressor().decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return _external("zstd", payload)
    if payload.startswith(b"\x02\x21\x4c\x18"):
        return _external("lz4", payload)
    return payload


def extract_vmlinux(bzimage: bytes) -> bytes:
    """The ELF kernel inside a bzImage; HarnessError when there is none."""
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    kernel = decompress(bzimage[start : start + length])
    if not kernel.startswith(b"\x7fELF"):
        raise HarnessError("the kernel image holds no ELF kernel that can be unpacked")
    return kernel


def embedded_config(vmlinux: bytes) -> str | None:
    """The configuration that CONFIG_IKCONFIG=y embeds, if any."""
    start = vmlinux.find(b"IKCFG_ST\x1f\x8b")
    end = vmlinux.find(b"IKCFG_ED", start)
    if start < 0 or end < 0:
        return None
    return gzip.decompress(vmlinux[start + 8 : end]).decode(errors="replace")


def read_image(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise HarnessError(f"cannot read the kernel image {path}: {error.strerror}") from error
    if not is_bzimage(data) and not data.startswith(b"\x7fELF"):
        raise HarnessError(
            f"{path} is neither a bzImage nor an ELF kernel", hint="give arch/x86/boot/bzImage or vmlinux"
        )
    return data
