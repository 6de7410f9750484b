/* SPDX-License-Identifier: Apache-2.0 */
/* Options of the open-loop client: see openloop_options.h. */
#include "tests/bench/openloop_options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PORT 8080
#define DEFAULT_RATE 1000
#define DEFAULT_SECONDS 10
#define DEFAULT_TIMEOUT_MS 5000

/* What the command line says before it is put together; -1 and NULL mean "not given". */
struct raw_options {
    const char *host;
    const char *path;
    int64_t port;
    int64_t rate;
    int64_t seconds;
    int64_t requests;
    int64_t connections;
    int64_t timeout_ms;
    char url_host[OPENLOOP_HOST_BYTES];
};

enum option_code {
    OPT_URL = 256,
    OPT_HOST,
    OPT_PORT,
    OPT_PATH,
    OPT_RATE,
    OPT_SECONDS,
    OPT_REQUESTS,
    OPT_CONNECTIONS,
    OPT_MODE,
    OPT_METHOD,
    OPT_BODY,
    OPT_TIMEOUT_MS,
    OPT_JSON,
    OPT_SVG,
    OPT_MARKS,
    OPT_ROWS_FROM_STATUS,
    OPT_QUIET,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"url", required_argument, NULL, OPT_URL},
    {"host", required_argument, NULL, OPT_HOST},
    {"port", required_argument, NULL, OPT_PORT},
    {"path", required_argument, NULL, OPT_PATH},
    {"rate", required_argument, NULL, OPT_RATE},
    {"seconds", required_argument, NULL, OPT_SECONDS},
    {"requests", required_argument, NULL, OPT_REQUESTS},
    {"connections", required_argument, NULL, OPT_CONNECTIONS},
    {"mode", required_argument, NULL, OPT_MODE},
    {"method", required_argument, NULL, OPT_METHOD},
    {"body", required_argument, NULL, OPT_BODY},
    {"timeout-ms", required_argument, NULL, OPT_TIMEOUT_MS},
    {"json", no_argument, NULL, OPT_JSON},
    {"svg", required_argument, NULL, OPT_SVG},
    {"marks", required_argument, NULL, OPT_MARKS},
    {"rows-from-status", no_argument, NULL, OPT_ROWS_FROM_STATUS},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static const char *const mode_names[] = {"busy", "idle", "fresh"};

const char *openloop_options_mode_name(enum openloop_mode mode)
{
    return mode_names[mode];
}

static enum rc parse_number(const char *name, const char *text, int64_t max, int64_t *number,
                            struct err *err)
{
    char *end = NULL;

    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 1 || value > max) {
        return err_set(err, RC_INVALID, "--%s=%s: want a number from 1 to %lld", name, text,
                       (long long)max);
    }
    *number = value;
    return RC_OK;
}

static enum rc parse_mode(struct openloop_options *options, const char *text, struct err *err)
{
    for (size_t i = 0; i < sizeof mode_names / sizeof mode_names[0]; i++) {
        if (strcmp(text, mode_names[i]) == 0) {
            options->mode = (enum openloop_mode)i;
            return RC_OK;
        }
    }
    return err_set(err, RC_INVALID, "--mode=%s: want busy, idle or fresh", text);
}

static enum rc parse_method(struct openloop_options *options, const char *text, struct err *err)
{
    options->post = strcmp(text, "POST") == 0;
    if (!options->post && strcmp(text, "GET") != 0) {
        return err_set(err, RC_INVALID, "--method=%s: want GET or POST", text);
    }
    return RC_OK;
}

/* http://HOST[:PORT][/PATH]; an IPv6 host stands in brackets. */
static enum rc parse_url(struct raw_options *raw, const char *url, struct err *err)
{
    static const char scheme[] = "http://";
    const char *host = url + sizeof scheme - 1;

    if (strncmp(url, scheme, sizeof scheme - 1) != 0) {
        return err_set(err, RC_INVALID, "--url=%s: want http://HOST[:PORT][/PATH]", url);
    }
    bool bracket = *host == '[';
    host += bracket ? 1 : 0;
    size_t length = strcspn(host, bracket ? "]" : ":/");
    if (length == 0 || length >= sizeof raw->url_host || (bracket && host[length] != ']')) {
        return err_set(err, RC_INVALID, "--url=%s: no host in it", url);
    }
    memcpy(raw->url_host, host, length);
    raw->url_host[length] = '\0';
    raw->host = raw->url_host;
    const char *rest = host + length + (bracket ? 1 : 0);
    raw->port = 80;
    if (*rest == ':') {
        char digits[8] = "";
        size_t count = strcspn(rest + 1, "/");
        if (count >= sizeof digits) {
            return err_set(err, RC_INVALID, "--url=%s: bad port", url);
        }
        memcpy(digits, rest + 1, count);
        enum rc rc = parse_number("port", digits, 65535, &raw->port, err);
        if (rc != RC_OK) {
            return rc;
        }
        rest += 1 + count;
    }
    if (*rest != '\0' && *rest != '/') {
        return err_set(err, RC_INVALID, "--url=%s: want http://HOST[:PORT][/PATH]", url);
    }
    raw->path = *rest == '/' ? rest : "/";
    return RC_OK;
}

static enum rc take_option(struct openloop_options *options, struct raw_options *raw, int code,
                           struct err *err)
{
    switch (code) {
    case OPT_URL:
        return parse_url(raw, optarg, err);
    case OPT_HOST:
        raw->host = optarg;
        return RC_OK;
    case OPT_PORT:
        return parse_number("port", optarg, 65535, &raw->port, err);
    case OPT_PATH:
        raw->path = optarg;
        return RC_OK;
    case OPT_RATE:
        return parse_number("rate", optarg, OPENLOOP_RATE_MAX, &raw->rate, err);
    case OPT_SECONDS:
        return parse_number("seconds", optarg, OPENLOOP_SECONDS_MAX, &raw->seconds, err);
    case OPT_REQUESTS:
        return parse_number("requests", optarg, OPENLOOP_REQUESTS_MAX, &raw->requests, err);
    case OPT_CONNECTIONS:
        return parse_number("connections", optarg, OPENLOOP_CONNECTIONS_MAX, &raw->connections,
                            err);
    case OPT_MODE:
        return parse_mode(options, optarg, err);
    case OPT_METHOD:
        return parse_method(options, optarg, err);
    case OPT_BODY:
        options->body = optarg;
        return RC_OK;
    case OPT_TIMEOUT_MS:
        return parse_number("timeout-ms", optarg, OPENLOOP_TIMEOUT_MS_MAX, &raw->timeout_ms, err);
    case OPT_JSON:
        options->json = true;
        return RC_OK;
    case OPT_SVG:
        options->svg_file = optarg;
        return RC_OK;
    case OPT_MARKS:
        options->marks_file = optarg;
        return RC_OK;
    case OPT_ROWS_FROM_STATUS:
        options->rows_from_status = true;
        return RC_OK;
    case OPT_QUIET:
        options->quiet = true;
        return RC_OK;
    case OPT_HELP:
        options->help = true;
        return RC_OK;
    default:
        return err_set(err, RC_INVALID, "unknown option or missing value; see --help");
    }
}

/* The address is parsed, never resolved: a name could point anywhere. */
static enum rc set_address(struct openloop_options *options, const struct raw_options *raw,
                           struct err *err)
{
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)raw->port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)raw->port)};
    const char *host = strcmp(raw->host, "localhost") == 0 ? "127.0.0.1" : raw->host;

    if (inet_pton(AF_INET, host, &in4.sin_addr) == 1 &&
        ntohl(in4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET) {
        memcpy(&options->address, &in4, sizeof in4);
        options->address_bytes = sizeof in4;
        (void)snprintf(options->host, sizeof options->host, "%s:%d", host, (int)raw->port);
        return RC_OK;
    }
    if (inet_pton(AF_INET6, host, &in6.sin6_addr) == 1 && IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr)) {
        memcpy(&options->address, &in6, sizeof in6);
        options->address_bytes = sizeof in6;
        (void)snprintf(options->host, sizeof options->host, "[%s]:%d", host, (int)raw->port);
        return RC_OK;
    }
    return err_set(err, RC_DENIED, "address %s refused: this client sends load to loopback only",
                   host);
}

static enum rc set_path(struct openloop_options *options, const char *path, struct err *err)
{
    if (path[0] != '/' || strlen(path) >= sizeof options->path) {
        return err_set(err, RC_INVALID, "--path=%s: want /…, shorter than %d bytes", path,
                       OPENLOOP_PATH_BYTES);
    }
    for (const char *p = path; *p != '\0'; p++) {
        if (*p <= ' ' || *p > '~') {
            return err_set(err, RC_INVALID, "--path: only printable ASCII without blanks");
        }
    }
    memcpy(options->path, path, strlen(path) + 1);
    return RC_OK;
}

static enum rc put_together(struct openloop_options *options, const struct raw_options *raw,
                            struct err *err)
{
    enum rc rc = set_address(options, raw, err);

    if (rc == RC_OK) {
        rc = set_path(options, raw->path, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    if (raw->seconds > 0 && raw->requests > 0) {
        return err_set(err, RC_INVALID, "--seconds and --requests: give one of them");
    }
    options->rate = raw->rate;
    options->request_count = raw->requests > 0
                                 ? raw->requests
                                 : raw->rate * (raw->seconds > 0 ? raw->seconds : DEFAULT_SECONDS);
    if (options->request_count > OPENLOOP_REQUESTS_MAX ||
        options->request_count / options->rate > OPENLOOP_SECONDS_MAX) {
        return err_set(err, RC_INVALID, "more than %d requests or %d seconds",
                       OPENLOOP_REQUESTS_MAX, OPENLOOP_SECONDS_MAX);
    }
    options->connection_count = raw->connections;
    if (raw->connections < 0) {
        options->connection_count = options->mode == OPENLOOP_MODE_BUSY ? 64 : 1000;
    }
    options->timeout_ms = raw->timeout_ms;
    if (options->body != NULL && !options->post) {
        return err_set(err, RC_INVALID, "--body needs --method POST");
    }
    if (options->body != NULL && strlen(options->body) > OPENLOOP_BODY_BYTES_MAX) {
        return err_set(err, RC_INVALID, "--body: at most %d bytes", OPENLOOP_BODY_BYTES_MAX);
    }
    if (options->marks_file != NULL && options->svg_file == NULL) {
        return err_set(err, RC_INVALID, "--marks needs --svg");
    }
    return RC_OK;
}

enum rc openloop_options_parse(struct openloop_options *options, int argc, char *const *argv,
                               struct err *err)
{
    struct raw_options raw = {.host = "127.0.0.1",
                              .path = "/",
                              .port = DEFAULT_PORT,
                              .rate = DEFAULT_RATE,
                              .seconds = -1,
                              .requests = -1,
                              .connections = -1,
                              .timeout_ms = DEFAULT_TIMEOUT_MS};
    int code;

    memset(options, 0, sizeof *options);
    optind = 0; /* a full restart of getopt: tests parse more than once */
    opterr = 0; /* the text comes back in err */
    while ((code = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        enum rc rc = take_option(options, &raw, code, err);
        if (rc != RC_OK) {
            return rc;
        }
    }
    if (optind < argc) {
        return err_set(err, RC_INVALID, "unexpected argument %s; see --help", argv[optind]);
    }
    return options->help ? RC_OK : put_together(options, &raw, err);
}

void openloop_options_print_help(FILE *out)
{
    (void)fputs(
        "openloop: a fixed number of requests per second, whatever the server does\n"
        "\n"
        "A request's latency counts from the moment it was planned, so a stall is not hidden by\n"
        "a client that waits with it. Nothing is ever sent twice. Loopback addresses only.\n"
        "\n"
        "  --url URL             http://HOST[:PORT][/PATH], or by parts:\n"
        "  --host H --port P --path PATH      127.0.0.1, 8080, /\n"
        "  --rate N              requests per second (1000)\n"
        "  --seconds N           length of the plan (10), or\n"
        "  --requests N          its number of requests\n"
        "  --mode busy           keep-alive, 64 connections used in turn\n"
        "         idle           keep-alive, 1000 connections opened first, used in turn\n"
        "         fresh          a new connection per request, at most 1000 at a time\n"
        "  --connections N       another number of connections\n"
        "  --method GET|POST     (GET)\n"
        "  --body TEXT           body of each POST\n"
        "  --timeout-ms N        a request waits so long for a connection, then for the answer\n"
        "                        (5000)\n"
        "  --rows-from-status    GET /status before and after: rows written minus answers 200\n"
        "  --json                the report as one JSON object\n"
        "  --svg FILE            timeline, 100 ms bins: ok, failed, highest latency\n"
        "  --marks FILE          lines 'UNIX_MS [LABEL]', read after the run, drawn into it\n"
        "  --quiet               no report, only the exit status\n"
        "\n"
        "Exit status: 0 every request answered 2xx (and rows match, if asked), 3 not so,\n"
        "1 the run itself failed, 2 usage.\n",
        out);
}
