/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_config: any bytes as the server's environment, a "NAME=value" a line. What is accepted is within
 * the table's ranges, and what config_print shows reads back as the same; what is refused is refused
 * in one line.
 *
 * Names of files are left out: reading /dev/stdin would wait for somebody to type.
 */
#include "server/config.h"

#include "server/config_table.h"

#include <stdlib.h>
#include <string.h>

#define FUZZ_LINES_MAX 32

struct lines {
    char *text; /* owned: NUL between them */
    char *entry[FUZZ_LINES_MAX + 1];
    size_t count;
};

static void lines_split(struct lines *lines, const uint8_t *data, size_t size)
{
    *lines = (struct lines){.text = malloc(size + 1)};
    ASSERT(lines->text != NULL);
    if (size > 0) {
        memcpy(lines->text, data, size);
    }
    lines->text[size] = '\0';
    char *line = lines->text;
    while (line != NULL && lines->count < FUZZ_LINES_MAX) {
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        if (strstr(line, "_FILE") == NULL) {
            lines->entry[lines->count++] = line;
        }
        line = end != NULL ? end + 1 : NULL;
    }
}

static void check_ranges(const struct config *config)
{
    for (size_t i = 0; i < config_table_count; i++) {
        const struct config_variable *variable = &config_table[i];
        if (variable->kind != CONFIG_INTEGER && variable->kind != CONFIG_CHOICE) {
            continue;
        }
        int64_t value;
        memcpy(&value, (const char *)config + variable->offset, sizeof value);
        if (variable->kind == CONFIG_INTEGER) {
            ASSERT(value >= variable->min && value <= variable->max);
        } else {
            ASSERT(value >= 0 && value < variable->choices_supported);
        }
    }
    ASSERT(config->database_path[0] != '\0' && config->listen[0] != '\0');
    ASSERT((config->on_empty == ON_EMPTY_NEW) !=
           generation_id_is_none(&config->on_empty_generation));
    ASSERT((config->on_stale == ON_STALE_FORK) !=
           generation_id_is_none(&config->on_stale_generation));
}

/* Owned by the caller. */
static char *print(const struct config *config, size_t *size)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    ASSERT(out != NULL);
    config_print(config, out);
    ASSERT(fclose(out) == 0);
    return text;
}

static void check_print(const struct config *config)
{
    struct config again;
    struct lines lines;
    struct err err = ERR_INIT;
    size_t size = 0;
    size_t size_again = 0;
    char *first = print(config, &size);
    lines_split(&lines, (const uint8_t *)first, size - 1);
    ASSERT(config_read(&again, lines.entry, &err) == RC_OK); /* masks are as good as secrets */
    char *second = print(&again, &size_again);
    ASSERT(size == size_again && memcmp(first, second, size) == 0);
    free(second);
    free(lines.text);
    free(first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config config;
    struct lines lines;
    struct err err = ERR_INIT;
    lines_split(&lines, data, size);
    if (config_read(&config, lines.entry, &err) == RC_OK) {
        check_ranges(&config);
        check_print(&config);
    } else {
        ASSERT(err.rc == RC_INVALID);
        ASSERT(err.text[0] != '\0' && strchr(err.text, '\n') == NULL);
    }
    err = (struct err)ERR_INIT;
    if (config_read_database(&config, lines.entry, &err) == RC_OK) {
        ASSERT(config.database_path[0] != '\0');
    }
    free(lines.text);
    return 0;
}
