# Needs Python 3.11+ and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
.DEFAULT_GOAL := help

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# One stamp a set of dependencies: installed again when pyproject.toml changes.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Dynein needs Python 3.11 or newer; try make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)

# Where the embedded engine has no wheel (musl), moto takes its place.
$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV), once"
	@$(PIP) -e '.[engine]' || $(PIP) -e '.[moto]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV), once; about a minute"
	@$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.dev

install: $(VENV)/.test ## Make the environment, with everything the tests need

dev: $(VENV)/.dev ## Run everything in one process and watch sample jobs arrive
	@$(BIN)/dynein dev

test: install ## Run all tests
	@$(BIN)/python -m pytest -q

lint: install ## Linters and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/dynein settings --markdown | diff -u docs/reference/settings.md - || \
		{ echo "docs/reference/settings.md is out of date: make reference"; exit 1; }

reference: install ## Rewrite the reference pages that are made from the code
	@$(BIN)/dynein settings --markdown > docs/reference/settings.md

clean: ## Remove the environment and the embedded engine's data
	@rm -rf $(VENV) .dynein

.PHONY: help install dev test lint reference clean
