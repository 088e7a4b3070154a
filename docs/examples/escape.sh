#!/bin/bash
# Tries to leave its box; each attempt says what stopped it. Ends with exit code 0 only if every one failed.
attempt() {
    local name=$1
    shift
    if why=$("$@" 2>&1); then
        echo "ESCAPED: $name"
        escaped=1
    else
        echo "held: $name (${why##*: })"
    fi
}
attempt "write to the image" touch /usr/bin/mine
attempt "change the playbook" bash -c 'echo "# changed" >> /playbook/playbook.sh'
attempt "become root" su -c true root
attempt "mount a file system" mount -t tmpfs none /tmp
attempt "find a network device" ls /sys/class/net/eth0
attempt "find the Docker socket" ls /var/run/docker.sock
exit "${escaped:-0}"
