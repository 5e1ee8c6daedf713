# make retune   taxonomy to champion        make test      what CI runs
# make ui       the Dagster UI              make test-all  the long proofs as well
.PHONY: install retune ui test test-all style quality clean

PYTHON ?= python3
unexport PYTHONDONTWRITEBYTECODE  # else each of the many processes compiles the project anew
VENV := .venv
BIN := $(VENV)/bin
SUMMARY ?=

install: $(VENV)/.installed

# torch is installed first, so that a CPU build that is already there is kept. Modules are compiled by all processors, not by pip,
# which takes one. Some that libraries bring along cannot be compiled.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "Python 3.11 to 3.13 is needed; set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --no-compile $$(grep '^torch==' requirements.lock)
	$(BIN)/pip install --quiet --no-compile --no-deps --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

retune: install
	$(BIN)/lab-pipeline retune $(if $(TAXONOMY),--taxonomy "$(TAXONOMY)") $(if $(REF),--ref "$(REF)") $(if $(SUMMARY),--summary "$(SUMMARY)")

ui: install
	$(BIN)/lab-pipeline ui

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not long and not gpu" -n 2 --dist loadfile --no-loadscope-reorder

test-all: install
	$(BIN)/pytest -m "not gpu"

style: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
