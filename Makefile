# packtwin: make run, then open http://localhost:5001. `make help` lists the rest.
# Needs Python >= 3.11 with venv, and make. Everything else is fetched into .venv, checked against requirements.lock.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: setup run status logs stop psql cloud vcan replay-i3 retrain champion test test-all fuzz check bench bench-models smoke lock clean help

PY := .venv/bin/python
RUN := $(PY) deploy/local/run.py
# Installed for this place: an editable install in a checkout that has moved would still mean the old one.
STAMPS := .venv/stamps-$(shell pwd | cksum | cut -d' ' -f1)
LOCKED := pyproject.toml requirements.lock deploy/local/install.py
PAGE := cloud/web/dist/index.html
PAGE_SOURCES := $(shell find cloud/web -maxdepth 1 -type f 2>/dev/null; find cloud/web/src cloud/web/public -type f 2>/dev/null)
# What measures times of whole processes has the machine to itself.
ALONE := e2e or browser
FAST := not slow and not e2e and not browser and not root
BENCHES = $(filter-out %/bench_models.py, $(wildcard tests/benchmarks/bench_*.py))
# The tools of a test see the project's own Python only, whatever shell this is called from.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

setup: $(STAMPS)/run $(PAGE) ## install what make run needs

run: setup ## start everything on this machine; Ctrl-C ends it; STACK=full: with Kafka, MQTT, MLflow, Prometheus ...
	@$(RUN) run

status: $(STAMPS)/run ## what runs, where, asked now
	@$(RUN) status

logs: $(STAMPS)/run ## all logs in one stream (N=20 lines of each first)
	@$(RUN) logs $(or $(N),20)

stop: $(STAMPS)/run ## end what runs
	@$(RUN) stop

psql: $(STAMPS)/run ## psql on the running database; `make -s psql < query.sql`
	@$(RUN) psql

cloud: $(STAMPS)/run ## a command of the cloud on the running database: ARGS="pack list"
	@$(RUN) with database -- $(PY) -m cloud $(ARGS)

vcan: ## create virtual CAN buses vcan0 vcan1 vcan2, where the kernel has them
	@sh deploy/local/vcan 3

replay-i3: setup ## real BMW i3 trips through agent, uplink and database: DATA=folder
	@test -n "$(DATA)" || { echo "packtwin: say where the trips are: make replay-i3 DATA=../shared/data/bmw_i3_trips" >&2; exit 2; }
	@$(RUN) with database,api -- $(PY) deploy/local/replay_i3.py "$(DATA)"

retrain: $(STAMPS)/train $(PAGE) ## train on the database and simulated lives, publish what is better; FORCE=1 in any case
	@$(RUN) with database,api -- $(PY) deploy/local/retrain.py $(if $(FORCE),--force)

champion: $(STAMPS)/train ## make the model that ships anew: cloud/champion
	@$(PY) deploy/local/champion.py

test: $(STAMPS)/dev $(PAGE) ## unit and contract tests (minutes)
	@$(PY) -m pytest -q -n auto -m "$(FAST)" $(ARGS)

test-all: $(STAMPS)/dev $(PAGE) ## every test there is, also slow ones, browser and kill -9
	@sh deploy/local/chromium
	@$(PY) -m pytest -q -n auto --dist worksteal -m "not ($(ALONE))" $(ARGS)
	@$(PY) -m pytest -q -m "$(ALONE)" $(ARGS)

fuzz: $(STAMPS)/dev ## a million wrong frames for each decoder of a BMS (long); WRITE=1: the result into docs/reference/fuzz.md
	@$(PY) tests/bms_fuzz.py $(if $(WRITE),--write docs/reference/fuzz.md) $(ARGS)

check: $(STAMPS)/dev $(PAGE) ## ruff, mypy strict, import-linter, tsc
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@MYPYPATH=deploy/local $(PY) -m mypy deploy/local/*.py
	@MYPYPATH=deploy/grafana $(PY) -m mypy deploy/grafana/*.py
	@.venv/bin/lint-imports
	@$(PY) deploy/local/page.py check

bench: $(STAMPS)/dev $(PAGE) ## every benchmark, one after the other; the numbers of docs come from here
	@failed=""; for bench in $(BENCHES); do echo "== $$bench"; $(PY) $$bench || failed="$$failed $$bench"; done; \
	test -z "$$failed" || { echo "packtwin: failed:$$failed" >&2; exit 1; }

bench-models: $(STAMPS)/train ## how good the models are: simulated packs, and real cells with DATA=../shared/data (long)
	@$(PY) tests/benchmarks/bench_models.py $(DATA)

smoke: $(STAMPS)/dev $(PAGE) ## build the wheel and start every command from fresh venvs, one per extra
	@$(PY) deploy/local/smoke.py

lock: $(STAMPS)/dev ## write requirements.lock anew from pyproject.toml
	@$(PY) deploy/local/install.py lock

clean: ## remove what was built and installed; the data in .local only with DATA=1
	@test ! -e .local/run/state.json || { echo "packtwin: runs here or was killed; 'make stop' first" >&2; exit 2; }
	@rm -rf .venv build dist *.egg-info cloud/web/dist cloud/web/build cloud/web/node_modules .mypy_cache .ruff_cache .pytest_cache \
	  .hypothesis .import_linter_cache htmlcov .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@test "$(DATA)" != 1 || { hot=$$(printf %s "$$(realpath .local)" | sha256sum | cut -c1-12); \
	  test -z "$$hot" || rm -rf "/dev/shm/packtwin-$$(id -u)/$$hot"; \
	  case $$(readlink .local/pg) in /var/lib/packtwin/*/pg) rm -rf "$$(dirname "$$(readlink .local/pg)")";; esac; \
	  rm -rf .local; }

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

.venv/bin/python:
	@python=$$(deploy/local/find-python) && rm -rf .venv && "$$python" -m venv .venv

$(STAMPS)/run: $(LOCKED) | .venv/bin/python
	@mkdir -p $(STAMPS)
	@test -e $(STAMPS)/run -o -e $(STAMPS)/dev -o -e $(STAMPS)/train || echo "packtwin: installing (about a minute, once)"
	@$(PY) deploy/local/install.py run
	@touch $@

$(STAMPS)/train: $(LOCKED) | .venv/bin/python
	@mkdir -p $(STAMPS)
	@test -e $(STAMPS)/dev || echo "packtwin: installing what training needs (about a minute, once)"
	@$(PY) deploy/local/install.py train
	@touch $@ $(STAMPS)/run

$(STAMPS)/dev: $(LOCKED) | .venv/bin/python
	@mkdir -p $(STAMPS)
	@$(PY) deploy/local/install.py dev
	@touch $@ $(STAMPS)/run $(STAMPS)/train

$(PAGE): $(PAGE_SOURCES) deploy/local/page.py | $(STAMPS)/run
	@$(PY) deploy/local/page.py build
	@touch $@
