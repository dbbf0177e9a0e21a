# Sourced by the scripts that a person starts. Needs $root, the checkout's directory, and what debian-packages.sh has.

# In this order; those that they need are put in front of them. The last ones are loaded by whoever wants them.
guest_modules='virtio_pci 9pnet_virtio 9p virtio_net crc32c_generic ext4 nbd'

# ensure_guest: what test/support/guest.ts boots in QEMU, in .work/guest: Debian's kernel with its modules for this, and an initrd that
# shows it this machine's files. The package (70 MB) is unpacked and thrown away, not installed: this machine boots what it did before.
ensure_guest() {
  [ "$(dpkg --print-architecture)" = amd64 ] || return 0
  guest=$root/.work/guest
  mkdir -p "$root/.work"
  exec 9>"$root/.work/guest.lock"
  flock 9
  if [ ! -e "$guest/initrd" ] || [ "$root/test/support/guest.sh" -nt "$guest/initrd" ] || [ "$root/test/support/guest-init.sh" -nt "$guest/initrd" ]; then
    echo "unpacking a Debian kernel for tests in a virtual machine"
    rm -rf "$guest"
    # Not behind ||, where errors inside of it would not end it.
    set +e
    make_guest >"$root/.work/guest.log" 2>&1
    made=$?
    set -e
    if [ "$made" -ne 0 ]; then
      tail -n 20 "$root/.work/guest.log" >&2
      rm -rf "$guest"
      echo "could not make $guest (the whole log: $root/.work/guest.log)" >&2
      return 1
    fi
  fi
  exec 9>&-
}

make_guest() (
  set -eu
  mkdir -p "$guest/package" "$guest/root/modules" "$guest/root/bin"
  cd "$guest"
  # A machine may have no lists yet, or old ones.
  apt-get download "$(kernel_package)" || { apt_get update && apt-get download "$(kernel_package)"; }
  dpkg-deb --fsys-tarfile linux-image-*.deb | tar -x -C package ./boot ./lib/modules
  cp package/boot/vmlinuz-* vmlinuz
  release=$(ls package/lib/modules)
  busybox depmod -b package "$release"
  for module in $guest_modules; do add_module "package/lib/modules/$release" "$module"; done
  cp "$(command -v busybox)" root/bin/busybox
  cp "$root/test/support/guest-init.sh" root/init
  chmod +x root/init
  (cd root && find . | busybox cpio -o -H newc) >initrd.new
  rm -rf package root linux-image-*.deb
  mv initrd.new initrd
)

# The kernel that Debian's newest package of this name stands for.
kernel_package() {
  apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)$/\1/p' | grep . | head -n 1
}

# add_module TREE NAME: what it needs first, each once; root/modules/order has them in the order in which they can be loaded.
add_module() {
  found=$(grep -E "/$2\.ko(\.xz)?:" "$1/modules.dep")
  for needed in ${found#*:}; do
    needed=${needed##*/}
    grep -qxF "${needed%.xz}" root/modules/order 2>/dev/null || (add_module "$1" "${needed%.ko*}")
  done
  grep -qxF "$2.ko" root/modules/order 2>/dev/null && return
  file=${found%%:*}
  case $file in
    *.xz) busybox xzcat "$1/$file" >"root/modules/$2.ko" ;;
    *) cp "$1/$file" "root/modules/$2.ko" ;;
  esac
  echo "$2.ko" >>root/modules/order
}
