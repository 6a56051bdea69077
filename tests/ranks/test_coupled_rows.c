/* The search of rows that know of each other against its dense fp64 twin: every row by
 * snrq_search_reference(), tr(G E H E^T) from scratch at every step. */
#include <math.h>
#include <string.h>

#include "pipeline/rounding/coupled_rows.h"
#include "pipeline/rounding/row_feedback.h"
#include "tests/ranks/rank_test.h"

enum { N = 96, M = 213, MODULES = 2, TILE = SNRQ_TILE_ROWS, BLOCK = SNRQ_ROW_BLOCK, GROUP = 32 };
enum { TOKENS = 1024 }; /* G with so many is damped by as much as its diagonal */

/* The second module begins inside a tile. */
static const int64_t FIRST[MODULES + 1] = {0, 70, M};
static const double NO_ALPHA[MODULES] = {0};
static const char *const NAMES[MODULES] = {"q", "k"};

/* Of all modules; NULL: integers. */
static const snrq_weight_format *format = NULL;

typedef struct problem {
    double h[N * N], l[N * N]; /* damped, and its factor, column-major */
    float w[M][N];
    float g[(M + TILE - 1) / TILE * TILE][TILE];
    snrq_rule rule;
    snrq_statistics statistics;
    snrq_stack stack;
    snrq_rounding rounding;
} problem;

static void table_row(const void *source, int64_t row, float *out)
{
    memcpy(out, ((const problem *)source)->w[row], N * sizeof *out);
}

static double noise(int64_t i, int64_t j, int64_t k)
{
    return rank_test_number(i, j, k);
}

/* Inputs with a direction in common; columns keep their order. */
static void make_gram(double damp, double *h)
{
    static double x[3 * N][N];
    double mean = 0.0;
    for (int64_t t = 0; t < 3 * N; t++)
        for (int64_t j = 0; j < N; j++) x[t][j] = noise(t, j, 1) + 0.5 * noise(t, 0, 2);
    memset(h, 0, N * N * sizeof *h);
    for (int64_t t = 0; t < 3 * N; t++)
        for (int64_t i = 0; i < N; i++)
            for (int64_t j = 0; j < N; j++) h[i * N + j] += x[t][i] * x[t][j] / N;
    for (int64_t i = 0; i < N; i++) mean += h[i * N + i] / N;
    for (int64_t i = 0; i < N; i++) h[i * N + i] += damp * mean;
}

static void factorize(const double *h, double *l)
{
    memcpy(l, h, N * N * sizeof *l);
    for (int64_t j = 0; j < N; j++) {
        for (int64_t k = 0; k < j; k++)
            for (int64_t i = j; i < N; i++) l[j * N + i] -= l[k * N + i] * l[k * N + j];
        double root = sqrt(l[j * N + j]);
        for (int64_t i = j; i < N; i++) l[j * N + i] /= root;
    }
}

/* Outputs that share two directions, within a module and a tile. */
static void make_row_grams(problem *p)
{
    memset(p->g, 0, sizeof p->g);
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = i / TILE * TILE; j < (i / TILE + 1) * TILE && j < M; j++) {
            if ((i < FIRST[1]) != (j < FIRST[1])) continue;
            double sum = i == j ? 0.3 : 0.0;
            for (int64_t t = 0; t < 2; t++) sum += noise(t, i, 5) * noise(t, j, 5);
            p->g[i][j % TILE] = (float)sum;
        }
}

static int bits = 3;

static void make_problem(int beam, int refine, int regrid, bool coupled, problem *p)
{
    static double undamped[N * N];
    double diagonal[N];
    const snrq_process_shape shape = {1, rank_test_world->size};
    memset(p, 0, sizeof *p);
    p->rule = (snrq_rule){.method = SNRQ_LDLQ,
                          .bits = bits,
                          .group_size = GROUP,
                          .symmetric = true,
                          .natural_order = true,
                          .scale_type = SNRQ_F16,
                          .beam = beam,
                          .refine = refine,
                          .regrid = regrid,
                          .damp = 0.01,
                          .weighs_outputs = coupled};
    if (format != NULL) p->rule.grid = SNRQ_QUANT_GRID_HESSIAN;
    snrq_rule_set_format(&p->rule, format);
    make_gram(0.0, undamped);
    make_gram(p->rule.damp, p->h);
    factorize(p->h, p->l);
    for (int64_t r = 0; r < M; r++)
        for (int64_t j = 0; j < N; j++) p->w[r][j] = (float)noise(r, j, 3);
    make_row_grams(p);
    for (int64_t j = 0; j < N; j++) diagonal[j] = undamped[j * N + j];
    p->statistics = (snrq_statistics){.columns = N};
    CU_ASSERT_EQUAL(snrq_statistics_order(&p->rule, diagonal, &p->statistics), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_statistics_start(rank_test_world, shape, &p->statistics), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_matrix_create(p->statistics.process_grid, N, N, &p->statistics.h),
                    SNRQ_OK);
    snrq_matrix_set_panel(p->statistics.h, 0, N, 0, undamped);
    const snrq_range mine = snrq_rounding_share(M, rank_test_world->size, rank_test_world->rank);
    p->stack = (snrq_stack){.count = MODULES,
                            .first = FIRST,
                            .names = NAMES,
                            .together = "q + k",
                            .alpha_before = NO_ALPHA,
                            .row = table_row,
                            .source = p,
                            .row_grams = p->g[mine.begin],
                            .row_gram_tokens = TOKENS};
    CU_ASSERT_EQUAL(
        snrq_rounding_create(rank_test_world, &p->rule, &p->statistics, &p->stack, &p->rounding),
        SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_rounding_shift(&p->rounding), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_rounding_fit(&p->rounding), SNRQ_OK);
}

static void free_problem(problem *p)
{
    snrq_rounding_free(&p->rounding);
    snrq_statistics_free(&p->statistics);
}

/* E of a rank's row. */
static void error_of(const snrq_rows *rows, int64_t row, double *e)
{
    for (int64_t k = 0; k < N; k++)
        e[k] = (double)rows->target[row * N + k] - (double)snrq_rows_value(rows, row, k);
}

/* eh <- e H */
static void multiply(const problem *p, const double *e, double *eh)
{
    memset(eh, 0, N * sizeof *eh);
    for (int64_t i = 0; i < N; i++)
        for (int64_t j = 0; j < N; j++) eh[j] += e[i] * p->h[i * N + j];
}

static double dot(const double *a, const double *b)
{
    double sum = 0.0;
    for (int64_t k = 0; k < N; k++) sum += a[k] * b[k];
    return sum;
}

/* tr(G E H E^T) of the tile that begins with this rank's row `first`; G with its diagonal times
 * `diagonal`. */
static double weighted(const problem *p, int64_t first, double diagonal)
{
    static double e[TILE][N], eh[TILE][N];
    const float *g = p->g[p->rounding.mine.begin + first];
    double sum = 0.0;
    for (int i = 0; i < TILE; i++) {
        error_of(&p->rounding.rows, first + i, e[i]);
        multiply(p, e[i], eh[i]);
    }
    for (int i = 0; i < TILE; i++)
        for (int j = 0; j < TILE; j++)
            if (g[i * TILE + j] != 0.0f)
                sum += (i == j ? diagonal : 1.0) * (double)g[i * TILE + j] * dot(e[i], eh[j]);
    return sum;
}

/* Rounds row `row` at a target: codes and cost by the twin of the search. */
static void round_reference(problem *p, int64_t row, const double *target)
{
    snrq_rows *rows = &p->rounding.rows, one = *rows;
    float aim[N];
    double cost;
    for (int64_t k = 0; k < N; k++) aim[k] = (float)target[k];
    one.target = aim;
    one.scales = rows->scales + row * rows->groups->count;
    one.zeros = rows->zeros + row * rows->groups->count;
    CU_ASSERT_EQUAL(snrq_search_reference(p->l, SNRQ_ROUND_FEEDBACK, p->rule.beam, &one, 0,
                                          rows->codes + row * N, &cost),
                    SNRQ_OK);
}

/* The twin of the first decisions of a tile. */
static void decide_tile_reference(problem *p, const snrq_tile_feedback *f, int64_t first)
{
    snrq_rows *rows = &p->rounding.rows;
    double e[TILE][N], target[BLOCK][N];
    for (int begin = TILE - BLOCK; begin >= 0; begin -= BLOCK) {
        for (int i = 0; i < BLOCK; i++)
            for (int64_t k = 0; k < N; k++) {
                int64_t row = first + f->row[begin + i];
                target[i][k] = (double)rows->target[row * N + k];
                for (int j = begin + BLOCK; j < TILE; j++)
                    target[i][k] += (double)f->decided[begin + i][j] * e[j][k];
            }
        for (int i = 0; i < BLOCK; i++) {
            int64_t row = first + f->row[begin + i], groups = rows->groups->count;
            float aim[N];
            for (int64_t k = 0; k < N; k++) aim[k] = (float)target[i][k];
            CU_ASSERT_EQUAL(snrq_quant_grid_fit(&p->rule, rows->groups, aim, p->rounding.d2,
                                                rows->scales + row * groups,
                                                rows->zeros + row * groups),
                            SNRQ_OK);
            round_reference(p, row, target[i]);
        }
        for (int i = begin; i < begin + BLOCK; i++) error_of(rows, first + f->row[i], e[i]);
    }
}

/* The twin of a round without new scales, for places [begin, end). */
static void round_part_reference(problem *p, const snrq_tile_feedback *f, int64_t first, int begin,
                                 int end)
{
    snrq_rows *rows = &p->rounding.rows;
    static uint8_t next[TILE][N], old[N];
    double e[TILE][N], target[N];
    for (int i = 0; i < TILE; i++) error_of(rows, first + f->row[i], e[i]);
    for (int i = begin; i < end; i++) {
        int64_t row = first + f->row[i];
        for (int64_t k = 0; k < N; k++) {
            target[k] = (double)rows->target[row * N + k];
            for (int j = 0; j < TILE; j++)
                if (j != i) target[k] += (double)f->others[i][j] * e[j][k];
        }
        memcpy(old, rows->codes + row * N, N);
        round_reference(p, row, target);
        memcpy(next[i], rows->codes + row * N, N);
        memcpy(rows->codes + row * N, old, N);
    }
    for (int i = end - 1; i >= begin; i--) {
        int64_t row = first + f->row[i];
        double before = weighted(p, first, 2.0); /* G is damped */
        memcpy(old, rows->codes + row * N, N);
        memcpy(rows->codes + row * N, next[i], N);
        if (!(weighted(p, first, 2.0) < before)) memcpy(rows->codes + row * N, old, N);
    }
}

/* Nearly all rows: where fp32 and fp64 decide a tie differently, later rows of the tile see it. */
static void codes_are_those_of_the_twin(int beam)
{
    static problem p, twin;
    int64_t same = 0, rows;
    double found = 0.0, wanted = 0.0;
    make_problem(beam, 0, 0, true, &p);
    make_problem(beam, 0, 0, true, &twin);
    rows = p.rounding.mine.end - p.rounding.mine.begin;
    CU_ASSERT_EQUAL(snrq_rounding_search(&p.rounding), SNRQ_OK);
    for (int64_t first = 0; first < p.rounding.rows.rows; first += TILE) {
        static snrq_tile_feedback f;
        CU_ASSERT_EQUAL(
            snrq_tile_feedback_create(twin.g[twin.rounding.mine.begin + first], TOKENS, &f),
            SNRQ_OK);
        decide_tile_reference(&twin, &f, first);
        for (int end = TILE, part = snrq_row_part(bits); end > 0; end -= part)
            round_part_reference(&twin, &f, first, end - part, end);
        found += weighted(&p, first, 1.0);
        wanted += weighted(&twin, first, 1.0);
    }
    for (int64_t r = 0; r < rows; r++)
        same += memcmp(p.rounding.rows.codes + r * N, twin.rounding.rows.codes + r * N, N) == 0;
    CU_ASSERT(same >= rows * 9 / 10);
    CU_ASSERT(fabs(found - wanted) <= 2e-3 * wanted);
    free_problem(&twin);
    free_problem(&p);
}

static void greedy_equals_its_twin(void)
{
    codes_are_those_of_the_twin(1);
}

static void beams_equal_their_twin(void)
{
    codes_are_those_of_the_twin(4);
}

static void at_two_bits_parts_of_a_tile_follow_each_other(void)
{
    bits = 2;
    codes_are_those_of_the_twin(4);
    bits = 3;
}

/* The whole weighted loss, over all ranks. */
static double loss_of_all(int regrid, bool coupled)
{
    static problem p;
    double losses[M] = {0.0}, sum = 0.0;
    make_problem(4, 2, regrid, coupled, &p);
    CU_ASSERT_EQUAL(snrq_rounding_search(&p.rounding), SNRQ_OK);
    for (int64_t first = 0; first < p.rounding.rows.rows; first += TILE)
        losses[p.rounding.mine.begin + first] = weighted(&p, first, 1.0);
    CU_ASSERT_EQUAL(snrq_collect(rank_test_world, losses, M), SNRQ_OK);
    for (int64_t r = 0; r < M; r++) sum += losses[r];
    free_problem(&p);
    return sum;
}

static void loss_falls_with_feedback_and_with_rounds(void)
{
    double alone = loss_of_all(3, false), one = loss_of_all(1, true), three = loss_of_all(3, true);
    CU_ASSERT(three < one);
    CU_ASSERT(three < 0.8 * alone); /* outputs here have much in common */
}

/* Costs and shares of the loss are those of the codes. */
static void figures_are_those_of_the_codes(void)
{
    static problem p;
    make_problem(4, 1, 2, true, &p);
    CU_ASSERT_EQUAL(snrq_rounding_search(&p.rounding), SNRQ_OK);
    for (int64_t first = 0; first < p.rounding.rows.rows; first += TILE) {
        double sum = 0.0, e[N], eh[N];
        for (int64_t r = first; r < first + TILE; r++) {
            error_of(&p.rounding.rows, r, e);
            multiply(&p, e, eh);
            double cost = dot(e, eh);
            CU_ASSERT(fabs(p.rounding.rows.costs[r] - cost) <= 1e-5 * cost);
            sum += p.rounding.weighted[r];
        }
        CU_ASSERT(fabs(sum - weighted(&p, first, 1.0)) <= 1e-4 * sum);
    }
    free_problem(&p);
}

/* With outputs that have nothing in common, every row is rounded as if it were alone. */
static void rows_with_nothing_in_common_are_single(void)
{
    static problem p, alone;
    make_problem(4, 0, 0, true, &p);
    make_problem(4, 0, 0, false, &alone);
    for (int64_t r = 0; r < M; r++)
        for (int64_t j = 0; j < TILE; j++) p.g[r][j] = j == r % TILE ? 1.0f + (float)(r % 5) : 0.0f;
    CU_ASSERT_EQUAL(snrq_rounding_search(&p.rounding), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_rounding_search(&alone.rounding), SNRQ_OK);
    CU_ASSERT_EQUAL(memcmp(p.rounding.rows.codes, alone.rounding.rows.codes,
                           (size_t)(p.rounding.mine.end - p.rounding.mine.begin) * N),
                    0);
    free_problem(&alone);
    free_problem(&p);
}

/* Minima go with their targets: what is left of R is W, and the error of a row that of its weights.
 */
static void targets_are_those_of_the_weights(const problem *p)
{
    const snrq_rows *rows = &p->rounding.rows;
    for (int64_t r = 0; r < p->rounding.mine.end - p->rounding.mine.begin; r++)
        for (int64_t k = 0; k < N; k++) {
            float target = rows->target[r * N + k] - snrq_rows_minimum(rows, r, k);
            CU_ASSERT(fabsf(target - p->w[p->rounding.mine.begin + r][k]) <= 2e-6f);
        }
}

static void formats_know_of_other_rows(void)
{
    static const char *const names[] = {"q4_1", "q5_0", "iq4_nl", "mxfp4", "nvfp4", "fp8_block"};
    static problem p;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        format = snrq_weight_format_find(names[i]);
        double alone = loss_of_all(2, false), together = loss_of_all(2, true);
        if (!(together < 0.9 * alone)) fprintf(stderr, "%s: %g, %g\n", names[i], together, alone);
        CU_ASSERT(together < 0.9 * alone);
        figures_are_those_of_the_codes();
        make_problem(4, 1, 2, true, &p);
        CU_ASSERT_EQUAL(snrq_rounding_search(&p.rounding), SNRQ_OK);
        targets_are_those_of_the_weights(&p);
        free_problem(&p);
    }
    format = NULL;
}

int main(int argc, char **argv)
{
    static const snrq_test tests[] = {SNRQ_TEST(formats_know_of_other_rows),
                                      SNRQ_TEST(greedy_equals_its_twin),
                                      SNRQ_TEST(beams_equal_their_twin),
                                      SNRQ_TEST(at_two_bits_parts_of_a_tile_follow_each_other),
                                      SNRQ_TEST(loss_falls_with_feedback_and_with_rounds),
                                      SNRQ_TEST(figures_are_those_of_the_codes),
                                      SNRQ_TEST(rows_with_nothing_in_common_are_single)};
    return rank_test_main(argc, argv, "coupled rows", tests, sizeof tests / sizeof *tests);
}
