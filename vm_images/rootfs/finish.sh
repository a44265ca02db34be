# SPDX-License-Identifier: GPL-2.0-or-later
# After unpacking and pruning: what maintainer scripts would have done and the guest needs. $1: the new root.
set -eu
chroot "$1" /sbin/ldconfig
# Without compiled files every start of Python would compile its standard library under emulation.
chroot "$1" /bin/sh -c 'python3 -I -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3.*' > /dev/null
mkdir -p "$1/mnt/tools" "$1/usr/lib/modules"
# busybox stands in for every usual command that no package brought.
for applet in $(chroot "$1" /bin/busybox --list); do
    found=
    for dir in bin sbin; do
        if [ -e "$1/usr/$dir/$applet" ] || [ -L "$1/usr/$dir/$applet" ]; then found=yes; fi
    done
    [ -n "$found" ] || ln -s busybox "$1/usr/bin/$applet"
done
