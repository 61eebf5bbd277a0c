# make venv   set everything up in .venv (a second call does nothing)
# make demo   generate a small release, train on it, evaluate, and make a page of results
# make test   formatting, linting and all tests
# make coverage   all tests, and the lines of the package that they run
#
# PYTHON=python3.12 chooses the interpreter, VENV=dir the place of the environment,
# CONSTRAINTS=file the versions.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
DEMO ?= demo
DEMO_ARGS ?=
# One worker a core; -n 0 runs all tests in one process.
PYTEST_ARGS ?= --numprocesses auto --dist loadfile

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The opencv-python wheel needs libGL and glib of the system; the headless one does not.
# A2D_D2_OPENCV=opencv-contrib-python has TV-L1 flow as well.
OPENCV_PROBE := import ctypes; [ctypes.CDLL(n) for n in ("libGL.so.1", "libgthread-2.0.so.0")]
export A2D_D2_OPENCV ?= $(shell $(PYTHON) -c '$(OPENCV_PROBE)' 2>/dev/null \
	&& echo opencv-python || echo opencv-python-headless)

.PHONY: venv demo test coverage lint clean

venv: $(STAMP)

$(STAMP): setup.py $(CONSTRAINTS) tools/install_detectron2.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed; set PYTHON=..." >&2; exit 1; }
	@# Debian splits venv's own pip off; the interpreter's pip can put it there.
	$(PYTHON) -m venv $(VENV) 2>/dev/null || { $(PYTHON) -m venv --without-pip $(VENV) \
		&& $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(CONSTRAINTS) --editable '.[dev]'
	$(BIN)/python tools/install_detectron2.py
	@touch $@
	@echo "Environment ready: $(VENV)"

demo: venv
	$(BIN)/python tools/demo.py --output $(DEMO) $(DEMO_ARGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

coverage: venv
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	$(BIN)/coverage json --quiet -o output/coverage.json
	@echo "Take the figures over: $(BIN)/python tools/update_readme.py --coverage output/coverage.json"

clean:
	rm -rf $(VENV) $(DEMO) output *.egg-info .pytest_cache .ruff_cache .coverage*
