#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Bring a fresh Debian or Ubuntu machine to where a make target can run:
#   bootstrap.sh test|reference|conformance|bench|deb
# Installs Debian packages (only as root; otherwise prints the command and stops) and the project's own .venv.
set -eu
cd "$(dirname "$0")/.."
purpose=${1:?usage: bootstrap.sh test|reference|conformance|bench|deb}
python=/usr/bin/python3
venv=.venv

fail() { echo "poolproof: $*" >&2; exit 2; }

apt_install() {
    if [ "$(id -u)" -ne 0 ]; then
        fail "packages are missing; run this, then try again:
  sudo apt-get update && sudo apt-get install --no-install-recommends $*"
    fi
    command -v apt-get >/dev/null || fail "no apt-get here; install the equivalents of: $*"
    echo "poolproof: installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null
    apt-get install -y -q --no-install-recommends "$@" >/dev/null
}

if ! $python -c 'import ensurepip, venv' 2>/dev/null; then
    [ "${OFFLINE:-}" != 1 ] || fail "python3-venv is missing and OFFLINE=1 forbids installing it"
    apt_install python3 python3-venv ca-certificates
fi
$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$($python --version) is too old: Python 3.11 is needed (Debian 12, Ubuntu 24.04 or later)"

# libvirt's Python binding comes from the distribution: it has to match the libvirt library.
PYTHONPATH=harness $python -c \
    'import sys; from poolproof.image.hostsetup import main; sys.exit(main(sys.argv[1:]))' "$purpose"
[ "$purpose" != deb ] || exit 0  # needs no Python environment

stamp=$(cat pyproject.toml "$0" | sha256sum | cut -c1-16)
case $purpose in
test) extras=test ;;
reference) extras=harness ;;
bench) extras=bench ;;
conformance) extras=harness,lab ;;
*) fail "unknown purpose: $purpose" ;;
esac
ready=$venv/.ready-$extras-$stamp
[ ! -e "$ready" ] || exit 0
[ "${OFFLINE:-}" != 1 ] || fail "the Python environment is not complete and OFFLINE=1 forbids fetching it; run \`make prefetch\` with a network first"
echo "poolproof: preparing the Python environment in $venv ($extras)"
# One at a time: two targets started together must not install into each other.
exec 9>.venv.lock
flock 9
[ -x $venv/bin/python ] || $python -m venv --system-site-packages $venv
$venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$extras]"
: >"$ready"
