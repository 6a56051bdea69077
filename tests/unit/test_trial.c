/* Rows on trial: who stays, who is left out, and that all that belongs to a row goes with it. */
#include <stdlib.h>
#include <string.h>

#include "pipeline/rounding/trial.h"
#include "tests/snrq_test.h"

enum { N = 10, ROWS = 192, GROUPS = 2 };

/* Everything about a row says its number. */
typedef struct set {
    snrq_groups groups;
    snrq_rows rows;
    snrq_trial trial;
} set;

static void make_set(set *s)
{
    int32_t order[N];
    memset(s, 0, sizeof *s);
    for (int32_t k = 0; k < N; k++) order[k] = k;
    CU_ASSERT_EQUAL_FATAL(snrq_groups_create(order, N, N / GROUPS, true, &s->groups), SNRQ_OK);
    CU_ASSERT_EQUAL_FATAL(snrq_rows_create(ROWS, 8, &s->groups, &s->rows), SNRQ_OK);
    for (int64_t r = 0; r < ROWS; r++) {
        for (int64_t k = 0; k < N; k++) {
            s->rows.target[r * N + k] = (float)r;
            s->rows.codes[r * N + k] = (uint8_t)r;
        }
        for (int64_t g = 0; g < GROUPS; g++) {
            s->rows.scales[r * GROUPS + g] = (float)(r + 1);
            s->rows.zeros[r * GROUPS + g] = (uint8_t)r;
        }
        s->rows.costs[r] = 1000.0;
    }
    CU_ASSERT_EQUAL_FATAL(snrq_trial_create(&s->rows, &s->trial), SNRQ_OK);
}

static void free_set(set *s)
{
    snrq_trial_free(&s->trial);
    snrq_rows_free(&s->rows);
    snrq_groups_free(&s->groups);
}

static void check_row(const snrq_trial *t, int64_t i, int64_t wanted, float scale)
{
    CU_ASSERT_EQUAL(t->origin[i], wanted);
    for (int64_t k = 0; k < N; k++) {
        CU_ASSERT_EQUAL(t->rows.target[i * N + k], (float)wanted);
        CU_ASSERT_EQUAL(t->rows.codes[i * N + k], wanted);
    }
    CU_ASSERT_EQUAL(t->rows.scales[i * GROUPS + 1], scale);
    CU_ASSERT_EQUAL(t->rows.zeros[i * GROUPS], wanted);
}

/* From row `count` on: zero targets with scale 1, up to a whole tile. */
static void check_padding(const snrq_trial *t, int64_t count, int64_t rows)
{
    CU_ASSERT_EQUAL(t->count, count);
    CU_ASSERT_EQUAL(t->rows.rows, rows);
    for (int64_t i = count * N; i < rows * N; i++)
        CU_ASSERT(t->rows.target[i] == 0.0f && t->rows.codes[i] == 0);
    for (int64_t i = count * GROUPS; i < rows * GROUPS; i++)
        CU_ASSERT(t->rows.scales[i] == 1.0f && t->rows.zeros[i] == 0);
}

static void rows_with_new_scales_stay(void)
{
    set s;
    float scales[ROWS * GROUPS];
    make_set(&s);
    memcpy(scales, s.rows.scales, sizeof scales);
    for (int64_t r = 3; r < ROWS; r += 3) scales[r * GROUPS + 1] += 0.5f;
    snrq_trial_rescale(&s.trial, false, scales);
    check_padding(&s.trial, 63, 64);
    for (int64_t i = 0; i < s.trial.count; i++)
        check_row(&s.trial, i, 3 * (i + 1), (float)(3 * (i + 1) + 1) + 0.5f);
    for (int64_t r = 0; r < ROWS; r++)
        CU_ASSERT_EQUAL(s.rows.scales[r * GROUPS + 1], (float)(r + 1));
    free_set(&s);
}

static void better_rows_are_taken_over_and_stay(void)
{
    set s;
    snrq_gradient gradient = {calloc(ROWS * N, sizeof(float)), calloc(ROWS * N, 1),
                              calloc(ROWS, 1)};
    make_set(&s);
    for (int64_t r = 0; r < ROWS; r++) {
        s.trial.rows.costs[r] = r % 2 == 0 ? 1000.0 : (double)r;
        s.trial.rows.codes[r * N] = (uint8_t)(r + 1);
        s.trial.rows.scales[r * GROUPS] = 0.5f;
        for (int64_t k = 0; k < N; k++) {
            gradient.g[r * N + k] = (float)(r * N + k);
            gradient.before[r * N + k] = (uint8_t)r;
        }
        gradient.changes[r] = (uint8_t)r;
    }
    CU_ASSERT_EQUAL(snrq_trial_keep_better(&s.trial, &gradient, &s.rows), ROWS / 2);
    for (int64_t r = 0; r < ROWS; r++) {
        bool better = r % 2 == 1;
        CU_ASSERT_EQUAL(s.rows.costs[r], better ? (double)r : 1000.0);
        CU_ASSERT_EQUAL(s.rows.codes[r * N], better ? r + 1 : r);
        CU_ASSERT_EQUAL(s.rows.scales[r * GROUPS], better ? 0.5f : (float)(r + 1));
    }
    check_padding(&s.trial, ROWS / 2, 128);
    for (int64_t i = 0; i < ROWS / 2; i++) {
        CU_ASSERT_EQUAL(s.trial.origin[i], 2 * i + 1);
        CU_ASSERT_EQUAL(s.trial.rows.costs[i], (double)(2 * i + 1));
        CU_ASSERT_EQUAL(gradient.g[i * N + 4], (float)((2 * i + 1) * N + 4));
        CU_ASSERT_EQUAL(gradient.before[i * N + 4], 2 * i + 1);
        CU_ASSERT_EQUAL(gradient.changes[i], 2 * i + 1);
    }
    snrq_gradient_free(&gradient);
    free_set(&s);
}

/* A second time, rows are found where they are now. */
static void rows_that_moved_are_still_known(void)
{
    set s;
    make_set(&s);
    for (int64_t r = 0; r < ROWS; r++) s.trial.rows.costs[r] = r < 100 ? 2000.0 : 500.0;
    CU_ASSERT_EQUAL(snrq_trial_keep_better(&s.trial, NULL, &s.rows), 92);
    for (int64_t i = 0; i < s.trial.count; i++) s.trial.rows.costs[i] = i == 20 ? 400.0 : 600.0;
    CU_ASSERT_EQUAL(snrq_trial_keep_better(&s.trial, NULL, &s.rows), 1);
    CU_ASSERT_EQUAL(s.trial.origin[0], 120);
    for (int64_t r = 0; r < ROWS; r++)
        CU_ASSERT_EQUAL(s.rows.costs[r], r < 100 ? 1000.0 : r == 120 ? 400.0 : 500.0);
    CU_ASSERT_EQUAL(snrq_trial_keep_better(&s.trial, NULL, &s.rows), 0);
    check_padding(&s.trial, 0, 0);
    free_set(&s);
}

int main(void)
{
    static const snrq_test tests[] = {SNRQ_TEST(rows_with_new_scales_stay),
                                      SNRQ_TEST(better_rows_are_taken_over_and_stay),
                                      SNRQ_TEST(rows_that_moved_are_still_known)};
    return snrq_run_tests("trial", tests, sizeof tests / sizeof *tests, 1);
}
