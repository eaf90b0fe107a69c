# Every target starts from nothing: a fresh clone, Python 3.11 or later, make and git.
# A second run does not install again: the stamps below are newer than what they depend on.

PYTHON ?= python3
VENV := .venv
DETECTION := .venv-detection
DEPLOY := .venv-deploy
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ARGS ?=
# Not empty: the tests also say what of the code they reach, and take half as long again; CI does.
COVERAGE ?=

# An empty environment but for what is needed: a developer's settings must not decide a test.
# And compiled modules are kept: pytest takes ten seconds of each of its processes to compile its own.
CLEAN := env -u REDIS_URL -u TELNYX_API_KEY -u TELNYX_PUBLIC_KEY -u SLACK_WEBHOOK_URL \
	-u PYTHONDONTWRITEBYTECODE

# What builds the image: `docker buildx build --load`, `podman build`, … work as well.
BUILDER ?= docker build
IMAGE ?= tollwatch

.PHONY: setup demo run test bench bench-detection chaos fuzz audit lint types imports pytest format lock \
	docs clean help \
	image image-lint image-test deploy-lint

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 20

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "tollwatch needs Python 3.11 or later; set PYTHON=/path/to/python3")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: requirements/demo.txt pyproject.toml | $(VENV)/bin/python
	$(PIP) --require-hashes -r requirements/demo.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.demo
	$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

setup: $(VENV)/.demo ## Set up .venv with what running and demonstrating need

demo: setup ## Watch the whole product against a simulated Telnyx and Slack (ARGS=--once: a short script)
	@$(CLEAN) $(BIN)/python -m tests.world.demo $(ARGS)

run: setup ## The real service, web and worker, in one terminal; settings from .env
	@$(BIN)/python -m tests.world.local $(ARGS)

test: lint types imports pytest ## Every check: format, lint, types, import contracts, tests (COVERAGE=1)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

pytest: $(VENV)/.dev
	$(CLEAN) $(BIN)/python -m pytest --numprocesses 3 --dist worksteal \
		$(if $(COVERAGE),--cov --cov-report term) $(ARGS)

bench: $(VENV)/.dev ## The benchmarks, as a table with ratios
	@$(CLEAN) $(BIN)/python -m tests.bench $(ARGS)

$(DETECTION)/.installed: requirements/detection.txt
	$(PYTHON) -m venv $(DETECTION)
	$(DETECTION)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# One thread for each: the libraries would take all cores for matrices of nine columns.
bench-detection: $(VENV)/.demo $(DETECTION)/.installed ## How well anomalies are found, beside other ways (minutes)
	@$(CLEAN) OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1 \
		$(DETECTION)/bin/python -m tests.bench.detection $(ARGS)

fuzz: $(VENV)/.dev ## Some 200,000 made-up requests and conversations for the public port
	$(CLEAN) HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest tests/fuzz $(ARGS)

chaos: $(VENV)/.dev ## Two minutes of every fault at once, and an accounting (ARGS="--minutes 20 --seed N")
	@$(CLEAN) $(BIN)/python -m tests.chaos $(ARGS)

audit: ## Known vulnerabilities in what the service runs with (STRICT=1: fail if it cannot be told)
	@$(PYTHON) -m tests.audit

image: ## Build the image (BUILDER="buildah build", IMAGE=name, ARGS="--build-arg BASE_IMAGE=…")
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BUILDER) \
		--build-arg VERSION=$$(sed -n 's/__version__ = "\(.*\)"/\1/p' service/__init__.py) \
		--build-arg REVISION=$$(git rev-parse HEAD) --tag $(IMAGE) $(ARGS) .

# An environment of its own: the binary is large, and nothing else needs it.
$(VENV)-image/.hadolint: requirements/image.txt
	$(PYTHON) -m venv $(VENV)-image
	$(VENV)-image/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

image-lint: $(VENV)-image/.hadolint ## Lint the Dockerfile
	$(VENV)-image/bin/hadolint Dockerfile

image-test: $(VENV)/.dev ## Build the image twice, compare, start and measure it (ARGS=--quick: once)
	@$(CLEAN) $(BIN)/python -m tests.image $(ARGS)

# Another one: Kubernetes' schemas and checkov are 0.4 GB, and ask for older versions of what we use.
$(DEPLOY)/.installed: requirements/deploy.txt
	$(PYTHON) -m venv $(DEPLOY)
	$(DEPLOY)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

deploy-lint: $(VENV)/.dev $(DEPLOY)/.installed ## Check the manifests by schemas and checkov, the rules by promtool
	@$(CLEAN) $(BIN)/python -m tests.deploy $(ARGS)

format: $(VENV)/.dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## Write the README's settings table anew from the code
	@$(BIN)/python -m tests.settings_table

# No index address may get into these files: they hold names, versions and hashes.
# Extras are kept: without them an older pip looks for the newest version of what has some, and fails.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-find-links $(ARGS)

lock: | $(VENV)/bin/python ## Pin the dependencies anew (ARGS=--upgrade: at their newest)
	$(PIP) uv
	$(COMPILE) pyproject.toml -o requirements/run.txt
	$(COMPILE) pyproject.toml --group demo -c requirements/run.txt -o requirements/demo.txt
	$(COMPILE) pyproject.toml --group dev -c requirements/demo.txt -o requirements/dev.txt
	$(COMPILE) --group pyproject.toml:image -o requirements/image.txt
	$(COMPILE) --group pyproject.toml:deploy -o requirements/deploy.txt
	$(COMPILE) pyproject.toml --group detection -c requirements/dev.txt -o requirements/detection.txt

clean: ## Remove what the targets made, but for ./data
	rm -rf $(VENV) $(VENV)-audit $(VENV)-image $(DETECTION) $(DEPLOY) .image .deploy build/detection .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .import_linter_cache .coverage .coverage.*
