/* Weights of tokens: the formula, windows that the file does not have, tokens that stand alone. */
#include "pipeline/token_weights.h"

#include <math.h>
#include <string.h>

#include "tests/ranks/rank_files.h"

enum { WINDOWS = 3, LENGTH = 4, TOKENS = WINDOWS * LENGTH, ALL = 6, MODULES = 3 };

/* A unit of two modules, and one of an expert. */
static snrq_module_shape module[] = {{.name = "self_attn.k_proj", .rows = 5},
                                     {.name = "self_attn.v_proj", .rows = 5, .row = 5},
                                     {.name = "mlp.experts.0.down_proj", .rows = 5, .unit = 1}};
static snrq_unit_shape unit[] = {{.first = 0, .end = 2, .rows = 10, .expert = -1},
                                 {.first = 2, .end = 3, .rows = 5, .expert = 0}};
static const snrq_family family = {.modules = MODULES, .units = 2, .module = module, .unit = unit};

/* The second module's squares are a thousand times as large; one token has most of all. */
static const float squares[2][TOKENS] = {{4, 1, 1, 1, 9, 0, 1, 1, 0, 1, 1, 0},
                                         {1e3f, 1e3f, 0, 0, 1e3f, 0, 0, 0, 0, 8e3f, 0, 0}};

static int32_t ids[ALL * LENGTH];

/* Windows 0 to 2 are the file's, 3 is another, 4 is of tokens that stand alone, 5 is held out. */
static snrq_windows windows_of_run(void)
{
    for (int i = 0; i < ALL * LENGTH; i++) ids[i] = 7 * i + 3;
    return (snrq_windows){
        .count = ALL, .length = LENGTH, .held_out = 1, .first_tokens = 1, .ids = ids};
}

static snrq_status write_file(const char *path, const snrq_windows *windows)
{
    snrq_sensitivity_facts facts = {.tokens = TOKENS, .length = LENGTH};
    snrq_sensitivity_module modules[MODULES] = {0};
    snrq_sensitivity_writer *writer = NULL;
    const float tile[SNRQ_SENSITIVITY_TILE] = {0};
    memset(facts.model, 'a', sizeof facts.model - 1);
    for (int m = 0; m < MODULES; m++) {
        snrq_module_name(0, module[m].name, modules[m].name, sizeof modules[m].name);
        modules[m].rows = module[m].rows;
        modules[m].all_tokens = m < 2;
    }
    SNRQ_TRY(snrq_sensitivity_create(rank_test_world, path, &facts, modules, MODULES, &writer));
    snrq_status status = SNRQ_OK;
    if (rank_test_world->rank == 0)
        status = snrq_sensitivity_put_ids(writer, (snrq_range){0, WINDOWS}, windows->ids);
    for (int m = 0; rank_test_world->rank == 0 && status == SNRQ_OK && m < MODULES; m++) {
        status = snrq_sensitivity_put(writer, m, (snrq_range){0, 1}, tile);
        if (status == SNRQ_OK && m < 2)
            status = snrq_sensitivity_put_squares(writer, m, (snrq_range){0, WINDOWS}, squares[m]);
    }
    return snrq_sensitivity_finish(&writer, status);
}

/* The definition. */
static void expected_weights(double *w)
{
    double mean = 0.0;
    for (int t = 0; t < TOKENS; t++) {
        double sums[2] = {0.0, 0.0}, e = 0.0;
        for (int m = 0; m < 2; m++) {
            for (int k = 0; k < TOKENS; k++) sums[m] += (double)squares[m][k];
            e += (double)squares[m][t] / (sums[m] / TOKENS);
        }
        w[t] = sqrt(e);
        mean += w[t] / TOKENS;
    }
    for (int t = 0; t < TOKENS; t++) w[t] /= mean;
}

static void read_all(const snrq_row_grams *grams, const snrq_windows *windows)
{
    double w[TOKENS];
    float *roots = NULL;
    expected_weights(w);
    const double first = fmax((w[0] + w[LENGTH] + w[2 * LENGTH]) / WINDOWS, 1.0);
    for (int t = 0; t < TOKENS; t += LENGTH) w[t] = fmax(w[t], 1.0);
    for (int64_t begin = 0; begin < ALL; begin++) {
        const snrq_range mine = {begin, ALL};
        if (!assert_ok(snrq_token_weights_read(grams, &family, 0, 0, windows, mine, &roots)))
            return;
        for (int64_t at = begin * LENGTH; at < ALL * LENGTH; at++) {
            const double other = at / LENGTH == 4 ? first : 1.0;
            const double root = (double)roots[at - begin * LENGTH];
            CU_ASSERT_DOUBLE_EQUAL(root * root, at < TOKENS ? w[at] : other, 1e-6);
        }
        free(roots);
    }
    assert_ok(snrq_token_weights_read(grams, &family, 0, 1, windows, (snrq_range){0, ALL}, &roots));
    CU_ASSERT_PTR_NULL(roots);
}

static void weights_are_roots_of_mean_squares(void)
{
    rank_files_begin();
    snrq_windows windows = windows_of_run();
    snrq_row_grams grams = {0};
    const char *path = scratch_path("s.h5");
    assert_ok(write_file(path, &windows));
    assert_ok(snrq_sensitivity_open(path, &grams.file));
    assert_ok(snrq_token_weights_match(&windows, &grams));
    CU_ASSERT_EQUAL(grams.weighted_tokens, TOKENS);
    read_all(&grams, &windows);
    snrq_row_grams_close(&grams);
    rank_files_end();
}

static void other_windows_have_no_weights(void)
{
    rank_files_begin();
    snrq_windows windows = windows_of_run();
    snrq_row_grams grams = {0};
    float *roots = NULL;
    const char *path = scratch_path("s.h5");
    assert_ok(snrq_token_weights_match(&windows, &grams)); /* no file */
    CU_ASSERT_EQUAL(grams.weighted_tokens, 0);
    assert_ok(write_file(path, &windows));
    assert_ok(snrq_sensitivity_open(path, &grams.file));
    windows.count = WINDOWS + 1; /* two of them are no texts to fit to */
    assert_ok(snrq_token_weights_match(&windows, &grams));
    CU_ASSERT_EQUAL(grams.weighted_tokens, 2 * LENGTH);
    windows = windows_of_run();
    ids[TOKENS - 1]++;
    assert_ok(snrq_token_weights_match(&windows, &grams));
    CU_ASSERT_EQUAL(grams.weighted_tokens, 2 * LENGTH);
    windows.length = 2;
    assert_ok(snrq_token_weights_match(&windows, &grams));
    CU_ASSERT_EQUAL(grams.weighted_tokens, 0);
    windows = windows_of_run();
    ids[1]++;
    assert_ok(snrq_token_weights_match(&windows, &grams));
    CU_ASSERT_EQUAL(grams.weighted_tokens, 0);
    assert_ok(
        snrq_token_weights_read(&grams, &family, 0, 0, &windows, (snrq_range){0, ALL}, &roots));
    CU_ASSERT_PTR_NULL(roots);
    snrq_row_grams_close(&grams);
    rank_files_end();
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {SNRQ_TEST(weights_are_roots_of_mean_squares),
                               SNRQ_TEST(other_windows_have_no_weights)};
    return rank_test_main(argc, argv, "token_weights", tests, sizeof tests / sizeof *tests);
}
