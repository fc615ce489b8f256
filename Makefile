# make demo   ghosts found, proven, closed and verified, with a summary (seconds, once installed)
# make dev    the same by hand in the Dagster UI
# make test   what CI runs
# make lint   the static part of it
# make bench  the engine's time and memory at 1,000 to 1,000,000 open trades
# make bench-serve  how fast `recon serve` answers while cycles run
# make soak   thirty simulated days of bots, mishaps and faults against the truth (half an hour; make test has a short form)
#
# Each first makes .venv from requirements.lock (pinned by hash) if it is missing or stale. Options: PYTHON=python3.12,
# ARGS='...' for what the command behind the target takes, e.g. make dev ARGS='--port 3100'.

PYTHON ?= $(shell .ci/python)
ARGS ?=
# Tests wait for servers and processes as much as they compute: more workers than two cores. Tests of one module stay together.
WORKERS ?= 4
PYTEST := -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder
BROWSER := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
PROMTOOL := $(shell command -v promtool)
# What needs a program that this machine lacks is left out, and the last lines say so.
LEFT_OUT := $(if $(BROWSER),$(if $(PROMTOOL),,not promtool),not browser$(if $(PROMTOOL),, and not promtool))
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore

.PHONY: help demo dev test lint bench bench-serve soak clean .venv .spec
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^$$/q'

demo: .venv
	@$(BIN)/python -m recon_pipeline.cli demo $(ARGS)

dev: .venv
	@$(BIN)/python -m recon_pipeline.cli up $(ARGS)

bench: .venv
	@$(BIN)/python -m benchmarks $(ARGS)

bench-serve: .venv
	@$(BIN)/python -m benchmarks.serve $(ARGS)

soak: .venv
	@$(BIN)/python -m recon_pipeline_tests.soak $(ARGS)

lint: .venv
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-cache

test: lint .spec
	@status=0; $(BIN)/python $(PYTEST) $(if $(LEFT_OUT),-m "$(LEFT_OUT)") $(ARGS) || status=$$?; \
	$(if $(BROWSER),,echo "LEFT OUT: the tests marked 'browser' (no chromium here; .ci/run installs it as root where apt-get is).";) \
	$(if $(PROMTOOL),,echo "LEFT OUT: the tests marked 'promtool' (no promtool here; .ci/run installs it as root where apt-get is).";) \
	exit $$status

# Removes what the targets above made, except the sandbox's data (.recon).
clean:
	rm -rf .venv .spec .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.venv:
	@PYTHON="$(PYTHON)" .ci/install

# The exchange's own API description, which the simulator is checked against: read by tests only, never imported.
.spec: .venv
	@PYTHON="$(PYTHON)" .ci/install spec
