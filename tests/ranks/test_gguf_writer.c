/* GGUF files written by several ranks: read back by the checking reader, the same bytes for any
 * number of ranks, and nothing left behind when a rank fails. */
#include "io/gguf/writer.h"

#include "io/gguf/check.h"
#include "tests/ranks/rank_files.h"

enum { ROWS = 37, COLUMNS = 5, ELEMENTS = 11 };

static float value_of(int64_t tensor, int64_t at)
{
    return (float)rank_test_number(tensor, at, 0);
}

/* Describes a matrix and a vector; metadata on rank 0 alone. */
static snrq_gguf_writer *describe(const snrq_context *context)
{
    snrq_gguf_writer *w = NULL;
    assert_ok(snrq_gguf_writer_create(&w));
    CU_ASSERT_EQUAL(snrq_gguf_add_tensor(w, "matrix", SNRQ_GGUF_F32, ROWS, COLUMNS, 0), 0);
    CU_ASSERT_EQUAL(snrq_gguf_add_tensor(w, "vector", SNRQ_GGUF_F32, ELEMENTS, 0, 0), 1);
    if (context->rank > 0) return w;
    snrq_gguf_put_string(w, "name", "test");
    snrq_gguf_put_array(w, "scores", SNRQ_GGUF_F32_VALUE, 2);
    snrq_gguf_element_f32(w, 1);
    snrq_gguf_element_f32(w, 2);
    snrq_gguf_put_bool(w, "yes", true);
    return w;
}

/* Writes this rank's rows of both tensors. */
static snrq_status write_rows(const snrq_context *context, const snrq_gguf_writer *w)
{
    const int64_t rows[2] = {ROWS, ELEMENTS}, columns[2] = {COLUMNS, 1};
    for (int t = 0; t < 2; t++) {
        snrq_range mine = snrq_share(rows[t], 1, context->size, context->rank);
        for (int64_t r = mine.begin; r < mine.end; r++) {
            float row[COLUMNS];
            for (int64_t c = 0; c < columns[t]; c++) row[c] = value_of(t, r * columns[t] + c);
            SNRQ_TRY(snrq_gguf_write_rows(w, t, r, 1, row));
        }
    }
    return SNRQ_OK;
}

static snrq_status write_file(const snrq_context *context, const char *path)
{
    snrq_gguf_writer *w = describe(context);
    snrq_status status = snrq_gguf_open(context, w, path);
    if (status == SNRQ_OK) status = snrq_gguf_finish(context, w, write_rows(context, w));
    snrq_gguf_writer_destroy(&w);
    return status;
}

static void what_ranks_write_is_read_back(void)
{
    rank_files_begin();
    snrq_gguf_file *f = NULL;
    float values[ROWS * COLUMNS];
    double number;
    int wrong = 0;
    assert_ok(write_file(rank_test_world, scratch_path("model.gguf")));
    if (assert_ok(snrq_gguf_file_open(scratch_path("model.gguf"), &f))) {
        assert_ok(snrq_gguf_file_read(f, snrq_gguf_file_find(f, "matrix"), 0, ROWS, values));
        for (int i = 0; i < ROWS * COLUMNS; i++) wrong += values[i] != value_of(0, i);
        assert_ok(snrq_gguf_file_read(f, snrq_gguf_file_find(f, "vector"), 0, 1, values));
        for (int i = 0; i < ELEMENTS; i++) wrong += values[i] != value_of(1, i);
        assert_ok(snrq_gguf_file_number(f, "yes", &number));
        CU_ASSERT_EQUAL(number, 1);
    }
    CU_ASSERT_EQUAL(wrong, 0);
    snrq_gguf_file_close(&f);
    rank_files_end();
}

static void bytes_do_not_depend_on_ranks(void)
{
    rank_files_begin();
    char path[64], hashes[2][33];
    uint64_t bytes;
    for (int ranks = 1; ranks <= rank_test_world->size; ranks++) {
        snrq_context *group = rank_test_group(ranks);
        snprintf(path, sizeof path, "%d-%d.gguf", ranks, rank_test_world->rank / ranks);
        assert_ok(write_file(group, scratch_path(path)));
        assert_ok(snrq_file_hash(scratch_path(path), hashes[ranks > 1], &bytes));
        if (ranks > 1) CU_ASSERT_STRING_EQUAL(hashes[1], hashes[0]);
        snrq_context_destroy(&group);
    }
    rank_files_end();
}

static void a_rank_that_fails_leaves_nothing_behind(void)
{
    rank_files_begin();
    const int last = rank_test_world->size - 1;
    snrq_gguf_writer *w = describe(rank_test_world);
    assert_ok(snrq_gguf_open(rank_test_world, w, scratch_path("model.gguf")));
    CU_ASSERT_TRUE(rank_test_world->rank > 0 || file_exists(scratch_path("model.gguf.snrq.tmp")));
    snrq_status status = write_rows(rank_test_world, w);
    if (rank_test_world->rank == last) status = snrq_fail(SNRQ_IO_ERROR, "injected");
    assert_failed(snrq_gguf_finish(rank_test_world, w, status), SNRQ_IO_ERROR, "injected");
    MPI_Barrier(rank_test_world->comm);
    CU_ASSERT_FALSE(file_exists(scratch_path("model.gguf")));
    CU_ASSERT_FALSE(file_exists(scratch_path("model.gguf.snrq.tmp")));
    snrq_gguf_writer_destroy(&w);
    rank_files_end();
}

static void an_impossible_place_fails_everywhere(void)
{
    rank_files_begin();
    assert_failed(write_file(rank_test_world, scratch_path("no/such/folder/model.gguf")),
                  SNRQ_CANNOT_WRITE, "cannot be created");
    rank_files_end();
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(what_ranks_write_is_read_back),
        SNRQ_TEST(bytes_do_not_depend_on_ranks),
        SNRQ_TEST(a_rank_that_fails_leaves_nothing_behind),
        SNRQ_TEST(an_impossible_place_fails_everywhere),
    };
    return rank_test_main(argc, argv, "gguf_writer", tests, sizeof tests / sizeof *tests);
}
