/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore_probe: restores from a directory archive again and again in one process, for
 * test_damage_matrix.py, which changes the archive between two of them: a hundred thousand restores
 * take minutes and not hours.
 *
 *   restore_probe ARCHIVE-DIRECTORY TARGET-FILE
 *
 * For each line of input, one restore and one line: code, position, whether something was left out,
 * SHA-256 of the database, number of files at the target before they are removed (restored.json and
 * leader.lock not counted), last good position; "-" where there is none. A line "latest" restores to
 * the latest, "GENERATION/WAL/FRAME" to that position.
 */
#include "archive/store_config.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/fsio.h"
#include "base/hash.h"
#include "restorer/restorer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATABASE_BYTES_MAX (64u << 20)

static char archive[FSIO_PATH_BYTES];

static const char *lookup(const char *name)
{
    return strcmp(name, "HARVEY_ARCHIVE") == 0 ? archive : NULL;
}

struct sweep {
    const char *dir;
    int count;
};

/* Counts and removes whatever lies in the target's directory. */
static enum rc sweep_visit(void *arg, const char *name, bool is_dir, struct err *err)
{
    struct sweep *sweep = arg;
    char path[FSIO_PATH_BYTES];
    if (strcmp(name, "restored.json") != 0 && strcmp(name, "leader.lock") != 0) {
        sweep->count++;
    }
    enum rc rc = fsio_join(path, sizeof path, sweep->dir, name, err);
    if (rc != RC_OK) {
        return rc;
    }
    return is_dir ? fsio_remove_tree(path, err) : fsio_remove_file(path, err);
}

static void digest_of(const char *path, char hex[2 * HASH_SHA256_BYTES + 1])
{
    struct buf content;
    struct err err = ERR_INIT;
    uint8_t digest[HASH_SHA256_BYTES];
    buf_init(&content, DATABASE_BYTES_MAX);
    ASSERT(fsio_read_file(path, &content, &err) == RC_OK);
    ASSERT(hash_sha256(content.data, content.size, digest, &err) == RC_OK);
    bytes_to_hex(digest, sizeof digest, hex);
    buf_deinit(&content);
}

static void run_once(const struct store_config *config, const char *dir, const char *target,
                     const char *word)
{
    struct restore_request request = {.output_path = target, .jobs = 2};
    struct restore_result result;
    struct err err = ERR_INIT;
    char hex[2 * HASH_SHA256_BYTES + 1] = "-";
    char position[POSITION_TEXT_BYTES] = "-";
    char last_good[POSITION_TEXT_BYTES] = "-";
    if (strcmp(word, "latest") != 0) {
        request.target = RESTORE_TO_POSITION;
        ASSERT(position_parse(word, &request.generation, &request.target_position, &err) == RC_OK);
    }
    enum rc rc = restorer_run(config, &request, &result, &err);
    if (rc == RC_OK) {
        digest_of(target, hex);
        position_format(&result.generation, result.point.position, position);
    }
    if (result.has_last_good) {
        position_format(&result.last_good_generation, result.last_good, last_good);
    }
    struct sweep sweep = {.dir = dir};
    ASSERT(fsio_list_dir(dir, sweep_visit, &sweep, &err) == RC_OK);
    printf("%d %s %d %s %d %s %d\n", restorer_exit_status(rc), position, result.left_out, hex,
           sweep.count, last_good, result.needs_choice);
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    struct store_config config;
    struct err err = ERR_INIT;
    char dir[FSIO_PATH_BYTES];
    char line[256];
    ASSERT(argc == 3);
    (void)snprintf(archive, sizeof archive, "dir:%s", argv[1]);
    ASSERT(store_config_read(&config, lookup, &err) == RC_OK);
    ASSERT(fsio_dirname(argv[2], dir, sizeof dir, &err) == RC_OK);
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        run_once(&config, dir, argv[2], line);
    }
    return 0;
}
