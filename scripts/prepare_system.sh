#!/bin/sh
# Checks the Python version, and that Debian's venv module, an OpenGL library and the named programs are there; installs
# what is missing when root.
# Usage: prepare_system.sh PYTHON [PROGRAM[=PACKAGE] ...], where PACKAGE is Debian's, if its name is another
set -eu

python=$1
shift
if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    echo "error: $python is no Python 3.11, 3.12 or 3.13: name one, as in \`make eval PYTHON=python3.11\`." >&2
    exit 1
fi

missing=
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing=" python3-venv"
PATH=$PATH:/usr/sbin:/sbin
if command -v ldconfig >/dev/null; then # elsewhere the run itself tries what renders, and says so
    libraries=$(ldconfig -p)
    has() { case $libraries in *"$1"*) ;; *) return 1 ;; esac }
    { has libEGL.so.1 && has libGL.so.1; } || has libOSMesa.so || missing="$missing libegl1 libgl1"
fi
for program; do
    command -v "${program%%=*}" >/dev/null || missing="$missing ${program#*=}"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing the Debian packages$missing."
    apt-get update -qq
    # shellcheck disable=SC2086 # one word per package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "error: the Debian packages$missing are missing: run \`sudo apt-get install$missing\`." >&2
    exit 1
fi
