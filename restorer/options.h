/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options: bin/restore's command line and environment -> plain structs, checked.
 *
 * restore runs with the server's environment: the server's own HARVEY_* names are passed over, any
 * other is refused, as the server does.
 *
 * Thread: main's (getopt_long has global state).
 */
#ifndef HARVEY_RESTORER_OPTIONS_H
#define HARVEY_RESTORER_OPTIONS_H

#include "archive/store.h"
#include "archive/store_config.h"
#include "base/err.h"
#include "restorer/restorer.h"

#include <stdbool.h>

enum options_action { OPTIONS_RESTORE, OPTIONS_LIST, OPTIONS_HELP, OPTIONS_VERSION };

struct options {
    enum options_action action;
    struct restore_request request; /* output_path is borrowed from argv or the environment */
    struct store_config store;
    bool json;
    bool quiet;
};

/* What --help prints. */
extern const char options_help_text[];

/*
 * argv as main got it (its order may be changed), `environment` = environ. RC_INVALID: one line that
 * names the option or variable, its value, and what is allowed; `options->json` is right even then.
 * A secret file that cannot be read: RC_IO, RC_DENIED, RC_NOT_FOUND are turned into RC_INVALID.
 */
RC_MUST_CHECK enum rc options_read(int argc, char **argv, char *const *environment,
                                   store_config_lookup_fn *lookup, struct options *options,
                                   struct err *err);

#endif
