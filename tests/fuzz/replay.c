/* Runs a fuzz target on files and on all files of folders, without libFuzzer: the test that inputs
 * found earlier stay harmless. Exit code 77 (skipped) if there are none. */
#include <dirent.h>
#include <limits.h>
#include <sys/stat.h>

#include "io/file.h"
#include "tests/fuzz/fuzz.h"

enum { LARGEST = 1 << 24, SKIPPED = 77 };

static int replay_file(const char *path)
{
    char *data;
    size_t bytes;
    if (snrq_file_read(path, LARGEST, &data, &bytes) != SNRQ_OK) {
        fprintf(stderr, "%s\n", snrq_error_message());
        exit(1);
    }
    /* Memory of just that size, so that reading behind it is noticed. */
    uint8_t *input = malloc(bytes > 0 ? bytes : 1);
    FUZZ_CHECK(input != NULL);
    memcpy(input, data, bytes);
    free(data);
    LLVMFuzzerTestOneInput(input, bytes);
    free(input);
    return 1;
}

static int replay(const char *path)
{
    int count = 0;
    struct stat facts;
    if (stat(path, &facts) == 0 && S_ISREG(facts.st_mode)) return replay_file(path);
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        char inner[PATH_MAX];
        if (entry->d_name[0] == '.') continue;
        if (snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) < PATH_MAX)
            count += replay(inner);
    }
    if (folder != NULL) closedir(folder);
    return count;
}

int main(int argc, char **argv)
{
    int count = 0;
    for (int i = 1; i < argc; i++) count += replay(argv[i]);
    if (count == 0) {
        fprintf(stderr, "skipped: no inputs in %s\n", argc > 1 ? argv[1] : "no arguments");
        return SKIPPED;
    }
    printf("%d inputs\n", count);
    return 0;
}
