# Needs Python 3.11+ and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# One stamp a dependency set: reinstalled when pyproject.toml changes.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Dynein needs Python 3.11 or newer; set PYTHON=python3.12, say")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (about a minute, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

install: $(VENV)/.installed ## Make the environment

dev: install ## Run everything in one process and watch sample jobs arrive
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
