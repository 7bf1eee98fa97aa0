# make demo and make test each work as the first command in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Absolute, because tests start scripts elsewhere.
OPENCV4 := $(CURDIR)/$(VENV)/opencv-4.14
# Each takes up to 1 GB.
PROCESSES := --numprocesses auto --maxprocesses 4 --dist worksteal
# cv2 of another version before the environment's own on the path: one torch serves both.
WITH_OPENCV4 := PYTHONPATH="$(OPENCV4)"

.PHONY: demo test check test-opencv5 test-opencv4 campaign bench docs package clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: check test-opencv5 test-opencv4

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest tests/test_length_of_files.py

# A test computes in one thread, so that as many processes as there are cores share the tests.
test-opencv5: $(VENV)/.test
	$(BIN)/python -c "import cv2; assert cv2.__version__.startswith('5.'), cv2.__version__"
	$(BIN)/python -m pytest $(PROCESSES)

# All but training, evaluation and the commands.
OF_OPENCV4 = $(addprefix tests/, backends decoding detector export interop matching network opencv weights test_examples.py)
test-opencv4: $(VENV)/.test
	$(WITH_OPENCV4) $(BIN)/python -c "import cv2; assert cv2.__version__.startswith('4.14'), cv2.__version__"
	$(WITH_OPENCV4) $(BIN)/python -m pytest $(PROCESSES) $(OF_OPENCV4)

# Random calls, damaged files, kills and full disks; build/campaign/report.json adds up all runs.
MINUTES := 10
campaign: $(VENV)/.test
	nice -n 10 $(BIN)/python tests/campaign --minutes $(MINUTES)

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks speed
	$(BIN)/python -m benchmarks processes
	$(BIN)/python -m pytest benchmarks/test_calls.py -o addopts= --benchmark-warmup=on

# Read build/site/index.html; it needs no network. The variable quiets an advertisement.
docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

# Wheel and sdist, each in a clean environment, run the README's first lines outside the checkout.
package: $(VENV)/.test
	$(PIP) build
	$(BIN)/python tests/package.py build/package

clean:
	rm -rf $(VENV) build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --constraint constraints.txt --editable ".[examples]"
	touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --constraint constraints.txt --editable ".[dev]"
	$(PIP) --upgrade --no-deps --target "$(OPENCV4)" opencv-python==4.14.0.94
	touch $@
