/* SPDX-License-Identifier: Apache-2.0 */
/* door_socket: see door_socket.h. */
#include "door/door_socket.h"

#include "base/clk.h"
#include "door/door_hall.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LOCK_WAIT_MS 1000 /* for the door before us to be gone */
#define LOCK_PAUSE_MS 20

/*
 * One door per path, by a lock that dies with its holder, in whatever container that was. Without
 * it a second door would take the path from the first, and the apps would be divided.
 */
static enum rc lock_path(const char *path, int *lock_fd, struct err *err)
{
    char name[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int64_t deadline_ms = clk_monotonic_ms() + LOCK_WAIT_MS;

    (void)snprintf(name, sizeof name, "%s.lock", path);
    *lock_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*lock_fd < 0) {
        return err_set_errno(err, errno == EACCES ? RC_DENIED : RC_IO, "%s", name);
    }
    while (fcntl(*lock_fd, F_OFD_SETLK, &lock) < 0) {
        if (errno != EAGAIN && errno != EACCES) {
            return err_set_errno(err, RC_IO, "lock on %s", name);
        }
        if (clk_monotonic_ms() >= deadline_ms) {
            return err_set(err, RC_BUSY, "another door runs at %s", path);
        }
        clk_pause_ms(LOCK_PAUSE_MS);
    }
    return RC_OK;
}

/* A dead door's socket goes: the lock is ours. Anything else was put there by somebody who meant something. */
static enum rc remove_stale_socket(const char *path, struct err *err)
{
    struct stat found;

    if (lstat(path, &found) == 0 && !S_ISSOCK(found.st_mode)) {
        return err_set(err, RC_EXISTS, "HARVEY_DOOR_SOCKET=%s: there is a file that is no socket",
                       path);
    }
    (void)unlink(path);
    return RC_OK;
}

enum rc door_socket_open(const char *path, bool for_all, int *lock_fd, int *socket_fd,
                         struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    mode_t mode = for_all ? 0666 : 0600;

    if (strlen(path) >= sizeof address.sun_path) {
        return err_set(err, RC_INVALID, "HARVEY_DOOR_SOCKET=%s: longer than %zu bytes", path,
                       sizeof address.sun_path - 1);
    }
    enum rc rc = lock_path(path, lock_fd, err);
    if (rc == RC_OK) {
        rc = remove_stale_socket(path, err);
    }
    if (rc != RC_OK) {
        return rc;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    *socket_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*socket_fd < 0 || bind(*socket_fd, (const struct sockaddr *)&address, sizeof address) < 0 ||
        chmod(path, mode) < 0 || listen(*socket_fd, DOOR_MEMBERS_MAX) < 0) {
        return err_set_errno(err, errno == EACCES ? RC_DENIED : RC_IO, "socket at %s", path);
    }
    return RC_OK;
}
