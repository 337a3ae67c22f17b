PYTHON ?= python3
PORT ?= 8000
STAMP := .venv/.installed

.PHONY: install serve test lint clean

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

lint: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/mypy

clean:
	rm -rf .venv build dist *.egg-info
