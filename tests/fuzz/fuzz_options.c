/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_options: any bytes as restore's command line and environment, one word a line; a line that
 * begins with HARVEY_ or AWS_ is a variable. What is accepted is a request that restorer_run takes;
 * what is refused is refused in one line, in the form that was asked for.
 */
#include "restorer/options.h"

#include <stdlib.h>
#include <string.h>

#define FUZZ_WORDS_MAX 24

static char *variables[FUZZ_WORDS_MAX + 1];

static const char *lookup(const char *name)
{
    size_t count = strlen(name);
    for (size_t i = 0; variables[i] != NULL; i++) {
        if (strncmp(variables[i], name, count) == 0 && variables[i][count] == '=') {
            return variables[i] + count + 1;
        }
    }
    return NULL;
}

static void check_accepted(const struct options *options)
{
    const struct restore_request *request = &options->request;
    if (options->action == OPTIONS_HELP || options->action == OPTIONS_VERSION) {
        return;
    }
    ASSERT(request->jobs >= 0 && request->jobs <= RESTORE_JOBS_MAX);
    ASSERT(request->output_path != NULL && request->output_path[0] != '\0');
    if (options->action == OPTIONS_RESTORE && request->target == RESTORE_TO_POSITION) {
        ASSERT(!generation_id_is_none(&request->generation));
        ASSERT(request->target_position.wal_no > 0);
    }
    if (!generation_id_is_none(&request->generation)) {
        struct generation_id again;
        ASSERT(generation_id_parse(request->generation.text, &again, NULL));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char program[] = "restore";
    char *argv[FUZZ_WORDS_MAX + 2] = {program};
    struct options options;
    struct err err = ERR_INIT;
    int argc = 1;
    size_t variable_count = 0;
    bool wants_json = false;
    char *text = malloc(size + 1);
    ASSERT(text != NULL);
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    for (char *word = text; word != NULL && argc + (int)variable_count <= FUZZ_WORDS_MAX;) {
        char *end = strchr(word, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        bool is_variable = strncmp(word, "HARVEY_", 7) == 0 || strncmp(word, "AWS_", 4) == 0;
        if (is_variable && strstr(word, "_FILE") == NULL) { /* it might read /dev/stdin */
            variables[variable_count++] = word;
        } else if (!is_variable) {
            argv[argc++] = word;
            wants_json = wants_json || strcmp(word, "--json") == 0;
        }
        word = end != NULL ? end + 1 : NULL;
    }
    variables[variable_count] = NULL;
    argv[argc] = NULL;
    if (options_read(argc, argv, variables, lookup, &options, &err) == RC_OK) {
        check_accepted(&options);
    } else {
        ASSERT(err.rc == RC_INVALID);
        ASSERT(err.text[0] != '\0' && strchr(err.text, '\n') == NULL);
    }
    ASSERT(options.json == wants_json || options.json);
    free(text);
    return 0;
}
