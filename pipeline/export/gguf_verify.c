/* Comparing DIR/model.gguf with the model; see gguf.h.
 *
 * First without the writer's code, but for what opens OUT: the file is read by io/gguf/check.c, and
 * names and the order of rows are undone from the file's side. Each tensor of the file is looked
 * for in the model; as no two have the same name, equal numbers of them mean that none is missing.
 * What numbers do not show (metadata, padding, unused bits) is then compared byte by byte with what
 * the writer makes. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/directory.h"
#include "io/file.h"
#include "io/gguf/check.h"
#include "io/pieces.h"
#include "mpi/log.h"
#include "pipeline/export/gguf.h"
#include "pipeline/export/source.h"
#include "pipeline/model/kept.h"
#include "pipeline/model/tensors.h"

enum { COMPARE_WEIGHTS = 1 << 19 };

typedef struct comparison {
    const snrq_context *context;
    const snrq_model *model;
    const snrq_gguf_file *file;
    const char *path;
    const snrq_gguf_tensor *tensor;
    char source[256]; /* the tensor or module of the model */
    int64_t head;     /* rows of a head whose halves alternate in the file; 0: none */
    bool module;      /* codes of block `layer` */
    bool coded;       /* or of a table */
    int64_t layer;
    int index; /* of the module in its block */
    snrq_export_block block;
    int64_t stacked; /* matrices of experts; 0: it is one */
    int expert;      /* which of them is compared */
    char below[80];  /* its name in the block */
    char end[64];    /* ".weight", ".bias" or nothing */
    bool less_one;   /* the model has it less 1 */
    int64_t rounded; /* tensors that may be rounded */
} comparison;

static bool is_arch(const snrq_model *m, const char *type)
{
    return strcmp(m->config.model_type, type) == 0;
}

/* Name in a block of the model of what the file calls `part`, without .weight or .bias; a %d in it
 * stands for the number of an expert. */
static const char *part_of_block(const snrq_model *m, const char *part)
{
    static const char *const pairs[][2] = {
        {"attn_norm", "input_layernorm"},
        {"attn_q_norm", "self_attn.q_norm"},
        {"attn_k_norm", "self_attn.k_norm"},
        {"attn_q_a_norm", "self_attn.q_a_layernorm"},
        {"attn_kv_a_norm", "self_attn.kv_a_layernorm"},
        {"attn_q", "self_attn.q_proj"},
        {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},
        {"attn_qkv", "self_attn.qkv_proj"},
        {"attn_q_a", "self_attn.q_a_proj"},
        {"attn_q_b", "self_attn.q_b_proj"},
        {"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
        {"attn_kv_b", "self_attn.kv_b_proj"},
        {"attn_output", "self_attn.o_proj"},
        {"ffn_gate", "mlp.gate_proj"},
        {"ffn_down", "mlp.down_proj"},
        {"ffn_gate_shexp", "mlp.shared_experts.gate_proj"},
        {"ffn_up_shexp", "mlp.shared_experts.up_proj"},
        {"ffn_down_shexp", "mlp.shared_experts.down_proj"},
        {"exp_probs_b", "mlp.gate.e_score_correction_bias"},
        {"post_attention_norm", "post_attention_layernorm"},
        {"post_ffw_norm", "post_feedforward_layernorm"},
    };
    static const char *const mixtral[][2] = {
        {"ffn_gate_inp", "block_sparse_moe.gate"},
        {"ffn_gate_exps", "block_sparse_moe.experts.%d.w1"},
        {"ffn_up_exps", "block_sparse_moe.experts.%d.w3"},
        {"ffn_down_exps", "block_sparse_moe.experts.%d.w2"},
    };
    static const char *const experts[][2] = {
        {"ffn_gate_inp", "mlp.gate"},
        {"ffn_gate_exps", "mlp.experts.%d.gate_proj"},
        {"ffn_up_exps", "mlp.experts.%d.up_proj"},
        {"ffn_down_exps", "mlp.experts.%d.down_proj"},
    };
    bool gemma = is_arch(m, "gemma2") || is_arch(m, "gemma3_text");
    if (strcmp(part, "ffn_up") == 0) return is_arch(m, "phi3") ? "mlp.gate_up_proj" : "mlp.up_proj";
    if (strcmp(part, "ffn_norm") == 0)
        return gemma ? "pre_feedforward_layernorm" : "post_attention_layernorm";
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (strcmp(part, pairs[i][0]) == 0) return pairs[i][1];
    for (size_t i = 0; i < sizeof experts / sizeof experts[0]; i++)
        if (strcmp(part, experts[i][0]) == 0)
            return is_arch(m, "mixtral") ? mixtral[i][1] : experts[i][1];
    return NULL;
}

/* Fills in where the matrix of an expert comes from, or one of a tensor that has no experts; false
 * if the model has no such thing. */
static bool find_part(comparison *c, int expert)
{
    const snrq_model *m = c->model;
    const snrq_family *f = snrq_model_family(m, c->layer);
    char name[96];
    const char *number = strstr(c->below, "%d");
    c->expert = expert;
    if (number != NULL)
        snprintf(name, sizeof name, "%.*s%d%s", (int)(number - c->below), c->below, expert,
                 number + 2);
    else
        snprintf(name, sizeof name, "%s", c->below);
    snprintf(c->source, sizeof c->source, "model.layers.%lld.%s%s", (long long)c->layer, name,
             c->end);
    for (int i = 0; m->quantized && i < f->modules; i++)
        if (strcmp(f->module[i].name, name) == 0 && strcmp(c->end, ".weight") == 0 &&
            !snrq_model_keeps(m, c->layer, i)) {
            c->module = true;
            c->index = snrq_model_stored_index(m, c->layer, i);
        }
    return true;
}

/* Fills in where tensor c->tensor comes from; false if the model has no such thing. */
static bool find_source(comparison *c)
{
    static const char *const whole[][2] = {{"token_embd.weight", "model.embed_tokens.weight"},
                                           {"output_norm.weight", "model.norm.weight"},
                                           {"output.weight", "lm_head.weight"}};
    const snrq_model *m = c->model;
    const char *name = c->tensor->name;
    char part[64], end[64], rest;
    long long layer;
    c->module = c->coded = c->less_one = false;
    c->head = c->stacked = 0;
    for (int i = 0; i < 3; i++)
        if (strcmp(name, whole[i][0]) == 0) {
            snprintf(c->source, sizeof c->source, "%s", whole[i][1]);
            c->coded = m->quantized && snrq_rest_file_table(m->rest, whole[i][1]) >= 0;
            c->less_one = i == 1 && m->config.norms_less_one;
            return i < 2 || !m->config.tied_embeddings;
        }
    if (sscanf(name, "blk.%9lld.%63[a-z_].%63[a-z]%c", &layer, part, end, &rest) != 3 ||
        layer < 0 || layer >= m->config.layers)
        return false;
    const char *below = part_of_block(m, part);
    if (below == NULL || (strcmp(end, "weight") != 0 && strcmp(end, "bias") != 0)) return false;
    bool turns = is_arch(m, "llama") || is_arch(m, "mistral") || is_arch(m, "mixtral") ||
                 is_arch(m, "granite") || is_arch(m, "smollm3");
    if (turns && (strcmp(part, "attn_q") == 0 || strcmp(part, "attn_k") == 0))
        c->head = m->config.head_dim;
    c->layer = layer;
    c->less_one = m->config.norms_less_one && strstr(part, "norm") != NULL;
    if (strstr(below, "%d") != NULL) c->stacked = m->config.experts.count;
    if (strcmp(part, "exp_probs_b") == 0) end[0] = '\0'; /* the name is whole */
    snprintf(c->below, sizeof c->below, "%s", below);
    snprintf(c->end, sizeof c->end, "%s%s", end[0] != '\0' ? "." : "", end);
    return find_part(c, 0);
}

/* Half of the distance between neighbouring numbers of the file's type at `value`: how far
 * rounding may go. Blocks of Q8_0 have steps of at most largest / 127, rounded to binary16. */
static float half_step(const char *type, float value, float largest)
{
    int exponent;
    frexpf(value, &exponent);
    if (strcmp(type, "F16") == 0) return ldexpf(1, exponent - 11 > -24 ? exponent - 12 : -25);
    if (strcmp(type, "BF16") == 0) return ldexpf(1, exponent - 9);
    if (strcmp(type, "Q8_0") == 0) return largest / 127 * (0.5f + 0x1p-10f) + 0x1p-25f;
    return 0;
}

static bool same_bits(float a, float b)
{
    uint32_t x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return x == y || (x | y) << 1 == 0; /* or zeros of any sign */
}

static snrq_status differs(const comparison *c, int64_t row, int64_t column, float expected,
                           float found)
{
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: %s (%s), row %lld, column %lld: expected %.9g (%s), found %.9g", c->path,
                     c->tensor->name, c->tensor->type, (long long)row, (long long)column,
                     (double)expected, c->source, (double)found);
}

/* One row, exactly or, if that is allowed, up to rounding. */
static snrq_status compare_row(const comparison *c, bool rounded, int64_t row,
                               const float *expected, const float *found)
{
    float largest = 0;
    for (int64_t i = 0; i < c->tensor->columns; i++) {
        if (rounded && i % 32 == 0) {
            largest = 0;
            for (int64_t j = i; j < i + 32 && j < c->tensor->columns; j++)
                largest = fmaxf(largest, fabsf(expected[j]));
        }
        if (same_bits(expected[i], found[i])) continue;
        if (rounded &&
            fabsf(expected[i] - found[i]) <= half_step(c->tensor->type, expected[i], largest))
            continue;
        return differs(c, row, i, expected[i], found[i]);
    }
    return SNRQ_OK;
}

/* Rows of one matrix of the tensor. */
static int64_t matrix_rows(const comparison *c)
{
    return c->tensor->rows / (c->stacked > 0 ? c->stacked : 1);
}

/* Rows of a quantized module as floats, by the formula of the block file. */
static snrq_status read_master_codes(comparison *c, snrq_range rows, float *out)
{
    SNRQ_TRY(snrq_export_block_open(c->model, c->layer, &c->block));
    const snrq_module_record *r = snrq_block_file_record(c->block.file, c->index);
    const int64_t count = rows.end - rows.begin;
    snrq_module_codes m;
    if (r == NULL || r->rows != matrix_rows(c) || r->columns != c->tensor->columns)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %s is [%lld, %lld], and not so in %s", c->path,
                         c->tensor->name, (long long)matrix_rows(c), (long long)c->tensor->columns,
                         c->model->path);
    snrq_status status = snrq_module_codes_allocate(r, count, &m);
    if (status == SNRQ_OK) status = snrq_module_codes_read(c->block.file, c->index, rows, &m);
    for (int64_t i = 0; status == SNRQ_OK && i < count; i++)
        for (int64_t k = 0; k < r->columns; k++)
            out[i * r->columns + k] = snrq_module_codes_value(&m, r, i, k);
    snrq_module_codes_free(&m);
    return status;
}

/* Rows of a dense tensor. Vectors of the file are one row. */
static snrq_status read_master_floats(const comparison *c, snrq_range rows, snrq_dtype *dtype,
                                      float *out)
{
    const snrq_gguf_tensor *t = c->tensor;
    bool vector = t->dimensions == 1;
    const snrq_tensor *source;
    unsigned char *raw = NULL;
    SNRQ_TRY(snrq_model_expect(c->model, c->source, vector ? t->columns : matrix_rows(c),
                               vector ? 0 : t->columns, &source, dtype));
    size_t count = (size_t)((rows.end - rows.begin) * t->columns), size = snrq_dtype_size(*dtype);
    SNRQ_TRY(snrq_allocate(count, size, c->source, &raw));
    snrq_status status = snrq_model_read(
        c->model, source, (uint64_t)(rows.begin * t->columns) * size, count * size, raw);
    if (status == SNRQ_OK) snrq_widen(*dtype, raw, count, out);
    for (size_t i = 0; c->less_one && i < count; i++) out[i] += 1.0f;
    free(raw);
    return status;
}

/* Place in the model, counted from the start of its head, of row or element `at` of the
 * file. */
static int64_t place_in_model(int64_t head, int64_t at)
{
    if (head == 0) return at;
    int64_t place = at % head;
    return at - place + (place % 2 == 0 ? place / 2 : head / 2 + place / 2);
}

static snrq_status compare_rows(comparison *c, snrq_range rows, float *expected, float *found)
{
    const snrq_gguf_tensor *t = c->tensor;
    bool vector = t->dimensions == 1;
    snrq_dtype dtype = SNRQ_F16;
    SNRQ_TRY(snrq_gguf_file_read(c->file, t, c->expert * matrix_rows(c) + rows.begin,
                                 rows.end - rows.begin, found));
    SNRQ_TRY(c->module ? read_master_codes(c, rows, expected)
                       : read_master_floats(c, rows, &dtype, expected));
    bool rounded = !c->module && !c->coded && !vector &&
                   strcmp(t->type, snrq_dtype_name(dtype)) != 0 && strcmp(t->type, "F32") != 0;
    if (vector && strcmp(t->type, "F32") != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: vector %s is %s, expected F32", c->path, t->name,
                         t->type);
    if (rows.begin == 0 && c->expert == 0) c->rounded += rounded;
    if (vector && c->head > 0) {
        for (int64_t i = 0; i < t->columns; i++) {
            int64_t from = place_in_model(c->head, i);
            if (!same_bits(expected[from], found[i]))
                return differs(c, 0, i, expected[from], found[i]);
        }
        return SNRQ_OK;
    }
    for (int64_t i = 0; i < rows.end - rows.begin; i++)
        SNRQ_TRY(compare_row(c, rounded, rows.begin + i,
                             expected + place_in_model(c->head, i) * t->columns,
                             found + i * t->columns));
    return SNRQ_OK;
}

/* This rank's rows of a matrix, whole heads at a time where their rows are reordered. */
static snrq_status compare_matrix(comparison *c)
{
    const snrq_gguf_tensor *t = c->tensor;
    const snrq_context *context = c->context;
    int64_t unit = c->head > 0 && t->dimensions > 1 ? c->head : 1;
    snrq_range mine = snrq_share(matrix_rows(c), unit, context->size, context->rank);
    snrq_pieces p = snrq_pieces_of(mine, (size_t)t->columns, COMPARE_WEIGHTS, unit);
    float *expected = NULL, *found = NULL;
    if (t->dimensions > (c->stacked > 0 ? 3 : 2) || matrix_rows(c) % unit != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %s has %d dimensions and %lld rows", c->path, t->name,
                         t->dimensions, (long long)t->rows);
    size_t most = (size_t)p.most * (size_t)t->columns;
    snrq_status status = snrq_allocate(most, sizeof *expected, "weights", &expected);
    if (status == SNRQ_OK) status = snrq_allocate(most, sizeof *found, "weights", &found);
    while (status == SNRQ_OK && snrq_pieces_next(&p))
        status = compare_rows(c, p.piece, expected, found);
    free(expected);
    free(found);
    return status;
}

/* A tensor: one matrix, or those of all experts. */
static snrq_status compare_tensor(comparison *c)
{
    snrq_status status = SNRQ_OK;
    c->expert = 0;
    if (c->stacked == 0) return compare_matrix(c);
    if (c->tensor->dimensions != 3 || c->tensor->rows % c->stacked != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: %s has %d dimensions and %lld rows, expected 3 for %lld experts",
                         c->path, c->tensor->name, c->tensor->dimensions,
                         (long long)c->tensor->rows, (long long)c->stacked);
    for (int e = 0; status == SNRQ_OK && e < c->stacked; e++) {
        find_part(c, e);
        status = compare_matrix(c);
    }
    return status;
}

/* The factors of the rope settings that the file must have beside the model's tensors. */
static int64_t rope_tensors(const snrq_config *c)
{
    return c->rope.type == SNRQ_ROPE_LLAMA3 ? 1 : c->rope.type == SNRQ_ROPE_LONGROPE ? 2 : 0;
}

/* rope_freqs and rope_factors_*: as many as pairs of dimensions turn, each at least a small
 * number. */
static snrq_status compare_rope(const comparison *c, bool *is_rope)
{
    const snrq_rope_config *r = &c->model->config.rope;
    const snrq_gguf_tensor *t = c->tensor;
    float found[SNRQ_MAX_ROPE_FACTORS];
    *is_rope = strncmp(t->name, "rope_", 5) == 0;
    if (!*is_rope) return SNRQ_OK;
    if (t->rows != 1 || t->columns != r->dimensions / 2 || t->columns > SNRQ_MAX_ROPE_FACTORS)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %s has %lld factors, expected %lld", c->path, t->name,
                         (long long)t->columns, (long long)(r->dimensions / 2));
    SNRQ_TRY(snrq_gguf_file_read(c->file, t, 0, 1, found));
    for (int64_t i = 0; i < t->columns; i++) {
        double expected = strcmp(t->name, "rope_factors_long.weight") == 0    ? r->long_factor[i]
                          : strcmp(t->name, "rope_factors_short.weight") == 0 ? r->short_factor[i]
                                                                              : 0.0;
        bool good = expected > 0.0 ? found[i] == (float)expected
                                   : found[i] >= 1.0f && found[i] <= (float)r->factor;
        if (!good) return differs(c, 0, i, (float)expected, found[i]);
    }
    return SNRQ_OK;
}

static snrq_status compare_number(const comparison *c, const char *architecture, const char *key,
                                  double expected)
{
    char full[96];
    double found;
    snprintf(full, sizeof full, "%s.%s", architecture, key);
    SNRQ_TRY(snrq_gguf_file_number(c->file, full, &found));
    if (found == expected || found == (double)(float)expected) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: %s is %.9g, expected %.9g", c->path, full, found,
                     expected);
}

static snrq_status compare_metadata(const comparison *c)
{
    const snrq_config *m = &c->model->config;
    static const char *const others[][2] = {{"mistral", "llama"},
                                            {"mixtral", "llama"},
                                            {"qwen3_moe", "qwen3moe"},
                                            {"gemma3_text", "gemma3"},
                                            {"deepseek_v3", "deepseek2"}};
    const char *expected = m->model_type;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (is_arch(c->model, others[i][0])) expected = others[i][1];
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"embedding_length", (double)m->hidden},
        {"block_count", (double)m->layers},
        {"feed_forward_length", (double)m->intermediate},
        {"attention.head_count", (double)m->heads},
        {"attention.head_count_kv", (double)m->kv_heads},
        {"attention.key_length", (double)m->head_dim},
        {"attention.value_length", (double)m->value_dim},
        {"rope.dimension_count", (double)m->rope.dimensions},
        {"rope.freq_base", m->rope.theta},
        {"attention.layer_norm_rms_epsilon", m->rms_norm_eps},
    };
    char architecture[32], tokenizer[16];
    int64_t tokens;
    SNRQ_TRY(
        snrq_gguf_file_text(c->file, "general.architecture", architecture, sizeof architecture));
    if (strcmp(architecture, expected) != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: general.architecture is not %s", c->path, expected);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        SNRQ_TRY(compare_number(c, expected, numbers[i].key, numbers[i].value));
    SNRQ_TRY(snrq_gguf_file_text(c->file, "tokenizer.ggml.model", tokenizer, sizeof tokenizer));
    if (strcmp(tokenizer, "none") == 0) return SNRQ_OK;
    SNRQ_TRY(snrq_gguf_file_elements(c->file, "tokenizer.ggml.tokens", &tokens));
    if (tokens == m->vocabulary) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: %lld tokens, expected %lld", c->path, (long long)tokens,
                     (long long)m->vocabulary);
}

/* How many tensors of the model the file must have. */
static int64_t expected_tensors(const snrq_model *m)
{
    int64_t in_blocks = 0;
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++) in_blocks += f->unit[f->module[i].unit].expert <= 0;
        for (int v = 0; v < f->vectors; v++) in_blocks += f->vector[v].count > 0;
    }
    return 2 + !m->config.tied_embeddings + in_blocks + rope_tensors(&m->config);
}

static snrq_status compare_all(comparison *c)
{
    int64_t count = snrq_gguf_file_count(c->file), expected = expected_tensors(c->model);
    SNRQ_TRY(compare_metadata(c));
    if (count != expected)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %lld tensors, expected %lld", c->path,
                         (long long)count, (long long)expected);
    for (int64_t i = 0; i < count; i++) {
        bool rope;
        c->tensor = snrq_gguf_file_at(c->file, i);
        SNRQ_TRY(compare_rope(c, &rope));
        if (rope) continue;
        if (!find_source(c))
            return snrq_fail(SNRQ_BAD_DATA, "%s: tensor \"%s\" has no counterpart in %s", c->path,
                             c->tensor->name, c->model->path);
        SNRQ_TRY(compare_tensor(c));
    }
    return SNRQ_OK;
}

bool snrq_export_gguf_is(const char *directory)
{
    char path[4096];
    return snrq_path_join(directory, "model.gguf", path, sizeof path) == SNRQ_OK &&
           access(path, F_OK) == 0;
}

/* Nothing but the file, and what a running export has there. */
static snrq_status check_directory(const char *directory)
{
    char **names = NULL;
    int count = 0;
    SNRQ_TRY(snrq_directory_names(directory, &names, &count));
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < count && status == SNRQ_OK; i++)
        if (strcmp(names[i], "model.gguf") != 0 && strncmp(names[i], "snrq.lock", 9) != 0)
            status = snrq_fail(SNRQ_BAD_DATA, "%s: expected model.gguf alone, found %s", directory,
                               names[i]);
    snrq_names_free(&names, count);
    return status;
}

snrq_status snrq_export_gguf_verify(const snrq_context *context, const snrq_model *model,
                                    const char *directory, int64_t *tensors)
{
    char path[4096];
    snrq_gguf_file *file = NULL;
    comparison c = {.context = context, .model = model, .path = path};
    snrq_status status = snrq_path_join(directory, "model.gguf", path, sizeof path);
    if (status == SNRQ_OK) status = snrq_gguf_file_open(path, &file);
    c.file = file;
    if (status == SNRQ_OK) status = compare_all(&c);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = snrq_export_gguf_compare_bytes(context, model, file, path);
    if (status == SNRQ_OK)
        status = snrq_agree(context, context->rank == 0 ? check_directory(directory) : SNRQ_OK);
    if (status == SNRQ_OK) *tensors = snrq_gguf_file_count(file);
    if (status == SNRQ_OK && c.rounded > 0)
        snrq_note(context, "%s: %lld of the tensors were rounded to the type they have there", path,
                  (long long)c.rounded);
    snrq_export_block_close(&c.block);
    snrq_gguf_file_close(&file);
    return status;
}
