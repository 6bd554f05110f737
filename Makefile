# make eval   set up .venv and play LIBERO-Spatial, TRIALS episodes of each task
# make test   set up .venv with the test tools; lint, check types, run the tests
# make lock   renew requirements.lock and requirements-test.lock from pyproject.toml

PYTHON ?= python3
TRIALS ?= 5
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: eval test lock clean system

eval: $(VENV)/.installed
	$(BIN)/python eval/run_libero.py --suite spatial --trials $(TRIALS)

test: $(VENV)/.test-tools
	@sh scripts/prepare_system.sh $(PYTHON) chromium pdflatex=texlive-latex-recommended
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

lock: $(VENV)/.installed
	$(BIN)/python scripts/lock.py

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find envs -name '*.nb[ci]' -delete

# The stamps are older than a changed lock, so that only a change installs again.
$(VENV)/.installed: requirements.lock requirements-libero.lock pyproject.toml | system
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV); this takes a minute or two."
	$(PIP) install -r requirements.lock
	$(PIP) install --no-deps --use-pep517 -r requirements-libero.lock
	$(PIP) install --no-deps --editable .
	@touch $@

$(VENV)/.test-tools: $(VENV)/.installed requirements-test.lock
	$(PIP) install --no-deps -r requirements-test.lock
	@touch $@

system:
	@sh scripts/prepare_system.sh $(PYTHON)
