# shellcheck shell=bash
# Sourced by the scripts beside it: how they speak, how they fail, how they show that a long step is alive.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LOGS=$ROOT/build/logs
PROGRAM=${0##*/}

say() { printf '%s: %s\n' "$PROGRAM" "$*"; }

fail() {
    printf '%s: %s\n' "$PROGRAM" "$*" >&2
    exit 1
}

# attempt NAME SENTENCE COMMAND...: runs a long command with its output in build/logs/NAME.log, prints a line every
# 10 s and one at the end; the exit code is the command's. An interrupted script takes the command with it.
attempt() {
    local log=$LOGS/$1.log sentence=$2 begin=$SECONDS shown=0 code=0 pid
    shift 2
    mkdir -p "$LOGS"
    say "$sentence …"
    set -m # a process group of its own, so that all of it can be stopped
    "$@" </dev/null >"$log" 2>&1 &
    pid=$!
    set +m
    # shellcheck disable=SC2064 # this pid, not a later one
    trap "kill -TERM -- -$pid 2>/dev/null; exit 130" INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        if ((SECONDS - begin >= shown + 10)); then
            shown=$((SECONDS - begin))
            say "  … $shown s"
        fi
    done
    wait "$pid" || code=$?
    trap - INT TERM
    ((code != 0)) || say "  done in $((SECONDS - begin)) s"
    return "$code"
}

# step NAME SENTENCE REMEDY COMMAND...: the same, and a failure ends the script with the log's last lines and one
# sentence: what failed, where the log is, what to do.
step() {
    local name=$1 sentence=$2 remedy=$3 code=0
    shift 3
    attempt "$name" "$sentence" "$@" || code=$?
    ((code == 0)) && return 0
    tail -n 20 "$LOGS/$name.log" | sed 's/^/    /' >&2
    fail "failed (exit code $code) while ${sentence,}; the whole log is $LOGS/$name.log. $remedy"
}

is_root() { ((EUID == 0)); }

is_debian_family() {
    command -v apt-get >/dev/null && grep -qE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release 2>/dev/null
}

# By apt, which only Debian and Ubuntu have, and which only root may use.
update_package_lists() {
    step apt-update "Reading the package lists of apt" \
        "Check the network and /etc/apt, then run this again." \
        env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 update
}

# install_packages PACKAGE...: after update_package_lists.
install_packages() {
    step apt-install "Installing $* with apt (under a minute on most lines)" \
        "Run 'apt-get install $*' by hand to see more." \
        env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"
}
