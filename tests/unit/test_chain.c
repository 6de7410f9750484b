/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chain: two neighbours that fit, inside a WAL and across a reset; then one field at a time that does
 * not, and each must be refused.
 */
#include "restorer/chain.h"

#include "tests/unit/checks.h"

static struct err err;

static const struct chain_ends first = {
    .wal_no = 3,
    .first_frame_no = 11,
    .last_frame_no = 20,
    .page_size_bytes = 4096,
    .salts = {7, 8},
    .before = {1, 2},
    .after = {3, 4},
};

/* What goes on from `first` in the same WAL. */
static struct chain_ends next_in_wal(void)
{
    return (struct chain_ends){
        .wal_no = 3,
        .first_frame_no = 21,
        .last_frame_no = 22,
        .page_size_bytes = 4096,
        .salts = {7, 8},
        .before = {3, 4},
        .after = {5, 6},
        .link = {{3, 20}, {3, 4}},
    };
}

/* And what begins the next one. */
static struct chain_ends next_wal(void)
{
    return (struct chain_ends){
        .wal_no = 4,
        .first_frame_no = 1,
        .last_frame_no = 5,
        .page_size_bytes = 4096,
        .salts = {8, 99},
        .before = {50, 51},
        .after = {5, 6},
        .link = {{3, 20}, {3, 4}},
    };
}

static void test_chain__accepts_neighbours(void **state)
{
    (void)state;
    struct chain_ends a = first;
    struct chain_ends b = next_in_wal();
    check_ok(chain_check_next(&a, &b, &err));
    b = next_wal();
    check_ok(chain_check_next(&a, &b, &err));
    a.flags = SEGMENT_CONTINUED;
    b = next_in_wal();
    b.flags = SEGMENT_CONTINUES;
    check_ok(chain_check_next(&a, &b, &err));
}

/* Changes one thing by `what` and wants a refusal. */
static void change(struct chain_ends *a, struct chain_ends *b, int what)
{
    switch (what) {
    case 0:
        b->first_frame_no = 22;
        break;
    case 1:
        b->first_frame_no = 20;
        break;
    case 2:
        b->salts.salt1++;
        break;
    case 3:
        b->salts.salt2++;
        break;
    case 4:
        b->before.sum1++;
        break;
    case 5:
        b->before.sum2++;
        break;
    case 6:
        b->link.checksum.sum1++;
        break;
    case 7:
        b->link.position.frame_no--;
        break;
    case 8:
        b->link.position.wal_no--;
        break;
    case 9:
        b->page_size_bytes = 1024;
        break;
    case 10:
        b->big_endian_checksums = true;
        break;
    case 11:
        a->flags = SEGMENT_CONTINUED;
        break;
    case 12:
        b->flags = SEGMENT_CONTINUES;
        break;
    case 13:
        b->first_frame_no = 0;
        break;
    default:
        b->wal_no = 2;
        break;
    }
}

static void test_chain__refuses_each_difference_in_a_wal(void **state)
{
    (void)state;
    for (int what = 0; what <= 14; what++) {
        struct chain_ends a = first;
        struct chain_ends b = next_in_wal();
        change(&a, &b, what);
        err = (struct err)ERR_INIT;
        check_fails(RC_CORRUPT, chain_check_next(&a, &b, &err));
        check_text("do not continue");
    }
}

static void test_chain__refuses_each_difference_across_a_reset(void **state)
{
    (void)state;
    static const int applicable[] = {0, 6, 7, 8, 9, 11, 12, 13, 14};
    for (size_t i = 0; i < sizeof applicable / sizeof applicable[0]; i++) {
        struct chain_ends a = first;
        struct chain_ends b = next_wal();
        change(&a, &b, applicable[i]);
        check_fails(RC_CORRUPT, chain_check_next(&a, &b, &err));
    }
    struct chain_ends a = first;
    struct chain_ends b = next_wal();
    b.wal_no = 5; /* a whole WAL is missing */
    check_fails(RC_CORRUPT, chain_check_next(&a, &b, &err));
    b = next_wal();
    a.flags = SEGMENT_CONTINUED; /* no transaction reaches across a reset */
    b.flags = SEGMENT_CONTINUES;
    check_fails(RC_CORRUPT, chain_check_next(&a, &b, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain__accepts_neighbours),
        cmocka_unit_test(test_chain__refuses_each_difference_in_a_wal),
        cmocka_unit_test(test_chain__refuses_each_difference_across_a_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
