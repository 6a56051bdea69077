/* Input: a letter that chooses a file (a block, what is not quantized, sensitivities), then changes
 * to a good one, 12 bytes each. HDF5 itself is not proof against damaged bytes (io/hdf5/reader.h),
 * so a file is damaged here as one who writes HDF5 can do it: attributes and datasets of other
 * types, sizes, shapes and values, links to elsewhere, nothing where something should be. Whatever
 * the readers accept is what they promise. */
#include <hdf5.h>
#include <math.h>

#include "io/checkpoint/rest_file.h"
#include "io/checkpoint/sensitivity_file.h"
#include "io/file.h"
#include "io/hdf5/start.h"
#include "io/hdf5/writer.h"
#include "tests/fuzz/fuzz.h"

enum { BLOCK, REST, SENSITIVITY, FILES };
enum { ROWS = 2, COLUMNS = 64, TILED_ROWS = 7, CHANGE_BYTES = 12, MOST_CHANGES = 8 };

/* ---- good files ---- */

static void write_all(const snrq_hdf5_object *parent, const char *name, hid_t type,
                      const void *values)
{
    hid_t dataset = H5Dopen2(parent->id, name, H5P_DEFAULT);
    FUZZ_CHECK(dataset >= 0);
    FUZZ_CHECK(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(dataset);
}

static void make_table(const snrq_hdf5_object *parent, const char *name, snrq_hdf5_kind kind,
                       int dimensions, const int64_t *shape)
{
    FUZZ_CHECK(snrq_hdf5_make_table(parent, name, kind, dimensions, shape) == SNRQ_OK);
}

static void make_module(const snrq_hdf5_object *root, int64_t index, const snrq_module_record *r)
{
    const int64_t codes[] = {r->rows, (r->columns * r->bits + 7) / 8};
    const int64_t groups[] = {r->rows, r->groups}, columns[] = {r->columns};
    snrq_hdf5_object group;
    int32_t g_idx[COLUMNS];
    uint8_t zeros[256] = {0};
    for (int64_t c = 0; c < r->columns; c++) g_idx[c] = (int32_t)(c / r->group_size);
    FUZZ_CHECK(snrq_hdf5_make_group(root, r->name, &group) == SNRQ_OK);
    FUZZ_CHECK(snrq_hdf5_put_integer(&group, "index", index) == SNRQ_OK);
    FUZZ_CHECK(snrq_module_record_put(&group, r) == SNRQ_OK);
    make_table(&group, "codes", SNRQ_HDF5_U8, 2, codes);
    make_table(&group, "scales", SNRQ_HDF5_F16, 2, groups);
    make_table(&group, "zeros", SNRQ_HDF5_U8, 2, groups);
    make_table(&group, "g_idx", SNRQ_HDF5_I32, 1, columns);
    write_all(&group, "codes", H5T_NATIVE_UINT8, zeros);
    write_all(&group, "zeros", H5T_NATIVE_UINT8, zeros);
    write_all(&group, "g_idx", H5T_NATIVE_INT32, g_idx);
    if (snrq_module_record_has_minima(r)) make_table(&group, "minima", SNRQ_HDF5_F16, 2, groups);
    snrq_hdf5_close_group(&group);
}

/* Integers with few bits, and a format with minima. */
static void make_block(const snrq_hdf5_object *root)
{
    snrq_module_record r = {.name = "m",
                            .rows = ROWS,
                            .columns = 40,
                            .bits = 3,
                            .group_size = 16,
                            .groups = 3,
                            .scale_type = SNRQ_F16,
                            .method = "ksnrq",
                            .grid = "hessian",
                            .beam = 1,
                            .alpha_next = NAN};
    FUZZ_CHECK(snrq_hdf5_put_integer(root, "block", 0) == SNRQ_OK);
    make_module(root, 0, &r);
    strcpy(r.name, "k");
    strcpy(r.format, "q4_1");
    r.columns = COLUMNS, r.bits = 4, r.group_size = 32, r.groups = 2;
    make_module(root, 1, &r);
}

static void make_rest(const snrq_hdf5_object *root)
{
    const int64_t matrix[] = {3, 5}, vector[] = {4};
    make_table(root, "m", SNRQ_HDF5_F32, 2, matrix);
    make_table(root, "k", SNRQ_HDF5_BF16, 2, matrix);
    make_table(root, "x", SNRQ_HDF5_F16, 1, vector);
}

static void make_sensitivity(const snrq_hdf5_object *root)
{
    const int64_t shape[] = {1, SNRQ_SENSITIVITY_ROWS, SNRQ_SENSITIVITY_ROWS};
    static float tile[SNRQ_SENSITIVITY_TILE];
    FUZZ_CHECK(snrq_hdf5_put_integer(root, "tokens", 10) == SNRQ_OK);
    FUZZ_CHECK(snrq_hdf5_put_integer(root, "length", 5) == SNRQ_OK);
    FUZZ_CHECK(snrq_hdf5_put_integer(root, "seed", 1) == SNRQ_OK);
    FUZZ_CHECK(snrq_hdf5_put_integer(root, "tile_rows", SNRQ_SENSITIVITY_ROWS) == SNRQ_OK);
    FUZZ_CHECK(snrq_hdf5_put_text(root, "model", "0123456789abcdef0123456789abcdef") == SNRQ_OK);
    make_table(root, "m", SNRQ_HDF5_F32, 3, shape);
    for (int i = 0; i < TILED_ROWS; i++) tile[i * SNRQ_SENSITIVITY_ROWS + i] = 1.0f;
    write_all(root, "m", H5T_NATIVE_FLOAT, tile);
    const int64_t windows[] = {2, 5};
    snrq_hdf5_object group;
    FUZZ_CHECK(snrq_hdf5_make_group(root, "squares", &group) == SNRQ_OK);
    make_table(root, "ids", SNRQ_HDF5_I32, 2, windows);
    write_all(root, "ids", H5T_NATIVE_INT32, &(int32_t[10]){0});
    make_table(&group, "m", SNRQ_HDF5_F32, 2, windows);
    write_all(&group, "m", H5T_NATIVE_FLOAT, tile);
    snrq_hdf5_close_group(&group);
}

/* The bytes of a good file, which the program keeps. */
static char *good_file(int which, size_t *bytes)
{
    static const char *const formats[FILES] = {"snrq-block", "snrq-rest", "snrq-sensitivity"};
    static void (*const make[FILES])(const snrq_hdf5_object *) = {make_block, make_rest,
                                                                  make_sensitivity};
    char path[512], *data;
    snprintf(path, sizeof path, "%s/good.h5", fuzz_folder());
    const snrq_hdf5_object root = {
        .id = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), .path = path, .name = "/"};
    FUZZ_CHECK(root.id >= 0);
    FUZZ_CHECK(snrq_hdf5_put_text(&root, "format", formats[which]) == SNRQ_OK);
    FUZZ_CHECK(snrq_hdf5_put_integer(&root, "format_version", which == REST ? 1 : 2) == SNRQ_OK);
    make[which](&root);
    H5Fclose(root.id);
    FUZZ_CHECK(snrq_file_read(path, 1 << 20, &data, bytes) == SNRQ_OK);
    return data;
}

/* ---- changes ---- */

static const char *const attributes[] = {
    "format",       "format_version", "block",      "index",     "rows",        "columns",
    "bits",         "groups",         "group_size", "symmetric", "scale_type",  "format",
    "tensor_scale", "method",         "grid",       "beam",      "alpha_next",  "dead_inputs",
    "tokens",       "seed",           "model",      "tile_rows", "tokens_sent", "permuted_groups",
    "dtype",        "other",          "length"};
static const char *const names[] = {"m",      "k",     "x",     "codes",   "scales", "zeros",
                                    "minima", "g_idx", "other", "squares", "ids"};
static const char *const words[] = {"F16", "BF16", "F32", "q4_0", "q4_1", "q2_k", "nvfp4", "mxfp4"};

#define PICK(list, number) (list)[(number) % (sizeof(list) / sizeof *(list))]

/* A type of numbers, or text of a few bytes. */
static hid_t type_of(uint8_t number, size_t text_bytes)
{
    const hid_t types[] = {H5T_STD_I64LE,  H5T_IEEE_F64LE, H5T_STD_U8LE,  H5T_STD_I32LE,
                           H5T_IEEE_F32LE, H5T_STD_U16LE,  H5T_STD_I64BE, H5T_C_S1};
    hid_t type = number % 9 == 8 ? snrq_hdf5_type(SNRQ_HDF5_F16) : H5Tcopy(PICK(types, number));
    if (number % 9 == 7) H5Tset_size(type, text_bytes % 5 == 4 ? H5T_VARIABLE : 1 + text_bytes);
    return type;
}

static void change_attribute(hid_t object, const uint8_t *change)
{
    const char *name = PICK(attributes, change[2]);
    static char value[64];
    const hsize_t two[] = {2};
    hid_t type = type_of(change[3], change[4] % 48);
    const bool variable = H5Tis_variable_str(type) > 0;
    memset(value, 'a', sizeof value);
    if (change[3] % 9 == 7)
        strcpy(value, PICK(words, change[5]));
    else
        memcpy(value, change + 4, 8);
    if (H5Aexists(object, name) > 0) H5Adelete(object, name);
    hid_t space = change[3] / 9 % 8 == 7 ? H5Screate_simple(1, two, NULL)
                  : change[3] / 9 == 6   ? H5Screate(H5S_NULL)
                                         : H5Screate(H5S_SCALAR);
    if (change[0] & 1) {
        hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
        if (attribute >= 0 && !variable) H5Awrite(attribute, type, value);
        if (attribute >= 0) H5Aclose(attribute);
    }
    H5Sclose(space);
    H5Tclose(type);
}

static void replace_dataset(hid_t group, const uint8_t *change)
{
    const char *name = PICK(names, change[2]);
    const int dimensions = change[4] % 4;
    hsize_t shape[3], chunk[3] = {1, 1, 1};
    hid_t type = type_of(change[3], 3), p = H5Pcreate(H5P_DATASET_CREATE);
    for (int i = 0; i < dimensions; i++) shape[i] = change[5 + i] % 70;
    hid_t space =
        dimensions > 0 ? H5Screate_simple(dimensions, shape, NULL) : H5Screate(H5S_SCALAR);
    switch (change[8] % 5) {
    case 0:
        H5Pset_alloc_time(p, H5D_ALLOC_TIME_EARLY);
        break;
    case 1:
        H5Pset_layout(p, H5D_COMPACT);
        break;
    case 2:
        if (dimensions > 0) H5Pset_chunk(p, dimensions, chunk);
        break;
    case 3:
        H5Pset_external(p, "/dev/null", 0, H5F_UNLIMITED);
        break;
    default:
        break; /* nothing is allocated */
    }
    if (H5Lexists(group, name, H5P_DEFAULT) > 0) H5Ldelete(group, name, H5P_DEFAULT);
    hid_t dataset = H5Dcreate2(group, name, type, space, H5P_DEFAULT, p, H5P_DEFAULT);
    if (dataset >= 0) H5Dclose(dataset);
    H5Sclose(space);
    H5Pclose(p);
    H5Tclose(type);
}

/* Other bytes for a number of a dataset. */
static void change_number(hid_t group, const uint8_t *change)
{
    static uint8_t data[1 << 15];
    const char *name = PICK(names, change[2]);
    hid_t dataset =
        H5Lexists(group, name, H5P_DEFAULT) > 0 ? H5Dopen2(group, name, H5P_DEFAULT) : -1;
    if (dataset < 0) return;
    hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
    const hssize_t count = H5Sget_simple_extent_npoints(space);
    const size_t item = H5Tget_size(type);
    if (count > 0 && (size_t)count * item <= sizeof data && H5Tis_variable_str(type) <= 0 &&
        H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0) {
        const size_t at = (size_t)(change[3] | change[4] << 8) % (size_t)count * item;
        memcpy(data + at, change + 5, item < 7 ? item : 7);
        H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(dataset);
}

static void change_link(hid_t group, const uint8_t *change)
{
    const char *name = PICK(names, change[2]), *other = PICK(names, change[3]);
    if (H5Lexists(group, name, H5P_DEFAULT) > 0) H5Ldelete(group, name, H5P_DEFAULT);
    hid_t made = -1;
    switch (change[4] % 5) {
    case 0:
        H5Lcreate_soft(other, group, name, H5P_DEFAULT, H5P_DEFAULT);
        break;
    case 1:
        H5Lcreate_external("/dev/null", other, group, name, H5P_DEFAULT, H5P_DEFAULT);
        break;
    case 2:
        H5Lcreate_hard(group, other, group, name, H5P_DEFAULT, H5P_DEFAULT);
        break;
    case 3:
        made = H5Gcreate2(group, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        break;
    default:
        break;
    }
    if (made >= 0) H5Gclose(made);
}

static void apply(hid_t file, const uint8_t *change)
{
    static const char *const groups[] = {"/", "m", "k"};
    const char *name = PICK(groups, change[1]);
    hid_t object = H5Lexists(file, name, H5P_DEFAULT) > 0 || name[0] == '/'
                       ? H5Oopen(file, name, H5P_DEFAULT)
                       : -1;
    if (object < 0) return;
    const bool group = H5Iget_type(object) == H5I_GROUP;
    switch (change[0] % 8) {
    case 0:
    case 1:
    case 2:
    case 3:
        change_attribute(object, change);
        break;
    case 4:
        if (group) replace_dataset(object, change);
        break;
    case 5:
        if (group) change_link(object, change);
        break;
    default:
        if (group) change_number(object, change);
        break;
    }
    H5Oclose(object);
}

/* The good file with the changes of the input, which HDF5 makes in memory. Returns its path. */
static const char *change_file(const char *good, size_t bytes, const uint8_t *data, size_t size)
{
    enum { STEP = 1 << 14, MOST = 1 << 20 };
    static char image[MOST];
    hid_t p = H5Pcreate(H5P_FILE_ACCESS);
    FUZZ_CHECK(H5Pset_fapl_core(p, STEP, false) >= 0);
    FUZZ_CHECK(H5Pset_file_image(p, (void *)(uintptr_t)good, bytes) >= 0);
    hid_t file = H5Fopen("input", H5F_ACC_RDWR, p);
    FUZZ_CHECK(file >= 0);
    for (size_t at = 0; at + CHANGE_BYTES <= size && at < MOST_CHANGES * CHANGE_BYTES;
         at += CHANGE_BYTES)
        apply(file, data + at);
    H5Fflush(file, H5F_SCOPE_GLOBAL);
    const ssize_t changed = H5Fget_file_image(file, image, sizeof image);
    FUZZ_CHECK(changed > 0);
    H5Fclose(file);
    H5Pclose(p);
    return fuzz_file("input.h5", image, (size_t)changed);
}

/* ---- readers ---- */

static void check_codes(const snrq_module_record *r, const snrq_module_codes *m)
{
    for (int64_t i = 0; i < r->rows * r->columns; i++) FUZZ_CHECK(m->codes[i] < 1 << r->bits);
    for (int64_t i = 0; i < r->rows * r->groups; i++)
        FUZZ_CHECK(m->zeros[i] < 1 << r->bits && isfinite(m->scales[i]) && isfinite(m->minima[i]));
    for (int64_t c = 0; c < r->columns; c++)
        FUZZ_CHECK(m->g_idx[c] >= 0 && m->g_idx[c] < r->groups);
    for (int64_t i = 0; i < r->rows; i++)
        for (int64_t c = 0; c < r->columns; c++)
            FUZZ_CHECK(!isnan(snrq_module_codes_value(m, r, i, c)));
}

static void read_block(const char *path)
{
    snrq_block_file *file = NULL;
    if (snrq_block_file_open(path, &file) != SNRQ_OK) return;
    for (int i = 0; i < snrq_block_file_count(file); i++) {
        const snrq_module_record *r = snrq_block_file_record(file, i);
        snrq_module_codes codes = {0};
        FUZZ_CHECK(snrq_module_record_problem(r) == NULL);
        FUZZ_CHECK(snrq_module_codes_allocate(r, r->rows, &codes) == SNRQ_OK);
        if (snrq_module_codes_read(file, i, (snrq_range){0, r->rows}, &codes) == SNRQ_OK)
            check_codes(r, &codes);
        snrq_module_codes_free(&codes);
    }
    snrq_block_file_close(&file);
}

static void read_rest(const char *path)
{
    static unsigned char data[1 << 20];
    snrq_rest_file *file = NULL;
    if (snrq_rest_file_open(path, &file) != SNRQ_OK) return;
    for (int64_t i = 0; i < snrq_rest_file_count(file); i++) {
        const snrq_tensor *t = snrq_rest_file_at(file, i);
        uint64_t elements = 1;
        for (int d = 0; d < t->dimensions; d++) elements *= (uint64_t)t->shape[d];
        FUZZ_CHECK(elements * (uint64_t)t->element_bits == 8 * t->bytes);
        FUZZ_CHECK(t->bytes <= sizeof data && snrq_rest_file_find(file, t->name) == t);
        (void)snrq_rest_file_read(file, t, 0, t->bytes, data);
    }
    snrq_rest_file_close(&file);
}

static void read_sensitivity(const char *path)
{
    static float tile[SNRQ_SENSITIVITY_TILE];
    snrq_sensitivity_file *file = NULL;
    if (snrq_sensitivity_open(path, &file) != SNRQ_OK) return;
    FUZZ_CHECK(snrq_sensitivity_facts_of(file)->tokens > 0);
    if (snrq_sensitivity_read(file, "m", TILED_ROWS, (snrq_range){0, 1}, tile) == SNRQ_OK)
        for (int i = 0; i < SNRQ_SENSITIVITY_TILE; i++) {
            const int row = i / SNRQ_SENSITIVITY_ROWS, column = i % SNRQ_SENSITIVITY_ROWS;
            FUZZ_CHECK(isfinite(tile[i]));
            FUZZ_CHECK(tile[i] == tile[column * SNRQ_SENSITIVITY_ROWS + row]);
            FUZZ_CHECK(tile[i] == 0.0f || (row < TILED_ROWS && column < TILED_ROWS));
        }
    const int64_t tokens = snrq_sensitivity_facts_of(file)->tokens;
    if (tokens <= SNRQ_SENSITIVITY_TILE &&
        snrq_sensitivity_read_squares(file, "m", tile) == SNRQ_OK)
        for (int64_t i = 0; i < tokens; i++) FUZZ_CHECK(isfinite(tile[i]) && tile[i] >= 0.0f);
    snrq_sensitivity_close(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char *good[FILES];
    static size_t bytes[FILES];
    static void (*const read[FILES])(const char *) = {read_block, read_rest, read_sensitivity};
    if (size == 0) return 0;
    const int which = data[0] % FILES;
    if (good[0] == NULL) {
        FUZZ_CHECK(snrq_hdf5_start() == SNRQ_OK);
        snrq_hdf5_silence();
        /* HDF5 keeps what it frees, the half megabyte of each open file above all. */
        FUZZ_CHECK(H5set_free_list_limits(-1, -1, -1, -1, -1, -1) >= 0);
        for (int i = 0; i < FILES; i++) good[i] = good_file(i, &bytes[i]);
    }
    const char *path = size > CHANGE_BYTES
                           ? change_file(good[which], bytes[which], data + 1, size - 1)
                           : fuzz_file("input.h5", good[which], bytes[which]);
    read[which](path);
    FUZZ_CHECK(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL) == 0);
    return 0;
}
