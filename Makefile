# make serve [PORT=8321] [DATA=~/.onnxstack]   a running server
# make test [ARGS=...]                         lint, types, generated code, fast tests
# make test-all                                everything, slow tests too
# make conform URL=http://... [ARGS=...]       the conformance kit on any server
# make check | make bench | make clean

PORT ?= 8321
DATA ?= $(HOME)/.onnxstack
ARGS ?=
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
  $(if $(shell $(p) -c 'import sys; print("ok" if sys.version_info >= (3, 11) else "")' 2>/dev/null),$(p))))
TOX = .venv/bin/tox

.PHONY: serve test test-all check bench conform clean

serve: .tox/serve/installed
	@exec .tox/serve/bin/onnxstack serve --port $(PORT) --data-dir $(DATA)

test: $(TOX)
	$(TOX) run -e lint,generated,types,tests -- $(ARGS)

test-all: $(TOX)
	$(TOX) run -e lint,generated,types,tests -- --slow $(ARGS)
	$(TOX) run -e export,training,ray,gpu -- $(ARGS)

check: $(TOX)
	$(TOX) run -e lint,generated,types

conform: $(TOX)
	@test -n "$(URL)" || { echo "which server? make conform URL=http://localhost:8321" >&2; exit 4; }
	@$(TOX) run -q -e conform -- $(URL) $(ARGS)

bench: $(TOX)
	$(TOX) run -e bench -- $(ARGS)

clean:
	rm -rf .venv .tox

# Two `make serve` at once install once: the second waits and finds everything there. Without flock (macOS) start the
# first one alone.
LOCK = $(if $(shell command -v flock 2>/dev/null),flock Makefile)

# Everything that runs the server, and nothing else: no torch, no compiler.
.tox/serve/installed: $(TOX) pyproject.toml tox.ini
	@$(LOCK) sh -c 'test $@ -nt pyproject.toml && test $@ -nt tox.ini || { \
	  echo "installing the server into .tox/serve (once; about a minute)"; \
	  $(TOX) run -q -e serve --notest && touch $@; }'

$(TOX):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found (PYTHON=/path/to/python3 names one)" >&2; exit 1; }
	@$(LOCK) sh -c 'test -x $@ || { \
	  $(PYTHON) -m venv .venv || { echo "$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }; \
	  .venv/bin/python -m pip install -q "tox>=4.22,<5"; }'
