/* Names of tensors as models know them; see snrq_safetensors_resolve() in safetensors.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/safetensors_internal.h"

/* What data parallelism, compilation and adapters put before names; also several of them. */
static const char *const wrappers[] = {"module.", "_orig_mod.", "base_model.model."};
/* What is below "model.", which is missing where the model was saved without its head. */
static const char *const bare_parts[] = {"embed_tokens.", "layers.", "norm."};
static const char model_part[] = "model.", anchor[] = "model.norm.weight";
enum {
    WRAPPERS = sizeof wrappers / sizeof *wrappers,
    BARE_PARTS = sizeof bare_parts / sizeof *bare_parts,
    MAX_STEPS = 8 /* from a name in __metadata__ to its tensor */
};

/* How names of this checkpoint differ: they begin with the first `bytes` of `of`, and have no
 * "model.". */
struct spelling {
    const char *of; /* borrowed; NULL: they do not differ */
    size_t bytes;
    bool bare;
};

static size_t part_bytes(const char *name, const char *const *parts, int count)
{
    for (int i = 0; i < count; i++) {
        size_t bytes = strlen(parts[i]);
        if (strncmp(name, parts[i], bytes) == 0) return bytes;
    }
    return 0;
}

static size_t wrapper_bytes(const char *name)
{
    size_t all = 0, one;
    while ((one = part_bytes(name + all, wrappers, WRAPPERS)) > 0) all += one;
    return all;
}

static snrq_status find_spelling(const snrq_safetensors *reader, struct spelling *out)
{
    char first[SNRQ_SHOWN], second[SNRQ_SHOWN];
    *out = (struct spelling){0};
    if (snrq_safetensors_find(reader, anchor) != NULL) return SNRQ_OK;
    for (int64_t i = 0; i < reader->count; i++) {
        const char *name = reader->tensors[i].name;
        size_t bytes = wrapper_bytes(name);
        bool bare = strcmp(name + bytes, anchor + sizeof model_part - 1) == 0;
        if (!bare && strcmp(name + bytes, anchor) != 0) continue;
        if (out->of != NULL)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: tensors \"%s\" and \"%s\": names of two models in one "
                             "checkpoint; expected those of one",
                             snrq_safetensors_file(reader, &reader->tensors[i]),
                             snrq_shown(out->of, first), snrq_shown(name, second));
        *out = (struct spelling){name, bytes, bare};
    }
    return SNRQ_OK;
}

/* The name that a model knows; the caller frees it. */
static snrq_status translate(const char *name, const struct spelling *s, char **out)
{
    const char *rest = name;
    if (strncmp(name, s->of, s->bytes) == 0) rest += s->bytes;
    bool add = s->bare && part_bytes(rest, bare_parts, BARE_PARTS) > 0;
    SNRQ_TRY(snrq_allocate(strlen(rest) + sizeof model_part, 1, "tensor name", out));
    if (add) strcpy(*out, model_part);
    strcat(*out, rest);
    return SNRQ_OK;
}

static snrq_status translate_missing(snrq_safetensors *reader, const struct spelling *s)
{
    json_t *translated = json_object(), *shard;
    const char *name;
    snrq_status status = SNRQ_OK;
    if (reader->missing == NULL) {
        json_decref(translated);
        return SNRQ_OK;
    }
    json_object_foreach(reader->missing, name, shard)
    {
        char *better = NULL;
        if (status == SNRQ_OK) status = translate(name, s, &better);
        if (status == SNRQ_OK && json_object_set(translated, better, shard) != 0)
            status = snrq_fail(SNRQ_INTERNAL, "cannot allocate the list of tensors");
        free(better);
    }
    json_decref(reader->missing);
    reader->missing = translated;
    return status;
}

static snrq_status translate_all(snrq_safetensors *reader, const struct spelling *s)
{
    char shown[SNRQ_SHOWN], *of = NULL;
    SNRQ_TRY(snrq_copy_text(s->of, "tensor name", &of)); /* the original is among the translated */
    const struct spelling own = {of, s->bytes, s->bare};
    snrq_status status = translate_missing(reader, &own);
    for (int64_t i = 0; status == SNRQ_OK && i < reader->count; i++) {
        char *name = NULL;
        status = translate(reader->tensors[i].name, &own, &name);
        if (status != SNRQ_OK) break;
        free(reader->tensors[i].name);
        reader->tensors[i].name = name;
    }
    of[s->bytes] = '\0';
    snprintf(reader->spelling, sizeof reader->spelling, "%s%s%s%s%s",
             s->bytes > 0 ? "without '" : "", s->bytes > 0 ? snrq_shown(of, shown) : "",
             s->bytes > 0 ? "'" : "", s->bytes > 0 && s->bare ? " and " : "",
             s->bare ? "with 'model.' before them" : "");
    free(of);
    return status;
}

static snrq_status check_distinct(const snrq_safetensors *reader)
{
    char shown[SNRQ_SHOWN];
    for (int64_t i = 1; i < reader->count; i++)
        if (strcmp(reader->tensors[i - 1].name, reader->tensors[i].name) == 0)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: two tensors are \"%s\" once names are read %s; expected one",
                             snrq_safetensors_file(reader, &reader->tensors[i]),
                             snrq_shown(reader->tensors[i].name, shown), reader->spelling);
    return SNRQ_OK;
}

/* The tensor that metadata leads to from `name`, in a few steps, or NULL. */
static const snrq_tensor *follow(const snrq_safetensors *reader, const json_t *metadata,
                                 const char *name)
{
    const snrq_tensor *tensor = NULL;
    for (int step = 0; step < MAX_STEPS && name != NULL && tensor == NULL; step++) {
        name = json_string_value(json_object_get(metadata, name));
        if (name != NULL) tensor = snrq_safetensors_find(reader, name);
    }
    return tensor;
}

/* Adds the names in metadata that are no tensors but lead to one. */
static snrq_status add_shared(snrq_safetensors *reader, const json_t *metadata)
{
    int64_t count = reader->count;
    size_t room = (size_t)count;
    const char *name;
    json_t *value;
    snrq_status status = SNRQ_OK;
    /* reader->count stays until all are there: the table is searched meanwhile. */
    json_object_foreach((json_t *)metadata, name, value)
    {
        if (snrq_safetensors_find(reader, name) != NULL) continue;
        const snrq_tensor *shared = follow(reader, metadata, name);
        if (shared == NULL) continue;
        snrq_tensor added = *shared;
        added.name = NULL;
        added.another = true;
        status = snrq_grow((size_t)count + 1, sizeof added, "tensor table",
                           (void *)&reader->tensors, &room);
        if (status == SNRQ_OK) status = snrq_copy_text(name, "tensor name", &added.name);
        if (status != SNRQ_OK) break;
        reader->tensors[count++] = added;
    }
    reader->count = count;
    snrq_safetensors_sort(reader);
    return status;
}

static snrq_status resolve_shared(snrq_safetensors *reader)
{
    json_t *all = json_object();
    bool good = all != NULL;
    for (int i = 0; i < reader->shard_count && good; i++)
        if (reader->shards[i].metadata != NULL)
            good = json_object_update_missing(all, reader->shards[i].metadata) == 0;
    snrq_status status =
        good ? add_shared(reader, all) : snrq_fail(SNRQ_INTERNAL, "cannot allocate shared names");
    json_decref(all);
    return status;
}

snrq_status snrq_safetensors_resolve(snrq_safetensors *reader)
{
    struct spelling spelling;
    SNRQ_TRY(resolve_shared(reader));
    SNRQ_TRY(find_spelling(reader, &spelling));
    if (spelling.of == NULL) return SNRQ_OK;
    SNRQ_TRY(translate_all(reader, &spelling));
    snrq_safetensors_sort(reader);
    return check_distinct(reader);
}

const char *snrq_safetensors_spelling(const snrq_safetensors *reader)
{
    return reader->spelling;
}
