/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_parking: see door_parking.h. A fixed array of slots; the used ones form a queue, the free
 * ones a stack, both by index.
 */
#include "door/door_parking.h"

#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define NO_SLOT UINT32_MAX

struct slot {
    int fd; /* -1: free */
    bool watched;
    uint32_t previous; /* towards the oldest */
    uint32_t next;     /* towards the newest, or the next free one */
};

struct door_parking {
    int epoll_fd;
    uint64_t tag;
    uint32_t capacity;
    uint32_t count;
    uint32_t oldest;
    uint32_t newest;
    uint32_t free_slot;
    uint64_t dropped_count;
    struct slot slots[];
};

enum rc door_parking_create(int epoll_fd, uint64_t tag, uint32_t capacity,
                            struct door_parking **parking, struct err *err)
{
    struct door_parking *made = malloc(sizeof *made + capacity * sizeof made->slots[0]);

    *parking = NULL;
    if (made == NULL) {
        return err_set(err, RC_NOMEM, "no memory to park %u connections", capacity);
    }
    *made = (struct door_parking){.epoll_fd = epoll_fd,
                                  .tag = tag,
                                  .capacity = capacity,
                                  .oldest = NO_SLOT,
                                  .newest = NO_SLOT,
                                  .free_slot = capacity > 0 ? 0 : NO_SLOT};
    for (uint32_t i = 0; i < capacity; i++) {
        made->slots[i] = (struct slot){.fd = -1, .next = i + 1 < capacity ? i + 1 : NO_SLOT};
    }
    *parking = made;
    return RC_OK;
}

void door_parking_destroy(struct door_parking *parking)
{
    if (parking == NULL) {
        return;
    }
    for (int fd; (fd = door_parking_take(parking)) >= 0;) {
        close(fd);
    }
    free(parking);
}

enum rc door_parking_add(struct door_parking *parking, int fd, struct err *err)
{
    uint32_t index = parking->free_slot;

    ASSERT(fd >= 0);
    if (index == NO_SLOT) {
        close(fd);
        return err_set(err, RC_LIMIT, "%u connections are parked: no room", parking->count);
    }
    struct slot *slot = &parking->slots[index];
    ASSERT(slot->fd < 0);
    parking->free_slot = slot->next;
    *slot = (struct slot){.fd = fd, .previous = parking->newest, .next = NO_SLOT};
    if (parking->newest != NO_SLOT) {
        parking->slots[parking->newest].next = index;
    } else {
        parking->oldest = index;
    }
    parking->newest = index;
    parking->count++;
    return RC_OK;
}

/* Out of the queue and of the epoll set; the descriptor is the caller's. */
static int remove_slot(struct door_parking *parking, uint32_t index)
{
    struct slot *slot = &parking->slots[index];
    int fd = slot->fd;

    ASSERT(fd >= 0 && parking->count > 0);
    if (slot->watched) {
        /* close() would not do: the socket lives on elsewhere, and so would the watch. */
        (void)epoll_ctl(parking->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    }
    if (slot->previous != NO_SLOT) {
        parking->slots[slot->previous].next = slot->next;
    } else {
        parking->oldest = slot->next;
    }
    if (slot->next != NO_SLOT) {
        parking->slots[slot->next].previous = slot->previous;
    } else {
        parking->newest = slot->previous;
    }
    *slot = (struct slot){.fd = -1, .next = parking->free_slot};
    parking->free_slot = index;
    parking->count--;
    return fd;
}

int door_parking_take(struct door_parking *parking)
{
    return parking->oldest == NO_SLOT ? -1 : remove_slot(parking, parking->oldest);
}

void door_parking_watch(struct door_parking *parking)
{
    /* New ones stand at the end: the first watched one ends the walk. */
    for (uint32_t i = parking->newest; i != NO_SLOT && !parking->slots[i].watched;
         i = parking->slots[i].previous) {
        struct epoll_event event = {.events = EPOLLRDHUP, .data.u64 = parking->tag | i};
        (void)epoll_ctl(parking->epoll_fd, EPOLL_CTL_ADD, parking->slots[i].fd, &event);
        parking->slots[i].watched = true; /* unwatched by the kernel's lack of memory: no harm */
    }
}

/* The peer has said its last word: is there still a request of it to be answered? */
static bool has_unread_bytes(int fd)
{
    int unread = 0;

    return ioctl(fd, FIONREAD, &unread) == 0 && unread > 0;
}

void door_parking_look(struct door_parking *parking, uint32_t index)
{
    if (index >= parking->capacity || parking->slots[index].fd < 0) {
        return; /* an event of the same round that was overtaken */
    }
    struct slot *slot = &parking->slots[index];
    struct pollfd now = {.fd = slot->fd, .events = POLLRDHUP};
    if (poll(&now, 1, 0) <= 0) {
        return; /* overtaken, and the slot has a new guest */
    }
    if ((now.revents & (POLLHUP | POLLERR)) == 0 && has_unread_bytes(slot->fd)) {
        struct epoll_event quiet = {.events = 0, .data.u64 = parking->tag | index};
        (void)epoll_ctl(parking->epoll_fd, EPOLL_CTL_MOD, slot->fd, &quiet);
        return; /* half-closed with a request waiting: only a reset is news now */
    }
    close(remove_slot(parking, index));
    parking->dropped_count++;
}

uint32_t door_parking_count(const struct door_parking *parking)
{
    return parking->count;
}

uint64_t door_parking_dropped_count(const struct door_parking *parking)
{
    return parking->dropped_count;
}
