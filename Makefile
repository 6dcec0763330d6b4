# make demo    everything set up, then the main job on the built-in phantom (VIEW=0: no viewer)
# make test    everything set up, then every check and test
# make setup   .venv with everything that the two need; quick when nothing has changed
# make lint    the checks without the tests
# make sbom    build/sbom.json: everything that is installed in .venv (CycloneDX)
# make audit   known weaknesses in it; asks the network
# make clean   what builds, checks and runs left behind; .venv stays
#
# PYTHON names the interpreter that makes .venv: make setup PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint sbom audit clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e ".[train,web,cohort,dicom,dev]"
	touch $@

demo: setup
	$(BIN)/nexusinr demo

test: lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

build/tools/bin/%:
	$(PYTHON) -m venv build/tools
	build/tools/bin/python -m pip install --quiet cyclonedx-bom pip-audit

sbom: setup build/tools/bin/cyclonedx-py
	build/tools/bin/cyclonedx-py environment $(BIN)/python -o build/sbom.json

audit: setup build/tools/bin/pip-audit
	build/tools/bin/pip-audit --path $$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")

clean:
	rm -rf build demo-output runs .coverage .hypothesis .import_linter_cache \
		.mypy_cache .pytest_cache .ruff_cache NexusINR/*.egg-info
	find NexusINR Testing -name __pycache__ -prune -exec rm -rf {} +
