/* SPDX-License-Identifier: Apache-2.0 */
/* door_config: see door_config.h. */
#include "door/door_config.h"

#include "door/door_protocol.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LISTEN_DEFAULT "127.0.0.1:8080"

static const char prefix[] = "HARVEY_DOOR_";
static const char *const known_names[] = {"LISTEN", "SOCKET", "UID"};
static const char *const level_names[] = {"error", "warn", "info", "debug"};

static enum rc parse_number(const char *text, unsigned long max, unsigned long *number)
{
    char *end = NULL;

    errno = 0;
    *number = strtoul(text, &end, 10);
    return text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || *number > max
               ? RC_INVALID
               : RC_OK;
}

enum rc door_config_parse_address(const char *text, struct sockaddr_storage *address,
                                  socklen_t *address_bytes, struct err *err)
{
    char host[INET6_ADDRSTRLEN + 2];
    const char *colon = strrchr(text, ':');
    struct sockaddr_in in4 = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    unsigned long port = 0;

    if (colon == NULL || (size_t)(colon - text) >= sizeof host ||
        parse_number(colon + 1, 65535, &port) != RC_OK) {
        return err_set(err, RC_INVALID, "want HOST:PORT, as 127.0.0.1:8080 or [::1]:8080");
    }
    size_t length = (size_t)(colon - text);
    memcpy(host, text, length);
    host[length] = '\0';
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, host, &in4.sin_addr) == 1) {
        in4.sin_port = htons((uint16_t)port);
        memcpy(address, &in4, sizeof in4);
        *address_bytes = sizeof in4;
        return RC_OK;
    }
    if (length > 2 && host[0] == '[' && host[length - 1] == ']') {
        host[length - 1] = '\0';
        if (inet_pton(AF_INET6, host + 1, &in6.sin6_addr) == 1) {
            in6.sin6_port = htons((uint16_t)port);
            memcpy(address, &in6, sizeof in6);
            *address_bytes = sizeof in6;
            return RC_OK;
        }
    }
    return err_set(err, RC_INVALID, "want a numeric host: 127.0.0.1:8080 or [::1]:8080");
}

static const char *value_of(const char *name, const char *fallback)
{
    const char *value = getenv(name);

    return value != NULL && value[0] != '\0' ? value : fallback;
}

static bool is_known(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof known_names / sizeof known_names[0]; i++) {
        if (strlen(known_names[i]) == length && strncmp(name, known_names[i], length) == 0) {
            return true;
        }
    }
    return false;
}

static enum rc refuse_unknown(struct err *err)
{
    for (char **entry = environ; *entry != NULL; entry++) {
        size_t length = strcspn(*entry, "=");
        size_t skip = sizeof prefix - 1;
        if (strncmp(*entry, prefix, skip) == 0 && !is_known(*entry + skip, length - skip)) {
            return err_set(err, RC_INVALID,
                           "%.*s: unknown; the door knows HARVEY_DOOR_LISTEN, "
                           "HARVEY_DOOR_SOCKET, HARVEY_DOOR_UID",
                           (int)length, *entry);
        }
    }
    return RC_OK;
}

static enum rc read_level(struct door_config *config, struct err *err)
{
    const char *text = value_of("HARVEY_LOG_LEVEL", "info");

    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            config->log_level = (enum log_level)i;
            return RC_OK;
        }
    }
    return err_set(err, RC_INVALID, "HARVEY_LOG_LEVEL=%s: want error, warn, info or debug", text);
}

enum rc door_config_read(struct door_config *config, struct err *err)
{
    const char *uid_text = value_of("HARVEY_DOOR_UID", NULL);
    unsigned long uid = geteuid();
    enum rc rc = refuse_unknown(err);

    if (rc == RC_OK) {
        rc = read_level(config, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    config->socket_path = value_of("HARVEY_DOOR_SOCKET", DOOR_SOCKET_DEFAULT);
    config->listen_text = value_of("HARVEY_DOOR_LISTEN", LISTEN_DEFAULT);
    if (door_config_parse_address(config->listen_text, &config->listen, &config->listen_bytes,
                                  err) != RC_OK) {
        return err_prefix(err, "reading HARVEY_DOOR_LISTEN=%s", config->listen_text);
    }
    /* The highest uid is the kernel's "nobody asked" (-1). */
    if (uid_text != NULL && parse_number(uid_text, 4294967294UL, &uid) != RC_OK) {
        return err_set(err, RC_INVALID, "HARVEY_DOOR_UID=%s: want a number from 0 to 4294967294",
                       uid_text);
    }
    config->uid = (uid_t)uid;
    config->parked_max = DOOR_PARKED_MAX;
    return RC_OK;
}
