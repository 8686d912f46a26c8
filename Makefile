# Every task a person runs. Needs Python >= 3.11 (with venv) and make; everything else goes into .venv.
#
#   PYTHON       the interpreter .venv is made from
#   TORCH_INDEX  an extra package index for torch alone, e.g. one with CPU-only builds
#   SLIDES, FROM_SCRATCH, GENERATOR, ENDPOINT, BUCKET, SCENARIOS, SEED, JOBS  see `make help`
#   KUBECONFIG, IMAGES, HELM, KEEP, PATIENCE, UPDATE_CRD  see k8s/README.md
#   IMAGE, ENGINE, REGISTRY, TAG, BASE_IMAGE, TORCH, PLATFORM, PIP_CONF, CA, ENGINE_ARGS  see docs/images.md

PYTHON ?= python3
TORCH_INDEX ?=
SLIDES ?=
TEST_JOBS ?= auto
FROM_SCRATCH ?=
GENERATOR ?=
IMAGE ?=
ENGINE ?=
REGISTRY ?=
TAG ?=
BASE_IMAGE ?=
TORCH ?=
PLATFORM ?=
PIP_CONF ?=
CA ?=
ENGINE_ARGS ?=
ENDPOINT ?=
BUCKET ?=
KUBECONFIG ?=
IMAGES ?=
HELM ?=
KEEP ?=
PATIENCE ?=
UPDATE_CRD ?=
SCENARIOS ?= 200
SEED ?= 0
JOBS ?= 2

VENV := .venv
PY := $(VENV)/bin/python
ROOMS := $(patsubst %/,%,$(sort $(dir $(wildcard services/*/pyproject.toml k8s/*/pyproject.toml))))
INSTALLED := $(VENV)/.installed
PIP := TMPDIR="$(CURDIR)/$(VENV)/tmp" $(PY) -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install -qq --no-compile -c constraints.txt

# Caches of the interpreter, of compiled loops and of matplotlib stay inside .venv, so that no target writes elsewhere.
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/pycache
export NUMBA_CACHE_DIR := $(CURDIR)/$(VENV)/numba
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/matplotlib

.PHONY: help install demo ranking-study images test test-store test-faults test-cluster test-images e2e chart chart-files lint format bench quality clean distclean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  make demo SLIDES=dir        the demo on your own slides'
	@echo '  make demo FROM_SCRATCH=1    the demo without the shipped generator: trains for hours'
	@echo '  make quality GENERATOR=x    one generator alone'
	@echo '  make TORCH_INDEX=url ...    look for torch in this index, too, when .venv is made'

install: $(INSTALLED) ## .venv with all rooms in it (the other targets call this)

$(INSTALLED): constraints.txt $(wildcard requirements/*.txt) $(wildcard services/*/pyproject.toml k8s/*/pyproject.toml)
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo 'make: there is no "$(PYTHON)" here. Install Python >= 3.11, or name one: make PYTHON=/path/to/python3' >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: \"$(PYTHON)\" is `"$(PYTHON)" -V 2>&1`, but Python >= 3.11 is needed. Name another: make PYTHON=python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo 'make: "$(PYTHON)" cannot make virtual environments. Install its venv package (Debian, Ubuntu: apt install python3-venv).' >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || { \
	  echo 'Making $(VENV)'; "$(PYTHON)" -m venv --clear "$(VENV)"; }
	@mkdir -p "$(VENV)/tmp"
	@echo 'Installing packages into $(VENV) (torch is large)'
	@$(INSTALL) $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") -r requirements/torch.txt
	@$(INSTALL) -r requirements/runtime.txt -r requirements/dev.txt
	@$(INSTALL) --no-deps -r requirements/apart.txt
	@$(PIP) install -qq --no-compile --no-deps --no-build-isolation $(addprefix -e ,$(ROOMS))
	@rm -rf "$(VENV)/tmp"
	@touch $@

demo: $(INSTALLED) ## the whole pipeline on a real slide; results in demo/
	@$(PY) examples/demo.py $(if $(SLIDES),--slides "$(SLIDES)") $(if $(filter-out 0,$(FROM_SCRATCH)),--from-scratch)

images: ## container images of the services and the controller; IMAGE=tiler for one
	@"$(PYTHON)" images/build.py --engine "$(ENGINE)" --registry "$(REGISTRY)" --tag "$(TAG)" \
	  --base-image "$(BASE_IMAGE)" --torch "$(TORCH)" --torch-index "$(TORCH_INDEX)" --platform "$(PLATFORM)" \
	  --pip-conf "$(PIP_CONF)" --ca "$(CA)" --engine-args "$(ENGINE_ARGS)" $(IMAGE)

test: $(INSTALLED) ## all tests, one process for each core (TEST_JOBS=n for another number)
	@$(PY) -m pytest -q -n "$(TEST_JOBS)" --maxprocesses 8 --dist loadfile

test-store: $(INSTALLED) ## the stores' tests on any S3 server: ENDPOINT=url BUCKET=name (made if it is not there), credentials as for any AWS tool
	@test -n "$(ENDPOINT)" || { echo 'make: name the server: make test-store ENDPOINT=https://host BUCKET=name' >&2; exit 1; }
	@HDGAN_TEST_ENDPOINT="$(ENDPOINT)" HDGAN_TEST_BUCKET="$(BUCKET)" $(PY) -m pytest -q tests/contract -k given_endpoint

test-faults: $(INSTALLED) ## many seeded faults, for hours; SCENARIOS=n SEED=first JOBS=at-the-same-time
	@OMP_NUM_THREADS=1 PYTHONPATH=tests:examples $(PY) -m faults --scenarios "$(SCENARIOS)" --seed "$(SEED)" --jobs "$(JOBS)"

test-cluster: $(INSTALLED) ## the controller's tests against a real cluster: KUBECONFIG=file
	@test -f "$(KUBECONFIG)" || { echo 'make: name the cluster: make test-cluster KUBECONFIG=file' >&2; exit 1; }
	@HDGAN_TEST_KUBECONFIG="$(abspath $(KUBECONFIG))" $(PY) -m pytest -q tests/cluster

test-images: $(INSTALLED) images ## make images, and run what came of it
	@HDGAN_TEST_IMAGES="$(or $(REGISTRY),localhost)" HDGAN_TEST_TAG="$(TAG)" HDGAN_TEST_ENGINE="$(ENGINE)" \
	  $(PY) -m pytest -q tests/images

e2e: $(INSTALLED) ## everything on a real cluster, in its own namespaces: KUBECONFIG=file IMAGES=registry/hdgan-%s:tag; see k8s/README.md
	@KUBECONFIG="$(if $(KUBECONFIG),$(abspath $(KUBECONFIG)))" IMAGES='$(IMAGES)' HELM="$(HELM)" KEEP="$(KEEP)" \
	  PATIENCE="$(PATIENCE)" UPDATE_CRD="$(UPDATE_CRD)" PYTHONPATH=tests:examples $(PY) -m e2e

chart: $(INSTALLED) ## the Helm chart, checked with Helm 3 and 4 (HELM=program for another) and packed into dist/
	@PYTHONPATH=tests $(PY) -m chart.files --check
	@HDGAN_NEED_HELM=1 $(PY) -m pytest -q tests/chart
	@PYTHONPATH=tests $(PY) -m chart.helms package charts/hdgan --destination dist

chart-files: $(INSTALLED) ## write what in the chart is made of models, comments and code: schema, tables, dashboards ...
	@PYTHONPATH=tests $(PY) -m chart.files

lint: $(INSTALLED) ## ruff, mypy, import-linter and hadolint
	@$(PY) -m ruff check --quiet
	@$(PY) -m ruff format --check --quiet || { echo 'Not formatted as ruff does it: make format' >&2; exit 1; }
	@$(PY) -m mypy --no-error-summary
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/hadolint services/*/Dockerfile k8s/*/Dockerfile

format: $(INSTALLED) ## format the code and sort its imports
	@$(PY) -m ruff check --quiet --select I --fix
	@$(PY) -m ruff format --quiet

bench: $(INSTALLED) ## the performance figures this project quotes
	@$(PY) benchmarks/run.py

ranking-study: $(INSTALLED) ## what ranking the candidates is worth: writes docs/ranking.json and its plot
	@$(PY) examples/ranking_study.py

quality: $(INSTALLED) ## segmentation quality of the shipped generators: writes docs/quality.md
	@$(PY) examples/quality.py $(addprefix --generator ,$(GENERATOR))

clean: ## remove demo/ (its store and dataset too) and the caches of the tools; .venv stays
	@echo 'Removing demo/, dist/ folders and the caches of pytest, mypy, ruff, import-linter, hypothesis and coverage'
	@rm -rf demo dist services/*/dist k8s/*/dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov
	@find services k8s tests examples -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	@echo 'Removing $(VENV)'
	@rm -rf "$(VENV)"
