/* SPDX-License-Identifier: Apache-2.0 */
/* chain: see chain.h. */
#include "restorer/chain.h"

void chain_ends_of(const struct segment_header *header, struct chain_ends *ends)
{
    *ends = (struct chain_ends){
        .wal_no = header->wal_no,
        .first_frame_no = header->first_frame_no,
        .last_frame_no = header->last_frame_no,
        .flags = header->flags,
        .page_size_bytes = header->page_size_bytes,
        .big_endian_checksums = header->big_endian_checksums,
        .salts = header->salts,
        .before = header->before,
        .after = header->after,
        .link = header->link,
    };
}

struct wal_point chain_last_point(const struct chain_ends *ends)
{
    return (struct wal_point){.position = {ends->wal_no, ends->last_frame_no},
                              .checksum = ends->after};
}

static enum rc chain_broken(const struct chain_ends *later, const char *what, struct err *err)
{
    return err_set(err, RC_CORRUPT,
                   "frames %u-%u of WAL %u do not continue the frame before them: %s",
                   later->first_frame_no, later->last_frame_no, later->wal_no, what);
}

/* Inside one WAL: the same salts, the next frame, the same rolling checksum. */
static enum rc chain_check_same_wal(const struct chain_ends *earlier,
                                    const struct chain_ends *later, struct err *err)
{
    if (later->first_frame_no == 0 || later->first_frame_no - 1 != earlier->last_frame_no) {
        return chain_broken(later, "frames between them are missing or doubled", err);
    }
    if (!wal_salts_equal(earlier->salts, later->salts)) {
        return chain_broken(later, "other salts, so another WAL", err);
    }
    if (earlier->big_endian_checksums != later->big_endian_checksums) {
        return chain_broken(later, "another byte order of checksums", err);
    }
    if (!wal_checksum_equal(earlier->after, later->before)) {
        return chain_broken(later, "another checksum, so another history", err);
    }
    return RC_OK;
}

enum rc chain_check_next(const struct chain_ends *earlier, const struct chain_ends *later,
                         struct err *err)
{
    if (earlier->page_size_bytes != later->page_size_bytes) {
        return chain_broken(later, "another page size", err);
    }
    if (later->wal_no == earlier->wal_no) {
        enum rc rc = chain_check_same_wal(earlier, later, err);
        if (rc != RC_OK) {
            return rc;
        }
    } else if (later->wal_no != earlier->wal_no + 1 || later->first_frame_no != 1) {
        return chain_broken(later, "frames between them are missing", err);
    }
    if (!wal_point_equal(chain_last_point(earlier), later->link)) {
        return chain_broken(later, "its link names another frame", err);
    }
    bool open_before = (earlier->flags & SEGMENT_CONTINUED) != 0;
    bool open_after = (later->flags & SEGMENT_CONTINUES) != 0;
    if (open_before != open_after || (open_before && later->wal_no != earlier->wal_no)) {
        return chain_broken(later, "a transaction is cut between them", err);
    }
    return RC_OK;
}
