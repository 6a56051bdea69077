/* Tensors that are not quantized, in parallel HDF5; see rest_file.h, and docs/format.md for the
 * layout. */
#include "io/checkpoint/rest_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/directory.h"
#include "io/hdf5/reader.h"
#include "io/hdf5/writer.h"
#include "io/pieces.h"
#include "mpi/algebra/dtype.h"

enum { FORMAT_VERSION = 1, MAX_TENSORS = 1 << 20, READ_BYTES = 16 << 20 };
static const char format_name[] = "snrq-rest";

/* The element types that are kept, as safetensors and as HDF5 know them. */
static const struct {
    const char *name;
    snrq_hdf5_kind kind;
    snrq_dtype dtype;
} types[] = {{"F32", SNRQ_HDF5_F32, SNRQ_F32},
             {"F16", SNRQ_HDF5_F16, SNRQ_F16},
             {"BF16", SNRQ_HDF5_BF16, SNRQ_BF16}};
enum { TYPES = sizeof types / sizeof *types };

struct snrq_rest_file {
    char *path;
    snrq_hdf5_object root;
    int count, stored;
    snrq_tensor *tensors;    /* [count] in order of name; .file: which table, or coded module */
    snrq_hdf5_table *tables; /* [stored] */
    snrq_block_file *coded;  /* tables.h5, or NULL */
};

/* A tensor on its way from the model to a table. */
struct source {
    const snrq_safetensors *model;
    const snrq_tensor *tensor;
    size_t row_bytes;
    snrq_dtype dtype;
    const float *instead; /* of a vector; NULL: the tensor as it is */
};

/* *type <- its row in the table above. */
static snrq_status find_type(const snrq_safetensors *model, const snrq_tensor *tensor, int *type)
{
    for (int i = 0; i < TYPES; i++)
        if (strcmp(tensor->dtype, types[i].name) == 0) {
            *type = i;
            return SNRQ_OK;
        }
    return snrq_fail(SNRQ_BAD_DATA, "%s: tensor %s is %s; F32, F16 and BF16 are supported",
                     snrq_safetensors_file(model, tensor), tensor->name, tensor->dtype);
}

/* The names are in order. */
static snrq_status check_tensors(const snrq_safetensors *model, const char *const *names, int count,
                                 int64_t *bytes)
{
    *bytes = 0;
    for (int i = 0; i < count; i++) {
        const snrq_tensor *tensor = snrq_safetensors_find(model, names[i]);
        int type = 0;
        if (tensor == NULL) return snrq_fail(SNRQ_BAD_DATA, "the model has no tensor %s", names[i]);
        if (!snrq_hdf5_name_is_valid(names[i]))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: a tensor's name has a '/' or control characters, or is longer "
                             "than %d bytes",
                             snrq_safetensors_file(model, tensor), SNRQ_HDF5_MAX_NAME);
        if (i > 0 && strcmp(names[i - 1], names[i]) == 0)
            return snrq_fail(SNRQ_INTERNAL, "tensor %s is to be stored twice", names[i]);
        SNRQ_TRY(find_type(model, tensor, &type));
        *bytes += (int64_t)tensor->bytes;
    }
    return SNRQ_OK;
}

/* What is written: tensors in order of name, as the reader finds them again. */
struct layout {
    const snrq_safetensors *model;
    const char *const *names;
    int count;
    const snrq_rest_changes *changes; /* or NULL */
};

static snrq_status lay_out(const snrq_hdf5_object *root, const void *source)
{
    const struct layout *layout = source;
    SNRQ_TRY(snrq_hdf5_put_text(root, "format", format_name));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "format_version", FORMAT_VERSION));
    for (int i = 0; i < layout->count; i++) {
        const snrq_tensor *tensor = snrq_safetensors_find(layout->model, layout->names[i]);
        int type = 0;
        SNRQ_TRY(find_type(layout->model, tensor, &type));
        SNRQ_TRY(snrq_hdf5_make_table(root, layout->names[i], types[type].kind, tensor->dimensions,
                                      tensor->shape));
    }
    return SNRQ_OK;
}

/* Numbers in place of those of the tensor. */
static void fill_changed(const struct source *source, snrq_range rows, unsigned char *out)
{
    for (int64_t i = rows.begin; i < rows.end; i++, out += snrq_dtype_size(source->dtype)) {
        float value = source->instead[i];
        uint16_t half =
            source->dtype == SNRQ_F16 ? snrq_float_to_f16(value) : snrq_float_to_bf16(value);
        if (source->dtype == SNRQ_F32)
            memcpy(out, &value, sizeof value);
        else
            memcpy(out, &half, sizeof half);
    }
}

/* A checkpoint whose embeddings, norms or head are no numbers is no use to anybody. */
static snrq_status fill_tensor(const void *user, snrq_range rows, void *out)
{
    const struct source *source = user;
    if (source->instead != NULL) {
        fill_changed(source, rows, out);
        return SNRQ_OK;
    }
    uint64_t begin = (uint64_t)rows.begin * source->row_bytes;
    uint64_t bytes = (uint64_t)(rows.end - rows.begin) * source->row_bytes;
    SNRQ_TRY(snrq_safetensors_read(source->model, source->tensor, begin, bytes, out));
    size_t size = snrq_dtype_size(source->dtype), columns = source->row_bytes / size;
    size_t at = snrq_first_not_finite(source->dtype, out, bytes / size);
    if (at == bytes / size) return SNRQ_OK;
    char place[64];
    long long row = (long long)(rows.begin + (int64_t)(at / columns));
    snprintf(place, sizeof place, columns > 1 ? "row %lld, column %zu" : "%lld", row, at % columns);
    return snrq_fail(
        SNRQ_BAD_DATA, "%s: tensor '%s' is not finite at %s; is the checkpoint damaged?",
        snrq_safetensors_file(source->model, source->tensor), source->tensor->name, place);
}

static snrq_status read_back(const char *path, uint64_t *sum)
{
    snrq_rest_file *file = NULL;
    SNRQ_TRY(snrq_rest_file_open(path, &file));
    snrq_status status = SNRQ_OK;
    *sum = 0;
    for (int i = 0; i < file->count && status == SNRQ_OK; i++)
        status = snrq_hdf5_hash_table(path, &file->tables[i], sum);
    snrq_rest_file_close(&file);
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static snrq_status sort_names(const char *const *names, int count, const char ***sorted)
{
    SNRQ_TRY(snrq_allocate((size_t)count, sizeof **sorted, "tensor names", sorted));
    for (int i = 0; i < count; i++) (*sorted)[i] = names[i];
    qsort(*sorted, (size_t)count, sizeof **sorted, by_name);
    return SNRQ_OK;
}

static snrq_status open_tables(const snrq_hdf5_writer *w, const struct layout *layout,
                               snrq_hdf5_table *tables)
{
    for (int i = 0; i < layout->count; i++) {
        const snrq_tensor *tensor = snrq_safetensors_find(layout->model, layout->names[i]);
        int type = 0;
        SNRQ_TRY(find_type(layout->model, tensor, &type));
        SNRQ_TRY(snrq_hdf5_open_table(&w->root, layout->names[i], types[type].kind,
                                      tensor->dimensions, tensor->shape, &tables[i]));
        tables[i].index = i;
    }
    return SNRQ_OK;
}

/* Writes this rank's rows of a tensor. */
static snrq_status write_tensor(snrq_hdf5_writer *w, const struct layout *layout, int i,
                                const snrq_hdf5_table *table)
{
    const snrq_tensor *tensor = snrq_safetensors_find(layout->model, layout->names[i]);
    const snrq_rest_changes *changes = layout->changes;
    snrq_range rows = snrq_share(table->rows, 1, w->context->size, w->context->rank);
    float *instead = NULL;
    int type = 0;
    SNRQ_TRY(find_type(layout->model, tensor, &type));
    if (changes != NULL && tensor->dimensions == 1)
        SNRQ_TRY(snrq_allocate((size_t)table->rows, sizeof *instead, tensor->name, &instead));
    const bool changed = instead != NULL && changes->get(changes->user, tensor->name, instead);
    const struct source source = {layout->model, tensor, table->row_bytes, types[type].dtype,
                                  changed ? instead : NULL};
    snrq_status status = snrq_hdf5_write_rows(w, table, rows, fill_tensor, &source);
    free(instead);
    return status;
}

/* Copies this rank's rows of all tensors, once every rank has opened every table. */
static snrq_status write_all(snrq_hdf5_writer *w, const struct layout *layout)
{
    snrq_hdf5_table *tables = NULL;
    snrq_status status =
        snrq_allocate((size_t)layout->count, sizeof *tables, "tables of tensors", &tables);
    SNRQ_TRY(snrq_agree(w->context, status));
    status = snrq_agree(w->context, snrq_hdf5_opened(w, open_tables(w, layout, tables)));
    for (int i = 0; i < layout->count && status == SNRQ_OK; i++)
        status = write_tensor(w, layout, i, &tables[i]);
    for (int i = 0; i < layout->count; i++) snrq_hdf5_table_close(&tables[i]);
    free(tables);
    return status;
}

snrq_status snrq_rest_file_write(const snrq_context *context, const char *path,
                                 const snrq_safetensors *model, const char *const *names, int count,
                                 const snrq_rest_changes *changes)
{
    const char **sorted = NULL;
    int64_t bytes = 0;
    snrq_hdf5_writer writer;
    snrq_status status = SNRQ_OK;
    if (count < 0 || count > MAX_TENSORS)
        status = snrq_fail(SNRQ_INTERNAL, "%s: %d tensors cannot be stored", path, count);
    if (status == SNRQ_OK) status = sort_names(names, count, &sorted);
    if (status == SNRQ_OK) status = check_tensors(model, sorted, count, &bytes);
    const struct layout layout = {model, sorted, count, changes};
    status = snrq_agree(context, status);
    if (status == SNRQ_OK)
        status = snrq_hdf5_create(context, path, bytes, lay_out, &layout, &writer);
    if (status == SNRQ_OK)
        status = snrq_hdf5_finish(&writer, write_all(&writer, &layout), read_back);
    free(sorted);
    return status;
}

static snrq_status open_tensor(snrq_rest_file *file, int index)
{
    snrq_tensor *tensor = &file->tensors[index];
    snrq_hdf5_table *table = &file->tables[index];
    snrq_hdf5_kind kinds[TYPES], kind = SNRQ_HDF5_F32;
    for (int i = 0; i < TYPES; i++) kinds[i] = types[i].kind;
    SNRQ_TRY(snrq_hdf5_find_table(&file->root, tensor->name, kinds, TYPES, &kind, table));
    table->index = index;
    for (int i = 0; i < TYPES; i++)
        if (types[i].kind == kind) strcpy(tensor->dtype, types[i].name);
    tensor->element_bits = 8 * (int)snrq_hdf5_size(kind);
    tensor->dimensions = table->dimensions;
    memcpy(tensor->shape, table->shape, sizeof tensor->shape);
    tensor->bytes = (uint64_t)table->rows * table->row_bytes;
    return SNRQ_OK;
}

static snrq_status open_all(snrq_rest_file *file)
{
    char **names = NULL;
    SNRQ_TRY(snrq_hdf5_open(file->path, format_name, FORMAT_VERSION, &file->root));
    SNRQ_TRY(snrq_hdf5_names(&file->root, MAX_TENSORS, &names, &file->count));
    size_t count = (size_t)(file->stored = file->count);
    snrq_status status = snrq_allocate(count, sizeof *file->tensors, "tensors", &file->tensors);
    if (status == SNRQ_OK)
        status = snrq_allocate(count, sizeof *file->tables, "tables", &file->tables);
    for (int i = 0; i < file->count && status == SNRQ_OK; i++) {
        file->tensors[i].name = names[i]; /* taken over */
        file->tensors[i].file = i;
        names[i] = NULL;
        status = open_tensor(file, i);
    }
    snrq_names_free(&names, file->count);
    return status;
}

snrq_status snrq_rest_file_open(const char *path, snrq_rest_file **out)
{
    snrq_rest_file *file = NULL;
    *out = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *file, "rest file", &file));
    file->root.id = -1;
    snrq_status status = snrq_copy_text(path, "path", &file->path);
    if (status == SNRQ_OK) status = open_all(file);
    if (status == SNRQ_OK)
        *out = file;
    else
        snrq_rest_file_close(&file);
    return status;
}

void snrq_rest_file_close(snrq_rest_file **file)
{
    snrq_rest_file *f = *file;
    if (f == NULL) return;
    for (int i = 0; f->tensors != NULL && i < f->count; i++) free(f->tensors[i].name);
    for (int i = 0; f->tables != NULL && i < f->stored; i++) snrq_hdf5_table_close(&f->tables[i]);
    snrq_hdf5_close_file(&f->root);
    free(f->tensors);
    free(f->tables);
    snrq_block_file_close(&f->coded);
    free(f->path);
    free(f);
    *file = NULL;
}

const snrq_block_file *snrq_rest_file_tables(const snrq_rest_file *file)
{
    return file->coded;
}

int snrq_rest_file_table(const snrq_rest_file *file, const char *name)
{
    static const char end[] = ".weight";
    const size_t length = strlen(name) < sizeof end ? 0 : strlen(name) - (sizeof end - 1);
    for (int i = 0; file->coded != NULL && i < snrq_block_file_count(file->coded); i++) {
        const char *module = snrq_block_file_record(file->coded, i)->name;
        if (strlen(module) == length && strncmp(module, name, length) == 0 &&
            strcmp(name + length, end) == 0)
            return i;
    }
    return -1;
}

static int by_tensor_name(const void *a, const void *b)
{
    return strcmp(((const snrq_tensor *)a)->name, ((const snrq_tensor *)b)->name);
}

static snrq_status describe_table(const snrq_module_record *r, snrq_tensor *out)
{
    *out = (snrq_tensor){.dtype = "F32",
                         .element_bits = 32,
                         .dimensions = 2,
                         .shape = {r->rows, r->columns},
                         .bytes = (uint64_t)r->rows * (uint64_t)r->columns * sizeof(float)};
    SNRQ_TRY(snrq_allocate(strlen(r->name) + sizeof ".weight", 1, "name of a table", &out->name));
    sprintf(out->name, "%s.weight", r->name);
    return SNRQ_OK;
}

snrq_status snrq_rest_file_add_tables(snrq_rest_file *file, const char *path)
{
    snrq_tensor *more = NULL;
    SNRQ_TRY(snrq_block_file_open(path, &file->coded));
    const int coded = snrq_block_file_count(file->coded), before = file->count;
    SNRQ_TRY(snrq_allocate((size_t)(before + coded), sizeof *more, "tensors", &more));
    memcpy(more, file->tensors, (size_t)before * sizeof *more);
    free(file->tensors);
    file->tensors = more;
    for (int i = 0; i < coded; i++) {
        const snrq_module_record *r = snrq_block_file_record(file->coded, i);
        SNRQ_TRY(describe_table(r, &more[file->count]));
        more[file->count++].file = before + i;
        for (int k = 0; k < before; k++)
            if (strcmp(more[k].name, more[file->count - 1].name) == 0)
                return snrq_fail(SNRQ_BAD_DATA, "%s: %s is in rest.h5, too", path, r->name);
    }
    qsort(more, (size_t)file->count, sizeof *more, by_tensor_name);
    return SNRQ_OK;
}

/* Values of the codes of some rows. */
static snrq_status read_coded(const snrq_block_file *file, int module, snrq_range rows, float *out)
{
    const snrq_module_record *r = snrq_block_file_record(file, module);
    snrq_pieces p = snrq_pieces_of(rows, (size_t)(r->columns + 9 * r->groups), READ_BYTES, 1);
    snrq_module_codes codes;
    snrq_status status = snrq_module_codes_allocate(r, p.most, &codes);
    while (status == SNRQ_OK && snrq_pieces_next(&p)) {
        status = snrq_module_codes_read(file, module, p.piece, &codes);
        for (int64_t i = 0; status == SNRQ_OK && i < p.piece.end - p.piece.begin; i++)
            for (int64_t k = 0; k < r->columns; k++)
                *out++ = snrq_module_codes_value(&codes, r, i, k);
    }
    snrq_module_codes_free(&codes);
    return status;
}

int64_t snrq_rest_file_count(const snrq_rest_file *file)
{
    return file->count;
}

const snrq_tensor *snrq_rest_file_at(const snrq_rest_file *file, int64_t index)
{
    return index >= 0 && index < file->count ? &file->tensors[index] : NULL;
}

static int against_name(const void *name, const void *tensor)
{
    return strcmp(name, ((const snrq_tensor *)tensor)->name);
}

const snrq_tensor *snrq_rest_file_find(const snrq_rest_file *file, const char *name)
{
    return bsearch(name, file->tensors, (size_t)file->count, sizeof *file->tensors, against_name);
}

/* Reads rows of the last dimension, counted through all others: as many at once as make one box,
 * which is up to the end of the last but one dimension. A vector's elements are its rows. */
static snrq_status read_rows(const snrq_rest_file *file, const snrq_hdf5_table *table,
                             int64_t first, int64_t rows, size_t row_bytes, unsigned char *out)
{
    int d = table->dimensions;
    int counted = d > 1 ? d - 2 : 0; /* the dimension that the rows of a box run along */
    while (rows > 0) {
        int64_t start[SNRQ_HDF5_MAX_DIMENSIONS] = {0}, count[SNRQ_HDF5_MAX_DIMENSIONS];
        int64_t rest = first, run = d > 0 ? table->shape[counted] : 1;
        for (int i = 0; i < SNRQ_HDF5_MAX_DIMENSIONS; i++) count[i] = 1;
        for (int i = counted; i >= 0 && d > 0; i--) {
            start[i] = rest % table->shape[i];
            rest /= table->shape[i];
        }
        run -= start[counted];
        if (run > rows) run = rows;
        count[counted] = run;
        if (d > 1) count[d - 1] = table->shape[d - 1];
        SNRQ_TRY(snrq_hdf5_read(file->path, table, start, count, out));
        out += (size_t)run * row_bytes;
        first += run;
        rows -= run;
    }
    return SNRQ_OK;
}

snrq_status snrq_rest_file_read(const snrq_rest_file *file, const snrq_tensor *tensor,
                                uint64_t begin, uint64_t bytes, void *out)
{
    const int place = tensor->file;
    size_t row_bytes = (size_t)tensor->element_bits / 8;
    if (tensor->dimensions > 1) row_bytes *= (size_t)tensor->shape[tensor->dimensions - 1];
    if (begin > tensor->bytes || bytes > tensor->bytes - begin)
        return snrq_fail(SNRQ_INTERNAL, "%s: %s has no bytes %llu + %llu", file->path, tensor->name,
                         (unsigned long long)begin, (unsigned long long)bytes);
    if (bytes == 0) return SNRQ_OK;
    if (begin % row_bytes != 0 || bytes % row_bytes != 0)
        return snrq_fail(SNRQ_INTERNAL, "%s: %s: only whole rows can be read", file->path,
                         tensor->name);
    const int64_t first = (int64_t)(begin / row_bytes), rows = (int64_t)(bytes / row_bytes);
    if (place >= file->stored)
        return read_coded(file->coded, place - file->stored, (snrq_range){first, first + rows},
                          out);
    return read_rows(file, &file->tables[place], first, rows, row_bytes, out);
}
