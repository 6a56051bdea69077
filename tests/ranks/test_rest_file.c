/* Rest files: tensors of every type and shape survive, in any piece, from any number of ranks. */
#include "io/checkpoint/rest_file.h"

#include <hdf5.h>

#include "tests/ranks/rank_files.h"

/* The tensors of the test model, in order of name as safetensors wants them to be found. */
static const struct tensor {
    const char *name, *dtype, *shape;
    size_t bytes;
} tensors[] = {
    {"a.bias", "F16", "[9]", 18},
    {"b.weight", "BF16", "[7,5]", 70},
    {"c.convolution", "F32", "[2,3,4]", 96},
    {"d.scalar", "F32", "[]", 4},
    {"e.empty", "F16", "[0,4]", 0},
    {"f.embedding", "F32", "[33,3]", 396},
    {"g.four", "BF16", "[2,2,3,2]", 48},
    {"h.integers", "I64", "[2]", 16},
    {"i/slash", "F32", "[1]", 4},
};
enum { TENSORS = sizeof tensors / sizeof *tensors, GOOD = 7 };

static unsigned char byte_of(int tensor, uint64_t at)
{
    return (unsigned char)(at * 31 + (uint64_t)tensor * 7 + at / 11);
}

/* Writes the model on rank 0 and opens it on all. Collective. */
static snrq_safetensors *open_model(void)
{
    snrq_safetensors *model = NULL;
    if (rank_test_world->rank == 0) {
        char header[2048] = "{", data[4096];
        size_t at = 0, used;
        for (int i = 0; i < TENSORS; i++) {
            used = strlen(header);
            snprintf(header + used, sizeof header - used,
                     "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                     i > 0 ? "," : "", tensors[i].name, tensors[i].dtype, tensors[i].shape, at,
                     at + tensors[i].bytes);
            at += tensors[i].bytes;
        }
        strcat(header, "}");
        uint64_t length = strlen(header);
        memcpy(data, &length, sizeof length);
        memcpy(data + sizeof length, header, length);
        used = sizeof length + length;
        for (int i = 0; i < TENSORS; i++)
            for (size_t k = 0; k < tensors[i].bytes; k++) data[used++] = (char)byte_of(i, k);
        scratch_write("model.safetensors", data, used);
    }
    MPI_Barrier(rank_test_world->comm);
    assert_ok(snrq_safetensors_open(scratch_path("model.safetensors"), &model));
    return model;
}

/* Out of order, as a caller may pass them. */
static const char *const good_names[GOOD] = {"f.embedding",   "a.bias",  "g.four",  "b.weight",
                                             "c.convolution", "e.empty", "d.scalar"};

static void check_piece(const snrq_rest_file *file, const snrq_tensor *tensor, int number,
                        uint64_t begin, uint64_t bytes)
{
    unsigned char data[512];
    int wrong = 0;
    memset(data, 0xee, sizeof data);
    if (!assert_ok(snrq_rest_file_read(file, tensor, begin, bytes, data))) return;
    for (uint64_t k = 0; k < bytes; k++) wrong += data[k] != byte_of(number, begin + k);
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(data[bytes], 0xee);
}

static void tensors_survive_in_any_piece(void)
{
    snrq_rest_file *file = NULL;
    rank_files_begin();
    snrq_safetensors *model = open_model();
    const char *path = scratch_path("rest.h5");
    if (assert_ok(snrq_rest_file_write(rank_test_world, path, model, good_names, GOOD, NULL)) &&
        assert_ok(snrq_rest_file_open(path, &file))) {
        CU_ASSERT_EQUAL(snrq_rest_file_count(file), GOOD);
        CU_ASSERT_PTR_NULL(snrq_rest_file_find(file, "nothing"));
        CU_ASSERT_PTR_NULL(snrq_rest_file_at(file, GOOD));
        for (int i = 0; i < GOOD; i++) {
            const snrq_tensor *before = snrq_safetensors_find(model, tensors[i].name);
            const snrq_tensor *t = snrq_rest_file_at(file, i);
            CU_ASSERT_PTR_EQUAL(snrq_rest_file_find(file, tensors[i].name), t);
            CU_ASSERT_STRING_EQUAL(t->name, tensors[i].name);
            CU_ASSERT_STRING_EQUAL(t->dtype, tensors[i].dtype);
            CU_ASSERT_TRUE(t->bytes == tensors[i].bytes && t->dimensions == before->dimensions);
            CU_ASSERT_EQUAL(t->element_bits, before->element_bits);
            CU_ASSERT_EQUAL(memcmp(t->shape, before->shape, sizeof t->shape), 0);
            uint64_t row = (uint64_t)t->element_bits / 8;
            if (t->dimensions > 1) row *= (uint64_t)t->shape[t->dimensions - 1];
            for (uint64_t begin = 0; begin <= t->bytes; begin += row)
                for (uint64_t bytes = 0; begin + bytes <= t->bytes; bytes += row)
                    check_piece(file, t, i, begin, bytes);
        }
        const snrq_tensor *t = snrq_rest_file_find(file, "b.weight");
        unsigned char data[128];
        CU_ASSERT_EQUAL(snrq_rest_file_read(file, t, 0, 71, data), SNRQ_INTERNAL);
        CU_ASSERT_EQUAL(snrq_rest_file_read(file, t, 80, 0, data), SNRQ_INTERNAL);
        CU_ASSERT_EQUAL(snrq_rest_file_read(file, t, 2, 10, data), SNRQ_INTERNAL);
    }
    snrq_rest_file_close(&file);
    snrq_safetensors_close(&model);
    rank_files_end();
}

static void bytes_do_not_depend_on_ranks_or_order(void)
{
    const char *sorted[GOOD];
    char expected[33] = "", found[33] = "";
    uint64_t bytes;
    rank_files_begin();
    snrq_safetensors *model = open_model();
    for (int i = 0; i < GOOD; i++) sorted[i] = tensors[i].name;
    for (int ranks = 1; ranks <= rank_test_world->size; ranks++) {
        char name[64];
        snrq_context *group = rank_test_group(ranks);
        snprintf(name, sizeof name, "by-%d-from-%d.h5", ranks, rank_test_world->rank / ranks);
        assert_ok(snrq_rest_file_write(group, scratch_path(name), model,
                                       ranks % 2 ? good_names : sorted, GOOD, NULL));
        assert_ok(snrq_file_hash(scratch_path(name), ranks == 1 ? expected : found, &bytes));
        if (ranks > 1) CU_ASSERT_STRING_EQUAL(found, expected);
        snrq_context_destroy(&group);
    }
    snrq_safetensors_close(&model);
    rank_files_end();
}

static void what_cannot_be_stored_is_refused_everywhere(void)
{
    static const char *const integers[] = {"h.integers"}, *const slash[] = {"i/slash"};
    static const char *const missing[] = {"a.bias", "z"}, *const twice[] = {"a.bias", "a.bias"};
    rank_files_begin();
    snrq_safetensors *model = open_model();
    const char *path = scratch_path("rest.h5");
    assert_failed(snrq_rest_file_write(rank_test_world, path, model, integers, 1, NULL),
                  SNRQ_BAD_DATA, "h.integers is I64");
    assert_failed(snrq_rest_file_write(rank_test_world, path, model, slash, 1, NULL), SNRQ_BAD_DATA,
                  "'/'");
    assert_failed(snrq_rest_file_write(rank_test_world, path, model, missing, 2, NULL),
                  SNRQ_BAD_DATA, "no tensor z");
    assert_failed(snrq_rest_file_write(rank_test_world, path, model, twice, 2, NULL), SNRQ_INTERNAL,
                  "twice");
    CU_ASSERT_FALSE(file_exists(path));
    snrq_safetensors_close(&model);
    rank_files_end();
}

/* The model is cut while it is read: only ranks whose rows are gone notice. */
static void a_failing_read_on_one_rank_fails_everywhere(void)
{
    static const char *const names[] = {"f.embedding", "b.weight"};
    rank_files_begin();
    snrq_safetensors *model = open_model();
    const snrq_tensor *t = snrq_safetensors_find(model, "f.embedding");
    MPI_Barrier(rank_test_world->comm);
    if (rank_test_world->rank == 0)
        CU_ASSERT_EQUAL(truncate(scratch_path("model.safetensors"), (off_t)(t->offset + 390)), 0);
    MPI_Barrier(rank_test_world->comm);
    const char *path = scratch_path("rest.h5");
    assert_failed(snrq_rest_file_write(rank_test_world, path, model, names, 2, NULL), SNRQ_IO_ERROR,
                  "model.safetensors");
    CU_ASSERT_FALSE(file_exists(path));
    snrq_safetensors_close(&model);
    rank_files_end();
}

static void odd_files_are_refused(void)
{
    rank_files_begin();
    snrq_safetensors *model = open_model();
    snrq_rest_file *file = NULL;
    const char *path = scratch_path("rest.h5");
    assert_ok(snrq_rest_file_write(rank_test_world, path, model, good_names, GOOD, NULL));
    if (rank_test_world->rank == 0) {
        hid_t id = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        hid_t tensor = H5Dopen2(id, "b.weight", H5P_DEFAULT);
        H5Adelete(tensor, "dtype");
        H5Dclose(tensor);
        H5Fclose(id);
        assert_failed(snrq_rest_file_open(path, &file), SNRQ_BAD_DATA, "b.weight/dtype");
        CU_ASSERT_EQUAL(truncate(path, file_size(path) / 2), 0);
        assert_failed(snrq_rest_file_open(path, &file), SNRQ_BAD_DATA, "rest.h5");
        CU_ASSERT_PTR_NULL(file);
    }
    snrq_safetensors_close(&model);
    rank_files_end();
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(tensors_survive_in_any_piece),
        SNRQ_TEST(bytes_do_not_depend_on_ranks_or_order),
        SNRQ_TEST(what_cannot_be_stored_is_refused_everywhere),
        SNRQ_TEST(a_failing_read_on_one_rank_fails_everywhere),
        SNRQ_TEST(odd_files_are_refused),
    };
    return rank_test_main(argc, argv, "rest_file", tests, sizeof tests / sizeof *tests);
}
