#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The README's commands on a machine that has only a base image: a debootstrapped tree with git and make,
# entered by pivot_root in mount and pid namespaces of its own. Needs root and mmdebstrap on this host.
#   tests/clean_machine.sh SUITE [COMMAND...]     SUITE: bookworm, trixie; default commands: conformance, test
#   AS_USER=1   run as an unprivileged user, after root installed the packages
#   KEEP=DIR    keep the tree in DIR, and start from it if it is there
set -euo pipefail
suite=${1:?usage: clean_machine.sh SUITE [COMMAND...]}
shift
project=$(cd "$(dirname "$0")/.." && pwd)
tree=${KEEP:-$(mktemp -d "${TMPDIR:-/var/tmp}/clean-machine.XXXXXX")}
[ -n "${KEEP:-}" ] || trap 'rm -rf --one-file-system "$tree"' EXIT

if [ ! -e "$tree/etc/debian_version" ]; then
    mmdebstrap --quiet --variant=important --include=git,make,ca-certificates "$suite" "$tree" \
        "${POOLPROOF_DEBIAN_MIRROR:-http://deb.debian.org/debian}"
fi
cp -L /etc/resolv.conf "$tree/etc/resolv.conf"
# A site's own certificate authority is part of the machine, not of the project.
[ -z "${SSL_CERT_FILE:-}" ] || cp -L "$SSL_CERT_FILE" "$tree/etc/ssl/certs/ca-certificates.crt"
rm -rf "$tree/root/poolproof"
git clone --quiet --no-hardlinks "$project" "$tree/root/poolproof"

if [ $# -eq 0 ]; then set -- "make conformance" "make test"; fi
printf '%s\n' "$@" >"$tree/root/commands"

exec_inside='
set -eu
mount --bind "$1" "$1"
cd "$1"
mkdir -p .host
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs tmpfs dev
mkdir dev/net dev/pts
mkdir -m 1777 dev/shm
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 net/tun:10:200 kvm:10:232; do
    IFS=: read -r name major minor <<<"$node"
    mknod -m 666 "dev/$name" c "$major" "$minor"
done
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
pivot_root . .host
cd /root/poolproof
umount -l /.host
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
mount --make-rprivate /
if [ -n "${AS_USER:-}" ]; then
    # What the project asks a person without root to have installed.
    apt-get update -qq
    PYTHONPATH=harness python3 -c "
from poolproof.image import hostsetup
print(*hostsetup.missing(hostsetup.requirements(root=False)))" |
        xargs -r apt-get install -qq -y --no-install-recommends >/dev/null
    id user >/dev/null 2>&1 || useradd -m user
    chmod 755 /root
    chown -R user: /root/poolproof
fi
while read -r command; do
    echo "== $command"
    start=$(date +%s)
    if [ -n "${AS_USER:-}" ]; then
        status=0
        setpriv --reuid user --regid user --init-groups env HOME=/home/user sh -c "$command" || status=$?
    else
        status=0
        sh -c "$command" || status=$?
    fi
    echo "== $command: status $status after $(($(date +%s) - start)) s"
    [ $status -eq 0 ] || exit $status
done </root/commands
'
keep=(PATH AS_USER SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE NODE_EXTRA_CA_CERTS POOLPROOF_DEBIAN_MIRROR)
environment=()
for name in "${keep[@]}"; do [ -z "${!name:-}" ] || environment+=("$name=${!name}"); done
env -i "${environment[@]}" unshare --mount --pid --fork --kill-child bash -c "$exec_inside" inside "$tree"
