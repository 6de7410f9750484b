/* SPDX-License-Identifier: Apache-2.0 */
/* load: see load.h. */
#include "restorer/load.h"

#include "base/failpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A decoder holds its window, 2 MiB as we write parts and 8 MiB at most: with all 32 threads that
 * would be more than everything else. Six large streams at a time fill any line. */
#define LOAD_THREADS_MAX 6

struct load {
    const struct snapshot_manifest *manifest;
    struct apply *apply;
    uint64_t *offsets; /* owned: where each part begins in the file, and the end */
    void (*tick)(void *arg);
    void *tick_arg;
};

/* One try at one part. */
struct load_call {
    const struct load *load;
    struct fetch_worker *worker;
    const struct snapshot_part *part;
    const char *key;
    uint64_t offset;         /* in the file, of the next byte of content */
    uint64_t content_end;    /* in the file */
    uint64_t received_bytes; /* of the object */
};

static enum rc load_content(void *arg, const uint8_t *bytes, size_t count, struct err *err)
{
    struct load_call *call = arg;
    if (count > call->content_end - call->offset) {
        return err_set(err, RC_CORRUPT, "%s holds more than the manifest says", call->key);
    }
    enum rc rc = apply_snapshot_bytes(call->load->apply, call->offset, bytes, count, err);
    call->offset += count;
    return rc;
}

static enum rc load_object(void *arg, const uint8_t *bytes, size_t count, struct err *err)
{
    struct load_call *call = arg;
    call->received_bytes += count;
    if (call->received_bytes > call->part->object_bytes) {
        return err_set(err, RC_CORRUPT, "%s is longer than the manifest says", call->key);
    }
    hash_add(call->worker->hash, bytes, count);
    fetch_add_received(call->worker->fetch, count);
    return codec_decode_piece(call->worker->decoder, bytes, count, load_content, call, err);
}

static enum rc load_check_end(struct load_call *call, struct err *err)
{
    uint8_t digest[HASH_SHA256_BYTES];
    hash_finish(call->worker->hash, digest);
    if (call->received_bytes != call->part->object_bytes) {
        return err_set(err, RC_CORRUPT, "%s has %" PRIu64 " bytes, the manifest says %" PRIu64,
                       call->key, call->received_bytes, call->part->object_bytes);
    }
    if (memcmp(digest, call->part->object_sha256, sizeof digest) != 0) {
        return err_set(err, RC_CORRUPT, "%s has another SHA-256 than the manifest says", call->key);
    }
    enum rc rc = codec_decode_end(call->worker->decoder, err);
    if (rc == RC_OK && call->offset != call->content_end) {
        return err_set(err, RC_CORRUPT, "%s holds less than the manifest says", call->key);
    }
    return rc == RC_CORRUPT ? err_prefix(err, "reading %s", call->key) : rc;
}

static enum rc load_attempt(void *arg, struct err *err)
{
    struct load_call *call = arg;
    call->offset = call->content_end - call->part->content_bytes;
    call->received_bytes = 0;
    hash_restart(call->worker->hash);
    codec_decode_begin(call->worker->decoder);
    enum rc rc = store_get(call->worker->store, call->key, NULL, load_object, call, err);
    if (rc == RC_NOT_FOUND) {
        return err_set(err, RC_CORRUPT, "%s is gone", call->key);
    }
    if (rc == RC_CORRUPT) {
        return err_prefix(err, "reading %s", call->key);
    }
    return rc == RC_OK ? load_check_end(call, err) : rc;
}

static uint64_t load_cost(void *arg, size_t task)
{
    (void)arg;
    (void)task;
    return 0; /* pieces go straight to the file */
}

static enum rc load_work(void *arg, size_t task, struct fetch_worker *worker,
                         struct fetch_slot *slot, struct err *err)
{
    const struct load *load = arg;
    char key[OBJECT_KEY_BYTES];
    (void)slot;
    snapshot_part_key(load->manifest, (uint32_t)task + 1, key);
    struct load_call call = {
        .load = load,
        .worker = worker,
        .part = &load->manifest->parts[task],
        .key = key,
        .content_end = load->offsets[task + 1],
    };
    return fetch_retry(worker->stop, load_attempt, &call, err);
}

static enum rc load_deliver(void *arg, size_t task, struct fetch_slot *slot, struct err *err)
{
    const struct load *load = arg;
    (void)slot;
    (void)err;
    apply_start_writeback(load->apply, load->offsets[task],
                          load->offsets[task + 1] - load->offsets[task]);
    FAILPOINT("restore_part_written");
    return RC_OK;
}

static void load_tick(void *arg)
{
    const struct load *load = arg;
    if (load->tick != NULL) {
        load->tick(load->tick_arg);
    }
}

enum rc load_run(const struct snapshot_manifest *manifest, struct fetch *fetch, struct apply *apply,
                 void (*tick)(void *arg), void *tick_arg, struct err *err)
{
    struct load load = {.manifest = manifest, .apply = apply, .tick = tick, .tick_arg = tick_arg};
    struct fetch_job job = {
        .task_count = manifest->part_count,
        .threads_max = LOAD_THREADS_MAX,
        .cost_bytes = load_cost,
        .work = load_work,
        .deliver = load_deliver,
        .tick = load_tick,
        .arg = &load,
    };
    load.offsets = calloc((size_t)manifest->part_count + 1, sizeof *load.offsets);
    if (load.offsets == NULL) {
        return err_set(err, RC_NOMEM, "no memory for %u parts", manifest->part_count);
    }
    for (uint32_t i = 0; i < manifest->part_count; i++) {
        load.offsets[i + 1] = load.offsets[i] + manifest->parts[i].content_bytes;
    }
    enum rc rc = fetch_run(fetch, &job, NULL, err);
    free(load.offsets);
    return rc;
}
