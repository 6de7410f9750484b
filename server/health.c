/* SPDX-License-Identifier: Apache-2.0 */
/*
 * health: see health.h. A Unix socket's path may have 107 bytes only, and a database may lie deeper:
 * so sockets are reached through a descriptor of their directory, /proc/self/fd/N/NAME.
 */
#include "server/health.h"

#include "archive/sidecar.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define HEALTH_ASK_TIMEOUT_MS 4000 /* below the image's health time-out of 5 s */
#define HEALTH_BACKLOG 16
#define HEALTH_ANSWERS_MAX 16 /* per round */
#define HEALTH_TEXT_BYTES 1024

static void health_name(char *name, size_t name_bytes)
{
    struct stat namespace;
    if (stat("/proc/self/ns/pid", &namespace) == 0) {
        (void)snprintf(name, name_bytes, "health-%llu.sock", (unsigned long long)namespace.st_ino);
    } else {
        (void)snprintf(name, name_bytes, "health.sock");
    }
}

/* A socket address for `name` in the open directory; valid while dir_fd is open. */
static void health_address(struct sockaddr_un *address, int dir_fd, const char *name)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    (void)snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%.80s", dir_fd,
                   name);
}

/* Binds under a name of its own and moves it into place, so that a server before us loses it whole. */
static enum rc bind_into(struct health *health, int dir_fd, struct err *err)
{
    char temporary[80];
    struct sockaddr_un address;
    struct stat made;
    (void)snprintf(temporary, sizeof temporary, "%.40s.tmp-%ld", health->name, (long)getpid());
    health_address(&address, dir_fd, temporary);
    (void)unlinkat(dir_fd, temporary, 0);
    if (bind(health->fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        fstatat(dir_fd, temporary, &made, AT_SYMLINK_NOFOLLOW) != 0 ||
        fchmodat(dir_fd, temporary, S_IRUSR | S_IWUSR, 0) != 0 ||
        listen(health->fd, HEALTH_BACKLOG) != 0 ||
        renameat(dir_fd, temporary, dir_fd, health->name) != 0) {
        enum rc rc = fsio_fail(err, "health socket", health->dir);
        (void)unlinkat(dir_fd, temporary, 0);
        return rc;
    }
    health->inode = made.st_ino;
    return RC_OK;
}

enum rc health_open(struct health *health, const char *database_path, struct err *err)
{
    struct sidecar sidecar;
    int dir_fd = -1;
    *health = (struct health)HEALTH_INIT;
    enum rc rc = sidecar_init(&sidecar, database_path, err);
    if (rc != RC_OK) {
        return rc;
    }
    health_name(health->name, sizeof health->name);
    memcpy(health->dir, sidecar.dir, sizeof health->dir);
    rc = fsio_open(health->dir, O_PATH | O_DIRECTORY, 0, &dir_fd, err);
    if (rc != RC_OK) {
        return rc;
    }
    health->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    rc = health->fd < 0 ? err_set_errno(err, RC_IO, "health socket")
                        : bind_into(health, dir_fd, err);
    if (rc != RC_OK && health->fd >= 0) {
        (void)close(health->fd);
        health->fd = -1;
    }
    (void)close(dir_fd);
    return rc;
}

bool health_is_in_place(const struct health *health)
{
    char path[FSIO_PATH_BYTES];
    struct stat found;
    struct err err;
    return health->fd >= 0 &&
           fsio_join(path, sizeof path, health->dir, health->name, &err) == RC_OK &&
           lstat(path, &found) == 0 && found.st_ino == health->inode;
}

void health_close(struct health *health)
{
    char path[FSIO_PATH_BYTES];
    struct err err;
    if (health->fd >= 0) {
        if (health_is_in_place(health) &&
            fsio_join(path, sizeof path, health->dir, health->name, &err) == RC_OK) {
            (void)unlink(path);
        }
        (void)close(health->fd);
        health->fd = -1;
    }
}

void health_answer(struct health *health, bool ready, const char *reason)
{
    char text[HEALTH_TEXT_BYTES];
    int count = ready ? snprintf(text, sizeof text, "ready\n")
                      : snprintf(text, sizeof text, "not ready: %.900s\n", reason);
    for (unsigned i = 0; i < HEALTH_ANSWERS_MAX; i++) {
        int fd = accept4(health->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            break;
        }
        ssize_t sent = send(fd, text, (size_t)count, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)sent; /* it fits into the socket's buffer, or the asker is gone */
        (void)close(fd);
    }
}

/* Reads to the end within the time allowed; the number of bytes. */
static size_t read_answer(int fd, char *text, size_t text_bytes)
{
    size_t used = 0;
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    while (used < text_bytes - 1 && poll(&poller, 1, HEALTH_ASK_TIMEOUT_MS) == 1) {
        ssize_t count = read(fd, text + used, text_bytes - 1 - used);
        if (count <= 0) {
            break;
        }
        used += (size_t)count;
    }
    text[used] = '\0';
    return used;
}

static enum rc ask(int dir_fd, const char *dir, struct err *err)
{
    char name[64];
    char text[HEALTH_TEXT_BYTES];
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return err_set_errno(err, RC_IO, "health socket");
    }
    health_name(name, sizeof name);
    health_address(&address, dir_fd, name);
    size_t used = 0;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
        used = read_answer(fd, text, sizeof text);
    }
    (void)close(fd);
    if (used == 0) {
        return err_set(err, RC_NOT_FOUND, "no server answers at %s/%s", dir, name);
    }
    (void)fputs(text, stdout);
    return strcmp(text, "ready\n") == 0 ? RC_OK : err_set(err, RC_UNAVAILABLE, "not ready");
}

enum rc health_ask(const char *database_path, struct err *err)
{
    struct sidecar sidecar;
    int dir_fd = -1;
    enum rc rc = sidecar_init(&sidecar, database_path, err);
    if (rc != RC_OK) {
        return rc;
    }
    if (fsio_open(sidecar.dir, O_PATH | O_DIRECTORY, 0, &dir_fd, err) != RC_OK) {
        return err_set(err, RC_NOT_FOUND, "no server answers: there is no %s", sidecar.dir);
    }
    rc = ask(dir_fd, sidecar.dir, err);
    (void)close(dir_fd);
    return rc;
}
