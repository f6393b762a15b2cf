# install: an environment in .venv with the pinned packages; demo: the whole loop; test: the suite; lint: ruff and mypy;
# docs: the documentation as a site; faults: kills, power cuts and crowds, round after round (15 minutes).
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install demo test docs faults lint

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) was not found; install Python 3.10 or newer, or name one: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "make: Python 3.10 or newer is needed, $$($(PYTHON) -V 2>&1) was found; name another: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no venv or ensurepip; install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e '.[dev,baselines,export,docs]'
	@touch $@
	@echo "installed: $(BIN)/drivecast --help"

demo: install
	$(BIN)/drivecast demo

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

docs: install
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --nitpicky --builder html docs docs/_build/html
	@echo "documentation: docs/_build/html/index.html"

faults: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m faults tests/faults

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
