# make app    set up and open the app
# make test   set up and run every check
# make bench  measure the speed of this machine, and write docs/speed.md (minutes)
# make bench-gpu  the same for a GPU, at SD v1.4's size (minutes)
# make bench-sd   a run on a base of SD v1.4's size on this machine's processor (half an hour, 12 GB of memory)
# make docs   build the documentation into out/site
# make torture  attack the program: kills, hostile inputs, damaged files, a full disk, many visitors (an hour)
# make model  build the default model again (hours on a CPU, minutes on a GPU)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/pip install --quiet
CARD := $(shell nvidia-smi -L 2>/dev/null)
CPU_WHEELS := https://download.pytorch.org/whl/cpu
BROWSER := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.PHONY: app test bench bench-gpu bench-sd torture lint docs venv browser model

app: venv
	$(BIN)/crce-studio

test: venv browser lint docs
	$(BIN)/python -m pytest -n auto --maxprocesses 2 --dist loadfile --no-loadscope-reorder

bench: venv browser
	$(BIN)/python -m benchmarks.instant_edit --keep
	$(BIN)/python -m benchmarks.preview --keep
	$(BIN)/python -m benchmarks.one_click --keep
	$(BIN)/python -m benchmarks.loop --keep
	$(BIN)/python -m benchmarks.start --keep
	$(BIN)/python -m benchmarks.memory --keep
	$(BIN)/python -m benchmarks.store --keep
	$(BIN)/python -m benchmarks.growth

bench-gpu: venv
	$(BIN)/python -m benchmarks.gpu --keep

bench-sd: venv
	$(BIN)/python -m benchmarks.full_size --keep

torture: venv
	$(BIN)/python -m benchmarks.torture

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

venv: $(READY)

# The package itself, with the app and what the tests need: .venv/bin/crce and .venv/bin/crce-studio run from anywhere.
# torch comes first and in its tested version. Where another build of it is wanted, install that into .venv first.
# With an NVIDIA card it is PyPI's build, which has CUDA (=== leaves out a local build without). Without a card it is the
# build for the CPU on Linux, where PyPI's would bring gigabytes of CUDA.
ifneq ($(CARD),)
TORCH := $(PIP) 'torch===2.13.0'
else ifeq ($(shell uname -s),Linux)
TORCH := $(PIP) torch==2.13.0+cpu 2>/dev/null || $(PIP) --extra-index-url $(CPU_WHEELS) torch==2.13.0+cpu || \
	(echo "No build of torch for the CPU can be reached; taking the one with CUDA." && $(PIP) torch==2.13.0)
else
TORCH := $(PIP) torch==2.13.0
endif
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || (apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV))
	$(BIN)/python -c "import torch" 2>/dev/null || $(TORCH)
	$(PIP) -c constraints.txt -e '.[dev]'
	touch $(READY)

# The tests drive a real browser: the system's Chromium, installed where apt is there and it is not.
browser:
ifeq ($(BROWSER),)
	apt-get update -qq && apt-get install -y -qq chromium
endif

model: venv
	$(BIN)/python -m assets.build all
