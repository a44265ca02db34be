#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# build.sh DIRECTORY: build the package pool-dkms into DIRECTORY, from a copy: this tree stays as it is.
# Needs debhelper and dh-dkms.
set -eu
out=${1:?usage: build.sh DIRECTORY}
source=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -rf "$out"/pool-dkms_* "$out"/pool_* "$out"/source
mkdir "$out/source"
# Sources only, whatever a build has left beside them.
cd "$source"
cp -R Kbuild Makefile README.md dkms.conf pool.4 ./*.[ch] uapi debian "$out/source"
rm -f "$out"/source/*.mod.c
cd "$out/source"
dpkg-buildpackage --build=binary --no-sign >"$out/build.log" 2>&1 || { tail -20 "$out/build.log" >&2; exit 1; }
ls "$out"/pool-dkms_*.deb
