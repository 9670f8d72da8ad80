# badgerelay. `make help` lists what there is to do.

GO ?= go
BIN := $(CURDIR)/bin
TOOLS := $(BIN)/tools
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS := -s -w -X badgerelay/cmd/internal/buildinfo.Version=$(VERSION) -X badgerelay/cmd/internal/buildinfo.Commit=$(COMMIT)
PROGRAMS := badgerelay badgeagent apnssim badgebench
GOLANGCI_LINT_VERSION := v2.15.0
BUF_VERSION := 1.75.0
NFPM_VERSION := v2.45.2
CYCLONEDX_VERSION := v1.10.0
HELM_VERSION := v3.22.0
# Inputs, not seconds: a target that is stopped by the clock may fail with its deadline.
FUZZTIME ?= 1000x
CHAOS_TIME ?= 5m
CHAOS_SEEDS ?= 1 2 3
CHAOS_FLAGS ?= --clock-steps

# Debian packages of the real programs that tests run against, and of the compiler
# that the race detector takes, each with what shows that it is there. Where systemd runs, installing
# prometheus, PostgreSQL or Dovecot starts a service of it; tests don't use those.
DEBIAN_PACKAGES := \
	apache2-bin=/usr/sbin/apache2 \
	chromium=chromium \
	curl=curl \
	dovecot-core=/usr/sbin/dovecot \
	dovecot-imapd=/usr/lib/dovecot/imap \
	dovecot-lmtpd=/usr/lib/dovecot/lmtp \
	gcc=gcc \
	gss-ntlmssp=/etc/gss/mech.d/mech.ntlmssp.conf \
	krb5-admin-server=/usr/sbin/kadmin.local \
	krb5-kdc=/usr/sbin/krb5kdc \
	libc6-dev=/usr/include/stdlib.h \
	libapache2-mod-auth-gssapi=/usr/lib/apache2/modules/mod_auth_gssapi.so \
	nghttp2-client=nghttp \
	nodejs=node \
	npm=npm \
	openssl=openssl \
	pgbouncer=/usr/sbin/pgbouncer \
	postgresql=pg_ctlcluster \
	libprotobuf-dev=/usr/include/google/protobuf/timestamp.proto \
	prometheus=prometheus \
	protobuf-compiler=protoc \
	python3-cryptography=/usr/lib/python3/dist-packages/cryptography/__init__.py \
	python3-grpcio=/usr/lib/python3/dist-packages/grpc/__init__.py \
	python3-protobuf=/usr/lib/python3/dist-packages/google/protobuf/__init__.py \
	systemd=systemd-analyze

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

# Programs to look at, measure and break here and now. What is installed comes
# from make build or make release: these don't know their version.
DEVEL := $(BIN)/devel
GO_NEEDED := $(shell sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' go.mod)

.PHONY: go-ready
go-ready:
	@problem=$$($(GO) list -m 2>&1 >/dev/null) || { echo "$$problem"; \
		echo "badgerelay is built with Go $(GO_NEEDED) or later, from https://go.dev/dl/. Without Go: deploy/packages.md"; exit 1; }

.PHONY: demo
demo: go-ready ## the main job in one process, on embedded defaults, until Ctrl-C
	@test -x $(DEVEL)/badgerelay || echo "Compiling: a minute or two the first time, no time after that."
	@mkdir -p $(DEVEL) && $(GO) build -o $(DEVEL)/badgerelay ./cmd/badgerelay
	@$(DEVEL)/badgerelay demo

.PHONY: demo-dovecot
demo-dovecot: test-deps $(DEVEL)/testbed ## from a mail to a badge: Dovecot, agent, relay and phones, until Ctrl-C
	@$(DEVEL)/testbed --bin $(DEVEL) demo

.PHONY: dovecot-burst
dovecot-burst: test-deps $(DEVEL)/testbed ## 10,000 deliveries and reads over 2,000 mailboxes: every badge, and what it cost
	@$(DEVEL)/testbed --bin $(DEVEL) burst

.PHONY: $(DEVEL)/testbed
$(DEVEL)/testbed: go-ready
	@test -x $@ || echo "Compiling: a minute or two the first time, no time after that."
	@mkdir -p $(DEVEL) && $(GO) build -o $(DEVEL)/ $(addprefix ./cmd/,$(PROGRAMS)) ./cmd/internal/testbed

.PHONY: build
build: go-ready ## the programs, into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(BIN)/ $(addprefix ./cmd/,$(PROGRAMS))

# What a release is called: the tag of the commit, else what sorts before every
# release (as packages compare versions) and tells the commit.
ifndef RELEASE
RELEASE := $(shell { git describe --exact-match --match 'v[0-9]*' --dirty=~dirty 2>/dev/null || \
	echo $$(git show -s --date=format:%Y%m%d --format=v0.0.0~git%cd.%h)$$(git diff --quiet HEAD || echo .dirty); } | sed s/^v//)
RELEASE_TIME := $(shell git show -s --format=%ct 2>/dev/null)
endif
RELEASE_TAG := $(subst ~,-,$(RELEASE))
PLATFORMS ?= darwin_amd64 darwin_arm64 linux_amd64 linux_arm64 windows_amd64 windows_arm64

.PHONY: release
release: contract-check $(TOOLS)/nfpm $(TOOLS)/cyclonedx-gomod ## archives, packages, bills of materials and SHA256SUMS of all PLATFORMS, into bin/release
	rm -rf $(BIN)/build
	@set -e; for p in $(PLATFORMS); do \
		echo "build $$p"; GOOS=$${p%_*} GOARCH=$${p#*_} $(MAKE) -s build VERSION=$(RELEASE) COMMIT=$(COMMIT) BIN=$(BIN)/build/$$p; \
	done
	$(GO) run ./cmd/internal/release --version $(RELEASE) --time $(RELEASE_TIME) --tools $(TOOLS) \
		--build $(BIN)/build --stage $(BIN)/stage --out $(BIN)/release
	@ls -l $(BIN)/release

# Images are built from scratch; the authorities that Apple's certificate is
# checked with are this machine's (Debian's ca-certificates).
BUILDAH := buildah --storage-driver vfs --root $(BIN)/images/storage --runroot $(BIN)/images/run
ARCHITECTURES := $(patsubst linux_%,%,$(filter linux_%,$(PLATFORMS)))

.PHONY: images
images: release ## images of relay and agent for every linux of PLATFORMS, into bin/release (root, buildah)
	@command -v buildah >/dev/null || { echo "apt-get install buildah"; exit 1; }
	rm -rf $(BIN)/images
	@set -e; for p in badgerelay badgeagent; do \
		context=$(BIN)/images/$$p; mkdir -p $$context/own/lib $$context/own/run; \
		install -d -m 0700 $$context/own/lib/$$p && install -d -m 0750 $$context/own/run/$$p; \
		for a in $(ARCHITECTURES); do \
			install -D -m 0755 $(BIN)/build/linux_$$a/$$p $$context/linux_$$a/usr/bin/$$p; \
			install -D -m 0644 /etc/ssl/certs/ca-certificates.crt $$context/linux_$$a/etc/ssl/certs/ca-certificates.crt; \
			install -d -m 1777 $$context/linux_$$a/tmp; \
			install -d $$context/linux_$$a/var/lib $$context/linux_$$a/run; \
		done; \
		$(BUILDAH) build --quiet --timestamp $(RELEASE_TIME) --file deploy/images/$$p.Dockerfile --manifest $$p:$(RELEASE_TAG) \
			$(ARCHITECTURES:%=--platform linux/%) --label org.opencontainers.image.version=$(RELEASE) \
			--label org.opencontainers.image.revision=$(COMMIT) $$context; \
		$(BUILDAH) manifest push --quiet --all $$p:$(RELEASE_TAG) oci:$(BIN)/images/$$p.oci:$(RELEASE_TAG); \
		tar --sort=name --mtime=@$(RELEASE_TIME) --owner=root:0 --group=root:0 --mode=go=rX,u+rw -C $(BIN)/images/$$p.oci \
			-cf $(BIN)/release/$${p}_$(RELEASE)_image.oci.tar .; \
	done
	cd $(BIN)/release && rm SHA256SUMS && sha256sum * > SHA256SUMS

.PHONY: test-images
test-images: images ## the images: what is in them, and the relay's at work (root, buildah)
	IMAGES=$(BIN)/release $(GO) test -count=1 -v -run TestImagesOfARelease ./deploy

$(TOOLS)/nfpm: Makefile
	GOBIN=$(TOOLS) $(GO) install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)
	@touch $@

$(TOOLS)/cyclonedx-gomod: Makefile
	GOBIN=$(TOOLS) $(GO) install github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX_VERSION)
	@touch $@

.PHONY: reproducible
reproducible: $(TOOLS)/buf $(TOOLS)/nfpm $(TOOLS)/cyclonedx-gomod ## the release of PLATFORMS twice, from two places, the second time with nothing cached: the same bits (with images where there is buildah)
	@set -e; commit=$$(git rev-parse HEAD); work=$$(mktemp -d); trap 'chmod -R u+w '$$work'; rm -rf '$$work EXIT; \
	cache=; for place in one two/deeper; do began=$$(date +%s); \
		mkdir -p $$work/$$place/src; git archive $$commit | tar -x -C $$work/$$place/src; \
		env $$cache $(MAKE) -s -C $$work/$$place/src $(if $(shell command -v buildah),images,release) \
			RELEASE=$(RELEASE) RELEASE_TIME=$(RELEASE_TIME) COMMIT=$$commit TOOLS=$(TOOLS) BIN=$$work/$$place/bin >/dev/null; \
		echo "made in $$(($$(date +%s) - began)) s"; cache=GOCACHE=$$work/cache; \
	done; \
	cat $$work/one/bin/release/SHA256SUMS; \
	diff $$work/one/bin/release/SHA256SUMS $$work/two/deeper/bin/release/SHA256SUMS && echo "twice the same"

.PHONY: test-arm64
test-arm64: ## the programs for arm64 at work, under Debian's qemu-user: the demo judges itself (qemu-user-static)
	GOOS=linux GOARCH=arm64 $(MAKE) -s build BIN=$(BIN)/arm64
	for p in $(PROGRAMS); do qemu-aarch64-static $(BIN)/arm64/$$p version | grep linux/arm64 || exit 1; done
	qemu-aarch64-static $(BIN)/arm64/badgerelay demo --check 20s

# Tests that the race detector does not see: those of deploy read files, and in
# the bubbles of imap and ews the detector of Go 1.26 itself crashes now and then.
NO_RACE := -e /deploy$$ -e /imap$$ -e /ews$$

# Tests of shares of a core, memory and allocations, which would be the detector's.
WITHOUT_RACE := TestStrangersCostLittle TestThousandsOfIdleConnections TestImportOfBadLines TestCachedAllocations
space := $(subst ,, )
RUN_WITHOUT_RACE := '^($(subst $(space),|,$(WITHOUT_RACE)))$$'

.PHONY: test
test: go-ready test-deps ## every test, with the race detector where anything runs side by side
	@for t in $(WITHOUT_RACE); do grep -q "^func $$t(" cmd/badgerelay/*_test.go auth/*_test.go || { echo "there is no $$t"; exit 1; }; done
	$(GO) test -race -shuffle=on -timeout 15m -skip $(RUN_WITHOUT_RACE) $$($(GO) list ./... | grep -v $(NO_RACE))
	$(GO) test -shuffle=on $$($(GO) list ./... | grep $(NO_RACE))
	cd deploy/kubernetes && $(GO) test -shuffle=on ./...
	$(GO) test -run $(RUN_WITHOUT_RACE) ./cmd/badgerelay ./auth

# A Debian 13 in a directory, whose Dovecot 2.4 the mail sources are tried on
# (as root; debootstrap needs some minutes and 500 MB the first time).
TRIXIE := $(BIN)/trixie

$(TRIXIE)/usr/lib/dovecot/lmtp:
	command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap
	rm -rf $(TRIXIE) && debootstrap --variant=minbase --include=dovecot-core,dovecot-imapd,dovecot-lmtpd trixie $(TRIXIE)

.PHONY: test-dovecot24
test-dovecot24: $(TRIXIE)/usr/lib/dovecot/lmtp ## the mail sources against Dovecot 2.4, as root: half a minute once it is installed
	DOVECOT_ROOT=$(TRIXIE) $(GO) test -count=1 ./relay/agent/imap/... ./relay/agent/dovecot

# The PostgreSQL of another Debian 13 in a directory, 17; test runs with Debian 12's, 15.
$(BIN)/postgres17/usr/lib/postgresql/17/bin/postgres:
	command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap
	rm -rf $(BIN)/postgres17 && debootstrap --variant=minbase --include=postgresql trixie $(BIN)/postgres17

.PHONY: test-postgres17
test-postgres17: $(BIN)/postgres17/usr/lib/postgresql/17/bin/postgres ## the registry against PostgreSQL 17, as root: a minute once it is installed
	POSTGRES_ROOT=$(BIN)/postgres17 $(GO) test -count=1 ./relay/registry -run Postgres

# Other mail servers, each in a copy of that Debian: their packages exclude each other.
$(BIN)/courier $(BIN)/cyrus: $(TRIXIE)/usr/lib/dovecot/lmtp
	rm -rf $@ && cp -al $(TRIXIE) $@
	printf '#!/bin/sh\nexit 101\n' > $@/usr/sbin/policy-rc.d && chmod +x $@/usr/sbin/policy-rc.d
	DEBIAN_FRONTEND=noninteractive chroot $@ apt-get install -y -qq --no-install-recommends \
		$(if $(filter %/courier,$@),courier-imap,cyrus-imapd sasl2-bin) || { rm -rf $@; exit 1; }

.PHONY: test-courier
test-courier: $(BIN)/courier ## the IMAP source against Courier and its limit of connections, as root: half a minute once it is installed
	COURIER_ROOT=$(BIN)/courier $(GO) test -count=1 ./relay/agent/imap -run TestCourier

.PHONY: test-cyrus
test-cyrus: $(BIN)/cyrus $(BIN)/cyrus-bookworm ## the IMAP source against Cyrus 3.10 and 3.6, as root: twenty seconds once they are installed
	CYRUS_ROOT=$(BIN)/cyrus $(GO) test -count=1 ./relay/agent/imap -run TestCyrus
	CYRUS_ROOT=$(BIN)/cyrus-bookworm $(GO) test -count=1 ./relay/agent/imap -run TestCyrus

# Debian 12's Cyrus is the last without NOTIFY.
$(BIN)/cyrus-bookworm:
	command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap
	rm -rf $@.making && debootstrap --variant=minbase bookworm $@.making
	printf '#!/bin/sh\nexit 101\n' > $@.making/usr/sbin/policy-rc.d && chmod +x $@.making/usr/sbin/policy-rc.d
	DEBIAN_FRONTEND=noninteractive chroot $@.making apt-get install -y -qq --no-install-recommends cyrus-imapd sasl2-bin
	mv $@.making $@

.PHONY: test-deps
test-deps: ## the real programs that tests need (Debian, as root); elsewhere tests name what they miss
	@missing=""; for p in $(DEBIAN_PACKAGES); do command -v $${p#*=} >/dev/null 2>&1 || test -e $${p#*=} || missing="$$missing $${p%%=*}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if command -v apt-get >/dev/null 2>&1 && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else \
		echo "tests that need$$missing will say so; install it to run them"; \
	fi

.PHONY: check
check: fmt vet lint proto-check cross test cores fuzz ## exactly what CI runs

.PHONY: fmt
fmt: ## fail on code that gofmt would change
	@out="$$(gofmt -l $$(git ls-files '*.go'))"; if [ -n "$$out" ]; then echo "gofmt wants to change:"; echo "$$out"; exit 1; fi

.PHONY: vet
vet: ## go vet, also for the agent's other platform, and a go.mod that is tidy
	$(GO) vet ./...
	CGO_ENABLED=0 GOOS=windows $(GO) vet $(QUICKLY) ./cmd/badgeagent/... ./relay/agent/... ./auth/...
	$(GO) mod tidy -diff
	cd deploy/kubernetes && $(GO) vet ./... && $(GO) mod tidy -diff

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## the linters of .golangci.yml
	$(TOOLS)/golangci-lint run ./...
	cd deploy/kubernetes && $(TOOLS)/golangci-lint run ./...

$(TOOLS)/golangci-lint: Makefile
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@touch $@

.PHONY: proto
proto: $(TOOLS)/buf ## regenerate the Go of the contract
	cd proto && PATH="$(TOOLS):$$PATH" buf generate

.PHONY: proto-check
proto-check: proto ## lint the contract; the committed Go is what it generates; nothing breaks what the last release promised
	cd proto && $(TOOLS)/buf lint
	@if [ -e proto/released.binpb ]; then cd proto && $(TOOLS)/buf breaking --against released.binpb; fi
	@git diff --exit-code --stat -- 'proto/*.go' || { echo "commit what make proto generated"; exit 1; }

# The contract of the last release. A release refuses to be made with another one
# than it is committed with.
CONTRACT := $(TOOLS)/buf build --exclude-source-info -o

.PHONY: contract-released
contract-released: $(TOOLS)/buf ## keep the contract as it is now for proto-check: commit it with what is tagged
	cd proto && $(CONTRACT) released.binpb

.PHONY: contract-check
contract-check: $(TOOLS)/buf
	@case "$(RELEASE)" in *~*) exit 0;; esac; mkdir -p $(BIN) && cd proto && $(CONTRACT) $(BIN)/contract.binpb && \
	cmp -s $(BIN)/contract.binpb released.binpb || { echo "make contract-released, and commit proto/released.binpb before the tag"; exit 1; }

# buf's own package brings the program; building it takes two minutes of CI.
$(TOOLS)/buf: Makefile
	@mkdir -p $(TOOLS)
	npm install --silent --no-save --no-audit --no-fund --prefix $(TOOLS)/npm @bufbuild/buf@$(BUF_VERSION)
	@ln -sf npm/node_modules/.bin/buf $@

# What is only built to see that it builds needs no optimiser.
QUICKLY := -gcflags='all=-N -l'

.PHONY: reference
reference: ## the pages of commands, settings, metrics, alerts and log lines, and what tests expect of the command lines
	GOLDEN=update $(GO) test -count=1 -run '^Test(CommandLine|Reference)$$' $(addprefix ./cmd/,$(PROGRAMS)) ./cmd/badgeagent/internal/serve ./cmd/internal/reference

# linux/arm64 has no file that neither this machine nor darwin/arm64 builds; test-arm64 runs it.
.PHONY: cross
cross: ## the programs of a release for its other systems
	@for target in darwin/arm64 windows/amd64; do \
		for program in $(PROGRAMS); do \
			echo "build $$program for $$target"; \
			GOOS=$${target%/*} GOARCH=$${target#*/} CGO_ENABLED=0 $(GO) build $(QUICKLY) -o /dev/null ./cmd/$$program || exit 1; \
		done; \
	done

.PHONY: cores
cores: ## what depends on timing, on one core and on four
	$(GO) test -shuffle=on -cpu 1,4 ./relay ./apns ./relay/agent

.PHONY: fuzz
fuzz: ## every fuzz target, for FUZZTIME each
	@for dir in $$(git grep -lE '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go | cut -c6-); do \
			echo "fuzz $$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./$$dir || exit 1; \
		done; \
	done

.PHONY: kill
kill: ## kill -9 in the midst of registrations and migrations, 200 times each
	REGISTRY_TEST_KILLS=200 $(GO) test -count=1 -v -timeout 60m -run 'TestKilled' ./relay/registry

.PHONY: upgrade
upgrade: ## three relays on PostgreSQL replaced under load, 60 times: no wrong badge, 99.9 % within 2 s
	UPGRADE_TEST_ROUNDS=10 $(GO) test -count=1 -v -timeout 20m -run 'TestRollingUpgrade' ./cmd/badgerelay

SEEDS ?= 1000

.PHONY: simulate
simulate: ## SEEDS new seeds of everything in one process under fake time, or SEED=n again (TRACE=1, VERBOSE=1)
	@mkdir -p $(DEVEL) && $(GO) test -c -o $(DEVEL)/simulation.test ./cmd/internal/simulation
	@SIMULATE_SEEDS=$(SEEDS) SIMULATE_SEED=$(SEED) SIMULATE_FROM=$(FROM) SIMULATE_TRACE=$(TRACE) SIMULATE_VERBOSE=$(VERBOSE) \
		$(DEVEL)/simulation.test -test.run '^TestSimulate$$' -test.timeout 0

.PHONY: simulate-mutants
simulate-mutants: export SIMULATE_MUTANTS = $(ONLY)
simulate-mutants: ## plant faults in the product one at a time: the simulation has to find each (ONLY=regexp: those named so; WITHIN=n seeds instead of 2000)
	SIMULATE_WITHIN=$(WITHIN) $(GO) test -count=1 -v -timeout 0 -run '^TestMutants$$' ./cmd/internal/simulation

DEBIAN ?= bookworm

.PHONY: clean-machine
clean-machine: build ## the install guide, word by word, on a new Debian (DEBIAN=bookworm, trixie) booted with systemd (root, debootstrap, systemd-container)
	CLEAN_MACHINE=$(DEBIAN) $(GO) test -count=1 -v -timeout 20m -run TestGuideOnACleanMachine ./deploy

# A Debian that has nothing but Go, git and make; FRESH is what is made there. Go
# and the modules that it has are this machine's, and so are the authorities of TLS.
FRESH ?= test

.PHONY: test-fresh
test-fresh: go-ready ## make test on a new DEBIAN that has Go, git and make alone: it brings the rest (root, debootstrap, systemd-container)
	for dir in . deploy/kubernetes; do (cd $$dir && $(GO) list -test -deps ./... >/dev/null) || exit 1; done # the modules of the tests, too
	rm -rf --one-file-system $(BIN)/fresh
	debootstrap --variant=minbase --include=ca-certificates,git,make $(DEBIAN) $(BIN)/fresh http://deb.debian.org/debian
	git clone -q . $(BIN)/fresh/src && rm -f $(BIN)/fresh/etc/resolv.conf && cp -L /etc/resolv.conf /etc/hosts $(BIN)/fresh/etc/
	mkdir -p $(BIN)/fresh$$($(GO) env GOROOT) $(BIN)/fresh/root/go/pkg/mod
	unshare --mount sh -ec 'mount -t tmpfs tmpfs /run; exec systemd-nspawn --quiet --directory=$(BIN)/fresh --register=no --keep-unit --pipe \
		--resolv-conf=off --bind-ro='$$($(GO) env GOROOT)' --bind-ro=/etc/ssl/certs/ca-certificates.crt \
		--bind-ro='$$($(GO) env GOMODCACHE)':/root/go/pkg/mod --chdir=/src --setenv=GOPROXY=off \
		--setenv=NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt --setenv=PATH='$$($(GO) env GOROOT)'/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		make $(FRESH)'

.PHONY: test-packages
test-packages: release ## the packages on a new DEBIAN booted with systemd: a first badge by the guide, upgrade, removal (root, debootstrap, systemd-container, rpm)
	CLEAN_MACHINE=$(DEBIAN) $(GO) test -count=1 -v -timeout 30m -run 'TestFirstBadgeFromPackages|TestRPMs' ./deploy

$(TOOLS)/helm: Makefile
	GOBIN=$(TOOLS) $(GO) install helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)
	@touch $@

.PHONY: test-helm
test-helm: $(TOOLS)/helm ## the Helm chart, held against what kustomize makes (helm takes minutes to build, once)
	$(TOOLS)/helm lint deploy/helm/badgerelay
	cd deploy/kubernetes && HELM=$(TOOLS)/helm $(GO) test -count=1 -run TestHelmChart .

.PHONY: bench
bench: ## the Go benchmarks of each stage
	$(GO) test -run '^$$' -bench . -benchmem ./relay/... ./apns/... ./auth/...

.PHONY: chaos
chaos: $(DEVEL)/testbed ## kills, faults and outages for CHAOS_TIME with each seed of CHAOS_SEEDS; every badge has to be right
	@for seed in $(CHAOS_SEEDS); do \
		$(DEVEL)/testbed --bin $(DEVEL) chaos $(CHAOS_FLAGS) --seed $$seed --duration $(CHAOS_TIME) --log $(BIN)/chaos-$$seed.log || exit 1; \
	done

.PHONY: clean
clean: ## what was built
	rm -rf $(BIN)
