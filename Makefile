# SPDX-License-Identifier: GPL-2.0
# Every target calls the xtask in qemu-ci; ARGS= reaches it ("make test ARGS=--long").

XTASK = @./qemu-ci/run

.DEFAULT_GOAL := help
.PHONY: help demo test bench fetch prepare build boot series series-check members support check clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

demo: ## python3 is checkpointed while it works, and goes on after a reboot
	$(XTASK) demo $(ARGS)

test: ## unit tests, then every selftest in the lean and in the debug kernel
	$(XTASK) test $(ARGS)

bench: ## measure beside CRIU and what the kernel takes for the like (ARGS=--quick: fewer runs)
	$(XTASK) bench $(ARGS)

fetch: ## get the kernel source (KSRC=/path/to/linux takes a tree of yours)
	$(XTASK) fetch $(ARGS)

prepare: ## the kernel tree with the patches and the Rust files, and its configuration
	$(XTASK) prepare $(ARGS)

build: ## the lean kernel (ARGS=--debug: the debug kernel)
	$(XTASK) build $(ARGS)

boot: ## a shell in the guest (ARGS=--debug: under the debug kernel)
	$(XTASK) boot --shell $(ARGS)

series: ## the mailable series, checked with git am on a pristine tree
	$(XTASK) series $(ARGS)

series-check: ## the series, and every step of it builds the objects that it touches
	$(XTASK) series --build $(ARGS)

members: ## compare the kernel's structs with the tables in qemu-ci/members (ARGS=--bindings=FILE)
	$(XTASK) members $(ARGS)

support: ## write the support table into README.md
	$(XTASK) support --write $(ARGS)

check: ## formatting, clippy and checkpatch
	$(XTASK) check $(ARGS)

clean: ## forget what was built (ARGS=--all: and what was downloaded)
	$(XTASK) clean $(ARGS)
