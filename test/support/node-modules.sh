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
    npm_install || { sleep 3; npm_install; } || { echo "npm install failed in $root: see the messages above" >&2; return 1; }
    link_node
    # Packages that want a newer Node than the machine's were passed over; npm runs as well under the Node that came.
    (PATH="$root/node_modules/.bin:$PATH" && npm_install)
    link_node
    touch "$root/node_modules/.package-lock.json"
  fi
  exec 9>&-
  PATH="$root/node_modules/.bin:$PATH"
  export PATH
}

# npm 9 does not link the command of a package for a platform.
link_node() {
  [ -e "$root/node_modules/.bin/node" ] && return
  for node in "$root"/node_modules/node-linux-*/bin/node; do
    if [ -x "$node" ]; then ln -s "../${node#"$root/node_modules/"}" "$root/node_modules/.bin/node"; fi
  done
}

# Not npm ci: it wants the builds of the native tools for every other platform in the lock file, and a registry need not have
# them all. What is in the lock file is installed by its version and checked against its hash all the same; --no-save keeps the
# file as it is.
npm_install() {
  (cd "$root" && npm install --no-save --no-audit --no-fund --loglevel=error)
}
