#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Builds an out-of-tree kernel module whose Makefile is not to be trusted. Runs as first process of fresh mount, pid,
# network, ipc and uts namespaces, as (mapped) root; what it starts for the user is unprivileged and sees only the
# build tree (read-only), the sources (below an overlay in memory) and nothing of the host.
#
# sandbox.sh SCRATCH OUT TREE TOP SUB KDIR BINDS LIMIT_MB [MAKE ARGUMENT...]
#   SCRATCH  empty directory to mount on          OUT   directory for `modules.tar` and `status`
#   TREE     root of the build tree, or /         TOP   the source tree to show as /poolproof
#   SUB      the module's directory below TOP     KDIR  kernel build directory as seen inside
#   BINDS    more paths to show read-only, one a line
# `status` holds the exit status of make; it is missing when the sandbox could not be set up.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
scratch=$1 out=$2 tree=$3 top=$4 sub=$5 kdir=$6 binds=$7 limit=$8
shift 8
nobody=65534

mount -t tmpfs -o "size=${limit}m,mode=755" poolproof "$scratch"
cd "$scratch"
mkdir upper work lower root

readonly_bind() {  # readonly_bind SOURCE TARGET
    mount --rbind "$1" "$2"
    mount -o remount,bind,ro,nosuid,nodev "$2"
}

tmp() {
    mount -t tmpfs -o "size=${limit}m,mode=1777,nosuid,nodev" tmp root/tmp
}

if [ "$tree" = / ]; then
    # The host's own toolchain, without its homes, data and settings.
    mount -t tmpfs -o size=1m,mode=755 root root
    mkdir -p root/etc root/usr root/poolproof root/tmp root/dev root/proc
    readonly_bind /usr root/usr
    for link in bin sbin lib lib32 lib64 libx32; do
        if [ -L "/$link" ]; then ln -s "$(readlink "/$link")" "root/$link"; fi
    done
    for name in alternatives ld.so.cache; do
        [ -e "/etc/$name" ] || continue
        if [ -d "/etc/$name" ]; then mkdir "root/etc/$name"; else : > "root/etc/$name"; fi
        readonly_bind "/etc/$name" "root/etc/$name"
    done
    tmp
    printf '%s\n' "$binds" | while read -r path; do
        case $path in '' | /usr/*) continue ;; esac
        mkdir -p "root$path"
        readonly_bind "$path" "root$path"
    done
else
    readonly_bind "$tree" root
    tmp
fi
mount -t tmpfs -o size=1m,mode=755 dev root/dev
for node in null zero full random urandom; do
    : > "root/dev/$node"
    mount --bind "/dev/$node" "root/dev/$node"
done
ln -s /proc/self/fd root/dev/fd
mount -t proc -o nosuid,nodev,noexec proc root/proc

mount --rbind "$top" lower
layers="lowerdir=lower,upperdir=upper,workdir=work"
mount -t overlay -o "$layers,metacopy=on,nosuid,nodev" src root/poolproof 2> /dev/null ||
    mount -t overlay -o "$layers,nosuid,nodev" src root/poolproof 2> /dev/null ||
    mount -t overlay -o "$layers,userxattr,nosuid,nodev" src root/poolproof
# The history may hold credentials and is no input of a build.
if [ -d root/poolproof/.git ]; then mount -t tmpfs -o size=1m,mode=755 git root/poolproof/.git; fi
# Leftovers of other builds: kbuild makes anew what has no command file, and a stale module is not taken for a result.
find root/poolproof -xdev \( -name '.*.cmd' -o -name '*.ko' \) -type f -delete

drop="setpriv --reuid=$nobody --regid=$nobody --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs"
if $drop true 2> /dev/null; then
    mount -o remount,bind,ro root/proc
    find root/poolproof -xdev -exec chown -h "$nobody:$nobody" {} +
    find root/poolproof -xdev ! -type l -exec chmod u+rwX {} +
else
    # Only one user exists in this user namespace: become it without privileges, in one more. That takes a writable
    # /proc/self; what else can be written in /proc may answer to this user, who may be the host's root.
    for path in sys irq bus fs acpi scsi driver tty $(cd root/proc && find . -maxdepth 1 -type f -perm /222); do
        [ ! -e "root/proc/$path" ] || readonly_bind "root/proc/$path" "root/proc/$path"
    done
    drop="unshare --user --map-user=$nobody --map-group=$nobody setpriv --no-new-privs"
fi

module=/poolproof/$sub
module=${module%/.}
export drop kdir module
result=0
unshare --mount sh -euc '
    trap "exit 125" EXIT
    cd root
    mkdir tmp/.host
    pivot_root . tmp/.host
    cd /
    umount -l /tmp/.host
    rmdir /tmp/.host
    ulimit -c 0
    ulimit -f 1048576
    ulimit -v 8388608
    ulimit -p 2000
    # shellcheck disable=SC2086
    exec $drop env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp TMPDIR=/tmp LC_ALL=C SHELL=/bin/sh \
        make -C "$kdir" M="$module" "$@" modules
' build "$@" || result=$?
# make ends with 0 or 2 (or by a signal); these are from the lines above it.
case $result in 1 | 125 | 126 | 127) exit 1 ;; esac

# Nothing that the build left running may touch what is collected now.
trap '' TERM
kill -KILL -1 2> /dev/null || true
(cd "root/poolproof/$sub" && find . -xdev -name '*.ko' -type f -print0) > modules.list
tar --create --file "$out/modules.tar" --directory "root/poolproof/$sub" --null --verbatim-files-from --files-from modules.list
echo "$result" > "$out/status"
