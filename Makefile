# Every target makes the environment it needs by itself; all it expects is Python 3.11 or later.
#   make demo                      train the built-in world's demo and write its report
#   make test PYTEST_ARGS="-k x"   the tests
#   make demo PYTHON=python3.12 VENV=.venv312    the same under another Python, in another environment

PYTHON ?= python3
VENV ?= .venv
# JAX compiles on every core, so more workers than cores only take memory. 0 runs in one process.
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input
PYTEST := $(BIN)/python -m pytest
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
READY_DEMO := $(VENV)/.ready-demo-$(PYTHON_VERSION)
READY_TEST := $(VENV)/.ready-test-$(PYTHON_VERSION)

.PHONY: demo test smoke table reward-table online-table convert-7b data decode faults flops loop pods stability views step-vs-trl gpu lint format clean
.DEFAULT_GOAL := test

demo: $(READY_DEMO)
	$(BIN)/python -m vla_jax.train --config=configs/world_lpoi.py --workdir=runs/demo

table: $(READY_DEMO)
	$(BIN)/python -m benchmarks.world_table

reward-table: $(READY_DEMO)
	$(BIN)/python -m benchmarks.reward_table

online-table: $(READY_DEMO)
	$(BIN)/python -m benchmarks.online_table

convert-7b: $(READY_DEMO)
	$(BIN)/python -m benchmarks.convert_7b

data: $(READY_TEST)
	$(BIN)/python -m benchmarks.data

decode: $(READY_TEST)
	$(BIN)/python -m benchmarks.decode

faults: $(READY_DEMO)
	$(BIN)/python -m benchmarks.faults

flops: $(READY_DEMO)
	$(BIN)/python -m benchmarks.flops

loop: $(READY_TEST)
	$(BIN)/python -m benchmarks.loop

pods: $(READY_TEST)
	$(BIN)/python -m benchmarks.pods

# 500 steps, and an error where the policy collapses; stopped, the same command goes on.
stability: $(READY_DEMO)
	$(BIN)/python -m vla_jax.train --config=configs/world_rloo.py --workdir=runs/stability \
	  --config.train.steps=500 --config.alarms.action=stop

views: $(READY_DEMO)
	$(BIN)/python -m benchmarks.views

step-vs-trl: $(READY_TEST)
	$(BIN)/python -m benchmarks.step_vs_trl

gpu: $(READY_TEST)
	$(BIN)/python -m benchmarks.gpu

# A worker that is killed fails the run; one restarted in its place would be handed no tests and waited for.
test: $(READY_TEST)
	$(PYTEST) -n $(PYTEST_WORKERS) --dist=loadfile --max-worker-restart=0 $(PYTEST_ARGS)

smoke: $(READY_TEST)
	$(PYTEST) -m smoke $(PYTEST_ARGS)

lint: $(READY_TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck --external-sources launch/*.sh .ci/run

format: $(READY_TEST)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv312 build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "runs/ is kept: it holds results. Remove it by hand."

# --- environments ------------------------------------------------------------------------------------
# A stamp says that an environment is complete; editing either file it depends on makes it old. While pip
# works, .installing holds the shell's process id: found with that process gone, the environment was left
# half-finished and is made anew.

# $(call begin,what): leave a usable, perhaps empty, environment in $(VENV), marked as under construction.
define begin
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
  echo "error: vla_jax needs Python 3.11 or later, and '$(PYTHON)' is" \
    "$$($(PYTHON) --version 2>/dev/null || echo 'not installed')." \
    "Name another: make PYTHON=/path/to/python3.11" >&2; \
  exit 1; }
@if [ -e $(VENV)/.installing ] && kill -0 "$$(cat $(VENV)/.installing)" 2>/dev/null; then \
  echo "error: process $$(cat $(VENV)/.installing) is setting up $(VENV); wait for it to end" >&2; exit 1; fi
@if [ -e $(VENV) ] && [ ! -e $(VENV)/.installing ] && [ ! -e $(VENV)/pyvenv.cfg ]; then \
  echo "error: $(VENV) exists and is no virtual environment; name another: make VENV=..." >&2; exit 1; fi
@if [ -e $(VENV) ] && { [ -e $(VENV)/.installing ] || \
    ! $(BIN)/python$(PYTHON_VERSION) -m pip --version >/dev/null 2>&1; }; then \
  echo "==> $(VENV) is half-finished or of another Python: making it anew"; rm -rf $(VENV); fi
@if [ ! -e $(VENV) ]; then \
  mkdir -p $(VENV) && echo $$PPID > $(VENV)/.installing && $(PYTHON) -m venv $(VENV); fi
@echo $$PPID > $(VENV)/.installing; rm -f $(1); echo "==> $(VENV): installing $(2)"
endef

define finish
@rm -f $(VENV)/.installing && touch $@
endef

$(READY_DEMO): requirements.txt pyproject.toml
	$(call begin,$@,what requirements.txt lists (about a minute the first time))
	@$(PIP) -r requirements.txt
	$(finish)

# torch goes in first, alone and at the release that pyproject.toml pins; where the pin does not apply, pip
# skips it.
$(READY_TEST): requirements.txt pyproject.toml
	$(call begin,$@,the library with its test tools (two minutes the first time))
	@$(PIP) "$$($(BIN)/python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["parity"])')"
	@$(PIP) -e '.[test,trl,pods]'
	$(finish)
