/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc/net/netstat: pairs of lines "TcpExt: NAME NAME …" and "TcpExt: NUMBER NUMBER …".
 */
#include "tests/bench/openloop_kernel.h"

#include <stdlib.h>
#include <string.h>

#define LINE_BYTES 16384 /* the TcpExt line has about 2,500 today */

static void take_pair(struct openloop_kernel *kernel, char *names, char *numbers)
{
    char *name_state = NULL;
    char *number_state = NULL;
    char *name = strtok_r(names, " \n", &name_state);
    char *number = strtok_r(numbers, " \n", &number_state);

    while (name != NULL && number != NULL) {
        if (strcmp(name, "TCPSynRetrans") == 0) {
            kernel->syn_retrans_count = strtoll(number, NULL, 10);
            kernel->known = true;
        } else if (strcmp(name, "ListenOverflows") == 0) {
            kernel->listen_overflows_count = strtoll(number, NULL, 10);
            kernel->known = true;
        }
        name = strtok_r(NULL, " \n", &name_state);
        number = strtok_r(NULL, " \n", &number_state);
    }
}

struct openloop_kernel openloop_kernel_parse(FILE *netstat)
{
    struct openloop_kernel kernel = {.known = false};
    char *names = malloc(LINE_BYTES);
    char *numbers = malloc(LINE_BYTES);

    while (names != NULL && numbers != NULL && fgets(names, LINE_BYTES, netstat) != NULL &&
           fgets(numbers, LINE_BYTES, netstat) != NULL) {
        if (strncmp(names, "TcpExt:", 7) == 0) {
            take_pair(&kernel, names, numbers);
        }
    }
    free(names);
    free(numbers);
    return kernel;
}

struct openloop_kernel openloop_kernel_read(void)
{
    struct openloop_kernel kernel = {.known = false};
    FILE *netstat = fopen("/proc/net/netstat", "re");

    if (netstat != NULL) {
        kernel = openloop_kernel_parse(netstat);
        (void)fclose(netstat);
    }
    return kernel;
}
