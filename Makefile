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
PORT    ?= 8080
COMPOSE ?= compose/compose.yaml
STACK   ?=
N       ?=
SECONDS ?= 60
PREFIX  ?= /usr/local
DESTDIR ?=
JOBS    ?= $(shell nproc)
PYTEST  ?= /usr/bin/python3 -m pytest
export PORT COMPOSE STACK COMPOSE_CMD MINIO_IMAGE N

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
OPT_fuzz    := -O1 -g -fno-omit-frame-pointer \
               -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
OPT := $(OPT_$(FLAVOUR))
$(if $(OPT),,$(error FLAVOUR=$(FLAVOUR): known are release, debug, asan, tsan, fuzz))

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
ARCHIVE    := $(call objs,archive/*.c)
REPLICATOR := $(call objs,replicator/*.c)
RESTORER   := $(call objs,restorer/*.c,restorer/restore_main.c)
SERVER     := $(call objs,server/*.c,server/server_main.c)
# ROOM="base archive" T="test_codec" links and runs less: for work on one room while another is broken.
ROOM       ?= BASE ARCHIVE REPLICATOR RESTORER SERVER
ROOMS      := $(foreach r,$(ROOM),$($(shell echo $r | tr a-z A-Z)))

PROGRAMS := $(if $(wildcard server/server_main.c),server) $(if $(wildcard restorer/restore_main.c),restore) \
            $(if $(wildcard server/door/*.c),door) $(if $(wildcard tests/bench/openloop*.c),openloop)

$B/bin/server:   $(ROOMS) $(call objs,server/server_main.c)
$B/bin/restore:  $(BASE) $(ARCHIVE) $(RESTORER) $(call objs,restorer/restore_main.c)
$B/bin/door:     $(BASE) $(call objs,server/door/*.c)
$B/bin/openloop: $(BASE) $(call objs,tests/bench/openloop*.c)
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
$B/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' "$$(printf '%s' '$(subst ','\'',$(COMPILE))')" | cmp -s - $@ || \
	    printf '%s\n' '$(subst ','\'',$(COMPILE))' >$@

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
$(REPLAY): $B/tests/replay/%: $B/obj/tests/fuzz/%.o $B/obj/tests/fuzz/replay.o $(ROOMS)
	@mkdir -p $(@D)
	$(LINK) $(LIBS)
$(FUZZ_NAMES:%=$B/tests/fuzz/%): $B/tests/fuzz/%: $B/obj/tests/fuzz/%.o $(ROOMS)
	@mkdir -p $(@D)
	$(LINK) -fsanitize=fuzzer $(LIBS)

.SECONDARY:
-include $(patsubst %.o,%.d,$(call objs,base/*.c archive/*.c replicator/*.c restorer/*.c server/*.c \
    server/door/*.c tests/unit/*.c tests/fault/*.c tests/fuzz/*.c tests/bench/*.c))

# ---- targets ----
.PHONY: help FORCE
help: ## this list
	@sed -n 's/^\([a-z][a-z_.-]*\):.*## /\1\t/p' Makefile | awk -F'\t' '{printf "  make %-22s %s\n", $$1, $$2}'
FORCE:

.PHONY: build
build: $(if $(filter release,$(FLAVOUR)),$(PROGRAMS:%=bin/%),$(PROGRAMS:%=$B/bin/%)) ## the programs, into bin/ (FLAVOUR= debug, asan, tsan: build/CC-FLAVOUR/bin/)

.PHONY: unit-build unit
unit-build: $(UNIT) $(REPLAY)
unit: unit-build ## unit tests of this CC and FLAVOUR alone (T=test_x: one program)
	@set -e; for t in $(UNIT); do echo "== $$t"; $$t; done

.PHONY: clean
clean: ## removes what was built (data/, backup/ and bin/minio stay)
	rm -rf build compile_commands.json $(PROGRAMS:%=bin/%)
