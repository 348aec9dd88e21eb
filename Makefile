# The commands of this project; `make` alone lists them.

# An interpreter that has everything already: `make demo PYTHON=python3` installs nothing. Empty: .venv is made once.
PYTHON ?=
PY := $(or $(PYTHON),.venv/bin/python)
READY := $(if $(PYTHON),,.venv/.installed)
RUNS := $(if $(PYTHON),,.venv/.runs)
FULL := $(if $(PYTHON),,.venv/.full)
DOCS := $(if $(PYTHON),,.venv/.docs)
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --editable
SLURM := slurmctld slurmd sbatch munged

.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE # the tests start hundreds of processes, and each would compile our modules anew
.PHONY: help venv demo docs test test-full test-matrix lint slurm-packages browser-packages clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: .venv/.installed ## Make .venv with everything that a developer needs

# Debian's python3 may come without ensurepip; its pip can install into the new environment instead.
.venv/bin/python:
	python3 -m venv .venv || { python3 -m venv --clear --without-pip .venv && python3 -m pip --python .venv/bin/python install pip; }

# What runs need, and after that what the tests need besides: each is installed once, and again when pyproject.toml changes.
.venv/.runs: pyproject.toml | .venv/bin/python
	@echo "Installing what runs need into .venv: this takes some minutes and needs the network. Only problems are shown."
	$(PIP) .
	touch $@

.venv/.installed: .venv/.runs
	@echo "Installing what tests and linters need into .venv. Only problems are shown."
	$(PIP) '.[dev]'
	touch $@

# What only the long tests need: every tracker, and the generator of the pages.
.venv/.full: .venv/.installed
	@echo "Installing every tracker and the generator of the pages into .venv. Only problems are shown."
	$(PIP) '.[trackers,docs]'
	touch $@

.venv/.docs: .venv/.runs
	$(PIP) '.[docs]'
	touch $@

docs: $(DOCS) ## Build the pages as a site in build/site, without a network; a broken link is an error
	$(PY) -m sphinx --fail-on-warning --keep-going --quiet -b html -c docs/site docs build/site

demo: $(RUNS) ## Train a small model on this machine and show that it learned
	$(PY) -m launcher train recipe=demo

# A file of tests goes to one worker. Ranks and jobs wait for each other, so there is a worker more than cores; WORKERS=1 runs one file after another.
# What measures GPUs needs them alone.
WORKERS := $(shell expr $$(nproc) + 1)
PYTEST := $(PY) -m pytest --durations=20
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(PYTEST) --require=distributed,slurm,browser --numprocesses=$(WORKERS) --maxprocesses=8 --dist=loadfile --no-loadscope-reorder
ON_GPUS := $(PYTEST) tests/gpu

test: lint slurm-packages browser-packages ## Check everything that a submission must pass
	$(SIDE_BY_SIDE) -m "not (long or gpu)"
	$(ON_GPUS) -m "gpu and not long"

test-full: $(FULL) lint slurm-packages browser-packages ## The same, and the tests that take minutes
	$(SIDE_BY_SIDE) -m "not gpu"
	$(ON_GPUS) -m "gpu"

test-matrix: $(READY) ## Every stage x regime x sharding on two ranks, four groups at a time; for a machine of 8 cores or more
	$(PY) tests/distributed/stage_matrix.py 4

lint: $(READY) ## Check format, style, types and the directions of imports
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -c "from importlinter.cli import lint_imports_command as lint; lint()"

slurm-packages: ## Install Slurm's daemons for the tests, when root on Debian and they are absent
	@for program in $(SLURM); do command -v $$program > /dev/null || missing="$$missing $$program"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge; \
	else echo "Absent:$$missing. As root on Debian: make slurm-packages"; fi

browser-packages: ## Install Chromium for the tests of the board, when root on Debian and it is absent
	@if command -v chromium > /dev/null || command -v google-chrome > /dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; \
	else echo "Absent: chromium. As root on Debian: make browser-packages"; fi

clean: ## Remove what was built; runs in outputs/ stay
	rm -rf build *.egg-info .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
