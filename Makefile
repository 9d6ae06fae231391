# Yadori: `make run` boots Debian on this terminal, `make test` runs every test. Both install what they need.

SWIFT ?= swift
YADORI := .build/release/yadori
PREFIX ?= /usr/local
BUILD := $(SWIFT) build -c release
SOURCES := Package.swift Sources Tests Examples Fuzz/Package.swift Fuzz/Sources

.PHONY: run build test check-tools tests lint format guests conformance bench fuzz install clean

# More flags for the machine: make run RUN="-c 2 --engine interpreter"
run: build
	$(YADORI) run debian $(RUN)

build:
	@Scripts/install-packages build
	$(BUILD) --product yadori

test:
	@Scripts/install-packages build test
	$(MAKE) lint tests

tests: guests
	$(BUILD) --product yadori
	$(BUILD) --build-tests
	$(SWIFT) test -c release --skip-build

lint:
	$(SWIFT) format lint --strict --recursive $(wildcard $(SOURCES))

format:
	$(SWIFT) format --in-place --recursive $(wildcard $(SOURCES))

guests:
	Guests/build

# Runs a folder of test programs that were built elsewhere: make conformance SUITE=DIR
conformance: build
	Scripts/conformance $(YADORI) "$(SUITE)"

# Measures, beside other machines: make bench BENCH="--only gcc --rounds 1" QEMU=path (Scripts/bench --help)
bench: build guests
	Scripts/bench $(YADORI) $(BENCH)

# Feeds one reader with mutated inputs: make fuzz TARGET=qcow2|virtqueue|elf|devicetree SECONDS=60
fuzz:
	@Scripts/install-packages build
	SWIFT="$(SWIFT)" Fuzz/run "$(TARGET)" "$(or $(SECONDS),60)"

install: build
	install -D $(YADORI) $(DESTDIR)$(PREFIX)/bin/yadori

clean:
	rm -rf .build Fuzz/.build
