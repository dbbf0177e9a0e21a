# Sourced by the scripts that a person starts. Needs $root, the checkout's directory.

# ensure_debian_packages PACKAGE...: installs those that are missing, when this is root; otherwise names them and fails.
ensure_debian_packages() {
  missing=$(missing_packages "$@")
  [ -z "$missing" ] && return 0
  if [ "$(id -u)" -ne 0 ]; then
    echo "these Debian packages are missing: $missing" >&2
    echo "install them: sudo apt-get install --no-install-recommends $missing" >&2
    return 1
  fi
  echo "installing Debian packages: $missing"
  mkdir -p "$root/.work"
  apt_log=$root/.work/apt.log
  # shellcheck disable=SC2086
  (apt_get update && without_services apt_get install $missing) >"$apt_log" 2>&1 || true
  missing=$(missing_packages "$@")
  [ -z "$missing" ] && return 0
  tail -n 40 "$apt_log" >&2
  echo "could not install these Debian packages: $missing (the whole log: $apt_log)" >&2
  return 1
}

missing_packages() {
  installed=$(dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p')
  for package in "$@"; do
    printf '%s\n' "$installed" | grep -qxF -- "$package" || printf '%s\n' "$package"
  done | paste -sd ' ' -
}

apt_get() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 "$@" </dev/null
}

# without_services COMMAND...: runs it while Debian's policy layer refuses to start services: a registry that the
# tests need is started by them, on a port of its own.
without_services() (
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  "$@"
)
