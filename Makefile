# `make serve` and `make test` do all set-up themselves; they need Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.setup-done
CONFIG ?= configs/returns_desk.yaml
FUZZ_SECONDS ?= 120

.PHONY: setup serve test test-units test-serve table bench fuzz faults lint lock clean

setup: $(SETUP)

$(SETUP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "agentflow-serve needs Python 3.11 or newer; run: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-compile \
		-r requirements.lock
	$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(SETUP)

serve: setup
	$(BIN)/agentflow serve --config $(CONFIG)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --threads 2

# Both halves at once: the first is one process that computes, the second waits for Ray and for other processes.
test: lint
	$(MAKE) --jobs=2 --output-sync=target --no-print-directory test-units test-serve

# Many hundred processes of the tests import the same modules, which are to be compiled once.
test-units test-serve table: export PYTHONDONTWRITEBYTECODE =

test-units: setup
	$(BIN)/python -m pytest -m "not serve" --ignore=tests/reliability

test-serve: setup
	$(BIN)/python -m pytest --durations=25 tests/serve tests/reliability

table: setup
	AGENTFLOW_TABLE=full $(BIN)/python -m pytest --timeout=1200 tests/table tests/serve/test_table.py tests/serve/test_examples.py

bench: setup
	PYTHONPATH=tests $(BIN)/python -m benchmarks $(BENCH)

fuzz: setup
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS) $(if $(FUZZ_REPLAY),--replay $(FUZZ_REPLAY)) $(FUZZ)

faults: setup
	PYTHONPATH=tests $(BIN)/python -m faults $(FAULTS)

lock: setup
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade --quiet -o requirements.lock

clean:
	rm -rf $(VENV) build dist
