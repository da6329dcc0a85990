#!/usr/bin/env bash
# Create the virtual environment and install pinned packages; say what is wrong if that fails.
set -u
venv="$1"
python="${PYTHON:-python3}"
fail() { printf '\nSetup stopped: %s\n' "$1" >&2; exit 1; }

command -v "$python" >/dev/null 2>&1 || fail "no '$python' found. Install Python 3.11 or newer (Debian: apt-get install python3 python3-venv), or name one: make setup PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || fail "$("$python" --version) is too old: 3.11 or newer is needed. Name a newer one: make setup PYTHON=python3.11"
free_mb=$(df -Pm . | awk 'NR==2 {print $4}')
[ -x "$venv/bin/python" ] || [ "$free_mb" -ge 4500 ] \
  || fail "only ${free_mb} MB free here; the environment takes about 3 GB and needs 4.5 GB while installing. Free some space, or clone to another disk."
if [ ! -x "$venv/bin/python" ]; then
  [ ! -e "$venv" ] || [ -z "$(ls -A "$venv" 2>/dev/null)" ] || [ -f "$venv/pyvenv.cfg" ] \
    || fail "$venv is there, is no virtual environment, and is not ours to replace. Move it away."
  echo "Creating $venv with $("$python" --version) (about 3 GB, 2 to 10 minutes)"
  said=$(mktemp) || fail "no temporary file can be made"
  "$python" -m venv "$venv" 2>"$said" || {
    rm -rf "$venv"
    if grep -qi "ensurepip\|python3-venv\|No module named .\?venv" "$said"; then
      fail "this Python has no working venv module. Debian and Ubuntu: apt-get install python3-venv"
    fi
    fail "$(tail -n 3 "$said")"
  }
  rm -f "$said"
fi
"$venv/bin/python" -m pip --version >/dev/null 2>&1 \
  || fail "$venv is only half made, as an interrupted setup leaves it. Remove it (rm -r $venv) and run make setup again."
log="$venv/setup.log"
: >"$log"
pip() { "$venv/bin/python" -m pip "$@" >>"$log" 2>&1; }
# Each file is held to its hash in locks/ before anything in it runs. Without --no-build-isolation pip would
# fetch what the two packages without a wheel (docs/security.md) are built with, unpinned.
locked() { pip install --quiet --require-hashes --no-deps --no-build-isolation "$@"; }
built="$venv/torch"  # pip's choice among torch's builds: a CPU one where its configuration offers that
install() {
  locked -r locks/build.txt &&
    { log=/dev/null locked --no-index -r locks/torch.txt ||  # it is here already
      { pip download --quiet --no-deps --only-binary :all: --constraint constraints.txt --dest "$built" torch &&
        locked --no-index --find-links "$built" -r locks/torch.txt && rm -rf "$built"; }; } &&
    locked -r locks/packages.txt &&
    { ! cat "$venv"/lib/python3*/site-packages/torch-*.dist-info/METADATA 2>/dev/null | grep -q '^Requires-Dist: nvidia' ||
      locked -r locks/cuda.txt; } &&
    pip install --quiet --no-deps --no-build-isolation --no-index --editable . &&
    { pip check || ! grep -q "which is not installed" "$log"; }  # by hand one may add what disagrees
}
if ! install; then
  rm -rf "$built"
  tail -n 5 "$log" >&2
  if grep -qi "No space left" "$log"; then
    fail "the disk is full. The environment needs 4.5 GB while installing."
  elif grep -q "DO NOT MATCH THE HASHES" "$log"; then
    fail "a package (named above) is not the file that locks/ knows by its sha256, and was not installed. A broken download looks like this once: run make setup again. If it stays, don't go around it: the index, or something on the way to it, hands out another file. A build of torch of your own: OTHER_BUILDS in scripts/lock.py."
  elif grep -qiE "Temporary failure in name resolution|Could not find a version that satisfies|Max retries|ConnectionError|NewConnectionError" "$log"; then
    fail "packages could not be fetched. Is there a network, and does pip reach a package index? (pip config list). Nothing else here needs a network."
  fi
  fail "pip could not install the packages; the whole log is in $log"
fi
# The official encoder's modules, for the parity tests. They share our import name, so they stay apart.
official="merlin-vlm==0.0.7 --hash=sha256:8c05937477117b037769fe9911c2bce3ad5ccf77ddbb13704e36e1a7d421eb1c"
locked --target "$venv/official" --upgrade -r <(echo "$official") \
  || echo "Note: merlin-vlm 0.0.7 could not be fetched, or is another file than its hash says; the parity tests will say so."
touch "$venv/ready"
echo "Environment ready in $venv"
