/* Dequantized checkpoints; see formats.h. NAME.weight [rows, columns], as in the model. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "pipeline/export/formats.h"

snrq_status snrq_dense_possible(const snrq_model *m, char *why, size_t size)
{
    snrq_export_facts f;
    (void)size;
    why[0] = '\0';
    return snrq_export_facts_read(m, &f);
}

static snrq_status settle(snrq_export_job *job, const snrq_export_settings *settings)
{
    job->type = settings->float32 ? SNRQ_F32 : job->model->config.dtype;
    job->model_type = job->type;
    return SNRQ_OK;
}

static snrq_status add(const snrq_export_job *job, const char *name, int64_t rows, int64_t columns,
                       int *first)
{
    return snrq_export_add(job, name, "weight", snrq_dtype_name(job->type), 2, rows, columns,
                           first);
}

struct target {
    const snrq_export_job *job;
    int first;
    float *row;          /* [columns] */
    unsigned char *data; /* [rows of a piece, columns] in the type written */
};

static snrq_status dequantize_row(const struct target *t, const snrq_export_rows *r, int64_t i)
{
    const snrq_module_record *record = r->module->record;
    for (int64_t c = 0; c < record->columns; c++) {
        t->row[c] = snrq_export_value(r, i, c);
        if (!isfinite(snrq_round_to(t->job->type, t->row[c])))
            return snrq_fail(SNRQ_USAGE,
                             "%s: the weight of row %lld, column %lld is %g, too large for %s; "
                             "export with --weights f32",
                             record->name, (long long)(r->range.begin + i), (long long)c,
                             (double)t->row[c], snrq_dtype_name(t->job->type));
    }
    return SNRQ_OK;
}

static snrq_status write_some(void *user, const snrq_export_rows *r)
{
    struct target *t = user;
    const size_t columns = (size_t)r->module->record->columns;
    const size_t row_bytes = columns * snrq_dtype_size(t->job->type);
    const size_t count = (size_t)(r->range.end - r->range.begin);
    if (t->data == NULL)
        SNRQ_TRY(snrq_allocate(count, row_bytes, "dequantized rows", &t->data)); /* the most */
    for (size_t i = 0; i < count; i++) {
        SNRQ_TRY(dequantize_row(t, r, (int64_t)i));
        snrq_export_narrow(t->job->type, t->row, columns, t->data + i * row_bytes);
    }
    return snrq_shards_write(t->job->shards, t->first, (uint64_t)r->range.begin * row_bytes,
                             t->data, count * row_bytes);
}

static snrq_status write(const snrq_export_job *job, const snrq_export_module *module,
                         snrq_range range, int first)
{
    struct target t = {.job = job, .first = first};
    SNRQ_TRY(snrq_allocate((size_t)module->record->columns, sizeof *t.row, "a row", &t.row));
    snrq_status status = snrq_export_module_rows(module, range, write_some, &t);
    free(t.row);
    free(t.data);
    return status;
}

const snrq_checkpoint_layout snrq_dense_layout = {
    .name = "safetensors", .settle = settle, .add = add, .write = write};
