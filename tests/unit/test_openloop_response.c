/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The open-loop client's response parser. Every good answer is fed whole, byte by byte and cut in
 * two at every place, from memory that ends with it: a read past the end is seen by the sanitizer.
 *
 * The bench is no room that test programs are linked with, so its source is taken in here.
 */
#include "tests/bench/openloop_response.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

struct example {
    const char *text;
    int status;
    bool close;
    const char *body;
};

static const struct example good[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, false, "hello"},
    {"HTTP/1.1 200\r\ncontent-length:5\r\n\r\nhello", 200, false, "hello"},
    {"HTTP/1.1 200 OK\nContent-Length: 0\n\n", 200, false, ""},
    {"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
     "Content-Length: 4\r\n\r\nbusy",
     503, true, "busy"},
    {"HTTP/1.1 200 OK\r\nConnection: foo , Close\r\nContent-Length: 0\r\n\r\n", 200, true, ""},
    {"HTTP/1.1 200 OK\r\nConnection: closed\r\nContent-Length: 0\r\n\r\n", 200, false, ""},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, true, "ok"},
    {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", 200, false, "ok"},
    {"HTTP/1.1 204 No Content\r\n\r\n", 204, false, ""},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", 304, false, ""},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, false,
     "ok"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n, "
     "world...\r\n0\r\nTrailer: x\r\n\r\n",
     200, false, "hello, world..."},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 200, false, "hello"},
};

static const char *const bad[] = {
    "HTTP/2 200 OK\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 099 OK\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
    "SSH-2.0-OpenSSH\r\n",
    "\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
};

/* Feeds `bytes` from memory of exactly that size. */
static enum openloop_verdict feed(struct openloop_response *response, const char *bytes,
                                  size_t length, size_t *used)
{
    char *copy = malloc(length > 0 ? length : 1);

    assert_non_null(copy);
    memcpy(copy, bytes, length);
    enum openloop_verdict verdict = openloop_response_feed(response, copy, length, used);
    free(copy);
    return verdict;
}

static void expect_answer(const struct example *example, const struct openloop_response *response,
                          const char *body)
{
    assert_int_equal(response->status, example->status);
    assert_int_equal(response->close, example->close);
    assert_int_equal(response->body_bytes, strlen(example->body));
    assert_memory_equal(body, example->body, response->body_bytes);
}

static void test_openloop_response__good_answers_in_two_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        size_t length = strlen(good[i].text);
        for (size_t cut = 0; cut <= length; cut++) {
            struct openloop_response response;
            char body[64];
            size_t used = 0;
            openloop_response_init_capture(&response, body, sizeof body);
            enum openloop_verdict verdict = feed(&response, good[i].text, cut, &used);
            assert_int_equal(used, cut);
            assert_int_equal(verdict,
                             cut == length ? OPENLOOP_VERDICT_DONE : OPENLOOP_VERDICT_MORE);
            verdict = feed(&response, good[i].text + cut, length - cut, &used);
            assert_int_equal(verdict, OPENLOOP_VERDICT_DONE);
            expect_answer(&good[i], &response, body);
        }
    }
}

static void test_openloop_response__good_answers_byte_by_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct openloop_response response;
        char body[64];
        openloop_response_init_capture(&response, body, sizeof body);
        for (size_t at = 0; good[i].text[at] != '\0'; at++) {
            size_t used = 0;
            enum openloop_verdict verdict = feed(&response, good[i].text + at, 1, &used);
            assert_int_equal(used, 1);
            assert_int_equal(verdict, good[i].text[at + 1] == '\0' ? OPENLOOP_VERDICT_DONE
                                                                   : OPENLOOP_VERDICT_MORE);
        }
        expect_answer(&good[i], &response, body);
    }
}

static void test_openloop_response__bad_answers_are_malformed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct openloop_response response;
        size_t used = 0;
        openloop_response_init(&response);
        assert_int_equal(feed(&response, bad[i], strlen(bad[i]), &used),
                         OPENLOOP_VERDICT_MALFORMED);
        assert_int_equal(openloop_response_eof(&response), OPENLOOP_VERDICT_MALFORMED);
    }
}

static void test_openloop_response__surplus_is_not_used(void **state)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200";
    struct openloop_response response;
    size_t used = 0;

    (void)state;
    openloop_response_init(&response);
    assert_int_equal(feed(&response, text, strlen(text), &used), OPENLOOP_VERDICT_DONE);
    assert_int_equal(used, strlen(text) - strlen("HTTP/1.1 200"));
}

static void test_openloop_response__eof_ends_a_body_without_length(void **state)
{
    static const char text[] = "HTTP/1.1 200 OK\r\n\r\nuntil the end";
    struct openloop_response response;
    char body[5];
    size_t used = 0;

    (void)state;
    openloop_response_init_capture(&response, body, sizeof body);
    assert_int_equal(feed(&response, text, strlen(text), &used), OPENLOOP_VERDICT_MORE);
    assert_int_equal(openloop_response_eof(&response), OPENLOOP_VERDICT_DONE);
    assert_true(response.close);
    assert_int_equal(response.body_bytes, 5); /* the capture is full, the rest was skipped */
    assert_memory_equal(body, "until", 5);
}

static void test_openloop_response__eof_inside_an_answer_is_malformed(void **state)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell";

    (void)state;
    for (size_t length = 0; length <= strlen(text); length++) {
        struct openloop_response response;
        size_t used = 0;
        openloop_response_init(&response);
        assert_int_equal(feed(&response, text, length, &used), OPENLOOP_VERDICT_MORE);
        assert_int_equal(response.started, length > 0);
        assert_int_equal(openloop_response_eof(&response), OPENLOOP_VERDICT_MALFORMED);
    }
}

static void test_openloop_response__headers_are_bounded(void **state)
{
    struct openloop_response response;
    size_t used = 0;
    enum openloop_verdict verdict;
    size_t total = 0;

    (void)state;
    openloop_response_init(&response);
    verdict = feed(&response, "HTTP/1.1 200 OK\r\n", 17, &used);
    while (verdict == OPENLOOP_VERDICT_MORE && total < 2 * OPENLOOP_RESPONSE_HEADER_BYTES_MAX) {
        verdict = feed(&response, "X-Long: 0123456789", 18, &used);
        total += 18;
    }
    assert_int_equal(verdict, OPENLOOP_VERDICT_MALFORMED);
    assert_true(total < OPENLOOP_RESPONSE_HEADER_BYTES_MAX + 36);
}

/* A line longer than what is kept is cut, not misread as the next one. */
static void test_openloop_response__long_header_line_is_skipped(void **state)
{
    static const char tail[] = "\r\nContent-Length: 2\r\n\r\nok";
    struct openloop_response response;
    char text[1024] = "HTTP/1.1 200 OK\r\nX-Long: ";
    size_t length = strlen(text);
    size_t used = 0;

    (void)state;
    memset(text + length, 'x', 700);
    memcpy(text + length + 700, tail, sizeof tail);
    openloop_response_init(&response);
    assert_int_equal(feed(&response, text, strlen(text), &used), OPENLOOP_VERDICT_DONE);
    assert_int_equal(used, strlen(text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_openloop_response__good_answers_in_two_pieces),
        cmocka_unit_test(test_openloop_response__good_answers_byte_by_byte),
        cmocka_unit_test(test_openloop_response__bad_answers_are_malformed),
        cmocka_unit_test(test_openloop_response__surplus_is_not_used),
        cmocka_unit_test(test_openloop_response__eof_ends_a_body_without_length),
        cmocka_unit_test(test_openloop_response__eof_inside_an_answer_is_malformed),
        cmocka_unit_test(test_openloop_response__headers_are_bounded),
        cmocka_unit_test(test_openloop_response__long_header_line_is_skipped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
