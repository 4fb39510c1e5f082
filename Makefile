# Everything from a bare machine with Python 3.11 or newer, make and git. `make help` lists the targets.

PORT = 8000
API_PORT = 8001
PREFIX = demo/loras
STATE = demo/state
MODEL = demo

SEED = 1
SECONDS = 60
WORKERS = 8

UPDATES = 100000
REFRESHES = 10000
LOADS = 1000
MODULES =
SAMPLE  = 0

PYTHON = $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $$python && break; done)
DEVICE := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)

BIN       := .venv/bin
INSTALLED := .venv/.installed-$(DEVICE)

.PHONY: help run test unit e2e lint types imports bench packaging chaos vllm-contract soak docs mutants fuzz lock clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 15
	@echo 'variables of run: PORT=$(PORT) API_PORT=$(API_PORT) PREFIX=$(PREFIX) STATE=$(STATE) MODEL=$(MODEL)'

run: $(INSTALLED) $(if $(filter demo,$(MODEL)),demo/model) ## serve a demo model and a prefix to drop adapters in
	@$(BIN)/python examples/run_demo.py --model $(MODEL) --prefix $(PREFIX) --state $(STATE) \
		--port $(PORT) --api-port $(API_PORT)

test: lint types imports demo/model ## everything CI checks: lint, types, imports, all tests, coverage
	@echo '==> all tests, real vLLM and Valkey among them'
	@$(BIN)/pytest -n 2 --durations=15 --cov --cov-report=term --cov-fail-under=90

unit: $(INSTALLED) ## the tests that need no vLLM server
	@$(BIN)/pytest -n 2 -m 'not e2e and not demo'

e2e: $(INSTALLED) demo/model ## the tests against real vLLM
	@$(BIN)/pytest -m 'e2e or demo'

lint: $(INSTALLED) ## ruff: rules and format
	@echo '==> lint'
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(INSTALLED) ## mypy, strict
	@echo '==> types'
	@$(BIN)/mypy

imports: $(INSTALLED) ## which package may import which
	@echo '==> imports'
	@$(BIN)/lint-imports

bench: .venv/.installed-bench demo/model ## the benchmarks, one after another; plots go to docs/
	@for file in $(wildcard bench/*.py); do echo "==> $$file"; $(BIN)/python $$file || exit 1; done

packaging: $(INSTALLED) ## wheel, sdist and checkout, installed by pip and uv: the unit tests of each (TESTS)
	@$(BIN)/python -m tests.packaging $(TESTS)

chaos: $(INSTALLED) ## random faults while a random history is written: SEED, SECONDS, WORKERS, FAULTS
	@$(BIN)/python -m tests.chaos $(SEED) $(SECONDS) $(WORKERS) $(FAULTS)

soak: $(INSTALLED) ## an hour's events compressed (about an hour): does anything grow? UPDATES, REFRESHES, LOADS
	@$(BIN)/python -m tests.soak --updates $(UPDATES) --refreshes $(REFRESHES) --loads $(LOADS)

mutants: $(INSTALLED) ## small wrong changes to the deciding modules, and which no test notices: MODULES, SAMPLE
	@$(BIN)/python -m tests.mutants --sample $(SAMPLE) $(MODULES)

fuzz: .venv/.installed-fuzz ## hunt for inputs that break what reads them, in SECONDS; findings go to tests/fuzz/corpus
	@$(BIN)/python -m tests.fuzz $(SECONDS)

vllm-contract: $(INSTALLED) ## what we rely on in vLLM, looked up in every release since 0.26 (1 GB of downloads)
	@$(BIN)/python -m tests.vllm_releases

docs: $(INSTALLED) ## write what documents say of settings and reason codes from the code
	@$(BIN)/python -m tests.reference

lock: $(INSTALLED) ## remake requirements/cpu.txt from pyproject.toml and requirements/cpu.in
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --extra dev \
		--custom-compile-command 'make lock' --override requirements/overrides.txt pyproject.toml requirements/cpu.in \
		| grep -v "sys_platform == 'never'" > requirements/cpu.txt.new
	@mv requirements/cpu.txt.new requirements/cpu.txt

clean: ## remove the virtual environment, the demo and every cache
	rm -rf .venv demo .fuzz .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

demo/model: | $(INSTALLED)
	@$(BIN)/python examples/demo_model.py $@

.venv/.installed-cpu: pyproject.toml requirements/cpu.txt | $(BIN)/pip
	@echo '==> torch (about a minute)'
	@$(BIN)/pip install --quiet torch==2.13.0
	@echo '==> vLLM for the CPU, and everything else'
	@$(BIN)/pip install --quiet uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --no-deps -r requirements/cpu.txt || { \
		echo '==> again with pip, which knows this machine better than uv (about two minutes)'; \
		$(BIN)/pip install --quiet --no-deps -r requirements/cpu.txt; }
	@$(BIN)/pip install --quiet --no-deps -e .
	@touch $@

.venv/.installed-gpu: pyproject.toml | $(BIN)/pip
	@echo '==> vLLM for the GPU, and everything else (several minutes)'
	@$(BIN)/pip install --quiet -e '.[vllm,dev]'
	@touch $@

.venv/.installed-bench: $(INSTALLED)
	@$(BIN)/uv pip install --quiet -e '.[bench]'
	@touch $@

.venv/.installed-fuzz: $(INSTALLED)
	@$(BIN)/uv pip install --quiet -e '.[fuzz]'
	@touch $@

$(BIN)/pip:
	@test -n '$(PYTHON)' || { \
		echo 'No python3 of version 3.11 to 3.14 was found. Install one, or name it: make PYTHON=/path/to/python'; exit 1; }
	@echo '==> a virtual environment in .venv'
	@$(PYTHON) -m venv .venv
