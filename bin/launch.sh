# Sourced by the launchers beside it, which set $self (their real path), $entry (a file of src/cli) and pass on their arguments.
# Finds a Node that runs TypeScript and becomes it. Only builtins on the usual way: a start costs about a millisecond.

root=${self%/*}/..

fail() {
  echo "${self##*/}: $*" >&2
  exit 127
}

# major NODE: its major version, or nothing when it does not run.
major() {
  version=$("$1" --version 2>/dev/null) || version=
  version=${version#v}
  echo "${version%%.*}"
}

is_recent() {
  case $1 in '' | *[!0-9]*) return 1 ;; esac
  [ "$1" -ge 24 ]
}

[ -d "$root/node_modules" ] || fail "its npm packages are not installed: run npm install in $(cd "$root" && pwd -P)"

if [ -n "${LAZYLAYER_NODE-}" ]; then
  node=$LAZYLAYER_NODE
  is_recent "$(major "$node")" || fail "LAZYLAYER_NODE is $node, which is not Node.js 24 or later: point it to one, or unset it"
else
  # npm brings a Node as a package for the platform. npm 9 does not put it into .bin.
  node=
  for packaged in "$root"/node_modules/.bin/node "$root"/node_modules/node-linux-*/bin/node; do
    [ -x "$packaged" ] && node=$packaged && break
  done
fi
if [ -z "$node" ] && is_recent "$(major node)"; then
  node=node
elif [ -z "$node" ]; then
  found=$(node --version 2>/dev/null) || found=none
  fail "needs Node.js 24 or later (on PATH: $found): install it, set LAZYLAYER_NODE to it, or run npm install in $(cd "$root" && pwd -P)"
fi

# Compiled code is kept beside the packages: a start takes half as long. Where that cannot be written, nothing is kept.
export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE-$root/node_modules/.cache/compile}"

# Threads that pass buffers to each other leave holes in one malloc arena a thread; two arenas hold far less memory.
export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX-2}"
# Buffers of 128 KiB and more go back to the system when they are freed; by itself malloc raises that limit, and keeps them.
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_-131072}"

# A small young generation: what lives longer is in typed arrays, and garbage is not worth memory. Nor is an old one of four times of
# what lives in it, which V8 lets grow by itself: at 1.8 times, it costs no processor time that can be measured. gc() is for those who
# begin to wait for a long time.
exec "$node" --expose-gc --max-semi-space-size=4 --heap-growing-percent=80 --disable-warning=ExperimentalWarning "$root/src/cli/$entry.ts" "$@"
