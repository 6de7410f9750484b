/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_door_protocol: any packet as a message between door and server, and any text as the door's
 * address. What is accepted is written back as the same bytes.
 */
#include "door/door_config.h"
#include "door/door_protocol.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

static void check_message(const uint8_t *data, size_t size)
{
    struct door_message message;
    struct err err = ERR_INIT;
    uint8_t again[DOOR_MESSAGE_BYTES];
    if (door_message_decode(data, size, &message, &err) != RC_OK) {
        ASSERT(err.rc == RC_INVALID);
        return;
    }
    ASSERT(size == DOOR_MESSAGE_BYTES);
    door_message_encode(&message, again);
    ASSERT(memcmp(again, data, sizeof again) == 0);
}

static void check_address(const uint8_t *data, size_t size)
{
    struct sockaddr_storage address;
    socklen_t address_bytes = 0;
    struct err err = ERR_INIT;
    char *text = malloc(size + 1);
    ASSERT(text != NULL);
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    if (door_config_parse_address(text, &address, &address_bytes, &err) == RC_OK) {
        ASSERT(address.ss_family == AF_INET || address.ss_family == AF_INET6);
        ASSERT(address_bytes == (address.ss_family == AF_INET ? sizeof(struct sockaddr_in)
                                                              : sizeof(struct sockaddr_in6)));
    } else {
        ASSERT(err.rc == RC_INVALID);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_message(data, size);
    check_address(data, size);
    return 0;
}
