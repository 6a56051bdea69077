/* One layer from files; see round.h. */
#include "pipeline/round.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"
#include "io/safetensors_writer.h"
#include "io/standard_streams.h"
#include "mpi/log.h"
#include "mpi/node_memory.h"
#include "mpi/timers.h"
#include "pipeline/phase.h"
#include "pipeline/rounding/rounding.h"
#include "pipeline/rules.h"

/* A case as read: everything in original column order. */
typedef struct layer_case {
    int64_t rows, columns;
    float *w, *h, *d, *e;  /* d and e may be NULL */
    snrq_user_output *out; /* of rank 0, or NULL */
} layer_case;

static snrq_status read_matrix(const snrq_safetensors *file, const char *path, const char *name,
                               int64_t rows, int64_t columns, float **out)
{
    const snrq_tensor *t = snrq_safetensors_find(file, name);
    if (t == NULL) return snrq_fail(SNRQ_BAD_DATA, "%s: no tensor '%s'", path, name);
    if (strcmp(t->dtype, "F32") != 0 || t->dimensions != 2 || (rows > 0 && t->shape[0] != rows) ||
        (columns > 0 && t->shape[1] != columns) || t->shape[0] < 1 || t->shape[1] < 1)
        return snrq_fail(SNRQ_BAD_DATA, "%s: tensor '%s' must be F32 and two-dimensional%s", path,
                         name, rows > 0 ? ", square, with as many columns as W" : "");
    size_t count = (size_t)t->shape[0] * (size_t)t->shape[1];
    SNRQ_TRY(snrq_allocate(count, sizeof **out, name, out));
    SNRQ_TRY(snrq_safetensors_read(file, t, 0, t->bytes, *out));
    size_t at = snrq_first_not_finite(SNRQ_F32, *out, count);
    if (at == count) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: tensor '%s' is not finite at row %zu, column %zu: %g",
                     path, name, at / (size_t)t->shape[1], at % (size_t)t->shape[1],
                     (double)(*out)[at]);
}

static snrq_status read_case(const snrq_options *o, const snrq_rule *rule, layer_case *c)
{
    snrq_safetensors *file = NULL;
    SNRQ_TRY(snrq_safetensors_open(o->path, &file));
    snrq_status status = read_matrix(file, o->path, "W", 0, 0, &c->w);
    if (status == SNRQ_OK) {
        const snrq_tensor *w = snrq_safetensors_find(file, "W");
        c->rows = w->shape[0];
        c->columns = w->shape[1];
        status = read_matrix(file, o->path, "H", c->columns, c->columns, &c->h);
    }
    if (status == SNRQ_OK && snrq_rule_needs_d(rule))
        status = read_matrix(file, o->path, "D", c->columns, c->columns, &c->d);
    if (status == SNRQ_OK && snrq_rule_needs_e(rule))
        status = read_matrix(file, o->path, "E", c->columns, c->columns, &c->e);
    snrq_safetensors_close(&file);
    return status;
}

static void free_case(layer_case *c)
{
    free(c->w);
    free(c->h);
    free(c->d);
    free(c->e);
    snrq_user_output_close(&c->out);
}

static void case_row(const void *source, int64_t row, float *out)
{
    const layer_case *c = source;
    memcpy(out, c->w + row * c->columns, (size_t)c->columns * sizeof *out);
}

/* Columns [begin, begin + width) in decision order, column-major. In runs of rows that fill cache
 * lines of every column. */
static void order_panel(const snrq_statistics *s, const float *original, bool silence,
                        int64_t begin, int64_t width, double *panel)
{
    enum { RUN = 16 };
    int64_t n = s->columns;
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < n; first += RUN)
        for (int64_t c = 0; c < width; c++)
            for (int64_t k = first; k < first + RUN && k < n; k++) {
                int64_t l = begin + c;
                bool dead = silence && (s->dead[k] || s->dead[l]);
                panel[c * n + k] =
                    dead ? 0.0 : (double)original[(int64_t)s->order[k] * n + s->order[l]];
            }
}

/* One Gram in decision order, as a distributed matrix. `silence`: dead inputs have no share in it.
 */
static snrq_status distribute(const snrq_statistics *s, const float *original, bool silence,
                              snrq_matrix **out)
{
    int64_t n = s->columns;
    double *panel = NULL;
    SNRQ_TRY(snrq_matrix_create(s->process_grid, n, n, out));
    snrq_status status =
        snrq_allocate_scratch((size_t)(n * SNRQ_PANEL), sizeof *panel, "panel of a Gram", &panel);
    for (int64_t begin = 0; status == SNRQ_OK && begin < n; begin += SNRQ_PANEL) {
        int64_t width = n - begin < SNRQ_PANEL ? n - begin : SNRQ_PANEL;
        order_panel(s, original, silence, begin, width, panel);
        snrq_matrix_set_panel(*out, begin, width, 0, panel);
    }
    free(panel);
    return snrq_agree(s->process_grid->context, status);
}

static snrq_status make_statistics(const snrq_context *context, const snrq_rule *rule,
                                   snrq_process_shape shape, const layer_case *c,
                                   snrq_statistics *s)
{
    int64_t n = c->columns;
    double *diagonal = NULL;
    *s = (snrq_statistics){.columns = n, .strengths = snrq_strengths_choose(rule, n, 0)};
    snrq_status status = snrq_allocate((size_t)n, sizeof *diagonal, "diagonal", &diagonal);
    for (int64_t j = 0; status == SNRQ_OK && j < n; j++) diagonal[j] = (double)c->h[j * n + j];
    if (status == SNRQ_OK) status = snrq_statistics_order(rule, diagonal, s);
    free(diagonal);
    SNRQ_TRY(snrq_agree(context, status));
    SNRQ_TRY(snrq_statistics_start(context, shape, s));
    SNRQ_TRY(distribute(s, c->h, false, &s->h));
    snrq_matrix_add_diagonal(s->h, 1.0, s->dead);
    if (c->d != NULL) SNRQ_TRY(distribute(s, c->d, true, &s->d));
    if (c->e != NULL) SNRQ_TRY(distribute(s, c->e, true, &s->e));
    return SNRQ_OK;
}

/* Writes this rank's rows to node memory, brings them to rank 0 and writes the result file there.
 */
static snrq_status write_result(const snrq_context *context, const layer_case *c,
                                const snrq_statistics *s, const snrq_rounding *rounded)
{
    const snrq_rows *rows = &rounded->rows;
    size_t m = (size_t)c->rows, n = (size_t)c->columns, g = (size_t)rounded->groups.count;
    size_t zeros_at = m * g * sizeof(float), minima_at = zeros_at + m * g * sizeof(int32_t);
    size_t codes_at = minima_at + (rows->minima != NULL ? m * g * sizeof(float) : 0);
    snrq_node_memory *memory = NULL;
    SNRQ_TRY(snrq_node_memory_create(context, codes_at + m * n, &memory));
    float *scales = (float *)(void *)memory->data;
    int32_t *zeros = (int32_t *)(void *)(memory->data + zeros_at);
    float *minima = (float *)(void *)(memory->data + minima_at);
    uint8_t *codes = memory->data + codes_at;
#pragma omp parallel for schedule(static)
    for (int64_t r = rounded->mine.begin; r < rounded->mine.end; r++) {
        size_t local = (size_t)(r - rounded->mine.begin), global = (size_t)r;
        memcpy(scales + global * g, rows->scales + local * g, g * sizeof *scales);
        for (size_t i = 0; i < g; i++) zeros[global * g + i] = rows->zeros[local * g + i];
        if (rows->minima != NULL)
            memcpy(minima + global * g, rows->minima + local * g, g * sizeof *minima);
        for (size_t k = 0; k < n; k++)
            codes[global * n + (size_t)s->order[k]] = rows->codes[local * n + k];
    }
    snrq_status status = snrq_node_memory_share_rows(context, memory, 0, c->rows, SNRQ_TILE_ROWS,
                                                     g * sizeof *scales);
    if (status == SNRQ_OK)
        status = snrq_node_memory_share_rows(context, memory, zeros_at, c->rows, SNRQ_TILE_ROWS,
                                             g * sizeof *zeros);
    if (status == SNRQ_OK && rows->minima != NULL)
        status = snrq_node_memory_share_rows(context, memory, minima_at, c->rows, SNRQ_TILE_ROWS,
                                             g * sizeof *minima);
    if (status == SNRQ_OK)
        status = snrq_node_memory_share_rows(context, memory, codes_at, c->rows, SNRQ_TILE_ROWS, n);
    const int without = rows->minima != NULL ? 0 : 1; /* the first one */
    const snrq_tensor_data tensors[] = {
        {"minima", "F32", 2, {c->rows, (int64_t)g}, minima, m * g * sizeof *minima},
        {"scales", "F32", 2, {c->rows, (int64_t)g}, scales, m * g * sizeof *scales},
        {"zeros", "I32", 2, {c->rows, (int64_t)g}, zeros, m * g * sizeof *zeros},
        {"g_idx", "I32", 1, {c->columns}, rounded->groups.g_idx, n * sizeof(int32_t)},
        {"codes", "U8", 2, {c->rows, c->columns}, codes, m * n}};
    if (status == SNRQ_OK && c->out != NULL)
        status = snrq_safetensors_write(c->out, tensors + without, 5 - without);
    status = snrq_agree(context, status);
    snrq_node_memory_destroy(&memory);
    return status;
}

static snrq_status print_result(const snrq_context *context, const snrq_options *o,
                                const layer_case *c, const snrq_rounding *rounded, double rounding,
                                double total)
{
    const snrq_rounded_module *m = &rounded->modules[0];
    const snrq_rule *rule = rounded->rule;
    char bits[16];
    snprintf(bits, sizeof bits, "%d bits", rule->bits);
    const char *levels = rule->format != NULL ? rule->format->name : bits;
    FILE *answers = c->out != NULL ? snrq_user_output_answers(c->out) : stdout;
    if (context->rank != 0) return SNRQ_OK;
    if (o->json)
        fprintf(
            answers,
            "{\"objective\": %.17g, \"output_error\": %.17g, \"alpha\": %.17g, \"clipped\": %.17g, "
            "\"damping\": %.17g, \"rounding_seconds\": %.6f, \"total_seconds\": %.6f}\n",
            m->objective, m->output_error, m->alpha, m->clipped, rounded->target.factor.damping,
            rounding, total);
    else
        fprintf(answers,
                "%lld x %lld, %s, %s: objective %.8g, output error %.3f %%, alpha %.4f, "
                "rounding %.3f s "
                "of %.3f s\n",
                (long long)c->rows, (long long)c->columns, levels, snrq_method_name(rule->method),
                m->objective, 100.0 * m->output_error, m->alpha, rounding, total);
    return snrq_print_end(answers);
}

/* The steps of the method for the one module there is. */
static snrq_status round_module(const snrq_context *context, bool strict, snrq_timers *timers,
                                snrq_rounding *r)
{
    char text[512];
    snrq_timers_enter(timers, SNRQ_PHASE_FACTOR);
    SNRQ_TRY(snrq_rounding_shift(r));
    snrq_timers_enter(timers, SNRQ_PHASE_GRID);
    SNRQ_TRY(snrq_rounding_fit(r));
    if (strict) SNRQ_TRY(snrq_trouble_refuse(&r->troubles, r->rule->scale_type));
    for (int i = 0; i < r->troubles.count; i++) {
        snrq_trouble_text(&r->troubles.trouble[i], r->rule->scale_type, text, sizeof text);
        snrq_note(context, "warning: %s", text);
    }
    snrq_timers_enter(timers, SNRQ_PHASE_SEARCH);
    SNRQ_TRY(snrq_rounding_search(r));
    return snrq_rounding_measure(r);
}

/* Rank 0 tries the file for the result before anything is computed. */
static snrq_status open_result(const snrq_context *context, const snrq_options *o, layer_case *c)
{
    const char *inputs[SNRQ_MOST_INPUTS];
    snrq_status status = SNRQ_OK;
    if (context->rank == 0 && o->output != NULL)
        status = snrq_user_output_open(o->output, inputs, snrq_options_inputs(o, inputs), &c->out);
    return snrq_agree(context, status);
}

/* Rows that are no whole super-blocks take the narrow format, as in a model. */
static snrq_status fit_format(const snrq_context *context, const snrq_options *o,
                              const layer_case *c, snrq_rule *rule)
{
    const snrq_weight_format *f = snrq_weight_format_for(rule->format, c->columns);
    if (rule->format == NULL || f == rule->format) return SNRQ_OK;
    if (f == NULL)
        return snrq_fail(SNRQ_USAGE, "%s: W has %lld inputs, and %s has groups of %lld", o->path,
                         (long long)c->columns, rule->format->name, (long long)rule->format->group);
    snrq_note(context, "W has %lld inputs, no multiple of %lld: it becomes %s",
              (long long)c->columns, (long long)rule->format->super_block, f->name);
    snrq_rule_set_format(rule, f);
    return SNRQ_OK;
}

static snrq_status round_case(const snrq_context *context, const snrq_options *o, snrq_rule *rule,
                              layer_case *c, snrq_statistics *s, snrq_rounding *rounded)
{
    const snrq_process_shape shape = {o->factor_rows, o->factor_columns};
    snrq_timers timers;
    snrq_timers_reset(&timers, SNRQ_PHASES);
    SNRQ_TRY(open_result(context, o, c));
    SNRQ_TRY(snrq_agree(context, read_case(o, rule, c)));
    SNRQ_TRY(snrq_agree(context, fit_format(context, o, c, rule)));
    SNRQ_TRY(make_statistics(context, rule, shape, c, s));
    const int64_t first[2] = {0, c->rows};
    const char *name = "W";
    double alpha = snrq_rule_groups(rule, c->columns) > 1 ? 0.5 : 0.25;
    const snrq_stack stack = {1, first, &name, name, &alpha, case_row, c, NULL, 0};
    SNRQ_TRY(snrq_rounding_create(context, rule, s, &stack, rounded));
    SNRQ_TRY(round_module(context, o->strict, &timers, rounded));
    snrq_timers_enter(&timers, SNRQ_PHASE_WRITE);
    SNRQ_TRY(write_result(context, c, s, rounded));
    snrq_timers_enter(&timers, -1);
    return snrq_agree(context,
                      print_result(context, o, c, rounded, timers.seconds[SNRQ_PHASE_SEARCH],
                                   snrq_now() - timers.created));
}

snrq_status snrq_round(const snrq_context *context, const snrq_options *options)
{
    snrq_rule rule = snrq_options_rule(options);
    layer_case c = {0};
    snrq_statistics statistics = {0};
    snrq_rounding rounded = {0};
    snrq_status status = round_case(context, options, &rule, &c, &statistics, &rounded);
    snrq_rounding_free(&rounded);
    snrq_statistics_free(&statistics);
    free_case(&c);
    return status;
}
