/* The tokenizer as GGUF metadata; see tokenizer.h. What stands around the vocabulary in
 * tokenizer.json (normalizer, patterns, BOS) is read in tokenizer_rules.c. */
#include "io/gguf/tokenizer.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/gguf/chat.h"
#include "io/gguf/special.h"
#include "io/gguf/tokenizer_rules.h"
#include "io/json.h"
#include "io/tokenizer/nul.h"
#include "io/tokenizer/sentencepiece.h"
#include "io/tokenizer/settings.h"

enum { MAX_TOKENIZER = 1 << 28, TOKEN_BYTES = 4096 };
enum kind { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

static const double padding_score = -10000, added_score = -1000;

typedef struct token {
    const char *text; /* borrowed from the JSON; NULL: no such token */
    enum kind kind;
    double score;
} token;

typedef struct vocabulary {
    const char *where;
    int64_t size;
    token *tokens;     /* [size] */
    const json_t *ids; /* of the model's own tokens, by text */
    bool nul;          /* U+FFFF in the text of a token stands for U+0000 */
    snrq_gguf_tokenizer_facts *facts;
} vocabulary;

/* *out is NULL for a token beyond the vocabulary, which the model cannot have: it is left out. */
static snrq_status enter(vocabulary *v, const char *text, const json_t *id, token **out)
{
    char shown[SNRQ_SHOWN];
    json_int_t number = json_is_integer(id) ? json_integer_value(id) : -1;
    *out = NULL;
    if (number < 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: token \"%s\": expected an id from 0 on, found %s %lld",
                         v->where, snrq_shown(text, shown), snrq_json_kind(id), (long long)number);
    if (number >= v->size) {
        if (v->facts->beyond++ == 0)
            snprintf(v->facts->first_beyond, sizeof v->facts->first_beyond, "%s",
                     snrq_shown(text, shown));
        return SNRQ_OK;
    }
    *out = &v->tokens[number];
    if ((*out)->text != NULL && strcmp((*out)->text, text) != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: id %lld belongs to two tokens, one is \"%s\"",
                         v->where, (long long)number, snrq_shown(text, shown));
    (*out)->text = text;
    return SNRQ_OK;
}

static bool is_byte(const char *text)
{
    unsigned value;
    char end;
    return strlen(text) == 6 && sscanf(text, "<0x%2X%c", &value, &end) == 2 && end == '>';
}

static snrq_status read_model_tokens(vocabulary *v, const snrq_tokenizer_rules *rules)
{
    const char *text;
    json_t *id;
    json_object_foreach((json_t *)v->ids, text, id)
    {
        token *t;
        SNRQ_TRY(enter(v, text, id, &t));
        if (t == NULL) continue;
        t->kind = NORMAL;
        if (rules->sentencepiece && is_byte(text)) t->kind = BYTE;
        if (rules->unknown != NULL && strcmp(text, rules->unknown) == 0) t->kind = UNKNOWN;
    }
    return SNRQ_OK;
}

static snrq_status read_added_tokens(vocabulary *v, const json_t *list)
{
    size_t index;
    json_t *added;
    json_array_foreach(list, index, added)
    {
        const char *text;
        char where[PATH_MAX + 64];
        bool special;
        token *t;
        snprintf(where, sizeof where, "%s: added_tokens[%zu]", v->where, index);
        SNRQ_TRY(snrq_json_string(where, added, "content", NULL, &text));
        SNRQ_TRY(snrq_json_boolean(where, added, "special", false, &special));
        SNRQ_TRY(enter(v, text, json_object_get(added, "id"), &t));
        if (t == NULL) continue;
        if (t->kind == 0) t->score = added_score;
        if (t->kind != UNKNOWN) t->kind = special ? CONTROL : USER_DEFINED;
    }
    return SNRQ_OK;
}

/* The two sides of a merge, which is "a b" or ["a", "b"]. */
static snrq_status merge_sides(const vocabulary *v, const json_t *merge, size_t index,
                               const char **left, size_t *left_bytes, const char **right)
{
    const char *text = json_string_value(merge);
    const char *space = text != NULL ? strchr(text, ' ') : NULL;
    *left = json_string_value(json_array_get(merge, 0));
    *right = json_string_value(json_array_get(merge, 1));
    if (space != NULL) {
        *left = text;
        *left_bytes = (size_t)(space - text);
        *right = space + 1;
    } else if (*left != NULL && *right != NULL) {
        *left_bytes = strlen(*left);
    } else {
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: merges[%zu]: expected \"a b\" or [\"a\", \"b\"], found %s", v->where,
                         index, snrq_json_kind(merge));
    }
    if (*left_bytes + strlen(*right) >= TOKEN_BYTES)
        return snrq_fail(SNRQ_BAD_DATA, "%s: merges[%zu]: expected less than %d bytes", v->where,
                         index, TOKEN_BYTES);
    return SNRQ_OK;
}

/* Scores that make llama.cpp join in the order of the merges: the earlier the first merge that
 * makes a token, the better. What no merge makes is worse than all of them. */
static snrq_status score_by_merges(vocabulary *v, const json_t *merges)
{
    size_t index, count = json_array_size(merges);
    json_t *merge;
    char joined[TOKEN_BYTES];
    for (int64_t i = 0; i < v->size; i++)
        if (v->tokens[i].text != NULL && v->tokens[i].score == 0)
            v->tokens[i].score = -(double)count;
    for (index = count; index-- > 0;) {
        const char *left, *right;
        size_t left_bytes = 0;
        merge = json_array_get(merges, index);
        SNRQ_TRY(merge_sides(v, merge, index, &left, &left_bytes, &right));
        memcpy(joined, left, left_bytes);
        strcpy(joined + left_bytes, right);
        const json_t *id = json_object_get(v->ids, joined);
        if (id == NULL)
            return snrq_fail(SNRQ_BAD_DATA, "%s: merges[%zu] makes what is no token", v->where,
                             index);
        if (json_integer_value(id) < v->size)
            v->tokens[json_integer_value(id)].score = -(double)index;
    }
    return SNRQ_OK;
}

/* Takes the scores of tokenizer.model if it has the same tokens; *taken says so. */
static snrq_status score_by_model(vocabulary *v, const char *directory, bool *taken)
{
    char path[PATH_MAX];
    snrq_sentencepieces model;
    *taken = false;
    SNRQ_TRY(snrq_path_join(directory, "tokenizer.model", path, sizeof path));
    snrq_status status = snrq_sentencepieces_read(path, &model);
    if (status == SNRQ_NO_INPUT) return SNRQ_OK;
    SNRQ_TRY(status);
    int64_t same = 0;
    for (; same < model.count && same < v->size; same++) {
        const snrq_sentencepiece *p = &model.pieces[same];
        const char *text = v->tokens[same].text;
        if (text == NULL || strlen(text) != p->bytes || memcmp(text, p->text, p->bytes) != 0) break;
    }
    *taken = model.count > 0 && same == model.count;
    for (int64_t i = 0; *taken && i < same; i++) v->tokens[i].score = (double)model.pieces[i].score;
    snrq_sentencepieces_free(&model);
    return SNRQ_OK;
}

/* The text of a token, with U+0000 if it has that (nul.h). */
static void put_text(snrq_gguf_writer *w, const vocabulary *v, const char *text)
{
    size_t bytes = strlen(text);
    char restored[TOKEN_BYTES];
    if (v->nul && bytes < sizeof restored && snrq_nul_stands_in(text, bytes))
        snrq_gguf_element_string(w, restored, snrq_nul_restore(text, bytes, restored));
    else
        snrq_gguf_element_string(w, text, bytes);
}

static void put_tokens(snrq_gguf_writer *w, const vocabulary *v, bool scores)
{
    snrq_gguf_put_array(w, "tokenizer.ggml.tokens", SNRQ_GGUF_STRING, v->size);
    for (int64_t i = 0; i < v->size; i++) {
        char padding[32];
        snprintf(padding, sizeof padding, "[PAD%" PRId64 "]", i);
        const char *text = v->tokens[i].text != NULL ? v->tokens[i].text : padding;
        put_text(w, v, text);
    }
    snrq_gguf_put_array(w, "tokenizer.ggml.token_type", SNRQ_GGUF_I32, v->size);
    for (int64_t i = 0; i < v->size; i++)
        snrq_gguf_element_i32(w, v->tokens[i].text != NULL ? (int)v->tokens[i].kind : UNUSED);
    if (!scores) return;
    snrq_gguf_put_array(w, "tokenizer.ggml.scores", SNRQ_GGUF_F32_VALUE, v->size);
    for (int64_t i = 0; i < v->size; i++)
        snrq_gguf_element_f32(w, v->tokens[i].text != NULL ? v->tokens[i].score : padding_score);
}

static snrq_status put_merges(snrq_gguf_writer *w, const vocabulary *v, const json_t *merges)
{
    size_t index;
    json_t *merge;
    char text[TOKEN_BYTES + 1];
    snrq_gguf_put_array(w, "tokenizer.ggml.merges", SNRQ_GGUF_STRING,
                        (int64_t)json_array_size(merges));
    json_array_foreach(merges, index, merge)
    {
        const char *left, *right;
        size_t left_bytes = 0;
        SNRQ_TRY(merge_sides(v, merge, index, &left, &left_bytes, &right));
        memcpy(text, left, left_bytes);
        text[left_bytes] = ' ';
        strcpy(text + left_bytes + 1, right);
        put_text(w, v, text);
    }
    return SNRQ_OK;
}

/* llama.cpp concludes from "phi-3" or "phi3" in the model's name that special tokens swallow
 * the white space behind them, and then wants these tokens to be there: the name says so
 * only if it is true, and is never that of a directory. */
static const char *model_name(const vocabulary *v, const json_t *added, const snrq_config *config)
{
    static const char *const wanted[] = {"<unk>", "<s>", "</s>", "<|endoftext|>"};
    const size_t all = sizeof wanted / sizeof wanted[0];
    size_t index, found = 0;
    json_t *entry;
    bool strips = false;
    if (strcmp(config->model_type, "phi3") != 0) return config->architecture;
    json_array_foreach(added, index, entry)
    {
        strips = strips || json_is_true(json_object_get(entry, "rstrip"));
    }
    for (int64_t i = 0; i < v->size; i++)
        for (size_t k = 0; k < all; k++)
            found += v->tokens[i].text != NULL && strcmp(v->tokens[i].text, wanted[k]) == 0;
    return strips && found == all ? "Phi-3" : "Phi 3";
}

static snrq_status put_vocabulary(snrq_gguf_writer *w, const char *directory, const json_t *root,
                                  const snrq_tokenizer_rules *rules, const snrq_config *config,
                                  vocabulary *v)
{
    json_t *model, *ids, *merges;
    bool scored = false;
    SNRQ_TRY(snrq_json_object(v->where, root, "model", &model));
    SNRQ_TRY(snrq_json_object(v->where, model, "vocab", &ids));
    SNRQ_TRY(snrq_json_array(v->where, model, "merges", &merges));
    v->ids = ids;
    SNRQ_TRY(read_model_tokens(v, rules));
    SNRQ_TRY(read_added_tokens(v, json_object_get(root, "added_tokens")));
    snrq_gguf_put_string(w, "general.name",
                         model_name(v, json_object_get(root, "added_tokens"), config));
    snrq_gguf_put_string(w, "tokenizer.ggml.model", rules->sentencepiece ? "llama" : "gpt2");
    snrq_gguf_put_string(w, "tokenizer.ggml.pre", rules->pre);
    if (rules->sentencepiece) SNRQ_TRY(score_by_model(v, directory, &scored));
    if (rules->sentencepiece && !scored) SNRQ_TRY(score_by_merges(v, merges));
    put_tokens(w, v, rules->sentencepiece);
    return rules->sentencepiece ? SNRQ_OK : put_merges(w, v, merges);
}

static snrq_status put_all(snrq_gguf_writer *w, const char *directory, const json_t *root,
                           const snrq_config *config, vocabulary *v)
{
    snrq_tokenizer_rules rules;
    snrq_tokenizer_settings settings;
    SNRQ_TRY(snrq_tokenizer_rules_read(v->where, root, &rules));
    SNRQ_TRY(snrq_tokenizer_settings_read(directory, &settings));
    snrq_status status = put_vocabulary(w, directory, root, &rules, config, v);
    if (status == SNRQ_OK)
        status =
            snrq_gguf_put_special_tokens(w, directory, root, &rules, &settings, config, v->facts);
    if (status == SNRQ_OK) status = snrq_gguf_put_chat_templates(w, directory, &settings);
    snrq_tokenizer_settings_free(&settings);
    return status;
}

snrq_status snrq_gguf_put_tokenizer(snrq_gguf_writer *w, const char *directory,
                                    const snrq_config *config, snrq_gguf_tokenizer_facts *facts)
{
    char path[PATH_MAX], *data;
    size_t bytes;
    json_t *root;
    vocabulary v = {.where = path, .size = config->vocabulary, .facts = facts};
    *facts = (snrq_gguf_tokenizer_facts){0};
    SNRQ_TRY(snrq_path_join(directory, "tokenizer.json", path, sizeof path));
    snrq_status status = snrq_file_read(path, MAX_TOKENIZER, &data, &bytes);
    facts->found = status != SNRQ_NO_INPUT;
    if (!facts->found) {
        snrq_gguf_put_string(w, "general.name", "without tokenizer");
        snrq_gguf_put_string(w, "tokenizer.ggml.model", "none");
        return SNRQ_OK;
    }
    SNRQ_TRY(status);
    status = snrq_tokenizer_json_parse(path, data, bytes, &root, &v.nul);
    free(data);
    SNRQ_TRY(status);
    status = snrq_allocate((size_t)v.size, sizeof *v.tokens, "tokens", &v.tokens);
    if (status == SNRQ_OK) status = put_all(w, directory, root, config, &v);
    free(v.tokens);
    json_decref(root);
    return status;
}

snrq_status snrq_gguf_check_tokenizer(const char *directory, const snrq_config *config,
                                      snrq_gguf_tokenizer_facts *facts)
{
    snrq_gguf_writer *scratch = NULL;
    SNRQ_TRY(snrq_gguf_writer_create(&scratch));
    snrq_status status = snrq_gguf_put_tokenizer(scratch, directory, config, facts);
    snrq_gguf_writer_destroy(&scratch);
    return status;
}
