#!/bin/sh
# What makes a Debian tree an image for agents. Run inside of it, by the Containerfiles beside this file and, where no
# registry is reachable, by `agentk image build` itself.
set -eu

# The user of every box. Its home is the workspace, which the box brings along.
grep -q '^agent:' /etc/passwd || echo 'agent:x:1000:1000:agent:/workspace:/bin/sh' >>/etc/passwd
grep -q '^agent:' /etc/group || echo 'agent:x:1000:' >>/etc/group

# Where a box mounts what is its own.
mkdir -p /workspace /app /opt/agentk /run/agentk
chown 1000:1000 /workspace

# A box lets no program gain rights, so one that would is of no use in it.
# What whoever makes it shows in /dev is not of it, and may be on the same file system.
find / -xdev -path /dev -prune -o -type f -perm /6000 -exec chmod a-s {} +

if [ -e /usr/bin/python3 ] && [ ! -e /usr/bin/python ]; then
    ln -s python3 /usr/bin/python
fi

rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/* \
    /usr/share/doc/* /usr/share/man/* /usr/share/info/* /usr/share/locale/*
