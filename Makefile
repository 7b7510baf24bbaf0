# make demo: install into .venv and run the main job on a trained model.
# make test: install what the tests need and run them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT := out
CPP := $(shell find plugins -name "*.h" -o -name "*.cpp" -o -name "*.cu" -o -name "*.cuh" -o -name "*.c")

SANITIZED := build/sanitized

.PHONY: demo test test-slow test-python test-kernels test-sanitized lint types format clean

demo: $(VENV)/installed
	@mkdir -p $(OUT)
	$(BIN)/tdc-deploy build train/demo/digits.onnx -o $(OUT)/digits.onnx --inputs train/demo/heldout.npz --verbose
	$(BIN)/tdc-deploy inspect $(OUT)/digits.onnx

test: test-kernels test-python

test-python: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest

# The CUDA kernels and the TensorRT plugin, run on the CPU: needs CMake and a C++ compiler, no GPU. Without nvcc what it
# would make of the kernels is not tested, and without a network the plugin not in TensorRT's own registry.
test-kernels: $(VENV)/installed-dev
	@if command -v cmake >/dev/null && command -v c++ >/dev/null; then \
		cmake -S . -B build -DPython3_EXECUTABLE=$(abspath $(BIN)/python) >/dev/null && \
		cmake --build build --parallel 2 >/dev/null && \
		ctest --test-dir build --parallel 2 --output-on-failure; \
	else echo "no CMake or no C++ compiler: the tests of the CUDA kernels were not run"; fi

# The same under AddressSanitizer, UndefinedBehaviorSanitizer and LeakSanitizer.
test-sanitized: $(VENV)/installed-dev
	cmake -S . -B $(SANITIZED) -DTDC_SANITIZE=ON -DTDC_GATE_ARCHITECTURES= \
		-DPython3_EXECUTABLE=$(abspath $(BIN)/python) >/dev/null
	cmake --build $(SANITIZED) --parallel 2 >/dev/null
	ctest --test-dir $(SANITIZED) --parallel 2 --output-on-failure

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP)

types: $(VENV)/installed-dev
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

clean:
	rm -rf $(VENV) $(OUT) build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/installed
