/* Chat templates as GGUF metadata; see chat.h. */
#include "io/gguf/chat.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/directory.h"
#include "io/file.h"
#include "io/json.h"

enum { MAX_TEMPLATE = 1 << 24, MAX_TEMPLATES = 64, MAX_NAME = 64 };

typedef struct chat_template {
    char name[MAX_NAME];
    char *text; /* owned */
} chat_template;

typedef struct chat_templates {
    chat_template all[MAX_TEMPLATES];
    int count;
} chat_templates;

/* Takes over `text` of `bytes` bytes, also on failure. A key has letters, digits and '_'. */
static snrq_status add(const char *where, const char *name, char *text, size_t bytes,
                       chat_templates *out)
{
    chat_template *t = &out->all[out->count];
    char shown[SNRQ_SHOWN];
    size_t length = strlen(name);
    snrq_status status = SNRQ_OK;
    if (out->count == MAX_TEMPLATES)
        status = snrq_fail(SNRQ_BAD_DATA, "%s: more than %d chat templates", where, MAX_TEMPLATES);
    else if (length == 0 || length >= MAX_NAME)
        status = snrq_fail(SNRQ_BAD_DATA,
                           "%s: chat template \"%s\": expected a name of 1 to %d bytes, found %zu",
                           where, snrq_shown(name, shown), MAX_NAME - 1, length);
    else if (strlen(text) != bytes)
        status = snrq_fail(SNRQ_BAD_DATA, "%s: chat template \"%s\": byte %zu is 0", where,
                           snrq_shown(name, shown), strlen(text));
    if (status != SNRQ_OK) {
        free(text);
        return status;
    }
    for (size_t i = 0; i <= length; i++)
        t->name[i] =
            name[i] == '\0' || strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                      "0123456789",
                                      name[i]) != NULL
                ? name[i]
                : '_';
    t->text = text;
    out->count++;
    for (int i = 0; i + 1 < out->count; i++)
        if (strcmp(out->all[i].name, t->name) == 0)
            return snrq_fail(SNRQ_BAD_DATA, "%s: two chat templates are called %s", where, t->name);
    return SNRQ_OK;
}

static snrq_status add_text(const char *where, const char *name, const char *text,
                            chat_templates *out)
{
    char *copy;
    SNRQ_TRY(snrq_copy_text(text, "chat template", &copy));
    return add(where, name, copy, strlen(copy), out);
}

/* Nothing if there is no such file. */
static snrq_status add_file(const char *directory, const char *file, const char *name,
                            chat_templates *out)
{
    char path[PATH_MAX], *text;
    size_t bytes;
    SNRQ_TRY(snrq_path_join(directory, file, path, sizeof path));
    snrq_status status = snrq_file_read(path, MAX_TEMPLATE, &text, &bytes);
    if (status == SNRQ_NO_INPUT) return SNRQ_OK;
    SNRQ_TRY(status);
    return add(path, name, text, bytes, out);
}

/* NAME.jinja of additional_chat_templates/. */
static snrq_status add_folder(const char *directory, chat_templates *out)
{
    char path[PATH_MAX], name[NAME_MAX + 1], **names = NULL;
    int count = 0;
    SNRQ_TRY(snrq_path_join(directory, "additional_chat_templates", path, sizeof path));
    snrq_status status = snrq_directory_names(path, &names, &count);
    if (status == SNRQ_NO_INPUT) return SNRQ_OK;
    for (int i = 0; i < count && status == SNRQ_OK; i++) {
        if (!snrq_ends_with(names[i], ".jinja")) continue;
        snprintf(name, sizeof name, "%.*s", (int)(strlen(names[i]) - strlen(".jinja")), names[i]);
        status = add_file(path, names[i], name, out);
    }
    snrq_names_free(&names, count);
    return status;
}

/* A text, or a list of {"name", "template"}. */
static snrq_status add_value(const char *where, const json_t *value, chat_templates *out)
{
    size_t index;
    json_t *entry;
    if (value == NULL || json_is_null(value)) return SNRQ_OK;
    if (json_is_string(value)) return add_text(where, "default", json_string_value(value), out);
    if (!json_is_array(value))
        return snrq_fail(SNRQ_BAD_DATA, "%s: chat_template: expected a string or a list, found %s",
                         where, snrq_json_kind(value));
    json_array_foreach(value, index, entry)
    {
        const char *name, *text;
        SNRQ_TRY(snrq_json_string(where, entry, "name", NULL, &name));
        SNRQ_TRY(snrq_json_string(where, entry, "template", NULL, &text));
        SNRQ_TRY(add_text(where, name, text, out));
    }
    return SNRQ_OK;
}

static snrq_status add_chat_template_json(const char *directory, chat_templates *out)
{
    char path[PATH_MAX];
    json_t *root;
    SNRQ_TRY(snrq_path_join(directory, "chat_template.json", path, sizeof path));
    snrq_status status = snrq_json_read(path, MAX_TEMPLATE, &root);
    if (status == SNRQ_NO_INPUT) return SNRQ_OK;
    SNRQ_TRY(status);
    status = add_value(path, json_object_get(root, "chat_template"), out);
    json_decref(root);
    return status;
}

static snrq_status read_all(const char *directory, const snrq_tokenizer_settings *settings,
                            chat_templates *out)
{
    char where[PATH_MAX];
    SNRQ_TRY(add_file(directory, "chat_template.jinja", "default", out));
    SNRQ_TRY(add_folder(directory, out));
    if (out->count > 0) return SNRQ_OK;
    SNRQ_TRY(snrq_path_join(directory, "tokenizer_config.json", where, sizeof where));
    SNRQ_TRY(add_value(where, json_object_get(settings->root, "chat_template"), out));
    return out->count > 0 ? SNRQ_OK : add_chat_template_json(directory, out);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const chat_template *)a)->name, ((const chat_template *)b)->name);
}

static void put_all(snrq_gguf_writer *w, chat_templates *t)
{
    int64_t named = 0;
    qsort(t->all, (size_t)t->count, sizeof *t->all, by_name);
    for (int i = 0; i < t->count; i++) {
        char key[MAX_NAME + 32] = "tokenizer.chat_template";
        bool is_default = strcmp(t->all[i].name, "default") == 0;
        if (!is_default) snprintf(key, sizeof key, "tokenizer.chat_template.%s", t->all[i].name);
        snrq_gguf_put_string(w, key, t->all[i].text);
        named += !is_default;
    }
    if (named == 0) return;
    snrq_gguf_put_array(w, "tokenizer.chat_templates", SNRQ_GGUF_STRING, named);
    for (int i = 0; i < t->count; i++)
        if (strcmp(t->all[i].name, "default") != 0)
            snrq_gguf_element_string(w, t->all[i].name, strlen(t->all[i].name));
}

snrq_status snrq_gguf_put_chat_templates(snrq_gguf_writer *w, const char *directory,
                                         const snrq_tokenizer_settings *settings)
{
    chat_templates *t;
    SNRQ_TRY(snrq_allocate(1, sizeof *t, "chat templates", &t));
    snrq_status status = read_all(directory, settings, t);
    if (status == SNRQ_OK) put_all(w, t);
    for (int i = 0; i < t->count; i++) free(t->all[i].text);
    free(t);
    return status;
}
