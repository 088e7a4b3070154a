# What a playbook sees, told line by line: a key, a tab, a value. It runs in the place of a playbook, in any image that has
# a POSIX shell; whatever else is missing in the image is left out. Before it stand the variables COMMAND, MOUNTS, TARGETS
# and TOOLS. No value of a secret or of the environment is ever printed.
# shellcheck shell=sh disable=SC2154  # those variables

set -f
tab=$(printf '\t')
say() { printf '%s\t%s\n' "$1" "$2"; }
has() { command -v "$1" >/dev/null 2>&1; }
bounded() { if has timeout; then timeout 10 "$@"; else "$@"; fi; }

say probe 1
say user "$(id -u 2>/dev/null) $(id -un 2>/dev/null) ${HOME:-}"
while IFS= read -r line; do
    case $line in CapEff:* | CapBnd:* | NoNewPrivs:* | Seccomp:*) say status "$line" ;; esac
done </proc/self/status
while IFS= read -r line; do
    case $line in 'Max open files'* | 'Max core file size'* | 'Max file size'*) say limit "$line" ;; esac
done </proc/self/limits
for file in memory.max memory/memory.limit_in_bytes pids.max pids/pids.max cpu.max cpu/cpu.cfs_quota_us; do
    if [ -r "/sys/fs/cgroup/$file" ]; then
        read -r value <"/sys/fs/cgroup/$file" && say cgroup "$file $value"
    fi
done

# Each place is really tried: a file is made in it, and started as a program. Only what is in the way of a playbook counts.
try_place() {
    file=$1/.agp-probe-$$
    (printf '#!/bin/sh\nexit 0\n' >"$file") 2>/dev/null || return
    can="noexec"
    if chmod 700 "$file" 2>/dev/null && "$file" 2>/dev/null; then can="exec"; fi
    rm -f "$file"
    say writable "$1 $can"
}
while read -r _ place type options _; do
    say mount "$place $type $options"
    case $place in /proc* | /sys* | /dev* | /playbook*) continue ;; esac
    if [ -d "$place" ]; then try_place "$place"; fi
done </proc/self/mounts
for place in /etc /home /opt /root /run /usr /var /var/tmp; do
    if [ -d "$place" ]; then try_place "$place"; fi
done

for place in $MOUNTS; do
    sees=unreadable
    if [ -r "$place" ] && { [ ! -d "$place" ] || [ -x "$place" ]; }; then sees=readable; fi
    say granted "$place $sees"
done
set +f
for file in /run/secrets/*; do
    if [ -f "$file" ]; then say secret "${file##*/}"; fi
done
if has tr && has env; then
    # A value may hold newlines, but no zero byte: those stand between the variables.
    env -0 | tr '\n\000' ' \n' | while IFS= read -r line; do say environment "${line%%=*}"; done
fi

for device in /sys/class/net/*; do
    if [ -e "$device" ]; then say device "${device##*/}"; fi
done
if [ -r /proc/net/route ]; then
    while read -r device destination gateway _; do
        if [ "$destination" = 00000000 ]; then say gateway "$device $gateway"; fi
    done </proc/net/route
fi
if [ -r /etc/resolv.conf ]; then
    while read -r word value _; do
        if [ "$word" = nameserver ]; then say resolver "$value"; fi
    done </etc/resolv.conf
fi
set -f
# Connects to HOST PORT, with whatever the image has for it; 2: it has nothing.
connect() {
    if has python3; then
        python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()' "$1" "$2"
    elif has bash && has timeout; then
        # shellcheck disable=SC2016  # bash expands them
        timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2"
    elif has nc; then
        nc -z -w 3 "$1" "$2"
    else
        return 2
    fi >/dev/null 2>&1
}
for target in $TARGETS; do
    code=0
    connect "${target%"|"*}" "${target##*"|"}" || code=$?
    say reach "$target $code"
done

say command "$(command -v "$COMMAND" 2>/dev/null)"
for tool in $TOOLS; do
    if has "$tool"; then
        case $tool in ssh | sshpass) flag=-V ;; *) flag=--version ;; esac
        # shellcheck disable=SC2005,SC2046  # all of it becomes one line
        say tool "$tool$tab$(echo $(bounded "$tool" "$flag" 2>&1 </dev/null))"
    fi
done
say end 1
