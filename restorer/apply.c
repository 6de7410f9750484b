/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apply: see apply.h. Page n lies at (n - 1) * page size; the rules of a checkpoint are those of
 * https://www.sqlite.org/fileformat2.html#walfmt: the last image of a page up to the last commit
 * frame counts, and that frame's size is the size of the file.
 */
#include "restorer/apply.h"

#include "archive/wal_format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#define APPLY_IOV_MAX 64 /* pages gathered into one pwritev; far below IOV_MAX */

static bool apply_is_full(int code)
{
    return code == ENOSPC || code == EDQUOT || code == EFBIG;
}

enum rc apply_fail(struct err *err, const char *what, const char *path)
{
    return err_set_errno(err, apply_is_full(errno) ? RC_LIMIT : RC_IO, "cannot %s %s", what, path);
}

enum rc apply_init(struct apply *apply, int fd, const char *path, uint32_t page_size_bytes,
                   uint32_t page_count, struct err *err)
{
    ASSERT(wal_page_size_is_valid(page_size_bytes));
    ASSERT(page_count > 0);
    *apply = (struct apply){
        .fd = fd, .path = path, .page_size_bytes = page_size_bytes, .page_count = page_count};
    if (ftruncate(fd, 0) != 0) {
        return apply_fail(err, "empty", path);
    }
    /* Room and neighbouring blocks for all of it, before pages come in any order. Where the
     * filesystem cannot reserve, the writes will tell. */
    off_t size_bytes = (off_t)page_count * (off_t)page_size_bytes;
    if (fallocate(fd, 0, 0, size_bytes) != 0 && apply_is_full(errno)) {
        return apply_fail(err, "make room for", path);
    }
    apply->page_bits = calloc((size_t)page_count / 8 + 1, 1);
    if (apply->page_bits == NULL) {
        return err_set(err, RC_NOMEM, "no memory for a bit per page of %u pages", page_count);
    }
    return RC_OK;
}

void apply_deinit(struct apply *apply)
{
    free(apply->page_bits);
    apply->page_bits = NULL;
}

static bool apply_is_final(const struct apply *apply, uint64_t page_index)
{
    return (apply->page_bits[page_index / 8] >> (page_index % 8) & 1u) != 0;
}

static void apply_set_final(struct apply *apply, uint64_t page_index)
{
    uint8_t *byte = &apply->page_bits[page_index / 8];
    *byte = (uint8_t)(*byte | 1u << (page_index % 8));
}

/* Pages gathered for one write. iov[0] belongs to the page with the HIGHEST number: frames come last
 * first, and SQLite writes the pages of a transaction in rising order. */
struct apply_gather {
    uint64_t lowest_page_index;
    int count;
    const uint8_t *pages[APPLY_IOV_MAX];
};

static enum rc apply_write_iov(const struct apply *apply, struct iovec *iov, int count,
                               uint64_t offset, struct err *err)
{
    while (count > 0) {
        ssize_t done = pwritev(apply->fd, iov, count, (off_t)offset);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            errno = done == 0 ? EIO : errno;
            return apply_fail(err, "write", apply->path);
        }
        offset += (uint64_t)done;
        size_t left = (size_t)done;
        while (count > 0 && left >= iov->iov_len) {
            left -= iov->iov_len;
            iov++;
            count--;
        }
        if (count > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + left;
            iov->iov_len -= left;
        }
    }
    return RC_OK;
}

static enum rc apply_flush(const struct apply *apply, struct apply_gather *gather, struct err *err)
{
    struct iovec iov[APPLY_IOV_MAX];
    for (int i = 0; i < gather->count; i++) {
        union {
            const uint8_t *from;
            void *to; /* struct iovec has no const; pwritev only reads */
        } page = {.from = gather->pages[gather->count - 1 - i]};
        iov[i] = (struct iovec){.iov_base = page.to, .iov_len = apply->page_size_bytes};
    }
    uint64_t offset = gather->lowest_page_index * apply->page_size_bytes;
    int count = gather->count;
    gather->count = 0;
    return apply_write_iov(apply, iov, count, offset, err);
}

static enum rc apply_gather_page(struct apply *apply, struct apply_gather *gather,
                                 uint64_t page_index, const uint8_t *page, struct err *err)
{
    bool goes_on = gather->count > 0 && gather->count < APPLY_IOV_MAX &&
                   page_index + 1 == gather->lowest_page_index;
    if (!goes_on && gather->count > 0) {
        enum rc rc = apply_flush(apply, gather, err);
        if (rc != RC_OK) {
            return rc;
        }
    }
    gather->pages[gather->count] = page;
    gather->count++;
    gather->lowest_page_index = page_index;
    apply_set_final(apply, page_index);
    apply->frame_pages++;
    return RC_OK;
}

enum rc apply_frames(struct apply *apply, const uint8_t *frames, size_t frame_count,
                     struct err *err)
{
    size_t frame_bytes = (size_t)WAL_FRAME_HEADER_BYTES + apply->page_size_bytes;
    struct apply_gather gather = {.count = 0};
    for (size_t i = frame_count; i > 0; i--) {
        const uint8_t *frame = frames + (i - 1) * frame_bytes;
        struct wal_frame_header header;
        wal_frame_header_decode(frame, &header);
        if (header.page_no == 0) {
            return err_set(err, RC_CORRUPT, "a frame with page number 0");
        }
        uint64_t page_index = (uint64_t)header.page_no - 1;
        if (page_index >= apply->page_count || apply_is_final(apply, page_index)) {
            continue;
        }
        enum rc rc =
            apply_gather_page(apply, &gather, page_index, frame + WAL_FRAME_HEADER_BYTES, err);
        if (rc != RC_OK) {
            return rc;
        }
    }
    return gather.count > 0 ? apply_flush(apply, &gather, err) : RC_OK;
}

enum rc apply_snapshot_bytes(struct apply *apply, uint64_t offset, const uint8_t *bytes,
                             size_t count, struct err *err)
{
    uint64_t page_bytes = apply->page_size_bytes;
    uint64_t end = offset + count;
    uint64_t end_max = apply->page_count * page_bytes;
    uint64_t at = offset;
    end = end > end_max ? end_max : end;
    while (at < end) {
        uint64_t run_end = at;
        while (run_end < end && !apply_is_final(apply, run_end / page_bytes)) {
            run_end = (run_end / page_bytes + 1) * page_bytes;
        }
        run_end = run_end > end ? end : run_end;
        if (run_end == at) {
            at = (at / page_bytes + 1) * page_bytes;
            continue;
        }
        union {
            const uint8_t *from;
            void *to;
        } piece = {.from = bytes + (at - offset)};
        struct iovec iov = {.iov_base = piece.to, .iov_len = (size_t)(run_end - at)};
        enum rc rc = apply_write_iov(apply, &iov, 1, at, err);
        if (rc != RC_OK) {
            return rc;
        }
        at = run_end;
    }
    return RC_OK;
}

void apply_start_writeback(const struct apply *apply, uint64_t offset, uint64_t count)
{
    /* Only a hint: a filesystem that cannot do it leaves the work to the fsync. */
    (void)sync_file_range(apply->fd, (off_t)offset, (off_t)count, SYNC_FILE_RANGE_WRITE);
}

enum rc apply_set_size(const struct apply *apply, struct err *err)
{
    uint64_t size_bytes = (uint64_t)apply->page_count * apply->page_size_bytes;
    if (ftruncate(apply->fd, (off_t)size_bytes) != 0) {
        return apply_fail(err, "set the size of", apply->path);
    }
    return RC_OK;
}

enum rc apply_sync(const struct apply *apply, struct err *err)
{
    if (fsync(apply->fd) != 0) {
        return apply_fail(err, "fsync", apply->path);
    }
    return RC_OK;
}
