#!/bin/sh
# sh changes.sh ROOT LAYER: fills the directory LAYER with a layer that deletes and replaces what is in ROOT,
# written the way OCI layers say it: .wh.NAME deletes NAME, .wh..wh..opq hides what lower layers have in a directory.
set -eu
root=$1
layer=$2
mkdir -p "$layer"
cd "$layer"

# Deleted: the documentation of every package whose name starts with "lib", all translations, one file.
mkdir -p usr/share/doc etc
for path in "$root"/usr/share/doc/lib*; do : >"usr/share/doc/.wh.${path##*/}"; done
: >usr/share/.wh.locale
: >etc/.wh.issue.net

# Hidden as a whole, with something new in its place.
mkdir -p usr/share/man
: >usr/share/man/.wh..wh..opq
echo "manual pages are not part of this image" >usr/share/man/README

# A file becomes a directory, a directory becomes a file, a link becomes a file.
mkdir etc/issue
echo "was a file" >etc/issue/readme
echo "was a directory" >usr/share/lintian
rm -f etc/os-release
sed 's/^PRETTY_NAME=.*/PRETTY_NAME="lazylayer demo"/' "$root/usr/lib/os-release" >etc/os-release

mkdir -p opt/demo
cd opt/demo

# Three names of one file.
head -c 300000 "$root/var/lib/dpkg/status" >data
ln data data-again
mkdir names
ln data names/data-too

# Rights that live in the mode and in extended attributes.
cp "$root/usr/bin/id" setuid-id
chmod 4755 setuid-id
cp "$root/usr/bin/env" capable-env
setcap cap_net_bind_service+ep capable-env
setfattr -n user.origin -v "a layer that changes things" data
cp "$root/usr/bin/true" setgid-true
chown 0:42 setgid-true
chmod 2751 setgid-true
mkdir sticky
chmod 1777 sticky

# Not files at all. A user namespace may not make device nodes.
mkfifo pipe
mknod null-again c 1 3 2>/dev/null || echo "no device node: not allowed here" >&2
ln -s ../../etc/os-release link
ln -s /nowhere/at/all dangling

# Mostly holes.
truncate -s 64M sparse
printf start | dd of=sparse conv=notrunc status=none
printf end | dd of=sparse bs=1 seek=67000000 conv=notrunc status=none

# Names at the limits, and times that seconds do not hold.
long=$(printf 'n%.0s' $(seq 255))
echo "long name" >"$long"
deep=.
for level in 1 2 3 4 5 6 7 8; do deep=$deep/level-$level-$(printf 'x%.0s' $(seq 60)); done
mkdir -p "$deep"
echo "deep path" >"$deep/leaf"
echo "not ASCII" >"größe-尺寸-🐢"
: >empty

cd "$layer"
find . -print0 | xargs -0 touch -h -d '2024-02-29 12:34:56.123456789 UTC'
touch -d '1969-07-20 20:17:40.5 UTC' opt/demo/data
touch -d '2060-01-01 00:00:00.000000001 UTC' opt/demo/empty
