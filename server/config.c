/* SPDX-License-Identifier: Apache-2.0 */
/* config: see config.h. */
#include "server/config.h"

#include "archive/store_config.h"
#include "base/bytes.h"
#include "server/config_table.h"
#include "server/environment.h"
#include "server/listener.h"

#include <inttypes.h>
#include <string.h>
#include <sys/un.h>

#define CONFIG_PREFIX "HARVEY_"
#define CONFIG_DIGITS_MAX 16 /* of a number: below 2^53 and far from INT64_MAX */
#define CONFIG_MASK "********"
#define CONFIG_SUGGEST_DISTANCE_MAX 4u
#define CONFIG_NAME_BYTES_MAX 64u

/* What store_config_read asks through; set only while config_read runs, on main's thread. */
static char *const *config_environment;

static const char *config_lookup(const char *name)
{
    return environment_find(config_environment, name);
}

static int64_t *integer_field(struct config *config, const struct config_variable *variable)
{
    ASSERT(variable->offset + sizeof(int64_t) <= sizeof *config);
    return (int64_t *)(void *)((char *)config + variable->offset);
}

static enum rc read_integer(const struct config_variable *variable, const char *value,
                            int64_t *field, struct err *err)
{
    uint64_t number = 0;
    size_t digits = strlen(value);
    if (digits == 0 || digits > CONFIG_DIGITS_MAX || !bytes_from_decimal(value, digits, &number) ||
        (int64_t)number < variable->min || (int64_t)number > variable->max) {
        return err_set(err, RC_INVALID,
                       "%s=%.64s: must be a whole number from %" PRId64 " to %" PRId64,
                       variable->name, value, variable->min, variable->max);
    }
    *field = (int64_t)number;
    return RC_OK;
}

/* The index of `value` among blank-separated words, or -1. */
static int64_t choice_index(const char *words, const char *value)
{
    size_t value_bytes = strlen(value);
    int64_t index = 0;
    for (const char *word = words; *word != '\0'; index++) {
        size_t word_bytes = strcspn(word, " ");
        if (word_bytes == value_bytes && strncmp(word, value, word_bytes) == 0) {
            return index;
        }
        word += word_bytes + strspn(word + word_bytes, " ");
    }
    return -1;
}

static enum rc read_choice(const struct config_variable *variable, const char *value,
                           int64_t *field, struct err *err)
{
    int64_t index = choice_index(variable->choices, value);
    if (index < 0) {
        return err_set(err, RC_INVALID, "%s=%.64s: must be one of: %s", variable->name, value,
                       variable->choices);
    }
    if (index >= variable->choices_supported) {
        return err_set(err, RC_INVALID, "%s=%.64s: not supported yet; use %s", variable->name,
                       value, variable->fallback);
    }
    *field = index;
    return RC_OK;
}

/* A path that SQLite takes for a file's: no URI, no special name (Debian's build has USE_URI on). */
static enum rc read_database(const char *value, struct config *config, struct err *err)
{
    size_t bytes = strlen(value);
    if (strncmp(value, "file:", 5) == 0 || value[0] == ':' || value[bytes - 1] == '/') {
        return err_set(err, RC_INVALID,
                       "HARVEY_DB=%.200s: must be a file's path (no URI, no directory)", value);
    }
    if (bytes >= sizeof config->database_path - 64) {
        return err_set(err, RC_INVALID, "HARVEY_DB=%.64s...: at most %zu bytes", value,
                       sizeof config->database_path - 65);
    }
    memcpy(config->database_path, value, bytes + 1);
    return RC_OK;
}

static enum rc read_listen(const char *value, struct config *config, struct err *err)
{
    if (strlen(value) >= sizeof config->listen) {
        return err_set(err, RC_INVALID, "HARVEY_LISTEN=%.64s...: at most %zu bytes", value,
                       sizeof config->listen - 1);
    }
    if (listener_check_address(value, err) != RC_OK) {
        return RC_INVALID;
    }
    memcpy(config->listen, value, strlen(value) + 1);
    return RC_OK;
}

static enum rc read_socket(const struct config_variable *variable, const char *value,
                           struct config *config, struct err *err)
{
    const size_t most = sizeof((struct sockaddr_un *)0)->sun_path - 1;
    if (value == NULL) {
        return RC_OK;
    }
    if (strlen(value) > most) {
        return err_set(err, RC_INVALID, "%s=%.64s...: at most %zu bytes", variable->name, value,
                       most);
    }
    memcpy(config->door_socket, value, strlen(value) + 1);
    return RC_OK;
}

/* "refuse" -> 0, "restore" -> 1, "<word>:GENERATION" -> 2 and *id. */
static enum rc read_policy(const struct config_variable *variable, const char *value,
                           const char *word, int *choice, struct generation_id *id, struct err *err)
{
    size_t word_bytes = strlen(word);
    memset(id, 0, sizeof *id);
    if (strcmp(value, "refuse") == 0) {
        *choice = 0;
        return RC_OK;
    }
    if (strcmp(value, "restore") == 0) {
        *choice = 1;
        return RC_OK;
    }
    if (strncmp(value, word, word_bytes) == 0 && value[word_bytes] == ':' &&
        generation_id_parse(value + word_bytes + 1, id, NULL)) {
        *choice = 2;
        return RC_OK;
    }
    return err_set(
        err, RC_INVALID,
        "%s=%.64s: must be refuse, restore or %s:GENERATION, with the generation that it "
        "overrides, such as %s:00000001-0123456789abcdef",
        variable->name, value, word, word);
}

static enum rc read_on_empty(const struct config_variable *variable, const char *value,
                             struct config *config, struct err *err)
{
    static const enum replicator_on_empty meaning[] = {ON_EMPTY_REFUSE, ON_EMPTY_RESTORE,
                                                       ON_EMPTY_NEW};
    int choice = 0;
    enum rc rc = read_policy(variable, value, "new", &choice, &config->on_empty_generation, err);
    config->on_empty = meaning[choice];
    return rc;
}

static enum rc read_on_stale(const struct config_variable *variable, const char *value,
                             struct config *config, struct err *err)
{
    static const enum replicator_on_stale meaning[] = {ON_STALE_REFUSE, ON_STALE_RESTORE,
                                                       ON_STALE_FORK};
    int choice = 0;
    enum rc rc = read_policy(variable, value, "fork", &choice, &config->on_stale_generation, err);
    config->on_stale = meaning[choice];
    return rc;
}

static enum rc read_variable(const struct config_variable *variable, char *const *environment,
                             struct config *config, struct err *err)
{
    const char *value = environment_find(environment, variable->name);
    if (value == NULL) {
        value = variable->fallback;
    }
    switch (variable->kind) {
    case CONFIG_INTEGER:
        return read_integer(variable, value, integer_field(config, variable), err);
    case CONFIG_CHOICE:
        return read_choice(variable, value, integer_field(config, variable), err);
    case CONFIG_DATABASE:
        return read_database(value, config, err);
    case CONFIG_LISTEN:
        return read_listen(value, config, err);
    case CONFIG_SOCKET:
        return read_socket(variable, value, config, err);
    case CONFIG_ON_EMPTY:
        return read_on_empty(variable, value, config, err);
    case CONFIG_ON_STALE:
        return read_on_stale(variable, value, config, err);
    case CONFIG_STORE:
    case CONFIG_SECRET:
    case CONFIG_TEST:
        return RC_OK;
    }
    return err_set(err, RC_INTERNAL, "%s: no reader for its kind", variable->name);
}

static bool name_is_known(const char *name, size_t name_bytes)
{
    for (size_t i = 0; i < config_table_count; i++) {
        if (strlen(config_table[i].name) == name_bytes &&
            memcmp(config_table[i].name, name, name_bytes) == 0) {
            return true;
        }
    }
    for (size_t i = 0; store_config_names[i] != NULL; i++) {
        if (strlen(store_config_names[i]) == name_bytes &&
            memcmp(store_config_names[i], name, name_bytes) == 0) {
            return true;
        }
    }
#ifdef HARVEY_TEST_HOOKS /* base/failpoint.h */
    if (name_bytes > 12 && memcmp(name, "HARVEY_TEST_", 12) == 0) {
        return true;
    }
#endif
    return false;
}

/* Levenshtein's distance of two short names; the larger length when one is too long. */
static unsigned name_distance(const char *a, size_t a_bytes, const char *b)
{
    unsigned row[CONFIG_NAME_BYTES_MAX + 1];
    size_t b_bytes = strlen(b);
    if (a_bytes > CONFIG_NAME_BYTES_MAX || b_bytes > CONFIG_NAME_BYTES_MAX) {
        return CONFIG_NAME_BYTES_MAX;
    }
    for (unsigned j = 0; j <= b_bytes; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a_bytes; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_bytes; j++) {
            unsigned change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            unsigned step = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = change < step ? change : step;
        }
    }
    return row[b_bytes];
}

static enum rc refuse_name(const char *name, size_t name_bytes, struct err *err)
{
    const char *nearest = NULL;
    unsigned nearest_distance = CONFIG_SUGGEST_DISTANCE_MAX;
    for (size_t i = 0; i < config_table_count; i++) {
        unsigned distance = name_distance(name, name_bytes, config_table[i].name);
        if (distance < nearest_distance) {
            nearest_distance = distance;
            nearest = config_table[i].name;
        }
    }
    return err_set(err, RC_INVALID, "%.*s: no such variable%s%s (server --help lists them)",
                   (int)(name_bytes < CONFIG_NAME_BYTES_MAX ? name_bytes : CONFIG_NAME_BYTES_MAX),
                   name, nearest != NULL ? "; did you mean " : "", nearest != NULL ? nearest : "");
}

static enum rc check_names(char *const *environment, struct err *err)
{
    for (char *const *entry = environment; *entry != NULL; entry++) {
        size_t name_bytes = strcspn(*entry, "=");
        if (strncmp(*entry, CONFIG_PREFIX, strlen(CONFIG_PREFIX)) == 0 &&
            !name_is_known(*entry, name_bytes)) {
            return refuse_name(*entry, name_bytes, err);
        }
    }
    return RC_OK;
}

enum rc config_read(struct config *config, char *const *environment, struct err *err)
{
    memset(config, 0, sizeof *config);
    enum rc rc = check_names(environment, err);
    for (size_t i = 0; rc == RC_OK && i < config_table_count; i++) {
        rc = read_variable(&config_table[i], environment, config, err);
    }
    if (rc == RC_OK) {
        config_environment = environment;
        rc = store_config_read(&config->store, config_lookup, err);
        config_environment = NULL;
    }
    return rc;
}

enum rc config_read_database(struct config *config, char *const *environment, struct err *err)
{
    memset(config, 0, sizeof *config);
    const char *value = environment_find(environment, "HARVEY_DB");
    return read_database(value != NULL ? value : config_table[0].fallback, config, err);
}

static void print_choice(const struct config_variable *variable, int64_t index, FILE *out)
{
    const char *word = variable->choices;
    for (int64_t i = 0; i < index; i++) {
        word += strcspn(word, " ") + 1;
    }
    (void)fprintf(out, "%s=%.*s\n", variable->name, (int)strcspn(word, " "), word);
}

static void print_policy(const char *name, int choice, const char *word,
                         const struct generation_id *id, FILE *out)
{
    if (choice == 2) {
        (void)fprintf(out, "%s=%s:%s\n", name, word, id->text);
    } else {
        (void)fprintf(out, "%s=%s\n", name, choice == 1 ? "restore" : "refuse");
    }
}

static void print_store(const struct store_config *store, FILE *out)
{
    (void)fprintf(out, "HARVEY_ARCHIVE=%s\n", store->url);
    if (store->is_s3) {
        (void)fprintf(out, "HARVEY_S3_ENDPOINT=%s\n", store->endpoint);
        (void)fprintf(out, "HARVEY_S3_ACCESS_KEY_ID=%s\n",
                      store->access_key_id[0] != '\0' ? CONFIG_MASK : "");
        (void)fprintf(out, "HARVEY_S3_SECRET_ACCESS_KEY=%s\n",
                      store->secret_access_key[0] != '\0' ? CONFIG_MASK : "");
        (void)fprintf(out, "HARVEY_S3_CA_FILE=%s\n", store->ca_file);
    }
}

void config_print(const struct config *config, FILE *out)
{
    struct config copy = *config; /* integer_field wants a writable one */
    for (size_t i = 0; i < config_table_count; i++) {
        const struct config_variable *variable = &config_table[i];
        switch (variable->kind) {
        case CONFIG_INTEGER:
            (void)fprintf(out, "%s=%" PRId64 "\n", variable->name, *integer_field(&copy, variable));
            break;
        case CONFIG_CHOICE:
            print_choice(variable, *integer_field(&copy, variable), out);
            break;
        case CONFIG_DATABASE:
            (void)fprintf(out, "%s=%s\n", variable->name, config->database_path);
            break;
        case CONFIG_LISTEN:
            (void)fprintf(out, "%s=%s\n", variable->name, config->listen);
            print_store(&config->store, out);
            break;
        case CONFIG_SOCKET:
            (void)fprintf(out, "%s=%s\n", variable->name, config->door_socket);
            break;
        case CONFIG_ON_EMPTY:
            print_policy(variable->name, (int)config->on_empty, "new", &config->on_empty_generation,
                         out);
            break;
        case CONFIG_ON_STALE:
            print_policy(variable->name, (int)config->on_stale, "fork",
                         &config->on_stale_generation, out);
            break;
        case CONFIG_STORE:
        case CONFIG_SECRET:
        case CONFIG_TEST:
            break;
        }
    }
}

void config_print_help(FILE *out)
{
    (void)fprintf(out, "Configuration is taken from the environment:\n");
    for (size_t i = 0; i < config_table_count; i++) {
        const struct config_variable *variable = &config_table[i];
        if (variable->kind == CONFIG_TEST) {
            continue;
        }
        (void)fprintf(out, "  %s%s%s\n      %s\n      allowed: ", variable->name,
                      variable->fallback != NULL ? "=" : "",
                      variable->fallback != NULL ? variable->fallback : "", variable->help);
        if (variable->kind == CONFIG_INTEGER) {
            (void)fprintf(out, "%" PRId64 " to %" PRId64 "\n", variable->min, variable->max);
        } else if (variable->kind == CONFIG_CHOICE) {
            (void)fprintf(out, "%s\n", variable->choices);
        } else {
            (void)fprintf(out, "%s\n", variable->allowed);
        }
    }
}
