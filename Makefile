# `make repro` and `make test` work on a fresh clone: they make .venv from requirements.lock when it is missing.
# which Python: yours (make PYTHON=python3.12), else the one that .venv was made with, else python3
MADE_WITH := $(shell sed -n 's/^executable = //p' .venv/pyvenv.cfg 2>/dev/null)
PYTHON ?= $(or $(shell command -v "$(MADE_WITH)"),python3)
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# no usage telemetry from anything started here
export MLFLOW_DISABLE_TELEMETRY = true
export DO_NOT_TRACK = true
export DVC_NO_ANALYTICS = 1
# nor advertisement
export NO_MKDOCS_2_WARNING = 1

.PHONY: help environment repro pull publish results ladder sizes frontier paper sweep check test test-slow test-results bench reruns docs ui pictures wheel lock
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

environment: .venv/.complete ## .venv with exactly the packages of requirements.lock, checked by their hashes

# It knows for which folder and which Python it was made. Moved or copied, its programs would run the code of another
# folder: then it is made anew.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
MADE_FOR := $(CURDIR) $(VERSION)
INSTALL = $(BIN)/python -m pip install --progress-bar off --root-user-action ignore --disable-pip-version-check
# a line for so many of pip's, and its end
TOLD = || echo FAILED; } | { n=0; while read -r word rest; do case $$word$$rest in \
	Collecting*|Ignoring*|Requirement*) n=$$((n + 1)); test $$((n % 25)) != 0 || echo "  $$n packages of $$of" >&2;; \
	Installingcollected*) echo "  unpacking them" >&2;; FAILED*) exit 1;; esac; done; }
KEEPS = test -f .venv/.complete && test "$$(cat .venv/.complete)" = "$(MADE_FOR)"

.venv/.complete: requirements.lock requirements-torch.lock pyproject.toml $(shell $(KEEPS) || echo anew)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, and $(PYTHON) is $(VERSION); make PYTHON=python3.12, for example")'
	@echo "making .venv: some minutes the first time" >&2
	@$(KEEPS) && $(BIN)/python -m pip --version >/dev/null 2>&1 || rm -rf .venv # also if it was not finished
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "1 of 3: the packages of requirements.lock, some minutes" >&2
	@of=$$(grep -c == requirements.lock); { $(INSTALL) --require-hashes --no-deps -r requirements.lock $(TOLD)
	@echo "2 of 3: PyTorch, a download of 200 MB or, with CUDA, of several GB" >&2
	@{ $(INSTALL) -r requirements-torch.lock $(TOLD)
	@echo "3 of 3: this project" >&2
	@{ $(INSTALL) --no-deps --no-build-isolation -e . $(TOLD)
	@echo "$(MADE_FOR)" >$@

.PHONY: anew
anew:

repro: environment ## the whole pipeline on MNIST, then the result table
	@lenet repro
	@lenet results

pull: environment ## the published runs without training: their files, the report, MLflow's record
	@lenet pull
	@lenet results

publish: environment ## put the runs of this checkout's locks into published/, for `make pull`
	@python -m tools.published

results: environment ## the result table again
	@lenet results

ladder: environment ## the effect of each change from 1998 to today, into experiments/ladder
	@lenet repro ladder

sizes: environment ## error against the number of training digits, into experiments/sizes
	@lenet repro sizes

frontier: environment ## a small network of today, into experiments/frontier (an hour)
	@lenet repro frontier

paper: environment ## the paper's own recipe and figures, into experiments/paper (two hours)
	@lenet repro paper

sweep: environment ## the studies of experiments/sweeps (it may be interrupted)
	@lenet repro --jobs 1 sweeps

check: environment docs ## lint, format, types, params.yaml, documentation
	ruff check
	ruff format --check
	mypy
	lenet check

test: environment ## the tests that take minutes
	pytest -n 2 --dist loadfile --no-loadscope-reorder -rs --durations 15

test-slow: environment ## the tests that take longer
	pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow -rs --durations 30

test-results: environment ## compare what is committed with what `make repro` has computed here
	pytest -m results -rs

bench: environment ## speed compared with baselines, into docs/explanation/performance.md (half an hour)
	python -m benchmarks --keep

reruns: environment ## rerun the published runs that are not proved yet, into tools/reruns.json (hours; it may be interrupted)
	python -m tools.reruns

docs: environment ## the documentation, into site/; a warning is an error
	mkdocs build --strict --quiet

ui: environment ## MLflow's pages on http://127.0.0.1:5000
	lenet ui

pictures: environment ## docs/pictures again, from these results and this store, with Chromium
	python tests/pictures.py

wheel: environment ## dist/lenet-*.whl
	@$(BIN)/python -m pip wheel -qq --no-deps --no-build-isolation -w dist .

lock: ## resolve pyproject.toml again, for every platform, into requirements.lock
	bash tools/lock
