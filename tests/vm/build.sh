#!/bin/sh
# Turns an unpacked Debian into the guest's disk. Runs as root in a mount namespace of its own, so no failure leaves a
# mount behind. The environment holds the host's pip settings; the arguments after the fifth are host paths they name.
set -eu
root=$1 overlay=$2 lock=$3 wheels=$4 out=$5
shift 5
in_guest() { chroot "$root" /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"; }
say() { echo "vm: $*" >&2; }

say "setting up users and services"
cp -r --no-preserve=ownership "$overlay/." "$root"
in_guest useradd --create-home --uid 1000 --shell /bin/bash agent
grep -q ^agent: "$root/etc/subuid" || echo agent:100000:65536 >> "$root/etc/subuid"
grep -q ^agent: "$root/etc/subgid" || echo agent:100000:65536 >> "$root/etc/subgid"
mkdir -p "$root/var/lib/systemd/linger" "$root/srv/agentk"
touch "$root/var/lib/systemd/linger/agent"    # what `loginctl enable-linger agent` writes
# An empty machine-id makes the first boot preset every unit; this machine boots for the first time every time.
echo 6167656e746b2d766d2d67756573742d > "$root/etc/machine-id"
echo agentk-vm > "$root/etc/hostname"
echo "127.0.0.1 localhost agentk-vm" > "$root/etc/hosts"
# Each costs up to a second of an emulated boot and serves nobody here.
in_guest systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
  e2scrub_reap.service fstrim.timer getty@tty1.service serial-getty@ttyS0.service systemd-binfmt.service \
  systemd-pstore.service systemd-random-seed.service systemd-tmpfiles-clean.timer systemd-update-utmp.service \
  systemd-update-utmp-runlevel.service podman-auto-update.timer podman-auto-update.service podman-restart.service \
  podman.socket podman.service podman-clean-transient.service
in_guest systemctl --quiet --global mask podman-auto-update.timer podman-auto-update.service podman-restart.service \
  podman.socket podman.service
in_guest systemctl --quiet set-default multi-user.target

say "making the kernel's first step"
kernel=$(ls "$root/lib/modules")
in_guest mktirfs --auto-modules=no --microcode=no --include-modules=virtio_pci,virtio_blk -o /boot/initrd "$kernel"
cp "$root/boot/vmlinuz-$kernel" "$out/vmlinuz"
cp "$root/boot/initrd" "$out/initrd"
rm -rf "$root"/boot/*

say "installing the locked requirements"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mkdir -p "$root/var/cache/pip"
mount --bind "$wheels" "$root/var/cache/pip"
cp /etc/resolv.conf "$root/etc/resolv.conf"
for path in "$@"; do
  if [ -d "$path" ]; then mkdir -p "$root$path"; else mkdir -p "$root$(dirname "$path")" && touch -a "$root$path"; fi
  mount --bind "$path" "$root$path"
done
cp "$lock" "$root/opt/requirements.lock"
in_guest python3 -m venv /opt/venv
in_guest PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
  /opt/venv/bin/python -m pip install --quiet --quiet --only-binary :all: --no-compile --require-hashes -r /opt/requirements.lock
# Emulated, importing pytest alone would spend seconds compiling. A package may ship files that no Python 3.11 parses.
in_guest /opt/venv/bin/python -m compileall -qq -j 0 /opt/venv/lib /usr/lib/python3 || true
echo /srv/agentk > "$root/opt/venv/lib/python3.11/site-packages/agentk-checkout.pth"
for path in "$@"; do
  umount "$root$path"
  [ -d "$path" ] && rmdir -p --ignore-fail-on-non-empty "$root$path"
done
umount "$root/var/cache/pip" "$root/dev" "$root/proc"
rm -rf "$root"/var/lib/apt/lists/* "$root/opt/requirements.lock"
: > "$root/etc/resolv.conf"

say "writing the disk"
used=$(du -sm "$root" | cut -f1)
# No journal: the disk is thrown away after every run.
mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 -m 0 -d "$root" "$out/disk" "$((used + used / 8 + 1536))M" >/dev/null
