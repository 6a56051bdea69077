/* Twin of the search: one row, plain fp64, every candidate looked at; see search.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/rounding/search.h"

/* A partial rounding: codes [columns] and errors R - Q [columns] of the decided columns. */
typedef struct path {
    double cost;
    int side; /* of y_j: 0 the next lower level, 1 the next higher one, 2 a level further away */
    int parent, code;
    uint8_t *codes;
    double *errors;
} path;

static snrq_status create_paths(int64_t count, int64_t columns, path **out)
{
    *out = NULL;
    SNRQ_TRY(snrq_allocate((size_t)count, sizeof **out, "reference paths", out));
    for (int64_t i = 0; i < count; i++) {
        SNRQ_TRY(snrq_allocate((size_t)columns, 1, "reference codes", &(*out)[i].codes));
        SNRQ_TRY(
            snrq_allocate((size_t)columns, sizeof(double), "reference errors", &(*out)[i].errors));
    }
    return SNRQ_OK;
}

static void free_paths(int64_t count, path *paths)
{
    for (int64_t i = 0; i < count && paths != NULL; i++) {
        free(paths[i].codes);
        free(paths[i].errors);
    }
    free(paths);
}

static double value_to_round(const double *l, const snrq_rows *r, int64_t row, int64_t j,
                             const path *p)
{
    int64_t n = r->columns;
    double y = (double)r->target[row * n + j];
    for (int64_t i = j + 1; i < n; i++) y += p->errors[i] * l[j * n + i] / l[j * n + j];
    return y;
}

/* Ties: of extensions of equal cost, the lower level next to y_j goes before the higher one, on the
 * same side the parent that stands first in the beam decides, and a level further away replaces
 * nothing of equal cost. */
static int cheaper(const void *a, const void *b)
{
    const path *x = a, *y = b;
    if (x->cost != y->cost) return x->cost < y->cost ? -1 : 1;
    if (x->side != y->side) return x->side < y->side ? -1 : 1;
    if (x->parent != y->parent) return x->parent < y->parent ? -1 : 1;
    return x->code < y->code ? -1 : x->code > y->code;
}

static double grid_value(const snrq_rows *r, int64_t row, int64_t j, int code)
{
    int64_t g = row * r->groups->count + r->groups->of_position[j];
    if (r->levels != NULL) return (double)(r->scales[g] * r->levels[code]);
    return (double)(r->scales[g] * (float)(code - r->zeros[g]));
}

/* The nearest code of a code book, the lower one of two. */
static int nearest_in_book(const snrq_rows *r, double steps)
{
    int best = 0;
    for (int code = 1; code <= r->top; code++)
        if (fabs(steps - (double)r->levels[code]) < fabs(steps - (double)r->levels[best]))
            best = code;
    return best;
}

/* Where the level of a code lies, seen from y; at the ends of the grid the two last levels are
 * those next to y. */
static int side_of(const snrq_rows *r, int64_t row, int64_t j, int code, double y)
{
    int lower = 0, above = r->top; /* levels of one order: halving finds the one next to y */
    bool turned = grid_value(r, row, j, 1) < grid_value(r, row, j, 0);
    while (above - lower > 1) {
        int middle = (lower + above) / 2;
        double value = grid_value(r, row, j, middle);
        if (turned ? value >= y : value <= y)
            lower = middle;
        else
            above = middle;
    }
    return code == lower ? 0 : code == lower + 1 ? 1 : 2;
}

/* Extends every path of `now` at column j by all grid values, keeps the `beam` cheapest in `next`.
 */
static snrq_status extend(const double *l, const snrq_rows *r, int64_t row, int64_t j, int beam,
                          const path *now, int *count, path *next)
{
    int levels = r->top + 1;
    int64_t n = r->columns;
    path *all = NULL;
    SNRQ_TRY(snrq_allocate((size_t)(*count * levels), sizeof *all, "reference candidates", &all));
    for (int k = 0; k < *count; k++) {
        double y = value_to_round(l, r, row, j, &now[k]);
        for (int code = 0; code < levels; code++) {
            double value = grid_value(r, row, j, code), miss = l[j * n + j] * (y - value);
            all[k * levels + code] = (path){.cost = now[k].cost + miss * miss,
                                            .side = side_of(r, row, j, code, y),
                                            .parent = k,
                                            .code = code};
        }
    }
    qsort(all, (size_t)(*count * levels), sizeof *all, cheaper);
    *count = *count * levels < beam ? *count * levels : beam;
    for (int k = 0; k < *count; k++) {
        memcpy(next[k].codes, now[all[k].parent].codes, (size_t)n);
        memcpy(next[k].errors, now[all[k].parent].errors, (size_t)n * sizeof(double));
        next[k].cost = all[k].cost;
        next[k].codes[j] = (uint8_t)all[k].code;
        next[k].errors[j] = (double)r->target[row * n + j] - grid_value(r, row, j, all[k].code);
    }
    free(all);
    return SNRQ_OK;
}

static void greedy(const double *l, snrq_search_kind kind, const snrq_rows *r, int64_t row, path *p)
{
    int64_t n = r->columns;
    p->cost = 0.0;
    for (int64_t j = n - 1; j >= 0; j--) {
        int64_t g = row * r->groups->count + r->groups->of_position[j];
        double y = value_to_round(l, r, row, j, p);
        float wanted = kind == SNRQ_ROUND_NEAREST ? r->target[row * n + j] : (float)y;
        int code = r->levels != NULL ? nearest_in_book(r, (double)(wanted / r->scales[g]))
                                     : snrq_nearest_code(wanted, r->scales[g], r->zeros[g], r->top);
        double miss = l[j * n + j] * (y - grid_value(r, row, j, code));
        p->cost += miss * miss;
        p->codes[j] = (uint8_t)code;
        p->errors[j] = (double)r->target[row * n + j] - grid_value(r, row, j, code);
    }
}

snrq_status snrq_search_reference(const double *l, snrq_search_kind kind, int beam,
                                  const snrq_rows *rows, int64_t row, uint8_t *codes, double *cost)
{
    path *now = NULL, *next = NULL;
    int count = 1;
    snrq_status status = create_paths(beam, rows->columns, &now);
    if (status == SNRQ_OK) status = create_paths(beam, rows->columns, &next);
    bool search = beam > 1 && kind == SNRQ_ROUND_FEEDBACK;
    if (status == SNRQ_OK && !search) greedy(l, kind, rows, row, &now[0]);
    for (int64_t j = rows->columns - 1; status == SNRQ_OK && search && j >= 0; j--) {
        status = extend(l, rows, row, j, beam, now, &count, next);
        path *swap = now;
        now = next;
        next = swap;
    }
    if (status == SNRQ_OK) {
        memcpy(codes, now[0].codes, (size_t)rows->columns);
        *cost = now[0].cost;
    }
    free_paths(beam, now);
    free_paths(beam, next);
    return status;
}
