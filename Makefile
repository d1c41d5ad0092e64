# `make` lists the targets.
VENV ?= .venv
export VENV
# DVC runs `python` of the PATH, whichever one dvc itself runs under.
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: help run join paper try test test-fast lint check results table docs site lock audit sbom
help:   ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

# DVC keeps its records in Git, and DVCLive needs a commit.
.PHONY: committed
committed:
	@git rev-parse --quiet --verify HEAD >/dev/null 2>&1 || { \
	  echo 'error: no Git commit here; expected a clone, or: git init && git add . && git commit -m "Start"' >&2; exit 1; }

run: committed installed   ## set up, then run the pipeline of params.yaml: a trained, evaluated, exported model
	@python -m finetrail.mend --records
	@python -m finetrail.check
	@dvc repro
	@python -m finetrail.exporting
	@python -m finetrail.reporting

join: installed   ## after `git pull`: get the results that a teammate pushed; it never trains
	@python -m finetrail.join

# The paper's two steps; the first is left out if its experiment exists already.
paper: committed installed   ## Sun et al. 2019 on IMDb: pre-train further on its texts, then classify; on a GPU
	@dvc exp list --all-commits --name-only | grep --quiet --line-regexp imdb-paper-adapted \
	  || dvc exp run --name imdb-paper-adapted -S task=masked_lm -S recipe=imdb-paper
	@dvc exp run -S task=text_classification -S recipe=imdb-paper

try: installed   ## a page to try the model in data/exported, with examples from the test split; on this machine alone
	@python -m finetrail.demo

# Test files run in their order, not those with many tests first: the slowest files have few tests and would run last.
test: installed   ## set up, then run the tests, without those that CI alone runs
	@OMP_NUM_THREADS=1 python -m pytest -q --numprocesses auto --dist loadfile --no-loadscope-reorder

# Without what takes seconds: stages, processes, exporters, browsers; tests/conftest.py recognizes them by the imports of a file.
test-fast: installed   ## the tests that take milliseconds each: under a minute, for the inner loop
	@OMP_NUM_THREADS=1 python -m pytest -q --numprocesses auto --dist loadfile --no-loadscope-reorder --fast

lint: installed   ## ruff and mypy
	@ruff check .
	@ruff format --check .
	@mypy

check: installed   ## validate params.yaml, all recipes, dvc.lock and DVC remotes, and run nothing
	@python -m finetrail.check

results: installed   ## run every recipe that needs no network, and keep its record in docs/results
	@python docs/results.py
	@python docs/tables.py

# DVC (3.67) shows every dependency and every setting that a stage reads, and no configuration file can change that. A name with
# a slash is a dependency, or a setting that two recipes share; another corpus or base model is another recipe, which is a column.
table: installed   ## all experiments, their scores and the settings in which they differ; FLAGS go to dvc exp show
	@dvc exp show --only-changed --keep test --drop '.*/|(corpus|model|evaluate|export)\.' $(FLAGS)

docs: installed   ## write the results, benchmarks, keys and licences into the documents, and the schemas for editors
	@python docs/tables.py
	@python docs/schemas.py
	@python docs/licenses.py

# Versions stay as they are, unless pyproject.toml refuses them; FLAGS=--upgrade takes the newest ones, and
# FLAGS='--upgrade-package NAME' one package's. pyproject.toml says what is left out of the first file, and why: the second
# has what torch needs beyond it. Hashes are those of every file that the index has of a version.
COMPILE = env -u UV_TORCH_BACKEND uv pip compile --quiet --universal --python-version 3.11 --no-annotate --generate-hashes \
  --custom-compile-command 'make lock' $(FLAGS)
lock: installed   ## write requirements*.lock from pyproject.toml, with hashes, one file for every Python
	@$(COMPILE) --all-extras --output-file requirements.lock pyproject.toml
	@echo torch | $(COMPILE) --no-config --constraint requirements.lock --output-file requirements-cuda.lock \
	  $$(sed -nE 's/^([a-z0-9-]+)==.*/--no-emit-package \1/p' requirements.lock) -
	@for group in audit docs; do $(COMPILE) --no-config --constraint requirements.lock \
	  --output-file requirements-$$group.lock --group $$group || exit 1; done

# Tools have environments of their own, since nothing that trains needs them: tools-NAME makes .scratch/NAME from
# requirements-NAME.lock.
tools-%: installed
	@mkdir -p .scratch
	@uv venv --quiet --allow-existing .scratch/$*
	@uv pip sync --quiet --require-hashes --python .scratch/$*/bin/python requirements-$*.lock

site: tools-docs   ## build the documentation in site/, without warnings; site/index.html opens without a network
	@.scratch/docs/bin/python docs/site.py

# Both read the lock files, not what is installed.
AUDIT = .scratch/audit
LOCKED = requirements.lock requirements-cuda.lock
audit: tools-audit   ## ask OSV for known vulnerabilities of all locked packages; it needs a network, FLAGS go to pip-audit
	@$(AUDIT)/bin/pip-audit --disable-pip --progress-spinner off --vulnerability-service osv $(FLAGS) \
	  $(LOCKED:%=--requirement %) 2> $(AUDIT)/log || { if grep --quiet '^Traceback' $(AUDIT)/log; then \
	  echo 'error: nothing was audited: the service did not answer, or not as OSV does:' "$$(tail -n 1 $(AUDIT)/log)" >&2; \
	  else cat $(AUDIT)/log >&2; fi; exit 1; }

sbom: tools-audit   ## write sbom.json (CycloneDX) from the lock files; equal lock files give equal bytes
	@cat $(LOCKED) | PYTHONWARNINGS=ignore $(AUDIT)/bin/cyclonedx-py requirements --pyproject pyproject.toml \
	  --output-reproducible --output-format JSON --output-file sbom.json -

# .venv as requirements.lock says, with the newest Python that is supported and here, or with PYTHON.
.PHONY: installed
installed:
	@PYTHON='$(PYTHON)' bash setup.sh
