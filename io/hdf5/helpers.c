/* Error text, types and tables of HDF5 files; see helpers.h. */
#include "io/hdf5/helpers.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "rows are moved without conversion: this needs a little-endian machine"
#endif

enum { ERROR_TEXT = 600, ERROR_LEVELS = 2 };

void snrq_hdf5_silence(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

/* What HDF5 says about a call that failed. */
struct reasons {
    char text[ERROR_TEXT]; /* of the innermost calls: they name the file, errno and MPI's words */
    bool moving, opening; /* the innermost one asked the system to move bytes or to open, in vain */
};

static herr_t add_level(unsigned level, const H5E_error2_t *error, void *user)
{
    struct reasons *r = user;
    size_t used = strlen(r->text);
    if (level == 0) {
        r->moving = error->maj_num == H5E_IO &&
                    (error->min_num == H5E_READERROR || error->min_num == H5E_WRITEERROR);
        r->opening = error->maj_num == H5E_FILE && error->min_num == H5E_CANTOPENFILE;
    }
    if (level >= ERROR_LEVELS || error->desc == NULL) return 0;
    snprintf(r->text + used, ERROR_TEXT - used, "%s%s", used > 0 ? "; " : "", error->desc);
    return 0;
}

static void take_reasons(struct reasons *r)
{
    *r = (struct reasons){.text = ""};
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, add_level, r);
    H5Eclear2(H5E_DEFAULT);
    for (char *c = r->text; *c != '\0'; c++)
        if ((unsigned char)*c < ' ') *c = ' ';
}

snrq_status snrq_hdf5_error(snrq_status status, const char *path, const char *what)
{
    struct reasons r;
    take_reasons(&r);
    if (r.moving || (r.opening && status == SNRQ_BAD_DATA)) status = SNRQ_IO_ERROR;
    return snrq_fail(status, "%s: %s (%s)", path, what,
                     r.text[0] ? r.text : "HDF5 gives no reason");
}

bool snrq_hdf5_system_failed(const char *path, snrq_status *status)
{
    struct reasons r;
    take_reasons(&r);
    if (r.moving || r.opening)
        *status = snrq_fail(SNRQ_IO_ERROR, "%s: reading failed (%s)", path, r.text);
    return r.moving || r.opening;
}

static hid_t half_type(void)
{
    /* IEEE binary16: sign bit 15, 5 exponent bits from bit 10 with bias 15, 10 fraction bits. */
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    if (type < 0) return type;
    if (H5Tset_fields(type, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(type, 2) >= 0 &&
        H5Tset_ebias(type, 15) >= 0)
        return type;
    H5Tclose(type);
    return -1;
}

hid_t snrq_hdf5_type(snrq_hdf5_kind kind)
{
    switch (kind) {
    case SNRQ_HDF5_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case SNRQ_HDF5_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case SNRQ_HDF5_F16:
        return half_type();
    case SNRQ_HDF5_BF16:
        return H5Tcopy(H5T_STD_U16LE);
    case SNRQ_HDF5_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    }
    return -1;
}

size_t snrq_hdf5_size(snrq_hdf5_kind kind)
{
    switch (kind) {
    case SNRQ_HDF5_U8:
        return 1;
    case SNRQ_HDF5_F16:
    case SNRQ_HDF5_BF16:
        return 2;
    case SNRQ_HDF5_I32:
    case SNRQ_HDF5_F32:
        break;
    }
    return 4;
}

snrq_status snrq_hdf5_shape(snrq_hdf5_table *table, const char *name, snrq_hdf5_kind kind,
                            int dimensions, const int64_t *shape)
{
    const int64_t limit = INT64_C(1) << 62;
    int64_t row = (int64_t)snrq_hdf5_size(kind);
    if (dimensions < 0 || dimensions > SNRQ_HDF5_MAX_DIMENSIONS)
        return snrq_fail(SNRQ_BAD_DATA, "%s has %d dimensions; 0 to %d are supported", name,
                         dimensions, SNRQ_HDF5_MAX_DIMENSIONS);
    table->dimensions = dimensions;
    table->rows = dimensions > 0 ? shape[0] : 1;
    bool empty = false;
    for (int i = 0; i < dimensions; i++) {
        /* Empty dimensions count as 1 here, so that what follows cannot overflow either. */
        int64_t size = shape[i] > 0 ? shape[i] : 1;
        if (shape[i] < 0 || size > limit / (i > 0 ? row : 1))
            return snrq_fail(SNRQ_BAD_DATA, "%s: dimension %d of %lld is out of range", name, i,
                             (long long)shape[i]);
        table->shape[i] = shape[i];
        if (i > 0) row *= size;
        if (i > 0 && shape[i] == 0) empty = true;
    }
    if (table->rows > limit / row)
        return snrq_fail(SNRQ_BAD_DATA, "%s: a table of %lld rows of %lld bytes is out of range",
                         name, (long long)table->rows, (long long)row);
    table->row_bytes = empty ? 0 : (size_t)row;
    return SNRQ_OK;
}

void snrq_hdf5_close_group(snrq_hdf5_object *group)
{
    if (group->id >= 0) H5Gclose(group->id);
    group->id = -1;
}

void snrq_hdf5_table_close(snrq_hdf5_table *table)
{
    if (table->dataset > 0) H5Dclose(table->dataset);
    if (table->type > 0) H5Tclose(table->type);
    *table = (snrq_hdf5_table){0};
}

void snrq_hdf5_select(const snrq_hdf5_table *table, const int64_t *start, const int64_t *count,
                      hid_t *file_space, hid_t *memory_space)
{
    hsize_t from[SNRQ_HDF5_MAX_DIMENSIONS] = {0}, box[SNRQ_HDF5_MAX_DIMENSIONS] = {0};
    hsize_t elements = 1;
    for (int i = 0; i < table->dimensions; i++) {
        from[i] = (hsize_t)start[i];
        box[i] = (hsize_t)count[i];
        elements *= box[i];
    }
    *file_space = H5Dget_space(table->dataset);
    *memory_space = H5Screate_simple(1, &elements, NULL);
    if (*file_space < 0 || *memory_space < 0 || table->dimensions == 0) return;
    if (H5Sselect_hyperslab(*file_space, H5S_SELECT_SET, from, NULL, box, NULL) >= 0) return;
    H5Sclose(*file_space);
    *file_space = -1;
}

uint64_t snrq_hdf5_row_hashes(const snrq_hdf5_table *table, snrq_range rows, const void *data)
{
    const unsigned char *row = data;
    uint64_t sum = 0;
    for (int64_t r = rows.begin; r < rows.end; r++, row += table->row_bytes) {
        uint64_t seed = ((uint64_t)table->index << 44) ^ (uint64_t)r;
        sum += XXH3_64bits_withSeed(row, table->row_bytes, seed);
    }
    return sum;
}

bool snrq_hdf5_name_is_valid(const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length > SNRQ_HDF5_MAX_NAME) return false;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return false;
    for (const char *c = name; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == '/' || *c == 0x7f) return false;
    return true;
}
