/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_state: the state file. Each input is tried as the file's bytes, and as the JSON of a slot whose
 * head and hash are made right, since the hash would stop nearly every input at once. A record that is
 * accepted must be writable, and read back as the same.
 */
#include "replicator/state.h"

#include "base/bytes.h"
#include "base/fsio.h"
#include "base/hash.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOT_BYTES 4096u /* replicator/state.c */
#define SLOT_JSON_OFFSET 24u
#define SLOT_HASH_OFFSET (SLOT_BYTES - HASH_SHA256_BYTES)

static char path[64];

static void remove_file(void)
{
    (void)unlink(path);
}

static void prepare(void)
{
    if (path[0] == '\0') {
        (void)snprintf(path, sizeof path, "/dev/shm/harvey-fuzz-state-%ld", (long)getpid());
        ASSERT(atexit(remove_file) == 0);
    }
}

static void write_file(const void *bytes, size_t count)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ASSERT(fd >= 0 && write(fd, bytes, count) == (ssize_t)count && close(fd) == 0);
}

static void check_texts(const struct state_record *record)
{
    ASSERT(memchr(record->archive, '\0', sizeof record->archive) != NULL);
    ASSERT(memchr(record->term_tag, '\0', sizeof record->term_tag) != NULL);
    ASSERT(memchr(record->pending_tag, '\0', sizeof record->pending_tag) != NULL);
}

static void write_record(struct state *state)
{
    struct state_record record;
    struct err err = ERR_INIT;
    state_edit_begin(state, &record);
    check_texts(&record);
    ASSERT(state_edit_end(state, &record, &err) == RC_OK);
    ASSERT(state_reload(state, &err) == RC_OK);
    state_get(state, &record);
    ASSERT(record.valid);
}

/* Written twice, once into each slot: the second was read from the first, and they say the same. */
static void check_file(void)
{
    struct state state;
    struct state_record record;
    struct err err = ERR_INIT;
    uint8_t slots[2][SLOT_BYTES];
    ASSERT(state_open(&state, path, &err) == RC_OK);
    state_get(&state, &record);
    if (record.valid) {
        write_record(&state);
        write_record(&state);
        ASSERT(fsio_read_at(state.fd, slots, sizeof slots, 0, &err) == RC_OK);
        ASSERT(memcmp(slots[0] + SLOT_JSON_OFFSET, slots[1] + SLOT_JSON_OFFSET,
                      SLOT_HASH_OFFSET - SLOT_JSON_OFFSET) == 0);
    }
    state_close(&state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char head[] = "HARVEYST\0\0\0\1";
    uint8_t slot[SLOT_BYTES] = {0};
    prepare();
    write_file(data, size);
    check_file();
    size_t json_bytes =
        size < SLOT_HASH_OFFSET - SLOT_JSON_OFFSET ? size : SLOT_HASH_OFFSET - SLOT_JSON_OFFSET;
    memcpy(slot, head, sizeof head - 1);
    bytes_put_u32(slot + 12, (uint32_t)json_bytes);
    bytes_put_u64(slot + 16, 7);
    if (json_bytes > 0) {
        memcpy(slot + SLOT_JSON_OFFSET, data, json_bytes);
    }
    struct err err = ERR_INIT;
    if (hash_sha256(slot, SLOT_HASH_OFFSET, slot + SLOT_HASH_OFFSET, &err) != RC_OK) {
        return 0;
    }
    write_file(slot, sizeof slot);
    check_file();
    return 0;
}
