/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_object_key: names of objects, and positions as people type them. What is accepted as a name is
 * written back to the very same text; a position that is accepted reads back as itself.
 */
#include "archive/object_key.h"
#include "archive/position.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_key(const char *text)
{
    struct object_key key;
    char again[OBJECT_KEY_BYTES];
    if (object_key_parse(text, &key)) {
        object_key_format(&key, again);
        ASSERT(strcmp(again, text) == 0);
    } else {
        ASSERT(key.kind == OBJECT_OTHER);
    }
}

static void check_position(const char *text)
{
    struct err err = ERR_INIT;
    struct generation_id id;
    struct generation_id id_again;
    struct position position;
    struct position again;
    char written[POSITION_TEXT_BYTES];
    if (position_parse(text, &id, &position, &err) != RC_OK) {
        return;
    }
    position_format(&id, position, written);
    ASSERT(position_parse(written, &id_again, &again, &err) == RC_OK);
    ASSERT(generation_id_equal(&id, &id_again));
    ASSERT(position_compare(position, again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1); /* exactly: a read behind the NUL is seen */
    ASSERT(text != NULL);
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    check_key(text);
    check_position(text);
    free(text);
    return 0;
}
