/* What modules are calibrated on: H, D, E, order and dead inputs against their definitions in
 * docs/method.md, summed by plain loops in fp64, for sequences of the same and of different
 * lengths. */
#include "pipeline/rounding/statistics.h"

#include <math.h>
#include <string.h>

#include "tests/ranks/rank_test.h"

typedef struct problem {
    int64_t n, sequences; /* N, a power of two, so that columns with H_jj = 1 can be made */
    int64_t tokens;       /* of every sequence; 0: the lengths below */
    snrq_rule rule;
} problem;

enum { MOST_SEQUENCES = 8, UNIT_COLUMN = 17, OUTPUTS = 23 };

static const uint64_t SEED = 7;

/* Of sequences of different lengths; with sequences that hold nothing at both ends. */
static const int64_t LENGTHS[MOST_SEQUENCES] = {0, 3, 1, 0, 7, 2, 5, 0};

#define RULE(M, MODE, VALUE)                                                                       \
    {                                                                                              \
        .method = (M), .alpha_mode = (MODE), .alpha_value = (VALUE)                                \
    }

#define COMPENSATING                                                                               \
    {                                                                                              \
        .method = SNRQ_SNRQ, .alpha_value = 0.5, .compensate = 0.25                                \
    }

/* More than 512 columns take larger tiles. With two sequences, some ranks have none. */
static const problem PROBLEMS[] = {
    {.n = 37, .sequences = 8, .tokens = 4, .rule = RULE(SNRQ_KSNRQ, SNRQ_ALPHA_CORR, 0)},
    {.n = 37, .sequences = 8, .rule = RULE(SNRQ_SNRQ, SNRQ_ALPHA_CORR, 0)},
    {.n = 37, .sequences = 8, .rule = RULE(SNRQ_KSNRQ, SNRQ_ALPHA_SAMPLED, 5)},
    {.n = 130, .sequences = 2, .tokens = 5, .rule = RULE(SNRQ_GPTAQ, SNRQ_ALPHA_FIXED, 0.25)},
    {.n = 130, .sequences = 8, .rule = RULE(SNRQ_GPTAQ, SNRQ_ALPHA_SAMPLED, 2)},
    {.n = 37, .sequences = 8, .rule = COMPENSATING},
    {.n = 530, .sequences = 2, .tokens = 5, .rule = COMPENSATING},
    {.n = 530, .sequences = 8, .rule = RULE(SNRQ_SNRQ, SNRQ_ALPHA_CORR, 0)},
    {.n = 530, .sequences = 8, .rule = RULE(SNRQ_SNRQ, SNRQ_ALPHA_SAMPLED, 5)},
};
enum { PROBLEMS_COUNT = sizeof PROBLEMS / sizeof *PROBLEMS };

static int64_t tokens_of(const problem *p, int64_t sequence)
{
    return p->tokens > 0 ? p->tokens : LENGTHS[sequence];
}

static int64_t longest(const problem *p)
{
    int64_t most = 0;
    for (int64_t s = 0; s < p->sequences; s++)
        most = tokens_of(p, s) > most ? tokens_of(p, s) : most;
    return most;
}

/* Sequences in front of this one that have tokens. */
static int64_t with_tokens_before(const problem *p, int64_t sequence)
{
    int64_t count = 0;
    for (int64_t s = 0; s < sequence; s++) count += tokens_of(p, s) > 0;
    return count;
}

/* Columns 8, 18, 28, ... are the same as the ones before them. */
static int64_t source_of(int64_t column)
{
    return column % 10 == 8 ? column - 1 : column;
}

/* Is the column zero on every token of X? Of these, every second is zero in Xf, too. */
static bool is_dead(int64_t column)
{
    return source_of(column) % 9 == 4;
}

/* X. Columns of very different sizes; one has 2/N times the sum of its squares = 1, as dead inputs
 * will have. */
static float x_value(const problem *p, int64_t sequence, int64_t token, int64_t column)
{
    if (column == UNIT_COLUMN) {
        int64_t at = with_tokens_before(p, sequence);
        return token == 0 && tokens_of(p, sequence) > 0 && at < p->sequences / 2 ? 1.0f : 0.0f;
    }
    if (is_dead(column)) return 0.0f;
    if (source_of(column) != column) return x_value(p, sequence, token, source_of(column));
    double size = column % 12 == 3 ? 50.0 : column % 5 == 1 ? 0.02 : 1.0;
    return (float)(size * rank_test_number(sequence, token, column));
}

static float xf_value(const problem *p, int64_t sequence, int64_t token, int64_t column)
{
    if (is_dead(column))
        return column % 18 == 4 ? 0.0f : (float)rank_test_number(sequence, token, column + 5000);
    double x = (double)x_value(p, sequence, token, column);
    return (float)(x + 0.3 * (x + 0.1) * rank_test_number(sequence, token, column + 9000));
}

/* The residual streams that the outputs are added to. */
static float h_value(int64_t sequence, int64_t token, int64_t output)
{
    return (float)rank_test_number(sequence, token, output + 20000);
}

static float hf_value(int64_t sequence, int64_t token, int64_t output)
{
    return h_value(sequence, token, output) +
           (float)(0.1 * rank_test_number(sequence, token, output + 30000));
}

/* Both streams of some sequences of a problem. */
typedef struct streams {
    float *x_data, *xf_data, *h_data, *hf_data;
    int64_t *first;
    double *alphas;
    snrq_activations x, xf, h, hf;
    snrq_unit_input input;
} streams;

/* with_first: say where sequences begin even if all have the same length. */
static void streams_create(const problem *p, snrq_range own, bool with_first, streams *out)
{
    int64_t count = own.end - own.begin, at = 0, output = 0;
    size_t outputs = (size_t)(count * longest(p) * OUTPUTS + 1);
    size_t cells = (size_t)(count * longest(p) * p->n + 1);
    *out = (streams){.x_data = malloc(cells * sizeof(float)),
                     .xf_data = malloc(cells * sizeof(float)),
                     .h_data = malloc(outputs * sizeof(float)),
                     .hf_data = malloc(outputs * sizeof(float)),
                     .first = calloc((size_t)count + 1, sizeof(int64_t)),
                     .alphas = calloc((size_t)count + 1, sizeof(double))};
    for (int64_t s = own.begin; s < own.end; s++) {
        for (int64_t t = 0; t < tokens_of(p, s); t++) {
            for (int64_t j = 0; j < p->n; j++, at++) {
                out->x_data[at] = x_value(p, s, t, j);
                out->xf_data[at] = xf_value(p, s, t, j);
            }
            for (int64_t j = 0; j < OUTPUTS; j++, output++) {
                out->h_data[output] = h_value(s, t, j);
                out->hf_data[output] = hf_value(s, t, j);
            }
        }
        out->first[s - own.begin + 1] = at / p->n;
    }
    snrq_sampled_alphas(p->rule.alpha_value, SEED, own, out->alphas);
    out->x = (snrq_activations){.sequences = count,
                                .tokens = p->tokens,
                                .columns = p->n,
                                .data = out->x_data,
                                .first = with_first || p->tokens == 0 ? out->first : NULL};
    out->xf = out->x;
    out->xf.data = out->xf_data;
    out->h = out->hf = out->x;
    out->h.columns = out->hf.columns = OUTPUTS;
    out->h.data = out->h_data;
    out->hf.data = out->hf_data;
    bool sampled = p->rule.alpha_mode == SNRQ_ALPHA_SAMPLED;
    out->input = (snrq_unit_input){.x = &out->x,
                                   .xf = &out->xf,
                                   .sequences_global = p->sequences,
                                   .alphas = sampled ? out->alphas : NULL,
                                   .h = &out->h,
                                   .hf = &out->hf,
                                   .residual_scale = 1.0};
}

static void streams_free(streams *s)
{
    free(s->x_data);
    free(s->xf_data);
    free(s->h_data);
    free(s->hf_data);
    free(s->first);
    free(s->alphas);
}

/* Fails on all ranks alike: the status is agreed. */
static void gather_statistics(const snrq_context *context, const problem *p, bool with_first,
                              snrq_statistics *out)
{
    streams in;
    snrq_range own = snrq_share(p->sequences, 1, context->size, context->rank);
    const snrq_team all = snrq_team_of_all(context);
    streams_create(p, own, with_first, &in);
    CU_ASSERT_EQUAL_FATAL(
        snrq_statistics_gather(context, &all, &p->rule, (snrq_process_shape){0}, &in.input, out),
        SNRQ_OK);
    streams_free(&in);
}

/* The whole matrix on every rank, [n, n] column-major; the caller frees it. */
static double *whole(const snrq_matrix *matrix)
{
    double *all = calloc((size_t)(matrix->rows * matrix->columns), sizeof *all);
    CU_ASSERT_EQUAL(snrq_matrix_broadcast_panel(matrix, 0, matrix->columns, 0, all), SNRQ_OK);
    return all;
}

/* ---- the twin: sums over all tokens in fp64, original order of columns ---- */

typedef struct twin {
    double *h, *d, *e;          /* [n, n] row-major */
    double *x_norms, *dx_norms; /* [n] ||x_j||, ||dx_j|| over all tokens times sqrt(2 / N) */
    double *shares;             /* [n] the same of a_s dx_j */
    int64_t tokens;
} twin;

/* G_ij += factor x_i y_j for all i, j. */
static void add_product(int64_t n, double factor, const double *x, const double *y, double *g)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) g[i * n + j] += factor * x[i] * y[j];
}

static void add_token(const problem *p, int64_t sequence, int64_t token, double a, twin *t)
{
    int64_t n = p->n;
    double factor = 2.0 / (double)p->sequences;
    double *x = calloc((size_t)n, sizeof *x), *dx = calloc((size_t)n, sizeof *dx);
    for (int64_t j = 0; j < n; j++) {
        x[j] = (double)x_value(p, sequence, token, j);
        dx[j] = (double)xf_value(p, sequence, token, j) - x[j];
        if (is_dead(j)) dx[j] = 0.0; /* no share in D and E */
        t->x_norms[j] += factor * x[j] * x[j];
        t->dx_norms[j] += factor * dx[j] * dx[j];
        t->shares[j] += factor * a * a * dx[j] * dx[j];
    }
    add_product(n, factor, x, x, t->h);
    add_product(n, factor * a, dx, x, t->d);
    add_product(n, factor, dx, dx, t->e);
    t->tokens++;
    free(x);
    free(dx);
}

static void twin_create(const problem *p, twin *t)
{
    size_t n = (size_t)p->n;
    double alphas[MOST_SEQUENCES];
    *t = (twin){calloc(n * n, sizeof(double)),
                calloc(n * n, sizeof(double)),
                calloc(n * n, sizeof(double)),
                calloc(n, sizeof(double)),
                calloc(n, sizeof(double)),
                calloc(n, sizeof(double)),
                0};
    snrq_sampled_alphas(p->rule.alpha_value, SEED, (snrq_range){0, p->sequences}, alphas);
    for (int64_t s = 0; s < p->sequences; s++)
        for (int64_t k = 0; k < tokens_of(p, s); k++)
            add_token(p, s, k, p->rule.alpha_mode == SNRQ_ALPHA_SAMPLED ? alphas[s] : 1.0, t);
    for (int64_t j = 0; j < p->n; j++) {
        t->x_norms[j] = sqrt(t->x_norms[j]);
        t->dx_norms[j] = sqrt(t->dx_norms[j]);
        t->shares[j] = sqrt(t->shares[j]);
        if (is_dead(j)) t->h[j * p->n + j] = 1.0;
    }
}

static void twin_free(twin *t)
{
    free(t->h);
    free(t->d);
    free(t->e);
    free(t->x_norms);
    free(t->dx_norms);
    free(t->shares);
}

/* ---- checks ---- */

/* Elements of a gathered Gram that are off by more than so many roundings of fp32 of their
 * Cauchy-Schwarz bound; where that is zero, the element must be the twin's. */
static int64_t count_wrong(const snrq_statistics *s, const snrq_matrix *found,
                           const double *expected, const double *row_norms,
                           const double *column_norms, int64_t roundings)
{
    int64_t n = s->columns, wrong = 0;
    double *all = whole(found);
    for (int64_t l = 0; l < n; l++)
        for (int64_t k = 0; k < n; k++) {
            int32_t i = s->order[k], j = s->order[l];
            double bound = (double)roundings * 0x1p-24 * row_norms[i] * column_norms[j];
            wrong += !(fabs(all[l * n + k] - expected[i * n + j]) <= bound);
        }
    free(all);
    return wrong;
}

/* A chunk of t tokens is an fp32 sum of t products: at most t roundings of the bound, and each
 * factor that is a difference is rounded, too. Sums over sequences are exact. */
static void check_values(const problem *p, const snrq_statistics *s)
{
    int64_t t = longest(p);
    twin expected;
    twin_create(p, &expected);
    CU_ASSERT_EQUAL(s->columns, p->n);
    CU_ASSERT_EQUAL(s->tokens, expected.tokens);
    CU_ASSERT_EQUAL(count_wrong(s, s->h, expected.h, expected.x_norms, expected.x_norms, t + 1), 0);
    CU_ASSERT_PTR_NOT_NULL(s->d);
    if (s->d != NULL)
        CU_ASSERT_EQUAL(count_wrong(s, s->d, expected.d, expected.shares, expected.x_norms, t + 2),
                        0);
    CU_ASSERT_EQUAL(s->e != NULL, p->rule.alpha_mode == SNRQ_ALPHA_CORR);
    if (s->e != NULL)
        CU_ASSERT_EQUAL(
            count_wrong(s, s->e, expected.e, expected.dx_norms, expected.dx_norms, t + 3), 0);
    twin_free(&expected);
}

/* C^T, rows in decision order; as many roundings as D. Only of rules that compensate. */
static void check_residual(const problem *p, const snrq_statistics *s)
{
    double factor = 2.0 / (double)p->sequences;
    int64_t wrong = 0, n = p->n;
    CU_ASSERT_EQUAL(s->c != NULL, p->rule.compensate > 0.0);
    if (s->c == NULL) return;
    double *all = whole(s->c);
    for (int64_t i = 0; i < OUTPUTS; i++)
        for (int64_t k = 0; k < n; k++) {
            double sum = 0.0, x_norm = 0.0, norm = 0.0;
            for (int64_t q = 0; q < p->sequences; q++)
                for (int64_t t = 0; t < tokens_of(p, q); t++) {
                    double x = (double)x_value(p, q, t, s->order[k]);
                    double e = (double)hf_value(q, t, i) - (double)h_value(q, t, i);
                    sum += factor * e * x;
                    norm += factor * e * e;
                    x_norm += factor * x * x;
                }
            double bound = (double)(longest(p) + 2) * 0x1p-24 * sqrt(norm * x_norm);
            wrong += !(fabs(all[i * n + k] - sum) <= bound);
        }
    CU_ASSERT_EQUAL(wrong, 0);
    free(all);
}

static void grams_have_the_values_of_their_definitions(void)
{
    for (int k = 0; k < PROBLEMS_COUNT; k++) {
        snrq_statistics s;
        gather_statistics(rank_test_world, &PROBLEMS[k], false, &s);
        check_values(&PROBLEMS[k], &s);
        check_residual(&PROBLEMS[k], &s);
        snrq_statistics_free(&s);
    }
}

/* Decision order by the definition, taken literally: position k has the column that k others come
 * before. diagonal: with dead inputs' 1. */
static int64_t position_by_definition(int64_t n, const double *diagonal, int64_t column)
{
    int64_t before = 0;
    for (int64_t j = 0; j < n; j++)
        before += diagonal[j] < diagonal[column] || (diagonal[j] == diagonal[column] && j < column);
    return before;
}

static void check_order(const problem *p, bool natural)
{
    int64_t wrong = 0, dead = 0, n = p->n;
    snrq_statistics s;
    twin t;
    gather_statistics(rank_test_world, p, false, &s);
    twin_create(p, &t);
    double *diagonal = calloc((size_t)n, sizeof *diagonal);
    for (int64_t j = 0; j < n; j++) diagonal[j] = t.h[j * n + j];
    CU_ASSERT_EQUAL(diagonal[UNIT_COLUMN], 1.0); /* ties with dead inputs, and the twins tie */
    CU_ASSERT_EQUAL(diagonal[7], diagonal[8]);
    for (int64_t k = 0; k < n; k++) {
        int64_t column = s.order[k];
        wrong += k != (natural ? column : position_by_definition(n, diagonal, column));
        wrong += s.dead[k] != is_dead(column);
        dead += is_dead(k);
    }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(s.dead_inputs, dead);
    CU_ASSERT_TRUE(dead >= 4);
    free(diagonal);
    twin_free(&t);
    snrq_statistics_free(&s);
}

static void columns_are_ordered_by_their_share_of_h(void)
{
    for (int k = 0; k < PROBLEMS_COUNT; k++) check_order(&PROBLEMS[k], false);
}

static void natural_order_and_rtn_keep_the_order_of_columns(void)
{
    problem p = PROBLEMS[1];
    p.rule.natural_order = true;
    check_order(&p, true);
    p.rule = (snrq_rule)RULE(SNRQ_RTN, SNRQ_ALPHA_FIXED, 0.5);
    check_order(&p, true);
}

/* Columns with H_jj = 1 by their tokens and dead ones are equals: the index decides. */
static void order_of_a_given_diagonal(void)
{
    const double diagonal[] = {3, 0, 1, 0.5, 0, 1, 3, 1e-300};
    const int32_t expected[] = {7, 3, 1, 2, 4, 5, 0, 6};
    const unsigned char dead[] = {0, 0, 1, 0, 1, 0, 0, 0};
    const snrq_rule rule = {.method = SNRQ_SNRQ};
    snrq_statistics s = {.columns = 8};
    CU_ASSERT_EQUAL(snrq_statistics_order(&rule, diagonal, &s), SNRQ_OK);
    CU_ASSERT_EQUAL(memcmp(s.order, expected, sizeof expected), 0);
    CU_ASSERT_EQUAL(memcmp(s.dead, dead, sizeof dead), 0);
    CU_ASSERT_EQUAL(s.dead_inputs, 2);
    snrq_statistics_free(&s);
}

/* Rows and columns of dead inputs: one on H's diagonal, else zero in H, D and E, to the bit. */
static void dead_inputs_have_no_share(void)
{
    snrq_statistics s;
    int64_t wrong = 0;
    gather_statistics(rank_test_world, &PROBLEMS[1], false, &s);
    int64_t n = s.columns;
    double *h = whole(s.h), *d = whole(s.d), *e = whole(s.e);
    for (int64_t l = 0; l < n; l++)
        for (int64_t k = 0; k < n; k++) {
            if (!is_dead(s.order[k]) && !is_dead(s.order[l])) continue;
            wrong += h[l * n + k] != (k == l ? 1.0 : 0.0);
            wrong += d[l * n + k] != 0.0 || e[l * n + k] != 0.0;
        }
    CU_ASSERT_EQUAL(wrong, 0);
    free(h);
    free(d);
    free(e);
    snrq_statistics_free(&s);
}

static bool same_bits(const snrq_matrix *a, const snrq_matrix *b)
{
    if (a == NULL || b == NULL) return a == b;
    double *x = whole(a), *y = whole(b);
    bool same = memcmp(x, y, (size_t)(a->rows * a->columns) * sizeof *x) == 0;
    free(x);
    free(y);
    return same;
}

static void expect_same_statistics(const snrq_statistics *a, const snrq_statistics *b)
{
    size_t n = (size_t)a->columns;
    CU_ASSERT_EQUAL(a->tokens, b->tokens);
    CU_ASSERT_EQUAL(a->dead_inputs, b->dead_inputs);
    CU_ASSERT_EQUAL(memcmp(a->order, b->order, n * sizeof *a->order), 0);
    CU_ASSERT_EQUAL(memcmp(a->dead, b->dead, n), 0);
    CU_ASSERT_TRUE(same_bits(a->h, b->h));
    CU_ASSERT_TRUE(same_bits(a->d, b->d));
    CU_ASSERT_TRUE(same_bits(a->e, b->e));
}

static void equal_lengths_have_the_same_bits_as_one_length(void)
{
    for (int k = 0; k < PROBLEMS_COUNT; k++) {
        snrq_statistics one, each;
        if (PROBLEMS[k].tokens == 0) continue;
        gather_statistics(rank_test_world, &PROBLEMS[k], false, &one);
        gather_statistics(rank_test_world, &PROBLEMS[k], true, &each);
        expect_same_statistics(&one, &each);
        snrq_statistics_free(&one);
        snrq_statistics_free(&each);
    }
}

/* Of different lengths, too; a rank alone has all sequences. */
static void same_bits_for_any_number_of_ranks(void)
{
    snrq_context *alone = rank_test_group(1);
    for (int k = 0; k < PROBLEMS_COUNT; k++) {
        snrq_statistics one, all;
        gather_statistics(alone, &PROBLEMS[k], false, &one);
        gather_statistics(rank_test_world, &PROBLEMS[k], false, &all);
        expect_same_statistics(&one, &all);
        snrq_statistics_free(&one);
        snrq_statistics_free(&all);
    }
    snrq_context_destroy(&alone);
}

/* Sequences without tokens are counted in N, whoever has them. */
static void n_counts_sequences(void)
{
    const problem *p = &PROBLEMS[1];
    snrq_range own = snrq_share(p->sequences, 1, rank_test_world->size, rank_test_world->rank);
    snrq_statistics s, twice;
    streams in;
    int64_t wrong = 0, n = p->n;
    gather_statistics(rank_test_world, p, false, &s);
    streams_create(p, own, false, &in);
    in.input.sequences_global *= 2; /* as if there were as many more, all empty */
    const snrq_team all = snrq_team_of_all(rank_test_world);
    CU_ASSERT_EQUAL_FATAL(snrq_statistics_gather(rank_test_world, &all, &p->rule,
                                                 (snrq_process_shape){0}, &in.input, &twice),
                          SNRQ_OK);
    CU_ASSERT_EQUAL(s.tokens, twice.tokens);
    double *h = whole(s.h), *half = whole(twice.h), *d = whole(s.d), *half_d = whole(twice.d);
    for (int64_t k = 0; k < n; k++)
        for (int64_t l = 0; l < n; l++) {
            bool dead = is_dead(s.order[k]);
            int64_t to_k = 0, to_l = 0; /* the order differs: dead inputs stay at one */
            while (twice.order[to_k] != s.order[k]) to_k++;
            while (twice.order[to_l] != s.order[l]) to_l++;
            double expected = dead && k == l ? 1.0 : 0.5 * h[l * n + k];
            wrong += half[to_l * n + to_k] != expected;
            wrong += half_d[to_l * n + to_k] != 0.5 * d[l * n + k];
        }
    CU_ASSERT_EQUAL(wrong, 0);
    free(h);
    free(half);
    free(d);
    free(half_d);
    streams_free(&in);
    snrq_statistics_free(&s);
    snrq_statistics_free(&twice);
}

/* ---- which rule needs what ---- */

static void rules_get_what_they_need_and_no_more(void)
{
    const struct {
        snrq_rule rule;
        bool d, e;
    } cases[] = {
        {RULE(SNRQ_RTN, SNRQ_ALPHA_FIXED, 0.5), false, false},
        {RULE(SNRQ_LDLQ, SNRQ_ALPHA_FIXED, 0.5), false, false},
        {RULE(SNRQ_GPTQ, SNRQ_ALPHA_FIXED, 0.5), false, false},
        {RULE(SNRQ_LDLQ, SNRQ_ALPHA_CORR, 0), false, false},
        {RULE(SNRQ_GPTAQ, SNRQ_ALPHA_FIXED, 0.25), true, false},
        {RULE(SNRQ_GPTAQ, SNRQ_ALPHA_FIXED, 0), false, false},
        {RULE(SNRQ_GPTAQ, SNRQ_ALPHA_SAMPLED, 5), true, false},
        {RULE(SNRQ_SNRQ, SNRQ_ALPHA_FIXED, 0.5), true, false},
        {RULE(SNRQ_SNRQ, SNRQ_ALPHA_FIXED, 0), false, false},
        {RULE(SNRQ_SNRQ, SNRQ_ALPHA_CHAINED, 0), true, false},
        {RULE(SNRQ_SNRQ, SNRQ_ALPHA_SAMPLED, 5), true, false},
        {RULE(SNRQ_SNRQ, SNRQ_ALPHA_CORR, 0), true, true},
        {RULE(SNRQ_KSNRQ, SNRQ_ALPHA_FIXED, 1), true, false},
        {RULE(SNRQ_KSNRQ, SNRQ_ALPHA_FIXED, 0), false, false},
        {RULE(SNRQ_KSNRQ, SNRQ_ALPHA_CHAINED, 0), true, false},
        {RULE(SNRQ_KSNRQ, SNRQ_ALPHA_CORR, 0), true, true},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        problem p = {.n = 37, .sequences = 2, .tokens = 3, .rule = cases[k].rule};
        snrq_statistics s;
        gather_statistics(rank_test_world, &p, false, &s);
        CU_ASSERT_PTR_NOT_NULL(s.h);
        CU_ASSERT_EQUAL(s.d != NULL, cases[k].d);
        CU_ASSERT_EQUAL(s.e != NULL, cases[k].e);
        snrq_statistics_free(&s);
    }
}

/* ---- sampled strengths ---- */

enum { SAMPLES = 20000 };

static void strengths_depend_on_seed_and_sequence_only(void)
{
    double all[100], part[100], other[100];
    int64_t wrong = 0, same = 0;
    snrq_sampled_alphas(5.0, SEED, (snrq_range){0, 100}, all);
    for (int64_t begin = 0; begin < 100; begin += 7) {
        snrq_range range = {begin, begin + 7 < 100 ? begin + 7 : 100};
        snrq_sampled_alphas(5.0, SEED, range, part);
        for (int64_t s = range.begin; s < range.end; s++) wrong += part[s - begin] != all[s];
    }
    CU_ASSERT_EQUAL(wrong, 0);
    snrq_sampled_alphas(5.0, SEED + 1, (snrq_range){0, 100}, other);
    for (int s = 0; s < 100; s++)
        for (int i = 0; i < 100; i++) same += other[s] == all[i] || (i != s && all[i] == all[s]);
    CU_ASSERT_EQUAL(same, 0);
}

/* P(a <= x) of a = min(u, 1 - u), u ~ Beta(B, B): twice that of u, by symmetry. For whole B that
 * is the chance that of 2 B - 1 numbers B or more are below x; for B = 1/2 the arcsine law. */
static double folded_below(double b, double x)
{
    const double pi = 3.141592653589793;
    double sum = 0.0, choices = 1.0;
    if (b == 0.5) return 4.0 / pi * asin(sqrt(x));
    int n = (int)(2.0 * b) - 1;
    for (int j = 0; j <= n; j++) {
        if (j >= (int)b) sum += choices * pow(x, j) * pow(1.0 - x, n - j);
        choices *= (double)(n - j) / (double)(j + 1);
    }
    return 2.0 * sum;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The largest distance of the samples' distribution from the one above (Kolmogorov-Smirnov). A
 * fair sample has more than 2.2 / sqrt(n) once in ten thousand times. */
static void check_distribution(double b, double *samples)
{
    double furthest = 0.0;
    qsort(samples, SAMPLES, sizeof *samples, ascending);
    CU_ASSERT_TRUE(samples[0] >= 0.0 && samples[SAMPLES - 1] <= 0.5);
    for (int k = 0; k < SAMPLES; k++) {
        double below = folded_below(b, samples[k]);
        furthest =
            fmax(furthest, fmax(below - k / (double)SAMPLES, (k + 1) / (double)SAMPLES - below));
    }
    CU_ASSERT_TRUE(furthest * sqrt(SAMPLES) < 2.2);
}

/* E|u - 1/2| = 2^(-2B) / (B Beta(B, B)) and E(u - 1/2)^2 = 1 / (4 (2B + 1)); a = 1/2 - |u - 1/2|.
 * Four standard deviations of a mean; of a variance, whose own is at most sqrt(2) times it for
 * laws with tails no heavier than the normal law's. */
static void check_moments(double b, const double *samples)
{
    double far = exp(-2.0 * b * log(2.0) + lgamma(2.0 * b) - 2.0 * lgamma(b)) / b;
    double mean = 0.5 - far, variance = 0.25 / (2.0 * b + 1.0) - far * far;
    double sum = 0.0, squares = 0.0;
    for (int k = 0; k < SAMPLES; k++) sum += samples[k] / SAMPLES;
    for (int k = 0; k < SAMPLES; k++) squares += (samples[k] - sum) * (samples[k] - sum) / SAMPLES;
    CU_ASSERT_TRUE(fabs(sum - mean) < 4.0 * sqrt(variance / SAMPLES));
    CU_ASSERT_TRUE(fabs(squares - variance) < 4.0 * variance * sqrt(2.0 / SAMPLES));
}

static void strengths_are_folded_beta_numbers(void)
{
    const double betas[] = {0.5, 1, 2, 5, 20};
    static double samples[SAMPLES];
    for (int k = 0; k < 5; k++) {
        snrq_sampled_alphas(betas[k], SEED, (snrq_range){0, SAMPLES}, samples);
        check_moments(betas[k], samples);
        check_distribution(betas[k], samples);
    }
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(grams_have_the_values_of_their_definitions),
        SNRQ_TEST(columns_are_ordered_by_their_share_of_h),
        SNRQ_TEST(natural_order_and_rtn_keep_the_order_of_columns),
        SNRQ_TEST(order_of_a_given_diagonal),
        SNRQ_TEST(dead_inputs_have_no_share),
        SNRQ_TEST(equal_lengths_have_the_same_bits_as_one_length),
        SNRQ_TEST(same_bits_for_any_number_of_ranks),
        SNRQ_TEST(n_counts_sequences),
        SNRQ_TEST(rules_get_what_they_need_and_no_more),
        SNRQ_TEST(strengths_depend_on_seed_and_sequence_only),
        SNRQ_TEST(strengths_are_folded_beta_numbers),
    };
    return rank_test_main(argc, argv, "statistics", tests, sizeof tests / sizeof *tests);
}
