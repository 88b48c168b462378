# Everything is made from here; `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

$(STAMP): pyproject.toml constraints.txt interceptors/pyproject.toml generated/pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing (once, a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python tools/wheelhouse.py
	@touch $@

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: install
install: $(STAMP) ## make the environment (the other targets do it by themselves)

.PHONY: up
up: $(STAMP) ## start the broker and all services, and follow their logs; EXCEPT=orders leaves one out, PORT_OFFSET=1000 moves all ports
	@$(BIN)/shopctl up $(if $(EXCEPT),--except $(EXCEPT)) $(if $(PORT_OFFSET),--port-offset $(PORT_OFFSET)) $(ARGS)

.PHONY: demo
demo: $(STAMP) ## place a few TPC-H orders against a running mesh beside a live watch of one order
	@$(BIN)/shopctl demo $(ARGS)

.PHONY: test
test: $(STAMP) ## lint, types and all tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest $(ARGS)

.PHONY: format
format: $(STAMP) ## format code and contracts
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/buf format -w

.PHONY: generate
generate: $(STAMP) ## generate the code of the contracts
	@$(BIN)/python tools/generate.py

.PHONY: contracts
contracts: $(STAMP) ## check the contracts: format, lint, breaking changes, drift of the generated code
	@$(BIN)/python tools/contracts.py check

.PHONY: release-contracts
release-contracts: $(STAMP) ## make today's contracts the released ones; VERSION=0.2.0, needs its CHANGELOG entry
	@$(BIN)/python tools/contracts.py release $(VERSION)

.PHONY: wheels
wheels: $(STAMP) ## build the wheels accord and accord-shop-clients into dist/
	@$(BIN)/python tools/wheels.py dist

.PHONY: bench
bench: $(STAMP) ## print the figures of benchmarks/README.md; ARGS=--json for machines
	@for each in storm hedging overload call_overhead; do $(BIN)/python -m benchmarks.$$each $(ARGS) || exit 1; done
