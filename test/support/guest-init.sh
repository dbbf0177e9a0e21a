#!/bin/busybox sh
# The first process of the virtual machine that test/support/guest.ts boots. Shows it the files of the machine that runs it, read-only,
# with a few directories of its own, runs the program that lies in the shared directory, and leaves its status there.
busybox() { /bin/busybox "$@"; }
option() { busybox sed -n "s/.*guest\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
share() { busybox mount -t 9p -o "trans=virtio,version=9p2000.L,msize=524288,$3" "$1" "$2"; }

busybox mkdir -p /proc /sys /dev /machine
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
later=$(option later)
for module in $(busybox cat /modules/order); do
  [ "$module" = "$later.ko" ] || busybox insmod "/modules/$module"
done
directory=$(option directory)
checkout=$(option checkout)

# What nobody changes meanwhile may be remembered.
share machine /machine ro,cache=loose
busybox mount -t tmpfs tmpfs /machine/run
busybox mount -t tmpfs tmpfs /machine/mnt
share directory "/machine$directory" rw,cache=none

# Looking up many small files of the other machine takes long.
busybox mkdir /machine/run/checkout /machine/run/modules
busybox cp /modules/*.ko /machine/run/modules
busybox tar -x -C /machine/run/checkout -f "/machine$directory/checkout.tar"
while read -r part; do
  busybox mount --bind "/machine/run/checkout/$part" "/machine$checkout/$part"
done <"/machine$directory/parts"

for mount in proc sys dev; do busybox mount --move "/$mount" "/machine/$mount"; done
busybox ip link set lo up
busybox ip addr add 10.0.2.15/24 dev eth0
busybox ip link set eth0 up
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run
busybox chroot /machine /bin/sh "$directory/program" >"/machine$directory/output" 2>&1
echo $? >"/machine$directory/status"
busybox sync
busybox reboot -f
