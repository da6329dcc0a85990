#!/usr/bin/env bash
# Run a command where no network is: bash scripts/offline.sh COMMAND…
# A network namespace of its own has one interface, the loopback, which Jupyter's kernels talk through.
# Linux alone; the command runs as root of a user namespace that owns nothing but its caller's files.
set -eu
in_namespace=(unshare --user --map-root-user --net)
"${in_namespace[@]}" true 2>/dev/null || {
  echo "Not run: no network namespace can be made here (unshare -rn true fails), as in many containers, on macOS and where user namespaces are switched off. Try another Linux machine." >&2
  exit 1
}
exec "${in_namespace[@]}" bash -c '
  "$0" -c "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack(\"16sh14x\", b\"lo\", 1))"
  echo "Network interfaces: $(tail -n +3 /proc/net/dev | cut -d: -f1 | xargs)"
  exec "$@"' "${PYTHON:-.venv/bin/python}" "$@"
