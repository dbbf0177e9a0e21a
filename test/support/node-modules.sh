# Sourced by the scripts that a person starts. Needs $root, the checkout's directory.
# Installs the locked npm packages when they are missing or older than the lock file,
# then puts their commands, and with them the right Node, first on PATH.
ensure_node_modules() {
  mkdir -p "$root/.work"
  exec 9>"$root/.work/npm-install.lock"
  flock 9
  if [ ! -x "$root/node_modules/.bin/node" ] || [ "$root/package-lock.json" -nt "$root/node_modules/.package-lock.json" ]; then
    command -v npm >/dev/null || { echo "npm is missing: install Node.js with npm, then run this again" >&2; return 1; }
    echo "installing npm packages"
    (cd "$root" && { npm ci --no-audit --no-fund --loglevel=error || { sleep 3; npm ci --no-audit --no-fund --loglevel=error; }; }) || {
      echo "npm ci failed in $root: see the messages above" >&2
      return 1
    }
    touch "$root/node_modules/.package-lock.json"
  fi
  exec 9>&-
  PATH="$root/node_modules/.bin:$PATH"
  export PATH
}
