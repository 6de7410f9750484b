/* SPDX-License-Identifier: Apache-2.0 */
/*
 * s3_guard: see s3_guard.h. libs3 2.0's defects that it answers are numbered in the comments after
 * docs (and tests/fault/s3_script.py): D1 failed PUT reported as success, D2 success reported as
 * failure, D3 cut body, D4 cut listing, D8 no ETag, D9 no verification, D10 header names in lower
 * case, D11 memory overrun in the error parser, D13 redirects.
 */
#include "archive/s3_guard.h"

#include "base/clk.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#undef curl_easy_setopt

/*
 * Below this the body travels with its headers: waiting for 100 Continue would cost a round trip on
 * every segment. Above it a refusal (403, 412, 503) is worth hearing before the bytes are sent.
 */
#define S3_GUARD_EXPECT_BYTES (1u << 20)

/*
 * What a body must move on average, once the time-out has passed. Six parts of a snapshot that share
 * one line (restorer/load.c) need six times that: 0.8 Mbit/s.
 */
#define S3_GUARD_KIB_PER_S_MIN 16

/*
 * Of an upload we see what the kernel took. By itself it takes up to 4 MiB ahead of a slow line, and
 * would stand still for minutes then; so much is enough for a fast one.
 */
#define S3_GUARD_UNSENT_BYTES_MAX (256 * 1024)

static pthread_mutex_t s3_guard_compose = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local struct s3_guard_call *s3_guard_current;

/* The linker's names: what libs3 calls, and libcurl's own functions. */
CURLcode __wrap_curl_easy_setopt(CURL *handle, CURLoption option, ...);
CURLcode __real_curl_easy_setopt(CURL *handle, CURLoption option, ...);
CURLcode __wrap_curl_easy_perform(CURL *handle);
CURLcode __real_curl_easy_perform(CURL *handle);

static void s3_guard_unlock(struct s3_guard_call *call)
{
    if (call->locked) {
        call->locked = false;
        ASSERT(pthread_mutex_unlock(&s3_guard_compose) == 0);
    }
}

void s3_guard_begin(struct s3_guard_call *call)
{
    ASSERT(s3_guard_current == NULL);
    ASSERT(call->request_timeout_ms > 0 && call->connect_timeout_ms > 0);
    s3_answer_init(&call->answer);
    call->performed_count = 0;
    call->upload_offset = 0;
    call->is_upload = false;
    call->too_slow = false;
    call->moved_ms = 0;
    call->moved_bytes = 0;
    call->libs3_headers = NULL;
    call->libs3_write = NULL;
    ASSERT(pthread_mutex_lock(&s3_guard_compose) == 0);
    call->locked = true;
    s3_guard_current = call;
}

void s3_guard_end(struct s3_guard_call *call)
{
    ASSERT(s3_guard_current == call);
    s3_guard_unlock(call); /* libs3 may have given up before it performed anything */
    s3_guard_current = NULL;
    s3_answer_finish(&call->answer);
}

/* ---- how long a call may take ---- */

static int64_t s3_guard_elapsed_ms(const struct s3_guard_call *call)
{
    return clk_monotonic_ms() - call->began_ms;
}

static void s3_guard_add_moved(struct s3_guard_call *call, size_t count)
{
    call->moved_bytes += count;
    call->moved_ms = s3_guard_elapsed_ms(call);
}

/*
 * The time-out alone would end every large body on a slow line, each try anew. So a body that moves
 * earns time by its bytes; but nothing may stand still for longer than the time-out: a large upload
 * that was sent in a moment and is never answered ends as soon as a small one.
 */
static int64_t s3_guard_allowed_ms(const struct s3_guard_call *call)
{
    int64_t earned_ms = (int64_t)(call->moved_bytes * 1000 / (S3_GUARD_KIB_PER_S_MIN * 1024));
    return call->request_timeout_ms + (earned_ms < call->moved_ms ? earned_ms : call->moved_ms);
}

/* The words end in an alarm or on a terminal: where it is the line, they say so. */
static void s3_guard_say_too_slow(struct s3_guard_call *call)
{
    struct s3_answer *answer = &call->answer;
    int64_t elapsed_ms = s3_guard_elapsed_ms(call);
    bool was_sent = call->is_upload && call->upload_offset == call->upload_bytes;
    char line[64] = "";
    if (call->moved_bytes > 0 && !was_sent &&
        call->moved_bytes * 1000 / 1024 < (uint64_t)elapsed_ms * S3_GUARD_KIB_PER_S_MIN) {
        (void)snprintf(line, sizeof line, ": the line to the store is slower than %d KiB/s",
                       S3_GUARD_KIB_PER_S_MIN);
    }
    (void)snprintf(answer->transport_text, sizeof answer->transport_text,
                   "timed out after %" PRId64 " s and %" PRIu64 " bytes%s", elapsed_ms / 1000,
                   call->moved_bytes, line);
}

/* ---- callbacks that libcurl gets instead of libs3's ---- */

static size_t s3_guard_on_header(char *line, size_t size, size_t count, void *arg)
{
    struct s3_guard_call *call = arg;
    s3_answer_add_header(&call->answer, line, size * count);
    return size * count;
}

/* No store sends one, and libs3 leaks the document that libxml2 makes for it. */
static bool s3_guard_has_document_type(const struct s3_guard_call *call)
{
    static const char declared[] = "<!DOCTYPE";
    const struct s3_answer *answer = &call->answer;
    return call->is_xml &&
           memmem(answer->head, answer->head_count, declared, strlen(declared)) != NULL;
}

/* Only the body of a good answer to a GET goes on to libs3: the rest is for us to read (D11). */
static size_t s3_guard_on_body(char *bytes, size_t size, size_t count, void *arg)
{
    struct s3_guard_call *call = arg;
    s3_answer_add_body(&call->answer, bytes, size * count);
    long status = call->answer.http_status;
    if (!call->wants_body || call->libs3_write == NULL || status < 200 || status > 299) {
        return size * count;
    }
    bool too_long = call->body_bytes_max > 0 && call->answer.body_bytes > call->body_bytes_max;
    if (too_long || s3_guard_has_document_type(call)) {
        return 0; /* libcurl ends the call: S3_TRANSPORT_ABORTED */
    }
    s3_guard_add_moved(call, size * count); /* an error's body earns nothing */
    return call->libs3_write(bytes, size, count, call->libs3_write_arg);
}

static size_t s3_guard_on_read(char *bytes, size_t size, size_t count, void *arg)
{
    struct s3_guard_call *call = arg;
    size_t room = size * count;
    size_t left = call->upload_bytes - call->upload_offset;
    size_t take = room < left ? room : left;
    if (take > 0) {
        memcpy(bytes, call->upload + call->upload_offset, take);
        call->upload_offset += take;
        s3_guard_add_moved(call, take);
    }
    return take;
}

/* libcurl sends again on a new connection when a kept one turns out to be dead. */
static int s3_guard_on_seek(void *arg, curl_off_t offset, int origin)
{
    struct s3_guard_call *call = arg;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > call->upload_bytes) {
        return CURL_SEEKFUNC_CANTSEEK;
    }
    call->answer.resent = call->answer.resent || call->upload_offset > 0;
    call->upload_offset = (size_t)offset;
    return CURL_SEEKFUNC_OK;
}

static int s3_guard_on_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
    static const int unsent_bytes = S3_GUARD_UNSENT_BYTES_MAX;
    (void)arg;
    (void)purpose;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_bytes, sizeof unsent_bytes);
    return CURL_SOCKOPT_OK;
}

/* Called at least once a second, also before anything moves: not 0 ends the transfer. */
static int s3_guard_on_progress(void *arg, curl_off_t down_total, curl_off_t down,
                                curl_off_t up_total, curl_off_t up)
{
    struct s3_guard_call *call = arg;
    (void)down_total;
    (void)down;
    (void)up_total;
    (void)up;
    bool stops = call->stop != NULL && stop_level(call->stop) >= STOP_NOW;
    call->too_slow = !stops && s3_guard_elapsed_ms(call) > s3_guard_allowed_ms(call);
    return stops || call->too_slow;
}

/* ---- options ---- */

/*
 * Takes the option when it is one that the guard sets itself; true = libs3's value goes nowhere.
 * A plain `int` switch: the enum has three hundred members.
 */
static bool s3_guard_take(struct s3_guard_call *call, int option, va_list args)
{
    switch (option) {
    case CURLOPT_HTTPHEADER:
        call->libs3_headers = va_arg(args, const struct curl_slist *);
        return true;
    case CURLOPT_WRITEFUNCTION:
        call->libs3_write = va_arg(args, curl_write_callback);
        return true;
    case CURLOPT_WRITEDATA:
        call->libs3_write_arg = va_arg(args, void *);
        return true;
    case CURLOPT_UPLOAD:
        call->is_upload = true;
        return false;
    case CURLOPT_NOBODY: /* libs3 sets it for a HEAD only */
        call->answer.is_head = true;
        return false;
    case CURLOPT_HEADERFUNCTION:
    case CURLOPT_HEADERDATA:
    case CURLOPT_READFUNCTION:
    case CURLOPT_READDATA:
    case CURLOPT_NOPROGRESS:
    case CURLOPT_NOSIGNAL:
    case CURLOPT_SSL_VERIFYPEER:
    case CURLOPT_SSL_VERIFYHOST:
    case CURLOPT_FOLLOWLOCATION:
    case CURLOPT_MAXREDIRS:
    case CURLOPT_LOW_SPEED_LIMIT:
    case CURLOPT_LOW_SPEED_TIME:
        return true;
    default:
        return false;
    }
}

/*
 * An option's number says which type its argument has (curl.h). Function pointers travel as object
 * pointers here: both are one machine word in a variadic call on every system that libs3 builds on.
 */
static CURLcode s3_guard_forward(CURL *handle, CURLoption option, va_list args)
{
    if (option < CURLOPTTYPE_OBJECTPOINT) {
        return __real_curl_easy_setopt(handle, option, va_arg(args, long));
    }
    if (option >= CURLOPTTYPE_OFF_T && option < CURLOPTTYPE_BLOB) {
        return __real_curl_easy_setopt(handle, option, va_arg(args, curl_off_t));
    }
    return __real_curl_easy_setopt(handle, option, va_arg(args, void *));
}

CURLcode __wrap_curl_easy_setopt(CURL *handle, CURLoption option, ...)
{
    struct s3_guard_call *call = s3_guard_current;
    va_list args;
    CURLcode code = CURLE_OK;
    va_start(args, option);
    if (call == NULL || s3_guard_is_off() || !s3_guard_take(call, (int)option, args)) {
        code = s3_guard_forward(handle, option, args);
    }
    va_end(args);
    return code;
}

/* ---- perform ---- */

struct s3_guard_long {
    CURLoption option;
    long value;
};

static CURLcode s3_guard_set_longs(CURL *handle, const struct s3_guard_call *call)
{
    /* A download that stands still for half its time is given up; an upload may wait in silence
     * for as long as the store needs to write it. 0 = no limit. */
    long stall_s = call->is_upload ? 0 : (long)(call->request_timeout_ms / 2000) + 1;
    const struct s3_guard_long longs[] = {
        {CURLOPT_NOSIGNAL, 1},
        {CURLOPT_NOPROGRESS, 0},
        {CURLOPT_CONNECTTIMEOUT_MS, (long)call->connect_timeout_ms},
        {CURLOPT_TIMEOUT_MS, 0}, /* s3_guard_on_progress knows better */
        {CURLOPT_LOW_SPEED_LIMIT, 1},
        {CURLOPT_LOW_SPEED_TIME, stall_s},
        {CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1}, /* D2 */
        {CURLOPT_SSL_VERIFYPEER, 1},                   /* D9 */
        {CURLOPT_SSL_VERIFYHOST, 2},
        {CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2},
        {CURLOPT_FOLLOWLOCATION, 0}, /* D13: never to another host with our credentials */
        {CURLOPT_TCP_KEEPALIVE, 1},
    };
    for (size_t i = 0; i < sizeof longs / sizeof *longs; i++) {
        CURLcode code = __real_curl_easy_setopt(handle, longs[i].option, longs[i].value);
        if (code != CURLE_OK) {
            return code;
        }
    }
    return CURLE_OK;
}

static CURLcode s3_guard_set_callbacks(CURL *handle, struct s3_guard_call *call)
{
    CURLcode code = CURLE_OK;
#define S3_GUARD_SET(option, value)                                                                \
    code = code != CURLE_OK ? code : __real_curl_easy_setopt(handle, option, value)
    S3_GUARD_SET(CURLOPT_HEADERFUNCTION, s3_guard_on_header);
    S3_GUARD_SET(CURLOPT_HEADERDATA, (void *)call);
    S3_GUARD_SET(CURLOPT_WRITEFUNCTION, s3_guard_on_body);
    S3_GUARD_SET(CURLOPT_WRITEDATA, (void *)call);
    S3_GUARD_SET(CURLOPT_XFERINFOFUNCTION, s3_guard_on_progress);
    S3_GUARD_SET(CURLOPT_XFERINFODATA, (void *)call);
    S3_GUARD_SET(CURLOPT_SOCKOPTFUNCTION, s3_guard_on_socket);
    S3_GUARD_SET(CURLOPT_ERRORBUFFER, call->curl_text);
    S3_GUARD_SET(CURLOPT_PROTOCOLS_STR, "http,https");
    /*
     * The environment may name a proxy for the programs around us; the store is reached directly.
     */
    S3_GUARD_SET(CURLOPT_PROXY, "");
    if (call->is_upload) {
        S3_GUARD_SET(CURLOPT_READFUNCTION, s3_guard_on_read);
        S3_GUARD_SET(CURLOPT_READDATA, (void *)call);
        S3_GUARD_SET(CURLOPT_SEEKFUNCTION, s3_guard_on_seek);
        S3_GUARD_SET(CURLOPT_SEEKDATA, (void *)call);
        S3_GUARD_SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)call->upload_bytes);
    }
    if (call->ca_file != NULL && *call->ca_file != '\0') {
        S3_GUARD_SET(CURLOPT_CAINFO, call->ca_file);
    }
#undef S3_GUARD_SET
    return code;
}

static bool s3_guard_append(struct curl_slist **list, const char *line)
{
    struct curl_slist *grown = curl_slist_append(*list, line);
    if (grown != NULL) {
        *list = grown;
    }
    return grown != NULL;
}

/*
 * libs3's headers, with ours. A header with nothing behind its colon tells libcurl not to send it.
 */
static CURLcode s3_guard_set_headers(CURL *handle, const struct s3_guard_call *call,
                                     struct curl_slist **list)
{
    bool ok = true;
    for (const struct curl_slist *h = call->libs3_headers; ok && h != NULL; h = h->next) {
        ok = s3_guard_append(list, h->data);
    }
    if (ok && call->if_none_match) {
        ok = s3_guard_append(list, "If-None-Match: *");
    }
    if (ok && call->is_upload && call->upload_bytes < S3_GUARD_EXPECT_BYTES) {
        ok = s3_guard_append(list, "Expect:");
    }
    return ok ? __real_curl_easy_setopt(handle, CURLOPT_HTTPHEADER, *list) : CURLE_OUT_OF_MEMORY;
}

static enum s3_transport s3_guard_transport(CURLcode code)
{
    switch ((int)code) {
    case CURLE_OK:
        return S3_TRANSPORT_OK;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
        return S3_TRANSPORT_REFUSED;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
        return S3_TRANSPORT_UNTRUSTED;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_SSL_CACERT_BADFILE:
        return S3_TRANSPORT_UNUSABLE;
    case CURLE_OPERATION_TIMEDOUT:
        return S3_TRANSPORT_TIMEOUT;
    case CURLE_ABORTED_BY_CALLBACK:
        return S3_TRANSPORT_STOPPED;
    case CURLE_WRITE_ERROR: /* a callback of ours or libs3's would not take the body */
        return S3_TRANSPORT_ABORTED;
    case CURLE_OUT_OF_MEMORY:
        return S3_TRANSPORT_NOMEM;
    default:
        return S3_TRANSPORT_BROKEN;
    }
}

static void s3_guard_conclude(CURL *handle, struct s3_guard_call *call, CURLcode code)
{
    struct s3_answer *answer = &call->answer;
    long request_bytes = 0;
    bool too_slow = call->too_slow && code == CURLE_ABORTED_BY_CALLBACK;
    answer->transport = too_slow ? S3_TRANSPORT_TIMEOUT : s3_guard_transport(code);
    if (curl_easy_getinfo(handle, CURLINFO_REQUEST_SIZE, &request_bytes) == CURLE_OK) {
        answer->sent = request_bytes > 0;
    }
    if (too_slow) {
        s3_guard_say_too_slow(call);
    } else if (code != CURLE_OK) {
        (void)snprintf(answer->transport_text, sizeof answer->transport_text, "%s",
                       call->curl_text[0] != '\0' ? call->curl_text : curl_easy_strerror(code));
    } else if (s3_answer_is_success(answer) && call->upload_offset != call->upload_bytes) {
        answer->transport = S3_TRANSPORT_BROKEN;
        (void)snprintf(answer->transport_text, sizeof answer->transport_text,
                       "answered %ld after %zu of %zu bytes", answer->http_status,
                       call->upload_offset, call->upload_bytes);
    }
}

/* libs3 keeps the handle for later requests: nothing in it may point at this call any more. */
static void s3_guard_forget(CURL *handle)
{
    (void)__real_curl_easy_setopt(handle, CURLOPT_HTTPHEADER, NULL);
    (void)__real_curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, NULL);
    (void)__real_curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 1L);
}

CURLcode __wrap_curl_easy_perform(CURL *handle)
{
    struct s3_guard_call *call = s3_guard_current;
    if (call == NULL) {
        return __real_curl_easy_perform(handle);
    }
    call->performed_count++;
    s3_guard_unlock(call); /* the request is composed */
    if (s3_guard_is_off()) {
        return __real_curl_easy_perform(handle);
    }
    struct curl_slist *headers = NULL;
    call->began_ms = clk_monotonic_ms();
    call->curl_text[0] = '\0';
    CURLcode code = s3_guard_set_longs(handle, call);
    if (code == CURLE_OK) {
        code = s3_guard_set_callbacks(handle, call);
    }
    if (code == CURLE_OK) {
        code = s3_guard_set_headers(handle, call, &headers);
    }
    if (code == CURLE_OK) {
        code = __real_curl_easy_perform(handle);
    }
    s3_guard_conclude(handle, call, code);
    s3_guard_forget(handle);
    curl_slist_free_all(headers);
    return code;
}
