/* Units between models and the rounding; see unit.h. */
#include "pipeline/unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Row of the stacked W. */
static void stacked_row(const void *source, int64_t row, float *out)
{
    const snrq_part_stack *s = source;
    int m = 0;
    while (row >= s->first[m + 1]) m++;
    int module = s->block->family->part[s->part].first + m;
    snrq_weight_widen(&s->block->module[module], row - s->first[m], 1, out);
}

void snrq_modules_name(const snrq_family *f, int64_t layer, int first, int end, char *out,
                       size_t size)
{
    snrq_module_name(layer, f->module[first].name, out, size);
    for (int m = first + 1; m < end; m++) {
        const char *name = strrchr(f->module[m].name, '.');
        size_t length = strlen(out);
        snprintf(out + length, size - length, " + %s", name + 1);
    }
}

snrq_status snrq_part_stack_create(const snrq_block *block, int64_t layer, int part,
                                   const double *alpha_before, snrq_part_stack *s)
{
    const snrq_family *f = block->family;
    const snrq_part_shape *u = &f->part[part];
    int count = u->end - u->first;
    *s = (snrq_part_stack){.block = block, .part = part};
    snrq_status status =
        snrq_allocate((size_t)count + 1, sizeof *s->first, "stacked modules", &s->first);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)count + 1, SNRQ_MODULES_NAME, "module names", &s->text);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)count, sizeof *s->names, "module names", &s->names);
    if (status != SNRQ_OK) {
        snrq_part_stack_free(s);
        return status;
    }
    for (int m = 0; m < count; m++) {
        char *name = s->text + (size_t)m * SNRQ_MODULES_NAME;
        snrq_module_name(layer, f->module[u->first + m].name, name, SNRQ_MODULES_NAME);
        s->names[m] = name;
        s->first[m + 1] = s->first[m] + f->module[u->first + m].rows;
    }
    char *together = s->text + (size_t)count * SNRQ_MODULES_NAME;
    snrq_modules_name(f, layer, u->first, u->end, together, SNRQ_MODULES_NAME);
    s->stack = (snrq_stack){.count = count,
                            .first = s->first,
                            .names = s->names,
                            .together = together,
                            .alpha_before = alpha_before + u->first,
                            .row = stacked_row,
                            .source = s};
    return SNRQ_OK;
}

void snrq_part_stack_free(snrq_part_stack *s)
{
    free(s->first);
    free(s->text);
    free(s->names);
    free(s->grams);
    *s = (snrq_part_stack){0};
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

snrq_range snrq_module_rows_of_rank(const snrq_context *c, const snrq_family *f, int module)
{
    const snrq_module_shape *m = &f->module[module];
    snrq_range mine = snrq_rounding_share(f->part[m->part].rows, c->size, c->rank);
    return (snrq_range){clamp(mine.begin - m->part_row, 0, m->rows),
                        clamp(mine.end - m->part_row, 0, m->rows)};
}

bool snrq_unit_makes_up(const snrq_rule *rule, const snrq_family *f, int unit)
{
    return snrq_rule_compensates(rule) && snrq_unit_writes_residual(f, unit);
}

int64_t snrq_unit_least_tokens(const snrq_family *f, int step, int64_t expert_tokens)
{
    const int gate_up = f->step[step].kind == SNRQ_STEP_EXPERTS_OUT ? step - 1 : step;
    return expert_tokens > 0 ? expert_tokens : f->unit[f->step[gate_up].first].columns;
}

double snrq_unit_share(const snrq_family *f, int unit, int64_t expert_tokens, double tokens)
{
    const snrq_unit_shape *u = &f->unit[unit];
    if (u->expert < 0) return u->share;
    const double least = (double)snrq_unit_least_tokens(f, u->step, expert_tokens);
    return fmin(1.0, fmax(u->share, least / tokens));
}

/* Of H, D and C, which lie on the ranks of a team. */
static const double most_team_bytes = 1e9;

int snrq_unit_teams(const snrq_family *f, int unit, int ranks)
{
    const snrq_step *s = &f->step[f->unit[unit].step];
    const double n = (double)f->unit[unit].columns, bytes = 3.0 * sizeof(double) * n * n;
    int experts = 0; /* of the step; they come first */
    for (int u = s->first; u < s->end; u++) experts += f->unit[u].expert >= 0;
    if (experts == 0 || f->unit[unit].expert < 0) return 1;
    int teams = experts < ranks ? experts : ranks;
    while (teams > 1 && bytes / (ranks / teams) > most_team_bytes) teams /= 2;
    int batch = (unit - s->first) / teams * teams;
    return batch + teams <= experts ? teams : 1;
}

/* This rank's rows of the part. */
static void put_rows(const snrq_rounding *rounding, const snrq_quantized_part *u)
{
    const snrq_rows *rows = &rounding->rows;
    int64_t n = rows->columns, groups = rounding->groups.count, first = rounding->mine.begin;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rounding->mine.end - first; r++) {
        uint8_t *codes = u->codes + (first + r) * n;
        for (int64_t k = 0; k < n; k++)
            codes[rounding->statistics->order[k]] = rows->codes[r * n + k];
        memcpy(u->scales + (first + r) * groups, rows->scales + r * groups,
               (size_t)groups * sizeof *u->scales);
        memcpy(u->zeros + (first + r) * groups, rows->zeros + r * groups, (size_t)groups);
        if (u->minima != NULL)
            memcpy(u->minima + (first + r) * groups, rows->minima + r * groups,
                   (size_t)groups * sizeof *u->minima);
    }
    if (rounding->context->node_rank == 0)
        memcpy(u->g_idx, rounding->groups.g_idx, (size_t)n * sizeof *u->g_idx);
}

/* A table with a row for each of the part's, which the team wrote. */
static snrq_status share(const snrq_context *c, const snrq_team *team,
                         const snrq_loaded_block *quantized, int part, size_t at, size_t row_bytes)
{
    return snrq_node_memory_share_team_rows(c, team, quantized->memory, at,
                                            quantized->block.family->part[part].rows,
                                            SNRQ_TILE_ROWS, row_bytes);
}

snrq_status snrq_part_publish(const snrq_context *c, const snrq_team *team,
                              const snrq_rounding *rounding, const snrq_loaded_block *quantized,
                              int part)
{
    const snrq_quantized_part *u = &quantized->part[part];
    const size_t n = (size_t)quantized->block.family->part[part].columns;
    const size_t groups = (size_t)u->groups;
    if (team->context != NULL) put_rows(rounding, u);
    SNRQ_TRY(share(c, team, quantized, part, u->codes_at, n));
    SNRQ_TRY(share(c, team, quantized, part, u->scales_at, groups * sizeof *u->scales));
    SNRQ_TRY(share(c, team, quantized, part, u->zeros_at, groups));
    if (u->minima != NULL)
        SNRQ_TRY(share(c, team, quantized, part, u->minima_at, groups * sizeof *u->minima));
    if (snrq_team_is_whole(c, team)) return SNRQ_OK;
    return snrq_node_memory_share_team_rows(c, team, quantized->memory, u->g_idx_at, 1, 1,
                                            n * sizeof *u->g_idx);
}

/* tr(G E S E^T) / 2, with S the mean of x x^T. */
static double predicted_loss(const snrq_rounding *rounding, const snrq_rounded_module *m)
{
    return isnan(m->weighted) ? 0.0 : 0.5 * m->weighted * rounding->statistics->per_token;
}

snrq_module_record snrq_rounded_record(const snrq_rounding *rounding, const snrq_family *f,
                                       int64_t layer, int module)
{
    const snrq_rule *rule = rounding->rule;
    const snrq_module_shape *shape = &f->module[module];
    const snrq_rounded_module *m = &rounding->modules[module - f->part[shape->part].first];
    snrq_module_record record = {.rows = shape->rows,
                                 .columns = shape->columns,
                                 .group_size = snrq_rule_group_columns(rule, shape->columns),
                                 .groups = rounding->groups.count,
                                 .bits = rule->bits,
                                 .symmetric = rule->symmetric,
                                 .permuted_groups = rule->permuted_groups,
                                 .scale_type = rule->scale_type,
                                 .beam = rule->beam,
                                 .refine = rule->refine,
                                 .regrid = rule->regrid,
                                 .alpha = m->alpha,
                                 .alpha_next = m->alpha_next,
                                 .damp = rule->damp,
                                 .damping = rounding->target.factor.damping,
                                 .damping_attempts = rounding->target.factor.attempts,
                                 .shrink = rounding->statistics->strengths.shrink,
                                 .compensation = rounding->statistics->c != NULL
                                                     ? rounding->statistics->strengths.compensation
                                                     : 0.0,
                                 .tokens = rounding->statistics->tokens,
                                 .dead_inputs = rounding->statistics->dead_inputs,
                                 .objective = m->objective,
                                 .predicted_loss = predicted_loss(rounding, m),
                                 .output_error = m->output_error,
                                 .clipped = m->clipped};
    snrq_module_name(layer, shape->name, record.name, sizeof record.name);
    if (rule->format != NULL)
        snprintf(record.format, sizeof record.format, "%s", rule->format->name);
    if (rule->format != NULL && rule->format->scale.tensor)
        record.tensor_scale = (double)rounding->rows.tensor_scale;
    snprintf(record.method, sizeof record.method, "%s", snrq_method_name(rule->method));
    snrq_rule_alpha_text(rule, record.alpha_rule, sizeof record.alpha_rule);
    snprintf(record.order, sizeof record.order, "%s", snrq_order_name(rule->natural_order));
    snprintf(record.grid, sizeof record.grid, "%s", snrq_quant_grid_name(rule->grid));
    return record;
}

void snrq_unit_fill_rows(const snrq_context *context, const snrq_family *family, int module,
                         const snrq_weight *w, snrq_module_rows *out)
{
    snrq_range rows = snrq_module_rows_of_rank(context, family, module);
    out->rows = rows;
    out->codes = w->codes + rows.begin * w->columns;
    out->scales = w->scales + rows.begin * w->groups;
    out->zeros = w->zeros + rows.begin * w->groups;
    out->minima = w->minima != NULL ? w->minima + rows.begin * w->groups : NULL;
    out->g_idx = w->g_idx;
}
