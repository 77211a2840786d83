# Each target sets up what it needs in .venv; none needs root. Works with GNU make 3.81 (macOS) and any POSIX sh.

VENV = .venv
BIN = $(VENV)/bin

.PHONY: demo test test-editors lint clean

demo: $(VENV)/.ready
	@$(BIN)/fimble demo

test: $(VENV)/.ready-dev
	$(BIN)/python -m pytest tests --ignore tests/editors --reruns 1

# In the real programs, where a window may lose a key: what fails is tried again, and the summary says so.
# Installs what is missing of them; Debian's packages need root.
test-editors: $(VENV)/.ready-dev
	$(BIN)/python -m pytest tests/editors --reruns 2

lint: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: everything to run fimble, and on top of it everything to change it.

$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	@$(CHECK_VENV)
	@echo "Installing fimble and its libraries into $(VENV). The first time this takes minutes: torch is large."
	@$(INSTALL); install -c constraints.txt -e .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@echo "Installing the tools for tests and checks into $(VENV)."
	@$(INSTALL); if has_pip; then install --upgrade "pip>=25.1"; fi # the first that knows --group
	@$(INSTALL); install -c constraints.txt --group dev
	@touch $@

$(BIN)/python:
	@$(CREATE_VENV)

# Pieces of shell. A virtual environment made by uv has no pip.

RECENT = import sys; sys.exit(sys.version_info < (3, 11))

define INSTALL
has_pip() { $(BIN)/python -m pip --version >/dev/null 2>&1; }; \
install() { \
  if has_pip; then $(BIN)/python -m pip install --quiet "$$@"; \
  else uv pip install --quiet --python $(BIN)/python "$$@"; fi; \
}
endef

define CHECK_VENV
$(INSTALL); \
if ! $(BIN)/python -c '$(RECENT)'; then \
  echo "fimble: $(VENV) was made with $$($(BIN)/python --version 2>&1), but fimble needs Python 3.11 or newer." >&2; \
  echo "Run 'make clean', which removes $(VENV), then make again." >&2; \
  exit 1; \
fi; \
if ! has_pip && ! command -v uv >/dev/null 2>&1; then \
  echo "fimble: $(VENV) has no pip; was its creation interrupted?" >&2; \
  echo "Run 'make clean', which removes $(VENV), then make again." >&2; \
  exit 1; \
fi
endef

# A name on the PATH may be a stub that runs nothing, and Debian's python3 may lack ensurepip: so each is tried.
define CREATE_VENV
if [ -e $(VENV) ]; then \
  echo "fimble: $(VENV) has no working Python; the one that made it may be gone." >&2; \
  echo "Run 'make clean', which removes $(VENV), then make again." >&2; \
  exit 1; \
fi; \
for python in python3.13 python3.12 python3.11 python3 python; do \
  if $$python -c 'import ensurepip, venv; $(RECENT)' >/dev/null 2>&1; then \
    echo "Creating $(VENV) with $$python ($$($$python --version))."; \
    exec $$python -m venv $(VENV); \
  fi; \
done; \
if command -v uv >/dev/null 2>&1; then \
  echo "Creating $(VENV) with uv and Python 3.11."; \
  exec uv venv --quiet --python 3.11 $(VENV); \
fi; \
echo "fimble needs Python 3.11 or newer (with its modules venv and ensurepip), or uv, and found neither." >&2; \
echo "Any one of these brings it; then open a new shell and run make again:" >&2; \
echo "  anywhere, without root   curl -LsSf https://astral.sh/uv/install.sh | sh   (uv then fetches a Python)" >&2; \
echo "  macOS with Homebrew      brew install python@3.13" >&2; \
echo "  Debian, Ubuntu           sudo apt install python3 python3-venv" >&2; \
echo "  Fedora                   sudo dnf install python3" >&2; \
echo "  an installer             https://www.python.org/downloads/" >&2; \
exit 1
endef
