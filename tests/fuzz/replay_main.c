/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay_main: an ordinary main for a fuzz target, so that kept inputs and past crashes are run again by
 * `make test` under any compiler, without a fuzzer. Arguments are files; each is one input.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* As clang's libFuzzer names it; the targets define it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_BYTES_MAX = 64 * 1024 * 1024 };

static int replay_file(const char *path)
{
    int result = 1;
    uint8_t *data = NULL;
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        goto done;
    }
    long size = ftell(file);
    if (size < 0 || size > INPUT_BYTES_MAX || fseek(file, 0, SEEK_SET) != 0) {
        goto done;
    }
    /* Exactly the input's size, so that a sanitizer sees a read past its end. */
    data = malloc(size > 0 ? (size_t)size : 1);
    if (data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size) {
        goto done;
    }
    (void)LLVMFuzzerTestOneInput(data, (size_t)size);
    result = 0;
done:
    if (result != 0) {
        perror(path);
    }
    free(data);
    if (file != NULL) {
        (void)fclose(file);
    }
    return result;
}

int main(int argc, char **argv)
{
    int result = argc > 1 ? 0 : 2;
    for (int i = 1; i < argc; i++) {
        result |= replay_file(argv[i]);
    }
    return result;
}
