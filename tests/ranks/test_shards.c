/* Safetensors files written by several ranks: layout, alignment, limits, what a failure leaves. */
#include <string.h>

#include "io/directory.h"
#include "io/safetensors.h"
#include "io/safetensors_shards.h"
#include "tests/ranks/rank_files.h"

enum { TENSORS = 12 };

static const char *name_of(int i)
{
    static char name[32];
    snprintf(name, sizeof name, "t%d", i);
    return name;
}

static const char *type_of(int i)
{
    static const char *const types[] = {"BF16", "F32", "I64", "F16", "I32"};
    return types[i % 5];
}

static int size_of(int i)
{
    static const int sizes[] = {2, 4, 8, 2, 4};
    return sizes[i % 5];
}

/* Tensor i is [i + 1, 3] (the first [1]), and its bytes are all i + 1. */
static void add_tensors(snrq_shards *shards)
{
    for (int i = 0; i < TENSORS; i++) {
        int64_t shape[2] = {i + 1, 3};
        int index = -1;
        CU_ASSERT_EQUAL(
            snrq_shards_add(shards, name_of(i), type_of(i), i == 0 ? 1 : 2, shape, &index),
            SNRQ_OK);
        CU_ASSERT_EQUAL(index, i);
    }
}

static void write_tensors(snrq_shards *shards, const snrq_context *c)
{
    unsigned char data[8 * 3];
    for (int i = 0; i < TENSORS; i++)
        for (int row = 0; row <= i; row++) {
            size_t bytes = (size_t)(size_of(i) * (i == 0 ? 1 : 3));
            memset(data, i + 1, sizeof data);
            if ((i + row) % c->size == c->rank)
                CU_ASSERT_EQUAL(snrq_shards_write(shards, i, (uint64_t)row * bytes, data, bytes),
                                SNRQ_OK);
        }
}

static void check_tensors(const snrq_safetensors *files)
{
    CU_ASSERT_EQUAL(snrq_safetensors_count(files), TENSORS);
    for (int i = 0; i < TENSORS; i++) {
        const snrq_tensor *t = snrq_safetensors_find(files, name_of(i));
        unsigned char data[8 * 3 * TENSORS];
        CU_ASSERT_PTR_NOT_NULL(t);
        if (t == NULL || t->bytes > sizeof data) continue;
        CU_ASSERT_EQUAL(t->offset % (uint64_t)size_of(i), 0);
        CU_ASSERT_STRING_EQUAL(t->dtype, type_of(i));
        CU_ASSERT_EQUAL(snrq_safetensors_read(files, t, 0, t->bytes, data), SNRQ_OK);
        for (uint64_t k = 0; k < t->bytes; k++) CU_ASSERT_EQUAL(data[k], i + 1);
    }
}

static int count_files(const char *end)
{
    char **names = NULL;
    int count = 0, found = 0;
    CU_ASSERT_EQUAL(snrq_directory_names(scratch_root, &names, &count), SNRQ_OK);
    for (int i = 0; i < count; i++) found += snrq_ends_with(names[i], end);
    snrq_names_free(&names, count);
    return found;
}

/* Writes and publishes, or gives up before that. */
static void write_all(int64_t limit, bool publish, int *files)
{
    const snrq_context *c = rank_test_world;
    snrq_shards *shards = NULL;
    snrq_staging *staging = NULL;
    CU_ASSERT_EQUAL(snrq_shards_create(c, limit, &shards), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_staging_create(c, scratch_root, &staging), SNRQ_OK);
    add_tensors(shards);
    CU_ASSERT_EQUAL(snrq_shards_begin(shards, staging), SNRQ_OK);
    write_tensors(shards, c);
    CU_ASSERT_EQUAL(snrq_shards_finish(shards), SNRQ_OK);
    *files = snrq_shards_files(shards);
    if (c->rank == 0) CU_ASSERT_EQUAL(snrq_shards_put_index(shards), SNRQ_OK);
    if (publish) CU_ASSERT_EQUAL(snrq_staging_publish(staging), SNRQ_OK);
    snrq_barrier(c);
    snrq_staging_destroy(&staging);
    snrq_shards_destroy(&shards);
    snrq_barrier(c);
}

static void one_file(void)
{
    snrq_safetensors *files = NULL;
    int count = 0;
    rank_files_begin();
    write_all(INT64_MAX, true, &count);
    CU_ASSERT_EQUAL(count, 1);
    CU_ASSERT_EQUAL(snrq_safetensors_open(scratch_root, &files), SNRQ_OK);
    if (files != NULL) check_tensors(files);
    snrq_safetensors_close(&files);
    CU_ASSERT_EQUAL(count_files("index.json"), 0);
    rank_files_end();
}

static void several_files(void)
{
    snrq_safetensors *files = NULL;
    int count = 0;
    rank_files_begin();
    write_all(100, true, &count);
    CU_ASSERT_TRUE(count > 3 && count < TENSORS);
    CU_ASSERT_EQUAL(count_files(".safetensors"), count);
    CU_ASSERT_EQUAL(snrq_safetensors_open(scratch_root, &files), SNRQ_OK);
    if (files != NULL) check_tensors(files);
    snrq_safetensors_close(&files);
    rank_files_end();
}

static void nothing_is_left_of_what_is_not_published(void)
{
    int count = 0;
    rank_files_begin();
    write_all(100, false, &count);
    CU_ASSERT_EQUAL(count_files(""), 0);
    rank_files_end();
}

/* The last name is taken: those before it disappear again. */
static void a_taken_name_takes_all_back(void)
{
    const snrq_context *c = rank_test_world;
    snrq_staging *staging = NULL;
    char path[PATH_MAX];
    rank_files_begin();
    snprintf(path, sizeof path, "%s/b", scratch_root);
    if (c->rank == 0) CU_ASSERT_EQUAL(snrq_file_replace(path, "old", 3), SNRQ_OK);
    snrq_barrier(c);
    CU_ASSERT_EQUAL(snrq_staging_create(c, scratch_root, &staging), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_staging_put(staging, "a", "new", 3), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_staging_put(staging, "b", "new", 3), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_staging_publish(staging), SNRQ_CANNOT_WRITE);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "meanwhile"));
    snrq_barrier(c);
    snrq_staging_destroy(&staging);
    snrq_barrier(c);
    CU_ASSERT_EQUAL(count_files(""), 1);
    rank_files_end();
}

static void too_many_bytes_are_refused(void)
{
    snrq_shards *shards = NULL;
    snrq_staging *staging = NULL;
    int64_t shape[2] = {2, 2};
    int index = 0;
    rank_files_begin();
    CU_ASSERT_EQUAL(snrq_shards_create(rank_test_world, 100, &shards), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_staging_create(rank_test_world, scratch_root, &staging), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_shards_add(shards, "t", "F32", 2, shape, &index), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_shards_add(shards, "u", "U4", 2, shape, &index), SNRQ_INTERNAL);
    shape[0] = INT64_MAX;
    CU_ASSERT_EQUAL(snrq_shards_add(shards, "u", "F32", 2, shape, &index), SNRQ_INTERNAL);
    CU_ASSERT_EQUAL(snrq_shards_begin(shards, staging), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_shards_write(shards, 0, 8, shape, 9), SNRQ_INTERNAL);
    CU_ASSERT_EQUAL(snrq_shards_write(shards, 0, 17, shape, 0), SNRQ_INTERNAL);
    CU_ASSERT_EQUAL(snrq_shards_finish(shards), SNRQ_OK);
    snrq_staging_destroy(&staging);
    snrq_shards_destroy(&shards);
    rank_files_end();
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {SNRQ_TEST(one_file), SNRQ_TEST(several_files),
                               SNRQ_TEST(nothing_is_left_of_what_is_not_published),
                               SNRQ_TEST(a_taken_name_takes_all_back),
                               SNRQ_TEST(too_many_bytes_are_refused)};
    return rank_test_main(argc, argv, "shards", tests, sizeof tests / sizeof *tests);
}
