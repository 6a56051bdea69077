/* Rounding tables; see tables.h. */
#include "pipeline/tables.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/pieces.h"
#include "pipeline/model/tensors.h"
#include "pipeline/rounding/nearest.h"

static const char file_name[] = "tables.h5";
enum { PIECE_BYTES = 16 << 20 };

/* A table, and this rank's rows of it. */
typedef struct table {
    const char *name;
    const snrq_rule *rule;
    snrq_module_rows rows;
    snrq_module_codes codes;
} table;

static snrq_module_record record_of(const table *t, const snrq_config *c)
{
    const snrq_rule *rule = t->rule;
    snrq_module_record r = {.rows = c->vocabulary,
                            .columns = c->hidden,
                            .group_size = snrq_rule_group_columns(rule, c->hidden),
                            .groups = snrq_rule_groups(rule, c->hidden),
                            .bits = rule->bits,
                            .symmetric = rule->symmetric,
                            .scale_type = rule->scale_type,
                            .beam = rule->beam,
                            .alpha_next = (double)NAN};
    snprintf(r.name, sizeof r.name, "%s", t->name);
    if (rule->format != NULL) snprintf(r.format, sizeof r.format, "%s", rule->format->name);
    snprintf(r.method, sizeof r.method, "%s", snrq_method_name(rule->method));
    snprintf(r.grid, sizeof r.grid, "%s", snrq_quant_grid_name(rule->grid));
    snprintf(r.order, sizeof r.order, "%s", snrq_order_name(rule->natural_order));
    snrq_rule_alpha_text(rule, r.alpha_rule, sizeof r.alpha_rule);
    return r;
}

static snrq_status check_finite(const float *values, snrq_range rows, int64_t columns)
{
    for (int64_t i = 0; i < (rows.end - rows.begin) * columns; i++)
        if (!isfinite(values[i]))
            return snrq_fail(
                SNRQ_BAD_DATA, "row %lld, column %lld is %g: is the checkpoint damaged?",
                (long long)(rows.begin + i / columns), (long long)(i % columns), (double)values[i]);
    return SNRQ_OK;
}

/* Rows of the checkpoint, as read and as numbers; raw and values have room for them. */
static snrq_status round_rows(const snrq_model *m, const table *t, const snrq_tensor *tensor,
                              snrq_dtype dtype, snrq_range rows, unsigned char *raw, float *values)
{
    const int64_t columns = m->config.hidden, groups = t->rows.record.groups;
    const int64_t count = rows.end - rows.begin, at = rows.begin - t->rows.rows.begin;
    const size_t numbers = (size_t)(count * columns), size = snrq_dtype_size(dtype);
    SNRQ_TRY(
        snrq_model_read(m, tensor, (uint64_t)(rows.begin * columns) * size, numbers * size, raw));
    snrq_widen(dtype, raw, numbers, values);
    SNRQ_TRY(check_finite(values, rows, columns));
    return snrq_round_to_nearest(t->rule, rows.begin, count, columns, values,
                                 t->codes.codes + at * columns, t->codes.scales + at * groups,
                                 t->codes.zeros + at * groups, t->codes.minima + at * groups,
                                 t->codes.g_idx);
}

/* This rank's rows. */
static snrq_status round_table(const snrq_context *context, const snrq_model *m, table *t)
{
    const int64_t vocabulary = m->config.vocabulary, columns = m->config.hidden;
    const snrq_tensor *tensor;
    snrq_dtype dtype = SNRQ_F32;
    unsigned char *raw = NULL;
    float *values = NULL;
    char name[64];
    snprintf(name, sizeof name, "%s.weight", t->name);
    SNRQ_TRY(snrq_model_expect(m, name, vocabulary, columns, &tensor, &dtype));
    t->rows.record = record_of(t, &m->config);
    t->rows.rows = snrq_share(vocabulary, 1, context->size, context->rank);
    snrq_pieces p = snrq_pieces_of(t->rows.rows, (size_t)columns * sizeof *values, PIECE_BYTES, 1);
    snrq_status status = snrq_module_codes_allocate(
        &t->rows.record, t->rows.rows.end - t->rows.rows.begin, &t->codes);
    const size_t most = (size_t)(p.most * columns);
    if (status == SNRQ_OK) status = snrq_allocate(most, sizeof *values, t->name, &values);
    if (status == SNRQ_OK) status = snrq_allocate(most, snrq_dtype_size(dtype), t->name, &raw);
    while (status == SNRQ_OK && snrq_pieces_next(&p)) {
        status = round_rows(m, t, tensor, dtype, p.piece, raw, values);
        if (status != SNRQ_OK)
            status = snrq_fail(status, "%s: %s: %s", m->path, t->name, snrq_error_message());
    }
    t->rows.codes = t->codes.codes;
    t->rows.scales = t->codes.scales;
    t->rows.zeros = t->codes.zeros;
    t->rows.minima = t->codes.minima;
    t->rows.g_idx = t->codes.g_idx;
    free(values);
    free(raw);
    return status;
}

/* Columns' groups, for a rank without rows. */
static void fill_groups(table *t)
{
    for (int64_t k = 0; t->codes.g_idx != NULL && k < t->rows.record.columns; k++)
        t->codes.g_idx[k] = (int32_t)(k / t->rows.record.group_size);
}

static snrq_status write_tables(snrq_job *job, table *tables, int count)
{
    snrq_module_rows rows[SNRQ_TABLES];
    snrq_status status = SNRQ_OK;
    json_t *list = json_array(), *details = NULL;
    for (int i = 0; i < count; i++) {
        if (status == SNRQ_OK) status = round_table(job->context, job->model, &tables[i]);
        fill_groups(&tables[i]);
        rows[i] = tables[i].rows;
        json_array_append_new(list, snrq_module_record_json(&rows[i].record));
    }
    details = json_pack("{s:o}", "tables", list);
    status = snrq_agree(job->context, status);
    if (status == SNRQ_OK)
        status = snrq_block_file_write(job->context, snrq_output_temporary(job->output, file_name),
                                       job->model->config.layers, rows, count);
    if (status == SNRQ_OK)
        status = snrq_output_commit(job->output, job->context, file_name, details);
    json_decref(details);
    return status;
}

snrq_status snrq_tables_commit(snrq_job *job)
{
    table tables[SNRQ_TABLES] = {{.name = NULL}};
    int count = 0;
    for (int t = 0; t < SNRQ_TABLES; t++)
        if (job->model->coded[t])
            tables[count++] = (table){.name = snrq_table_names[t], .rule = &job->rules.table[t]};
    if (count == 0 || snrq_output_record(job->output, file_name) != NULL) return SNRQ_OK;
    snrq_timers_enter(&job->timers, SNRQ_PHASE_WRITE);
    snrq_status status = write_tables(job, tables, count);
    for (int i = 0; i < count; i++) snrq_module_codes_free(&tables[i].codes);
    return status;
}
