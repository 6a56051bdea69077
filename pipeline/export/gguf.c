/* Writing DIR/model.gguf; see gguf.h. The list of tensors is made in gguf_plan.c,
 * blocks are encoded in io/gguf/blocks.c.
 *
 * Every rank goes through all tensors and writes its share of the rows of each, a piece at a
 * time. Shares and pieces are whole heads where rows are reordered, so that what is read is
 * what is written, in another order. */
#include "pipeline/export/gguf.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/gguf/blocks.h"
#include "io/gguf/check.h"
#include "io/gguf/tokenizer.h"
#include "io/gguf/writer.h"
#include "io/pieces.h"
#include "mpi/log.h"
#include "pipeline/export/gguf_family.h"
#include "pipeline/export/gguf_plan.h"
#include "pipeline/export/source.h"
#include "pipeline/model/kept.h"
#include "pipeline/model/tensors.h"

enum { PIECE_WEIGHTS = 1 << 20, FILE_TYPE_UNKNOWN = 1024 };

typedef struct job {
    const snrq_context *context;
    const snrq_model *model;
    const snrq_gguf_writer *writer; /* where rows go, or */
    const snrq_gguf_file *file;     /* what they are compared with */
    snrq_export_block block;
} job;

snrq_status snrq_export_gguf_possible(const snrq_model *m, char *why, size_t size)
{
    snrq_status status = snrq_gguf_check_config(&m->config);
    for (int64_t layer = 0; status == SNRQ_OK && m->quantized && layer < m->config.layers;
         layer++) {
        snrq_block_file *file = NULL;
        snrq_gguf_type type;
        status = snrq_model_open_block(m, layer, &file);
        for (int i = 0; status == SNRQ_OK && i < snrq_model_stored_modules(m, layer); i++)
            status = snrq_gguf_module_type(snrq_block_file_record(file, i), &type);
        snrq_block_file_close(&file);
    }
    snprintf(why, size, "%s", status == SNRQ_USAGE ? snrq_error_message() : "");
    return status == SNRQ_USAGE ? SNRQ_OK : status;
}

void snrq_export_gguf_fits(const snrq_model *m, const snrq_export_facts *f, char *why, size_t size)
{
    snrq_status status = snrq_gguf_check_config(&m->config);
    const snrq_family *last = snrq_model_family(m, m->config.layers - 1);
    for (int i = 0; status == SNRQ_OK && i < last->modules; i++) {
        const snrq_module_shape *s = &last->module[i];
        snrq_gguf_type type;
        snrq_module_record r = {.rows = s->rows,
                                .columns = s->columns,
                                .bits = f->bits,
                                .symmetric = f->symmetric,
                                .permuted_groups = f->permuted,
                                .scale_type = f->scale_type,
                                .group_size = f->group_size > 0 ? f->group_size : s->columns};
        r.groups = (s->columns + r.group_size - 1) / r.group_size;
        snprintf(r.name, sizeof r.name, "%s", s->name);
        if (f->format != NULL) snprintf(r.format, sizeof r.format, "%s", f->format->name);
        status = snrq_gguf_module_type(&r, &type);
    }
    snprintf(why, size, "%s", status != SNRQ_OK ? snrq_error_message() : "");
}

snrq_status snrq_export_gguf_check_side_files(const snrq_model *m)
{
    snrq_gguf_tokenizer_facts facts;
    return snrq_gguf_check_tokenizer(snrq_model_side_path(m), &m->config, &facts);
}

/* llama.cpp's number for a file whose matrices are mostly of one type. */
static int64_t file_type(snrq_gguf_type weights)
{
    switch (weights) {
    case SNRQ_GGUF_F32:
        return 0;
    case SNRQ_GGUF_F16:
        return 1;
    case SNRQ_GGUF_Q4_0:
        return 2;
    case SNRQ_GGUF_Q4_1:
        return 3;
    case SNRQ_GGUF_Q8_0:
        return 7;
    case SNRQ_GGUF_Q5_0:
        return 8;
    case SNRQ_GGUF_Q5_1:
        return 9;
    case SNRQ_GGUF_Q2_K:
        return 10;
    case SNRQ_GGUF_Q3_K:
        return 11;
    case SNRQ_GGUF_Q4_K:
        return 14;
    case SNRQ_GGUF_Q5_K:
        return 16;
    case SNRQ_GGUF_Q6_K:
        return 18;
    case SNRQ_GGUF_IQ4_NL:
        return 25;
    case SNRQ_GGUF_IQ4_XS:
        return 30;
    case SNRQ_GGUF_MXFP4:
        return 38;
    case SNRQ_GGUF_BF16:
        return 32;
    }
    return FILE_TYPE_UNKNOWN;
}

static snrq_status put_metadata(snrq_gguf_writer *w, const snrq_model *m, snrq_gguf_type weights,
                                snrq_gguf_tokenizer_facts *facts)
{
    const snrq_config *c = &m->config;
    snrq_gguf_put_string(w, "general.architecture", snrq_gguf_architecture(c));
    snrq_gguf_put_u32(w, "general.file_type", file_type(weights));
    if (m->quantized) snrq_gguf_put_u32(w, "general.quantization_version", 2);
    snrq_gguf_put_config(w, c);
    return snrq_gguf_put_tokenizer(w, snrq_model_side_path(m), c, facts);
}

/* Row of the model that becomes row `row` of the file, counted from the start of its head:
 * in the model a head's first half is followed by its second, in the file they take turns. */
static int64_t source_row(int64_t head, int64_t row)
{
    return head == 0 ? row : row / head * head + row % 2 * (head / 2) + row % head / 2;
}

/* Groups must be what the record says: runs of neighbouring columns. */
static snrq_status check_groups(const snrq_module_record *r, const int32_t *g_idx)
{
    for (int64_t c = 0; c < r->columns && r->groups > 1; c++)
        if (g_idx[c] != c / r->group_size)
            return snrq_fail(SNRQ_BAD_DATA, "column %lld is in group %" PRId32 ", expected %lld",
                             (long long)c, g_idx[c], (long long)(c / r->group_size));
    return SNRQ_OK;
}

static snrq_status encode_read_codes(const snrq_gguf_part *p, const snrq_module_record *r,
                                     const snrq_module_codes *c, int64_t rows, unsigned char *out)
{
    const snrq_gguf_grid grid = {r->bits, r->symmetric, r->columns,
                                 r->groups > 1 ? r->group_size : r->columns};
    const snrq_weight_format *format = snrq_module_record_format(r);
    SNRQ_TRY(check_groups(r, c->g_idx));
    for (int64_t i = 0; i < rows; i++, out += snrq_gguf_row_bytes(p->type, p->columns)) {
        int64_t row = source_row(p->head, i);
        if (format != NULL) {
            SNRQ_TRY(snrq_gguf_encode_format(format, r->columns, c->codes + row * r->columns,
                                             c->scales + row * r->groups,
                                             c->minima + row * r->groups, out));
            continue;
        }
        SNRQ_TRY(snrq_gguf_encode_codes(p->type, &grid, c->codes + row * r->columns,
                                        c->scales + row * r->groups, c->zeros + row * r->groups,
                                        out));
    }
    return SNRQ_OK;
}

/* Rows of a quantized module; they begin with a head where there are heads. */
static snrq_status encode_module(job *j, const snrq_gguf_part *p, snrq_range rows,
                                 unsigned char *out)
{
    snrq_module_codes c;
    const snrq_block_file *file = snrq_rest_file_tables(j->model->rest);
    int index = p->module;
    if (p->origin == SNRQ_FROM_MODULE) {
        SNRQ_TRY(snrq_export_block_open(j->model, p->layer, &j->block));
        file = j->block.file;
        index = snrq_model_stored_index(j->model, p->layer, p->module);
    }
    const snrq_module_record *r = snrq_block_file_record(file, index);
    snrq_status status = snrq_module_codes_allocate(r, rows.end - rows.begin, &c);
    if (status == SNRQ_OK) status = snrq_module_codes_read(file, index, rows, &c);
    if (status == SNRQ_OK) status = encode_read_codes(p, r, &c, rows.end - rows.begin, out);
    snrq_module_codes_free(&c);
    return status;
}

/* How much slower a pair of dimensions turns than without scaling; rope.h says when. */
static double rope_factor(const snrq_rope_config *r, snrq_gguf_origin origin, int64_t i)
{
    const double two_pi = 6.283185307179586;
    if (origin == SNRQ_FROM_ROPE_SHORT) return r->short_factor[i];
    if (origin == SNRQ_FROM_ROPE_LONG) return r->long_factor[i];
    double frequency = pow(r->theta, -2.0 * (double)i / (double)r->dimensions);
    double turns = (double)r->original_positions * frequency / two_pi;
    double kept = (turns - r->low_frequency) / (r->high_frequency - r->low_frequency);
    kept = fmin(fmax(kept, 0.0), 1.0);
    return 1.0 / ((1.0 - kept) / r->factor + kept);
}

static snrq_status read_floats(const job *j, const snrq_gguf_part *p, snrq_range rows,
                               int64_t columns, float *out)
{
    const snrq_tensor *t;
    snrq_dtype dtype = SNRQ_F32;
    size_t count = (size_t)((rows.end - rows.begin) * columns);
    unsigned char *raw = NULL;
    if (p->origin != SNRQ_FROM_TENSOR) {
        for (int64_t i = rows.begin; i < rows.end; i++)
            *out++ = (float)rope_factor(&j->model->config.rope, p->origin, i);
        return SNRQ_OK;
    }
    SNRQ_TRY(snrq_model_expect(j->model, p->tensor, p->rows, p->columns, &t, &dtype));
    size_t size = snrq_dtype_size(dtype);
    SNRQ_TRY(snrq_allocate(count, size, p->tensor, &raw));
    snrq_status status =
        snrq_model_read(j->model, t, (uint64_t)(rows.begin * columns) * size, count * size, raw);
    if (status == SNRQ_OK) snrq_widen(dtype, raw, count, out);
    for (size_t i = 0; p->less_one && i < count; i++) out[i] += 1.0f;
    free(raw);
    return status;
}

static snrq_status encode_floats(const job *j, const snrq_gguf_part *p, snrq_range rows,
                                 unsigned char *out)
{
    int64_t columns = p->columns > 0 ? p->columns : 1, count = rows.end - rows.begin;
    size_t row_bytes = snrq_gguf_row_bytes(p->type, columns);
    float *values = NULL;
    SNRQ_TRY(snrq_allocate((size_t)(count * columns), sizeof *values, p->name, &values));
    snrq_status status = read_floats(j, p, rows, columns, values);
    for (int64_t i = 0; status == SNRQ_OK && i < count; i++, out += row_bytes)
        status = snrq_gguf_encode_floats(p->type, values + source_row(p->head, i) * columns,
                                         columns, out);
    free(values);
    return status;
}

/* Writes or compares encoded rows. */
static snrq_status put_rows(const job *j, int64_t index, snrq_range rows, const unsigned char *data)
{
    if (j->file == NULL)
        return snrq_gguf_write_rows(j->writer, index, rows.begin, rows.end - rows.begin, data);
    const snrq_gguf_tensor *t = snrq_gguf_file_at(j->file, index);
    const size_t bytes =
        (size_t)(rows.end - rows.begin) *
        (t->dimensions == 1 ? (size_t)(t->row_bytes / (uint64_t)t->columns) : (size_t)t->row_bytes);
    const uint64_t at =
        t->offset + (uint64_t)rows.begin * (bytes / (uint64_t)(rows.end - rows.begin));
    size_t same;
    SNRQ_TRY(snrq_gguf_file_compare(j->file, at, data, bytes, &same));
    if (same == bytes) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s (%s): byte %llu of the file is not the one that %s makes",
                     t->name, t->type, (unsigned long long)(at + same), j->model->path);
}

/* `first`: of the part's rows in the file. */
static snrq_status write_matrix(job *j, int64_t index, const snrq_gguf_part *p, int64_t first)
{
    const snrq_context *context = j->context;
    int64_t columns = p->columns > 0 ? p->columns : 1, unit = p->head > 0 ? p->head : 1;
    snrq_range mine = snrq_share(p->rows, unit, context->size, context->rank);
    snrq_pieces pieces = snrq_pieces_of(mine, (size_t)columns, PIECE_WEIGHTS, unit);
    unsigned char *out = NULL;
    if (pieces.most == 0) return SNRQ_OK;
    SNRQ_TRY(
        snrq_allocate((size_t)pieces.most, snrq_gguf_row_bytes(p->type, columns), p->name, &out));
    snrq_status status = SNRQ_OK;
    while (status == SNRQ_OK && snrq_pieces_next(&pieces)) {
        const snrq_range rows = pieces.piece;
        const bool codes = p->origin == SNRQ_FROM_MODULE || p->origin == SNRQ_FROM_TABLE;
        status = codes ? encode_module(j, p, rows, out) : encode_floats(j, p, rows, out);
        if (status != SNRQ_OK)
            status = snrq_fail(status, "%s: %s, from row %lld on: %s", j->model->path, p->name,
                               (long long)(first + rows.begin), snrq_error_message());
        else
            status = put_rows(j, index, (snrq_range){first + rows.begin, first + rows.end}, out);
    }
    free(out);
    return status;
}

/* A part: one matrix, or those of all experts. */
static snrq_status write_part(job *j, int64_t index, const snrq_gguf_part *p)
{
    snrq_status status = SNRQ_OK;
    if (p->stacked == 0) return write_matrix(j, index, p, 0);
    for (int64_t e = 0; status == SNRQ_OK && e < p->stacked; e++) {
        snrq_gguf_part one = *p;
        char name[200];
        one.module = p->module + (int)e * p->stride;
        snrq_module_name(p->layer, snrq_model_family(j->model, p->layer)->module[one.module].name,
                         name, sizeof name);
        snprintf(one.tensor, sizeof one.tensor, "%s.weight", name);
        status = write_matrix(j, index, &one, e * p->rows);
    }
    return status;
}

static snrq_status write_parts(const snrq_context *context, const snrq_model *m,
                               const snrq_gguf_plan *plan, const snrq_gguf_writer *writer,
                               const snrq_gguf_file *file)
{
    job j = {.context = context, .model = m, .writer = writer, .file = file};
    snrq_status status = SNRQ_OK;
    for (int64_t i = 0; status == SNRQ_OK && i < plan->count; i++)
        status = write_part(&j, i, &plan->parts[i]);
    snrq_export_block_close(&j.block);
    return status;
}

/* The header: the same tensors on all ranks, the metadata on rank 0. */
static snrq_status describe(const snrq_context *context, const snrq_model *m,
                            const snrq_export_settings *settings, snrq_gguf_writer **writer,
                            snrq_gguf_plan *plan, snrq_gguf_tokenizer_facts *facts)
{
    SNRQ_TRY(snrq_gguf_plan_create(m, settings, plan));
    SNRQ_TRY(snrq_gguf_writer_create(writer));
    for (int64_t i = 0; i < plan->count; i++) {
        const snrq_gguf_part *p = &plan->parts[i];
        snrq_gguf_add_tensor(*writer, p->name, p->type, p->rows, p->columns, p->stacked);
    }
    return context->rank == 0 ? put_metadata(*writer, m, plan->weights, facts) : SNRQ_OK;
}

static void note_left_out(const char *path, const snrq_gguf_tokenizer_facts *facts)
{
    if (facts->beyond > 0)
        snrq_note_here("%s: GGUF: %lld token(s) left out, \"%s\" for one: the model's vocabulary "
                       "has no such ids",
                       path, (long long)facts->beyond, facts->first_beyond);
    if (facts->stops_left_out > 0)
        snrq_note_here("%s: GGUF: %lld of the ids in eos_token_id left out: a file names three",
                       path, (long long)facts->stops_left_out);
}

void snrq_export_gguf_note_side_files(const snrq_model *m)
{
    const char *path = snrq_model_side_path(m);
    snrq_gguf_tokenizer_facts facts;
    if (snrq_gguf_check_tokenizer(path, &m->config, &facts) == SNRQ_OK) note_left_out(path, &facts);
}

static void report(const snrq_model *m, const snrq_gguf_plan *plan, const char *path,
                   uint64_t bytes)
{
    printf("%s: %" PRId64 " tensors, %.1f MB; blocks %s, embeddings %s\n", path, plan->count,
           (double)bytes / 1e6, snrq_gguf_type_name(plan->weights),
           snrq_gguf_type_name(plan->parts[0].type));
    if (snrq_gguf_context(&m->config) < m->config.max_positions)
        printf("%s: the context is given as %" PRId64 " tokens, the window of the attention: "
               "llama.cpp lets every token see all before it\n",
               path, snrq_gguf_context(&m->config));
    fflush(stdout);
}

snrq_status snrq_export_gguf(const snrq_context *context, const snrq_export_settings *settings,
                             const snrq_model *model, const char *directory)
{
    char path[4096];
    snrq_gguf_plan plan = {0};
    snrq_gguf_writer *writer = NULL;
    snrq_gguf_tokenizer_facts facts = {0};
    snrq_status status = snrq_path_join(directory, "model.gguf", path, sizeof path);
    if (status == SNRQ_OK) status = describe(context, model, settings, &writer, &plan, &facts);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = snrq_gguf_open(context, writer, path);
    if (status == SNRQ_OK)
        status =
            snrq_gguf_finish(context, writer, write_parts(context, model, &plan, writer, NULL));
    if (status == SNRQ_OK && context->rank == 0) {
        note_left_out(path, &facts);
        report(model, &plan, path, snrq_gguf_bytes(writer));
    }
    snrq_gguf_writer_destroy(&writer);
    snrq_gguf_plan_free(&plan);
    return status;
}

/* Comparing bytes. */

static bool has_types(const snrq_gguf_file *file, const snrq_gguf_plan *plan)
{
    bool same = snrq_gguf_file_count(file) == plan->count;
    for (int64_t i = 0; same && i < plan->count; i++)
        same =
            strcmp(snrq_gguf_file_at(file, i)->type, snrq_gguf_type_name(plan->parts[i].type)) == 0;
    return same;
}

/* The --embedding-type that makes a file with these types of tensors. */
static snrq_status find_settings(const snrq_model *m, const snrq_gguf_file *file, const char *path,
                                 snrq_export_settings *out)
{
    *out = (snrq_export_settings){.embedding_type = SNRQ_EMBEDDING_MODEL};
    for (int type = SNRQ_EMBEDDING_MODEL; type <= SNRQ_EMBEDDING_Q8_0; type++) {
        snrq_gguf_plan plan;
        out->embedding_type = (snrq_embedding_type)type;
        snrq_status status = snrq_gguf_plan_create(m, out, &plan);
        if (status == SNRQ_USAGE) continue; /* a type that this model cannot have */
        SNRQ_TRY(status);
        bool same = has_types(file, &plan);
        snrq_gguf_plan_free(&plan);
        if (same) return SNRQ_OK;
    }
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: the tensors have types, or an order, that no --embedding-type makes",
                     path);
}

/* Rank 0: the bytes before the data. */
static snrq_status compare_header(const snrq_gguf_writer *writer, const snrq_gguf_file *file,
                                  const char *path)
{
    unsigned char *header = NULL;
    size_t bytes = 0, same = 0;
    char place[160];
    SNRQ_TRY(snrq_gguf_header(writer, &header, &bytes));
    snrq_status status = snrq_gguf_file_compare(file, 0, header, bytes, &same);
    free(header);
    if (status != SNRQ_OK || same == bytes) return status;
    snrq_gguf_file_place(file, same, place, sizeof place);
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: byte %zu, in %s, is not what this version of snrq writes: the file was "
                     "changed, has the tokenizer of another directory (--tokenizer), or was "
                     "exported by another version; export it again",
                     path, same, place);
}

snrq_status snrq_export_gguf_compare_bytes(const snrq_context *context, const snrq_model *model,
                                           const snrq_gguf_file *file, const char *path)
{
    snrq_export_settings settings;
    snrq_gguf_plan plan = {0};
    snrq_gguf_writer *writer = NULL;
    snrq_gguf_tokenizer_facts facts;
    snrq_status status = find_settings(model, file, path, &settings);
    if (status == SNRQ_OK) status = describe(context, model, &settings, &writer, &plan, &facts);
    if (status == SNRQ_OK && context->rank == 0) status = compare_header(writer, file, path);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = write_parts(context, model, &plan, NULL, file);
    if (status == SNRQ_OK && context->rank == 0) status = snrq_gguf_file_check_padding(file);
    snrq_gguf_writer_destroy(&writer);
    snrq_gguf_plan_free(&plan);
    return snrq_agree(context, status);
}
