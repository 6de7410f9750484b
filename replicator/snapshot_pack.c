/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot_pack: see snapshot_pack.h. */
#include "replicator/snapshot_pack.h"

#include "archive/codec.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/clk.h"
#include "base/failpoint.h"
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PACK_LEVEL 3 /* stored bytes must stay near `zstd -3` of the file */
#define PACK_NICE 10 /* a tenth of the CPU beside one busy thread, all of it beside none */
#define PACK_READ_BYTES (256u << 10)

/* ---- make ---- */

struct packer {
    const char *folder;
    struct stop *stop;
    struct snapshot_manifest *manifest;
    struct codec_encoder *encoder;
    int copy_fd;
};

struct packer_sink {
    int fd;
    uint64_t size_bytes;
    struct hash *hash;
};

static enum rc packer_write(void *arg, const uint8_t *bytes, size_t count, struct err *err)
{
    struct packer_sink *sink = arg;
    hash_add(sink->hash, bytes, count);
    enum rc rc = fsio_write_at(sink->fd, bytes, count, sink->size_bytes, err);
    sink->size_bytes += count;
    return rc;
}

/* Encodes `count` bytes of the copy from `offset` into the sink. */
static enum rc packer_content(struct packer *packer, uint64_t offset, uint64_t count,
                              struct packer_sink *sink, struct err *err)
{
    uint8_t *piece = malloc(PACK_READ_BYTES);
    if (piece == NULL) {
        return err_set(err, RC_NOMEM, "no memory to read the copy");
    }
    enum rc rc = codec_encode_begin(packer->encoder, count, err);
    while (rc == RC_OK && count > 0) {
        size_t take = count < PACK_READ_BYTES ? (size_t)count : PACK_READ_BYTES;
        if (stop_level(packer->stop) != STOP_NONE) {
            rc = err_set(err, RC_STOPPED, "stopped while packing");
        } else if ((rc = fsio_read_at(packer->copy_fd, piece, take, offset, err)) == RC_OK) {
            rc = codec_encode_piece(packer->encoder, piece, take, packer_write, sink, err);
        }
        offset += take;
        count -= take;
    }
    free(piece);
    return rc != RC_OK ? rc : codec_encode_end(packer->encoder, packer_write, sink, err);
}

static enum rc packer_part(struct packer *packer, uint32_t part_no, uint64_t count, struct err *err)
{
    char key[OBJECT_KEY_BYTES];
    char path[FSIO_PATH_BYTES];
    struct packer_sink sink = {.fd = -1};
    struct snapshot_part part = {.content_bytes = count};
    snapshot_part_key(packer->manifest, part_no, key);
    enum rc rc;
    if ((rc = hash_create(&sink.hash, err)) != RC_OK ||
        (rc = fsio_join(path, sizeof path, packer->folder, key, err)) != RC_OK ||
        (rc = fsio_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644, &sink.fd, err)) != RC_OK) {
        goto done;
    }
    uint64_t offset = (uint64_t)(part_no - 1) * SNAPSHOT_PART_CONTENT_BYTES_MAX;
    rc = packer_content(packer, offset, count, &sink, err);
    if (rc == RC_OK && fdatasync(sink.fd) != 0) {
        rc = fsio_fail(err, "cannot sync", path);
    }
    if (rc == RC_OK) {
        part.object_bytes = sink.size_bytes;
        hash_finish(sink.hash, part.object_sha256);
        FAILPOINT("snapshot_part_made");
        rc = snapshot_manifest_add(packer->manifest, &part, err);
    }
done:
    if (sink.fd >= 0) {
        (void)close(sink.fd);
    }
    hash_destroy(sink.hash);
    return rc;
}

static enum rc packer_parts(struct packer *packer, struct err *err)
{
    enum rc rc = RC_OK;
    uint64_t left = (uint64_t)packer->manifest->page_size_bytes * packer->manifest->database_pages;
    for (uint32_t part_no = 1; rc == RC_OK && left > 0; part_no++) {
        uint64_t count =
            left < SNAPSHOT_PART_CONTENT_BYTES_MAX ? left : SNAPSHOT_PART_CONTENT_BYTES_MAX;
        rc = packer_part(packer, part_no, count, err);
        left -= count;
    }
    return rc;
}

/* complete.json: with it the set is whole. */
static enum rc packer_complete(struct packer *packer, const char *path, struct err *err)
{
    struct buf json;
    buf_init(&json, SNAPSHOT_JSON_BYTES_MAX);
    packer->manifest->completed_unix_ms = clk_unix_ms();
    FAILPOINT("snapshot_parts_made");
    enum rc rc = snapshot_manifest_encode(packer->manifest, &json, err);
    if (rc == RC_OK) {
        rc = fsio_replace_file(path, json.data, json.size, true, err);
    }
    buf_deinit(&json);
    return rc;
}

static enum rc packer_run(struct packer *packer, struct err *err)
{
    char key[OBJECT_KEY_BYTES];
    char copy[FSIO_PATH_BYTES];
    char complete[FSIO_PATH_BYTES];
    char dir[FSIO_PATH_BYTES];
    uint8_t random[4];
    bytes_random(random, sizeof random);
    bytes_to_hex(random, sizeof random, packer->manifest->tag);
    snapshot_complete_key(packer->manifest, key);
    enum rc rc;
    if ((rc = snapshot_pack_copy_path(packer->folder, copy, err)) != RC_OK ||
        (rc = fsio_join(complete, sizeof complete, packer->folder, key, err)) != RC_OK ||
        (rc = fsio_dirname(complete, dir, sizeof dir, err)) != RC_OK ||
        (rc = fsio_make_dirs(dir, err)) != RC_OK ||
        (rc = codec_encoder_create(PACK_LEVEL, &packer->encoder, err)) != RC_OK ||
        (rc = fsio_open(copy, O_RDONLY, 0, &packer->copy_fd, err)) != RC_OK ||
        (rc = packer_parts(packer, err)) != RC_OK ||
        (rc = packer_complete(packer, complete, err)) != RC_OK) {
        goto done;
    }
    rc = fsio_remove_file(copy, err);
done:
    if (packer->copy_fd >= 0) {
        (void)close(packer->copy_fd);
    }
    codec_encoder_destroy(packer->encoder);
    return rc;
}

struct packer_background {
    struct packer *packer;
    enum rc rc;
    struct err err;
};

static void *packer_thread_main(void *arg)
{
    struct packer_background *background = arg;
    (void)pthread_setname_np(pthread_self(), "packing");
    (void)!nice(PACK_NICE); /* of this thread alone, as Linux has it: nice(2) */
    background->rc = packer_run(background->packer, &background->err);
    return NULL;
}

/* On a thread that takes no lock of ours, for it can never go back to the priority of the others. */
static enum rc packer_run_in_background(struct packer *packer, struct err *err)
{
    struct packer_background background = {.packer = packer, .err = ERR_INIT};
    pthread_t thread;
    if (pthread_create(&thread, NULL, packer_thread_main, &background) != 0) {
        return packer_run(packer, err);
    }
    (void)pthread_join(thread, NULL);
    *err = background.err;
    return background.rc;
}

enum rc snapshot_pack_copy_path(const char *folder, char path[FSIO_PATH_BYTES], struct err *err)
{
    return fsio_join(path, FSIO_PATH_BYTES, folder, "copy.db", err);
}

enum rc snapshot_pack(const char *folder, bool in_background, struct stop *stop,
                      struct snapshot_manifest *manifest, struct err *err)
{
    struct packer packer = {.folder = folder, .stop = stop, .manifest = manifest, .copy_fd = -1};
    return in_background ? packer_run_in_background(&packer, err) : packer_run(&packer, err);
}

/* ---- find ---- */

/* The name of the one packed snapshot's folder ends up in `arg`. */
static enum rc pack_visit(void *arg, const char *name, bool is_dir, struct err *err)
{
    (void)err;
    if (is_dir) {
        (void)snprintf(arg, OBJECT_KEY_BYTES, "%s", name);
    }
    return RC_OK;
}

/* Reads complete.json, if there is a whole one of this generation. */
static enum rc pack_read(const char *folder, const struct generation_id *generation,
                         struct snapshot_manifest *manifest, bool *found, struct err *err)
{
    char prefix[OBJECT_KEY_BYTES];
    char dir[FSIO_PATH_BYTES];
    char name[OBJECT_KEY_BYTES] = "";
    char path[FSIO_PATH_BYTES];
    struct buf json;
    object_key_snapshots_prefix(generation, prefix);
    prefix[strlen(prefix) - 1] = '\0';
    enum rc rc = fsio_join(dir, sizeof dir, folder, prefix, err);
    if (rc == RC_OK) {
        rc = fsio_list_dir(dir, pack_visit, name, err);
    }
    if (rc != RC_OK || name[0] == '\0') {
        bool none = rc == RC_NOT_FOUND || (rc == RC_IO && err->sys_errno == ENOTDIR);
        return none ? RC_OK : rc;
    }
    buf_init(&json, SNAPSHOT_JSON_BYTES_MAX);
    int n = snprintf(path, sizeof path, "%.3800s/%.200s/complete.json", dir, name);
    ASSERT(n > 0 && (size_t)n < sizeof path);
    if ((rc = fsio_read_regular(path, &json, err)) == RC_OK &&
        (rc = snapshot_manifest_decode(json.data, json.size, manifest, err)) == RC_OK) {
        *found = generation_id_equal(&manifest->generation, generation);
    }
    buf_deinit(&json);
    /* One that is not there, not ours or longer than any of ours is no snapshot, and no failure. */
    return rc == RC_NOT_FOUND || rc == RC_CORRUPT || rc == RC_LIMIT ? RC_OK : rc;
}

/* All parts lie there with the sizes that the manifest says. */
static bool pack_is_whole(const char *folder, const struct snapshot_manifest *manifest)
{
    for (uint32_t part_no = 1; part_no <= manifest->part_count; part_no++) {
        char key[OBJECT_KEY_BYTES];
        char path[FSIO_PATH_BYTES];
        struct fsio_stat stat;
        struct err ignored;
        snapshot_part_key(manifest, part_no, key);
        if (fsio_join(path, sizeof path, folder, key, &ignored) != RC_OK ||
            fsio_stat(path, &stat, &ignored) != RC_OK || !stat.exists ||
            stat.size_bytes != manifest->parts[part_no - 1].object_bytes) {
            return false;
        }
    }
    return true;
}

enum rc snapshot_pack_find(const char *folder, const struct generation_id *generation,
                           struct snapshot_manifest *manifest, bool *found, struct err *err)
{
    *found = false;
    enum rc rc = pack_read(folder, generation, manifest, found, err);
    *found = rc == RC_OK && *found && pack_is_whole(folder, manifest);
    return rc;
}
