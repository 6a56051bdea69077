/* The files beside the weights; see side_files.h. */
#include "io/checkpoint/side_files.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/directory.h"
#include "io/file.h"

static const char *const plain_names[] = {
    "config.json",     "generation_config.json",  "tokenizer.json",    "tokenizer_config.json",
    "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt",      "chat_template.jinja",     "chat_template.json"};
enum { PLAIN_NAMES = sizeof plain_names / sizeof *plain_names };

static snrq_status add(const char *name, char **names, int *count)
{
    SNRQ_TRY(snrq_copy_text(name, "name of a file", &names[*count]));
    ++*count;
    return SNRQ_OK;
}

/* A name that a record can hold (manifest.h), of ASCII. */
static bool is_template(const char *name)
{
    for (const char *c = name; *c != '\0'; c++)
        if (*c < ' ' || *c > '~') return false;
    return name[0] != '.' && snrq_ends_with(name, ".jinja");
}

static snrq_status add_templates(char *const *found, int all, char **names, int *count)
{
    char name[PATH_MAX];
    for (int i = 0; i < all; i++) {
        if (!is_template(found[i])) continue;
        snprintf(name, sizeof name, SNRQ_CHAT_TEMPLATES "/%s", found[i]);
        SNRQ_TRY(add(name, names, count));
    }
    return SNRQ_OK;
}

snrq_status snrq_side_files(const char *directory, char ***names, int *count)
{
    char path[PATH_MAX], **found = NULL;
    int all = 0;
    *names = NULL;
    *count = 0;
    SNRQ_TRY(snrq_path_join(directory, SNRQ_CHAT_TEMPLATES, path, sizeof path));
    snrq_status status = snrq_directory_names(path, &found, &all);
    if (status == SNRQ_NO_INPUT) status = SNRQ_OK;
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)(PLAIN_NAMES + all), sizeof **names, "names", names);
    for (int i = 0; i < PLAIN_NAMES && status == SNRQ_OK; i++) {
        status = snrq_path_join(directory, plain_names[i], path, sizeof path);
        if (status == SNRQ_OK && access(path, F_OK) == 0)
            status = add(plain_names[i], *names, count);
    }
    if (status == SNRQ_OK) status = add_templates(found, all, *names, count);
    snrq_names_free(&found, all);
    if (status != SNRQ_OK) snrq_names_free(names, *count);
    return status;
}
