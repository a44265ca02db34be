# SPDX-License-Identifier: GPL-2.0-or-later
# Before unpacking: the merged-/usr links that Debian's base system would have made. $1: the new root.
set -eu
for dir in bin sbin lib lib64; do
    mkdir -p "$1/usr/$dir"
    ln -s "usr/$dir" "$1/$dir"
done
mkdir -p "$1/dev" "$1/proc" "$1/sys" "$1/run" "$1/root" "$1/etc"
mkdir -m 1777 -p "$1/tmp"
