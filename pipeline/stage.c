/* Quantizing one stage; see stage.h. */
#include "pipeline/stage.h"

#include <stdio.h>
#include <string.h>

/* The stage's modules as the rounding wants them. */
typedef struct stage_modules {
    const snrq_block *block;
    snrq_stage stage;
    int64_t first[SNRQ_MAX_MODULES + 1];
    const char *names[SNRQ_MAX_MODULES];
    char texts[SNRQ_MAX_MODULES][SNRQ_MODULES_NAME], together[SNRQ_MODULES_NAME];
    snrq_modules modules;
} stage_modules;

static void stage_row(const void *source, int64_t row, float *out)
{
    const stage_modules *s = source;
    int m = 0;
    while (row >= s->first[m + 1]) m++;
    snrq_weight_widen(&s->block->module[s->block->family->first[s->stage] + m], row - s->first[m],
                      1, out);
}

void snrq_stage_name(const snrq_family *f, int64_t layer, snrq_stage stage, char *out, size_t size)
{
    snrq_module_name(layer, f->module[f->first[stage]].name, out, size);
    for (int m = f->first[stage] + 1; m < f->first[stage + 1]; m++) {
        const char *name = strrchr(f->module[m].name, '.');
        size_t length = strlen(out);
        snprintf(out + length, size - length, " + %s", name + 1);
    }
}

static void stack_modules(const snrq_stage_job *job, stage_modules *s)
{
    const snrq_family *f = job->full->family;
    int first = f->first[job->stage], count = f->first[job->stage + 1] - first;
    *s = (stage_modules){.block = job->full, .stage = job->stage};
    snrq_stage_name(f, job->layer, job->stage, s->together, sizeof s->together);
    for (int m = 0; m < count; m++) {
        snrq_module_name(job->layer, f->module[first + m].name, s->texts[m], sizeof s->texts[m]);
        s->names[m] = s->texts[m];
        s->first[m + 1] = s->first[m] + f->module[first + m].rows;
    }
    s->modules = (snrq_modules){.count = count,
                                .first = s->first,
                                .names = s->names,
                                .together = s->together,
                                .alpha_before = job->alpha_before + first,
                                .row = stage_row,
                                .source = s};
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

snrq_range snrq_stage_module_rows(const snrq_context *c, const snrq_family *f, int module)
{
    snrq_stage stage = f->module[module].stage;
    snrq_range mine = snrq_rounding_share(f->stage_rows[stage], c->size, c->rank);
    int64_t begin = 0, rows = f->module[module].rows;
    for (int m = f->first[stage]; m < module; m++) begin += f->module[m].rows;
    return (snrq_range){clamp(mine.begin - begin, 0, rows), clamp(mine.end - begin, 0, rows)};
}

/* Puts this rank's rows into node memory, columns in original order, and brings the other nodes'
 * rows. */
static snrq_status publish(const snrq_stage_job *job, const snrq_statistics *statistics,
                           const snrq_rounded *rounded)
{
    const snrq_stage_arrays *a = job->arrays;
    const snrq_rows *rows = &rounded->rows;
    int64_t n = rows->columns, groups = rounded->groups.count, first = rounded->mine.begin;
    int64_t rows_global = job->full->family->stage_rows[job->stage];
    for (int64_t r = 0; r < rounded->mine.end - first; r++) {
        uint8_t *codes = a->codes + (first + r) * n;
        for (int64_t k = 0; k < n; k++) codes[statistics->order[k]] = rows->codes[r * n + k];
        memcpy(a->scales + (first + r) * groups, rows->scales + r * groups,
               (size_t)groups * sizeof *a->scales);
        memcpy(a->zeros + (first + r) * groups, rows->zeros + r * groups, (size_t)groups);
    }
    if (job->context->node_rank == 0)
        memcpy(a->g_idx, rounded->groups.g_idx, (size_t)n * sizeof *a->g_idx);
    SNRQ_TRY(snrq_node_memory_share_rows(job->context, job->memory, a->codes_at, rows_global,
                                         SNRQ_TILE_ROWS, (size_t)n));
    SNRQ_TRY(snrq_node_memory_share_rows(job->context, job->memory, a->scales_at, rows_global,
                                         SNRQ_TILE_ROWS, (size_t)groups * sizeof *a->scales));
    return snrq_node_memory_share_rows(job->context, job->memory, a->zeros_at, rows_global,
                                       SNRQ_TILE_ROWS, (size_t)groups);
}

static snrq_module_record record_module(const snrq_stage_job *job,
                                        const snrq_statistics *statistics,
                                        const snrq_rounded *rounded, int index)
{
    const snrq_options *o = job->options;
    const snrq_family *f = job->full->family;
    const snrq_module_shape *shape = &f->module[f->first[job->stage] + index];
    const snrq_rounded_module *m = &rounded->modules[index];
    bool grouped = o->group_size > 0 && o->group_size < shape->columns;
    snrq_module_record record = {.rows = shape->rows,
                                 .columns = shape->columns,
                                 .group_size = grouped ? o->group_size : shape->columns,
                                 .groups = rounded->groups.count,
                                 .bits = (int)o->bits,
                                 .symmetric = !o->asymmetric,
                                 .permuted_groups = o->permuted_groups != 0,
                                 .scale_type = (snrq_dtype)o->scale_type,
                                 .beam = o->method == SNRQ_KSNRQ ? (int)o->beam : 1,
                                 .refine = o->method == SNRQ_RTN ? 0 : (int)o->refine,
                                 .regrid = snrq_regrids(o) ? (int)o->regrid : 0,
                                 .alpha = m->alpha,
                                 .alpha_next = m->alpha_next,
                                 .damp = o->damp,
                                 .damping = rounded->factor.damping,
                                 .damping_attempts = rounded->factor.attempts,
                                 .dead_inputs = statistics->dead_inputs,
                                 .objective = m->objective,
                                 .output_error = m->output_error,
                                 .clipped = m->clipped};
    snrq_module_name(job->layer, shape->name, record.name, sizeof record.name);
    snprintf(record.method, sizeof record.method, "%s", snrq_method_name(o->method));
    snprintf(record.alpha_rule, sizeof record.alpha_rule, "%s", o->alpha_text);
    snprintf(record.order, sizeof record.order, "%s", o->natural_order ? "natural" : "diagonal");
    snprintf(record.grid, sizeof record.grid, "%s", snrq_grid_name(o->grid));
    return record;
}

snrq_status snrq_stage_quantize(const snrq_stage_job *job, snrq_statistics *statistics,
                                snrq_module_record records[SNRQ_MAX_MODULES],
                                snrq_trouble_list *troubles)
{
    stage_modules stacked;
    snrq_rounded rounded = {0};
    stack_modules(job, &stacked);
    snrq_status status = snrq_round_modules(job->context, job->options, job->timers, statistics,
                                            &stacked.modules, &rounded);
    if (status == SNRQ_OK) status = publish(job, statistics, &rounded);
    for (int m = 0; status == SNRQ_OK && m < stacked.modules.count; m++)
        records[job->full->family->first[job->stage] + m] =
            record_module(job, statistics, &rounded, m);
    *troubles = rounded.troubles;
    snrq_rounded_free(&rounded);
    return status;
}
