#!/usr/bin/busybox sh
# The first process of the machine: makes a system of the archive it lies in, runs one command, says how that ended.
# Output goes through virtio ports, so that it is apart from what the kernel has to say on its console.
export PATH=/usr/sbin:/usr/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /dev/net
# As udev makes it: who opens it first loads the module.
mknod /dev/net/tun c 10 200
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
# In memory already, and files of the command may lie there.
chmod 1777 /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
hostname machine
busybox ip link set lo up

# Some kernels have these built in.
modprobe -a virtio_pci virtio_console 2>/dev/null

port() {
    for entry in /sys/class/virtio-ports/*; do
        if [ "$(cat "$entry/name")" = "$1" ]; then echo "/dev/${entry##*/}"; fi
    done
}
exec 9>"$(port status)"
echo up >&9
/command </dev/null >"$(port out)" 2>"$(port err)" 9>&-
echo "exit $?" >&9
poweroff -f
