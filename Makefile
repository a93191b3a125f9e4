# make run    builds and starts a demonstration on 127.0.0.1:3260; Ctrl-C ends it
# make test   builds and runs every test
# make soak   the same tests, long versions, then every fuzzer for half an hour
# make fuzz   every fuzzer for FUZZ_SECONDS (60), two at a time; what crashes one is left in .build-fuzz/crashes
# make bench  measures beside Debian's tgt and the machine's limit, prints a table; options: BENCH_DIR=/srv (/dev/shm), ROUNDS=7 (5),
#             CASES=r4k-qd32,w4k-qd32 (all), RESULT=name (.build-bench/latest) for name.json and name.svg
# make bench-check  measures the same, and fails if a ratio is more than 10 % worse than in the committed table; BASELINE=file names another one
# make build  release build in .build/release
# make manual the manual pages of tgt-connect and tgt-audit, from the programs themselves, in .build/manual
# make setup  only installs what the others need
# make clean  removes everything built (not the demonstration's disk in .demo)

SWIFT ?= swift
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
export DEBIAN_FRONTEND := noninteractive

# Debian packages: what a build needs beside the Swift toolchain, what the demonstration's commands need, what the tests need.
BUILD_PACKAGES := git libc6-dev libgcc-12-dev libstdc++-12-dev libssl-dev libpam0g-dev liburing-dev pkgconf
DEMO_PACKAGES  := libiscsi-bin qemu-utils qemu-block-extra
# What Debian's tgtd is linked with.
TGT_LIBRARIES  := libaio1 libibverbs1 librdmacm1
TEST_PACKAGES  := $(DEMO_PACKAGES) python3 qemu-system-x86 libpam-modules libpam-wrapper openssl stunnel4 shellcheck $(TGT_LIBRARIES)
BENCH_PACKAGES := qemu-utils qemu-block-extra python3 gcc openssl stunnel4 linux-perf $(TGT_LIBRARIES)

VM := Tests/EndToEndTests/vm/linux-initiator.sh
VM_CACHE := $(CURDIR)/.build-vm
# tgt's own tgtadm has to go on working, and its tgtd is what ours is compared with and measured against. The package would start
# tgt's daemon, so they are only taken out of it.
CLIENTS := $(CURDIR)/.build-clients
DEBIAN_TGTADM := $(CLIENTS)/usr/sbin/tgtadm
DEBIAN_TGTD := $(CLIENTS)/usr/sbin/tgtd

BENCH_DIR ?= /dev/shm
ROUNDS ?= 5
RESULT ?= .build-bench/latest
# The newest table that is committed.
BASELINE ?= $(lastword $(sort $(wildcard Tests/Benchmark/results/*.json)))

# $(call install,PACKAGES): installs those that are missing; nothing is asked of the network when none is.
define install
	@missing=$$(for package in $(1); do \
		dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -q '^installed' || echo $$package; done); \
	[ -z "$$missing" ] || { echo "installing" $$missing; \
		$(SUDO) apt-get -qq install -y --no-install-recommends $$missing || \
		{ $(SUDO) apt-get -qq update && $(SUDO) apt-get -qq install -y --no-install-recommends $$missing; }; }
endef

.PHONY: run build manual test soak fuzz fuzz-build fuzz-keep bench bench-check setup setup-build setup-demo setup-test setup-bench setup-tgt clean

run: setup-demo build
	@.build/release/tgtd -f --demo .demo

build: setup-build
	$(SWIFT) build -c release

# A plugin of swift-argument-parser asks the programs themselves.
manual: build
	$(SWIFT) package generate-manual --section 8 --authors Portcullis
	@mkdir -p .build/manual && cp .build/plugins/GenerateManual/outputs/tgt-*/tgt-*.8 .build/manual/
	@echo "written:" .build/manual/*

setup: setup-test

setup-build:
	$(call install,$(BUILD_PACKAGES))

setup-demo: setup-build
	$(call install,$(DEMO_PACKAGES))

setup-test: setup-build setup-tgt
	$(call install,$(TEST_PACKAGES))
	@apt-cache show linux-image-cloud-amd64 > /dev/null 2>&1 || $(SUDO) apt-get -qq update
	@$(VM) --cache $(VM_CACHE) --build-only || { $(SUDO) apt-get -qq update && $(VM) --cache $(VM_CACHE) --build-only; }

setup-bench: setup-build setup-tgt
	$(call install,$(BENCH_PACKAGES))

setup-tgt:
	@[ -x $(DEBIAN_TGTADM) ] || { { apt-cache show tgt > /dev/null 2>&1 || $(SUDO) apt-get -qq update; } && \
		mkdir -p $(CLIENTS) && cd $(CLIENTS) && \
		apt-get -qq -o APT::Sandbox::User="$$(id -un)" download tgt && dpkg-deb -x tgt_*.deb . && rm tgt_*.deb; }

# The rooms' own tests first; then the programs as they are shipped, from outside.
FROM_OUTSIDE := PORTCULLIS_TGTD=$(CURDIR)/.build/release/tgtd PORTCULLIS_TGTADM=$(CURDIR)/.build/release/tgtadm \
	PORTCULLIS_DEBIAN_TGTADM=$(DEBIAN_TGTADM) PORTCULLIS_DEBIAN_TGTD=$(DEBIAN_TGTD) LINUX_INITIATOR_CACHE=$(VM_CACHE)
test soak: setup-test build
	$(SWIFT) build --build-tests
	$(SWIFT) test --skip-build --disable-xctest --skip '^EndToEndTests\.'
	$(FROM_OUTSIDE) $(SWIFT) test --skip-build --disable-xctest --filter '^EndToEndTests\.'
	$(if $(filter soak,$@),$(MAKE) fuzz FUZZ_SECONDS=1800)

soak: export PORTCULLIS_SOAK := 1

bench: setup-bench build
	PORTCULLIS_BENCHMARK=1 $(SWIFT) build -c release --product micro-benchmark
	@Tests/Benchmark/bench.py --peer $(CLIENTS)/usr/sbin --dir $(BENCH_DIR) --rounds $(ROUNDS) --result $(RESULT) $(if $(CASES),--cases $(CASES))

bench-check: bench
	@Tests/Benchmark/check.py $(BASELINE) $(RESULT).json

# libFuzzer and AddressSanitizer come with the Swift toolchain. Inputs worth keeping gather in .build-fuzz/corpus;
# `make fuzz-keep` makes the fewest that reach as much code the committed corpus.
FUZZERS := login login-text session unit management native door desk
FUZZ_SECONDS ?= 60
FUZZ := .build-fuzz/release/fuzz
FUZZ_CORPUS := Tests/Fuzz/Corpus
# A Swift crash would wait for its debugger; inputs longer than 4 KiB are slow and say nothing more.
FUZZ_RUN = SWIFT_BACKTRACE=enable=no FUZZER=$* $(FUZZ) -max_len=4096 -timeout=10 -dict=Tests/Fuzz/words.dict

fuzz: fuzz-build
	@$(MAKE) --no-print-directory -j 2 $(FUZZERS:%=fuzz-run-%)

fuzz-keep: fuzz-build
	@$(MAKE) --no-print-directory -j 2 $(FUZZERS:%=fuzz-keep-%)

# Of two `-sanitize` options the compiler asks the last one alone whether code is to be counted, so that has to be said; and checked,
# because a fuzzer whose code is not counted runs just as well and finds nothing.
fuzz-build: setup-build
	PORTCULLIS_FUZZ=1 $(SWIFT) build -c release --scratch-path .build-fuzz --product fuzz --sanitize address --sanitize fuzzer \
		-Xswiftc -sanitize-coverage=edge,inline-8bit-counters,pc-table,trace-cmp
	@nm .build-fuzz/release/ISCSI.build/LoginMachine.swift.o | grep -q sancov || { echo "the fuzzers are blind: our code is not counted"; exit 1; }

fuzz-run-%:
	@mkdir -p .build-fuzz/corpus/$* .build-fuzz/crashes
	@$(FUZZ_RUN) -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -artifact_prefix=.build-fuzz/crashes/$*- \
		.build-fuzz/corpus/$* $(FUZZ_CORPUS)/$* > .build-fuzz/$*.log 2>&1 || { tail -n 60 .build-fuzz/$*.log; echo "$*: a crash, see .build-fuzz/crashes"; exit 1; }
	@echo "$*: $$(grep -E 'DONE' .build-fuzz/$*.log | tr '\t' ' ')"

fuzz-keep-%:
	@mkdir -p .build-fuzz/corpus/$* && rm -rf .build-fuzz/kept/$* && mkdir -p .build-fuzz/kept/$*
	@$(FUZZ_RUN) -set_cover_merge=1 -use_counters=0 .build-fuzz/kept/$* $(FUZZ_CORPUS)/$* .build-fuzz/corpus/$* > .build-fuzz/$*-merge.log 2>&1
	@rm -rf $(FUZZ_CORPUS)/$* && mv .build-fuzz/kept/$* $(FUZZ_CORPUS)/$*
	@echo "$*: $$(ls $(FUZZ_CORPUS)/$* | wc -l) inputs"

clean:
	rm -rf .build .build-*
