# minimega: `make setup build`, then bin/minimega. See README.md.

export PATH := /usr/local/go/bin:$(PATH):/usr/sbin:/sbin
export CGO_ENABLED := 0

REVISION := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
DATE     := $(shell date -u +%Y-%m-%d)
LDFLAGS  := -s -w -X minimega/internal/version.Revision=$(REVISION) -X minimega/internal/version.Date=$(DATE)

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: setup build demo test check bench docs fuzz clean

# What a bare Debian machine lacks: packages, Go, a kernel for guests.
setup:
	sh setup/debian

# Every program, static, into bin/.
build:
	go build -trimpath -ldflags "$(LDFLAGS)" -o bin/ ./cmd/...

demo: build
	bin/minimega demo

# All tests, with the race detector. Root is needed for taps, bridges and namespaces.
test: build
	CGO_ENABLED=1 go test -race -timeout 60m ./...

# Format, vet, staticcheck. What they print is what is wrong.
check:
	@fmt=$$(gofmt -l cmd internal pkg bench tests); test -z "$$fmt" || { echo "gofmt: $$fmt"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

# The figures of the README, each beside a peer. Run them on a quiet machine.
bench: build
	go run ./bench/all

# docs/reference.md, from the program.
docs:
	go test ./tests -run TestReference -update

# Each fuzzer for a moment; set FUZZTIME for longer.
FUZZTIME ?= 10s
fuzz:
	sh setup/fuzz $(FUZZTIME)

clean:
	rm -rf bin
