# make demo: install into .venv and run the main job on a trained model.
# make test: install what the tests need and run them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT := out

.PHONY: demo test test-slow lint types format clean

demo: $(VENV)/installed
	@mkdir -p $(OUT)
	$(BIN)/tdc-deploy build train/demo/digits.onnx -o $(OUT)/digits.onnx --inputs train/demo/heldout.npz --verbose
	$(BIN)/tdc-deploy inspect $(OUT)/digits.onnx

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OUT)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/installed
