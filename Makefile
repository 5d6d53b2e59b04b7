# make demo · make test · make interpret · make sanitize · make simt · make bench · make lint: each creates .venv and builds the extension if that is needed.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SOURCES := $(shell find csrc -type f) CMakeLists.txt setup.py pyproject.toml constraints.txt

.PHONY: demo test interpret sanitize simt bench lint clean

demo: $(VENV)/.ready
	$(RUN) demo/run.py

test: $(VENV)/.ready
	$(RUN) -m pytest -n 2

# Triton's kernels as Python on the CPU. Finite differences, which take thousands of calls, are left out: e3nn has the
# derivatives to second order, and each of higher order is one of these operators again.
interpret: $(VENV)/.ready
	TRITON_INTERPRET=1 NEQUIP_FAST_TEST_KERNELS=triton $(RUN) -m pytest -n 2 tests/kernels \
	  tests/ops/test_conv.py tests/ops/test_gate.py tests/ops/test_radial.py tests/ops/test_segment_sum.py \
	  tests/ops/test_spherical_harmonics.py tests/ops/test_tensor_product.py \
	  tests/engine/test_hermite.py tests/engine/test_rows.py tests/engine/test_on_device.py \
	  -k 'not finite_differences and not float32_per_instruction'

# The CPU kernels without torch on awkward problems: as shipped, with arrays that end at forbidden pages; then under
# AddressSanitizer and UndefinedBehaviorSanitizer; then under ThreadSanitizer. About four minutes on two cores.
sanitize: $(VENV)/.ready
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" bash tests/csrc/driver/run.sh

# The CUDA kernels compiled for the CPU under AddressSanitizer and UndefinedBehaviorSanitizer, in the operators' own tests.
simt: $(VENV)/.ready
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" bash tests/simt/run.sh

bench: $(VENV)/.ready
	$(RUN) bench/run.py

lint: $(VENV)/.ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean:
	rm -rf $(VENV) build nequip_fast/_C.so *.egg-info

# torch comes first: the extension is compiled against the torch that will load it.
$(VENV)/.ready: $(SOURCES)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "nequip_fast needs Python 3.10 or later")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -c constraints.txt torch numpy setuptools cmake ninja
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(RUN) -m pip install -c constraints.txt --no-build-isolation -e '.[test,demo]'
	$(RUN) -m nequip_fast.cli info
	touch $@
