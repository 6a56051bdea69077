/* Gram matrices: the same bits for any number of ranks and threads, and the right numbers. */
#include "mpi/algebra/gram.h"
#include "mpi/team.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "tests/ranks/rank_test.h"

typedef struct problem {
    int64_t n, tokens, sequences;
    bool minus, scaled, symmetric, permuted, weighted;
    const int64_t *lengths; /* [sequences] tokens of each; NULL: all have `tokens` */
    int64_t wide; /* columns of B and of the result; 0: n. Only the rows are permuted then */
} problem;

/* Around the tokens of one fp32 sum, 512 or 2048; with nothing before, between and behind. */
static const int64_t SHORT_LENGTHS[] = {0, 513, 1, 512, 0, 1025, 511, 0};
static const int64_t LONG_LENGTHS[] = {2047, 1, 0, 2049};
static const int64_t FEW_LENGTHS[] = {2, 300, 0};
static const int64_t EQUAL_LENGTHS[] = {19, 19, 19, 19, 19};
static const int64_t NO_LENGTHS[] = {0, 0, 0};

/* n > 512 takes several panels, large tiles, and tokens > 2048 several chunks; below, > 512. */
static const problem PROBLEMS[] = {
    {.n = 1, .tokens = 1, .sequences = 1, .symmetric = true},
    {.n = 77, .tokens = 19, .sequences = 5, .symmetric = true, .minus = true, .permuted = true},
    {.n = 77, .tokens = 19, .sequences = 5, .minus = true, .scaled = true, .permuted = true},
    {.n = 300, .tokens = 64, .sequences = 2, .symmetric = true},
    {.n = 300, .tokens = 64, .sequences = 2, .minus = true},
    {.n = 33, .tokens = 1100, .sequences = 3, .symmetric = true, .minus = true, .scaled = true},
    {.n = 520, .tokens = 2060, .sequences = 1, .symmetric = true, .minus = true},
    {.n = 1300, .tokens = 3, .sequences = 3, .symmetric = true, .permuted = true},
    {.n = 1300, .tokens = 3, .sequences = 3, .minus = true, .scaled = true, .permuted = true},
    {.n = 33, .lengths = SHORT_LENGTHS, .sequences = 8, .symmetric = true, .permuted = true},
    {.n = 65, .lengths = SHORT_LENGTHS, .sequences = 8, .minus = true, .scaled = true},
    {.n = 515, .lengths = FEW_LENGTHS, .sequences = 3, .symmetric = true, .minus = true},
    {.n = 40, .lengths = NO_LENGTHS, .sequences = 3},
    {.n = 33, .wide = 200, .tokens = 19, .sequences = 5, .minus = true, .permuted = true},
    {.n = 520, .wide = 70, .tokens = 40, .sequences = 3, .scaled = true, .permuted = true},
    {.n = 70, .wide = 700, .lengths = SHORT_LENGTHS, .sequences = 8, .permuted = true},
    {.n = 77, .tokens = 19, .sequences = 5, .symmetric = true, .minus = true, .weighted = true},
    {.n = 515, .lengths = FEW_LENGTHS, .sequences = 3, .minus = true, .weighted = true},
};
enum { PROBLEMS_COUNT = sizeof PROBLEMS / sizeof *PROBLEMS };

/* This rank's share of a problem. a, b: [sequences, tokens, n]; the differences a - m and b are the
 * inputs. */
typedef struct inputs {
    snrq_activations a, m, b;
    float *a_data, *m_data, *b_data;
    int64_t *first; /* [sequences + 1] of a problem with lengths, else NULL */
    float *factor;  /* [tokens] of a problem with weights, else NULL */
    double *scale, *a_norms, *b_norms;
    int32_t *order;
    snrq_gram_request request;
} inputs;

/* Columns with zeros, outliers and small values; both signs. */
static float value(int64_t stream, int64_t sequence, int64_t token, int64_t column)
{
    double x = rank_test_number(stream * 1000 + sequence, token, column);
    if (column % 13 == 5) return 0;
    if (column % 17 == 3) return (float)(1e4 * x);
    return (float)(column % 7 == 2 ? 1e-3 * x : x);
}

static int64_t tokens_of(const problem *p, int64_t sequence)
{
    return p->lengths != NULL ? p->lengths[sequence] : p->tokens;
}

static int64_t wide(const problem *p)
{
    return p->wide > 0 ? p->wide : p->n;
}

static int64_t longest(const problem *p)
{
    int64_t most = 0;
    for (int64_t s = 0; s < p->sequences; s++)
        most = tokens_of(p, s) > most ? tokens_of(p, s) : most;
    return most;
}

static int64_t tokens_in(const problem *p, snrq_range own)
{
    int64_t sum = 0;
    for (int64_t s = own.begin; s < own.end; s++) sum += tokens_of(p, s);
    return sum;
}

/* Where the sequences of a problem with lengths begin, else NULL. */
static int64_t *starts(const problem *p, snrq_range own)
{
    if (p->lengths == NULL) return NULL;
    int64_t *first = calloc((size_t)(own.end - own.begin + 1), sizeof *first);
    for (int64_t s = own.begin; s < own.end; s++)
        first[s - own.begin + 1] = first[s - own.begin] + p->lengths[s];
    return first;
}

/* Factors of a problem with weights, else NULL; some are 0. */
static float *factors(const problem *p, snrq_range own)
{
    if (!p->weighted) return NULL;
    float *factor = malloc((size_t)(tokens_in(p, own) + 1) * sizeof *factor), *next = factor;
    for (int64_t s = own.begin; s < own.end; s++)
        for (int64_t t = 0; t < tokens_of(p, s); t++)
            *next++ = t % 5 == 2 ? 0.0f : (float)(2.0 + rank_test_number(5, s, t));
    return factor;
}

static float *fill(const problem *p, snrq_range own, int64_t stream, int64_t columns,
                   const int64_t *first, const float *factor, snrq_activations *out)
{
    float *data = malloc((size_t)(tokens_in(p, own) * columns + 1) * sizeof *data), *next = data;
    for (int64_t s = own.begin; s < own.end; s++)
        for (int64_t t = 0; t < tokens_of(p, s); t++)
            for (int64_t j = 0; j < columns; j++) *next++ = value(stream, s, t, j);
    *out = (snrq_activations){.sequences = own.end - own.begin,
                              .tokens = p->tokens,
                              .columns = columns,
                              .data = data,
                              .first = first,
                              .factor = factor};
    return data;
}

static void inputs_create(const snrq_context *context, const problem *p, snrq_range own, inputs *in)
{
    int64_t n = p->n;
    in->first = starts(p, own);
    in->factor = factors(p, own);
    in->a_data = fill(p, own, 1, n, in->first, in->factor, &in->a);
    in->m_data = fill(p, own, 2, n, in->first, in->factor, &in->m);
    in->b_data = p->symmetric ? NULL : fill(p, own, 3, wide(p), in->first, in->factor, &in->b);
    in->scale = malloc((size_t)(own.end - own.begin + 1) * sizeof(double));
    for (int64_t s = own.begin; s < own.end; s++)
        in->scale[s - own.begin] = 0.75 + 0.25 * rank_test_number(4, s, 0);
    in->order = malloc((size_t)n * sizeof *in->order);
    for (int64_t k = 0; k < n; k++)
        in->order[k] = (int32_t)(p->permuted && n > 1 ? (k * 57 + 11) % n : k);
    in->a_norms = malloc((size_t)n * sizeof(double));
    in->b_norms = malloc((size_t)wide(p) * sizeof(double));
    const snrq_activations *minus = p->minus ? &in->m : NULL;
    const double *scale = p->scaled ? in->scale : NULL;
    const snrq_activations *b = p->symmetric ? &in->a : &in->b;
    const snrq_activations *b_minus = p->symmetric ? minus : NULL;
    CU_ASSERT_EQUAL(snrq_gram_norms(context, &in->a, minus, scale, in->a_norms), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_gram_norms(context, b, b_minus, NULL, in->b_norms), SNRQ_OK);
    in->request = (snrq_gram_request){.a = &in->a,
                                      .a_minus = minus,
                                      .b = b,
                                      .b_minus = b_minus,
                                      .scale = scale,
                                      .a_norms = in->a_norms,
                                      .b_norms = in->b_norms,
                                      .factor = 2.0 / 3,
                                      .row_order = in->order,
                                      .column_order = p->wide > 0 ? NULL : in->order,
                                      .symmetric = p->symmetric};
}

static void inputs_free(inputs *in)
{
    free(in->a_data);
    free(in->m_data);
    free(in->b_data);
    free(in->first);
    free(in->factor);
    free(in->scale);
    free(in->a_norms);
    free(in->b_norms);
    free(in->order);
}

/* The whole of a request's result on every rank of the context: [n, wide] column-major; the caller
 * frees it. */
static double *whole_gram(const snrq_context *context, const snrq_gram_request *request,
                          snrq_status expected)
{
    int64_t n = request->a->columns, width = request->b->columns;
    int rows = context->size >= 4 ? 2 : 1, columns = context->size / rows;
    double *full = calloc((size_t)(n * width), sizeof *full);
    snrq_process_grid *grid = NULL;
    snrq_matrix *out = NULL;
    CU_ASSERT_EQUAL(snrq_process_grid_create(context, rows, columns, &grid), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_matrix_create(grid, n, width, &out), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_gram_reduce(request, out), expected);
    CU_ASSERT_EQUAL(snrq_matrix_broadcast_panel(out, 0, width, 0, full), SNRQ_OK);
    snrq_matrix_destroy(&out);
    snrq_process_grid_destroy(&grid);
    return full;
}

static double *solve(const snrq_context *context, const problem *p)
{
    inputs in;
    inputs_create(context, p, snrq_share(p->sequences, 1, context->size, context->rank), &in);
    double *full = whole_gram(context, &in.request, SNRQ_OK);
    inputs_free(&in);
    return full;
}

static bool same_bits(const problem *p, const double *x, const double *y)
{
    return memcmp(x, y, (size_t)(p->n * wide(p)) * sizeof *x) == 0;
}

static void expect_same_bits_for_any_number_of_ranks(const problem *p)
{
    snrq_context *alone = rank_test_group(1);
    double *expected = solve(alone, p);
    for (int ranks = 2; ranks <= rank_test_world->size; ranks++) {
        snrq_context *group = rank_test_group(ranks);
        double *found = solve(group, p);
        CU_ASSERT_TRUE(same_bits(p, expected, found));
        free(found);
        snrq_context_destroy(&group);
    }
    free(expected);
    snrq_context_destroy(&alone);
}

/* The sequences of all ranks, for the team `index` of `count`: its ranks get the result. */
static void expect_same_bits_for_a_team(const problem *p, const double *expected, int count,
                                        int index)
{
    const snrq_context *world = rank_test_world;
    snrq_teams teams = {0};
    inputs in;
    CU_ASSERT_EQUAL_FATAL(snrq_teams_deal(world, count, &teams), SNRQ_OK);
    const snrq_team team = snrq_teams_at(&teams, index);
    inputs_create(world, p, snrq_share(p->sequences, 1, world->size, world->rank), &in);
    in.request.context = world;
    in.request.first = team.first;
    if (team.context == NULL) {
        CU_ASSERT_EQUAL(snrq_gram_reduce(&in.request, NULL), SNRQ_OK);
    } else {
        double *found = whole_gram(team.context, &in.request, SNRQ_OK);
        CU_ASSERT_TRUE(same_bits(p, expected, found));
        free(found);
    }
    inputs_free(&in);
    snrq_teams_free(&teams);
}

static void same_bits_for_any_team(void)
{
    snrq_context *alone = rank_test_group(1);
    for (int k = 0; k < PROBLEMS_COUNT; k += 2) {
        double *expected = solve(alone, &PROBLEMS[k]);
        for (int count = 2; count <= rank_test_world->size; count++)
            for (int index = 0; index < count; index += count - 1)
                expect_same_bits_for_a_team(&PROBLEMS[k], expected, count, index);
        free(expected);
    }
    snrq_context_destroy(&alone);
}

static void expect_same_bits_for_any_number_of_threads(const problem *p)
{
    int before = omp_get_max_threads();
    omp_set_num_threads(1);
    double *one = solve(rank_test_world, p);
    for (int threads = 2; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        double *found = solve(rank_test_world, p);
        CU_ASSERT_TRUE(same_bits(p, one, found));
        free(found);
    }
    free(one);
    omp_set_num_threads(before);
}

static void same_bits_for_any_number_of_ranks(void)
{
    for (int k = 0; k < PROBLEMS_COUNT; k++) expect_same_bits_for_any_number_of_ranks(&PROBLEMS[k]);
}

static void same_bits_for_any_number_of_threads(void)
{
    for (int k = 0; k < PROBLEMS_COUNT; k++)
        expect_same_bits_for_any_number_of_threads(&PROBLEMS[k]);
}

/* The order of columns decides where an element is found, never what it is. */
static void order_only_moves_elements(void)
{
    for (int k = 0; k < PROBLEMS_COUNT; k++) {
        if (!PROBLEMS[k].permuted) continue;
        problem natural = PROBLEMS[k];
        natural.permuted = false;
        int64_t n = natural.n, wrong = 0;
        double *moved = solve(rank_test_world, &PROBLEMS[k]),
               *kept = solve(rank_test_world, &natural);
        for (int64_t l = 0; l < wide(&natural); l++) {
            int64_t from = natural.wide > 0 ? l : (l * 57 + 11) % n;
            for (int64_t i = 0; i < n; i++)
                wrong += moved[l * n + i] != kept[from * n + (i * 57 + 11) % n];
        }
        CU_ASSERT_EQUAL(wrong, 0);
        free(moved);
        free(kept);
    }
}

/* An fp32 product of t terms is off by at most t 2^-24 ||a_i|| ||b_j|| (to first order); chunks
 * have at most 2048 tokens. One more unit for the subtraction's own rounding is not needed: the
 * twin subtracts in fp32 too. All ranks have the same result, and share the problems. */
static void agrees_with_the_reference(void)
{
    snrq_context *alone = rank_test_group(1);
    for (int k = 0; k < PROBLEMS_COUNT; k++) {
        const problem *p = &PROBLEMS[k];
        double *found = solve(rank_test_world, p), largest = 0;
        bool mine = k % rank_test_world->size == rank_test_world->rank;
#ifdef __SANITIZE_ADDRESS__
        mine &= p->n * longest(p) < 1000000; /* the twin would take half a minute */
#endif
        if (!mine) {
            free(found);
            continue;
        }
        inputs in;
        inputs_create(alone, p, (snrq_range){0, p->sequences}, &in);
        double *expected = malloc((size_t)(p->n * wide(p)) * sizeof *expected);
        snrq_gram_reference(&in.request, expected);
        for (int64_t l = 0; l < wide(p); l++)
            for (int64_t i = 0; i < p->n; i++) {
                int64_t column = p->wide > 0 ? l : in.order[l];
                double bound =
                    in.request.factor * sqrt(in.a_norms[in.order[i]] * in.b_norms[column]);
                double error = fabs(found[l * p->n + i] - expected[l * p->n + i]);
                if (error > 0 && !(error / bound <= largest)) largest = error / bound;
            }
        CU_ASSERT_TRUE(largest <= (double)(longest(p) < 2048 ? longest(p) : 2048) * 0x1p-24);
        free(expected);
        free(found);
        inputs_free(&in);
    }
    snrq_context_destroy(&alone);
}

/* Compares a Gram with the fp64 sum of the Grams of single sequences, each as a problem of its own
 * in which all sequences have the same length. */
static void expect_sum_of_sequences(const snrq_context *alone, const problem *p)
{
    int64_t n = p->n, cells = n * wide(p);
    double *found = solve(rank_test_world, p), *expected = calloc((size_t)cells, sizeof(double));
    double *bounds = calloc((size_t)(n + wide(p)), sizeof(double)), largest = 0;
    for (int64_t s = 0; s < p->sequences; s++) {
        problem single = *p;
        inputs in;
        single.tokens = tokens_of(p, s);
        single.lengths = NULL;
        inputs_create(alone, &single, (snrq_range){s, s + 1}, &in);
        double *part = whole_gram(alone, &in.request, SNRQ_OK);
        for (int64_t at = 0; at < cells; at++) expected[at] += part[at];
        for (int64_t i = 0; i < n; i++) bounds[i] += in.request.factor * in.a_norms[in.order[i]];
        for (int64_t l = 0; l < wide(p); l++)
            bounds[n + l] += in.request.factor * in.b_norms[p->wide > 0 ? l : in.order[l]];
        free(part);
        inputs_free(&in);
    }
    for (int64_t at = 0; at < cells; at++) {
        double error = fabs(found[at] - expected[at]);
        double bound = sqrt(bounds[at % n] * bounds[n + at / n]);
        if (error > 0 && !(error / bound <= largest)) largest = error / bound;
    }
    CU_ASSERT_TRUE(largest < 1e-12);
    free(found);
    free(expected);
    free(bounds);
}

/* The sum over sequences alone, apart from the fp32 products: against an fp64 sum of the Grams of
 * single sequences. Fixed point is good to 2^-60 of the bound per sequence, fp64 to 2^-52 per sum.
 */
static void summation_is_exact_to_fp64(void)
{
    snrq_context *alone = rank_test_group(1);
    for (int k = 0; k < PROBLEMS_COUNT; k++) expect_sum_of_sequences(alone, &PROBLEMS[k]);
    snrq_context_destroy(&alone);
}

/* Too many tokens for the twin, but not for the sum of single sequences, whose values are known
 * from the other problems. */
static void sequences_of_many_lengths_add_up(void)
{
    const problem p = {.n = 515, .lengths = LONG_LENGTHS, .sequences = 4, .symmetric = true};
    snrq_context *alone = rank_test_group(1);
    expect_sum_of_sequences(alone, &p);
    expect_same_bits_for_any_number_of_ranks(&p);
    snrq_context_destroy(&alone);
}

static void equal_lengths_have_the_same_bits_as_one_length(void)
{
    const problem one = {.n = 77, .tokens = 19, .sequences = 5, .minus = true, .scaled = true};
    problem each = one;
    each.tokens = -1; /* nothing looks at it */
    each.lengths = EQUAL_LENGTHS;
    double *expected = solve(rank_test_world, &one), *found = solve(rank_test_world, &each);
    CU_ASSERT_TRUE(same_bits(&one, expected, found));
    free(expected);
    free(found);
}

static void symmetric_gram_is_symmetric_and_zero_where_columns_are(void)
{
    const problem p = {.n = 1300, .tokens = 5, .sequences = 3, .symmetric = true};
    double *g = solve(rank_test_world, &p);
    int64_t unequal = 0, not_zero = 0;
    for (int64_t j = 0; j < p.n; j++)
        for (int64_t i = 0; i < p.n; i++) {
            unequal += g[j * p.n + i] != g[i * p.n + j];
            not_zero += j % 13 == 5 && g[j * p.n + i] != 0;
        }
    CU_ASSERT_EQUAL(unequal, 0);
    CU_ASSERT_EQUAL(not_zero, 0);
    free(g);
}

static const problem NORMS[] = {
    {.n = 600, .tokens = 7, .sequences = 9, .minus = true, .scaled = true},
    {.n = 70, .lengths = SHORT_LENGTHS, .sequences = 8, .minus = true, .scaled = true},
    {.n = 70, .tokens = 7, .sequences = 9, .minus = true, .scaled = true, .weighted = true},
};
enum { NORMS_COUNT = sizeof NORMS / sizeof *NORMS };

static void expect_same_bits_of_norms(const snrq_context *alone, const problem *p)
{
    size_t bytes = (size_t)p->n * sizeof(double);
    inputs expected, found;
    inputs_create(alone, p, (snrq_range){0, p->sequences}, &expected);
    for (int ranks = 2; ranks <= rank_test_world->size; ranks++) {
        snrq_context *group = rank_test_group(ranks);
        inputs_create(group, p, snrq_share(p->sequences, 1, group->size, group->rank), &found);
        CU_ASSERT_EQUAL(memcmp(expected.a_norms, found.a_norms, bytes), 0);
        CU_ASSERT_EQUAL(memcmp(expected.b_norms, found.b_norms, bytes), 0);
        inputs_free(&found);
        snrq_context_destroy(&group);
    }
    inputs_free(&expected);
}

static void norms_have_the_same_bits_for_any_number_of_ranks(void)
{
    snrq_context *alone = rank_test_group(1);
    for (int k = 0; k < NORMS_COUNT; k++) expect_same_bits_of_norms(alone, &NORMS[k]);
    snrq_context_destroy(&alone);
}

/* Every addition is good to 2^-53, and a sequence's sum is added in units that are finer. */
static void expect_sums_of_squares(const snrq_context *alone, const problem *p)
{
    inputs in;
    double largest = 0;
    inputs_create(alone, p, (snrq_range){0, p->sequences}, &in);
    for (int64_t j = 0; j < p->n; j++) {
        double sum = 0;
        int64_t at = j;
        for (int64_t s = 0; s < p->sequences; s++)
            for (int64_t t = 0; t < tokens_of(p, s); t++, at += p->n) {
                double x = in.a_data[at] - in.m_data[at];
                if (p->weighted) x *= in.factor[at / p->n];
                sum += in.scale[s] * in.scale[s] * (x * x);
            }
        double error = fabs(sum - in.a_norms[j]);
        if (error > largest * sum) largest = error / sum;
    }
    CU_ASSERT_TRUE(largest < (double)tokens_in(p, (snrq_range){0, p->sequences}) * 0x1p-53);
    inputs_free(&in);
}

static void norms_are_sums_of_squares(void)
{
    snrq_context *alone = rank_test_group(1);
    for (int k = 0; k < NORMS_COUNT; k++) expect_sums_of_squares(alone, &NORMS[k]);
    snrq_context_destroy(&alone);
}

/* Puts a value into the activations of the last rank before or after the norms are taken; returns
 * what every rank gets to see. */
static snrq_status poisoned(float poison, bool before_norms)
{
    const problem p = {.n = 40, .tokens = 6, .sequences = 8, .symmetric = true};
    const snrq_context *w = rank_test_world;
    inputs in;
    snrq_status status = SNRQ_BAD_DATA;
    inputs_create(w, &p, snrq_share(p.sequences, 1, w->size, w->rank), &in);
    if (w->rank == w->size - 1) in.a_data[2 * p.n + 23] = poison;
    if (before_norms)
        status = snrq_gram_norms(w, &in.a, NULL, NULL, in.a_norms);
    else
        free(whole_gram(w, &in.request, SNRQ_BAD_DATA));
    inputs_free(&in);
    return status;
}

static void activations_that_are_not_finite_are_bad_data_everywhere(void)
{
    const float poisons[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < 3; k++)
        for (int before_norms = 0; before_norms < 2; before_norms++) {
            CU_ASSERT_EQUAL(poisoned(poisons[k], before_norms), SNRQ_BAD_DATA);
            CU_ASSERT_PTR_NOT_NULL(
                strstr(snrq_error_message(), before_norms ? "column 23 " : "column"));
        }
}

static void activations_beyond_their_norms_are_bad_data_everywhere(void)
{
    CU_ASSERT_EQUAL(poisoned(1e25f, false), SNRQ_BAD_DATA);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "column"));
}

/* Columns of 1e30, 1 and 1e-30: fp32 products of them would overflow and vanish. */
static void magnitudes_at_the_ends_of_fp32_are_no_trouble(void)
{
    const problem p = {.n = 40, .tokens = 6, .sequences = 4, .symmetric = true};
    const float magnitudes[] = {1e30f, 1, 1e-30f};
    snrq_context *alone = rank_test_group(1);
    inputs in;
    int64_t wrong = 0;
    double expected[40 * 40];
    inputs_create(alone, &p, (snrq_range){0, p.sequences}, &in);
    for (int64_t at = 0; at < p.sequences * p.tokens * p.n; at++)
        in.a_data[at] *= magnitudes[at % p.n % 3];
    CU_ASSERT_EQUAL(snrq_gram_norms(alone, &in.a, NULL, NULL, in.a_norms), SNRQ_OK);
    memcpy(in.b_norms, in.a_norms, (size_t)p.n * sizeof(double));
    double *found = whole_gram(alone, &in.request, SNRQ_OK);
    snrq_gram_reference(&in.request, expected);
    for (int64_t at = 0; at < p.n * p.n; at++) {
        double bound = in.request.factor * sqrt(in.a_norms[at % p.n]) * sqrt(in.a_norms[at / p.n]);
        wrong += !(fabs(found[at] - expected[at]) <= 6 * 0x1p-24 * bound);
    }
    CU_ASSERT_EQUAL(wrong, 0);
    free(found);
    inputs_free(&in);
    snrq_context_destroy(&alone);
}

static void activations_of_another_size_are_refused(void)
{
    const problem p = {.n = 40, .tokens = 6, .sequences = 8, .symmetric = true};
    inputs in;
    inputs_create(rank_test_world, &p, (snrq_range){0, 1}, &in);
    in.request.b = &in.m;
    in.m.tokens++;
    free(whole_gram(rank_test_world, &in.request, SNRQ_INTERNAL));
    inputs_free(&in);
}

/* As many tokens and sequences, but one token belongs to another sequence. */
static void sequences_that_begin_elsewhere_are_refused(void)
{
    const problem p = {.n = 40, .tokens = 6, .sequences = 3, .symmetric = true};
    const int64_t first[] = {0, 6, 12, 18}, moved[] = {0, 6, 11, 18};
    inputs in;
    inputs_create(rank_test_world, &p, (snrq_range){0, 3}, &in);
    in.request.b = &in.m;
    in.m.first = first;
    free(whole_gram(rank_test_world, &in.request, SNRQ_OK));
    in.m.first = moved;
    free(whole_gram(rank_test_world, &in.request, SNRQ_INTERNAL));
    inputs_free(&in);
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(same_bits_for_any_number_of_ranks),
        SNRQ_TEST(same_bits_for_any_number_of_threads),
        SNRQ_TEST(same_bits_for_any_team),
        SNRQ_TEST(order_only_moves_elements),
        SNRQ_TEST(agrees_with_the_reference),
        SNRQ_TEST(summation_is_exact_to_fp64),
        SNRQ_TEST(sequences_of_many_lengths_add_up),
        SNRQ_TEST(equal_lengths_have_the_same_bits_as_one_length),
        SNRQ_TEST(symmetric_gram_is_symmetric_and_zero_where_columns_are),
        SNRQ_TEST(norms_have_the_same_bits_for_any_number_of_ranks),
        SNRQ_TEST(norms_are_sums_of_squares),
        SNRQ_TEST(activations_that_are_not_finite_are_bad_data_everywhere),
        SNRQ_TEST(activations_beyond_their_norms_are_bad_data_everywhere),
        SNRQ_TEST(magnitudes_at_the_ends_of_fp32_are_no_trouble),
        SNRQ_TEST(activations_of_another_size_are_refused),
        SNRQ_TEST(sequences_that_begin_elsewhere_are_refused),
    };
    return rank_test_main(argc, argv, "gram", tests, sizeof tests / sizeof *tests);
}
