/* SPDX-License-Identifier: Apache-2.0 */
/*
 * failpoint: named places where a test can kill the process, so that a crash is tried at each step
 * that data hangs on. Compiled to nothing unless HARVEY_TEST_HOOKS is defined (make FLAVOUR=hooks).
 *
 * With hooks, the environment variable HARVEY_TEST_FAILPOINT=<name>:<n> kills the process with
 * SIGKILL the n-th time that <name> is reached; with HARVEY_TEST_FAILPOINT_STOPS=1 it stands still there
 * (SIGSTOP) until the test lets it go on. HARVEY_TEST_FAILPOINT_LOG=<file> appends each name reached for
 * the first time. All names are listed in failpoint.c; an unknown one aborts.
 * HARVEY_TEST_HOLD=<name>:<file> holds whoever reaches <name> as long as <file> exists; <file>.held
 * exists meanwhile.
 *
 * Thread: any.
 */
#ifndef HARVEY_BASE_FAILPOINT_H
#define HARVEY_BASE_FAILPOINT_H

#ifdef HARVEY_TEST_HOOKS
#include <stdbool.h>
void failpoint_reach(const char *name);
/*
 * True when the environment variable HARVEY_TEST_<name> is set: takes a defence out, or lets one thread
 * win a race, for a test; or makes what a measurement compares with (ONE_ROW, NO_DATABASE).
 */
bool failpoint_switch(const char *name);
#define FAILPOINT(name) failpoint_reach(name)
#define FAILPOINT_SWITCH(name) failpoint_switch(name)
#else
#define FAILPOINT(name) ((void)0)
#define FAILPOINT_SWITCH(name) false
#endif

#endif
