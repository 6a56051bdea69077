/* Safetensors: what is read from good files, and one case for every way a file can be wrong. */
#include "io/safetensors.h"

#include "tests/unit/test_files.h"

/* Writes NAME: the header's length, the header, and `data` bytes 0, 1, 2, ... */
static void write_file(const char *name, const char *header, size_t data)
{
    static unsigned char content[1 << 16];
    size_t length = strlen(header);
    for (size_t i = 0; i < 8; i++) content[i] = (unsigned char)((uint64_t)length >> 8 * i);
    memcpy(content + 8, header, length);
    for (size_t i = 0; i < data; i++) content[8 + length + i] = (unsigned char)i;
    scratch_write(name, content, 8 + length + data);
}

static snrq_status open_scratch(const char *name)
{
    snrq_safetensors *reader;
    snrq_status status = snrq_safetensors_open(scratch_path(name), &reader);
    CU_ASSERT_EQUAL(status == SNRQ_OK, reader != NULL);
    snrq_safetensors_close(&reader);
    return status;
}

/* A file with this header and `data` bytes is refused; the message names the file and says
 * `fragment`. */
static void refused(const char *header, size_t data, const char *fragment)
{
    write_file("bad.safetensors", header, data);
    assert_failed(open_scratch("bad.safetensors"), SNRQ_BAD_DATA, fragment);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "bad.safetensors"));
}

#define TWO_TENSORS                                                                                \
    "{\"__metadata__\":{\"format\":\"pt\"},"                                                       \
    "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"                              \
    "\"a\":{\"dtype\":\"BF16\",\"shape\":[1,3],\"data_offsets\":[8,14]}}   "

static void a_good_file_is_read_in_order_of_name(void)
{
    snrq_safetensors *reader;
    write_file("good.safetensors", TWO_TENSORS, 14);
    if (!assert_ok(snrq_safetensors_open(scratch_path("good.safetensors"), &reader))) return;
    CU_ASSERT_EQUAL(snrq_safetensors_count(reader), 2);
    const snrq_tensor *a = snrq_safetensors_at(reader, 0), *b = snrq_safetensors_find(reader, "b");
    CU_ASSERT_STRING_EQUAL(a->name, "a");
    CU_ASSERT_STRING_EQUAL(a->dtype, "BF16");
    CU_ASSERT_EQUAL(a->element_bits, 16);
    CU_ASSERT_EQUAL(a->dimensions, 2);
    CU_ASSERT_EQUAL(a->shape[0], 1);
    CU_ASSERT_EQUAL(a->shape[1], 3);
    CU_ASSERT_EQUAL(a->bytes, 6);
    CU_ASSERT_EQUAL(a->offset, 8 + strlen(TWO_TENSORS) + 8);
    CU_ASSERT_PTR_EQUAL(b, snrq_safetensors_at(reader, 1));
    CU_ASSERT_PTR_NULL(snrq_safetensors_find(reader, "c"));
    CU_ASSERT_PTR_NULL(snrq_safetensors_at(reader, 2));
    CU_ASSERT_STRING_EQUAL(snrq_safetensors_metadata(reader, "format"), "pt");
    CU_ASSERT_PTR_NULL(snrq_safetensors_metadata(reader, "other"));
    CU_ASSERT_STRING_EQUAL(snrq_safetensors_file(reader, a), scratch_path("good.safetensors"));
    snrq_safetensors_close(&reader);
    CU_ASSERT_PTR_NULL(reader);
    snrq_safetensors_close(&reader);
}

static void data_is_read_in_parts(void)
{
    unsigned char out[6] = {0};
    snrq_safetensors *reader;
    write_file("good.safetensors", TWO_TENSORS, 14);
    if (!assert_ok(snrq_safetensors_open(scratch_path("good.safetensors"), &reader))) return;
    const snrq_tensor *a = snrq_safetensors_find(reader, "a");
    assert_ok(snrq_safetensors_read(reader, a, 0, 6, out));
    for (int i = 0; i < 6; i++) CU_ASSERT_EQUAL(out[i], 8 + i);
    assert_ok(snrq_safetensors_read(reader, a, 4, 2, out));
    CU_ASSERT_EQUAL(out[0], 12);
    assert_ok(snrq_safetensors_read(reader, a, 6, 0, out));
    assert_failed(snrq_safetensors_read(reader, a, 4, 3, out), SNRQ_INTERNAL, "\"a\"");
    assert_failed(snrq_safetensors_read(reader, a, UINT64_MAX, 2, out), SNRQ_INTERNAL, "\"a\"");
    snrq_safetensors_close(&reader);
}

static void a_file_cut_after_opening_is_an_io_error(void)
{
    unsigned char out[6];
    snrq_safetensors *reader;
    write_file("cut.safetensors", TWO_TENSORS, 14);
    if (!assert_ok(snrq_safetensors_open(scratch_path("cut.safetensors"), &reader))) return;
    CU_ASSERT_EQUAL(truncate(scratch_path("cut.safetensors"), 8 + (off_t)strlen(TWO_TENSORS) + 10),
                    0);
    const snrq_tensor *a = snrq_safetensors_find(reader, "a");
    assert_failed(snrq_safetensors_read(reader, a, 0, 6, out), SNRQ_IO_ERROR, "cut.safetensors");
    snrq_safetensors_close(&reader);
}

static void empty_scalar_and_zero_sized_are_fine(void)
{
    write_file("ok.safetensors", "{}", 0);
    assert_ok(open_scratch("ok.safetensors"));
    write_file("ok.safetensors",
               "{\"z\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[0,0]},"
               "\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}",
               8);
    assert_ok(open_scratch("ok.safetensors"));
}

static void unaligned_tensors_and_every_type_are_fine(void)
{
    write_file("ok.safetensors",
               "{\"q\":{\"dtype\":\"F8_E4M3\",\"shape\":[3],\"data_offsets\":[0,3]},"
               "\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[3,7]},"
               "\"p\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[7,8]},"
               "\"c\":{\"dtype\":\"C64\",\"shape\":[1],\"data_offsets\":[8,16]}}",
               16);
    assert_ok(open_scratch("ok.safetensors"));
}

static void a_missing_file_is_no_input(void)
{
    assert_failed(open_scratch("absent.safetensors"), SNRQ_NO_INPUT, "absent.safetensors");
}

static void a_file_shorter_than_a_length_is_refused(void)
{
    scratch_write("bad.safetensors", "1234567", 7);
    assert_failed(open_scratch("bad.safetensors"), SNRQ_BAD_DATA, "7 bytes, too short");
}

static void a_header_beyond_the_limit_is_refused(void)
{
    scratch_write("bad.safetensors", "\x01\xe1\xf5\x05\0\0\0\0{}", 10); /* 100 000 001 */
    assert_failed(open_scratch("bad.safetensors"), SNRQ_BAD_DATA,
                  "100000001, expected at most 100000000");
    scratch_write("bad.safetensors", "PK\x03\x04\xff\xff\xff\xff{}", 10);
    assert_failed(open_scratch("bad.safetensors"), SNRQ_BAD_DATA, "is this a safetensors file?");
}

static void a_header_beyond_the_file_is_refused(void)
{
    scratch_write("bad.safetensors", "\x03\0\0\0\0\0\0\0{}", 10);
    assert_failed(open_scratch("bad.safetensors"), SNRQ_BAD_DATA, "is 3, but only 2 bytes follow");
}

static void a_header_that_does_not_begin_with_a_brace_is_refused(void)
{
    refused(" {}", 0, "expected '{' at byte 8, found byte 0x20");
    refused("", 0, "expected '{' at byte 8");
    refused("[]", 0, "expected '{' at byte 8");
}

static void a_header_that_is_not_json_is_refused(void)
{
    refused("{\"a\":", 0, "not valid JSON at line 1");
    refused("{}x", 0, "not valid JSON");
    refused("{\"a\\u0000b\":1}", 0, "not valid JSON");
}

static void a_header_that_is_not_utf8_is_refused(void)
{
    refused("{\"\xff\":1}", 0, "not valid JSON");
    refused("{\"\xed\xa0\x80\":1}", 0, "not valid JSON");
}

static void duplicate_names_are_refused(void)
{
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
            "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
            2, "duplicate");
}

static void metadata_other_than_strings_is_refused(void)
{
    refused("{\"__metadata__\":{\"n\":1}}", 0,
            "__metadata__: \"n\": expected a string, found an integer");
    refused("{\"__metadata__\":[]}", 0, "__metadata__: expected an object, found an array");
}

static void an_entry_that_is_no_object_is_refused(void)
{
    refused("{\"w\":7}", 0, "tensor \"w\": expected an object, found an integer");
}

static void an_unknown_dtype_is_refused(void)
{
    refused("{\"w\":{\"dtype\":\"F7\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
            "tensor \"w\": unknown dtype \"F7\"");
    refused("{\"w\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
            "tensor \"w\": key \"dtype\" is missing");
}

static void a_shape_that_is_no_list_of_sizes_is_refused(void)
{
    refused("{\"w\":{\"dtype\":\"U8\",\"shape\":4,\"data_offsets\":[0,4]}}", 4,
            "\"shape\": expected an array");
    refused("{\"w\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "shape[0]");
    refused("{\"w\":{\"dtype\":\"U8\",\"shape\":[2,2.0],\"data_offsets\":[0,4]}}", 4, "shape[1]");
    refused("{\"w\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1,
            "9 dimensions");
}

static void a_product_of_sizes_that_overflows_is_refused(void)
{
    refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}",
            0, "tensor \"w\": shape: the product");
    refused(
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[0,4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
        "tensor \"w\": shape: the product");
}

static void offsets_that_are_no_range_are_refused(void)
{
    refused("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1,
            "tensor \"w\": data_offsets");
    refused("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1,
            "tensor \"w\": data_offsets");
    refused("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}}", 1, "data_offsets");
    refused("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,\"1\"]}}", 1,
            "data_offsets");
}

static void offsets_that_do_not_fit_the_shape_are_refused(void)
{
    refused("{\"w\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[0,5]}}", 5,
            "tensor \"w\": data_offsets span 5 bytes, but shape and dtype F16 need 48 bits");
    refused("{\"w\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "need 12 bits");
}

static void metadata_of_null_is_none(void)
{
    snrq_safetensors *reader = NULL;
    write_file("null.safetensors",
               "{\"__metadata__\":null,\"w\":{\"dtype\":\"U8\",\"shape\":[2],"
               "\"data_offsets\":[0,2]}}",
               2);
    if (!assert_ok(snrq_safetensors_open(scratch_path("null.safetensors"), &reader))) return;
    CU_ASSERT_EQUAL(snrq_safetensors_count(reader), 1);
    CU_ASSERT_PTR_NULL(snrq_safetensors_metadata(reader, "format"));
    snrq_safetensors_close(&reader);
}

static void a_hole_is_refused(void)
{
    refused("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2,
            "tensor \"w\": data_offsets begin at 1, expected 0 (a hole");
    refused("{\"v\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
            "\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
            3, "tensor \"w\": data_offsets begin at 2, expected 1 (a hole");
}

static void an_overlap_is_refused(void)
{
    refused("{\"v\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
            "\"w\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
            3, "tensor \"w\": data_offsets begin at 1, expected 2 (it overlaps");
}

static void missing_data_is_refused(void)
{
    refused("{\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 3,
            "tensor \"w\": ends at data byte 4, but the file has only 3");
}

static void trailing_bytes_are_refused(void)
{
    refused("{\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 5,
            "66 bytes, expected 65");
}

static void control_characters_of_a_name_do_not_reach_the_terminal(void)
{
    refused("{\"\\u001b[2J\":7}", 0, "tensor \"?[2J\"");
}

/* A header cut anywhere, and any bit of a header turned over: refused or read, but nothing worse.
 */
static void damaged_headers_never_crash(void)
{
    unsigned char content[512];
    size_t bytes = 8 + strlen(TWO_TENSORS) + 14;
    write_file("good.safetensors", TWO_TENSORS, 14);
    FILE *file = fopen(scratch_path("good.safetensors"), "rb");
    CU_ASSERT_EQUAL(fread(content, 1, sizeof content, file), bytes);
    fclose(file);
    for (size_t cut = 0; cut < bytes; cut++) {
        scratch_write("damaged.safetensors", content, cut);
        CU_ASSERT_EQUAL(open_scratch("damaged.safetensors"), SNRQ_BAD_DATA);
    }
    for (size_t bit = 0; bit < 8 * (bytes - 14); bit++) {
        content[bit / 8] ^= (unsigned char)(1 << bit % 8);
        scratch_write("damaged.safetensors", content, bytes);
        snrq_status status = open_scratch("damaged.safetensors");
        CU_ASSERT_TRUE(status == SNRQ_OK || status == SNRQ_BAD_DATA);
        content[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}

/* A directory NAME with an index of this content and the two shards one and two. */
static void write_sharded(const char *name, const char *index)
{
    char path[256];
    mkdir(scratch_path(name), 0777);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", name);
    scratch_write_text(path, index);
    snprintf(path, sizeof path, "%s/one.safetensors", name);
    write_file(path, "{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2);
    snprintf(path, sizeof path, "%s/two.safetensors", name);
    write_file(path,
               "{\"__metadata__\":{\"k\":\"v\"},"
               "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
               "\"z\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[1,4]}}",
               4);
}

static void a_sharded_directory_is_one_table(void)
{
    unsigned char out[3];
    snrq_safetensors *reader;
    write_sharded("sharded",
                  "{\"metadata\":{\"total_size\":6},\"weight_map\":{\"z\":\"two.safetensors\","
                  "\"x\":\"one.safetensors\",\"a\":\"two.safetensors\"}}");
    if (!assert_ok(snrq_safetensors_open(scratch_path("sharded"), &reader))) return;
    CU_ASSERT_EQUAL(snrq_safetensors_count(reader), 3);
    CU_ASSERT_STRING_EQUAL(snrq_safetensors_at(reader, 0)->name, "a");
    CU_ASSERT_STRING_EQUAL(snrq_safetensors_metadata(reader, "k"), "v");
    const snrq_tensor *z = snrq_safetensors_find(reader, "z"),
                      *x = snrq_safetensors_find(reader, "x");
    assert_ok(snrq_safetensors_read(reader, z, 0, 3, out));
    CU_ASSERT_EQUAL(out[0], 1);
    assert_ok(snrq_safetensors_read(reader, x, 1, 1, out));
    CU_ASSERT_EQUAL(out[0], 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_safetensors_file(reader, z), "/two.safetensors"));
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_safetensors_file(reader, x), "/one.safetensors"));
    snrq_safetensors_close(&reader);
}

static void a_tensor_the_shard_lacks_is_missing(void)
{
    snrq_safetensors *reader;
    write_sharded("sharded",
                  "{\"weight_map\":{\"a\":\"one.safetensors\",\"x\":\"one.safetensors\"}}");
    if (!assert_ok(snrq_safetensors_open(scratch_path("sharded"), &reader))) return;
    CU_ASSERT_EQUAL(snrq_safetensors_count(reader), 1);
    CU_ASSERT_PTR_NULL(snrq_safetensors_find(reader, "a"));
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_safetensors_missing(reader, "a"), "/one.safetensors"));
    CU_ASSERT_PTR_NULL(snrq_safetensors_missing(reader, "x"));
    snrq_safetensors_close(&reader);
    write_sharded("sharded", "{\"weight_map\":{\"a\":\"one.safetensors\"}}");
    assert_failed(open_scratch("sharded"), SNRQ_BAD_DATA, "none of its 1 tensors is in the shards");
}

/* What a file of one-byte tensors `names` (ended by NULL) and this metadata is once its names are
 * resolved; NULL if that fails. */
static snrq_safetensors *resolve(const char *metadata, const char *const *names)
{
    char header[4096];
    size_t used = (size_t)snprintf(header, sizeof header, "{\"__metadata__\":{%s}", metadata),
           at = 0;
    snrq_safetensors *reader;
    for (; names[at] != NULL; at++)
        used += (size_t)snprintf(header + used, sizeof header - used,
                                 ",\"%s\":{\"dtype\":\"U8\",\"shape\":[1],"
                                 "\"data_offsets\":[%zu,%zu]}",
                                 names[at], at, at + 1);
    snprintf(header + used, sizeof header - used, "}");
    write_file("names.safetensors", header, at);
    if (!assert_ok(snrq_safetensors_open(scratch_path("names.safetensors"), &reader))) return NULL;
    if (snrq_safetensors_resolve(reader) != SNRQ_OK) snrq_safetensors_close(&reader);
    return reader;
}

/* The number of the tensor `name`, in the order in which the file was made; -1: there is none. */
static int number_of(const snrq_safetensors *reader, const char *name)
{
    unsigned char content = 0;
    const snrq_tensor *t = snrq_safetensors_find(reader, name);
    if (t == NULL) return -1;
    assert_ok(snrq_safetensors_read(reader, t, 0, 1, &content));
    return content;
}

static void names_lose_what_wrappers_put_before_them(void)
{
    static const char *const before[] = {"module.", "_orig_mod.", "base_model.model.",
                                         "module._orig_mod."};
    char names[4][128], said[128];
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        const char *list[5] = {names[0], names[1], names[2], names[3], NULL};
        snprintf(names[0], 128, "%smodel.norm.weight", before[i]);
        snprintf(names[1], 128, "%slm_head.weight", before[i]);
        snprintf(names[2], 128, "%smodel.layers.0.x", before[i]);
        snprintf(names[3], 128, "other.model.layers.0.x");
        snrq_safetensors *reader = resolve("", list);
        CU_ASSERT_PTR_NOT_NULL_FATAL(reader);
        CU_ASSERT_EQUAL(number_of(reader, "model.norm.weight"), 0);
        CU_ASSERT_EQUAL(number_of(reader, "lm_head.weight"), 1);
        CU_ASSERT_EQUAL(number_of(reader, "model.layers.0.x"), 2);
        CU_ASSERT_EQUAL(number_of(reader, "other.model.layers.0.x"), 3);
        snprintf(said, sizeof said, "without '%s'", before[i]);
        CU_ASSERT_STRING_EQUAL(snrq_safetensors_spelling(reader), said);
        snrq_safetensors_close(&reader);
    }
}

static void names_get_the_model_that_is_missing(void)
{
    static const char *const names[] = {"module.norm.weight", "module.layers.0.x",
                                        "module.embed_tokens.weight", "module.score.weight", NULL};
    snrq_safetensors *reader = resolve("", names);
    CU_ASSERT_PTR_NOT_NULL_FATAL(reader);
    CU_ASSERT_EQUAL(number_of(reader, "model.norm.weight"), 0);
    CU_ASSERT_EQUAL(number_of(reader, "model.layers.0.x"), 1);
    CU_ASSERT_EQUAL(number_of(reader, "model.embed_tokens.weight"), 2);
    CU_ASSERT_EQUAL(number_of(reader, "score.weight"), 3);
    CU_ASSERT_STRING_EQUAL(snrq_safetensors_spelling(reader),
                           "without 'module.' and with 'model.' before them");
    snrq_safetensors_close(&reader);
}

static void good_names_stay(void)
{
    static const char *const names[] = {"model.norm.weight", "module.model.norm.weight",
                                        "norm.weight", NULL};
    snrq_safetensors *reader = resolve("", names);
    CU_ASSERT_PTR_NOT_NULL_FATAL(reader);
    for (int i = 0; i < 3; i++) CU_ASSERT_EQUAL(number_of(reader, names[i]), i);
    CU_ASSERT_STRING_EQUAL(snrq_safetensors_spelling(reader), "");
    snrq_safetensors_close(&reader);
}

static void names_of_two_models_are_refused(void)
{
    static const char *const two[] = {"module.model.norm.weight", "_orig_mod.model.norm.weight",
                                      NULL};
    static const char *const one[] = {"module.model.norm.weight", "module.model.x", "model.x",
                                      NULL};
    CU_ASSERT_PTR_NULL(resolve("", two));
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "names of two models"));
    CU_ASSERT_PTR_NULL(resolve("", one));
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "two tensors are \"model.x\""));
}

static void metadata_gives_tensors_other_names(void)
{
    static const char *const names[] = {"module.model.norm.weight", "module.lm_head.weight", NULL};
    snrq_safetensors *reader =
        resolve("\"module.model.embed_tokens.weight\":\"b\",\"b\":\"module.lm_head.weight\","
                "\"format\":\"pt\",\"x\":\"y\",\"y\":\"x\",\"z\":\"z\","
                "\"module.lm_head.weight\":\"module.model.norm.weight\"",
                names);
    CU_ASSERT_PTR_NOT_NULL_FATAL(reader);
    CU_ASSERT_EQUAL(number_of(reader, "model.embed_tokens.weight"), 1);
    CU_ASSERT_EQUAL(number_of(reader, "lm_head.weight"), 1); /* a tensor is what it is */
    CU_ASSERT_EQUAL(number_of(reader, "b"), 1);
    CU_ASSERT_EQUAL(number_of(reader, "x"), -1);
    CU_ASSERT_EQUAL(snrq_safetensors_count(reader), 4);
    CU_ASSERT_TRUE(snrq_safetensors_find(reader, "model.embed_tokens.weight")->another);
    CU_ASSERT_FALSE(snrq_safetensors_find(reader, "lm_head.weight")->another);
    snrq_safetensors_close(&reader);
}

static void what_was_not_downloaded_is_named(void)
{
    scratch_write_text("pointer.safetensors",
                       "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    assert_failed(open_scratch("pointer.safetensors"), SNRQ_BAD_DATA, "is a git-lfs pointer");
    mkdir(scratch_path("links"), 0777);
    CU_ASSERT_EQUAL(symlink("../blobs/0123", scratch_path("links/model.safetensors")), 0);
    assert_failed(open_scratch("links"), SNRQ_NO_INPUT,
                  "is a link to ../blobs/0123, which does not exist");
}

static void a_missing_shard_is_named(void)
{
    write_sharded("sharded", "{\"weight_map\":{\"a\":\"three.safetensors\"}}");
    assert_failed(open_scratch("sharded"), SNRQ_NO_INPUT, "three.safetensors");
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "index.json"));
}

static void a_shard_outside_the_directory_is_refused(void)
{
    write_sharded("sharded", "{\"weight_map\":{\"a\":\"../good.safetensors\"}}");
    assert_failed(open_scratch("sharded"), SNRQ_BAD_DATA, "found \"../good.safetensors\"");
    write_sharded("sharded", "{\"weight_map\":{\"a\":\"/etc/passwd\"}}");
    assert_failed(open_scratch("sharded"), SNRQ_BAD_DATA, "found \"/etc/passwd\"");
    write_sharded("sharded", "{\"weight_map\":{\"a\":\"\"}}");
    assert_failed(open_scratch("sharded"), SNRQ_BAD_DATA, "weight_map");
}

static void an_index_of_another_kind_is_refused(void)
{
    write_sharded("sharded", "{\"metadata\":{}}");
    assert_failed(open_scratch("sharded"), SNRQ_BAD_DATA, "\"weight_map\" is missing");
    write_sharded("sharded", "{\"weight_map\":{}}");
    assert_failed(open_scratch("sharded"), SNRQ_BAD_DATA, "names no tensor");
    write_sharded("sharded", "{\"weight_map\":{\"a\":1}}");
    assert_failed(open_scratch("sharded"), SNRQ_BAD_DATA,
                  "\"a\": expected a file name, found an integer");
    write_sharded("sharded", "{\"weight_map\":{\"a\":\"one.safetensors\"");
    assert_failed(open_scratch("sharded"), SNRQ_BAD_DATA, "not valid JSON");
}

static void a_directory_without_weights_says_what_is_missing(void)
{
    mkdir(scratch_path("empty"), 0777);
    assert_failed(open_scratch("empty"), SNRQ_NO_INPUT, "neither model.safetensors nor");
}

static void a_pickled_checkpoint_is_to_be_converted(void)
{
    mkdir(scratch_path("pickled"), 0777);
    scratch_write_text("pickled/pytorch_model.bin", "PK");
    assert_failed(open_scratch("pickled"), SNRQ_NO_INPUT, "convert it to safetensors");
}

static void real_checkpoints_are_read(void)
{
    static const struct {
        const char *directory;
        int64_t tensors;
    } models[] = {{"data/models/stories3M", 56}, {"data/models/fixtures/tiny_llama2", 43}};
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        snrq_safetensors *reader;
        const char *path = test_data("SNRQ_SHARED", models[i].directory);
        if (path == NULL || !assert_ok(snrq_safetensors_open(path, &reader))) continue;
        CU_ASSERT_EQUAL(snrq_safetensors_count(reader), models[i].tensors);
        CU_ASSERT_PTR_NOT_NULL(snrq_safetensors_find(reader, "model.embed_tokens.weight"));
        snrq_safetensors_close(&reader);
    }
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(a_good_file_is_read_in_order_of_name),
        SNRQ_TEST(data_is_read_in_parts),
        SNRQ_TEST(a_file_cut_after_opening_is_an_io_error),
        SNRQ_TEST(empty_scalar_and_zero_sized_are_fine),
        SNRQ_TEST(unaligned_tensors_and_every_type_are_fine),
        SNRQ_TEST(a_missing_file_is_no_input),
        SNRQ_TEST(a_file_shorter_than_a_length_is_refused),
        SNRQ_TEST(a_header_beyond_the_limit_is_refused),
        SNRQ_TEST(a_header_beyond_the_file_is_refused),
        SNRQ_TEST(a_header_that_does_not_begin_with_a_brace_is_refused),
        SNRQ_TEST(a_header_that_is_not_json_is_refused),
        SNRQ_TEST(a_header_that_is_not_utf8_is_refused),
        SNRQ_TEST(duplicate_names_are_refused),
        SNRQ_TEST(metadata_other_than_strings_is_refused),
        SNRQ_TEST(an_entry_that_is_no_object_is_refused),
        SNRQ_TEST(an_unknown_dtype_is_refused),
        SNRQ_TEST(a_shape_that_is_no_list_of_sizes_is_refused),
        SNRQ_TEST(a_product_of_sizes_that_overflows_is_refused),
        SNRQ_TEST(offsets_that_are_no_range_are_refused),
        SNRQ_TEST(offsets_that_do_not_fit_the_shape_are_refused),
        SNRQ_TEST(metadata_of_null_is_none),
        SNRQ_TEST(a_hole_is_refused),
        SNRQ_TEST(an_overlap_is_refused),
        SNRQ_TEST(missing_data_is_refused),
        SNRQ_TEST(trailing_bytes_are_refused),
        SNRQ_TEST(control_characters_of_a_name_do_not_reach_the_terminal),
        SNRQ_TEST(damaged_headers_never_crash),
        SNRQ_TEST(a_sharded_directory_is_one_table),
        SNRQ_TEST(a_tensor_the_shard_lacks_is_missing),
        SNRQ_TEST(names_lose_what_wrappers_put_before_them),
        SNRQ_TEST(names_get_the_model_that_is_missing),
        SNRQ_TEST(good_names_stay),
        SNRQ_TEST(names_of_two_models_are_refused),
        SNRQ_TEST(metadata_gives_tensors_other_names),
        SNRQ_TEST(what_was_not_downloaded_is_named),
        SNRQ_TEST(a_missing_shard_is_named),
        SNRQ_TEST(a_shard_outside_the_directory_is_refused),
        SNRQ_TEST(an_index_of_another_kind_is_refused),
        SNRQ_TEST(a_directory_without_weights_says_what_is_missing),
        SNRQ_TEST(a_pickled_checkpoint_is_to_be_converted),
        SNRQ_TEST(real_checkpoints_are_read),
    };
    int result = snrq_run_tests("safetensors", tests, sizeof tests / sizeof tests[0], 1);
    scratch_remove();
    return result;
}
