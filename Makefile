# `make` lists the targets.
PYTHON ?= python3
VENV := .venv
# DVC runs `python` of the PATH, whichever one dvc itself runs under.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help run test lint check results docs lock
help:   ## list the targets
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

# DVC keeps its records in Git, and DVCLive wants a commit to stand on.
.PHONY: committed
committed:
	@git rev-parse --quiet --verify HEAD >/dev/null 2>&1 || { \
	  echo 'error: no Git commit here; expected a clone, or: git init && git add . && git commit -m "Start"' >&2; exit 1; }

run: committed $(VENV)/installed   ## set up, then run the pipeline of params.yaml: a trained, evaluated, exported model
	@python -m finetrail.params
	@dvc repro
	@python -m finetrail.reporting

test: $(VENV)/installed   ## set up, then run all tests
	@OMP_NUM_THREADS=1 python -m pytest -q --numprocesses auto --dist loadfile

lint: $(VENV)/installed   ## ruff and mypy
	@ruff check .
	@ruff format --check .
	@mypy

check: $(VENV)/installed   ## validate params.yaml and every recipe, without running anything
	@python -m finetrail.params

results: $(VENV)/installed   ## run every recipe that needs no network, and keep its metrics file in docs/results
	@python docs/results.py
	@python docs/tables.py

docs: $(VENV)/installed   ## write the results, benchmarks and keys into the documents
	@python docs/tables.py

lock: $(VENV)/installed   ## write requirements.lock from what is installed
	@pip freeze --exclude-editable | sed 's/^torch==\(.*\)+.*/torch==\1/' > requirements.lock

# Everything at pinned versions. PEP 517: seqeval is source only, and pip's older way does not get all that its build needs.
$(VENV)/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and \
	  f"error: Python {sys.version.split()[0]}; finetrail is locked for 3.11: make {sys.argv[1]} PYTHON=python3.11")' '$(MAKECMDGOALS)'
	@echo "Installing the pinned packages into $(VENV): about two minutes, once."
	@$(PYTHON) -m venv $(VENV)
	@pip install --quiet --disable-pip-version-check --use-pep517 --requirement requirements.lock
	@touch $@
