/* Block files: round trips, the same bytes from any number of ranks, failing writes. */
#include "io/checkpoint/block_file.h"

#include <math.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "tests/ranks/rank_files.h"

/* What a module holds, as functions of place alone. */
static uint8_t code_of(const snrq_module_record *r, int64_t row, int64_t column)
{
    return (uint8_t)((row * 7 + column * 13 + row * column / 5) & ((1 << r->bits) - 1));
}

static uint8_t zero_of(const snrq_module_record *r, int64_t row, int64_t group)
{
    return (uint8_t)((row + 3 * group) & ((1 << r->bits) - 1));
}

static float scale_of(const snrq_module_record *r, int64_t row, int64_t group)
{
    return snrq_round_to(r->scale_type, (float)(1e-3 * (double)(row + 1) + 0.1 * (double)group));
}

static int32_t group_of(const snrq_module_record *r, int64_t column)
{
    return (int32_t)((r->columns - 1 - column) / r->group_size);
}

static snrq_module_record make_record(const char *name, int64_t rows, int64_t columns,
                                      int64_t group_size, int bits, snrq_dtype scale_type)
{
    snrq_module_record r = {.rows = rows,
                            .columns = columns,
                            .group_size = group_size,
                            .groups = (columns + group_size - 1) / group_size,
                            .bits = bits,
                            .symmetric = true,
                            .scale_type = scale_type,
                            .method = "ksnrq",
                            .grid = "hessian",
                            .order = "natural",
                            .alpha_rule = "chained",
                            .damp = 0.0625,
                            .beam = 8,
                            .refine = 2,
                            .alpha = 0.5,
                            .alpha_next = NAN,
                            .damping = 0.01,
                            .damping_attempts = 1,
                            .dead_inputs = 1,
                            .objective = 1.0 / 3,
                            .output_error = 0.125,
                            .model_error = 0.25,
                            .clipped = 0.001};
    snprintf(r.name, sizeof r.name, "%s", name);
    return r;
}

/* A module with this rank's rows. */
static snrq_module_rows make_rows(const snrq_context *c, const snrq_module_record *r)
{
    snrq_module_rows m = {.record = *r, .rows = snrq_share(r->rows, 1, c->size, c->rank)};
    size_t rows = (size_t)(m.rows.end - m.rows.begin);
    uint8_t *codes = malloc(rows * (size_t)r->columns + 1);
    uint8_t *zeros = malloc(rows * (size_t)r->groups + 1);
    float *scales = malloc((rows * (size_t)r->groups + 1) * sizeof *scales);
    int32_t *g_idx = malloc((size_t)r->columns * sizeof *g_idx);
    m.codes = codes, m.zeros = zeros, m.scales = scales, m.g_idx = g_idx;
    for (int64_t row = m.rows.begin; row < m.rows.end; row++) {
        for (int64_t k = 0; k < r->columns; k++) *codes++ = code_of(r, row, k);
        for (int64_t g = 0; g < r->groups; g++) *zeros++ = zero_of(r, row, g);
        for (int64_t g = 0; g < r->groups; g++) *scales++ = scale_of(r, row, g);
    }
    for (int64_t k = 0; k < r->columns; k++) *g_idx++ = group_of(r, k);
    return m;
}

static void free_rows(snrq_module_rows *m)
{
    free((void *)m->codes);
    free((void *)m->zeros);
    free((void *)m->scales);
    free((void *)m->g_idx);
}

enum { MODULES = 3 };
static void make_records(snrq_module_record r[MODULES])
{
    r[0] = make_record("model.layers.7.self_attn.v_proj", 9, 70, 32, 3, SNRQ_F16);
    r[1] = make_record("model.layers.7.self_attn.o_proj", 2, 13, 13, 5, SNRQ_BF16);
    r[2] = make_record("model.layers.7.mlp.down_proj", 23, 8, 3, 8, SNRQ_F32);
}

static snrq_status write_modules(const snrq_context *c, const char *path,
                                 const snrq_module_record *records, int count)
{
    snrq_module_rows m[MODULES] = {0};
    for (int i = 0; i < count; i++) m[i] = make_rows(c, &records[i]);
    snrq_status status = snrq_block_file_write(c, path, 7, m, count);
    for (int i = 0; i < count; i++) free_rows(&m[i]);
    return status;
}

/* Every value of rows [begin, end) of module `index` is what was written. */
static void check_rows(const snrq_block_file *file, int index, const snrq_module_record *r,
                       snrq_range rows)
{
    size_t count = (size_t)(rows.end - rows.begin);
    uint8_t *codes = malloc(count * (size_t)r->columns + 1);
    uint8_t *zeros = malloc(count * (size_t)r->groups + 1);
    float *scales = malloc((count * (size_t)r->groups + 1) * sizeof *scales);
    int32_t *g_idx = malloc((size_t)r->columns * sizeof *g_idx);
    int64_t wrong = 0;
    if (assert_ok(snrq_block_file_read(file, index, rows, codes, scales, zeros, g_idx)))
        for (int64_t i = 0; i < (int64_t)count; i++) {
            int64_t row = rows.begin + i;
            for (int64_t k = 0; k < r->columns; k++)
                wrong += codes[i * r->columns + k] != code_of(r, row, k);
            for (int64_t g = 0; g < r->groups; g++)
                wrong += zeros[i * r->groups + g] != zero_of(r, row, g) ||
                         scales[i * r->groups + g] != scale_of(r, row, g);
        }
    for (int64_t k = 0; k < r->columns; k++) wrong += g_idx[k] != group_of(r, k);
    CU_ASSERT_EQUAL(wrong, 0);
    free(codes);
    free(zeros);
    free(scales);
    free(g_idx);
}

static void what_is_written_is_read(void)
{
    snrq_module_record records[MODULES];
    snrq_block_file *file = NULL;
    rank_files_begin();
    make_records(records);
    const char *path = scratch_path("block.h5");
    if (assert_ok(write_modules(rank_test_world, path, records, MODULES)) &&
        assert_ok(snrq_block_file_open(path, &file))) {
        CU_ASSERT_EQUAL(snrq_block_file_block(file), 7);
        CU_ASSERT_EQUAL(snrq_block_file_count(file), MODULES);
        for (int i = 0; i < MODULES; i++) {
            const snrq_module_record *r = &records[i], *found = snrq_block_file_record(file, i);
            CU_ASSERT_STRING_EQUAL(found->name, r->name);
            CU_ASSERT_STRING_EQUAL(found->method, "ksnrq");
            CU_ASSERT_STRING_EQUAL(found->grid, "hessian");
            CU_ASSERT_STRING_EQUAL(found->order, "natural");
            CU_ASSERT_STRING_EQUAL(found->alpha_rule, "chained");
            CU_ASSERT_EQUAL(found->damp, 0.0625);
            CU_ASSERT_TRUE(found->symmetric && !found->permuted_groups);
            CU_ASSERT_TRUE(found->rows == r->rows && found->columns == r->columns);
            CU_ASSERT_TRUE(found->group_size == r->group_size && found->groups == r->groups);
            CU_ASSERT_TRUE(found->bits == r->bits && found->scale_type == r->scale_type);
            CU_ASSERT_TRUE(found->beam == 8 && found->refine == 2 && found->dead_inputs == 1);
            CU_ASSERT_TRUE(found->alpha == 0.5 && isnan(found->alpha_next));
            CU_ASSERT_TRUE(found->damping == 0.01 && found->damping_attempts == 1);
            CU_ASSERT_TRUE(found->objective == 1.0 / 3 && found->output_error == 0.125);
            CU_ASSERT_TRUE(found->model_error == 0.25 && found->clipped == 0.001);
            for (int64_t begin = 0; begin <= r->rows; begin++)
                check_rows(file, i, r, (snrq_range){begin, r->rows});
            CU_ASSERT_EQUAL(
                snrq_block_file_read(file, i, (snrq_range){0, r->rows + 1}, NULL, NULL, NULL, NULL),
                SNRQ_INTERNAL);
        }
    }
    snrq_block_file_close(&file);
    CU_ASSERT_PTR_NULL(file);
    rank_files_end();
}

static void every_width_and_scale_type_survives(void)
{
    rank_files_begin();
    for (int bits = 2; bits <= 8; bits++) {
        snrq_dtype type = (snrq_dtype)(bits % 3);
        snrq_module_record r = make_record("m", 5, 61, 16, bits, type);
        snrq_block_file *file = NULL;
        if (assert_ok(write_modules(rank_test_world, scratch_path("width.h5"), &r, 1)) &&
            assert_ok(snrq_block_file_open(scratch_path("width.h5"), &file)))
            check_rows(file, 0, &r, (snrq_range){0, r.rows});
        snrq_block_file_close(&file);
        MPI_Barrier(rank_test_world->comm);
    }
    rank_files_end();
}

static void bytes_do_not_depend_on_the_number_of_ranks(void)
{
    snrq_module_record records[MODULES];
    char expected[33] = "", found[33] = "";
    uint64_t bytes;
    rank_files_begin();
    make_records(records);
    for (int ranks = 1; ranks <= rank_test_world->size; ranks++) {
        char name[64];
        snrq_context *group = rank_test_group(ranks);
        snprintf(name, sizeof name, "by-%d-from-%d.h5", ranks, rank_test_world->rank / ranks);
        /* Memory that was used before must not show in the file. */
        void *junk = malloc(1 << 22);
        memset(junk, 0x5a + ranks, 1 << 22);
        free(junk);
        assert_ok(write_modules(group, scratch_path(name), records, MODULES));
        assert_ok(snrq_file_hash(scratch_path(name), ranks == 1 ? expected : found, &bytes));
        if (ranks > 1) CU_ASSERT_STRING_EQUAL(found, expected);
        snrq_context_destroy(&group);
    }
    char first[33];
    memcpy(first, expected, sizeof first);
    MPI_Bcast(first, (int)sizeof first, MPI_CHAR, 0, rank_test_world->comm);
    CU_ASSERT_STRING_EQUAL(first, expected);
    rank_files_end();
}

static void values_that_do_not_fit_are_refused_everywhere(void)
{
    snrq_module_record r = make_record("m", 9, 20, 20, 3, SNRQ_F16);
    rank_files_begin();
    const char *path = scratch_path("bad.h5");
    for (int kind = 0; kind < 5; kind++) {
        snrq_module_rows m = make_rows(rank_test_world, &r);
        /* The last rank that has rows spoils one value. */
        if (m.rows.end == r.rows && m.rows.begin < m.rows.end) {
            if (kind == 0) ((uint8_t *)m.codes)[5] = 8;
            if (kind == 1) ((uint8_t *)m.zeros)[0] = 9;
            if (kind == 2) ((float *)m.scales)[0] = 0.1f; /* no half */
            if (kind == 3) ((float *)m.scales)[0] = INFINITY;
        }
        if (kind == 4) ((int32_t *)m.g_idx)[r.columns - 1] = 1;
        CU_ASSERT_EQUAL(snrq_block_file_write(rank_test_world, path, 0, &m, 1), SNRQ_INTERNAL);
        CU_ASSERT_FALSE(file_exists(path));
        free_rows(&m);
        MPI_Barrier(rank_test_world->comm);
    }
    r.objective = NAN;
    CU_ASSERT_EQUAL(write_modules(rank_test_world, path, &r, 1), SNRQ_INTERNAL);
    r.objective = 0, r.groups = 2;
    CU_ASSERT_EQUAL(write_modules(rank_test_world, path, &r, 1), SNRQ_INTERNAL);
    rank_files_end();
}

static void a_file_that_cannot_be_created_is_reported_everywhere(void)
{
    snrq_module_record r = make_record("m", 9, 20, 20, 3, SNRQ_F16);
    rank_files_begin();
    assert_failed(write_modules(rank_test_world, scratch_path("missing/block.h5"), &r, 1),
                  SNRQ_CANNOT_WRITE, "missing/block.h5");
    rank_files_end();
}

/* Each rank in turn may write no further than `limit` bytes into any file. */
static void a_write_that_fails_on_one_rank_fails_everywhere(void)
{
    const snrq_context *c = rank_test_world;
    struct rlimit before, limited;
    snrq_module_record r = make_record("m", 4096, 600, 64, 3, SNRQ_F16);
    rank_files_begin();
    const char *path = scratch_path("full.h5");
    getrlimit(RLIMIT_FSIZE, &before);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    for (int culprit = 0; culprit < c->size; culprit++) {
        limited = before;
        limited.rlim_cur = 20000;
        if (c->rank == culprit) setrlimit(RLIMIT_FSIZE, &limited);
        snrq_status status = write_modules(c, path, &r, 1);
        setrlimit(RLIMIT_FSIZE, &before);
        /* Rank 0 reserves the space, the others only write. */
        assert_failed(status, culprit == 0 ? SNRQ_CANNOT_WRITE : SNRQ_IO_ERROR, "full.h5");
        CU_ASSERT_FALSE(file_exists(path));
        MPI_Barrier(c->comm);
        assert_ok(write_modules(c, path, &r, 1));
        MPI_Barrier(c->comm);
    }
    signal(SIGXFSZ, handler);
    rank_files_end();
}

static void a_full_disk_is_reported_everywhere(void)
{
    const snrq_context *c = rank_test_world;
    snrq_module_record r = make_record("m", 4096, 600, 64, 3, SNRQ_F16);
    int mounted = 0;
    rank_files_begin();
    if (c->rank == 0)
        mounted = c->nodes == 1 && mkdir(scratch_path("small"), 0700) == 0 &&
                  mount("snrq-test", scratch_path("small"), "tmpfs", 0, "size=256k") == 0;
    MPI_Bcast(&mounted, 1, MPI_INT, 0, c->comm);
    if (mounted) {
        assert_failed(write_modules(c, scratch_path("small/block.h5"), &r, 1), SNRQ_CANNOT_WRITE,
                      "no room");
        CU_ASSERT_FALSE(file_exists(scratch_path("small/block.h5")));
        MPI_Barrier(c->comm);
        if (c->rank == 0) CU_ASSERT_EQUAL(umount(scratch_path("small")), 0);
    } else if (c->rank == 0) {
        fprintf(stderr, "a_full_disk_is_reported_everywhere: skipped, cannot mount a tmpfs\n");
    }
    rank_files_end();
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(what_is_written_is_read),
        SNRQ_TEST(every_width_and_scale_type_survives),
        SNRQ_TEST(bytes_do_not_depend_on_the_number_of_ranks),
        SNRQ_TEST(values_that_do_not_fit_are_refused_everywhere),
        SNRQ_TEST(a_file_that_cannot_be_created_is_reported_everywhere),
        SNRQ_TEST(a_write_that_fails_on_one_rank_fails_everywhere),
        SNRQ_TEST(a_full_disk_is_reported_everywhere),
    };
    return rank_test_main(argc, argv, "block_file", tests, sizeof tests / sizeof *tests);
}
