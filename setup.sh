#!/usr/bin/env bash
# Install what requirements.lock says into .venv, or the folder that VENV names; where that is done already, do nothing.
# Each file that is installed has a hash in the lock files, or is refused; a build of torch of its own has none there.
# `make` calls this first. PYTHON names a Python.
set -euo pipefail
cd -P "$(dirname "$0")"
venv=${VENV:-.venv} log=${VENV:-.venv}/install.log

# The Python of .venv, or else the newest. Each is started: pyenv has names for versions that are not there.
candidates=${PYTHON:-$venv/bin/python python3.14 python3.13 python3.12 python3.11 python3}
# What the environment must be: the hash of the lock files (their time changes with every checkout), and the Python.
state='import hashlib, sys
if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    sys.exit(1)
locks = b"".join(open(name, "rb").read() for name in ("requirements.lock", "requirements-cuda.lock"))
print(hashlib.sha256(locks).hexdigest(), "%d.%d" % sys.version_info[:2])'
state_of() { "$1" -c "$state" 2>/dev/null; }

for lock in requirements.lock requirements-cuda.lock; do
  [ -f $lock ] || { echo "error: $lock is missing; expected it from Git: git checkout $lock" >&2; exit 1; }
done
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

# Not the one in the environment itself, which `make lock` has.
uv=$(type -aP uv | grep -v -e "^$venv/" -e "^$PWD/$venv/" | head -n 1) || uv=
total=$(grep -E '^[a-z0-9-]+==' requirements.lock | grep -cv '; sys_platform ==')
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
  install() {
    "$uv" pip install --python $venv/bin/python "$@" || {
      echo 'error: uv could not install requirements.lock; "Hash mismatch": that file is not the one that was locked' >&2
      exit 1
    }
  }
  torch_to_come() {
    "$uv" pip install --python $venv/bin/python --no-deps --dry-run "$1" 2>&1 | sed -nE 's/^ \+ torch==//p'
  }
else
  pip="$venv/bin/python -m pip --disable-pip-version-check install"
  install() {
    # PEP 517: pip's older way of building does not know what a build needs.
    PYTHONUNBUFFERED=1 $pip --progress-bar off --use-pep517 "$@" >> $log 2>&1 || {
      grep -i '^ERROR' $log >&2 || tail $log >&2
      sed -nE '/DO NOT MATCH/,/^$/s/^ +([^ ]+) from .*/  the file of \1 is not the one that was locked/p' $log >&2
      echo "error: pip could not install requirements.lock; all that it said is in $log" >&2
      exit 1
    }
  }
  torch_to_come() {
    local version='import json, sys; print(*(new["metadata"]["version"] for new in json.load(sys.stdin)["install"]))'
    $pip --quiet --no-deps --dry-run --report - "$1" 2>> $log | $venv/bin/python -c "$version" 2>> $log
  }
  progress() {
    while sleep 5 > /dev/null 2>&1; do
      echo "  fetched $(grep -cE '^(Collecting|Processing|Requirement already)' $log)," \
        "installed $(find $venv/lib/python*/site-packages -maxdepth 1 -name '*.dist-info' | wc -l) of about $total"
    done
  }
  : > $log
  progress & trap "kill $!" EXIT
fi

# The lock has the hashes of the public index. A build of torch with a version of its own, such as 2.13.0+cpu, comes from an
# index or a folder that this machine names, and none of them from the public one.
cuda='--requirement requirements-cuda.lock' own=
torch=$(grep -oE '^torch==[0-9.]+' requirements.lock) || cuda=
build=$([ -z "$torch" ] || torch_to_come "$torch") || build=
there='from importlib.metadata import version; print(version("torch"))'
[ -n "$build" ] || build=$($venv/bin/python -c "$there" 2> /dev/null) || build=
case $build in *+*)
  echo "  torch $build: not from the public index, so without a hash in requirements.lock"
  install --no-deps "$torch"
  own=$torch cuda= ;;
esac

# Nothing but what the files name: they are complete. Two packages have no wheels. They are built with setuptools of the lock,
# since a build that is isolated fetches it unhashed.
part() { awk "!/^ /{keep = $1/^(antlr4-python3-runtime|seqeval)==/} keep" requirements.lock; }
# shellcheck disable=SC2086  # $cuda is two words, or none
install --no-deps --require-hashes --requirement <(part !) $cuda
install --no-deps --require-hashes --no-build-isolation --requirement <(part '')
# What such a build of torch needs beyond the lock: nothing for CPUs, libraries for other versions of CUDA, or for ROCm.
[ -z "$own" ] || install "$own"
echo "$wanted" > $venv/installed
