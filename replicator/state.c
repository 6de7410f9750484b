/* SPDX-License-Identifier: Apache-2.0 */
/* state: see state.h. */
#include "replicator/state.h"

#include "archive/history_format.h"
#include "archive/json_fields.h"
#include "base/bytes.h"
#include "base/clk.h"
#include "base/fsio.h"
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A slot: magic @0 (8), version @8 (4), JSON length @12 (4), sequence @16 (8), JSON @24, SHA-256 at the end. */
#define SLOT_BYTES 4096
#define SLOT_JSON_OFFSET 24
#define SLOT_HASH_OFFSET (SLOT_BYTES - HASH_SHA256_BYTES)
#define SLOT_JSON_BYTES_MAX (SLOT_HASH_OFFSET - SLOT_JSON_OFFSET)
#define SLOT_VERSION 1u
static const uint8_t slot_magic[8] = {'H', 'A', 'R', 'V', 'E', 'Y', 'S', 'T'};

_Static_assert(sizeof(struct state_live) <= STATE_FILE_BYTES - STATE_LIVE_OFFSET,
               "the mapped part must fit");

static json_t *state_point_json(const struct wal_point *point, const struct wal_salts *salts)
{
    return json_pack("[I,I,I,I,I,I]", (json_int_t)point->position.wal_no,
                     (json_int_t)point->position.frame_no, (json_int_t)point->checksum.sum1,
                     (json_int_t)point->checksum.sum2, (json_int_t)salts->salt1,
                     (json_int_t)salts->salt2);
}

static bool state_point_from(const json_t *json, struct wal_point *point, struct wal_salts *salts)
{
    uint32_t values[6];
    if (!json_is_array(json) || json_array_size(json) != 6) {
        return false;
    }
    for (size_t i = 0; i < 6; i++) {
        json_int_t value = json_integer_value(json_array_get(json, i));
        if (value < 0 || value > UINT32_MAX) {
            return false;
        }
        values[i] = (uint32_t)value;
    }
    *point = (struct wal_point){{values[0], values[1]}, {values[2], values[3]}};
    *salts = (struct wal_salts){values[4], values[5]};
    return true;
}

static json_t *state_record_json(const struct state_record *r)
{
    return json_pack(
        "{s:s,s:b,s:s,s:s,s:I,s:I,s:s,s:I,s:s,s:o,s:b,s:I,s:[I,I],s:I,s:I,s:o,s:[I,I,I],s:I,s:b,s:"
        "b,s:o}",
        "archive", r->archive, "replicated", (int)r->replicated, "generation", r->generation.text,
        "pending_generation", r->pending_generation.text, "number_highest",
        (json_int_t)r->generation_number_highest, "term", (json_int_t)r->term, "term_tag",
        r->term_tag, "pending_term", (json_int_t)r->pending_term, "pending_tag", r->pending_tag,
        "confirmed", state_point_json(&r->confirmed, &r->confirmed_salts), "has_archived",
        (int)r->has_archived, "archived_unix_ms", (json_int_t)r->archived_unix_ms, "snapshot",
        (json_int_t)r->snapshot.wal_no, (json_int_t)r->snapshot.frame_no, "snapshot_unix_ms",
        (json_int_t)r->snapshot_unix_ms, "snapshot_bytes", (json_int_t)r->snapshot_bytes,
        "captured", state_point_json(&r->captured, &r->captured_salts), "database",
        (json_int_t)r->database.inode, (json_int_t)r->database.size_bytes,
        (json_int_t)r->database.mtime_ns, "backfilled", (json_int_t)r->backfilled,
        "checkpoint_running", (int)r->checkpoint_running, "reset_follows", (int)r->reset_follows,
        "reset", state_point_json(&r->reset_point, &r->reset_salts));
}

static bool state_copy_text(char *to, size_t to_bytes, const char *from)
{
    size_t length = strlen(from);
    if (length >= to_bytes) {
        return false;
    }
    memcpy(to, from, length + 1);
    return true;
}

static bool state_generation_from(const char *text, struct generation_id *id)
{
    if (text[0] == '\0') {
        *id = (struct generation_id){""};
        return true;
    }
    return generation_id_parse(text, id, NULL);
}

/* The checked counterpart of state_record_json; a record with a field out of range is no record. */
static bool state_record_from(json_t *json, struct state_record *r)
{
    const char *archive;
    const char *generation;
    const char *pending_generation;
    const char *term_tag;
    const char *pending_tag;
    json_t *confirmed;
    json_t *captured;
    json_t *reset;
    int replicated;
    int has_archived;
    int checkpoint_running;
    int reset_follows;
    json_int_t highest, term, pending_term, archived_ms, snap_wal, snap_frame, snap_ms, snap_bytes;
    json_int_t inode, size, mtime, backfilled;
    if (json_unpack(
            json,
            "{s:s,s:b,s:s,s:s,s:I,s:I,s:s,s:I,s:s,s:o,s:b,s:I,s:[I,I],s:I,s:I,s:o,s:[I,I,I],s:"
            "I,s:b,s:b,s:o}",
            "archive", &archive, "replicated", &replicated, "generation", &generation,
            "pending_generation", &pending_generation, "number_highest", &highest, "term", &term,
            "term_tag", &term_tag, "pending_term", &pending_term, "pending_tag", &pending_tag,
            "confirmed", &confirmed, "has_archived", &has_archived, "archived_unix_ms",
            &archived_ms, "snapshot", &snap_wal, &snap_frame, "snapshot_unix_ms", &snap_ms,
            "snapshot_bytes", &snap_bytes, "captured", &captured, "database", &inode, &size, &mtime,
            "backfilled", &backfilled, "checkpoint_running", &checkpoint_running, "reset_follows",
            &reset_follows, "reset", &reset) != 0) {
        return false;
    }
    if (highest < 0 || highest > GENERATION_NUMBER_MAX || term < 0 || term > UINT32_MAX ||
        pending_term < 0 || pending_term > UINT32_MAX || snap_wal < 0 || snap_wal > UINT32_MAX ||
        snap_frame < 0 || snap_frame > UINT32_MAX || backfilled < 0 || backfilled > UINT32_MAX) {
        return false;
    }
    *r = (struct state_record){
        .valid = true,
        .replicated = replicated != 0,
        .generation_number_highest = (uint32_t)highest,
        .term = (uint32_t)term,
        .pending_term = (uint32_t)pending_term,
        .has_archived = has_archived != 0,
        .archived_unix_ms = archived_ms,
        .snapshot = {(uint32_t)snap_wal, (uint32_t)snap_frame},
        .snapshot_unix_ms = snap_ms,
        .snapshot_bytes = (uint64_t)snap_bytes,
        .database = {(uint64_t)inode, (uint64_t)size, mtime},
        .backfilled = (uint32_t)backfilled,
        .checkpoint_running = checkpoint_running != 0,
        .reset_follows = reset_follows != 0,
    };
    return state_copy_text(r->archive, sizeof r->archive, archive) &&
           state_copy_text(r->term_tag, sizeof r->term_tag, term_tag) &&
           state_copy_text(r->pending_tag, sizeof r->pending_tag, pending_tag) &&
           state_generation_from(generation, &r->generation) &&
           state_generation_from(pending_generation, &r->pending_generation) &&
           state_point_from(confirmed, &r->confirmed, &r->confirmed_salts) &&
           state_point_from(captured, &r->captured, &r->captured_salts) &&
           state_point_from(reset, &r->reset_point, &r->reset_salts);
}

/* Reads one slot; *sequence is 0 when it holds no valid record. */
static enum rc state_read_slot(const struct state *state, int slot, struct state_record *record,
                               uint64_t *sequence, struct err *err)
{
    uint8_t bytes[SLOT_BYTES];
    uint8_t digest[HASH_SHA256_BYTES];
    *sequence = 0;
    *record = (struct state_record){0};
    enum rc rc = fsio_read_at(state->fd, bytes, sizeof bytes, (uint64_t)slot * SLOT_BYTES, err);
    if (rc != RC_OK) {
        return rc == RC_CORRUPT ? RC_OK : rc; /* a file cut short holds no record */
    }
    if ((rc = hash_sha256(bytes, SLOT_HASH_OFFSET, digest, err)) != RC_OK) {
        return rc;
    }
    uint32_t json_bytes = bytes_get_u32(bytes + 12);
    if (memcmp(bytes, slot_magic, sizeof slot_magic) != 0 ||
        bytes_get_u32(bytes + 8) != SLOT_VERSION || json_bytes > SLOT_JSON_BYTES_MAX ||
        memcmp(digest, bytes + SLOT_HASH_OFFSET, sizeof digest) != 0) {
        return RC_OK;
    }
    json_t *json;
    rc = json_fields_load(bytes + SLOT_JSON_OFFSET, json_bytes, "the state record", &json, err);
    if (rc == RC_OK && state_record_from(json, record)) {
        *sequence = bytes_get_u64(bytes + 16);
    } else if (rc == RC_OK && json_fields_lacked_memory()) {
        rc = err_set(err, RC_NOMEM, "no memory to read the state record");
    }
    json_decref(json);
    return rc == RC_CORRUPT ? RC_OK
                            : rc; /* no record; but a lack of memory says nothing about it */
}

enum rc state_reload(struct state *state, struct err *err)
{
    struct state_record records[2];
    uint64_t sequences[2];
    for (int slot = 0; slot < 2; slot++) {
        enum rc rc = state_read_slot(state, slot, &records[slot], &sequences[slot], err);
        if (rc != RC_OK) {
            return rc;
        }
    }
    int newest = sequences[1] > sequences[0] ? 1 : 0;
    (void)pthread_mutex_lock(&state->mutex);
    state->record = records[newest];
    state->record.valid = sequences[newest] > 0;
    state->sequence = sequences[newest];
    (void)pthread_mutex_unlock(&state->mutex);
    return RC_OK;
}

void state_get(struct state *state, struct state_record *record)
{
    (void)pthread_mutex_lock(&state->mutex);
    *record = state->record;
    (void)pthread_mutex_unlock(&state->mutex);
}

void state_edit_begin(struct state *state, struct state_record *record)
{
    (void)pthread_mutex_lock(&state->mutex);
    *record = state->record;
}

void state_edit_cancel(struct state *state)
{
    (void)pthread_mutex_unlock(&state->mutex);
}

/* Fills a slot's bytes. RC_NOMEM, RC_LIMIT. */
static enum rc state_fill_slot(uint8_t bytes[SLOT_BYTES], const struct state_record *record,
                               uint64_t sequence, struct err *err)
{
    json_t *json = state_record_json(record);
    if (json == NULL) {
        return err_set(err, RC_NOMEM, "no memory for the state record");
    }
    size_t json_bytes =
        json_dumpb(json, (char *)bytes + SLOT_JSON_OFFSET, SLOT_JSON_BYTES_MAX, JSON_COMPACT);
    json_decref(json);
    if (json_bytes == 0 || json_bytes > SLOT_JSON_BYTES_MAX) {
        return err_set(err, RC_LIMIT, "the state record does not fit its slot");
    }
    memcpy(bytes, slot_magic, sizeof slot_magic);
    bytes_put_u32(bytes + 8, SLOT_VERSION);
    bytes_put_u32(bytes + 12, (uint32_t)json_bytes);
    bytes_put_u64(bytes + 16, sequence);
    return hash_sha256(bytes, SLOT_HASH_OFFSET, bytes + SLOT_HASH_OFFSET, err);
}

enum rc state_edit_end(struct state *state, const struct state_record *record, struct err *err)
{
    uint8_t bytes[SLOT_BYTES] = {0};
    uint64_t sequence = state->sequence + 1;
    enum rc rc = state_fill_slot(bytes, record, sequence, err);
    if (rc == RC_OK) {
        rc = fsio_write_at(state->fd, bytes, sizeof bytes, (sequence % 2) * SLOT_BYTES, err);
    }
    if (rc == RC_OK && fdatasync(state->fd) != 0) {
        rc = err_set_errno(err, RC_IO, "cannot sync the state file");
    }
    if (rc == RC_OK) {
        state->record = *record;
        state->record.valid = true;
        state->sequence = sequence;
    }
    (void)pthread_mutex_unlock(&state->mutex);
    return rc;
}

/* Ranges of OFD locks, freed by close. */
static const off_t range_open[] = {0, STATE_FILE_BYTES};  /* held while it is opened */
static const off_t range_users[] = {STATE_FILE_BYTES, 1}; /* shared: the mapped part is in use */

static enum rc state_lock(int fd, const off_t range[2], short kind, struct err *err)
{
    struct flock lock = {
        .l_type = kind, .l_whence = SEEK_SET, .l_start = range[0], .l_len = range[1]};
    while (fcntl(fd, F_OFD_SETLKW, &lock) != 0) {
        if (errno != EINTR) {
            return err_set_errno(err, RC_IO, "cannot lock the state file");
        }
    }
    return RC_OK;
}

static bool state_has_users(int fd)
{
    struct flock lock = {.l_type = F_WRLCK,
                         .l_whence = SEEK_SET,
                         .l_start = range_users[0],
                         .l_len = range_users[1]};
    return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

/*
 * Starts the mapped part anew after a boot, for its monotonic times and counters mean nothing then, and
 * where its last users were of another version. Under range_open.
 */
static enum rc state_begin_live(struct state *state, struct err *err)
{
    struct state_live *live = state->live;
    char boot_id[HISTORY_TEXT_BYTES];
    history_boot_id(boot_id);
    bool this_boot = strncmp(live->boot_id, boot_id, sizeof live->boot_id - 1) == 0;
    if (!this_boot || live->layout != STATE_LIVE_LAYOUT) {
        if (this_boot && state_has_users(state->fd)) {
            return err_set(err, RC_BUSY,
                           "a server of another version runs on this database and shares its state "
                           "in another form: stop it first");
        }
        memset(live, 0, sizeof *live);
        memcpy(live->boot_id, boot_id, sizeof live->boot_id - 1);
        live->layout = STATE_LIVE_LAYOUT;
    }
    return state_lock(state->fd, range_users, F_RDLCK, err);
}

enum rc state_open(struct state *state, const char *path, struct err *err)
{
    enum rc rc;
    void *map = MAP_FAILED;
    *state = (struct state){.fd = -1};
    ASSERT(pthread_mutex_init(&state->mutex, NULL) == 0);
    if ((rc = fsio_open(path, O_RDWR | O_CREAT, 0644, &state->fd, err)) != RC_OK ||
        (rc = state_lock(state->fd, range_open, F_WRLCK, err)) != RC_OK) {
        goto done;
    }
    struct stat stat;
    if (fstat(state->fd, &stat) != 0 ||
        (stat.st_size < STATE_FILE_BYTES && ftruncate(state->fd, STATE_FILE_BYTES) != 0)) {
        rc = fsio_fail(err, "cannot size", path);
        goto done;
    }
    /* blocks are allocated now, so that a full disk cannot turn a store to the map into SIGBUS */
    if (posix_fallocate(state->fd, 0, STATE_FILE_BYTES) != 0) {
        rc = fsio_fail(err, "no room for", path);
        goto done;
    }
    map = mmap(NULL, STATE_FILE_BYTES - STATE_LIVE_OFFSET, PROT_READ | PROT_WRITE, MAP_SHARED,
               state->fd, STATE_LIVE_OFFSET);
    if (map == MAP_FAILED) {
        rc = fsio_fail(err, "cannot map", path);
        goto done;
    }
    state->live = map;
    if ((rc = state_begin_live(state, err)) == RC_OK &&
        (rc = state_lock(state->fd, range_open, F_UNLCK, err)) == RC_OK) {
        rc = state_reload(state, err);
    }
done:
    if (rc != RC_OK) {
        state_close(state);
    }
    return rc;
}

void state_close(struct state *state)
{
    if (state->live != NULL) {
        (void)munmap(state->live, STATE_FILE_BYTES - STATE_LIVE_OFFSET);
        state->live = NULL;
    }
    if (state->fd >= 0) {
        (void)close(state->fd);
        state->fd = -1;
    }
    (void)pthread_mutex_destroy(&state->mutex);
}

bool state_is_current(const struct state *state, const char *path)
{
    struct stat open_file;
    struct fsio_stat named;
    struct err ignored;
    return fstat(state->fd, &open_file) == 0 && fsio_stat(path, &named, &ignored) == RC_OK &&
           named.exists && named.inode == open_file.st_ino;
}

void state_adopt(struct state *state, struct state *fresh)
{
    (void)close(state->fd);
    state->fd = fresh->fd;
    state->live = fresh->live;
    state->record = fresh->record;
    state->sequence = fresh->sequence;
    (void)pthread_mutex_destroy(&fresh->mutex);
}

void state_publish(struct state *state, const struct state_wal_map *map,
                   const struct replicator_status *status)
{
    struct state_live *live = state->live;
    uint32_t odd =
        atomic_load(&live->publish_seq) | 1; /* a publisher that died may have left it odd */
    atomic_store(&live->publish_seq, odd);
    atomic_thread_fence(memory_order_seq_cst);
    live->wal_map = *map;
    live->published = *status;
    atomic_thread_fence(memory_order_seq_cst);
    atomic_store(&live->publish_seq, odd + 1);
}

#define STATE_READ_TRIES 1000 /* a publisher that died in the middle must not hang readers */

void state_read_published(const struct state *state, struct state_wal_map *map,
                          struct replicator_status *status)
{
    const struct state_live *live = state->live;
    for (int attempt = 0; attempt < STATE_READ_TRIES; attempt++) {
        uint32_t before = atomic_load(&live->publish_seq);
        atomic_thread_fence(memory_order_seq_cst);
        if (map != NULL) {
            *map = live->wal_map;
        }
        if (status != NULL) {
            *status = live->published;
        }
        atomic_thread_fence(memory_order_seq_cst);
        if ((before & 1) == 0 && before == atomic_load(&live->publish_seq)) {
            return;
        }
    }
    if (map != NULL) {
        map->known = false;
    }
}

static void state_futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void state_note_commit(struct state *state)
{
    struct state_live *live = state->live;
    int64_t none = 0;
    if (atomic_load(&live->uncaptured_ms) == 0) {
        (void)atomic_compare_exchange_strong(&live->uncaptured_ms, &none, clk_boottime_ms());
    }
    atomic_fetch_add(&live->wake, 1);
    if (atomic_load(&live->leader_sleeps) != 0) {
        state_futex_wake(&live->wake);
    }
}

void state_wake(struct state *state)
{
    struct state_live *live = state->live;
    atomic_fetch_add(&live->urgent, 1);
    atomic_fetch_add(&live->wake, 1);
    state_futex_wake(&live->urgent);
    state_futex_wake(&live->wake);
}

struct state_seen state_seen(const struct state *state)
{
    const struct state_live *live = state->live;
    return (struct state_seen){atomic_load(&live->wake), atomic_load(&live->urgent)};
}

void state_sleep(struct state *state, struct state_seen seen, bool for_commits, int64_t timeout_ms)
{
    struct state_live *live = state->live;
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ms / 1000),
                               .tv_nsec = (long)(timeout_ms % 1000) * 1000000};
    if (!for_commits) {
        (void)syscall(SYS_futex, &live->urgent, FUTEX_WAIT, seen.urgent, &timeout, NULL, 0);
        return;
    }
    atomic_store(&live->leader_sleeps, 1);
    (void)syscall(SYS_futex, &live->wake, FUTEX_WAIT, seen.wake, &timeout, NULL, 0);
    atomic_store(&live->leader_sleeps, 0);
}

int64_t state_oldest_ms(const struct state *state)
{
    const struct state_live *live = state->live;
    /* in the order in which a stamp moves: it is set in the next place before it leaves the last */
    int64_t uncaptured = atomic_load(&live->uncaptured_ms);
    int64_t capturing = atomic_load(&live->capturing_ms);
    int64_t spooled = atomic_load(&live->spooled_ms);
    int64_t stamps[3] = {uncaptured, capturing, spooled};
    int64_t oldest = 0;
    for (int i = 0; i < 3; i++) {
        if (stamps[i] != 0 && (oldest == 0 || stamps[i] < oldest)) {
            oldest = stamps[i];
        }
    }
    return oldest;
}

int64_t state_lag_ms(const struct state *state)
{
    int64_t oldest = state_oldest_ms(state);
    if (oldest == 0) {
        return 0;
    }
    int64_t age = clk_boottime_ms() - oldest;
    return age > 0 ? age + 1 : 1; /* stamps are cut to ms: round up */
}

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "atomics in shared memory must be lock-free");
