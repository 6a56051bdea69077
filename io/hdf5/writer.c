/* Writing an HDF5 file by all ranks; see writer.h. */
#include "io/hdf5/writer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/pieces.h"
#include "io/reserve.h"

enum {
    STEP_BYTES = 64 << 20,  /* rows move in steps of this size; MPI-IO is limited to 2^31 */
    LAYOUT_BYTES = 1 << 20, /* more than what groups and attributes take */
    ATTRIBUTES = 64         /* more than any object has: all stay in its header */
};

/* Properties of groups and of the root. */
static bool set_object_properties(hid_t p)
{
    return p >= 0 && H5Pset_obj_track_times(p, false) >= 0 &&
           H5Pset_attr_phase_change(p, ATTRIBUTES, ATTRIBUTES) >= 0;
}

static snrq_status create_file(const char *path, hid_t *file)
{
    hid_t creation = H5Pcreate(H5P_FILE_CREATE), access = H5Pcreate(H5P_FILE_ACCESS);
    *file = -1;
    if (set_object_properties(creation) && access >= 0 &&
        H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0 &&
        H5Pset_file_locking(access, false, true) >= 0 &&
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0)
        *file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access);
    snrq_status status = SNRQ_OK;
    if (*file < 0) status = snrq_hdf5_error(SNRQ_CANNOT_WRITE, path, "the file cannot be created");
    if (creation >= 0) H5Pclose(creation);
    if (access >= 0) H5Pclose(access);
    return status;
}

/* Rank 0: the file with everything but its rows, and the room for them. */
static snrq_status lay_out(const char *path, int64_t bytes, snrq_hdf5_layout *layout,
                           const void *source)
{
    struct stat facts;
    SNRQ_TRY(snrq_reserve(path, bytes + LAYOUT_BYTES));
    snrq_hdf5_object root = {-1, path, "/"};
    SNRQ_TRY(create_file(path, &root.id));
    snrq_status status = layout(&root, source);
    if (H5Fclose(root.id) < 0 && status == SNRQ_OK)
        status = snrq_hdf5_error(SNRQ_IO_ERROR, path, "the file cannot be laid out");
    if (status != SNRQ_OK) return status;
    if (stat(path, &facts) != 0)
        return snrq_fail(SNRQ_IO_ERROR, "%s: vanished while it was written", path);
    return snrq_reserve(path, (int64_t)facts.st_size);
}

/* A call that goes through MPI-IO failed, which may give no reason; then errno, set to 0 before the
 * call, mostly still has the system's. */
static snrq_status failed_by_system(const char *path, const char *what)
{
    char text[256];
    if (errno == 0 || errno == EBADF) return snrq_hdf5_error(SNRQ_IO_ERROR, path, what);
    snprintf(text, sizeof text, "%s: %s", what, strerror(errno));
    return snrq_hdf5_error(SNRQ_IO_ERROR, path, text);
}

/* Through MPI-IO, but by each rank for itself. */
static snrq_status open_alone(const char *path, hid_t *file)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    *file = -1;
    errno = 0;
    if (access >= 0 && H5Pset_fapl_mpio(access, MPI_COMM_SELF, MPI_INFO_NULL) >= 0 &&
        H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0 &&
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0)
        *file = H5Fopen(path, H5F_ACC_RDWR, access);
    snrq_status status = SNRQ_OK;
    if (*file < 0) status = failed_by_system(path, "cannot be opened through MPI-IO");
    if (access >= 0) H5Pclose(access);
    return status;
}

/* A file that failed is gone when its writers learn of it. Collective. */
static void remove_file(const snrq_context *context, const char *path)
{
    if (context->rank == 0) unlink(path);
    snrq_barrier(context);
}

snrq_status snrq_hdf5_create(const snrq_context *context, const char *path, int64_t bytes,
                             snrq_hdf5_layout *layout, const void *source, snrq_hdf5_writer *out)
{
    snrq_status status = SNRQ_OK;
    *out = (snrq_hdf5_writer){.context = context, .root = {-1, path, "/"}};
    snrq_hdf5_silence();
    if (context->rank == 0) status = lay_out(path, bytes, layout, source);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK && access(path, R_OK | W_OK) != 0)
        status = snrq_fail(SNRQ_CANNOT_WRITE,
                           "%s: rank 0 made this file, here it cannot be opened: %s; the directory "
                           "must be shared by all nodes",
                           path, strerror(errno));
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = snrq_agree(context, open_alone(path, &out->root.id));
    errno = 0; /* see snrq_hdf5_opened() */
    if (status == SNRQ_OK) return SNRQ_OK;
    if (out->root.id >= 0) H5Fclose(out->root.id);
    out->root.id = -1;
    remove_file(context, path);
    return status;
}

/* What happened to an object that could not be made. */
static snrq_status cannot_make(const snrq_hdf5_object *parent, const char *what, const char *name)
{
    char text[SNRQ_HDF5_MAX_NAME + 64];
    snprintf(text, sizeof text, "%s %s cannot be created", what, name);
    return snrq_hdf5_error(SNRQ_IO_ERROR, parent->path, text);
}

snrq_status snrq_hdf5_make_group(const snrq_hdf5_object *parent, const char *name,
                                 snrq_hdf5_object *group)
{
    hid_t p = H5Pcreate(H5P_GROUP_CREATE);
    snrq_status status = SNRQ_OK;
    *group = (snrq_hdf5_object){-1, parent->path, name};
    if (set_object_properties(p))
        group->id = H5Gcreate2(parent->id, name, H5P_DEFAULT, p, H5P_DEFAULT);
    if (group->id < 0) status = cannot_make(parent, "group", name);
    if (p >= 0) H5Pclose(p);
    return status;
}

static hid_t dataset_properties(void)
{
    hid_t p = H5Pcreate(H5P_DATASET_CREATE);
    if (p >= 0 && H5Pset_layout(p, H5D_CONTIGUOUS) >= 0 &&
        H5Pset_alloc_time(p, H5D_ALLOC_TIME_EARLY) >= 0 &&
        H5Pset_fill_time(p, H5D_FILL_TIME_NEVER) >= 0 && H5Pset_obj_track_times(p, false) >= 0)
        return p;
    if (p >= 0) H5Pclose(p);
    return -1;
}

snrq_status snrq_hdf5_make_table(const snrq_hdf5_object *parent, const char *name,
                                 snrq_hdf5_kind kind, int dimensions, const int64_t *shape)
{
    hsize_t size[SNRQ_HDF5_MAX_DIMENSIONS] = {0};
    snrq_hdf5_table facts = {0};
    SNRQ_TRY(snrq_hdf5_shape(&facts, name, kind, dimensions, shape));
    for (int i = 0; i < dimensions; i++) size[i] = (hsize_t)shape[i];

    hid_t p = dataset_properties(), type = snrq_hdf5_type(kind);
    hid_t space = dimensions > 0 ? H5Screate_simple(dimensions, size, NULL) : H5Screate(H5S_SCALAR);
    snrq_hdf5_object dataset = {-1, parent->path, name};
    snrq_status status = SNRQ_OK;
    if (p >= 0 && type >= 0 && space >= 0)
        dataset.id = H5Dcreate2(parent->id, name, type, space, H5P_DEFAULT, p, H5P_DEFAULT);
    if (dataset.id < 0)
        status = cannot_make(parent, "dataset", name);
    else if (kind == SNRQ_HDF5_BF16)
        status = snrq_hdf5_put_text(&dataset, "dtype", "BF16");
    if (dataset.id >= 0) H5Dclose(dataset.id);
    if (p >= 0) H5Pclose(p);
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    return status;
}

/* One attribute holding a single value of `type`; takes over the handle. */
static snrq_status put(const snrq_hdf5_object *object, const char *name, hid_t type,
                       const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR), attribute = -1;
    if (type >= 0 && space >= 0)
        attribute = H5Acreate2(object->id, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    snrq_status status = SNRQ_OK;
    if (attribute < 0 || H5Awrite(attribute, type, value) < 0)
        status = cannot_make(object, "attribute", name);
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    return status;
}

snrq_status snrq_hdf5_put_text(const snrq_hdf5_object *object, const char *name, const char *value)
{
    size_t length = strlen(value);
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, length > 0 ? length : 1) < 0 ||
                      H5Tset_strpad(type, H5T_STR_NULLPAD) < 0)) {
        H5Tclose(type);
        type = -1;
    }
    return put(object, name, type, value);
}

snrq_status snrq_hdf5_put_integer(const snrq_hdf5_object *object, const char *name, int64_t value)
{
    return put(object, name, H5Tcopy(H5T_STD_I64LE), &value);
}

snrq_status snrq_hdf5_put_real(const snrq_hdf5_object *object, const char *name, double value)
{
    return put(object, name, H5Tcopy(H5T_IEEE_F64LE), &value);
}

snrq_status snrq_hdf5_put_flag(const snrq_hdf5_object *object, const char *name, bool value)
{
    uint8_t byte = value;
    return put(object, name, H5Tcopy(H5T_STD_U8LE), &byte);
}

snrq_status snrq_hdf5_opened(const snrq_hdf5_writer *w, snrq_status status)
{
    if (status != SNRQ_BAD_DATA) return status;
    return snrq_fail(SNRQ_IO_ERROR, "%s: what was just laid out cannot be read%s%s: %s",
                     w->root.path, errno != 0 ? ": " : "", errno != 0 ? strerror(errno) : "",
                     snrq_error_message());
}

/* Writes the rows of one step, which are not none. */
static snrq_status write_step(const snrq_hdf5_writer *w, const snrq_hdf5_table *table,
                              hid_t transfer, snrq_range rows, const void *data)
{
    int64_t start[SNRQ_HDF5_MAX_DIMENSIONS] = {0}, count[SNRQ_HDF5_MAX_DIMENSIONS];
    hid_t file_space = -1, memory_space = -1;
    memcpy(count, table->shape, sizeof count);
    start[0] = rows.begin;
    count[0] = rows.end - rows.begin;
    snrq_hdf5_select(table, start, count, &file_space, &memory_space);
    snrq_status status = SNRQ_OK;
    errno = 0;
    if (file_space < 0 || memory_space < 0)
        status = snrq_hdf5_error(SNRQ_INTERNAL, w->root.path, "rows cannot be selected");
    else if (H5Dwrite(table->dataset, table->type, memory_space, file_space, transfer, data) < 0)
        status = failed_by_system(w->root.path, "rows cannot be written");
    if (file_space >= 0) H5Sclose(file_space);
    if (memory_space >= 0) H5Sclose(memory_space);
    return status;
}

snrq_status snrq_hdf5_write_rows(snrq_hdf5_writer *w, const snrq_hdf5_table *table, snrq_range rows,
                                 snrq_hdf5_fill *fill, const void *source)
{
    snrq_pieces p = snrq_pieces_of(rows, table->row_bytes, STEP_BYTES, 1);
    if (p.most == 0 || table->row_bytes == 0) return SNRQ_OK;
    unsigned char *buffer = NULL;
    SNRQ_TRY(snrq_allocate((size_t)p.most, table->row_bytes, "rows to write", &buffer));
    snrq_status status = SNRQ_OK;
    hid_t transfer = H5Pcreate(H5P_DATASET_XFER);
    if (transfer < 0 || H5Pset_dxpl_mpio(transfer, H5FD_MPIO_INDEPENDENT) < 0)
        status = snrq_hdf5_error(SNRQ_INTERNAL, w->root.path, "a transfer cannot be prepared");
    while (status == SNRQ_OK && snrq_pieces_next(&p)) {
        status = fill(source, p.piece, buffer);
        if (status == SNRQ_OK) status = write_step(w, table, transfer, p.piece, buffer);
        if (status == SNRQ_OK) w->hashes += snrq_hdf5_row_hashes(table, p.piece, buffer);
    }
    if (transfer >= 0) H5Pclose(transfer);
    free(buffer);
    return status;
}

/* Rank 0: does the file hold what the ranks passed in? */
static snrq_status check(const char *path, uint64_t written, snrq_hdf5_read_back *read_back)
{
    uint64_t found = 0;
    snrq_status status = read_back(path, &found);
    if (status != SNRQ_OK)
        return snrq_fail(status == SNRQ_INTERNAL ? status : SNRQ_IO_ERROR,
                         "what was just written cannot be read back: %s", snrq_error_message());
    if (found != written)
        return snrq_fail(SNRQ_IO_ERROR,
                         "%s: what was just written reads back differently: the file system or "
                         "MPI-IO lost data",
                         path);
    return SNRQ_OK;
}

/* Closing comes after everything is durable: MPI-IO keeps to itself what the system says then, and
 * afterwards nobody hears of it again. */
static snrq_status close_durably(snrq_hdf5_writer *w, bool good)
{
    snrq_status status = SNRQ_OK;
    errno = 0;
    if (good && H5Fflush(w->root.id, H5F_SCOPE_LOCAL) < 0)
        status = failed_by_system(w->root.path, "the file cannot be made durable");
    errno = 0;
    if (H5Fclose(w->root.id) < 0 && status == SNRQ_OK)
        status = failed_by_system(w->root.path, "the file cannot be closed");
    w->root.id = -1;
    return status;
}

snrq_status snrq_hdf5_finish(snrq_hdf5_writer *w, snrq_status status,
                             snrq_hdf5_read_back *read_back)
{
    const snrq_context *context = w->context;
    status = snrq_agree(context, status);
    snrq_status closing = close_durably(w, status == SNRQ_OK);
    /* The first failure is the one to report, but all ranks learn of it before the file is touched.
     */
    if (status == SNRQ_OK) status = snrq_agree(context, closing);

    int64_t written = (int64_t)w->hashes;
    if (status == SNRQ_OK && read_back == NULL) return SNRQ_OK;
    if (status == SNRQ_OK) status = snrq_sum_int64(context, &written, 1);
    if (status == SNRQ_OK) {
        if (context->rank == 0) status = check(w->root.path, (uint64_t)written, read_back);
        status = snrq_agree(context, status);
    }
    if (status != SNRQ_OK) remove_file(context, w->root.path);
    return status;
}
