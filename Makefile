# libadcg. `make help` lists the targets. Needs Go, a C compiler, make and python3; everything else is fetched, pinned.

GO ?= go
CC ?= cc
CXX ?= c++
PYTHON ?= python3
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DESTDIR ?=
CFLAGS ?= -O2 -g
WARN = -Wall -Wextra -Wpedantic -Wconversion

version_part = $(shell sed -n 's/^.define ADCG_VERSION_$(1) \([0-9]*\)$$/\1/p' include/adcg/adcg.h)
MAJOR := $(call version_part,MAJOR)
VERSION := $(MAJOR).$(call version_part,MINOR).$(call version_part,PATCH)
SONAME := libadcg.so.$(MAJOR)
LIB := build/libadcg.so.$(VERSION)
LIBS := $(LIB) build/$(SONAME) build/libadcg.so

MODEL ?= tests/data/models/tiny-go
# Of demo and golden: host, or cuda:N. Without a driver for that, the stand-in serves: see fakecuda.
DEVICE ?= host
DEMO_ARGS ?= --buckets 8,16,32,48
# All that the project carries, unless one is asked for. The C host serves Llama alone.
# CUDA has the ops of Llama.
DEMO_MODELS = $(if $(filter command line environment,$(origin MODEL))$(filter-out host,$(DEVICE)),$(MODEL),$(sort $(wildcard tests/data/models/tiny-go*)))
DEMO_FAMILY = $(shell sed -n 's/.*"model_type": *"\([a-z0-9_]*\)".*/\1/p' $(MODEL)/config.json | head -n 1)
FILES ?= $(sort $(wildcard tests/data/minimalloc/*.csv))
PLAN_ARGS ?= $(if $(filter command line,$(origin FILES)),,-generated 12 -seconds 15)
VENV := .venv
PY := $(VENV)/bin/python
BENCH_PY = $(or $(wildcard .venv-peers/bin/python),$(PY))
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# gorgonia.org/cu v0.9.6 compiles against the headers of CUDA 12, not of 13.
CUDA_HEADERS := build/third_party/cuda-runtime-cu12-12.9.79
YYJSON := build/third_party/yyjson-4.0.6/yyjson
YYJSON_SHA256 := fcd4dc15c1e39a30bf9fa85d56903029111506860fc3080ab0d81c6c6dacaa8c
STAGE := build/stage

comma := ,

# Tests and linters compile as the library is, position independent and without the tree's path: C compiled for one serves all.
export GOFLAGS := $(GOFLAGS) -trimpath -buildmode=pie
export PYTHONPATH := $(CURDIR)/bindings/python:$(CURDIR)/examples/python
export ADCG_LIBRARY ?= $(CURDIR)/build/libadcg.so

.PHONY: all cuhost demo fakecuda gpu headers kernels kernels-check test test-go test-cabi test-python test-fakecuda test-cuhost bench bench-plan bench-models bench-peers soak fuzz golden lint lint-cuhost format install stage venv programs clean mutations help
.DELETE_ON_ERROR:

all: $(LIBS) ## the library, in build/ (the default)

# ---- The library ------------------------------------------------------------------------------------------------

SOURCES := go.mod $(wildcard go.sum) capi/libadcg.map $(shell find capi engine kernels piecewise include -type f ! -name '*_test.go' 2>/dev/null)
LDFLAGS_GO = -s -w -extldflags '-Wl,-soname,$(SONAME) -Wl,--version-script=$(CURDIR)/capi/libadcg.map -Wl,--as-needed -Wl,-z,now'

# Go writes a header of its own beside its output; include/adcg/adcg.h is the interface, so that one stays behind.
$(LIB): $(SOURCES)
	@mkdir -p build/go
	CGO_ENABLED=1 $(GO) build -buildmode=c-shared -ldflags "$(LDFLAGS_GO)" -o build/go/libadcg.so ./capi
	@mv build/go/libadcg.so $@ && rm -rf build/go

build/$(SONAME) build/libadcg.so: $(LIB)
	@ln -sf $(notdir $(LIB)) $@

# ---- Environments and third parties -----------------------------------------------------------------------------

venv: $(VENV)/stamp

$(VENV)/stamp: tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

bench-peers: .venv-peers/stamp ## the venv that `make bench` compares with: torch and transformers (large)

.venv-peers/stamp: tests/requirements-peers.txt tests/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# yyjson's sources come with the sdist of its Python binding, the one registry package that carries them.
$(YYJSON)/yyjson.h: $(YYJSON)/yyjson.c
$(YYJSON)/yyjson.c: | $(VENV)/stamp
	@mkdir -p build/third_party
	$(PY) -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: -d build/third_party yyjson==4.0.6
	cd build/third_party && echo "$(YYJSON_SHA256)  yyjson-4.0.6.tar.gz" | sha256sum --check --quiet && tar xzmf yyjson-4.0.6.tar.gz

# Of the driver API's headers alone: nothing of the wheel is linked or run.
headers: $(CUDA_HEADERS)/include/cuda.h

$(CUDA_HEADERS)/include/cuda.h: | $(VENV)/stamp
	@rm -rf $(CUDA_HEADERS) && mkdir -p $(CUDA_HEADERS)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --target $(CUDA_HEADERS)/wheel nvidia-cuda-runtime-cu12==12.9.79
	@mv $(CUDA_HEADERS)/wheel/nvidia/cuda_runtime/include $(CUDA_HEADERS)/ && rm -rf $(CUDA_HEADERS)/wheel && touch $@

# ---- Programs ---------------------------------------------------------------------------------------------------

LINK = -Lbuild -ladcg -Wl,-rpath,'$$ORIGIN/..' -lm

build/examples/yyjson.o: $(YYJSON)/yyjson.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -O2 -c -o $@ $<

build/examples/serve: $(wildcard examples/c/*.c examples/c/*.h) build/examples/yyjson.o $(LIBS)
	$(CC) -std=c11 $(CFLAGS) $(WARN) -Iinclude -isystem $(YYJSON) -o $@ examples/c/*.c build/examples/yyjson.o $(LINK)

build/bench/libbare.so: tests/bench/bare.c tests/bench/bare.h
	@mkdir -p $(@D)
	$(CC) -std=c11 $(CFLAGS) $(WARN) -Iinclude -fPIC -shared -o $@ $<

build/bench/replay: tests/bench/replay.c tests/bench/bare.h tests/bench/try.h build/bench/libbare.so $(LIBS)
	$(CC) -std=c11 $(CFLAGS) $(WARN) -Iinclude -o $@ $< -Lbuild/bench -lbare -Wl,-rpath,'$$ORIGIN' $(LINK) -pthread

# The stand-in driver, and the recorded sequences that hold it.
FAKECUDA := tests/fakecuda
build_fakecuda = $(CC) -std=c11 $(CFLAGS) $(WARN) $(1) -fPIC -shared -pthread -Wl,-soname,libcuda.so.1 \
	-Wl,--version-script=$(FAKECUDA)/exports.map -o $@ $(wildcard $(FAKECUDA)/*.c) -ldl

fakecuda: build/fakecuda/libcuda.so.1 build/fakecuda/libcublasLt.so.13 build/fakecuda/kernels.so ## a libcuda.so.1 without a GPU, for tests: LD_LIBRARY_PATH=build/fakecuda FAKECUDA_KERNELS=build/fakecuda/kernels.so

build/fakecuda/libcuda.so.1: $(wildcard $(FAKECUDA)/*.c $(FAKECUDA)/*.h) $(FAKECUDA)/exports.map
	@mkdir -p $(@D)
	$(call build_fakecuda,)

build/fakecuda/sanitized/libcuda.so.1: $(wildcard $(FAKECUDA)/*.c $(FAKECUDA)/*.h) $(FAKECUDA)/exports.map
	@mkdir -p $(@D)
	$(call build_fakecuda,-fsanitize=address$(comma)undefined -fno-sanitize-recover=all)

# The stand-in for cuBLASLt beside it.
FAKECUBLASLT := tests/fakecublaslt
build_fakecublaslt = $(CC) -std=c11 $(CFLAGS) $(WARN) $(1) -fPIC -shared -pthread -Wl,-soname,libcublasLt.so.13 -Wl,-Bsymbolic \
	-Wl,--version-script=$(FAKECUBLASLT)/exports.map -o $@ $(wildcard $(FAKECUBLASLT)/*.c) -ldl -lm

build/fakecuda/libcublasLt.so.13: $(wildcard $(FAKECUBLASLT)/*.c $(FAKECUBLASLT)/*.h) $(FAKECUBLASLT)/exports.map
	@mkdir -p $(@D)
	$(call build_fakecublaslt,)

build/fakecuda/sanitized/libcublasLt.so.13: $(wildcard $(FAKECUBLASLT)/*.c $(FAKECUBLASLT)/*.h) $(FAKECUBLASLT)/exports.map
	@mkdir -p $(@D)
	$(call build_fakecublaslt,-fsanitize=address$(comma)undefined -fno-sanitize-recover=all)

# What tests/gpu/report.py needs on a machine with a GPU, which has neither compiler nor Go: all of it is in the folders that are named
# at the end.
GPU := build/gpu
GPU_CARRY := $(LIBS) $(GPU) build/kernels/libkernels.so build/cuhost/cuhost.test
CABI_PROGRAMS := bad_handles bad_graphs bad_steps ops parts rows dispatch exec release ladder load oom capture counts streams
GPU_SITE := pytest _pytest pluggy iniconfig packaging pygments # Python alone

gpu: $(LIBS) $(GPU)/site $(GPU)/graphs $(GPU)/liblt.so $(CABI_PROGRAMS:%=$(GPU)/cabi/%) $(GPU)/cabi/failmalloc.so build/kernels/libkernels.so build/cuhost/cuhost.test ## what tests/gpu/report.py needs where there is a GPU
	@strip --strip-debug $(GPU)/graphs $(GPU)/*.so $(GPU)/cabi/* build/kernels/libkernels.so # it is carried over a wire
	@git describe --always --dirty --abbrev=12 > $(GPU)/commit
	@printf 'carry:%s\nrun there: python3 tests/gpu/report.py --out FOLDER\n' "$(GPU_CARRY:%= %)"

$(GPU)/graphs: tests/gpu/graphs.c tests/gpu/bare_driver.h tests/bench/try.h engine/device/cuda/driver.h $(LIBS)
	@mkdir -p $(@D)
	$(CC) -std=c11 $(CFLAGS) $(WARN) -Iinclude -o $@ $< $(LINK) -ldl

$(GPU)/site: $(VENV)/stamp
	@mkdir -p $@
	cp -r $(wildcard $(GPU_SITE:%=$(VENV)/lib/python3*/site-packages/%)) $@
	@find $@ -name __pycache__ -prune -exec rm -r {} +
	@touch $@

$(GPU)/cabi/failmalloc.so: tests/cabi/failmalloc.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(CFLAGS) $(WARN) -Iinclude -fPIC -shared -o $@ $< -ldl

# It loads the library itself, late.
$(GPU)/cabi/load: tests/cabi/load.c $(wildcard tests/cabi/*.h) include/adcg/adcg.h
	@mkdir -p $(@D)
	$(CC) -std=c11 $(CFLAGS) $(WARN) -Iinclude -o $@ $< -pthread -ldl

$(GPU)/cabi/%: tests/cabi/%.c $(wildcard tests/cabi/*.h) $(LIBS)
	@mkdir -p $(@D)
	$(CC) -std=c11 $(CFLAGS) $(WARN) -Iinclude -o $@ $< -Lbuild -ladcg -Wl,-rpath,'$$ORIGIN/../..' -lm -pthread -ldl

build/gpu/liblt.so: tests/gpu/lt_device.c $(wildcard kernels/cuda/*.[ch] kernels/common/*.h) include/adcg/adcg.h
	@mkdir -p $(@D)
	$(CC) -std=c11 $(CFLAGS) $(WARN) -Iinclude -fPIC -shared -o $@ $< $(filter kernels/cuda/%.c,$^) -lm

# The CUDA kernels for the CPU, from the sources of the image, and a library for tests that launches them (and the host's) one op at
# a time. The CPU's own instructions, for fmaf; nothing is contracted, as on the device.
KERNEL_SOURCES := $(wildcard kernels/cuda/*.cu kernels/cuda/*.h kernels/common/*.h include/adcg/*.h)

build/fakecuda/kernels.so: $(KERNEL_SOURCES) $(wildcard $(FAKECUDA)/shim/*.h) $(FAKECUDA)/fakecuda.h
	@mkdir -p $(@D)
	$(CXX) -x c++ -std=c++17 $(CFLAGS) -march=native -ffp-contract=off -fno-strict-aliasing -Wall -Wextra -Wno-unknown-pragmas -fno-gnu-unique -fPIC -shared \
		-Wl,-Bsymbolic -Iinclude -I$(FAKECUDA)/shim -o $@ kernels/cuda/all.cu

KERNEL_OBJECTS := $(patsubst %.c,build/objects/%.o,$(wildcard kernels/cuda/*.c kernels/host/*.c) tests/kernels/runner.c)

build/objects/%.o: %.c $(wildcard kernels/*/*.h include/adcg/*.h)
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O3 -g $(WARN) -Iinclude -fPIC -pthread -c -o $@ $<

build/kernels/libkernels.so: $(KERNEL_OBJECTS)
	@mkdir -p $(@D)
	$(CC) -shared -pthread -o $@ $^ -lm

# ---- The CUDA kernels' image ------------------------------------------------------------------------------------

# Committed, so that nothing but this needs the compiler; it has a venv of its own.
KERNEL_IMAGES := kernels/cuda/images
NVCC_VENV := build/nvcc

kernels: $(NVCC_VENV)/stamp ## compiles kernels/cuda into its committed image (sm_80, sm_90a, sm_100, PTX), with a pinned compiler
	$(PYTHON) tools/kernels.py build $(NVCC_VENV) $(KERNEL_IMAGES)

kernels-check: $(NVCC_VENV)/stamp ## compiles them again and compares with what is committed
	$(PYTHON) tools/kernels.py check $(NVCC_VENV) $(KERNEL_IMAGES)

$(NVCC_VENV)/stamp: kernels/cuda/requirements.txt
	$(PYTHON) -m venv $(NVCC_VENV)
	$(NVCC_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# What cu is compiled against and linked with: the stand-in, under the name that linkers look for. Through the compiler's environment
# where it can be: CGO_CFLAGS would compile all of the library's C anew, but come before a CUDA of the machine, which cu itself names.
CUHOST_ENV = $(if $(wildcard /usr/local/cuda*),CGO_CFLAGS="-O2 -g -I$(CURDIR)/$(CUDA_HEADERS)/include" CGO_LDFLAGS="-L$(CURDIR)/build/cuhost",\
	CPATH=$(CURDIR)/$(CUDA_HEADERS)/include LIBRARY_PATH=$(CURDIR)/build/cuhost)

cuhost: build/cuhost/cuhost.test ## the gorgonia.org/cu adapter's tests, for the stand-in or a real libcuda.so.1

build/cuhost/libcuda.so: build/fakecuda/libcuda.so.1
	@mkdir -p $(@D) && ln -sf ../fakecuda/libcuda.so.1 $@

build/cuhost/cuhost.test: $(SOURCES) $(wildcard cuhost/*.go) $(CUDA_HEADERS)/include/cuda.h build/cuhost/libcuda.so
	$(CUHOST_ENV) $(GO) test -tags cuhost -ldflags '-s -w' -c -o $@ ./cuhost

tests/data: ;
programs: build/examples/serve build/bench/replay

demo: $(LIBS) $(VENV)/stamp build/examples/serve ## the main job: serve Llama from C, then every family from Python (MODEL=DIR, DEVICE=cuda:0, DEMO_ARGS=...)
	$(if $(filter llama,$(DEMO_FAMILY)),build/examples/serve --model $(MODEL) --device $(DEVICE) $(DEMO_ARGS))
	@for model in $(DEMO_MODELS); do echo; $(PY) examples/python/serve.py --model $$model --device $(DEVICE) $(if $(word 2,$(DEMO_MODELS)),--requests 5) $(DEMO_ARGS) || exit 1; done

# ---- Checks -----------------------------------------------------------------------------------------------------

# Tests call make for what they need, under a lock on this file (flock): several processes run them. What several need is built before.
test: $(LIBS) $(VENV)/stamp programs stage fakecuda build/kernels/libkernels.so ## everything that needs no GPU, with one summary
	$(PY) tools/run_tests.py

test-fakecuda test-cuhost: $(VENV)/stamp
	$(PY) tools/run_tests.py $(@:test-%=%)

test-go test-cabi test-python: $(LIBS) $(VENV)/stamp programs stage fakecuda
	$(PY) tools/run_tests.py $(@:test-%=%)

golden: $(LIBS) $(VENV)/stamp ## checks a folder of the golden format: make golden DIR=<folder> (GOLDEN_ARGS=--quick, DEVICE=cuda:0)
	@test -n "$(DIR)" || { echo "make golden: DIR: empty, give a folder with config.json, model.safetensors, golden.safetensors"; exit 2; }
	$(PY) tests/golden/check.py --device $(DEVICE) $(GOLDEN_ARGS) $(DIR)

bench: $(LIBS) $(VENV)/stamp build/bench/replay ## replay against a bare C loop, kernels, Python, peers
	build/bench/replay
	$(GO) test -run '^$$' -bench . ./kernels/... ./piecewise/...
	@for f in $(wildcard tests/bench/bench_*.py); do echo "== $(BENCH_PY) $$f"; $(BENCH_PY) $$f || exit 1; done

bench-models: $(LIBS) $(VENV)/stamp ## what today's models need by our plan, and hold by other policies (MODELS_ARGS=...)
	PYTHONPATH=$(PYTHONPATH):$(CURDIR)/tests/bench $(PY) -m plan_models $(MODELS_ARGS)

bench-plan: ## the planner's search on instances of compilers and generated ones (FILES="a.csv b.csv", PLAN_ARGS=...)
	$(GO) run ./tests/bench/plan $(PLAN_ARGS) $(FILES)

SOAK_GRAPHS ?= 1000000
FUZZ_TIME ?= 5m
soak: ## plans 10^6 random graphs, every plan checked (SOAK_GRAPHS=N); minutes
	ADCG_SOAK_GRAPHS=$(SOAK_GRAPHS) $(GO) test ./piecewise -run '^TestSoak$$' -v -count 1 -timeout 2h

MUTATIONS ?=
mutations: $(LIBS) fakecuda ## plants mistakes in the CUDA device, one at a time, and counts those that the ABI suite catches; an hour
	$(PYTHON) tests/fakecuda/mutations $(MUTATIONS)

fuzz: ## each fuzz target of the planner for a while (FUZZ_TIME=5m)
	@for f in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\)(.*/\1/p' piecewise/*_test.go); do \
		$(GO) test ./piecewise -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZ_TIME) || exit 1; done

lint: $(VENV)/stamp $(YYJSON)/yyjson.h ## formats, vets, warnings as errors, types, import directions
	tools/lint.sh $(VENV) $(STATICCHECK) $(YYJSON)

lint-cuhost: $(CUDA_HEADERS)/include/cuda.h build/cuhost/libcuda.so
	$(CUHOST_ENV) $(GO) vet -tags cuhost ./cuhost
	$(CUHOST_ENV) $(GO) run $(STATICCHECK) -tags cuhost ./cuhost

format: $(VENV)/stamp ## rewrites Go and C sources in their format
	gofmt -w $$(find . -name '*.go' -not -path './build/*' -not -path './.venv*')
	tools/lint_c.sh --list | xargs $(VENV)/bin/clang-format -i

# ---- Installation -----------------------------------------------------------------------------------------------

lib_to_prefix = $(shell realpath -m --relative-to=$(LIBDIR)/$(1) $(PREFIX))
from_prefix = $(shell realpath -m --relative-to=$(PREFIX) $(1))
configure = sed -e 's|@VERSION@|$(VERSION)|g' -e 's|@SONAME@|$(SONAME)|g' -e 's|@LIBDIR@|$(call from_prefix,$(LIBDIR))|g' \
	-e 's|@INCLUDEDIR@|$(call from_prefix,$(INCLUDEDIR))|g' -e 's|@UP@|$(call lib_to_prefix,$(1))|g'

install: $(LIBS) ## library, headers, pkg-config and CMake files (PREFIX, LIBDIR, INCLUDEDIR, DESTDIR)
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(LIBDIR)/cmake/adcg $(DESTDIR)$(INCLUDEDIR)/adcg
	install -m 644 include/adcg/*.h $(DESTDIR)$(INCLUDEDIR)/adcg/
	install -m 755 $(LIB) $(DESTDIR)$(LIBDIR)/
	ln -sf $(notdir $(LIB)) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libadcg.so
	$(call configure,pkgconfig) cmake/libadcg.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/libadcg.pc
	for f in adcgConfig adcgConfigVersion; do $(call configure,cmake/adcg) cmake/$$f.cmake.in > $(DESTDIR)$(LIBDIR)/cmake/adcg/$$f.cmake; done

# What tests/cabi compiles against; made anew only when what it holds has changed.
stage: $(STAGE)/stamp

$(STAGE)/stamp: $(LIBS) $(wildcard include/adcg/*.h cmake/*) Makefile
	@rm -rf $(STAGE)
	@$(MAKE) --silent install DESTDIR=$(CURDIR)/$(STAGE) PREFIX=/usr LIBDIR=/usr/lib INCLUDEDIR=/usr/include
	@touch $@

clean: ## everything that was built; the venvs stay
	rm -rf build

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{ printf "  %-18s %s\n", $$1, $$2 }'
