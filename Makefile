# lookalike: set-up, demo, tests. `make` alone prints the list.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
TRAIN_STAMP := $(VENV)/installed-train
PIP := pip install -qq --no-input --disable-pip-version-check
EXTRAS := dev,postgresql,evaluate,lite2,parquet,bench

IMAGES ?= ops/demo/photos
SERVE ?= 1
ARGS ?=
ROUNDS ?= 1000
MINUTES ?= 60

.PHONY: help setup demo caffe test drill lint format lock clean

help: ## Print this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## Make .venv and install lookalike with all it needs

demo: $(STAMP) ## Ingest photos, search, write a contact sheet, serve (IMAGES=DIR, SERVE=0)
	@$(BIN)/lookalike demo --images "$(IMAGES)" $(if $(filter 0,$(SERVE)),--no-serve)

caffe: $(STAMP) ## Build pycaffe, once for this machine, and install it into .venv
	@$(BIN)/python -m ops.caffe

test: $(TRAIN_STAMP) ## Install what the tests need, where allowed, and run them (ARGS='-k name')
	@ops/install_test_deps.sh
	@$(BIN)/pytest $(ARGS)

drill: $(STAMP) ## Kill stores at work, over and over, and look what is left (ROUNDS=20)
	@$(BIN)/python -m ops.drill --rounds $(ROUNDS) --minutes $(MINUTES)

lint: $(STAMP) ## Check format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(STAMP) ## Format the code and apply the safe fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: python ## Rewrite constraints.txt with the newest versions that pyproject.toml allows
	@echo "Resolving into a fresh environment"
	@rm -rf build/lock
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/$(PIP) --upgrade setuptools
	@build/lock/bin/$(PIP) --no-build-isolation -e '.[$(EXTRAS),caffe,train]'
	@{ echo "# What the tests ran with. Written by \`make lock\`; used by \`make setup\`."; \
	   build/lock/bin/pip freeze --all --exclude pip --exclude-editable \
	   | sed 's/+cpu$$//'; } > constraints.txt
	@rm -rf build/lock
	@git --no-pager diff --stat -- constraints.txt

clean: ## Remove .venv, the demo's data and every cache
	@rm -rf $(VENV) .demo build *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt store/kernels.c | python
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages of constraints.txt; the first time they are downloaded"
	@$(BIN)/$(PIP) -c constraints.txt --upgrade setuptools
	@$(BIN)/$(PIP) -c constraints.txt --no-build-isolation -e '.[$(EXTRAS)]'
	@touch $@
	@echo "Ready: $(BIN)/lookalike"

$(TRAIN_STAMP): $(STAMP)
	@echo "Installing PyTorch, which the tests of training need"
	@$(BIN)/$(PIP) -c constraints.txt --no-build-isolation -e '.[train]'
	@touch $@

.PHONY: python
python:
	@command -v $(PYTHON) > /dev/null || { \
	    echo "$(PYTHON) was not found; run: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "lookalike needs Python 3.11 or newer and $(PYTHON) is $$($(PYTHON) --version)." >&2; \
	    echo "Name another one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments; run: apt-get install python3-venv" >&2; \
	    exit 1; }
