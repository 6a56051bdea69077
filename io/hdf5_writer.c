/* Writing an HDF5 file by all ranks; see hdf5_writer.h. */
#include "io/hdf5_writer.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Rows move in steps of this many bytes: far below the 2^31 that MPI-IO can move in one call. */
enum { STEP_BYTES = 64 << 20 };
/* More attributes than an object has here would go to a heap outside its header. */
enum { ATTRIBUTES_IN_HEADER = 64 };

/* A full file system is better reported before a collective write than by one. */
static snrq_status check_space(const char *path, int64_t bytes)
{
    char directory[PATH_MAX];
    struct statvfs system;
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : (size_t)(slash - path);
    if (length >= sizeof directory) return SNRQ_OK;
    memcpy(directory, path, length);
    directory[length] = '\0';
    const char *where = slash == NULL ? "." : slash == path ? "/" : directory;
    if (statvfs(where, &system) != 0 || system.f_blocks == 0) return SNRQ_OK;
    double room = (double)system.f_bavail * (double)system.f_frsize;
    if (room >= (double)bytes) return SNRQ_OK;
    return snrq_fail(SNRQ_CANNOT_WRITE,
                     "%s: no space: the file needs %.1f MB, %.1f MB are free in %s; make room and "
                     "run again",
                     path, (double)bytes / 1e6, room / 1e6, where);
}

static hid_t file_creation(void)
{
    hid_t p = H5Pcreate(H5P_FILE_CREATE);
    if (p >= 0 && H5Pset_obj_track_times(p, false) >= 0 &&
        H5Pset_attr_phase_change(p, ATTRIBUTES_IN_HEADER, ATTRIBUTES_IN_HEADER) >= 0)
        return p;
    if (p >= 0) H5Pclose(p);
    return -1;
}

static hid_t file_access(const snrq_context *context)
{
    hid_t p = H5Pcreate(H5P_FILE_ACCESS);
    if (p >= 0 && H5Pset_fapl_mpio(p, context->comm, MPI_INFO_NULL) >= 0 &&
        H5Pset_coll_metadata_write(p, true) >= 0 &&
        H5Pset_libver_bounds(p, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0 &&
        H5Pset_fclose_degree(p, H5F_CLOSE_STRONG) >= 0)
        return p;
    if (p >= 0) H5Pclose(p);
    return -1;
}

snrq_status snrq_hdf5_create(const snrq_context *context, const char *path, int64_t bytes,
                             snrq_hdf5_writer *out)
{
    snrq_status status = SNRQ_OK;
    *out = (snrq_hdf5_writer){.context = context, .path = path, .file = -1};
    snrq_hdf5_silence();
    if (context->rank == 0) status = check_space(path, bytes);
    SNRQ_TRY(snrq_agree(context, status));

    hid_t creation = file_creation(), access = file_access(context);
    if (creation < 0 || access < 0)
        status = snrq_hdf5_error(SNRQ_INTERNAL, path, "cannot prepare the file's properties");
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) {
        out->file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access);
        if (out->file < 0)
            status = snrq_hdf5_error(SNRQ_CANNOT_WRITE, path, "the file cannot be created");
        status = snrq_agree(context, status);
    }
    if (creation >= 0) H5Pclose(creation);
    if (access >= 0) H5Pclose(access);
    if (status != SNRQ_OK && out->file >= 0) {
        H5Fclose(out->file);
        out->file = -1;
    }
    return status;
}

snrq_status snrq_hdf5_finish(snrq_hdf5_writer *w, snrq_status status)
{
    snrq_status closing = SNRQ_OK;
    if (w->file < 0) return status;
    if (status == SNRQ_OK) {
        if (H5Fflush(w->file, H5F_SCOPE_GLOBAL) < 0)
            closing = snrq_hdf5_error(SNRQ_IO_ERROR, w->path, "the file cannot be written out");
        status = snrq_agree(w->context, closing);
    }
    if (H5Fclose(w->file) < 0)
        closing = snrq_hdf5_error(SNRQ_IO_ERROR, w->path, "the file cannot be closed");
    w->file = -1;
    /* The first failure is the one to report. */
    if (status == SNRQ_OK) status = snrq_agree(w->context, closing);
    if (status != SNRQ_OK && w->context->rank == 0) unlink(w->path);
    return status;
}

snrq_status snrq_hdf5_make_group(snrq_hdf5_writer *w, const char *name, hid_t *group)
{
    hid_t p = H5Pcreate(H5P_GROUP_CREATE);
    *group = -1;
    if (p >= 0 && H5Pset_obj_track_times(p, false) >= 0 &&
        H5Pset_attr_phase_change(p, ATTRIBUTES_IN_HEADER, ATTRIBUTES_IN_HEADER) >= 0)
        *group = H5Gcreate2(w->file, name, H5P_DEFAULT, p, H5P_DEFAULT);
    snrq_status status = SNRQ_OK;
    if (*group < 0) {
        char what[SNRQ_HDF5_MAX_NAME + 40];
        snprintf(what, sizeof what, "group %s cannot be created", name);
        status = snrq_hdf5_error(SNRQ_IO_ERROR, w->path, what);
    }
    if (p >= 0) H5Pclose(p);
    return status;
}

static hid_t dataset_creation(void)
{
    hid_t p = H5Pcreate(H5P_DATASET_CREATE);
    if (p >= 0 && H5Pset_layout(p, H5D_CONTIGUOUS) >= 0 &&
        H5Pset_alloc_time(p, H5D_ALLOC_TIME_EARLY) >= 0 &&
        H5Pset_fill_time(p, H5D_FILL_TIME_NEVER) >= 0 && H5Pset_obj_track_times(p, false) >= 0)
        return p;
    if (p >= 0) H5Pclose(p);
    return -1;
}

snrq_status snrq_hdf5_make_table(snrq_hdf5_writer *w, hid_t parent, const char *name,
                                 snrq_hdf5_kind kind, int dimensions, const int64_t *shape,
                                 snrq_hdf5_table *out)
{
    hsize_t size[SNRQ_HDF5_MAX_DIMENSIONS] = {0};
    *out = (snrq_hdf5_table){0};
    SNRQ_TRY(snrq_hdf5_shape(out, name, kind, dimensions, shape));
    for (int i = 0; i < dimensions; i++) size[i] = (hsize_t)shape[i];
    out->index = w->tables++;

    hid_t p = dataset_creation(), type = snrq_hdf5_type(kind);
    hid_t space = dimensions > 0 ? H5Screate_simple(dimensions, size, NULL) : H5Screate(H5S_SCALAR);
    hid_t dataset = -1;
    if (p >= 0 && type >= 0 && space >= 0)
        dataset = H5Dcreate2(parent, name, type, space, H5P_DEFAULT, p, H5P_DEFAULT);
    snrq_status status = SNRQ_OK;
    if (dataset < 0) {
        char what[SNRQ_HDF5_MAX_NAME + 40];
        snprintf(what, sizeof what, "dataset %s cannot be created", name);
        status = snrq_hdf5_error(SNRQ_IO_ERROR, w->path, what);
    }
    if (p >= 0) H5Pclose(p);
    if (space >= 0) H5Sclose(space);
    out->dataset = dataset > 0 ? dataset : 0;
    out->type = type > 0 ? type : 0;
    if (status == SNRQ_OK && kind == SNRQ_HDF5_BF16)
        status = snrq_hdf5_put_text(w, dataset, "dtype", "BF16");
    if (status != SNRQ_OK) snrq_hdf5_table_close(out);
    return status;
}

/* One attribute holding a single value of `type`; takes over the handle. */
static snrq_status put(const snrq_hdf5_writer *w, hid_t object, const char *name, hid_t type,
                       const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR), attribute = -1;
    if (type >= 0 && space >= 0)
        attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    snrq_status status = SNRQ_OK;
    if (attribute < 0 || H5Awrite(attribute, type, value) < 0) {
        char what[SNRQ_HDF5_MAX_NAME + 40];
        snprintf(what, sizeof what, "attribute %s cannot be written", name);
        status = snrq_hdf5_error(SNRQ_IO_ERROR, w->path, what);
    }
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    return status;
}

snrq_status snrq_hdf5_put_text(const snrq_hdf5_writer *w, hid_t object, const char *name,
                               const char *value)
{
    size_t length = strlen(value);
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, length > 0 ? length : 1) < 0 ||
                      H5Tset_strpad(type, H5T_STR_NULLPAD) < 0)) {
        H5Tclose(type);
        type = -1;
    }
    return put(w, object, name, type, value);
}

snrq_status snrq_hdf5_put_integer(const snrq_hdf5_writer *w, hid_t object, const char *name,
                                  int64_t value)
{
    return put(w, object, name, H5Tcopy(H5T_STD_I64LE), &value);
}

snrq_status snrq_hdf5_put_real(const snrq_hdf5_writer *w, hid_t object, const char *name,
                               double value)
{
    return put(w, object, name, H5Tcopy(H5T_IEEE_F64LE), &value);
}

snrq_status snrq_hdf5_put_flag(const snrq_hdf5_writer *w, hid_t object, const char *name,
                               bool value)
{
    uint8_t byte = value;
    return put(w, object, name, H5Tcopy(H5T_STD_U8LE), &byte);
}

/* One collective write; every rank takes part, with an empty range if it has nothing. */
static snrq_status write_step(const snrq_hdf5_writer *w, const snrq_hdf5_table *table,
                              hid_t transfer, snrq_range rows, const void *data)
{
    int64_t start[SNRQ_HDF5_MAX_DIMENSIONS] = {0}, count[SNRQ_HDF5_MAX_DIMENSIONS];
    hid_t file_space = -1, memory_space = -1;
    memcpy(count, table->shape, sizeof count);
    start[0] = rows.begin;
    count[0] = rows.end - rows.begin;
    snrq_hdf5_select(table, start, rows.begin < rows.end ? count : NULL, &file_space,
                     &memory_space);
    snrq_status status = SNRQ_OK;
    if (file_space < 0 || memory_space < 0)
        status = snrq_hdf5_error(SNRQ_INTERNAL, w->path, "rows cannot be selected");
    status = snrq_agree(w->context, status);
    if (status == SNRQ_OK &&
        H5Dwrite(table->dataset, table->type, memory_space, file_space, transfer, data) < 0)
        status = snrq_hdf5_error(SNRQ_IO_ERROR, w->path, "rows cannot be written");
    if (file_space >= 0) H5Sclose(file_space);
    if (memory_space >= 0) H5Sclose(memory_space);
    return status;
}

snrq_status snrq_hdf5_write_rows(snrq_hdf5_writer *w, const snrq_hdf5_table *table, snrq_range rows,
                                 snrq_hdf5_fill *fill, const void *source)
{
    int64_t step_rows = table->row_bytes > 0 ? STEP_BYTES / (int64_t)table->row_bytes : 1;
    if (step_rows < 1) step_rows = 1;
    int64_t mine = rows.end - rows.begin;
    int64_t largest = mine < step_rows ? mine : step_rows;
    double steps = (double)((mine + step_rows - 1) / step_rows);
    SNRQ_TRY(snrq_max_double(w->context, &steps, 1)); /* the same number of calls on all ranks */

    unsigned char *buffer = NULL;
    hid_t transfer = H5Pcreate(H5P_DATASET_XFER);
    snrq_status status = snrq_allocate((size_t)largest, table->row_bytes, "rows to write", &buffer);
    if (status == SNRQ_OK && (transfer < 0 || H5Pset_dxpl_mpio(transfer, H5FD_MPIO_COLLECTIVE) < 0))
        status = snrq_hdf5_error(SNRQ_INTERNAL, w->path, "a transfer cannot be prepared");

    for (int64_t i = 0; i < (int64_t)steps; i++) {
        snrq_range part = {rows.begin + i * step_rows, rows.begin + (i + 1) * step_rows};
        if (part.begin > rows.end) part.begin = rows.end;
        if (part.end > rows.end) part.end = rows.end;
        if (status == SNRQ_OK && part.begin < part.end) status = fill(source, part, buffer);
        status = snrq_agree(w->context, status);
        if (status != SNRQ_OK) break;
        w->hashes += snrq_hdf5_row_hashes(table, part, buffer);
        status = write_step(w, table, transfer, part, buffer);
    }
    status = snrq_agree(w->context, status);
    if (transfer >= 0) H5Pclose(transfer);
    free(buffer);
    return status;
}

snrq_status snrq_hdf5_check(const snrq_hdf5_writer *w, snrq_hdf5_read_back *read_back)
{
    int64_t written = (int64_t)w->hashes;
    uint64_t found = 0;
    SNRQ_TRY(snrq_sum_int64(w->context, &written, 1));
    snrq_status status = SNRQ_OK;
    if (w->context->rank == 0) {
        status = read_back(w->path, &found);
        if (status != SNRQ_OK)
            status = snrq_fail(SNRQ_IO_ERROR, "what was just written cannot be read back: %s",
                               snrq_error_message());
        else if (found != (uint64_t)written)
            status = snrq_fail(SNRQ_IO_ERROR,
                               "%s: what was just written reads back differently; the file system "
                               "or MPI-IO lost data",
                               w->path);
        if (status != SNRQ_OK) unlink(w->path);
    }
    return snrq_agree(w->context, status);
}
