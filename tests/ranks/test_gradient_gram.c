/* Grams of gradients: what fp64 sums give, the same bits for any ranks and batches, and refusals.
 */
#include "pipeline/model/gradient_gram.h"

#include <math.h>
#include <string.h>

#include "tests/ranks/rank_files.h"

enum { SEQUENCES = 6, LONGEST = 411, SIDE = SNRQ_GRADIENT_ROWS, TILE = SNRQ_GRADIENT_TILE };

/* One unit of two modules, of 70 and 64 rows: three tiles. */
enum { FIRST = 70, SECOND = 64, ROWS = FIRST + SECOND, TILES = 3 };
static snrq_module_shape module[] = {{.name = "first", .rows = FIRST},
                                     {.name = "second", .rows = SECOND, .row = FIRST}};
static snrq_unit_shape unit[] = {{.first = 0, .end = 2, .rows = ROWS, .expert = -1}};
static const snrq_family family = {.modules = 2, .units = 1, .module = module, .unit = unit};

/* Sequence s has so many rows; one has none. */
static int64_t length(int64_t s)
{
    return s == 2 ? 0 : LONGEST - 70 * s;
}

static float gradient(int64_t s, int64_t t, int64_t row)
{
    return (float)(rank_test_number(s, t, row) * pow(10.0, (double)(row % 7) - 5.0));
}

/* Adds sequences [begin, end) in batches of so many. */
static snrq_status add(snrq_gradient_gram *gram, int64_t begin, int64_t end, int64_t batch,
                       float spoil)
{
    static float g[SEQUENCES * LONGEST * ROWS];
    for (int64_t s = begin; s < end; s += batch) {
        int64_t first[SEQUENCES + 1] = {0}, count = end - s < batch ? end - s : batch;
        for (int64_t k = 0; k < count; k++) {
            for (int64_t t = 0; t < length(s + k); t++)
                for (int64_t r = 0; r < ROWS; r++)
                    g[(first[k] + t) * ROWS + r] = gradient(s + k, t, r);
            first[k + 1] = first[k] + length(s + k);
        }
        if (spoil != 0.0f) g[80] = spoil;
        SNRQ_TRY(snrq_gradient_gram_add(gram, 0, count, first, g));
    }
    return SNRQ_OK;
}

/* g' g of every token, of both modules, in whatever batches they come. */
static void squares_are_those_of_each_token(void)
{
    for (int64_t batch = 1; batch <= 4; batch += 3) {
        snrq_gradient_gram gram;
        int64_t at = 0;
        double worst = 0.0;
        assert_ok(snrq_gradient_gram_create(&family, SEQUENCES * LONGEST, &gram));
        assert_ok(add(&gram, 0, SEQUENCES, batch, 0.0f));
        for (int64_t s = 0; s < SEQUENCES; s++)
            for (int64_t t = 0; t < length(s); t++, at++) {
                double sum[2] = {0.0, 0.0};
                for (int64_t r = 0; r < ROWS; r++)
                    sum[r >= FIRST] += (double)gradient(s, t, r) * (double)gradient(s, t, r);
                for (int m = 0; m < 2; m++)
                    worst = fmax(worst, fabs(gram.squares[m * gram.tokens + at] / sum[m] - 1.0));
            }
        CU_ASSERT_EQUAL(gram.added[0], at);
        CU_ASSERT_TRUE(worst < 1e-6);
        snrq_gradient_gram_free(&gram);
    }
}

static void more_tokens_than_there_are_and_experts(void)
{
    snrq_gradient_gram gram;
    assert_ok(snrq_gradient_gram_create(&family, LONGEST - 1, &gram));
    assert_failed(add(&gram, 0, 1, 1, 0.0f), SNRQ_INTERNAL, "gradients of 411 tokens");
    snrq_gradient_gram_free(&gram);
    unit[0].expert = 0; /* it is sent some tokens, and has no squares */
    assert_ok(snrq_gradient_gram_create(&family, 1, &gram));
    assert_ok(add(&gram, 0, 1, 1, 0.0f));
    snrq_gradient_gram_free(&gram);
    unit[0].expert = -1;
}

/* means [TILES, 64, 64] of all sequences, as all ranks of `c` compute them together; each rank has
 * its own tiles of them. */
static void compute(const snrq_context *c, int64_t batch, float *means)
{
    snrq_gradient_gram gram;
    static snrq_fixed total[TILES * TILE];
    snrq_range mine = snrq_share(SEQUENCES, 1, c->size, c->rank);
    memset(means, 0, TILES * TILE * sizeof *means);
    memset(total, 0, sizeof total);
    assert_ok(snrq_gradient_gram_create(&family, SEQUENCES * LONGEST, &gram));
    assert_ok(add(&gram, mine.begin, mine.end, batch, 0.0f));
    assert_ok(snrq_gradient_gram_collect(c, &gram, total));
    int64_t at = 0;
    for (int m = 0; m < 2; m++) {
        snrq_range tiles = snrq_gradient_gram_share(c, &gram, m);
        int64_t count = (tiles.end - tiles.begin) * TILE;
        snrq_gradient_means(total + at, tiles.end - tiles.begin, 1000,
                            means + (gram.first[m] + tiles.begin) * TILE);
        at += count;
    }
    snrq_gradient_gram_free(&gram);
}

/* Of rows i and j of the unit. */
static double expected(int64_t i, int64_t j)
{
    double sum = 0.0;
    for (int64_t s = 0; s < SEQUENCES; s++)
        for (int64_t t = 0; t < length(s); t++)
            sum += (double)gradient(s, t, i) * (double)gradient(s, t, j);
    return sum / 1000.0;
}

static void agrees_with_sums_in_fp64(void)
{
    static float means[TILES * TILE];
    const int64_t row[TILES] = {0, SIDE, FIRST}, rows[TILES] = {SIDE, FIRST - SIDE, SECOND};
    snrq_context *alone = rank_test_group(1);
    compute(alone, 2, means);
    double worst = 0.0;
    for (int t = 0; t < TILES; t++)
        for (int64_t i = 0; i < SIDE; i += 3)
            for (int64_t j = 0; j < SIDE; j += 5) {
                double found = (double)means[t * TILE + i * SIDE + j];
                if (i >= rows[t] || j >= rows[t]) {
                    CU_ASSERT_EQUAL(found, 0.0);
                    continue;
                }
                double scale =
                    sqrt(expected(row[t] + i, row[t] + i)) * sqrt(expected(row[t] + j, row[t] + j));
                worst = fmax(worst, fabs(found - expected(row[t] + i, row[t] + j)) / scale);
            }
    CU_ASSERT_TRUE(worst < 2e-6);
    snrq_context_destroy(&alone);
}

static void bits_depend_on_neither_ranks_nor_batches(void)
{
    static float by_one[TILES * TILE], found[TILES * TILE];
    snrq_context *alone = rank_test_group(1);
    compute(alone, SEQUENCES, by_one);
    for (int64_t batch = 1; batch <= 3; batch++) {
        compute(rank_test_world, batch, found);
        for (int64_t i = 0; i < TILES * TILE; i++) /* 0: of another rank */
            if (found[i] != 0.0f && found[i] != by_one[i]) {
                CU_FAIL("a mean differs");
                break;
            }
        for (int t = 0; t < TILES; t++) { /* every tile is somebody's */
            double there = (double)fabsf(found[t * TILE]);
            CU_ASSERT_EQUAL(snrq_max_double(rank_test_world, &there, 1), SNRQ_OK);
            CU_ASSERT_EQUAL(there, (double)fabsf(by_one[t * TILE]));
        }
    }
    snrq_context_destroy(&alone);
}

static void what_cannot_be_added_is_refused(void)
{
    const float spoilt[] = {NAN, INFINITY, -INFINITY, 1e7f, 1e25f};
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        snrq_gradient_gram gram;
        assert_ok(snrq_gradient_gram_create(&family, SEQUENCES * LONGEST, &gram));
        assert_failed(add(&gram, 0, 1, 1, spoilt[i]), SNRQ_BAD_DATA,
                      "second: the gradients of its outputs are not finite, or larger");
        snrq_gradient_gram_free(&gram);
    }
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {SNRQ_TEST(agrees_with_sums_in_fp64),
                               SNRQ_TEST(bits_depend_on_neither_ranks_nor_batches),
                               SNRQ_TEST(squares_are_those_of_each_token),
                               SNRQ_TEST(more_tokens_than_there_are_and_experts),
                               SNRQ_TEST(what_cannot_be_added_is_refused)};
    return rank_test_main(argc, argv, "gradient_gram", tests, sizeof tests / sizeof *tests);
}
