/* SPDX-License-Identifier: Apache-2.0 */
/* environment: see environment.h. */
#include "server/environment.h"

#include <stddef.h>
#include <string.h>

const char *environment_find(char *const *environment, const char *name)
{
    size_t name_bytes = strlen(name);
    for (char *const *entry = environment; *entry != NULL; entry++) {
        if (strncmp(*entry, name, name_bytes) == 0 && (*entry)[name_bytes] == '=') {
            const char *value = *entry + name_bytes + 1;
            return value[0] == '\0' ? NULL : value;
        }
    }
    return NULL;
}
