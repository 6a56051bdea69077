/* Quantized blocks in parallel HDF5; see block_file.h, and docs/format.md for the layout.
 *
 * Writing: every module is four tables (codes, scales, zeros, g_idx) whose rows are turned into
 * what is stored on the way out, in bounded memory. Reading back compares the sum of the hashes of
 * all stored rows.
 */
#include "io/checkpoint/block_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/codes.h"
#include "io/directory.h"
#include "io/hdf5/reader.h"
#include "io/hdf5/writer.h"
#include "io/pieces.h"

enum { INTEGERS = 1, FORMATS_TOO = 2, MAX_MODULES = 4096, READ_BYTES = 16 << 20 };
static const char format_name[] = "snrq-block";
/* The tables of a module, in the order in which they are made. */
enum { CODES, SCALES, ZEROS, G_IDX, MINIMA, TABLES };
static const char *const table_names[TABLES] = {"codes", "scales", "zeros", "g_idx", "minima"};

struct module {
    snrq_module_record record;
    snrq_hdf5_table tables[TABLES];
};

struct snrq_block_file {
    char *path;
    snrq_hdf5_object root;
    int64_t block;
    int count;
    struct module *modules; /* [count] */
};

static snrq_hdf5_kind scale_kind(snrq_dtype type)
{
    return type == SNRQ_F16 ? SNRQ_HDF5_F16 : type == SNRQ_BF16 ? SNRQ_HDF5_BF16 : SNRQ_HDF5_F32;
}

/* How many tables a module has. */
static int tables_of(const snrq_module_record *r)
{
    return snrq_module_record_has_minima(r) ? TABLES : MINIMA;
}

/* Kind and shape of a table of a module; returns the number of dimensions. */
static int table_shape(const snrq_module_record *r, int which, snrq_hdf5_kind *kind,
                       int64_t shape[2])
{
    shape[0] = r->rows;
    switch (which) {
    case CODES:
        *kind = SNRQ_HDF5_U8;
        shape[1] = snrq_packed_bytes(r->columns, r->bits);
        return 2;
    case SCALES:
    case MINIMA:
    case ZEROS:
        *kind = which == ZEROS ? SNRQ_HDF5_U8 : scale_kind(r->scale_type);
        shape[1] = r->groups;
        return 2;
    default:
        *kind = SNRQ_HDF5_I32;
        shape[0] = r->columns;
        return 1;
    }
}

static snrq_status check_modules(const char *path, int64_t block, const snrq_module_rows *modules,
                                 int count)
{
    if (block < 0 || count < 0 || count > MAX_MODULES)
        return snrq_fail(SNRQ_INTERNAL, "%s: block %lld with %d modules cannot be stored", path,
                         (long long)block, count);
    for (int i = 0; i < count; i++) {
        const snrq_module_record *r = &modules[i].record;
        const char *problem = snrq_module_record_problem(r);
        snrq_range rows = modules[i].rows;
        if (problem == NULL && (rows.begin < 0 || rows.begin > rows.end || rows.end > r->rows))
            problem = "this rank's rows are out of range";
        if (problem != NULL)
            return snrq_fail(SNRQ_INTERNAL, "%s: module %d (%.*s) cannot be stored: %s", path, i,
                             (int)sizeof r->name, r->name, problem);
    }
    return SNRQ_OK;
}

static int64_t expected_bytes(const snrq_module_rows *modules, int count)
{
    int64_t bytes = 0;
    for (int i = 0; i < count; i++)
        for (int t = 0; t < tables_of(&modules[i].record); t++) {
            int64_t shape[2] = {0, 1};
            snrq_hdf5_kind kind;
            int dimensions = table_shape(&modules[i].record, t, &kind, shape);
            bytes += shape[0] * (dimensions > 1 ? shape[1] : 1) * (int64_t)snrq_hdf5_size(kind);
        }
    return bytes;
}

/* What rank 0 lays out. */
struct layout {
    int64_t block;
    const snrq_module_rows *modules;
    int count;
};

static snrq_status make_module(const snrq_hdf5_object *root, const snrq_module_record *r, int index)
{
    snrq_hdf5_object group;
    SNRQ_TRY(snrq_hdf5_make_group(root, r->name, &group));
    snrq_status status = snrq_hdf5_put_integer(&group, "index", index);
    if (status == SNRQ_OK) status = snrq_module_record_put(&group, r);
    for (int t = 0; t < tables_of(r) && status == SNRQ_OK; t++) {
        int64_t shape[2];
        snrq_hdf5_kind kind;
        int dimensions = table_shape(r, t, &kind, shape);
        status = snrq_hdf5_make_table(&group, table_names[t], kind, dimensions, shape);
    }
    snrq_hdf5_close_group(&group);
    return status;
}

static snrq_status lay_out(const snrq_hdf5_object *root, const void *source)
{
    const struct layout *layout = source;
    SNRQ_TRY(snrq_hdf5_put_text(root, "format", format_name));
    int version = INTEGERS;
    for (int i = 0; i < layout->count; i++)
        if (snrq_module_record_has_minima(&layout->modules[i].record) ||
            snrq_module_record_levels(&layout->modules[i].record) != NULL)
            version = FORMATS_TOO;
    SNRQ_TRY(snrq_hdf5_put_integer(root, "format_version", version));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "block", layout->block));
    for (int i = 0; i < layout->count; i++)
        SNRQ_TRY(make_module(root, &layout->modules[i].record, i));
    return SNRQ_OK;
}

/* The ways rows get their stored form; `source` is the module. */
static snrq_status bad_value(const snrq_module_rows *m, const char *what, int64_t row,
                             int64_t column, double value)
{
    return snrq_fail(SNRQ_INTERNAL,
                     "%s: %s of row %lld, place %lld is %g, which %d bits and %s "
                     "scales cannot hold",
                     m->record.name, what, (long long)row, (long long)column, value, m->record.bits,
                     snrq_dtype_name(m->record.scale_type));
}

static snrq_status check_bits(const snrq_module_rows *m, const char *what, int64_t row,
                              const uint8_t *values, int64_t count)
{
    unsigned all = 0;
    for (int64_t i = 0; i < count; i++) all |= values[i];
    if (all >> m->record.bits == 0) return SNRQ_OK;
    for (int64_t i = 0; i < count; i++)
        if (values[i] >> m->record.bits != 0) return bad_value(m, what, row, i, values[i]);
    return SNRQ_OK;
}

static snrq_status fill_codes(const void *source, snrq_range rows, void *out)
{
    const snrq_module_rows *m = source;
    int64_t columns = m->record.columns, width = snrq_packed_bytes(columns, m->record.bits);
    uint8_t *packed = out;
    for (int64_t r = rows.begin; r < rows.end; r++, packed += width) {
        const uint8_t *codes = m->codes + (r - m->rows.begin) * columns;
        SNRQ_TRY(check_bits(m, "code", r, codes, columns));
        snrq_pack_codes(codes, columns, m->record.bits, packed);
    }
    return SNRQ_OK;
}

static snrq_status fill_numbers(const snrq_module_rows *m, const char *what, const float *numbers,
                                snrq_range rows, void *out)
{
    int64_t groups = m->record.groups;
    snrq_dtype type = m->record.scale_type;
    unsigned char *stored = out;
    for (int64_t r = rows.begin; r < rows.end; r++)
        for (int64_t g = 0; g < groups; g++, stored += snrq_dtype_size(type)) {
            float value = numbers[(r - m->rows.begin) * groups + g];
            if (!isfinite(value) || snrq_round_to(type, value) != value)
                return bad_value(m, what, r, g, value);
            uint16_t half = type == SNRQ_F16 ? snrq_float_to_f16(value) : snrq_float_to_bf16(value);
            if (type == SNRQ_F32)
                memcpy(stored, &value, sizeof value);
            else
                memcpy(stored, &half, sizeof half);
        }
    return SNRQ_OK;
}

static snrq_status fill_scales(const void *source, snrq_range rows, void *out)
{
    const snrq_module_rows *m = source;
    return fill_numbers(m, "scale", m->scales, rows, out);
}

static snrq_status fill_minima(const void *source, snrq_range rows, void *out)
{
    const snrq_module_rows *m = source;
    return fill_numbers(m, "minimum", m->minima, rows, out);
}

static snrq_status fill_zeros(const void *source, snrq_range rows, void *out)
{
    const snrq_module_rows *m = source;
    int64_t groups = m->record.groups;
    const uint8_t *zeros = m->zeros + (rows.begin - m->rows.begin) * groups;
    for (int64_t r = rows.begin; r < rows.end; r++)
        SNRQ_TRY(check_bits(m, "zero", r, zeros + (r - rows.begin) * groups, groups));
    memcpy(out, zeros, (size_t)((rows.end - rows.begin) * groups));
    return SNRQ_OK;
}

static snrq_status fill_g_idx(const void *source, snrq_range columns, void *out)
{
    const snrq_module_rows *m = source;
    for (int64_t c = columns.begin; c < columns.end; c++)
        if (m->g_idx[c] < 0 || m->g_idx[c] >= m->record.groups)
            return snrq_fail(SNRQ_INTERNAL, "%s: column %lld is in group %d of %lld",
                             m->record.name, (long long)c, m->g_idx[c],
                             (long long)m->record.groups);
    memcpy(out, m->g_idx + columns.begin, (size_t)(columns.end - columns.begin) * sizeof *m->g_idx);
    return SNRQ_OK;
}

/* Opens the tables of a module, whose group is open. */
static snrq_status open_tables(const snrq_hdf5_object *group, const snrq_module_record *r,
                               int64_t index, snrq_hdf5_table tables[TABLES])
{
    snrq_status status = SNRQ_OK;
    for (int t = 0; t < tables_of(r) && status == SNRQ_OK; t++) {
        int64_t shape[2];
        snrq_hdf5_kind kind;
        int dimensions = table_shape(r, t, &kind, shape);
        status = snrq_hdf5_open_table(group, table_names[t], kind, dimensions, shape, &tables[t]);
        tables[t].index = index * TABLES + t;
    }
    return status;
}

static void close_tables(snrq_hdf5_table tables[TABLES])
{
    for (int t = 0; t < TABLES; t++) snrq_hdf5_table_close(&tables[t]);
}

/* Writes this rank's rows; columns of g_idx are shared out evenly. */
static snrq_status write_module(snrq_hdf5_writer *w, const snrq_module_rows *m,
                                const snrq_hdf5_table tables[TABLES])
{
    static snrq_hdf5_fill *const fill[TABLES] = {fill_codes, fill_scales, fill_zeros, fill_g_idx,
                                                 fill_minima};
    snrq_range columns = snrq_share(m->record.columns, 1, w->context->size, w->context->rank);
    for (int t = 0; t < tables_of(&m->record); t++)
        SNRQ_TRY(snrq_hdf5_write_rows(w, &tables[t], t == G_IDX ? columns : m->rows, fill[t], m));
    return SNRQ_OK;
}

/* Writes all modules, once every rank has opened every table. */
static snrq_status write_all(snrq_hdf5_writer *w, const snrq_module_rows *modules, int count)
{
    snrq_hdf5_table(*tables)[TABLES] = NULL;
    snrq_status status = snrq_allocate((size_t)count, sizeof *tables, "tables of a block", &tables);
    SNRQ_TRY(snrq_agree(w->context, status));
    for (int i = 0; i < count && status == SNRQ_OK; i++) {
        snrq_hdf5_object group;
        status = snrq_hdf5_open_group(&w->root, modules[i].record.name, &group);
        if (status == SNRQ_OK) status = open_tables(&group, &modules[i].record, i, tables[i]);
        snrq_hdf5_close_group(&group);
    }
    status = snrq_agree(w->context, snrq_hdf5_opened(w, status));
    for (int i = 0; i < count && status == SNRQ_OK; i++)
        status = write_module(w, &modules[i], tables[i]);
    for (int i = 0; i < count; i++) close_tables(tables[i]);
    free(tables);
    return status;
}

/* Rank 0: opens the file as any reader would and sums up the hashes of its rows. */
static snrq_status read_back(const char *path, uint64_t *sum)
{
    snrq_block_file *file = NULL;
    SNRQ_TRY(snrq_block_file_open(path, &file));
    snrq_status status = SNRQ_OK;
    *sum = 0;
    for (int i = 0; i < file->count; i++)
        for (int t = 0; t < tables_of(&file->modules[i].record) && status == SNRQ_OK; t++)
            status = snrq_hdf5_hash_table(path, &file->modules[i].tables[t], sum);
    snrq_block_file_close(&file);
    return status;
}

void snrq_block_file_name(int64_t block, char out[32])
{
    snprintf(out, 32, "block-%05lld.h5", (long long)block);
}

snrq_status snrq_block_file_write(const snrq_context *context, const char *path, int64_t block,
                                  const snrq_module_rows *modules, int count)
{
    const struct layout layout = {block, modules, count};
    snrq_hdf5_writer writer;
    SNRQ_TRY(snrq_agree(context, check_modules(path, block, modules, count)));
    SNRQ_TRY(
        snrq_hdf5_create(context, path, expected_bytes(modules, count), lay_out, &layout, &writer));
    return snrq_hdf5_finish(&writer, write_all(&writer, modules, count), read_back);
}

static snrq_status open_module(snrq_block_file *file, const char *name)
{
    snrq_hdf5_object group;
    struct module found = {0};
    int64_t index = -1;
    snrq_status status = snrq_hdf5_open_group(&file->root, name, &group);
    if (status == SNRQ_OK) status = snrq_module_record_get(&group, &found.record);
    if (status == SNRQ_OK) status = snrq_hdf5_get_integer(&group, "index", &index);
    if (status == SNRQ_OK &&
        (index < 0 || index >= file->count || file->modules[index].record.rows != 0))
        status =
            snrq_fail(SNRQ_BAD_DATA, "%s: %s: index is %lld; indices must be 0 to %d, each once",
                      file->path, name, (long long)index, file->count - 1);
    if (status == SNRQ_OK) status = open_tables(&group, &found.record, index, found.tables);
    snrq_hdf5_close_group(&group);
    if (status == SNRQ_OK)
        file->modules[index] = found;
    else
        close_tables(found.tables);
    return status;
}

static snrq_status open_all(snrq_block_file *file)
{
    char **names = NULL;
    SNRQ_TRY(snrq_hdf5_open(file->path, format_name, FORMATS_TOO, &file->root));
    SNRQ_TRY(snrq_hdf5_get_integer(&file->root, "block", &file->block));
    if (file->block < 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: block is %lld", file->path, (long long)file->block);
    SNRQ_TRY(snrq_hdf5_names(&file->root, MAX_MODULES, &names, &file->count));
    snrq_status status = snrq_allocate((size_t)file->count, sizeof *file->modules,
                                       "modules of a block", &file->modules);
    for (int i = 0; i < file->count && status == SNRQ_OK; i++) status = open_module(file, names[i]);
    snrq_names_free(&names, file->count);
    return status;
}

snrq_status snrq_block_file_open(const char *path, snrq_block_file **out)
{
    snrq_block_file *file = NULL;
    *out = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *file, "block file", &file));
    file->root.id = -1;
    snrq_status status = snrq_copy_text(path, "path", &file->path);
    if (status == SNRQ_OK) status = open_all(file);
    if (status == SNRQ_OK)
        *out = file;
    else
        snrq_block_file_close(&file);
    return status;
}

void snrq_block_file_close(snrq_block_file **file)
{
    snrq_block_file *f = *file;
    if (f == NULL) return;
    for (int i = 0; f->modules != NULL && i < f->count; i++) close_tables(f->modules[i].tables);
    snrq_hdf5_close_file(&f->root);
    free(f->modules);
    free(f->path);
    free(f);
    *file = NULL;
}

int64_t snrq_block_file_block(const snrq_block_file *file)
{
    return file->block;
}

int snrq_block_file_count(const snrq_block_file *file)
{
    return file->count;
}

const snrq_module_record *snrq_block_file_record(const snrq_block_file *file, int index)
{
    return index >= 0 && index < file->count ? &file->modules[index].record : NULL;
}

static snrq_status bad_place(const snrq_block_file *file, const struct module *m, int table,
                             int64_t row, int64_t column, const char *problem)
{
    return snrq_fail(SNRQ_BAD_DATA, "%s: %s/%s: row %lld, place %lld %s", file->path,
                     m->record.name, table_names[table], (long long)row, (long long)column,
                     problem);
}

/* The ways stored rows [rows] become values at `out`, which is where the first of them
 * belongs. */
static snrq_status take_codes(const snrq_block_file *file, const struct module *m, snrq_range rows,
                              const void *stored, void *out)
{
    int64_t columns = m->record.columns, width = snrq_packed_bytes(columns, m->record.bits);
    int used = (int)((columns * m->record.bits - 1) % 8) + 1; /* bits of the last byte */
    const uint8_t *packed = stored;
    uint8_t *codes = out;
    const snrq_weight_format *format = snrq_module_record_format(&m->record);
    const int top = format != NULL ? format->top : (1 << m->record.bits) - 1;
    for (int64_t r = rows.begin; r < rows.end; r++, packed += width, codes += columns) {
        if (packed[width - 1] >> used != 0)
            return bad_place(file, m, CODES, r, width - 1, "has bits set after the last code");
        snrq_unpack_codes(packed, columns, m->record.bits, codes);
        for (int64_t c = 0; c < columns && top < (1 << m->record.bits) - 1; c++)
            if (codes[c] > top) return bad_place(file, m, CODES, r, c, "is no code of the format");
    }
    return SNRQ_OK;
}

static snrq_status take_numbers(const snrq_block_file *file, const struct module *m, int table,
                                snrq_range rows, const void *stored, float *out)
{
    int64_t groups = m->record.groups;
    snrq_widen(m->record.scale_type, stored, (size_t)((rows.end - rows.begin) * groups), out);
    for (int64_t r = rows.begin; r < rows.end; r++)
        for (int64_t g = 0; g < groups; g++)
            if (!isfinite(*out++)) return bad_place(file, m, table, r, g, "is not finite");
    return SNRQ_OK;
}

static snrq_status take_scales(const snrq_block_file *file, const struct module *m, snrq_range rows,
                               const void *stored, void *out)
{
    return take_numbers(file, m, SCALES, rows, stored, out);
}

static snrq_status take_minima(const snrq_block_file *file, const struct module *m, snrq_range rows,
                               const void *stored, void *out)
{
    return take_numbers(file, m, MINIMA, rows, stored, out);
}

static snrq_status take_zeros(const snrq_block_file *file, const struct module *m, snrq_range rows,
                              const void *stored, void *out)
{
    int64_t groups = m->record.groups;
    const uint8_t *zeros = stored;
    for (int64_t r = rows.begin; r < rows.end; r++)
        for (int64_t g = 0; g < groups; g++)
            if (*zeros++ >> m->record.bits != 0)
                return bad_place(file, m, ZEROS, r, g, "has more bits than the codes");
    memcpy(out, stored, (size_t)((rows.end - rows.begin) * groups));
    return SNRQ_OK;
}

static snrq_status take_g_idx(const snrq_block_file *file, const struct module *m,
                              snrq_range columns, const void *stored, void *out)
{
    memcpy(out, stored, (size_t)(columns.end - columns.begin) * sizeof(int32_t));
    for (int64_t c = columns.begin; c < columns.end; c++) {
        int32_t group;
        memcpy(&group, (const char *)stored + (c - columns.begin) * (int64_t)sizeof group,
               sizeof group);
        if (group < 0 || group >= m->record.groups)
            return bad_place(file, m, G_IDX, c, 0, "is no group");
    }
    return SNRQ_OK;
}

/* Reads rows of one table in bounded memory; value_bytes: what a row takes at `out`. */
static snrq_status read_table(const snrq_block_file *file, const struct module *m, int which,
                              snrq_range rows, size_t value_bytes, void *out)
{
    static snrq_status (*const take[TABLES])(const snrq_block_file *, const struct module *,
                                             snrq_range, const void *, void *) = {
        take_codes, take_scales, take_zeros, take_g_idx, take_minima};
    const snrq_hdf5_table *table = &m->tables[which];
    snrq_pieces p = snrq_pieces_of(rows, table->row_bytes, READ_BYTES, 1);
    unsigned char *stored = NULL;
    SNRQ_TRY(snrq_allocate((size_t)p.most, table->row_bytes, "stored rows", &stored));
    snrq_status status = SNRQ_OK;
    while (status == SNRQ_OK && snrq_pieces_next(&p)) {
        status = snrq_hdf5_read_rows(file->path, table, p.piece, stored);
        if (status == SNRQ_OK)
            status = take[which](file, m, p.piece, stored,
                                 (char *)out + (size_t)(p.piece.begin - rows.begin) * value_bytes);
    }
    free(stored);
    return status;
}

static snrq_status check_place(const snrq_block_file *file, int index, snrq_range rows)
{
    if (index < 0 || index >= file->count)
        return snrq_fail(SNRQ_INTERNAL, "%s: there is no module %d", file->path, index);
    const snrq_module_record *r = &file->modules[index].record;
    if (rows.begin < 0 || rows.begin > rows.end || rows.end > r->rows)
        return snrq_fail(SNRQ_INTERNAL, "%s: %s has no rows %lld to %lld", file->path, r->name,
                         (long long)rows.begin, (long long)rows.end);
    return SNRQ_OK;
}

snrq_status snrq_block_file_read_minima(const snrq_block_file *file, int index, snrq_range rows,
                                        float *minima)
{
    SNRQ_TRY(check_place(file, index, rows));
    const struct module *m = &file->modules[index];
    const size_t bytes = (size_t)m->record.groups * sizeof *minima;
    memset(minima, 0, (size_t)(rows.end - rows.begin) * bytes);
    if (!snrq_module_record_has_minima(&m->record)) return SNRQ_OK;
    return read_table(file, m, MINIMA, rows, bytes, minima);
}

snrq_status snrq_block_file_read(const snrq_block_file *file, int index, snrq_range rows,
                                 uint8_t *codes, float *scales, uint8_t *zeros, int32_t *g_idx)
{
    SNRQ_TRY(check_place(file, index, rows));
    const struct module *m = &file->modules[index];
    const snrq_module_record *r = &m->record;
    void *const out[MINIMA] = {codes, scales, zeros, g_idx};
    const size_t value_bytes[MINIMA] = {(size_t)r->columns, (size_t)r->groups * sizeof *scales,
                                        (size_t)r->groups, sizeof *g_idx};
    const snrq_range columns = {0, r->columns};
    for (int t = 0; t < MINIMA; t++)
        if (out[t] != NULL)
            SNRQ_TRY(read_table(file, m, t, t == G_IDX ? columns : rows, value_bytes[t], out[t]));
    return SNRQ_OK;
}

snrq_status snrq_module_codes_allocate(const snrq_module_record *r, int64_t rows,
                                       snrq_module_codes *out)
{
    const size_t groups = (size_t)(rows * r->groups);
    *out = (snrq_module_codes){0};
    SNRQ_TRY(snrq_allocate((size_t)(rows * r->columns), 1, "codes", &out->codes));
    SNRQ_TRY(snrq_allocate(groups, sizeof *out->scales, "scales", &out->scales));
    SNRQ_TRY(snrq_allocate(groups, sizeof *out->minima, "minima", &out->minima));
    SNRQ_TRY(snrq_allocate(groups, 1, "zeros", &out->zeros));
    return snrq_allocate((size_t)r->columns, sizeof *out->g_idx, "groups", &out->g_idx);
}

snrq_status snrq_module_codes_read(const snrq_block_file *file, int index, snrq_range rows,
                                   const snrq_module_codes *out)
{
    SNRQ_TRY(snrq_block_file_read_minima(file, index, rows, out->minima));
    return snrq_block_file_read(file, index, rows, out->codes, out->scales, out->zeros, out->g_idx);
}

void snrq_module_codes_free(snrq_module_codes *c)
{
    free(c->codes);
    free(c->scales);
    free(c->minima);
    free(c->zeros);
    free(c->g_idx);
    *c = (snrq_module_codes){0};
}
