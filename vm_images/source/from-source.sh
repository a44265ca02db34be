# SPDX-License-Identifier: GPL-2.0-or-later
# After unpacking a linux-source package: build the kernel and leave what packages of it would have brought.
# $1: the new root; the options that differ from tinyconfig are put in where OPTIONS begins.
set -eu
source=$(basename "$1"/usr/src/linux-source-*.tar.xz .tar.xz)
cat > "$1/usr/src/options" <<'OPTIONS'
@CONFIG@
OPTIONS
cat > "$1/usr/src/build.sh" <<'BUILD'
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C KBUILD_BUILD_USER=poolproof KBUILD_BUILD_HOST=poolproof
cd /usr/src
ldconfig
ln -sf gawk /usr/bin/awk
tar -xJf "$1.tar.xz" && rm "$1.tar.xz" && cd "$1"
make -s tinyconfig
scripts/kconfig/merge_config.sh -m .config ../options > /dev/null
make -s olddefconfig
# An option that the configuration did not take would be missing without anybody noticing.
missing=$(grep -E '^CONFIG_.*=' ../options | sort -u | grep -vxFf .config || true)
if [ -n "$missing" ]; then
    echo "error: the kernel does not take" $missing >&2
    exit 1
fi
make -s -j"$(nproc)" bzImage modules > ../build.log 2>&1 || {
    grep -m1 -E 'error:|Error ' ../build.log | sed 's/^/error: /' >&2
    exit 1
}
release=$(make -s kernelrelease)
make -s modules_install > /dev/null
cp arch/x86/boot/bzImage "/boot/vmlinuz-$release"
cp System.map "/boot/System.map-$release"
rm -f "/lib/modules/$release/build" "/lib/modules/$release/source"
ln -s "/usr/src/$1" "/lib/modules/$release/build"
# What a module build reads stays: make files, headers, scripts, objtool, Module.symvers.
find . \( -name '*.o' -o -name '*.a' -o -name '*.cmd' \) -not -path './scripts/*' -not -path './tools/*' -delete
find . -name '*.c' -not -path './scripts/*' -not -path './tools/*' -delete
rm -rf Documentation samples sound vmlinux vmlinux.unstripped
BUILD
chroot "$1" /bin/sh /usr/src/build.sh "$source"
