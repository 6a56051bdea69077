/* What a checkpoint holds beside what is read; see findings.h. */
#include "pipeline/model/findings.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/pieces.h"
#include "mpi/log.h"
#include "pipeline/model/tensors.h"

enum { SHOWN_NAMES = 3, PIECE_BYTES = 4 << 20 };

static const char *const kind_names[SNRQ_FINDINGS] = {
    "other_spelling", "cached_buffers", "prediction_layers", "unused_tensors",
    "unused_layers",  "other_head",     "other_dtype"};

const char *snrq_finding_name(snrq_finding_kind kind)
{
    return kind_names[kind];
}

/* ---- what a tensor is ---- */

/* What a tensor is called below "model.layers.N.", or NULL; *layer is N. */
static const char *name_in_layer(const char *name, int64_t *layer)
{
    static const char start[] = "model.layers.";
    const int64_t most = INT32_MAX;
    if (strncmp(name, start, sizeof start - 1) != 0) return NULL;
    const char *at = name + sizeof start - 1;
    if (*at == '0' && at[1] != '.') return NULL; /* no layer is called 03 */
    int64_t number = 0;
    const char *first = at;
    for (; *at >= '0' && *at <= '9'; at++)
        number = number < most ? 10 * number + (*at - '0') : most;
    *layer = number;
    return at > first && *at == '.' ? at + 1 : NULL;
}

/* scales: those of matrices in FP8 are. */
static bool is_read_in_block(const snrq_family *f, bool scales, const char *name)
{
    for (int v = 0; v < f->vectors; v++)
        if (f->vector[v].count > 0 && strcmp(name, f->vector[v].name) == 0) return true;
    for (int m = 0; m < f->modules; m++) {
        size_t length = strlen(f->module[m].name);
        if (strncmp(name, f->module[m].name, length) == 0 &&
            (strcmp(name + length, ".weight") == 0 ||
             (scales && strcmp(name + length, ".weight_scale_inv") == 0)))
            return true;
    }
    return false;
}

/* Angles and masks follow from config.json; modeling code stored them now and then. */
static bool is_cached(const char *name)
{
    static const char *const buffers[] = {"rotary_emb.inv_freq",   "rotary_emb.original_inv_freq",
                                          "rotary_emb.cos_cached", "rotary_emb.sin_cached",
                                          "self_attn.masked_bias", "self_attn.bias",
                                          "position_ids"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        size_t bytes = strlen(buffers[i]);
        if (length < bytes || strcmp(name + length - bytes, buffers[i]) != 0) continue;
        if (length == bytes || name[length - bytes - 1] == '.') return true;
    }
    return false;
}

snrq_tensor_use snrq_model_tensor_use(const snrq_model *m, const snrq_tensor *tensor)
{
    const snrq_config *c = &m->config;
    int64_t layer = 0;
    if (strcmp(tensor->name, snrq_head_name) == 0)
        return c->tied_embeddings ? SNRQ_TENSOR_TIED_HEAD : SNRQ_TENSOR_READ;
    if (strcmp(tensor->name, snrq_embedding_name) == 0 ||
        strcmp(tensor->name, snrq_final_norm_name) == 0)
        return SNRQ_TENSOR_READ;
    const char *below = name_in_layer(tensor->name, &layer);
    if (below != NULL && layer < c->layers &&
        is_read_in_block(snrq_model_family(m, layer), c->fp8_rows > 0, below))
        return SNRQ_TENSOR_READ;
    if (is_cached(tensor->name)) return SNRQ_TENSOR_CACHED;
    if (below == NULL) return SNRQ_TENSOR_OUTSIDE;
    if (layer < c->layers) return SNRQ_TENSOR_WITHOUT_USE;
    return layer < c->layers + c->prediction_layers ? SNRQ_TENSOR_PREDICTION : SNRQ_TENSOR_BEYOND;
}

/* ---- the head ---- */

/* Is it the embedding under another name? */
static bool is_embedding(const snrq_model *m, const snrq_tensor *t)
{
    const snrq_tensor *e = snrq_model_tensor(m, snrq_embedding_name);
    return e != NULL && e->file == t->file && e->offset == t->offset && e->bytes == t->bytes;
}

static snrq_status compare_share(const snrq_context *context, const snrq_model *m,
                                 const snrq_tensor *a, const snrq_tensor *b, double *differ)
{
    snrq_range mine = snrq_share((int64_t)a->bytes, PIECE_BYTES, context->size, context->rank);
    snrq_pieces p = snrq_pieces_of(mine, 1, PIECE_BYTES, 1);
    unsigned char *buffer = NULL;
    size_t room = (size_t)p.most;
    SNRQ_TRY(snrq_allocate_scratch(2 * room + 1, 1, "head and embedding", &buffer));
    snrq_status status = SNRQ_OK;
    while (*differ == 0.0 && status == SNRQ_OK && snrq_pieces_next(&p)) {
        uint64_t begin = (uint64_t)p.piece.begin, bytes = (uint64_t)p.piece.end - begin;
        status = snrq_model_read(m, a, begin, bytes, buffer);
        if (status == SNRQ_OK) status = snrq_model_read(m, b, begin, bytes, buffer + room);
        if (status == SNRQ_OK && memcmp(buffer, buffer + room, (size_t)bytes) != 0) *differ = 1.0;
    }
    free(buffer);
    return status;
}

/* Does a head that config.json ties to the embedding differ from it? */
static snrq_status compare_head(const snrq_context *context, const snrq_model *m, bool *differs)
{
    const snrq_tensor *a = snrq_model_tensor(m, snrq_embedding_name);
    const snrq_tensor *b = snrq_model_tensor(m, snrq_head_name);
    double differ = 0.0;
    *differs = false;
    if (!m->config.tied_embeddings || a == NULL || b == NULL) return SNRQ_OK;
    if (is_embedding(m, b)) return SNRQ_OK;
    *differs = true;
    if (strcmp(a->dtype, b->dtype) != 0 || a->bytes != b->bytes) return SNRQ_OK;
    SNRQ_TRY(snrq_agree(context, compare_share(context, m, a, b, &differ)));
    SNRQ_TRY(snrq_max_double(context, &differ, 1));
    *differs = differ > 0.0;
    return SNRQ_OK;
}

/* ---- lines ---- */

/* "'a', 'b', 'c' and 9 more" of the tensors of a use. */
static void list_names(const snrq_model *m, snrq_tensor_use use, int64_t count, char *out,
                       size_t size)
{
    int64_t shown_names = 0;
    char shown[SNRQ_SHOWN];
    size_t used = 0;
    out[0] = '\0';
    for (int64_t i = 0; shown_names < SHOWN_NAMES && i < snrq_safetensors_count(m->tensors); i++) {
        const snrq_tensor *t = snrq_safetensors_at(m->tensors, i);
        if (t->another || snrq_model_tensor_use(m, t) != use) continue;
        snprintf(out + used, size - used, "%s'%s'", shown_names > 0 ? ", " : "",
                 snrq_shown(t->name, shown));
        used = strlen(out);
        shown_names++;
    }
    if (count > shown_names)
        snprintf(out + used, size - used, " and %" PRId64 " more", count - shown_names);
}

static void find_tensors(const snrq_model *m, snrq_findings *f, int64_t layers[2])
{
    for (int64_t i = 0; i < snrq_safetensors_count(m->tensors); i++) {
        const snrq_tensor *t = snrq_safetensors_at(m->tensors, i);
        snrq_tensor_use use = snrq_model_tensor_use(m, t);
        int64_t layer = 0;
        if (t->another || (use == SNRQ_TENSOR_TIED_HEAD && is_embedding(m, t))) continue;
        f->tensors[use]++;
        if (use != SNRQ_TENSOR_BEYOND || name_in_layer(t->name, &layer) == NULL) continue;
        if (f->tensors[use] == 1 || layer < layers[0]) layers[0] = layer;
        if (f->tensors[use] == 1 || layer > layers[1]) layers[1] = layer;
    }
}

/* Lines about tensors that nothing reads. */
static void describe_tensors(const snrq_model *m, snrq_findings *f)
{
    enum { LINE = sizeof f->text[0] };
    const int64_t *n = f->tensors;
    int64_t layers[2] = {0, 0};
    char names[LINE / 2];
    find_tensors(m, f, layers);
    list_names(m, SNRQ_TENSOR_CACHED, n[SNRQ_TENSOR_CACHED], names, sizeof names);
    if ((f->there[SNRQ_CACHED_BUFFERS] = n[SNRQ_TENSOR_CACHED] > 0))
        snprintf(f->text[SNRQ_CACHED_BUFFERS], LINE,
                 "%" PRId64 " stored angles or masks are not read, they follow from config.json: "
                 "%s",
                 n[SNRQ_TENSOR_CACHED], names);
    list_names(m, SNRQ_TENSOR_PREDICTION, n[SNRQ_TENSOR_PREDICTION], names, sizeof names);
    if ((f->there[SNRQ_PREDICTION_LAYERS] = n[SNRQ_TENSOR_PREDICTION] > 0))
        snprintf(f->text[SNRQ_PREDICTION_LAYERS], LINE,
                 "%" PRId64 " tensors of layers that predict further tokens "
                 "(num_nextn_predict_layers) are left out: %s",
                 n[SNRQ_TENSOR_PREDICTION], names);
    list_names(m, SNRQ_TENSOR_OUTSIDE, n[SNRQ_TENSOR_OUTSIDE], names, sizeof names);
    if ((f->there[SNRQ_UNUSED_TENSORS] = n[SNRQ_TENSOR_OUTSIDE] > 0))
        snprintf(f->text[SNRQ_UNUSED_TENSORS], LINE,
                 "%" PRId64 " tensors are no part of a %s and are not read: %s",
                 n[SNRQ_TENSOR_OUTSIDE], m->config.architecture, names);
    list_names(m, SNRQ_TENSOR_BEYOND, n[SNRQ_TENSOR_BEYOND], names, sizeof names);
    if ((f->there[SNRQ_UNUSED_LAYERS] = n[SNRQ_TENSOR_BEYOND] > 0))
        snprintf(f->text[SNRQ_UNUSED_LAYERS], LINE,
                 "config.json says num_hidden_layers %lld (layers 0 to %lld), but there are "
                 "%lld tensors of layers from %lld to %lld: %s",
                 (long long)m->config.layers, (long long)m->config.layers - 1,
                 (long long)n[SNRQ_TENSOR_BEYOND], (long long)layers[0], (long long)layers[1],
                 names);
}

static const char *type_name(snrq_dtype type)
{
    return type == SNRQ_F32 ? "float32" : type == SNRQ_F16 ? "float16" : "bfloat16";
}

/* Lines about what config.json says. */
static void describe_config(const snrq_model *m, bool other_head, snrq_findings *f)
{
    enum { LINE = sizeof f->text[0] };
    const char *spelling = snrq_safetensors_spelling(m->tensors);
    const snrq_tensor *embedding = snrq_model_tensor(m, snrq_embedding_name);
    snrq_dtype type = m->config.dtype;
    if ((f->there[SNRQ_OTHER_SPELLING] = spelling[0] != '\0'))
        snprintf(f->text[SNRQ_OTHER_SPELLING], LINE, "names of tensors are read %s", spelling);
    if ((f->there[SNRQ_OTHER_HEAD] = other_head))
        snprintf(f->text[SNRQ_OTHER_HEAD], LINE,
                 "config.json says tie_word_embeddings true, but '%s' differs from '%s': the "
                 "embedding is used as head; if the head is meant, set tie_word_embeddings to "
                 "false in config.json",
                 snrq_head_name, snrq_embedding_name);
    f->there[SNRQ_OTHER_DTYPE] = m->config.dtype_given && embedding != NULL &&
                                 snrq_dtype_find(embedding->dtype, &type) &&
                                 type != m->config.dtype;
    if (f->there[SNRQ_OTHER_DTYPE])
        snprintf(f->text[SNRQ_OTHER_DTYPE], LINE,
                 "config.json says dtype %s, but '%s' is %s: exports take what config.json says; "
                 "if the tensors are right, set dtype (or torch_dtype) to %s",
                 type_name(m->config.dtype), snrq_embedding_name, embedding->dtype,
                 type_name(type));
}

snrq_status snrq_findings_make(const snrq_context *context, const snrq_model *m, snrq_findings *out)
{
    bool other_head = false;
    memset(out, 0, sizeof *out);
    if (m->quantized) return SNRQ_OK;
    SNRQ_TRY(compare_head(context, m, &other_head));
    describe_tensors(m, out);
    describe_config(m, other_head, out);
    return SNRQ_OK;
}

snrq_status snrq_findings_tell(const snrq_context *context, const char *path,
                               const snrq_findings *f, bool ignore_unused_layers, bool strict)
{
    static const bool notes[SNRQ_FINDINGS] = {[SNRQ_OTHER_SPELLING] = true,
                                              [SNRQ_CACHED_BUFFERS] = true,
                                              [SNRQ_PREDICTION_LAYERS] = true};
    for (int k = 0; k < SNRQ_FINDINGS; k++) {
        bool accepted = notes[k] || (k == SNRQ_UNUSED_LAYERS && ignore_unused_layers);
        if (!f->there[k]) continue;
        if (k == SNRQ_UNUSED_LAYERS && !accepted)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: %s; correct config.json, or leave the layers out on purpose with "
                             "--ignore-unused-layers",
                             path, f->text[k]);
        if (strict && !accepted)
            return snrq_fail(SNRQ_BAD_DATA, "%s: %s (stopped because of this by --strict)", path,
                             f->text[k]);
        snrq_note(context, "%s: %s: %s", accepted ? "note" : "warning", path, f->text[k]);
    }
    return SNRQ_OK;
}

snrq_status snrq_model_check(const snrq_context *context, const snrq_model *m,
                             bool ignore_unused_layers, bool strict)
{
    snrq_findings findings;
    SNRQ_TRY(snrq_findings_make(context, m, &findings));
    return snrq_findings_tell(context, m->path, &findings, ignore_unused_layers, strict);
}
