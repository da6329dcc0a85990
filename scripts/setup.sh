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
if ! "$venv/bin/python" -m pip install --quiet --constraint constraints.txt --editable '.[dev]' >"$log" 2>&1; then
  tail -n 5 "$log" >&2
  if grep -qi "No space left" "$log"; then
    fail "the disk is full. The environment needs 4.5 GB while installing."
  elif grep -qiE "Temporary failure in name resolution|Could not find a version that satisfies|Max retries|ConnectionError|NewConnectionError" "$log"; then
    fail "packages could not be fetched. Is there a network, and does pip reach a package index? (pip config list). Nothing else here needs a network."
  fi
  fail "pip could not install the packages; the whole log is in $log"
fi
# The official encoder's modules, for the parity tests. They share our import name, so they stay apart.
"$venv/bin/python" -m pip install --quiet --no-deps --target "$venv/official" --upgrade merlin-vlm==0.0.7 >>"$log" 2>&1 \
  || echo "Note: merlin-vlm 0.0.7 could not be fetched; the parity tests will say so."
touch "$venv/ready"
echo "Environment ready in $venv"
