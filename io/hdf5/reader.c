/* Reading HDF5 files that may be damaged; see reader.h. */
#include "io/hdf5/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/directory.h"
#include "io/pieces.h"

enum { STEP_BYTES = 16 << 20 };

/* What is wrong with a file that can be read. */
static snrq_status bad(const snrq_hdf5_object *object, const char *name, const char *problem)
{
    snrq_status status = SNRQ_OK;
    if (snrq_hdf5_system_failed(object->path, &status)) return status;
    return snrq_fail(SNRQ_BAD_DATA, "%s: %s%s%s: %s", object->path, object->name,
                     object->name[0] == '/' || *name == '\0' ? "" : "/", name, problem);
}

static hid_t file_access(void)
{
    hid_t p = H5Pcreate(H5P_FILE_ACCESS);
    /* Reading needs no file locks, which some parallel file systems do not have. */
    if (p >= 0 && H5Pset_file_locking(p, false, true) >= 0 &&
        H5Pset_fclose_degree(p, H5F_CLOSE_STRONG) >= 0)
        return p;
    if (p >= 0) H5Pclose(p);
    return -1;
}

static snrq_status open_file(const char *path, snrq_hdf5_object *root)
{
    struct stat facts;
    if (stat(path, &facts) != 0)
        return snrq_fail(SNRQ_NO_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    if (!S_ISREG(facts.st_mode)) return snrq_fail(SNRQ_BAD_DATA, "%s: not a regular file", path);
    if (access(path, R_OK) != 0)
        return snrq_fail(SNRQ_NO_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    hid_t p = file_access();
    if (p < 0) return snrq_hdf5_error(SNRQ_INTERNAL, path, "cannot prepare to open the file");
    root->id = H5Fopen(path, H5F_ACC_RDONLY, p);
    snrq_status status = SNRQ_OK;
    if (root->id < 0)
        status = snrq_hdf5_error(SNRQ_BAD_DATA, path, "not an HDF5 file, or cut short or damaged");
    H5Pclose(p);
    return status;
}

snrq_status snrq_hdf5_open(const char *path, const char *format, int64_t version,
                           snrq_hdf5_object *root)
{
    char found[32] = "";
    int64_t number = 0;
    *root = (snrq_hdf5_object){.id = -1, .path = path, .name = "/"};
    snrq_hdf5_silence();
    snrq_status status = open_file(path, root);
    if (status == SNRQ_OK) status = snrq_hdf5_get_text(root, "format", found, sizeof found);
    if (status == SNRQ_OK && strcmp(found, format) != 0)
        status =
            snrq_fail(SNRQ_BAD_DATA, "%s: format is \"%s\", expected \"%s\"", path, found, format);
    if (status == SNRQ_OK) status = snrq_hdf5_get_integer(root, "format_version", &number);
    if (status == SNRQ_OK && (number < 1 || number > version))
        status =
            snrq_fail(SNRQ_BAD_DATA, "%s: format version %lld; this program reads version %s%lld",
                      path, (long long)number, version > 1 ? "1 to " : "", (long long)version);
    if (status != SNRQ_OK) snrq_hdf5_close_file(root);
    return status;
}

void snrq_hdf5_close_file(snrq_hdf5_object *root)
{
    if (root->id >= 0) H5Fclose(root->id);
    root->id = -1;
}

static snrq_status link_name(const snrq_hdf5_object *group, int index, char **out)
{
    char name[SNRQ_HDF5_MAX_NAME + 2] = "";
    ssize_t length = H5Lget_name_by_idx(group->id, ".", H5_INDEX_NAME, H5_ITER_INC, (hsize_t)index,
                                        name, sizeof name, H5P_DEFAULT);
    if (length < 0) return snrq_hdf5_error(SNRQ_BAD_DATA, group->path, "names cannot be listed");
    if (!snrq_hdf5_name_is_valid(name)) return bad(group, "", "holds an object with an odd name");
    SNRQ_TRY(snrq_allocate((size_t)length + 1, 1, "name", out));
    memcpy(*out, name, (size_t)length);
    return SNRQ_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

snrq_status snrq_hdf5_names(const snrq_hdf5_object *group, int limit, char ***names, int *count)
{
    H5G_info_t facts;
    *names = NULL;
    *count = 0;
    if (H5Gget_info(group->id, &facts) < 0)
        return snrq_hdf5_error(SNRQ_BAD_DATA, group->path, "a group cannot be read");
    if (facts.nlinks > (hsize_t)limit)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %s holds %llu objects, at most %d are supported",
                         group->path, group->name, (unsigned long long)facts.nlinks, limit);
    SNRQ_TRY(snrq_allocate((size_t)facts.nlinks, sizeof **names, "names", names));
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < (int)facts.nlinks && status == SNRQ_OK; i++) {
        status = link_name(group, i, &(*names)[i]);
        if (status == SNRQ_OK) *count = i + 1;
    }
    if (status != SNRQ_OK)
        snrq_names_free(names, *count);
    else
        qsort(*names, (size_t)*count, sizeof **names, by_name);
    return status;
}

/* Opens an object that must be reached by a hard link and be of the given type. */
static snrq_status open_object(const snrq_hdf5_object *parent, const char *name, H5I_type_t type,
                               hid_t *out)
{
    H5L_info_t facts;
    *out = -1;
    if (H5Lexists(parent->id, name, H5P_DEFAULT) <= 0) return bad(parent, name, "missing");
    if (H5Lget_info(parent->id, name, &facts, H5P_DEFAULT) < 0)
        return snrq_hdf5_error(SNRQ_BAD_DATA, parent->path, "a link cannot be read");
    if (facts.type != H5L_TYPE_HARD) return bad(parent, name, "a link to elsewhere");
    hid_t id = H5Oopen(parent->id, name, H5P_DEFAULT);
    if (id < 0) return bad(parent, name, "cannot be opened: damaged");
    if (H5Iget_type(id) != type) {
        H5Oclose(id);
        return bad(parent, name, type == H5I_GROUP ? "not a group" : "not a dataset");
    }
    *out = id;
    return SNRQ_OK;
}

snrq_status snrq_hdf5_open_group(const snrq_hdf5_object *parent, const char *name,
                                 snrq_hdf5_object *group)
{
    *group = (snrq_hdf5_object){.path = parent->path, .name = name};
    return open_object(parent, name, H5I_GROUP, &group->id);
}

bool snrq_hdf5_has(const snrq_hdf5_object *object, const char *name)
{
    return H5Aexists(object->id, name) > 0;
}

/* Opens attribute `name`, which must be a single value; *type is the type it is stored in. */
static snrq_status open_attribute(const snrq_hdf5_object *object, const char *name,
                                  hid_t *attribute, hid_t *type)
{
    *attribute = *type = -1;
    if (!snrq_hdf5_has(object, name)) return bad(object, name, "attribute is missing");
    *attribute = H5Aopen(object->id, name, H5P_DEFAULT);
    if (*attribute < 0)
        return snrq_hdf5_error(SNRQ_BAD_DATA, object->path, "an attribute cannot be opened");
    hid_t space = H5Aget_space(*attribute);
    bool single = space >= 0 && H5Sget_simple_extent_type(space) == H5S_SCALAR;
    if (space >= 0) H5Sclose(space);
    if (!single) return bad(object, name, "attribute is not a single value");
    *type = H5Aget_type(*attribute);
    return *type < 0 ? bad(object, name, "attribute has no type") : SNRQ_OK;
}

static void close_attribute(hid_t attribute, hid_t type)
{
    if (type >= 0) H5Tclose(type);
    if (attribute >= 0) H5Aclose(attribute);
}

/* Reads a number whose stored type must be `expected`. */
static snrq_status get(const snrq_hdf5_object *object, const char *name, hid_t expected,
                       const char *problem, void *out)
{
    hid_t attribute, type;
    snrq_status status = open_attribute(object, name, &attribute, &type);
    if (status == SNRQ_OK && H5Tequal(type, expected) <= 0) status = bad(object, name, problem);
    if (status == SNRQ_OK && H5Aread(attribute, type, out) < 0)
        status = snrq_hdf5_error(SNRQ_BAD_DATA, object->path, "an attribute cannot be read");
    close_attribute(attribute, type);
    return status;
}

snrq_status snrq_hdf5_get_integer(const snrq_hdf5_object *object, const char *name, int64_t *out)
{
    return get(object, name, H5T_STD_I64LE, "attribute is not a 64-bit integer", out);
}

snrq_status snrq_hdf5_get_real(const snrq_hdf5_object *object, const char *name, double *out)
{
    return get(object, name, H5T_IEEE_F64LE, "attribute is not a 64-bit float", out);
}

snrq_status snrq_hdf5_get_flag(const snrq_hdf5_object *object, const char *name, bool *out)
{
    uint8_t byte = 0;
    SNRQ_TRY(get(object, name, H5T_STD_U8LE, "attribute is not an 8-bit integer", &byte));
    if (byte > 1) return bad(object, name, "attribute is neither 0 nor 1");
    *out = byte;
    return SNRQ_OK;
}

snrq_status snrq_hdf5_get_text(const snrq_hdf5_object *object, const char *name, char *out,
                               size_t size)
{
    hid_t attribute, type;
    memset(out, 0, size);
    snrq_status status = open_attribute(object, name, &attribute, &type);
    if (status == SNRQ_OK && (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0))
        status = bad(object, name, "attribute is not text of fixed length");
    if (status == SNRQ_OK && H5Tget_size(type) >= size)
        status = bad(object, name, "attribute is too long");
    if (status == SNRQ_OK && H5Aread(attribute, type, out) < 0)
        status = snrq_hdf5_error(SNRQ_BAD_DATA, object->path, "an attribute cannot be read");
    close_attribute(attribute, type);
    for (const char *c = out; status == SNRQ_OK && *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            status = bad(object, name, "attribute is not printable");
    return status;
}

/* The dataset must be plain rows of bytes at a known place inside the file. */
static bool storage_is_plain(hid_t dataset)
{
    hid_t p = H5Dget_create_plist(dataset);
    bool plain = p >= 0 && H5Pget_layout(p) == H5D_CONTIGUOUS && H5Pget_external_count(p) == 0 &&
                 H5Pget_nfilters(p) == 0;
    if (p >= 0) H5Pclose(p);
    return plain;
}

static snrq_status check_extent(const snrq_hdf5_object *parent, const char *name,
                                const snrq_hdf5_table *table)
{
    struct stat facts;
    uint64_t bytes = (uint64_t)table->rows * table->row_bytes;
    if (bytes == 0) return SNRQ_OK;
    haddr_t begin = H5Dget_offset(table->dataset);
    if (stat(parent->path, &facts) != 0)
        return snrq_fail(SNRQ_IO_ERROR, "%s: %s", parent->path, strerror(errno));
    uint64_t end = (uint64_t)facts.st_size;
    if (begin == HADDR_UNDEF || begin > end || bytes > end - begin)
        return bad(parent, name, "reaches beyond the end of the file");
    return SNRQ_OK;
}

/* Shape of an open dataset; it must be simple and of fixed size. */
static snrq_status stored_shape(const snrq_hdf5_object *parent, const char *name,
                                const snrq_hdf5_table *table, int *dimensions, int64_t *shape)
{
    hsize_t size[H5S_MAX_RANK] = {0}, most[H5S_MAX_RANK] = {0};
    hid_t space = H5Dget_space(table->dataset);
    int rank = space >= 0 ? H5Sget_simple_extent_dims(space, size, most) : -1;
    H5S_class_t class = space >= 0 ? H5Sget_simple_extent_type(space) : H5S_NO_CLASS;
    if (space >= 0) H5Sclose(space);
    if (rank < 0 || rank > SNRQ_HDF5_MAX_DIMENSIONS || class == H5S_NULL || class == H5S_NO_CLASS)
        return bad(parent, name, "shape cannot be used");
    *dimensions = rank;
    for (int i = 0; i < rank; i++) {
        if (size[i] != most[i] || size[i] > INT64_MAX)
            return bad(parent, name, "shape cannot be used");
        shape[i] = (int64_t)size[i];
    }
    return SNRQ_OK;
}

static snrq_status stored_kind(const snrq_hdf5_object *parent, const char *name,
                               const snrq_hdf5_kind *kinds, int count, snrq_hdf5_table *table,
                               snrq_hdf5_kind *kind)
{
    hid_t stored = H5Dget_type(table->dataset);
    bool found = false;
    for (int i = 0; i < count && !found && stored >= 0; i++) {
        hid_t type = snrq_hdf5_type(kinds[i]);
        found = type >= 0 && H5Tequal(stored, type) > 0;
        if (found) {
            *kind = kinds[i];
            table->type = type;
        } else if (type >= 0) {
            H5Tclose(type);
        }
    }
    if (stored >= 0) H5Tclose(stored);
    if (!found) return bad(parent, name, "type of the elements is not the expected one");
    if (*kind != SNRQ_HDF5_BF16) return SNRQ_OK;
    char text[8];
    snrq_hdf5_object object = {table->dataset, parent->path, name};
    SNRQ_TRY(snrq_hdf5_get_text(&object, "dtype", text, sizeof text));
    return strcmp(text, "BF16") == 0 ? SNRQ_OK : bad(&object, "dtype", "is not BF16");
}

snrq_status snrq_hdf5_find_table(const snrq_hdf5_object *parent, const char *name,
                                 const snrq_hdf5_kind *kinds, int count, snrq_hdf5_kind *kind,
                                 snrq_hdf5_table *out)
{
    int dimensions = 0;
    int64_t shape[SNRQ_HDF5_MAX_DIMENSIONS] = {0};
    *out = (snrq_hdf5_table){0};
    snrq_status status = open_object(parent, name, H5I_DATASET, &out->dataset);
    if (status == SNRQ_OK && !storage_is_plain(out->dataset))
        status = bad(parent, name, "not stored as plain rows inside the file");
    if (status == SNRQ_OK) status = stored_shape(parent, name, out, &dimensions, shape);
    if (status == SNRQ_OK) status = stored_kind(parent, name, kinds, count, out, kind);
    if (status == SNRQ_OK && snrq_hdf5_shape(out, name, *kind, dimensions, shape) != SNRQ_OK)
        status = bad(parent, name, "is too large");
    if (status == SNRQ_OK) status = check_extent(parent, name, out);
    if (status != SNRQ_OK) snrq_hdf5_table_close(out);
    return status;
}

snrq_status snrq_hdf5_open_table(const snrq_hdf5_object *parent, const char *name,
                                 snrq_hdf5_kind kind, int dimensions, const int64_t *shape,
                                 snrq_hdf5_table *out)
{
    snrq_hdf5_kind found;
    SNRQ_TRY(snrq_hdf5_find_table(parent, name, &kind, 1, &found, out));
    bool same = out->dimensions == dimensions;
    for (int i = 0; i < dimensions && same; i++) same = out->shape[i] == shape[i];
    if (same) return SNRQ_OK;
    snrq_hdf5_table_close(out);
    return bad(parent, name, "shape does not fit the attributes of its group");
}

snrq_status snrq_hdf5_read(const char *path, const snrq_hdf5_table *table, const int64_t *start,
                           const int64_t *count, void *out)
{
    hid_t file_space = -1, memory_space = -1;
    snrq_hdf5_select(table, start, count, &file_space, &memory_space);
    snrq_status status = SNRQ_OK;
    if (file_space < 0 || memory_space < 0)
        status = snrq_hdf5_error(SNRQ_INTERNAL, path, "rows cannot be selected");
    else if (H5Dread(table->dataset, table->type, memory_space, file_space, H5P_DEFAULT, out) < 0)
        status = snrq_hdf5_error(SNRQ_IO_ERROR, path, "rows cannot be read");
    if (file_space >= 0) H5Sclose(file_space);
    if (memory_space >= 0) H5Sclose(memory_space);
    return status;
}

snrq_status snrq_hdf5_read_rows(const char *path, const snrq_hdf5_table *table, snrq_range rows,
                                void *out)
{
    int64_t start[SNRQ_HDF5_MAX_DIMENSIONS] = {0}, count[SNRQ_HDF5_MAX_DIMENSIONS];
    if (rows.begin >= rows.end) return SNRQ_OK;
    memcpy(count, table->shape, sizeof count);
    start[0] = rows.begin;
    count[0] = rows.end - rows.begin;
    return snrq_hdf5_read(path, table, start, count, out);
}

snrq_status snrq_hdf5_hash_table(const char *path, const snrq_hdf5_table *table, uint64_t *sum)
{
    snrq_pieces p = snrq_pieces_of((snrq_range){0, table->rows}, table->row_bytes, STEP_BYTES, 1);
    unsigned char *buffer = NULL;
    SNRQ_TRY(snrq_allocate((size_t)p.most, table->row_bytes, "rows to read back", &buffer));
    snrq_status status = SNRQ_OK;
    while (status == SNRQ_OK && snrq_pieces_next(&p)) {
        status = snrq_hdf5_read_rows(path, table, p.piece, buffer);
        if (status == SNRQ_OK) *sum += snrq_hdf5_row_hashes(table, p.piece, buffer);
    }
    free(buffer);
    return status;
}
