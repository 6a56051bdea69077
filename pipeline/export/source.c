/* Settings and rows of an OUT directory; see source.h. */
#include "pipeline/export/source.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/reader.h"
#include "io/file.h"
#include "io/json.h"
#include "io/pieces.h"
#include "pipeline/model/kept.h"

enum { ROWS_UNIT = 32, READ_BYTES = 16 << 20 };

/* Adds a module to what is known of those before it. */
static void add_settings(const snrq_module_record *r, bool first, snrq_export_facts *f)
{
    if (first)
        *f = (snrq_export_facts){.bits = r->bits,
                                 .format = snrq_module_record_format(r),
                                 .symmetric = r->symmetric,
                                 .permuted = r->permuted_groups,
                                 .scale_type = r->scale_type};
    if (r->groups > 1 && f->group_size == 0) f->group_size = r->group_size;
    f->largest_activation = fmax(f->largest_activation, r->largest_activation);
    if (r->bits != f->bits || r->symmetric != f->symmetric || r->permuted_groups != f->permuted ||
        r->scale_type != f->scale_type || snrq_module_record_format(r) != f->format ||
        (r->groups > 1 && r->group_size != f->group_size))
        f->mixed = true;
}

static snrq_expert_kind kind_of_experts(const snrq_config *c)
{
    if (c->experts.count == 0) return SNRQ_NO_EXPERTS;
    if (c->latent.keys > 0) return SNRQ_DEEPSEEK_EXPERTS;
    return c->experts.mixtral_names ? SNRQ_MIXTRAL_EXPERTS : SNRQ_OTHER_EXPERTS;
}

/* Are the inputs of all modules so many whole groups? */
static bool divides_inputs(const snrq_model *m, int64_t group_size)
{
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        if (layer > 0 && f == snrq_model_family(m, layer - 1)) continue;
        for (int u = 0; u < f->units; u++)
            if (f->unit[u].columns % group_size != 0) return false;
    }
    return true;
}

/* `modules` [count] of the whole model. */
static snrq_status add_all_settings(const snrq_model *m, const snrq_module_record *modules,
                                    int64_t count, snrq_export_facts *out)
{
    int64_t expected = 0;
    for (int64_t layer = 0; layer < m->config.layers; layer++)
        expected += snrq_model_stored_modules(m, layer);
    int64_t longest = 0; /* inputs of modules that have one group */
    for (int64_t i = 0; i < count; i++) {
        add_settings(&modules[i], i == 0, out);
        if (modules[i].groups == 1 && modules[i].columns > longest) longest = modules[i].columns;
    }
    if (count != expected)
        return snrq_fail(SNRQ_BAD_DATA, "%s/manifest.jsonl: %lld modules, expected %lld", m->path,
                         (long long)count, (long long)expected);
    if (out->group_size > 0 && longest > out->group_size) out->mixed = true;
    out->ragged = out->group_size > 0 && !divides_inputs(m, out->group_size);
    out->fused = m->config.fused;
    out->experts = kind_of_experts(&m->config);
    return SNRQ_OK;
}

snrq_status snrq_export_facts_read(const snrq_model *m, snrq_export_facts *out)
{
    snrq_output_facts facts;
    snrq_module_record *modules = NULL;
    int64_t count = 0;
    snrq_status status = snrq_output_read(m->path, &facts);
    if (status == SNRQ_OK) status = snrq_output_modules(&facts, &modules, &count);
    if (status == SNRQ_OK) status = add_all_settings(m, modules, count, out);
    free(modules);
    snrq_output_facts_free(&facts);
    return status;
}

void snrq_export_facts_set_group(snrq_export_facts *f, const snrq_model *m, int64_t group_size)
{
    f->group_size = group_size < snrq_model_max_columns(m) ? group_size : 0;
    f->ragged = f->group_size > 0 && !divides_inputs(m, f->group_size);
}

snrq_export_facts snrq_export_facts_planned(const snrq_model *m, int bits, int64_t group_size,
                                            bool symmetric, bool permuted, snrq_dtype scale_type)
{
    snrq_export_facts f = {.bits = bits,
                           .symmetric = symmetric,
                           .permuted = permuted,
                           .fused = m->config.fused,
                           .experts = kind_of_experts(&m->config),
                           .scale_type = scale_type};
    snrq_export_facts_set_group(&f, m, group_size);
    return f;
}

const char *snrq_export_why_not_integers(const snrq_export_facts *f)
{
    if (f->format == NULL || snrq_weight_format_symmetric(f->format)) return NULL;
    if (f->format->shared_rows > 0)
        return "weights are not integers; export to compressed-tensors, fp8 or safetensors";
    if (f->format->scale.tensor)
        return "weights are not integers; export to compressed-tensors or safetensors";
    if (f->format->scale.power)
        return "weights are not integers; export to compressed-tensors, gguf or safetensors";
    return "weights are not integers times a scale; export to gguf or safetensors";
}

/* code - zero lies between -(2^bits - 1) and 2^bits - 1: one bit more would do. */
int snrq_export_folded_bits(int bits)
{
    return bits < 4 ? 4 : bits < 8 ? 8 : 0;
}

int64_t snrq_export_nearest_group(const snrq_model *m, int64_t unit, int64_t most)
{
    for (int64_t g = most / unit * unit; g > 0; g -= unit)
        if (divides_inputs(m, g)) return g;
    return 0;
}

/* Scales that do or do not fit a type. */
struct fit {
    snrq_dtype type;
    bool fits;
};

static snrq_status look_at_scales(const snrq_block_file *file, int index, struct fit *fit)
{
    const snrq_module_record *r = snrq_block_file_record(file, index);
    float *scales = NULL;
    snrq_pieces p =
        snrq_pieces_of((snrq_range){0, r->rows}, (size_t)r->groups * sizeof *scales, READ_BYTES, 1);
    SNRQ_TRY(snrq_allocate((size_t)(p.most * r->groups), sizeof *scales, "scales", &scales));
    snrq_status status = SNRQ_OK;
    while (status == SNRQ_OK && fit->fits && snrq_pieces_next(&p)) {
        status = snrq_block_file_read(file, index, p.piece, NULL, scales, NULL, NULL);
        for (int64_t i = 0; i < (p.piece.end - p.piece.begin) * r->groups && status == SNRQ_OK; i++)
            if (snrq_round_to(fit->type, scales[i]) != scales[i]) fit->fits = false;
    }
    free(scales);
    return status;
}

snrq_status snrq_export_scales_fit(const snrq_model *m, const snrq_export_facts *facts,
                                   snrq_dtype type, bool *out)
{
    struct fit fit = {type, true};
    bool known = type == SNRQ_F32 || (type == facts->scale_type && !facts->mixed);
    /* What was not checked when the model was opened is checked before HDF5 sees it. */
    if (!known && m->rest == NULL) SNRQ_TRY(snrq_output_verify(m->path, NULL, NULL));
    for (int64_t layer = 0; layer < m->config.layers && fit.fits && !known; layer++) {
        snrq_block_file *file = NULL;
        SNRQ_TRY(snrq_model_open_block(m, layer, &file));
        snrq_status status = SNRQ_OK;
        for (int i = 0; i < snrq_model_stored_modules(m, layer) && fit.fits && status == SNRQ_OK;
             i++)
            status = look_at_scales(file, i, &fit);
        snrq_block_file_close(&file);
        SNRQ_TRY(status);
    }
    *out = fit.fits;
    return SNRQ_OK;
}

snrq_status snrq_export_block_open(const snrq_model *m, int64_t layer, snrq_export_block *block)
{
    if (block->file != NULL && block->layer == layer) return SNRQ_OK;
    snrq_export_block_close(block);
    block->layer = layer;
    return snrq_model_open_block(m, layer, &block->file);
}

void snrq_export_block_close(snrq_export_block *block)
{
    snrq_block_file_close(&block->file);
}

snrq_status snrq_export_module_open(const snrq_model *m, int64_t layer, int index,
                                    snrq_export_module *out)
{
    *out = (snrq_export_module){.file = snrq_rest_file_tables(m->rest), .index = index};
    if (layer >= 0) {
        out->index = index = snrq_model_stored_index(m, layer, index);
        SNRQ_TRY(snrq_model_open_block(m, layer, &out->own));
        out->file = out->own;
    }
    out->record = snrq_block_file_record(out->file, index);
    snrq_status status =
        snrq_allocate((size_t)out->record->columns, sizeof *out->g_idx, "groups", &out->g_idx);
    if (status == SNRQ_OK)
        status = snrq_block_file_read(out->file, index, (snrq_range){0, 0}, NULL, NULL, NULL,
                                      out->g_idx);
    if (status != SNRQ_OK) snrq_export_module_close(out);
    return status;
}

void snrq_export_module_close(snrq_export_module *module)
{
    snrq_block_file_close(&module->own);
    free(module->g_idx);
    *module = (snrq_export_module){0};
}

/* Formats leave the zeros of symmetric codes out. */
static snrq_status check_symmetric(const snrq_module_record *r, snrq_range rows,
                                   const uint8_t *zeros)
{
    for (int64_t i = 0; i < (rows.end - rows.begin) * r->groups && r->symmetric; i++)
        if (zeros[i] != 1 << (r->bits - 1))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: symmetric, but the zero of row %lld, group %lld is %d, not %d",
                             r->name, (long long)(rows.begin + i / r->groups),
                             (long long)(i % r->groups), zeros[i], 1 << (r->bits - 1));
    return SNRQ_OK;
}

/* See snrq_export_module.folded_bits. */
static void fold(const snrq_export_module *m, int64_t rows, uint8_t *codes, uint8_t *zeros)
{
    const int64_t columns = m->record->columns, groups = m->record->groups;
    const int middle = 1 << (m->folded_bits - 1);
    for (int64_t i = 0; i < rows; i++) {
        uint8_t *code = codes + i * columns, *zero = zeros + i * groups;
        for (int64_t c = 0; c < columns; c++)
            code[c] = (uint8_t)(code[c] - zero[m->g_idx[c]] + middle);
        memset(zero, middle, (size_t)groups);
    }
}

snrq_status snrq_export_module_rows(const snrq_export_module *m, snrq_range range,
                                    snrq_export_each *each, void *user)
{
    const int64_t row_bytes = m->record->columns + 9 * m->record->groups;
    snrq_pieces p = snrq_pieces_of(range, (size_t)row_bytes, READ_BYTES, ROWS_UNIT);
    snrq_module_codes b;
    snrq_status status = snrq_module_codes_allocate(m->record, p.most, &b);
    while (status == SNRQ_OK && snrq_pieces_next(&p)) {
        status = snrq_block_file_read(m->file, m->index, p.piece, b.codes, b.scales, b.zeros, NULL);
        if (status == SNRQ_OK)
            status = snrq_block_file_read_minima(m->file, m->index, p.piece, b.minima);
        if (status == SNRQ_OK) status = check_symmetric(m->record, p.piece, b.zeros);
        if (status == SNRQ_OK && m->folded_bits > 0)
            fold(m, p.piece.end - p.piece.begin, b.codes, b.zeros);
        const snrq_export_rows rows = {m, p.piece, b.codes, b.scales, b.zeros, b.minima};
        if (status == SNRQ_OK) status = each(user, &rows);
    }
    snrq_module_codes_free(&b);
    return status;
}
