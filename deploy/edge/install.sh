#!/bin/sh
# Installs the edge agent on a 64-bit Raspberry Pi OS or Debian (>= 12): a service that starts with the box and keeps
# every sample. Run it again to bring the agent up to date; configuration and data stay as they are.
#
#   sudo deploy/edge/install.sh                 from this checkout; packages from PyPI, checked by hash
#   sudo deploy/edge/install.sh --wheels DIR    from wheels in DIR alone (packtwin's and all others), no network
#        deploy/edge/install.sh --dry-run       say what would be done, change nothing; needs no root
#   sudo deploy/edge/install.sh --uninstall     remove the agent; /etc/packtwin and /var/lib/packtwin stay
#
# --device ID: this box's id in the cloud (default: its host name), written into a new edge.toml only.
set -eu

PREFIX=/opt/packtwin
CONFIG=/etc/packtwin
DATA=/var/lib/packtwin
UNITS=/etc/systemd/system
SYSCTL=/etc/sysctl.d/60-packtwin.conf
COMMAND=/usr/local/bin/packtwin-edge
ACCOUNT=packtwin
NEED_KIB=700000 # the new version beside the one that runs
HERE=$(cd "$(dirname "$0")" && pwd)
CHECKOUT=$(cd "$HERE/../.." && pwd)
dry='' uninstall='' wheels='' device=''

fail() { echo "install.sh: $*" >&2; exit 1; }
usage() { echo "install.sh: $*; see the top of the file, or --help" >&2; exit 2; }
say() { echo "$*"; }
# Everything that changes something goes through here.
do_() { if [ -n "$dry" ]; then echo "would: $*"; else "$@"; fi; }

while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) dry=1 ;;
        --uninstall) uninstall=1 ;;
        --wheels) [ $# -ge 2 ] || usage "--wheels needs a folder"; shift; wheels=$1 ;;
        --device) [ $# -ge 2 ] || usage "--device needs an id"; shift; device=$1 ;;
        -h | --help) sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
        *) usage "$1 is not an option" ;;
    esac
    shift
done

# --- may it be installed here? -----------------------------------------------------------------------------------

[ -n "$dry" ] || [ "$(id -u)" = 0 ] || fail "needs root: run it with sudo (or with --dry-run to see what it would do)"
# Where systemd is not the one that runs (a container, an image being built), units are installed and not started.
booted=''
[ -d /run/systemd/system ] && booted=1
ctl() { if [ -n "$booted" ]; then do_ systemctl "$@"; fi; }

remove() {
    for unit in packtwin-edge.service 'packtwin-can@can0.service'; do
        [ -e "$UNITS/$unit" ] || [ "$unit" != packtwin-edge.service ] || continue
        ctl disable --now "$unit" || true
    done
    do_ rm -f "$UNITS/packtwin-edge.service" "$UNITS/packtwin-can@.service" "$COMMAND" "$SYSCTL"
    do_ rm -rf "$PREFIX"
    ctl daemon-reload
    say "packtwin's agent is removed. Its settings ($CONFIG) and what it has not sent ($DATA) are still here;"
    say "to remove them too: rm -r $CONFIG $DATA && userdel $ACCOUNT"
}
if [ -n "$uninstall" ]; then
    remove
    exit 0
fi

[ -r /etc/os-release ] || fail "this is no Debian or Raspberry Pi OS (no /etc/os-release)"
# shellcheck disable=SC1091 # is not ours
system=$(. /etc/os-release && echo " ${ID:-} ${ID_LIKE:-} ")
case $system in
    *' debian '* | *' raspbian '* | *' ubuntu '*) ;;
    *) fail "this is no Debian or Raspberry Pi OS (${system# })" ;;
esac
# A 64-bit kernel can carry a 32-bit system, for which there are no wheels: dpkg knows which it is.
architecture=$(dpkg --print-architecture)
case $architecture in
    arm64 | amd64) ;;
    *) fail "needs a 64-bit system and this one is $architecture: install the 64-bit Raspberry Pi OS" ;;
esac
for folder in "$wheels" "$HERE"; do
    [ -z "$folder" ] || [ -d "$folder" ] || usage "$folder is no folder"
done
if [ -n "$wheels" ]; then
    wheels=$(cd "$wheels" && pwd)
    set -- "$wheels"/packtwin-*.whl
    [ -f "$1" ] || fail "$wheels holds no packtwin-*.whl"
    [ $# = 1 ] || fail "$wheels holds more than one packtwin-*.whl: leave the one to install"
fi
device=${device:-$(hostname 2>/dev/null || cat /etc/hostname)}
case $device in
    '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) fail "'$device' cannot be a device's id: give one of letters, digits, . _ - with --device" ;;
esac
free_kib=$(df -Pk /opt 2>/dev/null | awk 'NR == 2 {print $4}')
[ "${free_kib:-$NEED_KIB}" -ge "$NEED_KIB" ] || fail "/opt has $((free_kib / 1024)) MiB free and $((NEED_KIB / 1024)) are needed: make room"

# --- what the system must have -----------------------------------------------------------------------------------

absent=''
for package in python3 python3-venv ca-certificates iproute2; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || absent="$absent $package"
done
if [ -n "$absent" ]; then
    do_ env DEBIAN_FRONTEND=noninteractive apt-get update -q
    # shellcheck disable=SC2086 # one word per package
    do_ env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $absent
fi
if command -v python3 >/dev/null; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "needs Python 3.11 or newer and this system has $(python3 -V): upgrade to Debian 12 or newer"
fi
if ! id "$ACCOUNT" >/dev/null 2>&1; then
    do_ useradd --system --user-group --home-dir "$DATA" --no-create-home --shell /usr/sbin/nologin "$ACCOUNT"
fi

# --- the agent: each version in a folder of its own, `current` says which runs -------------------------------------

content() {
    python3 -V
    cat "$HERE/requirements.txt"
    if [ -n "$wheels" ]; then
        cat "$1"
    else
        cd "$CHECKOUT"
        cat pyproject.toml
        find shared firmware_bridge edge cloud -name node_modules -prune -o -type f ! -name '*.pyc' -print | LC_ALL=C sort | xargs cat
    fi
}
stamp=$(content "$@" | sha256sum | cut -c1-12)
target=$PREFIX/$stamp
changed=''

pip() { do_ "$target/bin/python" -m pip --disable-pip-version-check -q "$@"; }
build() { # into $target, marked done at last: a run that was cut off begins again
    do_ rm -rf "$target"
    do_ mkdir -p "$PREFIX"
    do_ python3 -m venv "$target"
    scratch=$PREFIX/wheel
    do_ rm -rf "$scratch"
    if [ -n "$wheels" ]; then
        pip install --no-compile --no-index --find-links "$wheels" --require-hashes -r "$HERE/requirements.txt"
        pip install --no-compile --no-index --no-deps "$1"
    else
        pip install --no-compile --only-binary :all: --require-hashes -r "$HERE/requirements.txt"
        pip wheel --no-deps -w "$scratch" "$CHECKOUT"
        pip install --no-compile --no-deps "$scratch"/packtwin-*.whl
        do_ rm -rf "$scratch"
    fi
    pip uninstall -y setuptools # which the venv module of Python 3.11 brings, and nothing needs
    # On all cores; a few files of packages are no Python that this one reads, and never run.
    do_ "$target/bin/python" -m compileall -q -q -j 0 "$target/lib" || true
    do_ touch "$target/installed"
}
if [ ! -e "$target/installed" ]; then
    say "installing packtwin into $target (a few minutes on a Pi)"
    build "$@"
fi
if [ "$(readlink "$PREFIX/current" 2>/dev/null)" != "$target" ]; then
    do_ ln -sfn "$target" "$PREFIX/current.new"
    do_ mv -T "$PREFIX/current.new" "$PREFIX/current"
    changed=1
fi
[ "$(readlink "$COMMAND" 2>/dev/null)" = "$PREFIX/current/bin/packtwin-edge" ] ||
    do_ ln -sfn "$PREFIX/current/bin/packtwin-edge" "$COMMAND"

# --- settings: made once, yours from then on ----------------------------------------------------------------------

[ -d "$CONFIG" ] || do_ install -d -m 750 -o root -g "$ACCOUNT" "$CONFIG"
[ -d "$DATA" ] || do_ install -d -m 750 -o "$ACCOUNT" -g "$ACCOUNT" "$DATA"
new_file() { # FROM NAME
    [ ! -e "$CONFIG/$2" ] || return 0
    if [ -n "$dry" ]; then
        say "would: write $CONFIG/$2"
    else
        sed "s/@DEVICE@/$device/g" "$1" >"$CONFIG/$2.new"
        chown "root:$ACCOUNT" "$CONFIG/$2.new"
        chmod 640 "$CONFIG/$2.new"
        mv "$CONFIG/$2.new" "$CONFIG/$2"
    fi
}
new_file "$HERE/edge.toml" edge.toml
new_file "$HERE/can0.env" can0.env

# --- the services -------------------------------------------------------------------------------------------------

for unit in packtwin-edge.service 'packtwin-can@.service'; do
    cmp -s "$HERE/$unit" "$UNITS/$unit" && continue
    do_ install -D -m 644 "$HERE/$unit" "$UNITS/$unit"
    changed=1
done
if ! cmp -s "$HERE/sysctl.conf" "$SYSCTL"; then
    do_ install -D -m 644 "$HERE/sysctl.conf" "$SYSCTL"
    if [ -n "$booted" ]; then do_ sysctl -q -p "$SYSCTL" || true; fi
fi
if [ -n "$booted" ]; then
    [ -z "$changed" ] || ctl daemon-reload
    ctl enable -q 'packtwin-can@can0.service' packtwin-edge.service
    if [ -n "$changed" ]; then ctl restart packtwin-edge.service; else ctl start packtwin-edge.service; fi
elif [ -z "$dry" ]; then
    say "systemd does not run here: the service is installed and starts nothing; by hand:"
    say "  $COMMAND run --config $CONFIG/edge.toml"
fi
# The version before is gone only when the new one is in its place.
for old in "$PREFIX"/*/; do
    old=${old%/}
    case $old in "$target" | "$PREFIX/current" | "$PREFIX/*") ;; *) do_ rm -rf "$old" ;; esac
done

if [ -n "$dry" ]; then
    say "nothing was changed"
    exit 0
fi
version=$("$PREFIX/current/bin/python" -c 'from importlib.metadata import version as v; print(v("packtwin"))')
if [ -n "$changed" ]; then say "packtwin's agent $version is installed"; else say "packtwin's agent $version is up to date"; fi
say "  settings  $CONFIG/edge.toml   then: sudo systemctl restart packtwin-edge"
say "  state     sudo packtwin-edge status"
say "  log       journalctl -u packtwin-edge -f"
say "  page      http://localhost:5002 on this box"
