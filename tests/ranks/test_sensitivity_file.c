/* Sensitivities of modules: any number of ranks writes the same bytes, any tiles can be read, and
 * what is no Gram matrix is refused, as damage is. */
#include "io/checkpoint/sensitivity_file.h"

#include <math.h>

#include "tests/ranks/rank_files.h"

enum {
    MODULES = 3,
    SIDE = SNRQ_SENSITIVITY_ROWS,
    TILE = SNRQ_SENSITIVITY_TILE,
    MOST_TILES = 3,
    TOKENS = 15,
    LENGTH = 5
};

static const snrq_sensitivity_module modules[MODULES] = {
    {"model.layers.0.self_attn.q_proj", 130, true},
    {"model.layers.0.self_attn.k_proj", 64, true},
    {"model.layers.0.mlp.experts.0.down_proj", 7, false}};
static const snrq_sensitivity_facts good = {
    .tokens = TOKENS, .length = LENGTH, .seed = -5, .model = "0123456789abcdef0123456789abcdef"};

/* Tiles of a module: symmetric, zero beyond the last row. */
static void fill(int module, float *data)
{
    for (int64_t t = 0; t < snrq_sensitivity_tiles(modules[module].rows); t++)
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++) {
                bool there = SIDE * t + (i > j ? i : j) < modules[module].rows;
                double x = rank_test_number(module, t, i < j ? i * SIDE + j : j * SIDE + i);
                data[t * TILE + i * SIDE + j] = there ? (float)(i == j ? fabs(x) : x) : 0.0f;
            }
}

static void fill_squares(int module, float *squares)
{
    for (int t = 0; t < TOKENS; t++)
        squares[t] = (float)fabs(rank_test_number(module, MOST_TILES, t));
}

/* A rank's windows of the squares of a module; `spoil` is added to the last one's first. */
static snrq_status put_squares(const snrq_context *c, snrq_sensitivity_writer *writer, int module,
                               float spoil)
{
    const snrq_range mine = snrq_share(TOKENS / LENGTH, 1, c->size, c->rank);
    float squares[TOKENS];
    fill_squares(module, squares);
    squares[TOKENS - LENGTH] += spoil;
    return snrq_sensitivity_put_squares(writer, module, mine, squares + mine.begin * LENGTH);
}

/* `spoil` is added to a number of the first tile of module 2, or, with at = -1, to a square of
 * module 1. */
static snrq_status write_file(const snrq_context *c, const char *path, int at, float spoil)
{
    float data[MOST_TILES * TILE];
    snrq_sensitivity_writer *writer = NULL;
    SNRQ_TRY(snrq_sensitivity_create(c, path, &good, modules, MODULES, &writer));
    int32_t ids[TOKENS];
    for (int t = 0; t < TOKENS; t++) ids[t] = 1000 - t;
    const snrq_range windows = snrq_share(TOKENS / LENGTH, 1, c->size, c->rank);
    snrq_status status = snrq_sensitivity_put_ids(writer, windows, ids + windows.begin * LENGTH);
    for (int m = MODULES - 1; m >= 0 && status == SNRQ_OK; m--) { /* in any order */
        snrq_range mine = snrq_share(snrq_sensitivity_tiles(modules[m].rows), 1, c->size, c->rank);
        fill(m, data);
        if (m == 2 && at >= 0) data[at] += spoil;
        if (modules[m].all_tokens) status = put_squares(c, writer, m, m == 1 && at < 0 ? spoil : 0);
        if (status != SNRQ_OK) break;
        status = snrq_sensitivity_put(writer, m, mine, data + mine.begin * TILE);
    }
    return snrq_sensitivity_finish(&writer, status);
}

/* Reads tiles of a module; those that are read must be what was written. */
static snrq_status read_tiles(const char *path, int module, snrq_range tiles)
{
    float expected[MOST_TILES * TILE], found[MOST_TILES * TILE];
    snrq_sensitivity_file *file = NULL;
    SNRQ_TRY(snrq_sensitivity_open(path, &file));
    const snrq_sensitivity_facts *facts = snrq_sensitivity_facts_of(file);
    CU_ASSERT_EQUAL(facts->tokens, good.tokens);
    CU_ASSERT_EQUAL(facts->length, good.length);
    int32_t ids[TOKENS];
    if (assert_ok(snrq_sensitivity_read_ids(file, ids)))
        for (int t = 0; t < TOKENS; t++) CU_ASSERT_EQUAL(ids[t], 1000 - t);
    CU_ASSERT_EQUAL(facts->seed, good.seed);
    CU_ASSERT_STRING_EQUAL(facts->model, good.model);
    snrq_status status =
        snrq_sensitivity_read(file, modules[module].name, modules[module].rows, tiles, found);
    fill(module, expected);
    if (status == SNRQ_OK)
        CU_ASSERT_EQUAL(memcmp(found, expected + tiles.begin * TILE,
                               (size_t)(tiles.end - tiles.begin) * TILE * sizeof *found),
                        0);
    snrq_sensitivity_close(&file);
    return status;
}

static void any_tiles_can_be_read(void)
{
    rank_files_begin();
    const char *path = scratch_path("s.h5");
    assert_ok(write_file(rank_test_world, path, 0, 0.0f));
    for (int m = 0; m < MODULES; m++)
        for (int64_t begin = 0; begin <= snrq_sensitivity_tiles(modules[m].rows); begin++)
            for (int64_t end = begin; end <= snrq_sensitivity_tiles(modules[m].rows); end++)
                assert_ok(read_tiles(path, m, (snrq_range){begin, end}));
    CU_ASSERT_TRUE(file_size(path) > snrq_sensitivity_bytes(modules, MODULES, TOKENS));
    rank_files_end();
}

/* Those of a module must be what was written. */
static snrq_status read_squares(const char *path, int module)
{
    float expected[TOKENS], found[TOKENS];
    snrq_sensitivity_file *file = NULL;
    SNRQ_TRY(snrq_sensitivity_open(path, &file));
    snrq_status status = snrq_sensitivity_read_squares(file, modules[module].name, found);
    fill_squares(module, expected);
    if (status == SNRQ_OK) CU_ASSERT_EQUAL(memcmp(found, expected, sizeof found), 0);
    snrq_sensitivity_close(&file);
    return status;
}

static void squares_of_tokens_can_be_read(void)
{
    rank_files_begin();
    const char *path = scratch_path("s.h5");
    assert_ok(write_file(rank_test_world, path, 0, 0.0f));
    assert_ok(read_squares(path, 0));
    assert_ok(read_squares(path, 1));
    assert_failed(read_squares(path, 2), SNRQ_BAD_DATA, "experts.0.down_proj: missing");
    MPI_Barrier(rank_test_world->comm);
    assert_ok(write_file(rank_test_world, path, -1, NAN));
    assert_failed(read_squares(path, 1), SNRQ_BAD_DATA, "negative or not finite");
    MPI_Barrier(rank_test_world->comm);
    assert_ok(write_file(rank_test_world, path, -1, -9.0f));
    assert_failed(read_squares(path, 1), SNRQ_BAD_DATA, "negative or not finite");
    rank_files_end();
}

static void bytes_do_not_depend_on_ranks(void)
{
    char by_all[33] = "", by_one[33] = "", path[PATH_MAX];
    uint64_t bytes;
    rank_files_begin();
    assert_ok(write_file(rank_test_world, scratch_path("all.h5"), 0, 0.0f));
    snrq_context *alone = rank_test_group(1);
    snprintf(path, sizeof path, "%s/one-%d.h5", scratch(), rank_test_world->rank);
    assert_ok(write_file(alone, path, 0, 0.0f));
    assert_ok(snrq_file_hash(scratch_path("all.h5"), by_all, &bytes));
    assert_ok(snrq_file_hash(path, by_one, &bytes));
    CU_ASSERT_STRING_EQUAL(by_all, by_one);
    snrq_context_destroy(&alone);
    rank_files_end();
}

static void other_modules_are_refused(void)
{
    float found[MOST_TILES * TILE];
    snrq_sensitivity_file *file = NULL;
    rank_files_begin();
    const char *path = scratch_path("s.h5");
    assert_ok(write_file(rank_test_world, path, 0, 0.0f));
    if (assert_ok(snrq_sensitivity_open(path, &file))) {
        const snrq_range first = {0, 1};
        assert_failed(snrq_sensitivity_read(file, "model.layers.1.mlp.down_proj", 7, first, found),
                      SNRQ_BAD_DATA, "model.layers.1.mlp.down_proj: missing");
        assert_failed(snrq_sensitivity_read(file, modules[0].name, 128, first, found),
                      SNRQ_BAD_DATA, modules[0].name);
    }
    snrq_sensitivity_close(&file);
    assert_failed(snrq_sensitivity_open(scratch_path("none.h5"), &file), SNRQ_NO_INPUT, "none.h5");
    CU_ASSERT_PTR_NULL(file);
    rank_files_end();
}

static void what_is_no_gram_matrix_is_refused(void)
{
    const struct {
        int at;
        float spoil;
        const char *problem;
    } spoilt[] = {{5, NAN, "is not finite"},
                  {5, 1.0f, "is not symmetric"},
                  {SIDE + 1, -9.0f, "has a negative square"},
                  {8 * SIDE + 8, 1.0f, "has rows beyond the module's last"}};
    rank_files_begin();
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        const char *path = scratch_path("s.h5");
        assert_ok(write_file(rank_test_world, path, spoilt[i].at, spoilt[i].spoil));
        assert_failed(read_tiles(path, 2, (snrq_range){0, 1}), SNRQ_BAD_DATA, spoilt[i].problem);
        MPI_Barrier(rank_test_world->comm);
    }
    rank_files_end();
}

/* What HDF5 has no checksum for are the tiles; the rest is found, or changes nothing. */
static void flip_and_read(const char *path, long end, int report)
{
    for (long at = 0; at < end; at += FLIP_STEP) {
        if (write(report, &at, sizeof at) != (ssize_t)sizeof at) _exit(2);
        if (at >= 16384 && at + 16384 < end) continue; /* tiles, mostly */
        snrq_sensitivity_file *file = NULL;
        float found[MOST_TILES * TILE];
        flip_bit(path, at, (int)at % 8);
        if (snrq_sensitivity_open(path, &file) == SNRQ_OK)
            for (int m = 0; m < MODULES; m++)
                (void)snrq_sensitivity_read(
                    file, modules[m].name, modules[m].rows,
                    (snrq_range){0, snrq_sensitivity_tiles(modules[m].rows)}, found);
        snrq_sensitivity_close(&file);
        flip_bit(path, at, (int)at % 8);
    }
    _exit(CU_get_number_of_failures() > 0 ? 4 : 0);
}

static void a_flipped_bit_does_no_harm(void)
{
    char path[PATH_MAX];
    rank_files_begin();
    snprintf(path, sizeof path, "%s", scratch_path("s.h5"));
    assert_ok(write_file(rank_test_world, path, 0, 0.0f));
    if (rank_test_world->size == 1) /* the reader is the same for any number */
        flip_in_child(flip_and_read, path);
    rank_files_end();
}

static void a_file_that_is_cut_is_refused(void)
{
    char path[PATH_MAX];
    snrq_sensitivity_file *file = NULL;
    rank_files_begin();
    snprintf(path, sizeof path, "%s", scratch_path("s.h5"));
    assert_ok(write_file(rank_test_world, path, 0, 0.0f));
    for (long left = file_size(path) - 1; left >= 0 && rank_test_world->rank == 0; left -= 997) {
        CU_ASSERT_EQUAL(truncate(path, left), 0);
        CU_ASSERT_NOT_EQUAL(snrq_sensitivity_open(path, &file), SNRQ_OK);
    }
    rank_files_end();
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(any_tiles_can_be_read),         SNRQ_TEST(bytes_do_not_depend_on_ranks),
        SNRQ_TEST(other_modules_are_refused),     SNRQ_TEST(what_is_no_gram_matrix_is_refused),
        SNRQ_TEST(a_flipped_bit_does_no_harm),    SNRQ_TEST(a_file_that_is_cut_is_refused),
        SNRQ_TEST(squares_of_tokens_can_be_read),
    };
    return rank_test_main(argc, argv, "sensitivity_file", tests, sizeof tests / sizeof *tests);
}
