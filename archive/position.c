/* SPDX-License-Identifier: Apache-2.0 */
/* position: see position.h. Format: docs/archive-format.md, "Names and numbers". */
#include "archive/position.h"

#include "base/bytes.h"

#include <stdio.h>
#include <string.h>

#define NUMBER_DIGITS 8
#define RANDOM_BYTES 8
#define U32_DIGITS_MAX 10

_Static_assert(GENERATION_ID_BYTES == NUMBER_DIGITS + 1 + 2 * RANDOM_BYTES + 1, "id and its NUL");

struct generation_id generation_id_make(uint32_t number, const uint8_t random[8])
{
    ASSERT(number >= 1);
    ASSERT(number <= GENERATION_NUMBER_MAX);
    struct generation_id id;
    char hex[2 * RANDOM_BYTES + 1];
    bytes_to_hex(random, RANDOM_BYTES, hex);
    (void)snprintf(id.text, sizeof id.text, "%08u-%s", number, hex);
    return id;
}

bool generation_id_parse(const char *text, struct generation_id *id, uint32_t *number)
{
    uint64_t value = 0;
    uint8_t random[RANDOM_BYTES];
    if (strnlen(text, GENERATION_ID_BYTES) != GENERATION_ID_BYTES - 1 ||
        !bytes_from_decimal(text, NUMBER_DIGITS, &value) || value < 1 ||
        text[NUMBER_DIGITS] != '-' ||
        !bytes_from_hex(text + NUMBER_DIGITS + 1, RANDOM_BYTES, random)) {
        return false;
    }
    memmove(id->text, text, GENERATION_ID_BYTES); /* the text may be the id's own */
    if (number != NULL) {
        *number = (uint32_t)value;
    }
    return true;
}

bool generation_id_equal(const struct generation_id *a, const struct generation_id *b)
{
    return strncmp(a->text, b->text, GENERATION_ID_BYTES) == 0;
}

bool generation_id_is_none(const struct generation_id *id)
{
    return id->text[0] == '\0';
}

uint32_t generation_id_number(const struct generation_id *id)
{
    uint64_t value = 0;
    if (generation_id_is_none(id)) {
        return 0;
    }
    ASSERT(bytes_from_decimal(id->text, NUMBER_DIGITS, &value));
    return (uint32_t)value;
}

int position_compare(struct position a, struct position b)
{
    if (a.wal_no != b.wal_no) {
        return a.wal_no < b.wal_no ? -1 : 1;
    }
    if (a.frame_no != b.frame_no) {
        return a.frame_no < b.frame_no ? -1 : 1;
    }
    return 0;
}

bool wal_checksum_equal(struct wal_checksum a, struct wal_checksum b)
{
    return a.sum1 == b.sum1 && a.sum2 == b.sum2;
}

bool wal_point_equal(struct wal_point a, struct wal_point b)
{
    return position_compare(a.position, b.position) == 0 &&
           wal_checksum_equal(a.checksum, b.checksum);
}

void position_format(const struct generation_id *id, struct position position,
                     char text[POSITION_TEXT_BYTES])
{
    int n = snprintf(text, POSITION_TEXT_BYTES, "%s/%u/%u", id->text, position.wal_no,
                     position.frame_no);
    ASSERT(n > 0 && n < POSITION_TEXT_BYTES);
}

/* Takes a '/' and 1 to 10 digits, moves *text behind them. Zeros in front are fine: names have them. */
static bool position_parse_number(const char **text, uint32_t *number)
{
    const char *digits = *text + 1;
    size_t count = 0;
    uint64_t value = 0;
    if (**text != '/') {
        return false;
    }
    while (digits[count] >= '0' && digits[count] <= '9' && count <= U32_DIGITS_MAX) {
        count++;
    }
    if (count > U32_DIGITS_MAX || !bytes_from_decimal(digits, count, &value) ||
        value > UINT32_MAX) {
        return false;
    }
    *number = (uint32_t)value;
    *text = digits + count;
    return true;
}

enum rc position_parse(const char *text, struct generation_id *id, struct position *position,
                       struct err *err)
{
    char id_text[GENERATION_ID_BYTES];
    size_t count = strnlen(text, GENERATION_ID_BYTES - 1);
    memcpy(id_text, text, count);
    id_text[count] = '\0';
    const char *rest = text + count;
    struct generation_id parsed_id;
    struct position parsed;
    if (!generation_id_parse(id_text, &parsed_id, NULL) ||
        !position_parse_number(&rest, &parsed.wal_no) ||
        !position_parse_number(&rest, &parsed.frame_no) || *rest != '\0' || parsed.wal_no < 1 ||
        (parsed.frame_no == 0 && parsed.wal_no != 1)) {
        return err_set(err, RC_INVALID,
                       "\"%.80s\" is not a position; expected GENERATION/WAL_NO/FRAME_NO, for "
                       "example 00000003-9f2c41d7a6b0e355/3/164",
                       text);
    }
    *id = parsed_id;
    *position = parsed;
    return RC_OK;
}
