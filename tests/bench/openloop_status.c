/* SPDX-License-Identifier: Apache-2.0 */
/* GET /status: see openloop_status.h. */
#include "tests/bench/openloop_status.h"

#include "base/clk.h"
#include "tests/bench/openloop_response.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define TRIES_MS INT64_C(10000)
#define PAUSE_MS 50
#define ANSWER_S 2
#define BODY_BYTES 256 /* the first line is all we want */

enum rc openloop_status_parse_rows(const char *body, int64_t *rows, struct err *err)
{
    static const char label[] = "Total rows: ";
    char *end = NULL;

    if (strncmp(body, label, sizeof label - 1) == 0) {
        const char *digits = body + sizeof label - 1;
        errno = 0;
        long long value = strtoll(digits, &end, 10);
        if (errno == 0 && end != digits && value >= 0 &&
            (*end == '\n' || *end == '\r' || *end == '\0')) {
            *rows = value;
            return RC_OK;
        }
    }
    return err_set(err, RC_INVALID, "/status does not begin with 'Total rows: N'");
}

static enum rc receive_body(int fd, char body[BODY_BYTES], struct err *err)
{
    struct openloop_response response;
    enum openloop_verdict verdict = OPENLOOP_VERDICT_MORE;

    openloop_response_init_capture(&response, body, BODY_BYTES - 1);
    while (verdict == OPENLOOP_VERDICT_MORE) {
        char bytes[4096];
        size_t used = 0;
        ssize_t count = recv(fd, bytes, sizeof bytes, 0);
        if (count < 0) {
            return err_set_errno(err, RC_UNAVAILABLE, "GET /status");
        }
        verdict = count == 0 ? openloop_response_eof(&response)
                             : openloop_response_feed(&response, bytes, (size_t)count, &used);
    }
    body[response.body_bytes] = '\0';
    if (verdict != OPENLOOP_VERDICT_DONE || response.status != 200) {
        return err_set(err, RC_UNAVAILABLE, "GET /status: answer %d", response.status);
    }
    return RC_OK;
}

static enum rc ask_once(const struct openloop_options *options, int64_t *rows, struct err *err)
{
    struct timeval limit = {.tv_sec = ANSWER_S};
    char request[OPENLOOP_HOST_BYTES + 128];
    char body[BODY_BYTES];
    int length = snprintf(request, sizeof request,
                          "GET /status HTTP/1.1\r\nHost: %s\r\nAccept: text/plain\r\n"
                          "Connection: close\r\n\r\n",
                          options->host);
    int fd = socket(options->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    enum rc rc;

    if (fd < 0) {
        return err_set_errno(err, RC_IO, "socket");
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, (const struct sockaddr *)&options->address, options->address_bytes) < 0 ||
        send(fd, request, (size_t)length, MSG_NOSIGNAL) != length) {
        rc = err_set_errno(err, RC_UNAVAILABLE, "GET http://%s/status", options->host);
    } else {
        rc = receive_body(fd, body, err);
    }
    if (rc == RC_OK) {
        rc = openloop_status_parse_rows(body, rows, err);
    }
    close(fd);
    return rc;
}

enum rc openloop_status_get_rows(const struct openloop_options *options, int64_t *rows,
                                 struct err *err)
{
    int64_t deadline_ms = clk_monotonic_ms() + TRIES_MS;
    enum rc rc = ask_once(options, rows, err);

    while (rc != RC_OK && rc != RC_INVALID && clk_monotonic_ms() < deadline_ms) {
        clk_pause_ms(PAUSE_MS);
        rc = ask_once(options, rows, err);
    }
    return rc;
}
