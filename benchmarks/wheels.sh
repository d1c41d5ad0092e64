#!/usr/bin/env bash
# Fetches the wheels that `python -m benchmarks.accelerator` needs on a machine that has torch, transformers and their
# kin, and neither a network nor the rest of requirements.lock: into .wheels/, for CPython 3.12 on Linux x86-64.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=.wheels
most_mib=64
# With what they import; DVC is not needed.
packages="annotated-types bm25s datasets dill evaluate multiprocess pydantic pydantic-core ruamel-yaml typing-extensions
typing-inspection xxhash"
platforms=$(printf -- '--platform manylinux_%s_x86_64 ' 2_28 2_27 2_26 2_24 2_17 2_12 2_5)

# The lock file's lines of some packages, with their hashes.
locked() {
  awk "!/^ /{keep = /^($(echo $* | tr ' ' '|'))==/} keep" requirements.lock
}

rm -rf "$folder"
mkdir "$folder"
# shellcheck disable=SC2086
python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  $platforms --dest "$folder" --require-hashes --requirement <(locked $packages)
# Source only, but pure Python.
python -m pip wheel --quiet --no-deps --wheel-dir "$folder" --require-hashes --requirement <(locked seqeval)

mib=$(du -sm "$folder" | cut -f1)
if [ "$mib" -gt "$most_mib" ]; then
  echo "error: $folder holds $mib MiB; expected at most $most_mib" >&2
  exit 1
fi
echo "$folder: $(find "$folder" -name '*.whl' | wc -l) wheels, $mib MiB. On the machine, in the project's root:"
echo "python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target /tmp/site $folder/*.whl && export PYTHONPATH=/tmp/site"
