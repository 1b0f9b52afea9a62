# Needs Python 3.11+ and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
.DEFAULT_GOAL := help

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# One stamp file for each set of dependencies: installed again when pyproject.toml changes.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Dynein needs Python 3.11 or newer; try make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)

# Where the embedded engine has no wheel (musl), moto is used instead.
$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV), once"
	@$(PIP) -e '.[engine]' || $(PIP) -e '.[moto]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV), once; about a minute"
	@$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.dev

install: $(VENV)/.test ## Create the environment, with everything the tests need

# Engines that only the tests use. Where the tool that installs one is missing, its tests are skipped with a message.
ENGINES := .engines
ENGINE_PINS := tests/engines

$(ENGINES)/npm/.installed: $(ENGINE_PINS)/package.json $(ENGINE_PINS)/package-lock.json
	@if ! command -v npm >/dev/null || ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'; then \
		echo "no fauxqs and dynalite: they need Node 20 or newer and npm"; exit 0; fi; \
	echo "installing fauxqs and dynalite into $(@D), once"; \
	mkdir -p $(@D) && cp $^ $(@D) && \
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel=error && touch $@

$(ENGINES)/elasticmq/.installed: $(ENGINE_PINS)/pom.xml
	@if ! command -v java >/dev/null || ! command -v mvn >/dev/null; then \
		echo "no ElasticMQ: it needs Java (17 is what CI has) and Maven"; exit 0; fi; \
	echo "installing ElasticMQ into $(@D), once"; rm -rf $(@D); \
	mvn -B -q -Dstyle.color=never -f $< dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(@D) && touch $@

$(ENGINES)/ministack/.installed: $(ENGINE_PINS)/ministack.txt
	@echo "installing ministack into $(@D), once"; rm -rf $(@D); $(PYTHON) -m venv $(@D) && \
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $< && touch $@

# Prometheus and promtool, unpacked from Debian's package: nothing is installed on the system, and no service starts.
$(ENGINES)/prometheus/.installed:
	@if command -v prometheus >/dev/null && command -v promtool >/dev/null; then exit 0; fi; \
	if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then \
		echo "no Prometheus: it is taken from Debian's package, which needs apt-get; or install it yourself"; exit 0; fi; \
	echo "unpacking Debian's prometheus into $(@D), once"; \
	rm -rf $(@D) && mkdir -p $(@D) && cd $(@D) && \
	{ apt-get -qq download prometheus 2>/dev/null || { apt-get -qq update && apt-get -qq download prometheus; } \
		|| { echo "no Prometheus: apt-get does not find it"; exit 0; }; } && \
	dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb && touch .installed

# libfaketime, unpacked in the same way: the clock of a process that has a wrong one.
$(ENGINES)/libfaketime/.installed:
	@if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then \
		echo "no libfaketime: it is taken from Debian's package, which needs apt-get"; exit 0; fi; \
	echo "unpacking Debian's libfaketime into $(@D), once"; \
	rm -rf $(@D) && mkdir -p $(@D) && cd $(@D) && \
	{ apt-get -qq download libfaketime 2>/dev/null || { apt-get -qq update && apt-get -qq download libfaketime; } \
		|| { echo "no libfaketime: apt-get does not find it"; exit 0; }; } && \
	dpkg-deb -x libfaketime_*.deb . && rm libfaketime_*.deb && touch .installed

engines: $(ENGINES)/npm/.installed $(ENGINES)/elasticmq/.installed $(ENGINES)/ministack/.installed $(ENGINES)/prometheus/.installed $(ENGINES)/libfaketime/.installed ## Install more SQS and DynamoDB engines, Prometheus and libfaketime, for the tests

dev: $(VENV)/.dev ## Run everything in one process and watch sample jobs arrive
	@$(BIN)/dynein dev

# Tests of real processes take most of the time and memory: more than four test files at once do not help.
test: install ## Run all tests
	@$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

lint: install ## Linters and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/dynein settings --markdown | diff -u docs/reference/settings.md - || \
		{ echo "docs/reference/settings.md is out of date: make reference"; exit 1; }
	@$(BIN)/dynein metrics | diff -u docs/reference/metrics.md - || \
		{ echo "docs/reference/metrics.md is out of date: make reference"; exit 1; }
	@$(BIN)/python -m dynein.observability.events | diff -u docs/reference/logs.md - || \
		{ echo "docs/reference/logs.md is out of date: make reference"; exit 1; }

bench: install ## Run all benchmarks (about half an hour; `make bench-quick` checks that they work)
	@$(BIN)/python -m benchmarks

bench-quick: install
	@$(BIN)/python -m benchmarks --quick --results benchmarks/results/quick

reference: install ## Regenerate what comes from the code: reference pages, dashboard, PrometheusRule
	@$(BIN)/dynein settings --markdown > docs/reference/settings.md
	@$(BIN)/dynein metrics > docs/reference/metrics.md
	@$(BIN)/python -m dynein.observability.events > docs/reference/logs.md
	@$(BIN)/python -m k8s.monitoring

clean: ## Remove the environment, the engines and their data
	@rm -rf $(VENV) $(ENGINES) .dynein

.PHONY: help install engines dev test lint bench bench-quick reference clean
