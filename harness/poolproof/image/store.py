# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest images and module build trees, built from Debian packages when the cache has none for the recipe."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..errors import HarnessError
from . import bootimage, debian
from .cache import Cache, content_key, read_manifest, sha256_file
from .custom import KernelBuild, compiler_note, find_kernel_build, require_config
from .initramfs import build_initramfs
from .kernels import KernelSpec, load_kernels, select

RECIPE = Path(__file__).resolve().parents[3] / "vm_images"


@dataclass(frozen=True)
class GuestImage:
    """What a guest boots from. `rootfs` is shared by all kernels; `image_id` names the exact content
    (hex)."""

    kernel: str
    release: str
    vmlinux: Path
    bzimage: Path
    initramfs: Path
    rootfs: Path
    image_id: str
    patience: int = 1
    """How many times the usual time to give it for starting."""


@dataclass(frozen=True)
class BuildTree:
    """A root to build modules of `release` in, used read-only; `kdir` is the kernel build directory inside
    it.

    With `root` = `/` the host's own toolchain serves (kernels that the user built); only system directories
    of it and the paths in `binds` are then visible to a build.
    """

    release: str
    root: Path
    kdir: str
    binds: tuple[Path, ...] = ()
    make_args: tuple[str, ...] = ()


class ImageStore:
    """Builds, keeps and hands out guest images; safe for several processes at once."""

    def __init__(
        self,
        cache: Path,
        *,
        offline: bool = False,
        progress: Callable[[str], None] = print,
        recipe: Path = RECIPE,
    ) -> None:
        self._cache = Cache(cache)
        self._offline = offline
        self._progress = progress
        self._recipe = recipe

    def kernels(self) -> list[KernelSpec]:
        return load_kernels(self._recipe / "kernels.toml")

    def guest(self, kernel: str | None = None) -> GuestImage:
        """The image for a kernel of the matrix (None: the default one), built if need be.

        HarnessError when it cannot be built, or is not cached in offline mode.
        """
        spec = select(self.kernels(), kernel)
        tree = self._kernel_entry(spec)
        manifest = read_manifest(tree)
        release = str(manifest["release"])
        root = tree / "root"
        return self._image(
            spec.name,
            release,
            vmlinux=tree / "vmlinux" if spec.boot == "pvh" else root / "boot" / f"vmlinuz-{release}",
            bzimage=root / "boot" / f"vmlinuz-{release}",
            modules=root / "usr/lib/modules" / release,
            busybox=root / "usr/bin/busybox",
            parts=(str(manifest["vmlinuz_sha256"]), tree.name),
            patience=spec.patience,
        )

    def build_tree(self, kernel: str | None = None) -> BuildTree:
        """The tree to build modules for that kernel in, built if need be; errors as for `guest`."""
        tree = self._kernel_entry(select(self.kernels(), kernel))
        release = str(read_manifest(tree)["release"])
        return BuildTree(release, tree / "root", f"/lib/modules/{release}/build")

    def custom(self, kernel_image: Path, kernel_build: Path | None) -> tuple[GuestImage, BuildTree | None]:
        """The image around a kernel that the user built (bzImage or ELF vmlinux), and the tree to build
        modules for it.

        `kernel_build`: see custom.py; None when all drivers are built in and no module is to be built.
        HarnessError names what the kernel lacks, as far as its configuration can be found.
        """
        data = bootimage.read_image(kernel_image)
        digest = hashlib.sha256(data).hexdigest()
        vmlinux = data if data.startswith(b"\x7fELF") else bootimage.extract_vmlinux(data)
        release = bootimage.bzimage_release(data) if vmlinux is not data else bootimage.elf_release(data)
        if release is None:
            raise HarnessError(f"{kernel_image} does not say which kernel release it is")
        pvh = bootimage.has_pvh_entry(vmlinux)
        if vmlinux is data and not pvh:
            raise HarnessError(f"{kernel_image} has no PVH entry", hint="give the bzImage, or set CONFIG_PVH")
        build = find_kernel_build(kernel_build, release) if kernel_build is not None else None
        config = (build.config() if build else None) or bootimage.embedded_config(vmlinux)
        if config is not None:
            needs = self._recipe / "initramfs" / "needs.list"
            require_config(config, needs, with_modules=build is not None)
        else:
            self._progress("the kernel's configuration was not found: what it lacks will show when it boots")

        def copy(entry: Path) -> dict[str, object]:
            if vmlinux is not data:
                (entry / "bzImage").write_bytes(data)
            (entry / "vmlinux").write_bytes(vmlinux)
            return {"release": release}

        kept = self._get("custom", digest[:24], copy, megabytes=300, network=False)
        elf, bzimage = kept / "vmlinux", kept / ("bzImage" if vmlinux is not data else "vmlinux")
        busybox = self._kernel_entry(select(self.kernels(), None)) / "root/usr/bin/busybox"
        with build.module_directory() if build else nullcontext() as modules:
            image = self._image(
                "custom",
                release,
                vmlinux=elf if pvh else bzimage,
                bzimage=bzimage,
                modules=modules,
                busybox=busybox,
                parts=(digest, build.fingerprint() if build else ""),
            )
        return image, self._custom_tree(build) if build and build.build else None

    def _custom_tree(self, build: KernelBuild) -> BuildTree:
        """The host's toolchain with the user's kernel: it was built there too."""
        assert build.build is not None
        if not (build.build / "Module.symvers").is_file():
            raise HarnessError(f"{build.build} has no Module.symvers", hint="build the whole kernel: make")
        if note := compiler_note(build.config() or ""):
            self._progress(note)
        return BuildTree(build.release, Path("/"), str(build.build), build.sources(), build.make_args())

    def prefetch(self, kernels: Sequence[str | None] = (None,)) -> list[GuestImage]:
        """Build whatever an offline run with these kernels (None in it: the default one) need."""
        return [self.guest(kernel) for kernel in kernels]

    def _get(
        self,
        kind: str,
        key: str,
        build: Callable[[Path], Mapping[str, object]],
        *,
        megabytes: int,
        network: bool,
    ) -> Path:
        if network and self._offline and self._cache.find(kind, key) is None:
            raise HarnessError(
                f"offline, and the cache {self._cache.root} has no {kind} for this recipe",
                hint="run `poolproof prefetch` once with network",
            )
        return self._cache.get(kind, key, build, megabytes=megabytes, waiting=self._progress)

    def _files(self, *names: str) -> list[Path]:
        return [
            path
            for start in (self._recipe / name for name in names)
            for path in ([start] if start.is_file() else start.rglob("*"))
            if path.is_file()
        ]

    def _rootfs_entry(self) -> Path:
        files = self._files("rootfs", "merged-usr.sh")
        suite = next(spec.suite for spec in self.kernels() if spec.default)
        key = content_key(files, self._recipe, suite=suite)

        def build(entry: Path) -> dict[str, object]:
            return self._build_rootfs(entry, suite)

        return self._get("rootfs", key, build, megabytes=600, network=True)

    def _build_rootfs(self, entry: Path, suite: str) -> dict[str, object]:
        self._progress(f"making the guests' root file system from Debian {suite} packages")
        recipe = self._recipe / "rootfs"
        output = entry / "rootfs.squashfs"
        prune = 'cd "$1" && rm -rf -- ' + " ".join(debian.read_list(recipe / "prune.list"))
        options = ["-tar", "-comp", "lz4", "-noappend", "-no-progress", "-quiet", "-no-xattrs"]
        debian.unpack(
            debian.read_list(recipe / "packages.list"),
            suite,
            ["mksquashfs", "-", str(output), *options],
            setup=(self._recipe / "merged-usr.sh").read_text(),
            overlay=recipe / "overlay",
            finish=[prune, (recipe / "finish.sh").read_text()],
            work=entry,
        )
        return {"suite": suite, "sha256": sha256_file(output), "bytes": output.stat().st_size}

    def _kernel_entry(self, spec: KernelSpec) -> Path:
        files = self._files("kernel", "merged-usr.sh", *(["source"] if spec.config else []))
        key = content_key(
            files,
            self._recipe,
            suite=spec.suite,
            image=spec.image,
            headers=spec.headers,
            extra=spec.extra,
            archives=spec.archives,
            **({"config": spec.config} if spec.config else {}),
        )
        kind = f"kernel-{spec.name}"

        def build(entry: Path) -> dict[str, object]:
            return self._build_kernel(entry, spec)

        return self._get(kind, key, build, megabytes=1500, network=True)

    def _build_kernel(self, entry: Path, spec: KernelSpec) -> dict[str, object]:
        """Image, modules, headers and compiler in one tree, so that they are always of the same release."""
        self._progress(f"unpacking the kernel {spec.name} and its module build tree ({spec.suite})")
        recipe = self._recipe / "kernel"
        finish = [(recipe / "finish.sh").read_text()]
        if spec.config:
            self._progress(f"building the kernel {spec.name} from {spec.image}: ten minutes on two cores")
            source = self._recipe / "source"
            options = (source / spec.config).read_text().strip()
            build = (source / "from-source.sh").read_text()
            finish.insert(0, build.replace("@CONFIG@", options))
        root = entry / "root"
        root.mkdir()
        # Owned by whoever builds, root or not: nobody needs the packages' owners, and set-id bits are gone.
        wanted = [spec.image, spec.headers, *spec.extra, *debian.read_list(recipe / "packages.list")]
        debian.unpack(
            list(filter(None, wanted)),
            spec.suite,
            ["tar", "-x", "-C", str(root), "--no-same-owner", "--exclude=./dev/*"],
            archives=spec.archives,
            setup=(self._recipe / "merged-usr.sh").read_text(),
            finish=finish,
            work=entry,
        )
        for kernel in (root / "usr/lib/modules").glob("*/vmlinuz"):
            # Since 7.x the package leaves the kernel here, and a maintainer script copies it to /boot.
            kernel.rename(root / "boot" / f"vmlinuz-{kernel.parent.name}")
        images = sorted((root / "boot").glob("vmlinuz-*"))
        if len(images) != 1:
            raise HarnessError(f"{spec.image} brought {len(images)} kernels instead of one")
        release = images[0].name.removeprefix("vmlinuz-")
        if not (root / "usr/lib/modules" / release / "build").is_symlink():
            raise HarnessError(f"{spec.headers} is not of the release of {spec.image} ({release})")
        image = bootimage.read_image(images[0])
        (entry / "vmlinux").write_bytes(bootimage.extract_vmlinux(image))
        return {"release": release, "vmlinuz_sha256": hashlib.sha256(image).hexdigest()}

    def _image(
        self,
        kernel: str,
        release: str,
        *,
        vmlinux: Path,
        bzimage: Path,
        modules: Path | None,
        busybox: Path,
        parts: tuple[str, ...],
        patience: int = 1,
    ) -> GuestImage:
        """The guest image of one kernel: its initramfs is made when the cache has none."""
        rootfs = self._rootfs_entry()
        code = [Path(__file__).with_name(name) for name in ("initramfs.py", "cpio.py")]
        key = content_key(
            self._files("initramfs"),
            self._recipe,
            parts=parts,
            code=content_key(code, Path(__file__).parent),
        )

        def build(entry: Path) -> dict[str, object]:
            output = entry / "initramfs.cpio"
            build_initramfs(self._recipe / "initramfs", modules, busybox, output)
            return {"release": release, "sha256": sha256_file(output)}

        entry = self._get(f"initramfs-{kernel}", key, build, megabytes=100, network=False)
        identity = [parts[0], str(read_manifest(entry)["sha256"]), str(read_manifest(rootfs)["sha256"])]
        return GuestImage(
            kernel=kernel,
            release=release,
            vmlinux=vmlinux,
            bzimage=bzimage,
            initramfs=entry / "initramfs.cpio",
            rootfs=rootfs / "rootfs.squashfs",
            image_id=hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16],
            patience=patience,
        )
