/* SPDX-License-Identifier: Apache-2.0 */
/* guarded: see guarded.h. */
#include "tests/unit/guarded.h"

#include "base/err.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void guarded_init(struct guarded *guarded, size_t count_max)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    guarded->room_bytes = (count_max / page_bytes + 1) * page_bytes;
    guarded->map_bytes = guarded->room_bytes + page_bytes;
    guarded->map =
        mmap(NULL, guarded->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT(guarded->map != MAP_FAILED);
    ASSERT(mprotect(guarded->map + guarded->room_bytes, page_bytes, PROT_NONE) == 0);
}

void guarded_deinit(struct guarded *guarded)
{
    ASSERT(munmap(guarded->map, guarded->map_bytes) == 0);
}

uint8_t *guarded_place(struct guarded *guarded, const void *bytes, size_t count)
{
    ASSERT(count <= guarded->room_bytes);
    uint8_t *place = guarded->map + guarded->room_bytes - count;
    if (count > 0) {
        memcpy(place, bytes, count);
    }
    return place;
}
