/* Rows that are rounded once more; see trial.h. */
#include "pipeline/rounding/trial.h"

#include <stdlib.h>
#include <string.h>

snrq_status snrq_rows_create_like(const snrq_rows *rows, int64_t count, snrq_rows *out)
{
    SNRQ_TRY(snrq_rows_create(count, rows->bits, rows->groups, out));
    out->levels = rows->levels;
    out->top = rows->top;
    out->tensor_scale = rows->tensor_scale;
    return rows->minima != NULL ? snrq_rows_add_minima(out) : SNRQ_OK;
}

void snrq_rows_copy_rounding(const snrq_rows *source, int64_t from, int64_t to, snrq_rows *out)
{
    size_t n = (size_t)source->columns, g = (size_t)source->groups->count, f = (size_t)from,
           t = (size_t)to;
    memmove(out->scales + t * g, source->scales + f * g, g * sizeof *out->scales);
    memmove(out->zeros + t * g, source->zeros + f * g, g);
    if (source->minima != NULL)
        memmove(out->minima + t * g, source->minima + f * g, g * sizeof *out->minima);
    memmove(out->codes + t * n, source->codes + f * n, n);
    out->costs[t] = source->costs[f];
}

static void copy_target(const snrq_rows *source, int64_t from, int64_t to, snrq_rows *out)
{
    int64_t n = source->columns;
    memmove(out->target + to * n, source->target + from * n, (size_t)n * sizeof *out->target);
}

/* Row `from` moves up to `to`, with its gradient unless that is NULL. */
static void move_row(snrq_trial *trial, int64_t from, int64_t to, snrq_gradient *gradient)
{
    int64_t n = trial->rows.columns, panels = snrq_gram_panels(n);
    trial->origin[to] = trial->origin[from];
    snrq_rows_copy_rounding(&trial->rows, from, to, &trial->rows);
    copy_target(&trial->rows, from, to, &trial->rows);
    if (gradient == NULL) return;
    memmove(gradient->g + to * n, gradient->g + from * n, (size_t)n * sizeof *gradient->g);
    memmove(gradient->before + to * n, gradient->before + from * n, (size_t)n);
    memmove(gradient->changes + to * panels, gradient->changes + from * panels, (size_t)panels);
}

/* The first `count` rows are left: the rest of the last tile is padding. */
static void cut(snrq_trial *trial, int64_t count, snrq_gradient *gradient)
{
    snrq_rows *r = &trial->rows;
    int64_t n = r->columns, groups = r->groups->count, panels = snrq_gram_panels(n);
    trial->count = count;
    r->rows = (count + SNRQ_TILE_ROWS - 1) / SNRQ_TILE_ROWS * SNRQ_TILE_ROWS;
    size_t cells = (size_t)((r->rows - count) * n), grids = (size_t)((r->rows - count) * groups);
    memset(r->target + count * n, 0, cells * sizeof *r->target);
    memset(r->codes + count * n, 0, cells);
    memset(r->zeros + count * groups, 0, grids);
    if (r->minima != NULL) memset(r->minima + count * groups, 0, grids * sizeof *r->minima);
    for (int64_t i = count * groups; i < r->rows * groups; i++) r->scales[i] = 1.0f;
    if (gradient == NULL) return;
    memset(gradient->g + count * n, 0, cells * sizeof *gradient->g);
    memset(gradient->before + count * n, 0, cells);
    memset(gradient->changes + count * panels, 0, (size_t)((r->rows - count) * panels));
}

snrq_status snrq_trial_create(const snrq_rows *rows, snrq_trial *out)
{
    memset(out, 0, sizeof *out);
    SNRQ_TRY(snrq_rows_create_like(rows, rows->rows, &out->rows));
    SNRQ_TRY(snrq_allocate((size_t)rows->rows, sizeof *out->origin, "rows", &out->origin));
    out->count = rows->rows;
    for (int64_t r = 0; r < rows->rows; r++) {
        out->origin[r] = r;
        snrq_rows_copy_rounding(rows, r, r, &out->rows);
        copy_target(rows, r, r, &out->rows);
    }
    return SNRQ_OK;
}

void snrq_trial_free(snrq_trial *trial)
{
    snrq_rows_free(&trial->rows);
    free(trial->origin);
    memset(trial, 0, sizeof *trial);
}

void snrq_trial_rescale(snrq_trial *trial, bool minima, const float *numbers)
{
    snrq_rows *r = &trial->rows;
    size_t groups = (size_t)r->groups->count, bytes = groups * sizeof *numbers;
    float *now = minima ? r->minima : r->scales;
    int64_t left = 0;
    for (int64_t i = 0; i < trial->count; i++) {
        const float *new = numbers + (size_t)i *groups;
        if (memcmp(now + (size_t)i * groups, new, bytes) == 0) continue;
        move_row(trial, i, left, NULL);
        if (minima)
            snrq_rows_set_minima(r, left, new);
        else
            memcpy(now + (size_t)left * groups, new, bytes);
        left++;
    }
    cut(trial, left, NULL);
}

int64_t snrq_trial_keep_better(snrq_trial *trial, snrq_gradient *gradient, snrq_rows *rows)
{
    int64_t left = 0;
    for (int64_t i = 0; i < trial->count; i++) {
        if (!(trial->rows.costs[i] < rows->costs[trial->origin[i]])) continue;
        snrq_rows_copy_rounding(&trial->rows, i, trial->origin[i], rows);
        if (rows->minima != NULL) copy_target(&trial->rows, i, trial->origin[i], rows);
        move_row(trial, i, left++, gradient);
    }
    cut(trial, left, gradient);
    return left;
}
