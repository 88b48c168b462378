# Everything is made from here; `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# Tests wait for brokers and processes most of the time: three at once keep two cores busy.
JOBS ?= 3
# A test that hangs says where, and ends the run: the longest takes two minutes.
HANGS := -o faulthandler_timeout=900
# What pytest ends with when what ARGS name has no such tests.
NONE := 5
# Hundreds of processes are started: each finds its modules compiled.
export PYTHONDONTWRITEBYTECODE :=
STAMP := $(VENV)/installed

$(STAMP): pyproject.toml constraints.txt interceptors/pyproject.toml contracts/pyproject.toml runtime/pyproject.toml generated/pyproject.toml tests/contracts/export/node/package-lock.json
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing (once, a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python tools/offline_packages.py
	@touch $@

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: install
install: $(STAMP) ## make the environment (the other targets do it by themselves)

.PHONY: up
up: $(STAMP) ## start the broker and all services, and follow their logs; EXCEPT=orders leaves one out, PORT_OFFSET=100 moves all ports
	@$(BIN)/shopctl up $(if $(EXCEPT),--except $(EXCEPT)) $(if $(PORT_OFFSET),--port-offset $(PORT_OFFSET)) $(ARGS)

.PHONY: demo
demo: $(STAMP) ## place a few TPC-H orders against a running mesh beside a live watch of one order
	@$(BIN)/shopctl demo $(ARGS)

.PHONY: test
test: $(STAMP) ## lint, types and all tests; JOBS=3 files at once, and what needs the machine alone after them
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder --max-worker-restart=0 \
		$(HANGS) -o faulthandler_exit_on_timeout=true -m 'not alone' $(ARGS) || test $$? = $(NONE)
	@$(BIN)/pytest -m alone $(ARGS) || test $$? = $(NONE)

LOWEST := $(VENV)/lowest
$(LOWEST)/installed: constraints-lowest.txt interceptors/pyproject.toml
	@test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -r constraints-lowest.txt -e 'interceptors[testing,xds,edge]'
	@touch $@

# OpenTelemetry before 1.45 logs a baggage entry without a value; its instrumentation of gRPC before
# 0.66 cannot be told that a call is recorded already. Protobuf before 7.36 names no field of a value
# that is nested too deeply.
.PHONY: lowest
lowest: $(LOWEST)/installed ## the library's tests on the lowest versions of what it needs
	@PYTHONPATH=.:runtime $(LOWEST)/bin/pytest tests/accord --quiet --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder --max-worker-restart=0 $(HANGS) \
		--ignore-glob='*/test_instrumentation.py' --ignore=tests/accord/test_figures.py \
		--deselect tests/accord/telemetry/test_propagation.py::test_only_what_can_be_read_is_parsed \
		--deselect 'tests/accord/edge/test_transcoding.py::test_a_bad_body_is_refused[a bomb of values]' $(ARGS)

.PHONY: chaos
chaos: $(STAMP) ## the tests that kill processes and brokers, at full length (an hour and more)
	@CHAOS=full $(BIN)/pytest tests/chaos tests/services/{payments,shipping}/test_interleaving.py $(ARGS)

.PHONY: faults
faults: $(STAMP) ## full disks, wrong clocks, frozen processes and the like, at full length (half an hour); LENGTH=short
	@FAULTS=$(or $(LENGTH),full) $(BIN)/pytest tests/faults $(ARGS)

.PHONY: rotation
rotation: $(STAMP) ## certificates that live for seconds are replaced three times each under 300 calls a second and open streams (some minutes)
	@ROTATION=full $(BIN)/pytest -rP tests/accord/xds/test_rotation.py tests/security/test_rotation.py $(ARGS)

.PHONY: pictures
pictures: $(STAMP) ## take the picture of the console anew, with chromium (a minute)
	@PYTHONPATH=. $(BIN)/python -m tests.console.pictures

.PHONY: abuse
abuse: $(STAMP) ## the attacks of docs/abuse.md, half a minute each
	@ABUSE=30 $(BIN)/pytest tests/abuse $(ARGS)

$(VENV)/installed-mutants: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutants]'
	@touch $@

N ?= 12
SEED ?= 1
.PHONY: mutants
mutants: $(VENV)/installed-mutants ## small changes that no test notices; N=12 of each module of tools/mutants.toml, SEED=1, MODULES="breaker work/"
	@nice -n 19 $(BIN)/python tools/mutants.py --count $(N) --seed $(SEED) $(MODULES)

WHEELS := tests/contracts/corpus/wheels.txt
CORPUS := $(VENV)/corpus
$(CORPUS)/installed: $(WHEELS) | $(STAMP)
	@rm -rf $(CORPUS)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target $(CORPUS) -r $(WHEELS)
	@touch $@

.PHONY: corpus
corpus: $(CORPUS)/installed ## check and export contracts that nobody here wrote, of 15 wheels (some minutes); prints sizes and times
	@CORPUS=$(CORPUS) $(BIN)/pytest tests/contracts/corpus --quiet --capture=no $(ARGS)

.PHONY: format
format: $(STAMP) ## format code and contracts
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/buf format -w

.PHONY: generate
generate: $(STAMP) ## generate the code of the contracts
	@$(BIN)/python tools/generate.py

.PHONY: contracts
contracts: $(STAMP) ## check the contracts: format, lint, breaking changes, generated code, both directions against the last release, exports
	@$(BIN)/python tools/contracts.py check
	@$(BIN)/python tools/contracts.py try

.PHONY: release-contracts
release-contracts: $(STAMP) ## make today's contracts the released ones; VERSION=0.3.0, needs its CHANGELOG entry
	@$(BIN)/python tools/contracts.py release $(VERSION)

EXPORT := $(BIN)/accord contracts export
EXPORTS := dist/contracts
IMAGE := $(EXPORTS)/contracts.protoset
.PHONY: exports
exports: $(STAMP) ## write the contracts for other tools into dist/contracts/: gRPC, Envoy, OpenAPI, AsyncAPI, grpcurl, browser
	@$(EXPORT) protoset -o $(IMAGE)
	@$(EXPORT) service-config $(IMAGE) -o $(EXPORTS)/service-config.json
	@$(EXPORT) service-config $(IMAGE) --no-timeouts -o $(EXPORTS)/service-config.core.json
	@$(EXPORT) envoy $(IMAGE) -o $(EXPORTS)/envoy-routes.json
	@$(EXPORT) asyncapi $(IMAGE) --title "Events of the shop" --release $$($(BIN)/python -c 'from importlib.metadata import version; print(version("accord-shop"))') -o $(EXPORTS)/asyncapi.json
	@$(EXPORT) openapi $(IMAGE) --title Shop --release $$($(BIN)/python -c 'from importlib.metadata import version; print(version("accord-shop"))') -o $(EXPORTS)/openapi.json
	@$(EXPORT) prometheus-rules $(IMAGE) -o $(EXPORTS)/prometheus-rules.json
	@$(EXPORT) grafana-dashboard $(IMAGE) -o $(EXPORTS)/grafana-dashboard.json
	@$(EXPORT) reference $(IMAGE) --title "Contracts of the shop" -o $(EXPORTS)/reference.html
	@echo "wrote into $(EXPORTS)/ (docs/exports.md shows how each is used):"
	@printf '  %-25s %s\n' \
		service-config.json "gRPC clients in Node, Java, Go: timeouts and retries" \
		service-config.core.json "the same for C++, Ruby, PHP: retries only" \
		envoy-routes.json "Envoy: routes, timeouts, retries" \
		openapi.json "callers outside: REST, as OpenAPI 3.1" \
		asyncapi.json "the events, as AsyncAPI 3" \
		prometheus-rules.json "Prometheus: alerts" \
		grafana-dashboard.json "Grafana: a dashboard" \
		contracts.protoset "grpcurl -protoset" \
		reference.html "people: open it in a browser"

.PHONY: wheels
wheels: $(STAMP) ## build the wheels accord, accord-checks, accord-runtime and accord-shop-clients into dist/
	@$(BIN)/python tools/wheels.py dist

BENCHMARKS := ready storm hedging overload probes deadline kills backends call_overhead without_options mtls idle \
	order_cpu order_parts fulfilment sagas growth edge watchers console
SHORT_ready := --rounds 1 --settle 1
SHORT_storm := --calls 400
SHORT_hedging := --calls 1000
SHORT_overload := --seconds 2
SHORT_probes := --repetitions 10
SHORT_deadline := --calls 500
SHORT_kills := --kills 5 --messages 500
SHORT_backends := --seconds 3 --before 1
SHORT_call_overhead := --rounds 8 --calls 200
SHORT_without_options := --rounds 8 --calls 200
SHORT_mtls := --rounds 4 --calls 200 --connections 10
SHORT_idle := --seconds 2 --settle 1
SHORT_order_cpu := --orders 20 --warm 10
SHORT_order_parts := --times 100
SHORT_fulfilment := --alone 5 --crowd 8 --rounds 1
SHORT_sagas := --rounds 1 --sagas 64 --databases sqlite
SHORT_edge := --rounds 2 --calls 50
SHORT_watchers := --watchers 100 --seconds 2
SHORT_console := --seconds 2 --settle 1
SHORT_growth := --events 6000 --open-orders 500 --pairs 3

$(VENV)/installed-bench: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

.PHONY: bench
bench: $(VENV)/installed-bench ## print the figures of benchmarks/README.md (about half an hour); ARGS=--json for machines
	@for each in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$each $(ARGS) || exit 1; done

.PHONY: bench-short
bench-short: $(VENV)/installed-bench ## the same in two minutes: whether they run, not what they say
	@$(foreach each,$(BENCHMARKS),$(BIN)/python -m benchmarks.$(each) $(SHORT_$(each)) $(ARGS) &&) true
