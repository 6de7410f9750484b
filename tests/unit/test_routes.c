/* SPDX-License-Identifier: Apache-2.0 */
/* routes: the table of answers, what is refused before it is read, without any HTTP. */
#include "server/routes.h"

#include "tests/unit/checks.h"

static struct route_request request_of(const char *method, const char *path)
{
    return (struct route_request){.method = method,
                                  .path = path,
                                  .needs_host = true,
                                  .hosts = 1,
                                  .headers = 1,
                                  .header_bytes = 100,
                                  .memory_bytes_max = 7168};
}

static struct route decide(const char *method, const char *path)
{
    struct route_request request = request_of(method, path);
    return route_decide(&request);
}

static void check_answer(struct route route, enum route_answer answer)
{
    assert_int_equal(route.action, ROUTE_DO_ANSWER);
    assert_int_equal(route.answer, answer);
}

static void test_routes__table(void **state)
{
    (void)state;
    assert_int_equal(decide("GET", "/").action, ROUTE_DO_INSERT);
    assert_int_equal(decide("POST", "/").action, ROUTE_DO_INSERT);
    assert_int_equal(decide("GET", "/status").action, ROUTE_DO_STATUS);
    assert_int_equal(decide("HEAD", "/status").action, ROUTE_DO_STATUS);
    assert_int_equal(decide("GET", "/readyz").action, ROUTE_DO_READYZ);
    check_answer(decide("GET", "/livez"), ROUTE_ALIVE);
    check_answer(decide("HEAD", "/"), ROUTE_NOT_ALLOWED_APP);
    check_answer(decide("get", "/"), ROUTE_NOT_ALLOWED_APP);
    check_answer(decide("POST", "/livez"), ROUTE_NOT_ALLOWED_READ);
    check_answer(decide("GET", ""), ROUTE_NOT_FOUND);
    check_answer(decide("GET", "*"), ROUTE_NOT_FOUND);
    check_answer(decide("GET", "/statusx"), ROUTE_NOT_FOUND);
    check_answer(decide("DELETE", "/nothing"), ROUTE_NOT_FOUND);
}

static void test_routes__absolute_targets(void **state)
{
    (void)state;
    assert_int_equal(decide("GET", "http://host").action, ROUTE_DO_INSERT);
    assert_int_equal(decide("GET", "HTTP://host:80/status").action, ROUTE_DO_STATUS);
    check_answer(decide("GET", "https://host/"), ROUTE_NOT_FOUND);
}

static void test_routes__json(void **state)
{
    (void)state;
    struct route_request request = request_of("GET", "/status");
    route_note_header(&request, "ACCEPT", "text/html, application/JSON");
    assert_int_equal(route_decide(&request).action, ROUTE_DO_STATUS_JSON);
    route_note_argument(&request, "format", "text");
    assert_int_equal(route_decide(&request).action, ROUTE_DO_STATUS);
    route_note_argument(&request, "format", "json");
    route_note_argument(&request, "other", "text");
    assert_int_equal(route_decide(&request).action, ROUTE_DO_STATUS_JSON);
    request = request_of("GET", "/status");
    route_note_header(&request, "Accept-Encoding", "application/json");
    assert_int_equal(route_decide(&request).action, ROUTE_DO_STATUS);
}

static void test_routes__ack(void **state)
{
    (void)state;
    struct route_request request = request_of("GET", "/");
    route_note_header(&request, "harvey-ack", "Local");
    assert_int_equal(route_decide(&request).action, ROUTE_DO_INSERT);
    route_note_header(&request, "Harvey-Ack", "archive");
    check_answer(route_decide(&request), ROUTE_NO_ACK_ARCHIVE);
    route_note_header(&request, "Harvey-Ack", "soon");
    check_answer(route_decide(&request), ROUTE_BAD_ACK);
    request.path = "/status"; /* only inserts are acknowledged */
    assert_int_equal(route_decide(&request).action, ROUTE_DO_STATUS);
}

static void check_at_once(const struct route_request *request, enum route_answer answer)
{
    struct route route = route_decide(request);
    check_answer(route, answer);
    assert_true(route.at_once);
}

static void test_routes__framing(void **state)
{
    (void)state;
    struct route_request request = request_of("POST", "/");
    assert_false(route_decide(&request).has_body);
    route_note_header(&request, "Content-Length", "0");
    assert_false(route_decide(&request).has_body);
    request = request_of("POST", "/");
    route_note_header(&request, "content-length", "1024");
    assert_true(route_decide(&request).has_body);
    assert_false(route_decide(&request).at_once);
    route_note_header(&request, "Transfer-Encoding", "chunked");
    check_at_once(&request, ROUTE_BAD_FRAMING);
    request = request_of("POST", "/");
    route_note_header(&request, "Transfer-Encoding", "Chunked");
    assert_true(route_decide(&request).has_body);
    route_note_header(&request, "Transfer-Encoding", "chunked");
    check_at_once(&request, ROUTE_BAD_FRAMING);
    request = request_of("POST", "/");
    route_note_header(&request, "Transfer-Encoding", "gzip, chunked");
    check_at_once(&request, ROUTE_NO_CODING);
    request = request_of("POST", "/");
    route_note_header(&request, "Content-Length", "1025");
    check_at_once(&request, ROUTE_BODY_TOO_LARGE);
    request = request_of("POST", "/");
    route_note_header(&request, "Content-Length", "18446744073709551617"); /* 2^64 + 1 */
    check_at_once(&request, ROUTE_BODY_TOO_LARGE);
    request = request_of("POST", "/nothing"); /* whatever the path */
    route_note_header(&request, "Content-Length", "99999999999999999999999999");
    check_at_once(&request, ROUTE_BODY_TOO_LARGE);
}

/* Another server may read another request out of these: refused, whatever else they are. */
static void test_routes__headers_that_are_none(void **state)
{
    (void)state;
    static const char *const names[] = {
        "Transfer-Encoding ", "Content-Length\t", " Host", "", "X\x7f", "\xc3\xa9"};
    static const char *const values[] = {"a\rb", "a\nb", "\x01"};
    struct route_request request;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        request = request_of("POST", "/");
        route_note_header(&request, names[i], "chunked");
        check_at_once(&request, ROUTE_BAD_HEADER);
    }
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        request = request_of("GET", "/");
        route_note_header(&request, "X", values[i]);
        check_at_once(&request, ROUTE_BAD_HEADER);
    }
    request = request_of("GET", "/");
    route_note_header(&request, "X!#$%&'*+-.^_`|~", "\tgr\xc3\xbc\xc3\x9f \"e\"");
    assert_int_equal(route_decide(&request).action, ROUTE_DO_INSERT);
    request = request_of("POST", "/");
    request.knows_no_chunks = true;
    route_note_header(&request, "Transfer-Encoding", "chunked");
    check_at_once(&request, ROUTE_BAD_FRAMING);
}

static void test_routes__host(void **state)
{
    (void)state;
    struct route_request request = request_of("GET", "/");
    request.hosts = 0;
    check_at_once(&request, ROUTE_BAD_HOST);
    request.needs_host = false; /* HTTP/1.0 */
    assert_int_equal(route_decide(&request).action, ROUTE_DO_INSERT);
    route_note_header(&request, "HOST", "a");
    assert_int_equal(route_decide(&request).action, ROUTE_DO_INSERT);
    route_note_header(&request, "Host", "b");
    check_at_once(&request, ROUTE_BAD_HOST);
}

static void test_routes__sizes(void **state)
{
    (void)state;
    char path[ROUTE_PATH_BYTES_MAX + 2];
    memset(path, 'a', sizeof path);
    path[0] = '/';
    path[ROUTE_PATH_BYTES_MAX] = '\0';
    check_answer(decide("GET", path), ROUTE_NOT_FOUND);
    path[ROUTE_PATH_BYTES_MAX] = 'a';
    path[ROUTE_PATH_BYTES_MAX + 1] = '\0';
    struct route_request request = request_of("GET", path);
    check_at_once(&request, ROUTE_PATH_TOO_LONG);
    request = request_of("GET", "/");
    request.header_bytes = request.memory_bytes_max - 80;
    assert_int_equal(route_decide(&request).action, ROUTE_DO_INSERT);
    request.header_bytes++;
    check_at_once(&request, ROUTE_HEADERS_TOO_LARGE);
    request = request_of("GET", "/");
    for (unsigned i = 0; i < 100; i++) {
        route_note_header(&request, "X", "y");
    }
    check_at_once(&request, ROUTE_HEADERS_TOO_LARGE);
}

static void test_routes__every_fixed_answer_is_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < ROUTE_ANSWER_COUNT; i++) {
        const struct route_answer_text *text = &route_answers[i];
        size_t bytes = strlen(text->body);
        assert_in_range(text->status, 200, 599);
        assert_true(bytes > 1 && text->body[bytes - 1] == '\n');
        assert_int_equal(text->allow != NULL, text->status == 405);
        assert_int_equal(text->retry_after_s != NULL, text->status == 503);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes__table),
        cmocka_unit_test(test_routes__absolute_targets),
        cmocka_unit_test(test_routes__json),
        cmocka_unit_test(test_routes__ack),
        cmocka_unit_test(test_routes__framing),
        cmocka_unit_test(test_routes__headers_that_are_none),
        cmocka_unit_test(test_routes__host),
        cmocka_unit_test(test_routes__sizes),
        cmocka_unit_test(test_routes__every_fixed_answer_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
