/* Tokens that begin and end texts; see special.h. */
#include "io/gguf/special.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "io/file.h"
#include "io/json.h"

enum { MAX_SETTINGS = 1 << 24, MAX_STOPS = 32 };

typedef struct special {
    const json_t *ids, *added;
    int64_t vocabulary;
    int64_t stops[MAX_STOPS];
    int count;
} special;

/* The id of a token by its text, or -1. */
static int64_t id_of(const special *s, const char *text)
{
    size_t i;
    json_t *entry;
    const json_t *id = text != NULL ? json_object_get(s->ids, text) : NULL;
    if (text == NULL) return -1;
    json_array_foreach(s->added, i, entry)
    {
        const char *content = json_string_value(json_object_get(entry, "content"));
        if (content != NULL && strcmp(content, text) == 0) id = json_object_get(entry, "id");
    }
    int64_t number = json_is_integer(id) ? json_integer_value(id) : -1;
    return number < s->vocabulary ? number : -1;
}

/* The text of an added token by its id, or "". */
static const char *text_of(const special *s, int64_t id)
{
    size_t i;
    json_t *entry;
    json_array_foreach(s->added, i, entry)
    {
        const char *text = json_string_value(json_object_get(entry, "content"));
        if (text != NULL && json_integer_value(json_object_get(entry, "id")) == id) return text;
    }
    return "";
}

static void add_stop(special *s, int64_t id)
{
    if (id < 0 || id >= s->vocabulary || s->count == MAX_STOPS) return;
    for (int i = 0; i < s->count; i++)
        if (s->stops[i] == id) return;
    s->stops[s->count++] = id;
}

/* eos_token_id of a file: a number, a list, or nothing. */
static snrq_status add_stops_of(special *s, const char *directory, const char *file)
{
    char path[PATH_MAX];
    json_t *root, *entry;
    size_t i;
    SNRQ_TRY(snrq_path_join(directory, file, path, sizeof path));
    snrq_status status = snrq_json_read(path, MAX_SETTINGS, &root);
    if (status == SNRQ_NO_INPUT) return SNRQ_OK;
    SNRQ_TRY(status);
    const json_t *value = json_object_get(root, "eos_token_id");
    if (json_is_integer(value))
        add_stop(s, json_integer_value(value));
    else if (value != NULL && !json_is_null(value) && !json_is_array(value))
        status = snrq_fail(SNRQ_BAD_DATA,
                           "%s: key \"eos_token_id\": expected an integer or a list, found %s",
                           path, snrq_json_kind(value));
    json_array_foreach(value, i, entry)
    {
        if (json_is_integer(entry)) add_stop(s, json_integer_value(entry));
    }
    json_decref(root);
    return status;
}

/* An id that may be unknown (-1). */
static void put_id(snrq_gguf_writer *w, const char *key, int64_t id)
{
    if (id >= 0) snrq_gguf_put_u32(w, key, id);
}

/* Where a flag is given, it decides; a side without a token to add stays as it is. */
static int64_t overruled(int64_t id, snrq_flag flag, int64_t token)
{
    return flag == SNRQ_OFF ? -1 : flag == SNRQ_ON && token >= 0 ? token : id;
}

/* eot and eom, of the stops behind the first. */
static void put_further_stops(snrq_gguf_writer *w, const special *s,
                              snrq_gguf_tokenizer_facts *facts)
{
    int64_t turn = -1, message = -1;
    for (int i = 1; i < s->count; i++) {
        bool is_message = strstr(text_of(s, s->stops[i]), "eom") != NULL;
        if (is_message && message < 0)
            message = s->stops[i];
        else if (turn < 0)
            turn = s->stops[i];
        else if (message < 0)
            message = s->stops[i];
        else
            facts->stops_left_out++;
    }
    put_id(w, "tokenizer.ggml.eot_token_id", turn);
    put_id(w, "tokenizer.ggml.eom_token_id", message);
}

snrq_status snrq_gguf_put_special_tokens(snrq_gguf_writer *w, const char *directory,
                                         const json_t *root, const snrq_tokenizer_rules *rules,
                                         const snrq_tokenizer_settings *settings,
                                         const snrq_config *config,
                                         snrq_gguf_tokenizer_facts *facts)
{
    const json_t *model = json_object_get(root, "model");
    special s = {.ids = json_object_get(model, "vocab"),
                 .added = json_object_get(root, "added_tokens"),
                 .vocabulary = config->vocabulary};
    int64_t bos = id_of(&s, settings->bos), eos = id_of(&s, settings->eos);
    int64_t before = overruled(rules->before, settings->add_bos, bos);
    int64_t after = overruled(rules->after, settings->add_eos, eos);
    if (before >= s.vocabulary || after >= s.vocabulary)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: tokenizer.json: post_processor: adds id %" PRId64
                         ", expected one below vocab_size %" PRId64,
                         directory, before >= s.vocabulary ? before : after, s.vocabulary);
    add_stop(&s, after);
    add_stop(&s, eos);
    SNRQ_TRY(add_stops_of(&s, directory, "generation_config.json"));
    SNRQ_TRY(add_stops_of(&s, directory, "config.json"));
    add_stop(&s, config->eos_id);
    put_id(w, "tokenizer.ggml.bos_token_id",
           before >= 0 ? before
           : bos >= 0  ? bos
                       : config->bos_id);
    put_id(w, "tokenizer.ggml.eos_token_id", s.count > 0 ? s.stops[0] : -1);
    put_further_stops(w, &s, facts);
    put_id(w, "tokenizer.ggml.unknown_token_id", id_of(&s, rules->unknown));
    snrq_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", before >= 0);
    snrq_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", after >= 0);
    snrq_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", rules->space_prefix);
    return SNRQ_OK;
}
