# The verbs of the README. Everything runs in .venv, which these rules make and keep up to date. Another Python has an
# environment of its own: make unit PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3
ARGS ?=
TESTS ?= tests/unit tests/integration tests/faults tests/soak
HOURS ?= 1
# Tests beside each other: most of them wait, for sockets, edges of periods and processes, more than they compute; the
# unit tests compute.
WORKERS ?= 4
UNIT_WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.run
DEV := $(VENV)/.dev
READY := $(VENV)/.ready

# The tests start thousands of processes; without its compiled files each of them would compile the recorder again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo run dev unit deps lacking test faults campaign reliability soak bench performance test-deploy pins release release-check lint clean

help:
	@echo "make demo   record the bundled exchange simulator for a while and prove every file (offline)"
	@echo "make run    record the live exchange; ARGS='--config my.toml --duration 60s' is handed on"
	@echo "make dev    install for changing the code: no ClickHouse engine; CONTRIBUTING.md goes on from there"
	@echo "make unit   the unit tests, within a minute on two cores; says what it leaves to make test"
	@echo "make deps   install what the tests need of the machine: a ClickHouse server, tor, gcc, chromium (Debian, Ubuntu)"
	@echo "make test   lint, types, imports, unit and integration tests; says first what the machine lacks for them"
	@echo "make test-deploy  the roles and the whole system on test hosts of this machine (root; SCENARIOS='default' picks)"
	@echo "make faults  break the recorder in every known way, at most 20 minutes"
	@echo "make campaign  the same at length, hours; goes on where it was stopped"
	@echo "make reliability  write docs/reliability.md from the campaign's results"
	@echo "make soak   record for HOURS=1 at 200 frames/s a symbol, sample memory, handles, threads, disk; writes docs/soak.md"
	@echo "make bench  measure the recorder beside what it is compared with, below 10 minutes; ROWS='export read' picks"
	@echo "make performance  write docs/performance.md and its tables from the results kept there; RESULTS=reports/bench.json keeps new ones"
	@echo "make release VERSION=1.2.3  make this checkout that version: number, changelog's heading, fixture of its data; then commit"
	@echo "make release-check  build wheel and sdist into dist/, run the demo from the wheel, list its parts (SBOM)"
	@echo "make lint   the same without the tests"
	@echo "make clean  remove .venv and caches; recorded data is left alone"

demo: $(RUN)
	$(BIN)/mexc-pipeline demo $(ARGS)

run: $(RUN)
	$(BIN)/mexc-pipeline run $(ARGS)

dev: $(DEV)

# Fewer examples of each property, and neither slow tests nor those of the embedded engine; its last lines count them.
unit: $(DEV)
	$(BIN)/python -m pytest -q -n $(UNIT_WORKERS) --dist worksteal --hypothesis-profile=quick -m "not slow and not engine" tests/unit $(ARGS)

deps:
	$(PYTHON) tests/support/machine.py --install

lacking:
	@$(PYTHON) tests/support/machine.py

test: lacking $(READY) lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

test-deploy: .venv-deploy/.ready
	tests/deploy/run $(SCENARIOS)

# Both are seeded and can be stopped at any time; campaign goes on where it was stopped.
faults: $(READY)
	PYTHONPATH=tests $(BIN)/python -m faults campaign --sample --out reports/faults $(ARGS)

campaign: $(READY)
	PYTHONPATH=tests $(BIN)/python -m faults campaign --out reports/campaign $(ARGS)

reliability: $(READY)
	PYTHONPATH=tests $(BIN)/python -m faults report --out reports/campaign

# Ctrl-C ends it early and judges what there is.
soak: $(READY)
	PYTHONPATH=tests $(BIN)/python -m soak run --hours $(HOURS) --docs docs $(ARGS)

# Needs Debian's clickhouse-server, as the tests do. ARGS: --quick to try it, --long for the hour of 10 million rows.
bench: .venv-bench/.ready
	PYTHONPATH=.:tests .venv-bench/bin/python -m bench $(ROWS) $(ARGS)

performance: $(READY)
	PYTHONPATH=.:tests $(BIN)/python -m bench.page $(if $(RESULTS),--results $(RESULTS))

# The hashes of all files that app/constraints.txt stands for, and of what builds the wheel.
PINS = .venv-pins/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options
pins:
	@test -x .venv-pins/bin/pip-compile || { $(PYTHON) -m venv .venv-pins && .venv-pins/bin/pip install --quiet --disable-pip-version-check pip-tools==7.6.2; }
	$(PINS) --constraint app/constraints.txt --output-file .venv-pins/requirements.txt app/pyproject.toml
	echo "chdb-core" | $(PINS) --constraint app/constraints.txt --output-file .venv-pins/embedded-requirements.txt -
	echo "setuptools" | $(PINS) --output-file .venv-pins/build-requirements.txt -
	{ sed -n '/^#/p' app/requirements.txt; grep -Ev '^(#.*)?$$' .venv-pins/requirements.txt; } > .venv-pins/new && mv .venv-pins/new app/requirements.txt
	{ sed -n '/^#/p' app/build-requirements.txt; grep -Ev '^(#.*)?$$' .venv-pins/build-requirements.txt; } > .venv-pins/new && mv .venv-pins/new app/build-requirements.txt
	{ sed -n '/^#/p' app/embedded-requirements.txt; awk '/^[^ ]/ {keep = /^chdb-core==/} keep' .venv-pins/embedded-requirements.txt; } > .venv-pins/new && mv .venv-pins/new app/embedded-requirements.txt

# What is left to do is a commit; once that is on main, the hosted workflow makes tag and upload from it.
release: $(RUN)
	tests/release/release.py prepare "$(VERSION)"
	$(BIN)/python tests/formats/make.py --source app/src tests/fixtures/formats/$(VERSION)
	@echo "this is $(VERSION): look at the changes and CHANGELOG.md, commit, make release-check"

release-check: .venv-release/.ready
	PYTHON=$(PYTHON) tests/release/check

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv .venv-* dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Installing is slow, so it happens only when what is to be installed has changed, and each verb installs what it needs.
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.11" >&2; exit 1; }
@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo "Python's venv module is needed (Debian: apt install python3-venv)" >&2; exit 1; }
$(BIN)/python -m pip install --disable-pip-version-check -r $<
@touch $@
endef

$(RUN): requirements/run.txt app/constraints.txt app/pyproject.toml
	$(install)

$(DEV): requirements/dev.txt app/constraints.txt app/pyproject.toml
	$(install)

$(READY): requirements.txt requirements/run.txt requirements/dev.txt app/constraints.txt app/pyproject.toml
	$(install)
	@touch $(RUN) $(DEV)

# The deployment's tools have an environment of their own: they are large and the recorder needs none of them.
.venv-deploy/.ready: tests/deploy/requirements.txt
	@test -x .venv-deploy/bin/python || $(PYTHON) -m venv .venv-deploy || { rm -rf .venv-deploy; echo "Python's venv module is needed (Debian: apt install python3-venv)" >&2; exit 1; }
	.venv-deploy/bin/python -m pip install --disable-pip-version-check -r tests/deploy/requirements.txt
	@touch $@

# The peers of the bench are of no use to anything else.
.venv-bench/.ready: bench/requirements.txt app/constraints.txt app/pyproject.toml
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench || { rm -rf .venv-bench; echo "Python's venv module is needed (Debian: apt install python3-venv)" >&2; exit 1; }
	.venv-bench/bin/python -m pip install --disable-pip-version-check -r bench/requirements.txt
	@touch $@

.venv-release/.ready: requirements/release.txt app/build-requirements.txt
	@test -x .venv-release/bin/python || $(PYTHON) -m venv .venv-release || { rm -rf .venv-release; echo "Python's venv module is needed (Debian: apt install python3-venv)" >&2; exit 1; }
	.venv-release/bin/python -m pip install --disable-pip-version-check --require-hashes -r app/build-requirements.txt
	.venv-release/bin/python -m pip install --disable-pip-version-check -r requirements/release.txt
	@touch $@
