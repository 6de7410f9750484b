/* SPDX-License-Identifier: Apache-2.0 */
/* store_s3: see store_s3.h. Comes in the next steps; until then a bucket cannot be opened. */
#include "archive/store_s3.h"

enum rc store_s3_create(const struct store_config *config, struct store **store, struct err *err)
{
    *store = NULL;
    return err_set(err, RC_INVALID, "%s: buckets cannot be reached yet", config->url);
}
