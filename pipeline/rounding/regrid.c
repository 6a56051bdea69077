/* Least-squares scales; see regrid.h for the symbols. */
#include "pipeline/rounding/regrid.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/lanes.h"
#include "pipeline/rounding/scale_system.h"

enum {
    ROWS = SNRQ_TILE_ROWS,
    WIDTH = SNRQ_GRAM_PANEL,
    STRIP = SNRQ_PRODUCT_COLUMNS, /* rows of t side by side */
    DEPTH = SNRQ_PRODUCT_DEPTH,
    BATCHES = ROWS / SNRQ_SYSTEM_ROWS
};
_Static_assert(ROWS % SNRQ_SYSTEM_ROWS == 0, "a tile is whole batches of systems");

/* What one thread needs for a tile in a panel. */
typedef struct tile_scratch {
    float t[WIDTH * ROWS];     /* [WIDTH][ROWS] code - zero in the panel's columns */
    float z[WIDTH * ROWS];     /* the same shape: Z_h there */
    float group[ROWS * DEPTH]; /* [ROWS / STRIP][DEPTH][STRIP] t_h, or a part of it */
} tile_scratch;

/* The systems of the rows [begin, end) of this rank, and the panel of H that is added to them: rows
 * group by group, columns from the last group to the first. */
typedef struct systems {
    const snrq_rule *rule;
    snrq_regrid_kind kind;
    const snrq_rows *rows;
    const snrq_gradient *gradient;
    int64_t begin, end;
    int32_t *place;        /* [n] of a column of the layer among the rows of the panel */
    int32_t column[WIDTH]; /* column of the layer at each column of the panel */
    snrq_gram_panel panel;
    uint8_t *codes;        /* [tiles][n][ROWS] columns group by group */
    uint8_t *zeros;        /* [tiles][groups][ROWS] */
    float *a;              /* [tiles][snrq_system_cells()][ROWS] */
    double *b;             /* [tiles][groups][ROWS] */
    tile_scratch *scratch; /* [threads] */
    void *solved;          /* [threads][cells + groups] snrq_system_lanes */
    double *weights;       /* [threads][groups] */
} systems;

static int64_t group_of(const systems *s, int64_t c)
{
    return s->rows->groups->of_position[s->column[c]];
}

/* Brings the panel that begins at column `begin` to this rank. */
static snrq_status load_panel(int64_t begin, systems *s)
{
    const snrq_groups *groups = s->rows->groups;
    int64_t n = s->panel.n, width = n - begin < WIDTH ? n - begin : WIDTH, count = 0;
    int32_t column_place[WIDTH];
    for (int64_t c = 0; c < width; c++) { /* sorted by insertion: groups of neighbours are alike */
        int64_t at = count++;
        for (; at > 0 && group_of(s, at - 1) < groups->of_position[begin + c]; at--)
            s->column[at] = s->column[at - 1];
        s->column[at] = (int32_t)(begin + c);
    }
    for (int64_t c = 0; c < width; c++) column_place[s->column[c] - begin] = (int32_t)c;
    return snrq_gram_panel_load(&s->panel, begin, s->place, column_place);
}

/* Codes and zeros of a tile, its rows side by side. */
static void turn_tile(const systems *s, int64_t row)
{
    const snrq_rows *r = s->rows;
    int64_t n = r->columns, groups = r->groups->count;
    uint8_t *codes = s->codes + (row - s->begin) * n, *zeros = s->zeros + (row - s->begin) * groups;
    for (int64_t i = 0; i < n; i++)
        for (int64_t l = 0; l < ROWS; l++)
            codes[i * ROWS + l] = r->codes[(row + l) * n + r->groups->members[i]];
    for (int64_t g = 0; g < groups; g++)
        for (int64_t l = 0; l < ROWS; l++) zeros[g * ROWS + l] = r->zeros[(row + l) * groups + g];
    if (s->kind == SNRQ_REGRID_SCALES) return;
    memset(codes, 0, (size_t)(n * ROWS)); /* t = -1 */
    memset(zeros, 1, (size_t)(groups * ROWS));
}

/* t [count][STRIP] of columns that follow each other in codes, of one group. */
static void take_steps(const float *levels, int64_t count, const uint8_t *restrict codes,
                       const uint8_t *restrict zeros, float *restrict t)
{
    if (levels != NULL) {
        for (int64_t i = 0; i < count; i++)
            for (int64_t l = 0; l < STRIP; l++) t[i * STRIP + l] = levels[codes[i * ROWS + l]];
        return;
    }
    float zero[STRIP];
    for (int64_t l = 0; l < STRIP; l++) zero[l] = zeros[l];
    for (int64_t i = 0; i < count; i++)
        for (int64_t l = 0; l < STRIP; l++) t[i * STRIP + l] = (float)codes[i * ROWS + l] - zero[l];
}

/* The columns of the panel: t, and their share of b. */
static void begin_tile(const systems *s, int64_t row, tile_scratch *scratch)
{
    const snrq_rows *r = s->rows;
    const snrq_gram_panel *p = &s->panel;
    int64_t n = r->columns, groups = r->groups->count;
    double *b = s->b + (row - s->begin) * groups;
    for (int64_t i = 0; i < ROWS; i++) {
        float g[WIDTH] = {0};
        for (int64_t c = 0; c < p->width; c++) g[c] = s->gradient->g[(row + i) * n + s->column[c]];
        snrq_gradient_update(s->gradient, r, row + i, 0, p->begin, p, s->place, g);
        for (int64_t c = 0; c < p->width; c++) {
            int64_t k = s->column[c], h = group_of(s, c);
            float t = s->kind == SNRQ_REGRID_MINIMA
                          ? -1.0f
                          : snrq_rows_level(r, r->zeros[(row + i) * groups + h],
                                            r->codes[(row + i) * n + k]);
            scratch->t[c * ROWS + i] = t;
            b[h * ROWS + i] += (double)t * (double)g[c];
        }
    }
}

/* Z_h in the first `columns` columns of the panel. */
static void multiply_group(const systems *s, int64_t row, int64_t h, int64_t columns,
                           tile_scratch *scratch)
{
    const snrq_rows *r = s->rows;
    int64_t n = r->columns, first = r->groups->first[h], end = r->groups->first[h + 1];
    const uint8_t *codes = s->codes + (row - s->begin) * n;
    const uint8_t *zeros = s->zeros + (row - s->begin) * r->groups->count + h * ROWS;
    for (int64_t begin = first; begin < end; begin += DEPTH) {
        int64_t depth = end - begin < DEPTH ? end - begin : DEPTH;
        for (int64_t l = 0; l < ROWS; l += STRIP)
            take_steps(r->levels, depth, codes + begin * ROWS + l, zeros + l,
                       scratch->group + l * DEPTH);
        snrq_product product = {.rows = columns,
                                .columns = ROWS,
                                .depth = depth,
                                .a = s->panel.strips + begin * SNRQ_PRODUCT_ROWS,
                                .a_stride = n * SNRQ_PRODUCT_ROWS,
                                .a_row = 1,
                                .a_step = SNRQ_PRODUCT_ROWS,
                                .b = scratch->group,
                                .b_stride = STRIP * DEPTH,
                                .add = begin > first,
                                .c = scratch->z,
                                .ldc = ROWS};
        snrq_product_run(&product);
    }
}

/* a [ROWS] += sum over columns of t z, [count][ROWS] each */
static void add_products(int64_t count, const float *t, const float *z, float *a)
{
    for (int64_t l = 0; l < ROWS; l += SNRQ_LANES) {
        snrq_lanes sum = snrq_lanes_load(a + l);
        for (int64_t c = 0; c < count; c++)
            sum = snrq_lanes_madd(snrq_lanes_load(t + c * ROWS + l),
                                  snrq_lanes_load(z + c * ROWS + l), sum);
        snrq_lanes_store(a + l, sum);
    }
}

/* Adds a panel's share to the systems of a tile. */
static void add_tile(const systems *s, int64_t row, tile_scratch *scratch)
{
    int64_t groups = s->rows->groups->count, width = s->panel.width;
    float *a = s->a + (row - s->begin) * snrq_system_cells(groups);
    begin_tile(s, row, scratch);
    for (int64_t h = 0, columns = width; h < groups; h++) {
        while (columns > 0 && group_of(s, columns - 1) < h) columns--;
        multiply_group(s, row, h, snrq_product_padded(columns, SNRQ_PRODUCT_ROWS), scratch);
        for (int64_t c = 0, end; c < columns; c = end) {
            int64_t g = group_of(s, c);
            for (end = c + 1; end < columns && group_of(s, end) == g;) end++;
            add_products(end - c, scratch->t + c * ROWS, scratch->z + c * ROWS,
                         a + snrq_system_at(g, h) * ROWS);
        }
    }
}

/* The numbers of a row, as they are and as they would be: are they of the same signs, and rounded
 * to what can be stored? weights: what the square of a change of each costs. */
static bool store_numbers(const systems *s, const double *weights, const float *old, float *new)
{
    const snrq_weight_format *f = s->rule->format;
    const bool scales = s->kind == SNRQ_REGRID_SCALES;
    const int64_t groups = s->rows->groups->count;
    bool good = true;
    for (int64_t g = 0; g < groups; g++) {
        if (f == NULL) new[g] = snrq_round_to(s->rule->scale_type, new[g]);
        if (!scales && f->minimum.shared && new[g] < 0.0f) new[g] = 0.0f;
        good = good && isfinite(new[g]) &&
               (!scales || (new[g] < 0.0f ? old[g] < 0.0f : new[g] > 0.0f && old[g] > 0.0f));
    }
    if (f == NULL || !good) return good;
    return snrq_format_store(f, scales ? &f->scale : &f->minimum, s->rows->tensor_scale, groups,
                             weights, scales, new);
}

/* Rows of a batch, from lane `lane` of their tile on: numbers <- those of now and the step. weights
 * [groups] is scratch. */
static void solve_batch(const systems *s, int64_t row, int64_t lane, snrq_system_lanes *a,
                        double *weights, float *numbers)
{
    const float *now = s->kind == SNRQ_REGRID_SCALES ? s->rows->scales : s->rows->minima;
    int64_t groups = s->rows->groups->count, cells = snrq_system_cells(groups);
    const float *from = s->a + (row - s->begin) * cells + lane;
    const double *right = s->b + (row - s->begin) * groups + lane;
    snrq_system_lanes *b = a + cells;
    for (int64_t i = 0; i < cells; i++)
        for (int l = 0; l < SNRQ_SYSTEM_ROWS; l++) a[i][l] = (double)from[i * ROWS + l];
    for (int64_t g = 0; g < groups; g++) memcpy(&b[g], right + g * ROWS, sizeof b[g]);
    for (int64_t g = 0; g < groups; g++)
        for (int l = 0; l < SNRQ_SYSTEM_ROWS; l++)
            if (a[snrq_system_at(g, g)][l] == 0.0) { /* no value but zero: any scale will do */
                a[snrq_system_at(g, g)][l] = 1.0;
                b[g][l] = 0.0;
            }
    unsigned failed = snrq_system_solve(groups, a, b);
    for (int l = 0; l < SNRQ_SYSTEM_ROWS; l++) {
        const float *old = now + (row + lane + l) * groups;
        float *new = numbers + (row + lane + l) * groups;
        for (int64_t g = 0; g < groups; g++) {
            new[g] = (float)((double)old[g] + b[g][l]);
            weights[g] = (double)from[snrq_system_at(g, g) * ROWS + l];
        }
        if ((failed >> l & 1u) != 0 || !store_numbers(s, weights, old, new))
            memcpy(new, old, (size_t)groups * sizeof *new);
    }
}

/* Rows [begin, end), which the systems have room for. */
static snrq_status regrid_rows(systems *s, float *numbers)
{
    int64_t groups = s->rows->groups->count, cells = snrq_system_cells(groups);
    memset(s->a, 0, (size_t)((s->end - s->begin) * cells) * sizeof *s->a);
    memset(s->b, 0, (size_t)((s->end - s->begin) * groups) * sizeof *s->b);
#pragma omp parallel for schedule(static)
    for (int64_t row = s->begin; row < s->end; row += ROWS) turn_tile(s, row);
    for (int64_t end = s->panel.n; end > 0; end = s->panel.begin) {
        SNRQ_TRY(load_panel(snrq_gram_panel_begin(end), s));
#pragma omp parallel for schedule(dynamic)
        for (int64_t row = s->begin; row < s->end; row += ROWS) {
            add_tile(s, row, s->scratch + omp_get_thread_num());
            snrq_gram_panel_progress(&s->panel);
        }
    }
#pragma omp parallel for schedule(static)
    for (int64_t batch = s->begin / SNRQ_SYSTEM_ROWS; batch < s->end / SNRQ_SYSTEM_ROWS; batch++) {
        snrq_system_lanes *a = s->solved;
        solve_batch(s, batch / BATCHES * ROWS, batch % BATCHES * SNRQ_SYSTEM_ROWS,
                    a + omp_get_thread_num() * (cells + groups),
                    s->weights + omp_get_thread_num() * groups, numbers);
    }
    return SNRQ_OK;
}

static snrq_status allocate(const snrq_matrix *h, int64_t rows, systems *s)
{
    const snrq_groups *groups = s->rows->groups;
    size_t m = (size_t)rows, n = (size_t)groups->columns, g = (size_t)groups->count;
    size_t cells = (size_t)snrq_system_cells(groups->count),
           threads = (size_t)omp_get_max_threads();
    SNRQ_TRY(snrq_gram_panel_create(h, &s->panel));
    SNRQ_TRY(snrq_allocate(n, sizeof *s->place, "scale systems", &s->place));
    SNRQ_TRY(snrq_allocate_scratch(m * n, 1, "scale systems", &s->codes));
    SNRQ_TRY(snrq_allocate_scratch(m * g, 1, "scale systems", &s->zeros));
    SNRQ_TRY(snrq_allocate_scratch(m * cells, sizeof *s->a, "scale systems", &s->a));
    SNRQ_TRY(snrq_allocate_scratch(m * g, sizeof *s->b, "scale systems", &s->b));
    SNRQ_TRY(snrq_allocate_scratch(threads, sizeof *s->scratch, "scale systems", &s->scratch));
    SNRQ_TRY(snrq_allocate_scratch(threads * g, sizeof *s->weights, "scale systems", &s->weights));
    return snrq_allocate_scratch(threads * (cells + g), sizeof(snrq_system_lanes), "scale systems",
                                 &s->solved);
}

static void release(systems *s)
{
    snrq_gram_panel_free(&s->panel);
    free(s->place);
    free(s->codes);
    free(s->zeros);
    free(s->a);
    free(s->b);
    free(s->scratch);
    free(s->solved);
    free(s->weights);
}

snrq_status snrq_regrid(const snrq_matrix *h, const snrq_rule *rule, snrq_regrid_kind kind,
                        const snrq_rows *rows, const snrq_gradient *gradient, float *numbers)
{
    int64_t parts = snrq_regrid_parts(rows->columns, rows->groups->count);
    int64_t tiles = rows->rows / ROWS, most = (tiles + parts - 1) / parts;
    systems s = {.rule = rule, .kind = kind, .rows = rows, .gradient = gradient};
    snrq_status status = snrq_agree(h->grid->context, allocate(h, most * ROWS, &s));
    for (int64_t i = 0; status == SNRQ_OK && i < rows->columns; i++)
        s.place[rows->groups->members[i]] = (int32_t)i;
    for (int64_t part = 0; status == SNRQ_OK && part < parts; part++) {
        s.begin = tiles * part / parts * ROWS;
        s.end = tiles * (part + 1) / parts * ROWS;
        status = regrid_rows(&s, numbers);
    }
    release(&s);
    return status;
}
