/* One column of the beams against every extension, in fp64. */
#include "pipeline/rounding/beam_column.h"

#include <stdlib.h>

#include "tests/snrq_test.h"

enum { ROWS = SNRQ_LANES, BEAMS = SNRQ_MAX_BEAM, AT = 2, MOST_CODES = 256 };

/* What the rows decide: beams that are not there have infinite costs. */
typedef struct problem {
    int width, codes;
    snrq_beam_column column;
    float u[AT];
    float cost[ROWS][BEAMS], y[ROWS][AT + 1][BEAMS];
} problem;

/* By row and slot, in whichever order. */
typedef struct decision {
    float cost[ROWS][BEAMS], level[ROWS][BEAMS], y[ROWS][AT][BEAMS];
    int from[ROWS][BEAMS];
} decision;

static problem p, turned;
static decision decided, decided_turned;

static float uniform(void)
{
    return (float)(rand() % 4096) / 4096.0f;
}

/* Values reach beyond the grid. With `ties`, many extensions cost the same. */
static void make_problem(int width, int codes, bool ties)
{
    p = (problem){.width = width, .codes = codes, .u = {0.5f, -0.25f}};
    p.column.at = AT;
    p.column.top = (float)(codes - 1);
    for (int r = 0; r < ROWS; r++) {
        float scale = ties ? 1.0f : 0.5f + uniform(), reach = rand() % 2 == 0 ? 1.0f : 3.0f;
        int beams = rand() % 3 == 0 ? 1 + rand() % width : width;
        p.column.scale[r] = scale;
        p.column.steps[r] = 1.0f / scale;
        p.column.weight[r] = ties ? 1.0f : 0.1f + uniform();
        p.column.lowest[r] = -(float)(rand() % codes);
        p.column.target[r] = uniform();
        for (int k = 0; k < width; k++) {
            float place = 0.5f + reach * (uniform() - 0.5f);
            float value = p.column.lowest[r] + p.column.top * place;
            p.cost[r][k] = k >= beams ? INFINITY : ties ? (float)(rand() % 2) : 2.0f * uniform();
            p.y[r][AT][k] = scale * (ties ? rintf(2.0f * value) / 2.0f : value);
            for (int c = 0; c < AT; c++) p.y[r][c][k] = uniform();
        }
    }
}

static void decide(snrq_beam_shape s, const problem *in, decision *out)
{
    static snrq_lanes costs[BEAMS], y[(AT + 1) * BEAMS], level[(AT + 1) * BEAMS];
    static snrq_int_lanes from[(AT + 1) * BEAMS];
    for (int q = 0; q < s.slots; q++)
        for (int l = 0; l < SNRQ_LANES; l++) {
            int r = snrq_beam_row(s, q, l), k = snrq_beam_slot(s, q, l);
            costs[q][l] = k < s.width ? in->cost[r][k] : INFINITY;
            for (int c = 0; c <= AT; c++) y[c * s.slots + q][l] = in->y[r][c][k];
        }
    snrq_beam_decide(s, &in->column, in->u, costs, y, level, from);
    for (int q = 0; q < s.slots; q++)
        for (int l = 0; l < SNRQ_LANES; l++) {
            int r = snrq_beam_row(s, q, l), k = snrq_beam_slot(s, q, l);
            int number = from[AT * s.slots + q][l];
            int vector = q / s.vectors * s.vectors + number / SNRQ_LANES;
            out->cost[r][k] = costs[q][l];
            out->level[r][k] = level[AT * s.slots + q][l];
            out->from[r][k] = snrq_beam_slot(s, vector, number % SNRQ_LANES);
            if (snrq_beam_row(s, vector, number % SNRQ_LANES) != r) out->from[r][k] = -1;
            for (int c = 0; c < AT; c++) out->y[r][c][k] = y[c * s.slots + q][l];
        }
}

/* Shapes that the search compiles for themselves, and others. */
static void decide_any(const problem *in, decision *out)
{
    int slots = 2;
    while (slots < in->width) slots *= 2;
    if (slots == 8 && in->width == 8)
        decide(snrq_beam_shape_of(8, 8), in, out);
    else if (slots == 8)
        decide(snrq_beam_shape_of(in->width, 8), in, out);
    else
        decide(snrq_beam_shape_of(in->width, slots), in, out);
}

static double cost_of(int r, int beam, int code)
{
    double miss =
        (double)(p.y[r][AT][beam] * p.column.steps[r]) - (p.column.lowest[r] + (float)code);
    return (double)p.cost[r][beam] + (double)p.column.weight[r] * miss * miss;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Costs of all extensions of a row, sorted. */
static int list_costs(int r, double *costs)
{
    int count = 0;
    for (int k = 0; k < p.width; k++)
        for (int code = 0; code < p.codes && isfinite(p.cost[r][k]); code++)
            costs[count++] = cost_of(r, k, code);
    qsort(costs, (size_t)count, sizeof *costs, compare);
    return count;
}

/* Every beam of the row is an extension of one that was there, costs what it does, and took y. */
static int wrong_beams(int r)
{
    static bool seen[BEAMS][MOST_CODES];
    int wrong = 0;
    memset(seen, 0, sizeof seen);
    for (int k = 0; k < p.width; k++) {
        if (!isfinite(decided.cost[r][k])) continue;
        int from = decided.from[r][k], code = (int)(decided.level[r][k] - p.column.lowest[r]);
        if (from < 0 || from >= p.width || code < 0 || code >= p.codes || seen[from][code]) {
            wrong++;
            continue;
        }
        seen[from][code] = true;
        double want = cost_of(r, from, code);
        wrong += !(fabs(want - (double)decided.cost[r][k]) <= 1e-5 * want + 1e-6);
        float error = p.column.target[r] - p.column.scale[r] * decided.level[r][k];
        for (int c = 0; c < AT; c++)
            wrong += !(fabsf(decided.y[r][c][k] - (p.y[r][c][from] + error * p.u[c])) <= 1e-3f);
    }
    return wrong;
}

/* The beams of the row are as many as there can be, and the cheapest, as far as keys can tell. */
static bool are_cheapest(int r)
{
    static double all[BEAMS * MOST_CODES];
    double kept[BEAMS], tolerance = 4.0 * (p.width + SNRQ_LANES) / (1 << 23);
    int count = list_costs(r, all), finite = 0;
    for (int k = 0; k < p.width; k++)
        if (isfinite(decided.cost[r][k])) kept[finite++] = (double)decided.cost[r][k];
    if (finite != (count < p.width ? count : p.width)) return false;
    qsort(kept, (size_t)finite, sizeof *kept, compare);
    for (int k = 0; k < finite; k++)
        if (fabs(kept[k] - all[k]) > tolerance * all[k] + 1e-6) return false;
    return true;
}

static const int widths[] = {2, 3, 4, 5, 8, 13, 16, 17, 32, 33, 100, 256};
static const int numbers_of_codes[] = {4, 8, 16, 256};

static void the_cheapest_extensions_are_kept(void)
{
    srand(5);
    int wrong = 0, not_cheapest = 0;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int i = 0; i < 40; i++) {
            make_problem(widths[w], numbers_of_codes[i % 4], i % 8 == 7);
            decide_any(&p, &decided);
            for (int r = 0; r < ROWS; r++) {
                wrong += wrong_beams(r);
                not_cheapest += !are_cheapest(r);
            }
            int slots = 2;
            while (slots < p.width) slots *= 2;
            for (int k = p.width; k < slots; k++) wrong += isfinite(decided.cost[0][k]);
        }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(not_cheapest, 0);
}

/* A row decides the same, ties included, wherever it lies and whatever is beside it. */
static void rows_do_not_depend_on_each_other(void)
{
    srand(6);
    int different = 0;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int i = 0; i < 40; i++) {
            make_problem(widths[w], numbers_of_codes[i % 4], i % 2 == 0);
            turned = p;
            for (int r = 0; r < ROWS; r++) {
                int to = (r * 5 + 3) % ROWS;
                turned.column.scale[to] = p.column.scale[r];
                turned.column.steps[to] = p.column.steps[r];
                turned.column.weight[to] = p.column.weight[r];
                turned.column.lowest[to] = p.column.lowest[r];
                turned.column.target[to] = p.column.target[r];
                memcpy(turned.cost[to], p.cost[r], sizeof p.cost[r]);
                memcpy(turned.y[to], p.y[r], sizeof p.y[r]);
            }
            decide_any(&p, &decided);
            decide_any(&turned, &decided_turned);
            for (int r = 0; r < ROWS; r++)
                for (int k = 0; k < p.width; k++) {
                    int to = (r * 5 + 3) % ROWS;
                    different += decided.cost[r][k] != decided_turned.cost[to][k] ||
                                 decided.level[r][k] != decided_turned.level[to][k] ||
                                 decided.from[r][k] != decided_turned.from[to][k];
                }
        }
    CU_ASSERT_EQUAL(different, 0);
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(the_cheapest_extensions_are_kept),
        SNRQ_TEST(rows_do_not_depend_on_each_other),
    };
    return snrq_run_tests("beam_column", tests, sizeof tests / sizeof *tests, 1);
}
