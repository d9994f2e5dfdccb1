#!/bin/sh
# Plimsoll @VERSION@ with Deno @DENO@ for Linux on @MACHINE@: this script, then a compressed archive (docs/packaging.md).
# It unpacks itself once into the caller's cache directory, verified by hash, and becomes the program (same process id).
set -eu
fail() {
  echo "plimsoll: $1" >&2
  exit 1
}
[ -e /proc/self/exe ] || fail "Cannot start: /proc is not mounted here, and Deno needs it. Mount it: mount -t proc proc /proc."
base=${CACHE_DIRECTORY:-}
base=${base%%:*}
case $base in
/*) ;;
*) case ${XDG_CACHE_HOME:-} in
  /*) base=$XDG_CACHE_HOME/plimsoll ;;
  *) [ -n "${HOME:-}" ] || fail "Cannot find a cache directory: CACHE_DIRECTORY, XDG_CACHE_HOME and HOME are not set. Set CACHE_DIRECTORY to a directory that this user may write."
    base=$HOME/.cache/plimsoll ;;
  esac ;;
esac
dir=$base/@NAME@

archive() { tail -n +@LINES@ "$0"; }

unpack() {
  [ "$(uname -m)" = @MACHINE@ ] || fail "Cannot run here: this file is for @MACHINE@ and the machine is $(uname -m). Pack one on such a machine: deno task pack."
  umask 022
  mkdir -p "$base" || fail "Cannot unpack into \"$base\". Set CACHE_DIRECTORY to a directory that this user may write."
  [ -w "$base" ] || fail "Cannot unpack into \"$base\": no permission to write there. Set CACHE_DIRECTORY to a directory that this user may write."
  # One start unpacks, others wait for it; without flock all unpack and the first one wins.
  if command -v flock >/dev/null && : >>"$base/.lock" && exec 9>>"$base/.lock" && flock -w 120 9; then
    if [ -x "$dir/deno" ]; then
      exec 9>&-
      return
    fi
    rm -rf "$base"/.unpack.* "$dir"
  fi
  part=$(mktemp -d "$base/.unpack.XXXXXX") || fail "Cannot unpack into \"$base\". Set CACHE_DIRECTORY to a directory that this user may write."
  trap 'rm -rf "$part"' EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  [ "$(archive | sha256sum)" = "@SHA256@  -" ] || fail "Cannot unpack: \"$0\" is damaged (its SHA-256 is not the one it was made with). Copy it again."
  why=$({ archive | gzip -dc | tar -xf - -C "$part"; } 2>&1) || fail "Cannot unpack into \"$base\": $(echo "$why" | head -n 1). @MEBIBYTES@ MiB are needed: make room there or set CACHE_DIRECTORY to a directory with room."
  chmod 755 "$part"
  sync -f "$part" || :
  mv -T "$part" "$dir" 2>/dev/null || [ -x "$dir/deno" ] || fail "Cannot rename \"$part\" to \"$dir\". Remove \"$dir\" and start again."
  rm -rf "$part"
  trap - EXIT HUP INT TERM
  exec 9>&- || :
}

[ -f "$dir/deno" ] || unpack
[ -x "$dir/deno" ] || fail "Cannot execute \"$dir/deno\": perhaps its file system is mounted noexec. Set CACHE_DIRECTORY to a directory where programs may run."
[ -O "$dir" ] || [ -n "$(find "$dir" -maxdepth 0 -user 0)" ] || fail "Refused to run \"$dir\": it belongs to another user. Set CACHE_DIRECTORY to a directory of your own."
export DENO_DIR="$dir/deno-dir" DENO_NO_UPDATE_CHECK=1 DENO_NO_PROMPT=1
exec "$dir/deno" run -A --quiet --cached-only --no-remote --no-lock --node-modules-dir=manual --config "$dir/deno.json" "$dir/main.ts" "$@"
