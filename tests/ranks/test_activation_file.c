/* Activations between two blocks: any number of ranks writes the same bytes and reads what any
 * other number wrote; damage is found, never believed, and never crashes the reader. */
#include "io/checkpoint/activation_file.h"

#include "tests/ranks/rank_files.h"

enum { WINDOWS = 5, TOKENS = 3, HIDDEN = 4, ROW = TOKENS * HIDDEN };

static const snrq_activation_facts good = {.block = 7,
                                           .record = "0123456789abcdef0123456789abcdef",
                                           .windows = WINDOWS,
                                           .tokens = TOKENS,
                                           .hidden = HIDDEN};

/* Both streams of all windows. */
static float quantized[WINDOWS * ROW], full[WINDOWS * ROW];

static void fill(void)
{
    for (int i = 0; i < WINDOWS * ROW; i++) {
        quantized[i] = (float)rank_test_number(i, 1, 2);
        full[i] = (float)rank_test_number(i, 3, 4);
    }
}

static snrq_status write_file(const snrq_context *c, const char *path,
                              const snrq_activation_facts *facts)
{
    snrq_range mine = snrq_share(WINDOWS, 1, c->size, c->rank);
    return snrq_activation_file_write(c, path, facts, mine, quantized + mine.begin * ROW,
                                      full + mine.begin * ROW);
}

/* Reads windows; those that are read must be what was written. */
static snrq_status read_file(const char *path, const snrq_activation_facts *facts, snrq_range range)
{
    float q[WINDOWS * ROW], f[WINDOWS * ROW];
    size_t bytes = (size_t)(range.end - range.begin) * ROW * sizeof *q;
    SNRQ_TRY(snrq_activation_file_read(path, facts, range, q, f));
    CU_ASSERT_EQUAL(memcmp(q, quantized + range.begin * ROW, bytes), 0);
    CU_ASSERT_EQUAL(memcmp(f, full + range.begin * ROW, bytes), 0);
    return SNRQ_OK;
}

static void any_windows_can_be_read(void)
{
    rank_files_begin();
    fill();
    const char *path = scratch_path("a.h5");
    assert_ok(write_file(rank_test_world, path, &good));
    for (int64_t begin = 0; begin <= WINDOWS; begin++)
        for (int64_t end = begin; end <= WINDOWS; end++)
            assert_ok(read_file(path, &good, (snrq_range){begin, end}));
    assert_ok(snrq_activation_file_check(path));
    CU_ASSERT_TRUE(file_size(path) > snrq_activation_file_bytes(WINDOWS, TOKENS, HIDDEN));
    rank_files_end();
}

static void bytes_do_not_depend_on_ranks(void)
{
    char by_all[33] = "", by_one[33] = "", path[PATH_MAX];
    uint64_t bytes;
    rank_files_begin();
    fill();
    assert_ok(write_file(rank_test_world, scratch_path("all.h5"), &good));
    snrq_context *alone = rank_test_group(1);
    snprintf(path, sizeof path, "%s/one-%d.h5", scratch(), rank_test_world->rank);
    assert_ok(write_file(alone, path, &good));
    assert_ok(snrq_file_hash(scratch_path("all.h5"), by_all, &bytes));
    assert_ok(snrq_file_hash(path, by_one, &bytes));
    CU_ASSERT_STRING_EQUAL(by_all, by_one);
    snrq_context_destroy(&alone);
    rank_files_end();
}

static void activations_of_something_else_are_refused(void)
{
    const snrq_range all = {0, WINDOWS};
    snrq_activation_facts other = good;
    rank_files_begin();
    fill();
    const char *path = scratch_path("a.h5");
    assert_ok(write_file(rank_test_world, path, &good));
    other.block = 6;
    assert_failed(read_file(path, &other, all), SNRQ_BAD_DATA, "belongs to block 7");
    other = good;
    other.record[31] = 'e';
    assert_failed(read_file(path, &other, all), SNRQ_BAD_DATA, "a.h5: belongs to block 7");
    other = good;
    other.windows = WINDOWS - 1;
    assert_failed(read_file(path, &other, (snrq_range){0, 1}), SNRQ_BAD_DATA, "expected 4 of");
    other = good;
    other.tokens = 2 * TOKENS;
    other.hidden = HIDDEN / 2;
    assert_failed(read_file(path, &other, (snrq_range){0, 1}), SNRQ_BAD_DATA, "of 6 of 2");
    assert_failed(read_file(scratch_path("none.h5"), &good, all), SNRQ_NO_INPUT, "none.h5");
    rank_files_end();
}

/* In a child: two bits of every byte. Reports each byte before it is damaged; exits with what went
 * wrong. */
static void flip_and_read(const char *path, long end, int report)
{
    int found = 0, harmless = 0;
    for (long at = 0; at < end; at += FLIP_STEP) {
        if (write(report, &at, sizeof at) != (ssize_t)sizeof at) _exit(2);
        for (int turn = 0; turn < 2; turn++) {
            int bit = (int)(at + 3 * turn) % 8;
            flip_bit(path, at, bit);
            /* what is read in spite of a flipped bit is compared with what was written */
            read_file(path, &good, (snrq_range){0, WINDOWS}) == SNRQ_OK ? harmless++ : found++;
            flip_bit(path, at, bit);
        }
    }
    /* every bit of the data and their hashes is found */
    if (FLIP_STEP * found < 2 * snrq_activation_file_bytes(WINDOWS, TOKENS, HIDDEN)) _exit(3);
    _exit(CU_get_number_of_failures() > 0 ? 4 : 0);
}

static void a_flipped_bit_is_found_or_changes_nothing(void)
{
    char path[PATH_MAX];
    rank_files_begin();
    fill();
    snprintf(path, sizeof path, "%s", scratch_path("a.h5"));
    assert_ok(write_file(rank_test_world, path, &good));
    if (rank_test_world->size == 1) /* the reader is the same for any number */
        flip_in_child(flip_and_read, path);
    rank_files_end();
}

static void a_file_that_is_cut_is_refused(void)
{
    char path[PATH_MAX];
    rank_files_begin();
    fill();
    snprintf(path, sizeof path, "%s", scratch_path("a.h5"));
    assert_ok(write_file(rank_test_world, path, &good));
    for (long left = file_size(path) - 1; left >= 0 && rank_test_world->rank == 0; left -= 7) {
        CU_ASSERT_EQUAL(truncate(path, left), 0);
        bool refused = read_file(path, &good, (snrq_range){0, WINDOWS}) != SNRQ_OK &&
                       snrq_activation_file_check(path) != SNRQ_OK;
        CU_ASSERT_TRUE(refused);
    }
    rank_files_end();
}

static void windows_that_change_places_are_found(void)
{
    char path[PATH_MAX], *data = NULL;
    size_t bytes = 0, row = ROW * sizeof(float);
    rank_files_begin();
    fill();
    snprintf(path, sizeof path, "%s", scratch_path("a.h5"));
    assert_ok(write_file(rank_test_world, path, &good));
    if (rank_test_world->rank == 0 && assert_ok(snrq_file_read(path, 1 << 20, &data, &bytes))) {
        char *first = NULL, *second = NULL;
        for (size_t i = 0; i + row <= bytes; i++) {
            if (memcmp(data + i, full, row) == 0) first = data + i;
            if (memcmp(data + i, full + ROW, row) == 0) second = data + i;
        }
        CU_ASSERT_FALSE(first == NULL || second == NULL);
        if (first != NULL && second != NULL) {
            memcpy(first, full + ROW, row);
            memcpy(second, full, row);
            assert_ok(snrq_file_replace(path, data, bytes));
            assert_failed(read_file(path, &good, (snrq_range){0, 1}), SNRQ_BAD_DATA,
                          "window 0 is damaged");
            assert_failed(snrq_activation_file_check(path), SNRQ_BAD_DATA, "window 0 is damaged");
            assert_ok(read_file(path, &good, (snrq_range){2, WINDOWS}));
        }
    }
    free(data);
    rank_files_end();
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(any_windows_can_be_read),
        SNRQ_TEST(bytes_do_not_depend_on_ranks),
        SNRQ_TEST(activations_of_something_else_are_refused),
        SNRQ_TEST(a_flipped_bit_is_found_or_changes_nothing),
        SNRQ_TEST(a_file_that_is_cut_is_refused),
        SNRQ_TEST(windows_that_change_places_are_found),
    };
    return rank_test_main(argc, argv, "activation_file", tests, sizeof tests / sizeof *tests);
}
