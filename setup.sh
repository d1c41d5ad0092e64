#!/usr/bin/env bash
# Make .venv, or the folder that VENV names, what requirements.lock says; where it is that already, do nothing.
# `make` calls this first. PYTHON names a Python.
set -euo pipefail
cd "$(dirname "$0")"
venv=${VENV:-.venv} log=${VENV:-.venv}/install.log

# The Python of .venv, or else the newest. Each is started: pyenv has names for versions that are not there.
candidates=${PYTHON:-$venv/bin/python python3.14 python3.13 python3.12 python3.11 python3}
# What the environment must be: the hash of the lock file (its time changes with every checkout), and the Python.
state='import hashlib, sys
if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    sys.exit(1)
print(hashlib.sha256(open("requirements.lock", "rb").read()).hexdigest(), "%d.%d" % sys.version_info[:2])'
state_of() { "$1" -c "$state" 2>/dev/null; }

wanted=
for python in $candidates; do
  wanted=$(state_of "$python") && break
done
if [ -z "$wanted" ]; then
  echo "error: no Python 3.11 to 3.14 among: $candidates; expected one, or its name: make run PYTHON=/path/to/python" >&2
  exit 1
fi
now=$(state_of $venv/bin/python) || now=
[ "$now" != "$wanted" ] || [ "$(cat $venv/installed 2>/dev/null)" != "$wanted" ] || exit 0

total=$(grep -cv -e '^#' -e '; sys_platform ==' requirements.lock)
# Not the one in the environment itself, which `make lock` has.
uv=$(type -aP uv | grep -v -e "^$venv/" -e "^$PWD/$venv/" | head -n 1) || uv=
echo "Installing about $total packages into $venv, once: Python ${wanted#* }, with ${uv:-pip}"

if [ "$now" != "$wanted" ]; then  # not there, broken, or of another Python
  if [ -n "$uv" ]; then
    "$uv" venv --quiet --seed --clear --python "$(command -v "$python")" $venv  # --seed: pip too, for what users add
  else
    "$python" -m venv --clear $venv
  fi
fi
rm -f $venv/installed

if [ -n "$uv" ]; then
  "$uv" pip install --python $venv/bin/python --requirement requirements.lock
else
  progress() {
    while sleep 5 > /dev/null 2>&1; do
      echo "  fetched $(grep -cE '^(Collecting|Processing|Requirement already)' $log)," \
        "installed $(find $venv/lib/python*/site-packages -maxdepth 1 -name '*.dist-info' | wc -l) of about $total"
    done
  }
  : > $log
  progress & trap "kill $!" EXIT
  # PEP 517: seqeval is source only, and pip's older way does not get all that its build needs.
  PYTHONUNBUFFERED=1 $venv/bin/python -m pip install --disable-pip-version-check --progress-bar off --use-pep517 \
    --requirement requirements.lock > $log 2>&1 || {
    grep -i '^ERROR' $log >&2 || tail $log >&2
    echo "error: pip could not install requirements.lock; all that it said is in $log" >&2
    exit 1
  }
fi
echo "$wanted" > $venv/installed
