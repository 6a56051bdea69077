/* Token windows: cutting and drawing. */
#include "io/tokenizer/windows.h"

#include "tests/unit/test_files.h"

static void fill(int32_t *ids, int64_t count)
{
    for (int64_t i = 0; i < count; i++) ids[i] = (int32_t)i;
}

static void consecutive_windows_follow_each_other_and_drop_the_rest(void)
{
    int32_t ids[11];
    snrq_windows windows;
    fill(ids, 11);
    if (!assert_ok(snrq_windows_consecutive("text", ids, 11, 0, 4, &windows))) return;
    CU_ASSERT_EQUAL(windows.count, 2);
    CU_ASSERT_EQUAL(windows.length, 4);
    CU_ASSERT_EQUAL(windows.total_tokens, 11);
    for (int i = 0; i < 8; i++) CU_ASSERT_EQUAL(windows.ids[i], i);
    snrq_windows_free(&windows);
    CU_ASSERT_PTR_NULL(windows.ids);
}

static void consecutive_windows_can_be_fewer_than_there_are(void)
{
    int32_t ids[11];
    snrq_windows windows;
    fill(ids, 11);
    if (!assert_ok(snrq_windows_consecutive("text", ids, 11, 1, 4, &windows))) return;
    CU_ASSERT_EQUAL(windows.count, 1);
    CU_ASSERT_EQUAL(windows.total_tokens, 11);
    snrq_windows_free(&windows);
}

static void too_short_a_text_is_refused_with_both_numbers(void)
{
    int32_t ids[8];
    snrq_windows windows;
    fill(ids, 8);
    assert_failed(snrq_windows_consecutive("book.txt", ids, 8, 0, 9, &windows), SNRQ_BAD_DATA,
                  "book.txt: 8 tokens, but one window is 9");
    assert_failed(snrq_windows_random("book.txt", ids, 8, 1, 9, 0, &windows), SNRQ_BAD_DATA,
                  "book.txt: 8 tokens, but one window is 9");
    assert_failed(snrq_windows_consecutive("book.txt", ids, 8, 3, 4, &windows), SNRQ_BAD_DATA,
                  "8 tokens make 2 windows of 4, but 3");
    snrq_windows_free(&windows);
}

static void senseless_numbers_are_usage_errors(void)
{
    int32_t ids[8];
    snrq_windows windows;
    fill(ids, 8);
    assert_failed(snrq_windows_consecutive("t", ids, 8, 1, 0, &windows), SNRQ_USAGE, "0 tokens");
    assert_failed(snrq_windows_consecutive("t", ids, 8, -1, 2, &windows), SNRQ_USAGE, "-1 of them");
    assert_failed(snrq_windows_random("t", ids, 8, 0, 2, 0, &windows), SNRQ_USAGE,
                  "0 random windows");
    assert_failed(snrq_windows_random("t", ids, 8, INT64_MAX / 2, 8, 0, &windows), SNRQ_USAGE,
                  "more than can be held");
}

/* With as many tokens as a window has there is one start; with one more there are two, both drawn.
 */
static void random_windows_reach_both_ends(void)
{
    int32_t ids[5];
    snrq_windows windows;
    int seen[2] = {0, 0};
    fill(ids, 5);
    if (!assert_ok(snrq_windows_random("t", ids, 5, 64, 4, 7, &windows))) return;
    for (int i = 0; i < 64; i++) {
        int32_t start = windows.ids[4 * i];
        CU_ASSERT_TRUE(start == 0 || start == 1);
        for (int j = 0; j < 4; j++) CU_ASSERT_EQUAL(windows.ids[4 * i + j], start + j);
        if (start == 0 || start == 1) seen[start]++;
    }
    CU_ASSERT_TRUE(seen[0] > 16 && seen[1] > 16);
    snrq_windows_free(&windows);
    if (!assert_ok(snrq_windows_random("t", ids, 4, 3, 4, 7, &windows))) return;
    for (int i = 0; i < 3; i++) CU_ASSERT_EQUAL(windows.ids[4 * i], 0);
    snrq_windows_free(&windows);
}

static void a_random_window_depends_on_seed_and_index_only(void)
{
    enum { TOTAL = 100000, LENGTH = 8 };
    static int32_t ids[TOTAL];
    snrq_windows few, many, other;
    fill(ids, TOTAL);
    if (!assert_ok(snrq_windows_random("t", ids, TOTAL, 5, LENGTH, 1, &few)) ||
        !assert_ok(snrq_windows_random("t", ids, TOTAL, 50, LENGTH, 1, &many)) ||
        !assert_ok(snrq_windows_random("t", ids, TOTAL, 50, LENGTH, 2, &other)))
        return;
    CU_ASSERT_EQUAL(memcmp(few.ids, many.ids, sizeof(int32_t) * 5 * LENGTH), 0);
    CU_ASSERT_NOT_EQUAL(memcmp(many.ids, other.ids, sizeof(int32_t) * 50 * LENGTH), 0);
    CU_ASSERT_STRING_NOT_EQUAL(few.fingerprint, many.fingerprint);
    CU_ASSERT_STRING_NOT_EQUAL(other.fingerprint, many.fingerprint);
    snrq_windows_free(&few);
    snrq_windows_free(&many);
    snrq_windows_free(&other);
}

/* Chi-square with 15 degrees of freedom: 99.99 % of true uniform samples stay below 44.3. */
static void random_starts_are_uniform(void)
{
    enum { CELLS = 16, DRAWS = 16000 };
    int32_t ids[CELLS];
    double chi = 0;
    int seen[CELLS] = {0};
    snrq_windows windows;
    fill(ids, CELLS);
    if (!assert_ok(snrq_windows_random("t", ids, CELLS, DRAWS, 1, 3, &windows))) return;
    for (int i = 0; i < DRAWS; i++) seen[windows.ids[i]]++;
    for (int i = 0; i < CELLS; i++) {
        double away = seen[i] - (double)DRAWS / CELLS;
        chi += away * away / ((double)DRAWS / CELLS);
    }
    CU_ASSERT_TRUE(chi < 44.3);
    snrq_windows_free(&windows);
}

/* The same ids in another shape, and other ids in the same shape, are other sets. */
static void the_fingerprint_covers_ids_and_shape(void)
{
    int32_t ids[8];
    snrq_windows a, b, c, again;
    fill(ids, 8);
    if (!assert_ok(snrq_windows_consecutive("t", ids, 8, 2, 4, &a)) ||
        !assert_ok(snrq_windows_consecutive("elsewhere", ids, 8, 0, 4, &again)) ||
        !assert_ok(snrq_windows_consecutive("t", ids, 8, 4, 2, &b)))
        return;
    ids[7] = 99;
    if (!assert_ok(snrq_windows_consecutive("t", ids, 8, 2, 4, &c))) return;
    CU_ASSERT_EQUAL(strlen(a.fingerprint), 32);
    CU_ASSERT_STRING_EQUAL(a.fingerprint, again.fingerprint);
    CU_ASSERT_STRING_NOT_EQUAL(a.fingerprint, b.fingerprint);
    CU_ASSERT_STRING_NOT_EQUAL(a.fingerprint, c.fingerprint);
    snrq_windows_free(&a);
    snrq_windows_free(&b);
    snrq_windows_free(&c);
    snrq_windows_free(&again);
}

/* The definition: a position is covered or not. */
static int64_t covered(const snrq_windows *windows, int64_t total)
{
    int64_t count = 0;
    unsigned char *seen = calloc((size_t)total, 1);
    for (int64_t i = 0; i < windows->count * windows->length; i++) seen[windows->ids[i]] = 1;
    for (int64_t i = 0; i < total; i++) count += seen[i];
    free(seen);
    return count;
}

/* Ids are positions here. */
static void positions_in_several_windows_count_once(void)
{
    enum { TOTAL = 1000 };
    static const struct {
        int64_t total, count, length;
    } cases[] = {{TOTAL, 1, 7},    {TOTAL, 5, 100},   {TOTAL, 64, 16}, {TOTAL, 500, 1},
                 {TOTAL, 40, 999}, {TOTAL, 3, TOTAL}, {60, 64, 50},    {2, 9, 1}};
    static int32_t ids[TOTAL];
    snrq_windows windows;
    fill(ids, TOTAL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (uint64_t seed = 0; seed < 5; seed++) {
            if (!assert_ok(snrq_windows_random("t", ids, cases[i].total, cases[i].count,
                                               cases[i].length, seed, &windows)))
                return;
            CU_ASSERT_EQUAL(windows.distinct, covered(&windows, cases[i].total));
            snrq_windows_free(&windows);
        }
    if (!assert_ok(snrq_windows_consecutive("t", ids, TOTAL, 0, 30, &windows))) return;
    CU_ASSERT_EQUAL(windows.distinct, 990);
    snrq_windows_free(&windows);
}

/* Held-out windows: of the text, sharing no token with others nor with each other; fewer than
 * wanted only if no other place is left. */
static void check_held_out(const snrq_windows *w, int64_t fitted, int64_t total, int64_t wanted)
{
    enum { MOST = 1000 };
    int used[MOST] = {0};
    int64_t free_run = 0, room = 0;
    CU_ASSERT_TRUE(w->count == fitted + w->held_out && w->held_out <= wanted);
    for (int64_t i = 0; i < w->count; i++)
        for (int64_t k = 0; k < w->length; k++) {
            int64_t at = w->start[i] + k;
            CU_ASSERT_EQUAL(w->ids[i * w->length + k], at);
            if (i >= fitted) CU_ASSERT_EQUAL(used[at], 0);
            used[at] = 1;
        }
    for (int64_t at = 0; at < total; at++) {
        free_run = used[at] ? 0 : free_run + 1;
        room += free_run == w->length;
    }
    CU_ASSERT_TRUE(w->held_out == wanted || room == 0);
}

static void held_out_windows_share_nothing_with_others(void)
{
    enum { TOTAL = 1000 };
    static int32_t ids[TOTAL];
    snrq_windows w;
    fill(ids, TOTAL);
    for (uint64_t seed = 0; seed < 20; seed++) {
        int64_t length = 5 + (int64_t)seed * 3, wanted = 1 + (int64_t)seed % 4;
        if (!assert_ok(snrq_windows_random("t", ids, TOTAL, 12, length, seed, &w))) return;
        int64_t distinct = w.distinct;
        if (!assert_ok(snrq_windows_hold_out(ids, TOTAL, wanted, &w))) return;
        check_held_out(&w, 12, TOTAL, wanted);
        CU_ASSERT_EQUAL(w.distinct, distinct);
        snrq_windows_free(&w);
    }
    if (!assert_ok(snrq_windows_consecutive("t", ids, TOTAL, 7, 100, &w))) return;
    if (!assert_ok(snrq_windows_hold_out(ids, TOTAL, 9, &w))) return;
    CU_ASSERT_EQUAL(w.held_out, 3);
    check_held_out(&w, 7, TOTAL, 9);
    snrq_windows_free(&w);
}

static void first_tokens_are_drawn_from_fitted_windows(void)
{
    enum { TOTAL = 4000, LENGTH = 200, FITTED = 10, HELD = 2, FIRST = 5 };
    static int32_t ids[TOTAL], before[(FITTED + HELD) * LENGTH];
    snrq_windows w;
    for (int i = 0; i < TOTAL; i++) ids[i] = i >= FITTED * LENGTH; /* 0 is fitted, 1 is not */
    if (!assert_ok(snrq_windows_consecutive("t", ids, TOTAL, FITTED, LENGTH, &w))) return;
    if (!assert_ok(snrq_windows_hold_out(ids, TOTAL, HELD, &w))) return;
    for (int64_t i = 0; i < FITTED * LENGTH; i++) w.ids[i] = i % 2 ? 0 : 2;
    memcpy(before, w.ids, sizeof before);
    int64_t distinct = w.distinct;
    if (!assert_ok(snrq_windows_add_first_tokens(FIRST, 1, &w))) return;
    CU_ASSERT_EQUAL(w.count, FITTED + FIRST + HELD);
    CU_ASSERT_EQUAL(w.first_tokens, FIRST);
    CU_ASSERT_EQUAL(w.held_out, HELD);
    CU_ASSERT_EQUAL(w.distinct, distinct);
    CU_ASSERT_EQUAL(memcmp(w.ids, before, FITTED * LENGTH * sizeof *ids), 0);
    CU_ASSERT_EQUAL(memcmp(w.ids + (FITTED + FIRST) * LENGTH, before + FITTED * LENGTH,
                           HELD * LENGTH * sizeof *ids),
                    0);
    int zeros = 0;
    for (int k = 0; k < FIRST; k++) {
        const int32_t *window = w.ids + (FITTED + k) * LENGTH;
        int here = 0;
        for (int t = 0; t < LENGTH; t++) {
            CU_ASSERT_TRUE(window[t] == 0 || window[t] == 2);
            here += window[t] == 0;
        }
        CU_ASSERT_TRUE(here > 50 && here < 150); /* 100 with a standard deviation of 7 */
        CU_ASSERT_NOT_EQUAL(memcmp(window, w.ids, LENGTH * sizeof *ids), 0);
        zeros += here;
    }
    CU_ASSERT_TRUE(zeros > 400 && zeros < 600);
    snrq_windows_free(&w);
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(consecutive_windows_follow_each_other_and_drop_the_rest),
        SNRQ_TEST(consecutive_windows_can_be_fewer_than_there_are),
        SNRQ_TEST(too_short_a_text_is_refused_with_both_numbers),
        SNRQ_TEST(senseless_numbers_are_usage_errors),
        SNRQ_TEST(random_windows_reach_both_ends),
        SNRQ_TEST(a_random_window_depends_on_seed_and_index_only),
        SNRQ_TEST(random_starts_are_uniform),
        SNRQ_TEST(the_fingerprint_covers_ids_and_shape),
        SNRQ_TEST(positions_in_several_windows_count_once),
        SNRQ_TEST(held_out_windows_share_nothing_with_others),
        SNRQ_TEST(first_tokens_are_drawn_from_fitted_windows),
    };
    int result = snrq_run_tests("windows", tests, sizeof tests / sizeof tests[0], 1);
    scratch_remove();
    return result;
}
