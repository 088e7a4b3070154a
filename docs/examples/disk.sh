#!/bin/bash -eu
# What a playbook sees: its own user, its own small file systems, no network.
echo "I am $(id -un) on $(uname -r)"
df -h --output=target,size,avail /work /tmp
echo "network devices: $(ls /sys/class/net | tr '\n' ' ')"
