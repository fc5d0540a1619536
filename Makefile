# Every target sets itself up: a system python3 (3.11 or later) is all it needs. Run any of them again at any time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The environment is as old as the files that define it.
STAMP := $(VENV)/stamp-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
export PYTHONUNBUFFERED := 1

.PHONY: help demo test check check-full bench bench-decode drill clean
help:
	@echo "make demo   regenerate two ablation tables from generated videos (about 6 minutes on 2 cores, after installing)"
	@echo "make test   run the tests"
	@echo "make check  lint, format, types, import floors, studies"
	@echo "make check-full  one real training step of every model at its paper's size (minutes)"
	@echo "make bench  measure; results go to benchmarks/results"
	@echo "make bench-decode  reading videos: the pack against torchcodec, decord, OpenCV and ffmpeg (minutes)"
	@echo "make drill  strike faults at a cluster of hosts in namespaces (root, Linux)"

$(VENV): $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "retable needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V). Set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing into $(VENV) (PyTorch is several GB: minutes)"
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian, apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@rm -f $(VENV)/stamp-* && touch $@

demo: $(VENV)
	@$(BIN)/retable data generate motions-ucf101
	@$(BIN)/retable run studies/msfnet.yaml --tables table2 --tables table3 --seeds 2

test: $(VENV)
	@$(BIN)/python -m pytest -n auto --dist loadgroup

check: $(VENV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/retable lint studies/*.yaml

check-full: $(VENV)
	@$(BIN)/python benchmarks/full_size.py

bench-decode: $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]' \
	  || echo "without the libraries to compare with that cannot be installed here"
	@$(BIN)/python benchmarks/decode.py

bench: $(VENV)
	@for bench in benchmarks/*.py; do echo "$$bench"; $(BIN)/python $$bench || exit 1; done

drill: $(VENV)
	@$(BIN)/python -m tests.cluster.drills

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
