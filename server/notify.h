/* SPDX-License-Identifier: Apache-2.0 */
/*
 * notify: tells systemd how far we are (sd_notify(3)) without libsystemd: one datagram to the socket
 * that NOTIFY_SOCKET names. Without that variable nothing happens.
 *
 * Thread: main.
 */
#ifndef HARVEY_SERVER_NOTIFY_H
#define HARVEY_SERVER_NOTIFY_H

/* Sends e.g. "READY=1" or "STOPPING=1". Failing is not worth a word: nobody waits then. */
void notify_send(char *const *environment, const char *state);

#endif
