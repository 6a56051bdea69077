/* Gram matrices: the same bits for any number of ranks and threads, and the right numbers. */
#include "mpi/algebra/gram.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "tests/ranks/rank_test.h"

typedef struct problem {
    int64_t n, tokens, sequences;
    bool minus, scaled, symmetric, permuted;
} problem;

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
};
enum { PROBLEMS_COUNT = sizeof PROBLEMS / sizeof *PROBLEMS };

/* This rank's share of a problem. a, b: [sequences, tokens, n]; the differences a - m and b are the
 * inputs. */
typedef struct inputs {
    snrq_activations a, m, b;
    float *a_data, *m_data, *b_data;
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

static float *fill(const problem *p, snrq_range own, int64_t stream, snrq_activations *out)
{
    int64_t count = own.end - own.begin;
    float *data = malloc((size_t)(count * p->tokens * p->n + 1) * sizeof *data);
    for (int64_t s = 0; s < count; s++)
        for (int64_t t = 0; t < p->tokens; t++)
            for (int64_t j = 0; j < p->n; j++)
                data[(s * p->tokens + t) * p->n + j] = value(stream, own.begin + s, t, j);
    *out =
        (snrq_activations){.sequences = count, .tokens = p->tokens, .columns = p->n, .data = data};
    return data;
}

static void inputs_create(const snrq_context *context, const problem *p, snrq_range own, inputs *in)
{
    int64_t n = p->n;
    in->a_data = fill(p, own, 1, &in->a);
    in->m_data = fill(p, own, 2, &in->m);
    in->b_data = p->symmetric ? NULL : fill(p, own, 3, &in->b);
    in->scale = malloc((size_t)(own.end - own.begin + 1) * sizeof(double));
    for (int64_t s = own.begin; s < own.end; s++)
        in->scale[s - own.begin] = 0.75 + 0.25 * rank_test_number(4, s, 0);
    in->order = malloc((size_t)n * sizeof *in->order);
    for (int64_t k = 0; k < n; k++)
        in->order[k] = (int32_t)(p->permuted && n > 1 ? (k * 57 + 11) % n : k);
    in->a_norms = malloc((size_t)n * sizeof(double));
    in->b_norms = malloc((size_t)n * sizeof(double));
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
                                      .order = in->order,
                                      .symmetric = p->symmetric};
}

static void inputs_free(inputs *in)
{
    free(in->a_data);
    free(in->m_data);
    free(in->b_data);
    free(in->scale);
    free(in->a_norms);
    free(in->b_norms);
    free(in->order);
}

/* The whole of a request's result on every rank of the context: [n, n] column-major; the caller
 * frees it. */
static double *whole_gram(const snrq_context *context, const snrq_gram_request *request,
                          snrq_status expected)
{
    int64_t n = request->a->columns;
    int rows = context->size >= 4 ? 2 : 1, columns = context->size / rows;
    double *full = calloc((size_t)(n * n), sizeof *full);
    snrq_process_grid *grid = NULL;
    snrq_matrix *out = NULL;
    CU_ASSERT_EQUAL(snrq_process_grid_create(context, rows, columns, &grid), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_matrix_create(grid, n, n, &out), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_gram_reduce(request, out), expected);
    CU_ASSERT_EQUAL(snrq_matrix_broadcast_panel(out, 0, n, 0, full), SNRQ_OK);
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

static bool same_bits(int64_t n, const double *x, const double *y)
{
    return memcmp(x, y, (size_t)(n * n) * sizeof *x) == 0;
}

static void same_bits_for_any_number_of_ranks(void)
{
    snrq_context *alone = rank_test_group(1);
    for (int k = 0; k < PROBLEMS_COUNT; k++) {
        double *expected = solve(alone, &PROBLEMS[k]);
        for (int ranks = 2; ranks <= rank_test_world->size; ranks++) {
            snrq_context *group = rank_test_group(ranks);
            double *found = solve(group, &PROBLEMS[k]);
            CU_ASSERT_TRUE(same_bits(PROBLEMS[k].n, expected, found));
            free(found);
            snrq_context_destroy(&group);
        }
        free(expected);
    }
    snrq_context_destroy(&alone);
}

static void same_bits_for_any_number_of_threads(void)
{
    int before = omp_get_max_threads();
    for (int k = 0; k < PROBLEMS_COUNT; k++) {
        omp_set_num_threads(1);
        double *one = solve(rank_test_world, &PROBLEMS[k]);
        for (int threads = 2; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            double *found = solve(rank_test_world, &PROBLEMS[k]);
            CU_ASSERT_TRUE(same_bits(PROBLEMS[k].n, one, found));
            free(found);
        }
        free(one);
    }
    omp_set_num_threads(before);
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
        for (int64_t l = 0; l < n; l++)
            for (int64_t i = 0; i < n; i++)
                wrong += moved[l * n + i] != kept[(l * 57 + 11) % n * n + (i * 57 + 11) % n];
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
        mine &= p->n * p->tokens < 1000000; /* the twin would take half a minute */
#endif
        if (!mine) {
            free(found);
            continue;
        }
        inputs in;
        inputs_create(alone, p, (snrq_range){0, p->sequences}, &in);
        double *expected = malloc((size_t)(p->n * p->n) * sizeof *expected);
        snrq_gram_reference(&in.request, expected);
        for (int64_t l = 0; l < p->n; l++)
            for (int64_t i = 0; i < p->n; i++) {
                double bound =
                    in.request.factor * sqrt(in.a_norms[in.order[i]] * in.b_norms[in.order[l]]);
                double error = fabs(found[l * p->n + i] - expected[l * p->n + i]);
                if (error > 0 && !(error / bound <= largest)) largest = error / bound;
            }
        CU_ASSERT_TRUE(largest <= (double)(p->tokens < 2048 ? p->tokens : 2048) * 0x1p-24);
        free(expected);
        free(found);
        inputs_free(&in);
    }
    snrq_context_destroy(&alone);
}

/* The sum over sequences alone, apart from the fp32 products: against an fp64 sum of the Grams of
 * single sequences. Fixed point is good to 2^-60 of the bound per sequence, fp64 to 2^-52 per sum.
 */
static void summation_is_exact_to_fp64(void)
{
    snrq_context *alone = rank_test_group(1);
    for (int k = 0; k < PROBLEMS_COUNT; k++) {
        const problem *p = &PROBLEMS[k];
        int64_t n = p->n;
        double *found = solve(rank_test_world, p),
               *expected = calloc((size_t)(n * n), sizeof(double));
        double *bounds = calloc((size_t)(n * 2), sizeof(double)), largest = 0;
        for (int64_t s = 0; s < p->sequences; s++) {
            inputs in;
            inputs_create(alone, p, (snrq_range){s, s + 1}, &in);
            double *part = whole_gram(alone, &in.request, SNRQ_OK);
            for (int64_t at = 0; at < n * n; at++) expected[at] += part[at];
            for (int64_t i = 0; i < n; i++) {
                bounds[i] += in.request.factor * in.a_norms[in.order[i]];
                bounds[n + i] += in.request.factor * in.b_norms[in.order[i]];
            }
            free(part);
            inputs_free(&in);
        }
        for (int64_t at = 0; at < n * n; at++) {
            double error = fabs(found[at] - expected[at]);
            double bound = sqrt(bounds[at % n] * bounds[n + at / n]);
            if (error > 0 && !(error / bound <= largest)) largest = error / bound;
        }
        CU_ASSERT_TRUE(largest < 1e-12);
        free(found);
        free(expected);
        free(bounds);
    }
    snrq_context_destroy(&alone);
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

static void norms_have_the_same_bits_for_any_number_of_ranks(void)
{
    const problem p = {.n = 600, .tokens = 7, .sequences = 9, .minus = true, .scaled = true};
    inputs expected, found;
    snrq_context *alone = rank_test_group(1);
    inputs_create(alone, &p, (snrq_range){0, p.sequences}, &expected);
    for (int ranks = 2; ranks <= rank_test_world->size; ranks++) {
        snrq_context *group = rank_test_group(ranks);
        inputs_create(group, &p, snrq_share(p.sequences, 1, group->size, group->rank), &found);
        CU_ASSERT_EQUAL(memcmp(expected.a_norms, found.a_norms, 600 * sizeof(double)), 0);
        CU_ASSERT_EQUAL(memcmp(expected.b_norms, found.b_norms, 600 * sizeof(double)), 0);
        inputs_free(&found);
        snrq_context_destroy(&group);
    }
    inputs_free(&expected);
    snrq_context_destroy(&alone);
}

static void norms_are_sums_of_squares(void)
{
    const problem p = {.n = 600, .tokens = 7, .sequences = 9, .minus = true, .scaled = true};
    inputs in;
    double largest = 0;
    snrq_context *alone = rank_test_group(1);
    inputs_create(alone, &p, (snrq_range){0, p.sequences}, &in);
    for (int64_t j = 0; j < p.n; j++) {
        double sum = 0;
        for (int64_t at = j; at < p.sequences * p.tokens * p.n; at += p.n) {
            double scale = in.scale[at / (p.tokens * p.n)];
            float x = in.a_data[at] - in.m_data[at];
            sum += scale * scale * ((double)x * x);
        }
        double error = fabs(sum - in.a_norms[j]);
        if (error > largest * sum) largest = error / sum;
    }
    CU_ASSERT_TRUE(largest < 1e-14); /* 63 additions, each good to 2^-53 */
    inputs_free(&in);
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

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(same_bits_for_any_number_of_ranks),
        SNRQ_TEST(same_bits_for_any_number_of_threads),
        SNRQ_TEST(order_only_moves_elements),
        SNRQ_TEST(agrees_with_the_reference),
        SNRQ_TEST(summation_is_exact_to_fp64),
        SNRQ_TEST(symmetric_gram_is_symmetric_and_zero_where_columns_are),
        SNRQ_TEST(norms_have_the_same_bits_for_any_number_of_ranks),
        SNRQ_TEST(norms_are_sums_of_squares),
        SNRQ_TEST(activations_that_are_not_finite_are_bad_data_everywhere),
        SNRQ_TEST(activations_beyond_their_norms_are_bad_data_everywhere),
        SNRQ_TEST(magnitudes_at_the_ends_of_fp32_are_no_trouble),
        SNRQ_TEST(activations_of_another_size_are_refused),
    };
    return rank_test_main(argc, argv, "gram", tests, sizeof tests / sizeof *tests);
}
