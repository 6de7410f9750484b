# SPDX-License-Identifier: Apache-2.0
# Harvey's one Makefile: builds, tests and runs the project. `make` alone lists the targets.
#
# Flavours lie side by side in build/<cc>-<flavour>/, so changing CC or FLAVOUR rebuilds nothing;
# bin/ holds the release flavour last built. Long recipes live in scripts in the room they serve.

# ---- what a caller may set ----
ifeq ($(origin CC),default)
CC := gcc
endif
FLAVOUR ?= release
WERROR  ?=
SECONDS ?= 60
PREFIX  ?= /usr/local
JOBS    ?= $(shell nproc)
# Read by the scripts, where they are set: how the stack runs (compose/stack.sh).
export PORT COMPOSE STACK COMPOSE_CMD MINIO_IMAGE SERVER_IMAGE N RATE MODE METHOD SVG

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VERSION := $(or $(shell sed -n 's/^\#\# *\[\{0,1\}\([0-9][0-9.]*\).*/\1/p' CHANGELOG.md 2>/dev/null \
           | head -n 1),0.1.0)

# ---- flags ----
CCNAME := $(notdir $(firstword $(CC)))
KIND   := $(if $(findstring clang,$(CCNAME)),clang,gcc)
B      := build/$(CCNAME)-$(FLAVOUR)

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wformat=2 \
        -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wcast-qual -Wcast-align \
        -Wpointer-arith -Wwrite-strings -Wvla -Wundef -Wswitch-enum -Wnull-dereference \
        -Wdouble-promotion -Wimplicit-fallthrough -Wfloat-equal
WARN_gcc   := -Wduplicated-cond -Wduplicated-branches -Wlogical-op
WARN_clang := -Wmissing-variable-declarations -Wcomma
WARN += $(WARN_$(KIND))

HARDEN := -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong
# clang knows this one on x86 only and warns elsewhere
ifneq ($(KIND)-$(shell uname -m),clang-aarch64)
HARDEN += -fstack-clash-protection
endif
OPT_release := -O2 -g $(HARDEN)
OPT_debug   := -O0 -g3
OPT_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
OPT_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
# failpoints and switches that take a defence out (base/failpoint.h): for tests only
OPT_hooks   := $(OPT_release) -DHARVEY_TEST_HOOKS
OPT_fuzz    := -O1 -g -fno-omit-frame-pointer \
               -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
OPT := $(OPT_$(FLAVOUR))
$(if $(OPT),,$(error FLAVOUR=$(FLAVOUR): known are release, debug, asan, tsan, hooks, fuzz))

COMPILE := -std=gnu17 -I. -D_GNU_SOURCE -DHARVEY_VERSION='"$(VERSION)"' -pthread $(OPT) $(WARN) \
           $(CPPFLAGS) $(CFLAGS)

# libs3 is linked statically: the guard in archive/ stands between it and libcurl, and the linker's
# --wrap reaches only symbols of objects that it links itself. Debian's libs3.a is position
# independent, so a PIE is fine. It has no pkg-config file; newer releases may keep it multiarch.
LIBS3 := $(firstword $(wildcard /usr/lib/libs3.a \
         /usr/lib/$(shell $(CC) -print-multiarch 2>/dev/null)/libs3.a /usr/lib/*-linux-gnu/libs3.a) \
         -l:libs3.a)
WRAP  := -Wl,--wrap=curl_easy_setopt -Wl,--wrap=curl_easy_perform
LIBS  := $(WRAP) $(LIBS3) -lsqlite3 -lmicrohttpd -lzstd -ljansson -lcurl -lxml2 -lssl -lcrypto \
         -lpthread
LINK  = $(CC) $(OPT) -pthread $(LDFLAGS) -Wl,--as-needed -o $@ $(filter %.o,$^)

# ---- rooms: what each program is linked from ----
objs = $(patsubst %.c,$B/obj/%.o,$(sort $(filter-out $(2),$(wildcard $(1)))))

BASE       := $(call objs,base/*.c)
PLAIN      := $(call objs,base/*.c,base/hash.c)
ARCHIVE    := $(call objs,archive/*.c)
REPLICATOR := $(call objs,replicator/*.c)
RESTORER   := $(call objs,restorer/*.c,restorer/restore_main.c)
SERVER     := $(call objs,server/*.c,server/server_main.c)
# ROOM="base archive" T="test_codec" links and runs less: for work on one room while another is broken.
ROOM       ?= BASE ARCHIVE REPLICATOR RESTORER SERVER DOOR
DOOR       := $(call objs,door/*.c,door/door_main.c)
ALL_ROOMS  := $(BASE) $(ARCHIVE) $(REPLICATOR) $(RESTORER) $(SERVER) $(DOOR)
ROOMS      := $(foreach r,$(ROOM),$($(shell echo $r | tr a-z A-Z)))

PROGRAMS := $(if $(wildcard server/server_main.c),server) \
            $(if $(wildcard restorer/restore_main.c),restore) \
            $(if $(wildcard door/door_main.c),door) \
            $(if $(wildcard tests/bench/openloop_main.c),openloop)

$B/bin/server:   $(ALL_ROOMS) $(call objs,server/server_main.c)
$B/bin/restore:  $(BASE) $(ARCHIVE) $(RESTORER) $(call objs,restorer/restore_main.c)
# These two stand on the C library alone: the door's image has nothing else in it.
$B/bin/door:     $(PLAIN) $(DOOR) $(call objs,door/door_main.c)
$B/bin/openloop: $(PLAIN) $(call objs,tests/bench/openloop*.c)
$B/bin/door $B/bin/openloop: private LIBS := -lm -lpthread
$(PROGRAMS:%=$B/bin/%):
	@mkdir -p $(@D)
	$(LINK) $(LIBS)

# Compared, not dated: the last release build is what lies in bin/, whichever compiler made it.
bin/%: $B/bin/% FORCE
	@mkdir -p $(@D)
	@cmp -s $< $@ || install -m 755 $< $@

$B/obj/%.o: %.c $B/flags
	@mkdir -p $(@D)
	$(CC) $(COMPILE) $(if $(WERROR),-Werror) -MMD -MP -c -o $@ $<

# Rewritten only when the flags differ, and every object depends on it.
$B/flags: export FLAGS_NOW = $(COMPILE)
$B/flags: FORCE
	@mkdir -p $(@D)
	@echo "$$FLAGS_NOW" | cmp -s - $@ || echo "$$FLAGS_NOW" >$@

# ---- test programs: one per file, linked with every room and the helpers beside them ----
UNIT_SRC   := $(sort $(wildcard tests/unit/test_*.c tests/fault/fault_*.c tests/fault/crash_*.c))
UNIT_AID   := $(call objs,tests/unit/*.c tests/fault/*.c,$(UNIT_SRC))
UNIT       := $(foreach t,$(or $(T),%),$(filter $B/tests/unit/$t $B/tests/fault/$t,$(UNIT_SRC:%.c=$B/%)))
FUZZ_NAMES := $(basename $(notdir $(wildcard tests/fuzz/fuzz_*.c)))
REPLAY     := $(FUZZ_NAMES:%=$B/tests/replay/%)

$(UNIT): $B/%: $B/obj/%.o $(UNIT_AID) $(ROOMS)
	@mkdir -p $(@D)
	$(LINK) -lcmocka $(LIBS)
# The same fuzz target with an ordinary main: replays the kept inputs under any compiler.
$(REPLAY): $B/tests/replay/%: $B/obj/tests/fuzz/%.o $B/obj/tests/fuzz/replay_main.o $(ROOMS)
	@mkdir -p $(@D)
	$(LINK) $(LIBS)
$(FUZZ_NAMES:%=$B/tests/fuzz/%): $B/tests/fuzz/%: $B/obj/tests/fuzz/%.o $(ROOMS)
	@mkdir -p $(@D)
	$(LINK) -fsanitize=fuzzer $(LIBS)

.SECONDARY:
-include $(patsubst %.o,%.d,$(call objs,base/*.c archive/*.c replicator/*.c restorer/*.c server/*.c \
    door/*.c tests/unit/*.c tests/fault/*.c tests/fuzz/*.c tests/bench/*.c))

# ---- targets; the text behind ## is what `make` alone prints ----
.PHONY: help FORCE
help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z_.-]*:.*## /{printf "  make %-22s %s\n", $$1, $$2}' Makefile
FORCE:

.PHONY: build run demo
build: $(if $(filter release,$(FLAVOUR)),$(PROGRAMS:%=bin/%),$(PROGRAMS:%=$B/bin/%)) ## the programs, into bin/ (FLAVOUR=debug, asan, tsan: build/CC-FLAVOUR/bin/)
run: ## the server natively, in the foreground, on ./data and ./backup
	@.ci/deps build
	@$(MAKE) -s -j$(JOBS) build
	HARVEY_LISTEN=$${HARVEY_LISTEN:-127.0.0.1:$${PORT:-8080}} exec bin/server
demo: ## the whole story natively, asserted: write, kill, wipe, restore, compare
	@.ci/deps test
	@$(MAKE) -s -j$(JOBS) build
	@tests/demo.sh bin

.PHONY: up down logs ps hammer hammer-open status disaster restore release rolling-release
up: ## starts the stack (COMPOSE=NAME, STACK=native, PORT=8080) and waits until it is healthy
down: ## stops the stack; its volumes stay
logs: ## the stack's log
ps: ## the stack's processes
hammer: ## ten seconds of load, then the rows written and the lag
hammer-open: bin/openloop ## a fixed rate for ten seconds, no retry (RATE=1000 MODE=busy|idle|fresh METHOD=POST SVG=)
status: ## rows, role, lag
disaster: ## kills every server and deletes its data; the backup stays
restore: ## ./restore --to-latest, then the server again
release: ## recreates the server every 2 s, until Ctrl-C or N= rounds
rolling-release: ## the same, one sibling after the other
up down logs ps hammer hammer-open status disaster restore release rolling-release:
	@compose/stack.sh $@

.PHONY: unit-build unit test check
unit-build: $(UNIT) $(REPLAY)
unit: unit-build ## unit tests alone (T=test_x: one program, ROOM=base: linked with that room)
	@UNIT='$(UNIT:$B/%=%)' tests/run.sh $B:unit
# What run.sh runs is BUILD-DIRECTORY:SUITE; the release build of both is what ships.
RUN = UNIT='$(UNIT:$B/%=%)' FUZZ='$(FUZZ_NAMES)' tests/run.sh
test: ## unit and black-box tests; ends with `N passed, N failed`
	@.ci/deps test
	@$(MAKE) -s -j$(JOBS) build unit-build
	@$(MAKE) -s -j$(JOBS) FLAVOUR=hooks build
	@minio/build.sh || test -z "$$CI"
	@$(RUN) $B:unit $B:replay $B:demo $B:integration
.PHONY: test-compose
test-compose: ## the README's disaster story on containers and natively (tests/compose)
	@.ci/deps test
	@$(MAKE) -s -j$(JOBS) build
	@tests/run.sh $B:compose
check: ## test, and sanitizers, valgrind, slow suites, compose
	@.ci/deps check
	@$(MAKE) -s -j$(JOBS) build unit-build
	@$(MAKE) -s -j$(JOBS) FLAVOUR=hooks build
	@$(MAKE) -s -j$(JOBS) CC=clang FLAVOUR=asan build unit-build
	@$(MAKE) -s -j$(JOBS) CC=clang FLAVOUR=tsan build unit-build
	@minio/build.sh || test -z "$$CI"
	@$(RUN) $B:unit $B:replay $B:valgrind $B:demo $B:integration $B:slow $B:compose \
	    build/clang-asan:unit build/clang-asan:replay build/clang-asan:integration \
	    build/clang-tsan:unit build/clang-tsan:integration

.PHONY: lint format
lint: ## format, layers, banned functions, headers, licences, scripts, clang-tidy
	@.ci/deps lint
	@tests/lint/lint.sh
format: ## clang-format over every C file
	@git ls-files -co --exclude-standard '*.c' '*.h' | xargs clang-format -i

.PHONY: mutations fuzz bench soak soak-handover soak-hosts soak-releases release-hell wal-bang scenarios
mutations: ## each defence taken out, one after the other: the test for it must fail (NAME="start- door")
	@.ci/deps test
	@minio/build.sh || test -z "$$CI"
	@tests/mutations/run.py -j $(JOBS) $(NAME)
fuzz: ## every parser under a fuzzer for SECONDS=60 each (clang)
	@.ci/deps check
	@$(MAKE) -s -j$(JOBS) CC=clang FLAVOUR=fuzz fuzz-programs
	@for name in $(FUZZ_NAMES); do mkdir -p build/corpus/$$name tests/fuzz/corpus/$$name && \
	    build/clang-fuzz/tests/fuzz/$$name -max_total_time=$(SECONDS) -max_len=65536 \
	        -artifact_prefix=build/corpus/crash-$$name- \
	        build/corpus/$$name tests/fuzz/corpus/$$name || exit 1; done
.PHONY: fuzz-programs
fuzz-programs: $(FUZZ_NAMES:%=$B/tests/fuzz/%)
bench: ## what it costs, one table of ratios, 40 minutes (QUICK=1: three; JSON=FILE; GROUPS=restore)
	@.ci/deps test hey wrk
	@$(MAKE) -s -j$(JOBS) build
	@$(MAKE) -s -j$(JOBS) FLAVOUR=hooks build
	@minio/build.sh || test -z "$$CI"
	@tests/bench/bench.py $(if $(QUICK),--quick) $(if $(JSON),--json '$(JSON)') $(GROUPS)
SOAK = HARVEY_BIN=$(CURDIR)/$B/bin /usr/bin/python3 tests/soak
.PHONY: soak-ready
soak-ready: build
	@.ci/deps test
	@minio/build.sh || test -z "$$CI"
soak: soak-ready ## N=200 kill-and-restore rounds, then one server for SECONDS=60 (HARVEY_SEED repeats)
	@$(SOAK)/soak.py rounds $${N:-200}
	@$(SOAK)/soak.py run $(SECONDS)
soak-handover: soak-ready ## the lead changes N=500 times under load, every tenth time by kill -9
	@$(SOAK)/handover.py $${N:-500}
soak-hosts: soak-ready ## two hosts with the same volume, N=200 times (root)
	@$(SOAK)/hosts.py $${N:-200}
soak-releases: soak-ready ## N=200 rolling releases behind the door under a million requests
	@$(SOAK)/releases.py $${N:-200}
release-hell: soak-ready ## two servers behind the door, killed, stopped and replaced under load for SECONDS=60
	@$(SOAK)/hell.py $(SECONDS)
wal-bang: build ## N=8 containers on one volume, killed, stopped, checkpointed under, for SECONDS=60 (root)
	@.ci/deps test
	@$(SOAK)/wal_bang.py $(SECONDS) $${N:-8}
scenarios: build ## each stack released under load, one table (ROUNDS=10 per client, RATE=500, STACKS="naive compose")
	@.ci/deps test
	@/usr/bin/python3 tests/bench/scenarios.py --rounds $${ROUNDS:-10} --rate $${RATE:-500} $${STACKS:-}

.PHONY: deps clean install compile_commands.json
deps: ## Debian packages to build, test and run (as root; else the line to type)
	@.ci/deps test lint check run
compile_commands.json: ## for editors and analyzers
	@.ci/deps lint
	rm -rf build/$(CCNAME)-commands
	bear --output $@ -- $(MAKE) -s -j$(JOBS) B=build/$(CCNAME)-commands build unit-build
clean: ## removes what was built (data/, backup/ and bin/minio stay)
	rm -rf build compile_commands.json $(PROGRAMS:%=bin/%)
install: build ## server, restore, man pages and the systemd unit (DESTDIR=, PREFIX=/usr/local)
	install -D -m 755 bin/server $(DESTDIR)$(PREFIX)/sbin/harvey-server
	install -D -m 755 bin/restore $(DESTDIR)$(PREFIX)/bin/harvey-restore
	install -D -m 644 packaging/harvey-server.8 $(DESTDIR)$(PREFIX)/share/man/man8/harvey-server.8
	install -D -m 644 packaging/harvey-restore.1 $(DESTDIR)$(PREFIX)/share/man/man1/harvey-restore.1
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|@PREFIX@|$(PREFIX)|' packaging/harvey.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/harvey.service
	install -m 644 packaging/harvey.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/harvey.socket
