# Thin targets: the same commands are `hotline demo`, `hotline serve`, … once the virtual environment exists.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test install lint format lock bench simulate soak clean

demo: install
	@$(BIN)/hotline demo $(if $(ONCE),--once) $(if $(REPORTS),--reports $(REPORTS))

test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

install: $(STAMP)

$(STAMP): requirements/dev.lock pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Writes the lock files anew; they name no index host.
lock: install
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links \
	  --no-emit-trusted-host --no-header --output-file requirements/run.lock pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links \
	  --no-emit-trusted-host --no-header --all-extras --constraint requirements/run.lock \
	  --output-file requirements/dev.lock pyproject.toml

bench: install
	$(BIN)/python -m bench

# Whole nodes on virtual time: HOURS=8 as long as wanted, or SEED=17 [KEEP=0,3] [BUG=custody-dropped] to see one history again.
simulate: install
	$(BIN)/python -m tests.simulation $(if $(HOURS),--hours $(HOURS)) $(if $(SEED),--seed $(SEED)) $(if $(KEEP),--keep $(KEEP)) \
	  $(if $(BUG),--bug $(BUG))

# Many nodes and a coordinator over TLS under faults and ceremonies for minutes; afterwards every record is accounted for.
# SEED=17 draws the same again, REPORTS_PER_S=5 hands fewer reports in.
soak: install
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10) --nodes $(or $(NODES),12) $(if $(SEED),--seed $(SEED)) \
	  $(if $(REPORTS_PER_S),--reports-per-s $(REPORTS_PER_S))

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
