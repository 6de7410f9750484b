/* SPDX-License-Identifier: Apache-2.0 */
/* wal_follower: see wal_follower.h. */
#include "replicator/wal_follower.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLLOWER_READ_BYTES                                                                        \
    (1u << 20) /* one pread: large enough to be cheap, small beside a segment */

void wal_follower_init(struct wal_follower *f, const char *wal_path)
{
    *f = (struct wal_follower){.fd = -1};
    ASSERT(strlen(wal_path) < sizeof f->path);
    memcpy(f->path, wal_path, strlen(wal_path) + 1);
}

void wal_follower_deinit(struct wal_follower *f)
{
    if (f->fd >= 0) {
        (void)close(f->fd); /* harmless: SQLite keeps no locks on the -wal */
        f->fd = -1;
    }
}

enum rc wal_follower_open(struct wal_follower *f, struct err *err)
{
    wal_follower_deinit(f);
    enum rc rc = fsio_open(f->path, O_RDONLY, 0, &f->fd, err);
    if (rc != RC_OK) {
        return rc;
    }
    struct stat stat;
    if (fstat(f->fd, &stat) != 0) {
        return fsio_fail(err, "cannot look at", f->path);
    }
    f->inode = stat.st_ino;
    return RC_OK;
}

enum rc wal_follower_check_file(const struct wal_follower *f, struct err *err)
{
    struct fsio_stat stat;
    enum rc rc = fsio_stat(f->path, &stat, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (!stat.exists || stat.inode != f->inode) {
        return err_set(err, RC_CORRUPT, "%s was %s under the running server", f->path,
                       stat.exists ? "replaced" : "deleted");
    }
    return RC_OK;
}

void wal_follower_continue(struct wal_follower *f, const struct wal_point *end,
                           struct wal_salts salts)
{
    f->end = *end;
    f->salts = salts;
    f->wal_no = end->position.wal_no;
    f->frame_no = end->position.frame_no;
    f->sum = end->checksum;
    f->page_size_bytes = 0;
}

uint32_t wal_follower_next_wal_no(const struct wal_follower *f)
{
    return f->end.position.frame_no == 0 ? 1 : f->end.position.wal_no + 1;
}

void wal_follower_begin_wal(struct wal_follower *f, struct wal_salts salts)
{
    f->wal_no = wal_follower_next_wal_no(f);
    f->salts = salts;
    f->frame_no = 0;
    f->page_size_bytes = 0;
}

void wal_follower_begin_generation(struct wal_follower *f, struct wal_salts salts)
{
    f->end = (struct wal_point){{1, 0}, {0, 0}};
    wal_follower_begin_wal(f, salts);
}

/* Reads the WAL header of the WAL that f->salts names. */
static enum rc follower_read_wal_header(struct wal_follower *f, struct err *err)
{
    struct wal_header header;
    enum rc rc = fsio_read_at(f->fd, f->header_bytes, sizeof f->header_bytes, 0, err);
    if (rc == RC_OK) {
        rc = wal_header_decode(f->header_bytes, &header, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    if (!wal_salts_equal(header.salts, f->salts)) {
        return err_set(err, RC_CORRUPT, "the -wal header's salts are not those of the wal-index");
    }
    f->page_size_bytes = header.page_size_bytes;
    f->big_endian_checksums = header.big_endian_checksums;
    if (f->frame_no == 0) {
        f->sum = header.checksum;
    }
    return RC_OK;
}

/* Captures up to `count` frames behind frame_no. RC_CORRUPT keeps the good ones before the bad. */
static enum rc follower_capture_piece(struct wal_follower *f, uint32_t count,
                                      struct segmenter *segmenter, uint32_t *captured,
                                      struct err *err)
{
    struct segmenter_wal wal = {f->wal_no, f->page_size_bytes, f->big_endian_checksums, f->salts,
                                f->header_bytes};
    uint8_t *frames;
    *captured = 0;
    size_t room = segmenter_reserve(segmenter, &wal, f->frame_no + 1, f->sum, &frames, err);
    if (room == 0) {
        return err->rc;
    }
    size_t frame_bytes = f->page_size_bytes + WAL_FRAME_HEADER_BYTES;
    size_t most = FOLLOWER_READ_BYTES / frame_bytes;
    size_t want = count < room ? count : room;
    want = want < most ? want : most;
    enum rc rc = fsio_read_at(f->fd, frames, want * frame_bytes,
                              wal_frame_offset(f->page_size_bytes, f->frame_no + 1), err);
    if (rc != RC_OK) {
        return rc;
    }
    struct wal_run run = {.salts = f->salts,
                          .big_endian_checksums = f->big_endian_checksums,
                          .page_size_bytes = f->page_size_bytes,
                          .sum = f->sum};
    rc = wal_run_check(&run, frames, want, err);
    if (run.good_count > 0) {
        segmenter_add(segmenter, run.good_count, run.sum);
        f->sum = run.sum;
        f->frame_no += (uint32_t)run.good_count;
        f->end = (struct wal_point){{f->wal_no, f->frame_no}, f->sum};
        *captured = (uint32_t)run.good_count;
    }
    return rc;
}

enum rc wal_follower_capture(struct wal_follower *f, const struct wal_index_header *header,
                             struct segmenter *segmenter, struct err *err)
{
    ASSERT(wal_salts_equal(header->salts, f->salts));
    ASSERT(header->mx_frame >= f->frame_no);
    if (f->page_size_bytes == 0) {
        enum rc rc = follower_read_wal_header(f, err);
        if (rc != RC_OK) {
            return rc;
        }
    }
    while (f->frame_no < header->mx_frame) {
        uint32_t captured;
        enum rc rc =
            follower_capture_piece(f, header->mx_frame - f->frame_no, segmenter, &captured, err);
        if (rc != RC_OK) {
            return err_prefix(err, "reading frame %u of WAL %u", f->frame_no + 1, f->wal_no);
        }
        ASSERT(captured > 0);
    }
    if (!wal_checksum_equal(f->sum, header->checksum)) {
        return err_set(err, RC_CORRUPT,
                       "frame %u of WAL %u has another checksum than the wal-index says",
                       f->frame_no, f->wal_no);
    }
    return RC_OK;
}

enum rc wal_follower_checksum_at(const struct wal_follower *f, uint32_t page_size_bytes,
                                 uint32_t frame_no, struct wal_salts *salts,
                                 struct wal_checksum *checksum, struct err *err)
{
    uint8_t bytes[WAL_HEADER_BYTES];
    if (frame_no == 0) {
        struct wal_header header;
        enum rc rc = fsio_read_at(f->fd, bytes, WAL_HEADER_BYTES, 0, err);
        if (rc == RC_OK) {
            rc = wal_header_decode(bytes, &header, err);
        }
        if (rc != RC_OK) {
            return rc == RC_CORRUPT ? err_set(err, RC_NOT_FOUND, "no WAL header") : rc;
        }
        *salts = header.salts;
        *checksum = header.checksum;
        return RC_OK;
    }
    struct wal_frame_header header;
    enum rc rc = fsio_read_at(f->fd, bytes, WAL_FRAME_HEADER_BYTES,
                              wal_frame_offset(page_size_bytes, frame_no), err);
    if (rc != RC_OK) {
        return rc == RC_CORRUPT ? err_set(err, RC_NOT_FOUND, "no frame %u", frame_no) : rc;
    }
    wal_frame_header_decode(bytes, &header);
    *salts = header.salts;
    *checksum = header.checksum;
    return RC_OK;
}
