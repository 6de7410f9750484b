/* SPDX-License-Identifier: Apache-2.0 */
/*
 * s3_answer: headers and bodies as stores send them, whole, cut, and made up by somebody who means
 * harm; what they mean is asked of a scripted server in test_store_faults.py.
 */
#include "archive/s3_answer.h"

#include "tests/unit/checks.h"
#include "tests/unit/guarded.h"

#include <stdio.h>
#include <stdlib.h>

static void header(struct s3_answer *answer, const char *line)
{
    struct guarded guarded;
    size_t count = strlen(line);
    guarded_init(&guarded, count + 1);
    s3_answer_add_header(answer, (const char *)guarded_place(&guarded, line, count), count);
    guarded_deinit(&guarded);
}

static void body(struct s3_answer *answer, const char *text)
{
    s3_answer_add_body(answer, text, strlen(text));
}

static void begin(struct s3_answer *answer, const char *status_line)
{
    s3_answer_init(answer);
    answer->transport = S3_TRANSPORT_OK;
    header(answer, status_line);
    answer->transport = S3_TRANSPORT_OK;
}

static void test_s3_answer__headers(void **state)
{
    (void)state;
    struct s3_answer answer;
    begin(&answer, "HTTP/1.1 100 Continue\r\n");
    header(&answer, "ETag: \"old\"\r\n");
    header(&answer, "HTTP/1.1 206 Partial Content\r\n"); /* the real one: forget the first */
    assert_string_equal(answer.etag, "");
    header(&answer, "eTaG:   \"d41d8cd98f00b204e9800998ecf8427e\"  \r\n");
    header(&answer, "content-length: 7\r\n");
    header(&answer, "Content-Range: bytes 3-9/100\r\n");
    header(&answer, "Date: Tue, 24 Nov 2026 18:00:00 GMT\r\n");
    header(&answer, "no colon here\r\n");
    header(&answer, "\r\n");
    assert_int_equal(answer.http_status, 206);
    assert_string_equal(answer.etag, "d41d8cd98f00b204e9800998ecf8427e");
    assert_true(answer.has_length);
    assert_int_equal(answer.length, 7);
    assert_true(answer.has_range);
    assert_int_equal(answer.range_first, 3);
    assert_int_equal(answer.range_last, 9);
    assert_int_equal(answer.range_total, 100);
    assert_int_equal(answer.date_unix_ms, INT64_C(1795543200000));
    assert_false(answer.chunked);
}

static void test_s3_answer__headers_that_say_nothing(void **state)
{
    static const char *const lines[] = {
        "Content-Length: -1",
        "Content-Length: 7x",
        "Content-Length:",
        "Content-Length: 99999999999999999999999",
        "Content-Range: bytes */10",
        "Content-Range: bytes 9-3/100",
        "Content-Range: bytes 0-9/5",
        "Content-Range: bytes 0-9/*",
        "Content-Range: bytes ",
        "Date: yesterday",
        ":",
    };
    struct s3_answer answer;
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        begin(&answer, "HTTP/1.1 200 OK");
        header(&answer, lines[i]);
        assert_false(answer.has_length);
        assert_false(answer.has_range);
        assert_int_equal(answer.date_unix_ms, 0);
    }
    begin(&answer,
          "HTTP/1.1 206 Partial Content"); /* the last one counts, and takes the first back */
    header(&answer, "Content-Range: bytes 3-9/100");
    header(&answer, "Content-Range: bytes 3-9/*");
    assert_false(answer.has_range);
    begin(&answer, "HTTP/1.1 banana");
    assert_int_equal(answer.http_status, 0);
    begin(&answer, "HTTP/1.1");
    assert_int_equal(answer.http_status, 0);
}

static void test_s3_answer__whole_or_not(void **state)
{
    (void)state;
    struct s3_answer answer;
    begin(&answer, "HTTP/1.1 200 OK");
    body(&answer, "1234567");
    assert_false(s3_answer_is_whole(&answer)); /* its end is not marked */
    header(&answer, "Content-Length: 8");
    assert_false(s3_answer_is_whole(&answer));
    body(&answer, "8");
    assert_true(s3_answer_is_whole(&answer));
    answer.transport = S3_TRANSPORT_BROKEN;
    assert_false(s3_answer_is_whole(&answer));
    begin(&answer, "HTTP/1.1 200 OK");
    header(&answer, "Transfer-Encoding: gzip, chunked");
    assert_true(s3_answer_is_whole(&answer));
    begin(&answer, "HTTP/1.1 500 No");
    header(&answer, "Content-Length: 0");
    assert_false(s3_answer_is_whole(&answer));
}

static void test_s3_answer__listing(void **state)
{
    (void)state;
    struct s3_answer answer;
    static const char text[] =
        "<?xml?><ListBucketResult xmlns=\"x\"><Name>b</Name></ListBucketResult>\n";
    char length[40];
    (void)snprintf(length, sizeof length, "Content-Length: %zu", sizeof text - 1);
    begin(&answer, "HTTP/1.1 200 OK");
    header(&answer, length);
    for (size_t i = 0; i < sizeof text - 1; i++) { /* one byte after the other */
        assert_false(s3_answer_is_listing(&answer));
        s3_answer_add_body(&answer, text + i, 1);
    }
    assert_true(s3_answer_is_listing(&answer));
    begin(&answer, "HTTP/1.1 200 OK");
    header(&answer, "Transfer-Encoding: chunked");
    body(&answer, "<html></ListBucketResult>");
    assert_false(s3_answer_is_listing(&answer));
    begin(&answer, "HTTP/1.1 200 OK");
    header(&answer, "Transfer-Encoding: chunked"); /* well ended, and a cut document */
    body(&answer, "<ListBucketResult><Contents><Key>k</Key></Contents>");
    assert_false(s3_answer_is_listing(&answer));
}

static void test_s3_answer__error_documents(void **state)
{
    (void)state;
    struct s3_answer answer;
    struct err err = ERR_INIT;
    begin(&answer, "HTTP/1.1 503 Slow Down");
    body(&answer, "<Error><Code>SlowDownRead</Code><Message>Please\nreduce</Message></Error>");
    s3_answer_finish(&answer);
    check_fails(RC_UNAVAILABLE, s3_answer_fail(&answer, "PUT", "k", &err));
    assert_string_equal(err.text, "PUT k: 503 SlowDownRead: Please reduce");

    begin(&answer, "HTTP/1.1 404 Not Found"); /* a HEAD: said in headers */
    header(&answer, "X-Minio-Error-Code: NoSuchBucket");
    s3_answer_finish(&answer);
    check_fails(RC_NOT_FOUND, s3_answer_fail(&answer, "HEAD", "k", &err));
    check_text("bucket");

    begin(&answer, "HTTP/1.1 404 Not Found"); /* a proxy's: a store says what is missing */
    body(&answer, "404 page not found");
    s3_answer_finish(&answer);
    check_fails(RC_UNAVAILABLE, s3_answer_fail(&answer, "GET", "k", &err));
    answer.is_head = true;
    check_fails(RC_NOT_FOUND, s3_answer_fail(&answer, "HEAD", "k", &err));

    begin(&answer, "HTTP/1.1 500 x"); /* larger than what is kept, and without an end */
    for (int i = 0; i < 3000; i++) {
        body(&answer, "<Code><<<<");
    }
    s3_answer_finish(&answer);
    assert_string_equal(answer.code, "");
    assert_int_equal(answer.body_bytes, 30000);
    assert_int_equal(answer.head_count, S3_ANSWER_HEAD_BYTES);
    check_fails(RC_UNAVAILABLE, s3_answer_fail(&answer, "PUT", "k", &err));

    begin(&answer, "HTTP/1.1 200 OK");
    body(&answer, "<Code>AccessDenied</Code>"); /* an object may hold anything */
    s3_answer_finish(&answer);
    assert_string_equal(answer.code, "");
}

static void test_s3_answer__unknown_outcomes(void **state)
{
    (void)state;
    struct s3_answer answer;
    s3_answer_init(&answer);
    answer.transport = S3_TRANSPORT_TIMEOUT;
    assert_false(s3_answer_is_unknown(&answer)); /* nothing was sent */
    answer.sent = true;
    assert_true(s3_answer_is_unknown(&answer));
    header(&answer, "HTTP/1.1 200 OK");
    answer.transport = S3_TRANSPORT_BROKEN;
    assert_true(s3_answer_is_unknown(&answer)); /* a status line forgets the headers, not this */
    answer.transport = S3_TRANSPORT_OK;
    assert_false(s3_answer_is_unknown(&answer));
    answer.transport = S3_TRANSPORT_REFUSED;
    assert_false(s3_answer_is_unknown(&answer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_s3_answer__headers),
        cmocka_unit_test(test_s3_answer__headers_that_say_nothing),
        cmocka_unit_test(test_s3_answer__whole_or_not),
        cmocka_unit_test(test_s3_answer__listing),
        cmocka_unit_test(test_s3_answer__error_documents),
        cmocka_unit_test(test_s3_answer__unknown_outcomes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
