# Two commands are enough for a fresh checkout: `make run` and `make test`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
STAMPS := $(VENV)/.stamps

.DEFAULT_GOAL := help
.PHONY: help run test check lint types imports storm bench wheel docs clean

help:  ## say what can be made
	@awk -F ':.*##' '/^[a-z]+:.*##/ { printf "  make %-8s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(STAMPS)/run  ## install into .venv and start the server on http://127.0.0.1:8080
	@exec $(BIN)/llamactl serve $(ARGS)

# Most tests wait for sockets and processes, so three run at once on two processors.
test: $(STAMPS)/test  ## install what the tests need and run those that this machine can run
	@$(BIN)/python -m pytest -n 3 $(ARGS)

check: lint types imports test  ## lint, types, import contracts, tests

lint: $(STAMPS)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMPS)/test
	$(BIN)/mypy --strict

imports: $(STAMPS)/test
	$(BIN)/lint-imports

storm: $(STAMPS)/test  ## random faults and kills for some twenty minutes, instead of the suite's few seconds
	@LLAMACTL_TEST_STORM=200 LLAMACTL_TEST_STORM_SECONDS=600 \
	  $(BIN)/python -m pytest tests/downloads/test_storm.py tests/instances/test_storm.py \
	  -o timeout=3600 $(ARGS)

bench: $(STAMPS)/test  ## measure llamactl beside its peers
	@$(BIN)/python -m benchmarks.startup
	@$(BIN)/python -m benchmarks.listing
	@$(BIN)/python -m benchmarks.instances
	@$(BIN)/python -m benchmarks.gateway
	@$(BIN)/python -m benchmarks.download

wheel: $(STAMPS)/venv  ## build dist/*.whl; an old build/ would ship templates that are gone
	rm -rf build dist *.egg-info
	$(PIP) wheel --no-deps --wheel-dir dist .
	rm -rf build

docs: $(STAMPS)/run  ## write anew what the documentation takes from the code
	$(BIN)/python docs/write_configuration.py > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md
	$(BIN)/python docs/write_files.py > ARCHITECTURE.md.new
	mv ARCHITECTURE.md.new ARCHITECTURE.md

clean:  ## remove .venv and everything that was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say what .venv holds, so that nothing is installed twice; a changed setup.cfg installs anew.

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "llamactl needs Python 3.10 or later; name one with: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "This Python cannot make a virtual environment. On Debian: sudo apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS)
	@touch $@

# Where no ready-made llama.cpp exists for this Python the server still runs, with a llama-server from PATH.
$(STAMPS)/run: $(STAMPS)/venv setup.cfg pyproject.toml
	@echo "Installing llamactl into $(VENV) …"
	@$(PIP) install --quiet --only-binary xllamacpp --editable '.[embedded]' || \
	  { echo "No embedded llama.cpp for this Python: llamactl will need llama-server on PATH." >&2; \
	    $(PIP) install --quiet --editable .; }
	@touch $@

$(STAMPS)/test: $(STAMPS)/venv setup.cfg pyproject.toml
	@echo "Installing llamactl and what its tests need into $(VENV) …"
	@$(PIP) install --quiet --editable '.[test]'
	@touch $@
