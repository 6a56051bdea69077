/* Coordinate descent after the search; see refine.h. */
#include "pipeline/rounding/refine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/lanes.h"

enum {
    ROWS = SNRQ_TILE_ROWS,
    WIDTH = SNRQ_GRAM_PANEL,
    VECTORS = WIDTH / SNRQ_LANES,
    STRIP = SNRQ_PRODUCT_COLUMNS, /* rows of E side by side */
    DEPTH = SNRQ_PRODUCT_DEPTH
};
_Static_assert(ROWS % STRIP == 0, "a tile is whole strips of errors");
_Static_assert(WIDTH % SNRQ_LANES == 0, "a panel is whole vectors");
_Static_assert(WIDTH <= UINT8_MAX, "a byte counts the changes in a panel");

/* What a pass works on. */
typedef struct refinement {
    snrq_rows *rows;
    snrq_gradient *gradient;
    float *errors; /* [rows / STRIP][n][STRIP] E, until G is formed; then NULL */
    snrq_gram_panel panel;
    float diagonal[WIDTH]; /* of H, at the columns of the panel */
} refinement;

void snrq_gradient_free(snrq_gradient *g)
{
    free(g->g);
    free(g->before);
    free(g->changes);
    memset(g, 0, sizeof *g);
}

/* One strip of E. */
static void pack_errors(const snrq_rows *r, int64_t row, float *out)
{
    int64_t n = r->columns;
    float piece[STRIP * DEPTH];
    for (int64_t begin = 0; begin < n; begin += DEPTH) {
        int64_t depth = n - begin < DEPTH ? n - begin : DEPTH;
        for (int64_t i = 0; i < STRIP; i++)
            for (int64_t k = 0; k < depth; k++)
                piece[i * DEPTH + k] =
                    r->target[(row + i) * n + begin + k] - snrq_rows_value(r, row + i, begin + k);
        snrq_product_pack(piece, DEPTH, STRIP, depth, STRIP, out + begin * STRIP);
    }
}

/* The panel of G of a tile from scratch. */
static void form_tile(const refinement *s, int64_t row)
{
    int64_t n = s->rows->columns;
    float c[WIDTH * ROWS];
    for (int64_t begin = 0; begin < n; begin += DEPTH) {
        snrq_product product = {.rows = WIDTH,
                                .columns = ROWS,
                                .depth = n - begin < DEPTH ? n - begin : DEPTH,
                                .a = s->panel.strips + begin * SNRQ_PRODUCT_ROWS,
                                .a_stride = n * SNRQ_PRODUCT_ROWS,
                                .a_row = 1,
                                .a_step = SNRQ_PRODUCT_ROWS,
                                .b = s->errors + row * n + begin * STRIP,
                                .b_stride = n * STRIP,
                                .add = begin > 0,
                                .c = c,
                                .ldc = ROWS};
        snrq_product_run(&product);
    }
    for (int64_t i = 0; i < ROWS; i++)
        for (int64_t k = 0; k < s->panel.width; k++)
            s->gradient->g[(row + i) * n + s->panel.begin + k] = c[k * ROWS + i];
}

static void subtract(float change, const float *h, snrq_lanes *g)
{
    snrq_lanes factor = snrq_lanes_all(-change);
#pragma GCC unroll 12
    for (int v = 0; v < VECTORS; v++)
        g[v] = snrq_lanes_madd(factor, snrq_lanes_load(h + v * SNRQ_LANES), g[v]);
}

/* Whether a word of codes differs. */
static bool differs(const uint8_t *a, const uint8_t *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x != y;
}

/* From a code to another, in scales. */
static float steps_between(const snrq_rows *r, int from, int to)
{
    return r->levels != NULL ? r->levels[to] - r->levels[from] : (float)(to - from);
}

/* What the codes [begin, end) have changed, times their rows of H. By words at first: nearly all
 * are the same. */
static void update_panel(const snrq_rows *r, const float *scales, const uint8_t *codes,
                         const uint8_t *before, int64_t begin, int64_t end,
                         const snrq_gram_panel *panel, const int32_t *place, snrq_lanes *sum)
{
    enum { WORD = sizeof(uint64_t) };
    for (int64_t k = begin; k < end; k++) {
        while (k + WORD <= end && !differs(codes + k, before + k)) k += WORD;
        if (k < end && codes[k] != before[k])
            subtract(scales[r->groups->of_position[k]] * steps_between(r, before[k], codes[k]),
                     panel->rows + (place == NULL ? k : place[k]) * WIDTH, sum);
    }
}

void snrq_gradient_update(const snrq_gradient *gradient, const snrq_rows *r, int64_t row,
                          int64_t from, int64_t to, const snrq_gram_panel *panel,
                          const int32_t *place, float *g)
{
    int64_t n = r->columns, panels = snrq_gram_panels(n);
    const uint8_t *changes = gradient->changes + row * panels;
    const float *scales = r->scales + row * r->groups->count;
    snrq_lanes sum[VECTORS];
    memcpy(sum, g, sizeof sum);
    for (int64_t q = from / WIDTH, begin; (begin = q * WIDTH) < to; q++)
        if (changes[q] != 0)
            update_panel(r, scales, r->codes + row * n, gradient->before + row * n, begin,
                         begin + WIDTH < to ? begin + WIDTH : to, panel, place, sum);
    memcpy(g, sum, sizeof sum);
}

/* Column c of the panel of one row; g [WIDTH] is G there. Returns whether its code changed. */
static bool step(const refinement *s, int64_t row, int64_t c, float *g)
{
    const snrq_rows *r = s->rows;
    int64_t k = s->panel.begin + c, group = row * r->groups->count + r->groups->of_position[k];
    const float *h = s->panel.rows + k * WIDTH;
    uint8_t *codes = r->codes + row * r->columns;
    float scale = r->scales[group], value = snrq_rows_value(r, row, k);
    int code = snrq_rows_nearest(r, value + g[c] / h[c], scale, r->zeros[group]);
    float change = scale * steps_between(r, codes[k], code);
    /* tr((Q - R) H (Q - R)^T) changes by -2 change G_j + change^2 H_jj. */
    double gain = (double)change * ((double)change * (double)h[c] - 2.0 * (double)g[c]);
    if (code == codes[k] || !(gain < 0.0)) return false;
    for (int64_t i = 0; i < WIDTH; i++) g[i] -= change * h[i];
    codes[k] = (uint8_t)code;
    if (s->errors != NULL)
        s->errors[row / STRIP * STRIP * r->columns + k * STRIP + row % STRIP] -= change;
    r->costs[row] += gain;
    return true;
}

/* The smallest distance of two levels, in scales. */
static float smallest_step(const snrq_rows *r)
{
    float least = INFINITY;
    if (r->levels == NULL) return 1.0f;
    for (int k = 0; k < r->top; k++) least = fminf(least, r->levels[k + 1] - r->levels[k]);
    return least;
}

/* One panel of one row. Returns how many codes changed. A code can only change where the best step
 * is half of a scale; whether it may be is looked at for a vector of columns at a time. Its
 * margin is above what rounding does to the best value, which is at most 2^8 scales. */
static int64_t descend(const refinement *s, int64_t row, float *g)
{
    const snrq_rows *r = s->rows;
    const int32_t *group = r->groups->of_position + s->panel.begin;
    const float *scales = r->scales + row * r->groups->count;
    int64_t changed = 0, width = s->panel.width;
    const float least = 0.499f * smallest_step(r);
    for (int64_t begin = (width - 1) / SNRQ_LANES * SNRQ_LANES; begin >= 0; begin -= SNRQ_LANES) {
        int64_t end = begin + SNRQ_LANES < width ? begin + SNRQ_LANES : width;
        int any = 0;
#pragma omp simd reduction(| : any)
        for (int64_t c = begin; c < end; c++)
            any |= fabsf(g[c]) >= least * fabsf(scales[group[c]]) * s->diagonal[c];
        for (int64_t c = end - 1; any != 0 && c >= begin; c--)
            if (fabsf(g[c]) >= least * fabsf(scales[group[c]]) * s->diagonal[c])
                changed += step(s, row, c, g);
    }
    return changed;
}

/* One panel of a tile. */
static int64_t refine_tile(const refinement *s, bool descends, int64_t row)
{
    const snrq_rows *r = s->rows;
    const snrq_gram_panel *p = &s->panel;
    int64_t changed = 0;
    if (s->errors != NULL) form_tile(s, row);
    for (int64_t i = row; descends && i < row + ROWS; i++) {
        int64_t at = i * r->columns + p->begin;
        size_t width = (size_t)p->width;
        float g[WIDTH] = {0};
        memcpy(g, s->gradient->g + at, width * sizeof *g);
        if (s->errors == NULL) {
            snrq_gradient_update(s->gradient, r, i, 0, p->begin, p, NULL, g);
            snrq_gradient_update(s->gradient, r, i, p->begin + WIDTH, r->columns, p, NULL, g);
        }
        memcpy(s->gradient->before + at, r->codes + at, width);
        int64_t changes = descend(s, i, g);
        s->gradient->changes[i * snrq_gram_panels(r->columns) + p->begin / WIDTH] =
            (uint8_t)changes;
        changed += changes;
        memcpy(s->gradient->g + at, g, width * sizeof *g);
    }
    return changed;
}

/* From last to first column. *changed: codes of all ranks. */
static snrq_status run_pass(const snrq_matrix *h, bool descends, refinement *s, int64_t *changed)
{
    int64_t count = 0;
    for (int64_t end = h->rows; end > 0; end = s->panel.begin) {
        SNRQ_TRY(snrq_gram_panel_load(&s->panel, snrq_gram_panel_begin(end), NULL, NULL));
        for (int64_t c = 0; c < s->panel.width; c++)
            s->diagonal[c] = s->panel.rows[(s->panel.begin + c) * WIDTH + c];
#pragma omp parallel for schedule(dynamic) reduction(+ : count)
        for (int64_t row = 0; row < s->rows->rows; row += ROWS) {
            count += refine_tile(s, descends, row);
            snrq_gram_panel_progress(&s->panel);
        }
    }
    *changed = count;
    return snrq_sum_int64(h->grid->context, changed, 1);
}

static snrq_status prepare(const snrq_matrix *h, refinement *s)
{
    const snrq_rows *r = s->rows;
    size_t cells = (size_t)(r->rows * r->columns);
    SNRQ_TRY(snrq_gram_panel_create(h, &s->panel));
    SNRQ_TRY(snrq_allocate_scratch(cells, sizeof(float), "gradient", &s->gradient->g));
    SNRQ_TRY(snrq_allocate_scratch(cells, 1, "codes", &s->gradient->before));
    SNRQ_TRY(snrq_allocate((size_t)(r->rows * snrq_gram_panels(r->columns)), 1, "changes",
                           &s->gradient->changes));
    SNRQ_TRY(snrq_allocate_scratch(cells, sizeof(float), "rounding errors", &s->errors));
    memcpy(s->gradient->before, r->codes, cells);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < r->rows; row += STRIP)
        pack_errors(r, row, s->errors + row * r->columns);
    return SNRQ_OK;
}

snrq_status snrq_refine(const snrq_matrix *h, int64_t passes, snrq_rows *rows,
                        snrq_gradient *gradient)
{
    snrq_gradient own = {0};
    refinement s = {.rows = rows, .gradient = gradient != NULL ? gradient : &own};
    if (passes == 0 && gradient == NULL) return SNRQ_OK;
    memset(s.gradient, 0, sizeof *s.gradient);
    snrq_status status = snrq_agree(h->grid->context, prepare(h, &s));
    /* Without a pass, G is formed all the same. */
    for (int64_t pass = 0, changed = 1;
         status == SNRQ_OK && pass < (passes > 0 ? passes : 1) && changed > 0; pass++) {
        status = run_pass(h, passes > 0, &s, &changed);
        free(s.errors);
        s.errors = NULL;
    }
    free(s.errors);
    snrq_gram_panel_free(&s.panel);
    if (status != SNRQ_OK) snrq_gradient_free(s.gradient);
    snrq_gradient_free(&own);
    return status;
}
