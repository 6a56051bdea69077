/* Reading safetensors checkpoints; see safetensors.h.
 *
 * Layout of a file: 8 bytes N (little-endian), N bytes of JSON (may end in spaces), the data
 * buffer. Offsets in the JSON count from the start of the buffer; tensors fill it without hole or
 * overlap.
 *
 * A reader holds one open file per shard and one table of tensors, sorted by name. With an index,
 * the index says which tensors there are and where; what else a shard contains is not looked at.
 * Names are what the files say until snrq_safetensors_resolve() (safetensors_names.c).
 */
#include "io/safetensors.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"
#include "io/json.h"
#include "io/safetensors_internal.h"

enum { MAX_HEADER = 100000000, MAX_INDEX = 100000000 };

static const struct {
    const char *name;
    int bits;
} element_types[] = {
    {"BOOL", 8},    {"U8", 8},      {"I8", 8},          {"U16", 16},        {"I16", 16},
    {"F16", 16},    {"BF16", 16},   {"U32", 32},        {"I32", 32},        {"F32", 32},
    {"U64", 64},    {"I64", 64},    {"F64", 64},        {"C64", 64},        {"F8_E4M3", 8},
    {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6},
    {"F6_E3M2", 6}, {"F4", 4},
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const snrq_tensor *)a)->name, ((const snrq_tensor *)b)->name);
}

static int by_offset(const void *a, const void *b)
{
    const snrq_tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static snrq_status tensor_dtype(const char *where, const json_t *entry, snrq_tensor *tensor)
{
    const char *name;
    char shown[SNRQ_SHOWN];
    SNRQ_TRY(snrq_json_string(where, entry, "dtype", NULL, &name));
    for (size_t i = 0; i < sizeof element_types / sizeof element_types[0]; i++) {
        if (strcmp(name, element_types[i].name) != 0) continue;
        snprintf(tensor->dtype, sizeof tensor->dtype, "%s", name);
        tensor->element_bits = element_types[i].bits;
        return SNRQ_OK;
    }
    return snrq_fail(SNRQ_BAD_DATA, "%s: unknown dtype \"%s\" (expected F32, F16, BF16, I32, ...)",
                     where, snrq_shown(name, shown));
}

/* Reads the shape; *bits is the size of the data. Zero-sized dimensions do not excuse an overflow
 * of the others: later code may multiply any of them. */
static snrq_status tensor_shape(const char *where, const json_t *entry, snrq_tensor *tensor,
                                uint64_t *bits)
{
    json_t *shape;
    SNRQ_TRY(snrq_json_array(where, entry, "shape", &shape));
    size_t dimensions = json_array_size(shape);
    if (dimensions > SNRQ_MAX_DIMENSIONS)
        return snrq_fail(SNRQ_BAD_DATA, "%s: shape has %zu dimensions, expected at most %d", where,
                         dimensions, SNRQ_MAX_DIMENSIONS);
    uint64_t product = (uint64_t)tensor->element_bits;
    bool empty = false;
    for (size_t i = 0; i < dimensions; i++) {
        const json_t *size = json_array_get(shape, i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return snrq_fail(SNRQ_BAD_DATA, "%s: shape[%zu]: expected an integer >= 0, found %s",
                             where, i,
                             json_is_integer(size) ? "a negative one" : snrq_json_kind(size));
        uint64_t length = (uint64_t)json_integer_value(size);
        tensor->shape[i] = (int64_t)length;
        if (length == 0) empty = true;
        if (length > 0 && product > (uint64_t)INT64_MAX / length)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: shape: the product of the sizes is beyond 2^63 bits", where);
        if (length > 0) product *= length;
    }
    tensor->dimensions = (int)dimensions;
    *bits = empty ? 0 : product;
    return SNRQ_OK;
}

static snrq_status tensor_offsets(const char *where, const json_t *entry, uint64_t bits,
                                  snrq_tensor *tensor)
{
    json_t *offsets;
    SNRQ_TRY(snrq_json_array(where, entry, "data_offsets", &offsets));
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last) ||
        json_integer_value(first) < 0 || json_integer_value(last) < json_integer_value(first))
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: data_offsets: expected two integers [begin, end], 0 <= begin <= end",
                         where);
    tensor->offset = (uint64_t)json_integer_value(first);
    tensor->bytes = (uint64_t)json_integer_value(last) - tensor->offset;
    if (bits % 8 != 0 || tensor->bytes != bits / 8)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: data_offsets span %" PRIu64
                         " bytes, but shape and dtype %s need %" PRIu64 " bits",
                         where, tensor->bytes, tensor->dtype, bits);
    return SNRQ_OK;
}

static snrq_status tensor_parse(const char *path, const char *name, const json_t *entry,
                                snrq_tensor *tensor)
{
    char where[PATH_MAX + SNRQ_SHOWN + 32], shown[SNRQ_SHOWN];
    uint64_t bits = 0;
    snprintf(where, sizeof where, "%s: tensor \"%s\"", path, snrq_shown(name, shown));
    if (!json_is_object(entry))
        return snrq_fail(SNRQ_BAD_DATA, "%s: expected an object, found %s", where,
                         snrq_json_kind(entry));
    SNRQ_TRY(tensor_dtype(where, entry, tensor));
    SNRQ_TRY(tensor_shape(where, entry, tensor, &bits));
    SNRQ_TRY(tensor_offsets(where, entry, bits, tensor));
    return snrq_copy_text(name, "tensor name", &tensor->name);
}

static snrq_status metadata_check(const char *path, const json_t *metadata)
{
    const char *key;
    json_t *value;
    char shown[SNRQ_SHOWN];
    if (!json_is_object(metadata))
        return snrq_fail(SNRQ_BAD_DATA, "%s: __metadata__: expected an object, found %s", path,
                         snrq_json_kind(metadata));
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value))
            return snrq_fail(SNRQ_BAD_DATA, "%s: __metadata__: \"%s\": expected a string, found %s",
                             path, snrq_shown(key, shown), snrq_json_kind(value));
    }
    return SNRQ_OK;
}

/* The tensors must fill the data buffer in order, from its first byte to the end of the file.
 * Leaves the table sorted by offset, with offsets counted from the start of the file. */
static snrq_status layout_check(snrq_shard *file)
{
    char shown[SNRQ_SHOWN];
    uint64_t room = file->bytes - file->data, end = 0;
    if (file->count > 1) qsort(file->table, (size_t)file->count, sizeof *file->table, by_offset);
    for (int64_t i = 0; i < file->count; i++) {
        snrq_tensor *tensor = &file->table[i];
        if (tensor->offset != end)
            return snrq_fail(
                SNRQ_BAD_DATA,
                "%s: tensor \"%s\": data_offsets begin at %" PRIu64 ", expected %" PRIu64 " (%s)",
                file->path, snrq_shown(tensor->name, shown), tensor->offset, end,
                tensor->offset > end ? "a hole before it" : "it overlaps the one before it");
        end += tensor->bytes; /* cannot overflow: an end is below 2^63 */
        if (end > room)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: tensor \"%s\": ends at data byte %" PRIu64
                             ", but the file has only %" PRIu64 " (is the download complete?)",
                             file->path, snrq_shown(tensor->name, shown), end, room);
        tensor->offset += file->data;
    }
    if (end != room)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: %" PRIu64 " bytes, expected %" PRIu64
                         ": 8, header, and the tensors' data",
                         file->path, file->bytes, file->data + end);
    return SNRQ_OK;
}

/* A file that git did not fetch is text. */
static snrq_status refuse_pointer(const snrq_shard *file)
{
    char start[64];
    size_t bytes = file->bytes < sizeof start ? (size_t)file->bytes : sizeof start;
    SNRQ_TRY(snrq_file_read_at(file->fd, file->path, 0, start, bytes));
    return snrq_is_lfs_pointer(start, bytes) ? snrq_lfs_pointer_refuse(file->path) : SNRQ_OK;
}

/* Reads and parses the header; *out is a JSON object. */
static snrq_status header_read(snrq_shard *file, json_t **out)
{
    unsigned char prefix[8];
    uint64_t length = 0;
    if (file->bytes < sizeof prefix)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %" PRIu64 " bytes, too short for a safetensors file",
                         file->path, file->bytes);
    SNRQ_TRY(refuse_pointer(file));
    SNRQ_TRY(snrq_file_read_at(file->fd, file->path, 0, prefix, sizeof prefix));
    for (int i = 7; i >= 0; i--) length = length << 8 | prefix[i];
    if (length > MAX_HEADER)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: header length (byte 0) is %" PRIu64
                         ", expected at most %d: is this a safetensors file?",
                         file->path, length, MAX_HEADER);
    if (length > file->bytes - sizeof prefix)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: header length (byte 0) is %" PRIu64 ", but only %" PRIu64
                         " bytes follow (is the download complete?)",
                         file->path, length, file->bytes - sizeof prefix);
    file->data = sizeof prefix + length;
    char *text = NULL;
    char where[PATH_MAX + 16];
    snprintf(where, sizeof where, "%s: header", file->path);
    snrq_status status = snrq_allocate((size_t)length + 1, 1, "safetensors header", &text);
    if (status == SNRQ_OK)
        status = snrq_file_read_at(file->fd, file->path, sizeof prefix, text, (size_t)length);
    if (status == SNRQ_OK && text[0] != '{')
        status = snrq_fail(SNRQ_BAD_DATA, "%s: expected '{' at byte 8, found byte 0x%02x", where,
                           (unsigned)(unsigned char)text[0]);
    if (status == SNRQ_OK) status = snrq_json_parse(where, text, (size_t)length, out);
    free(text);
    return status;
}

static snrq_status header_parse(snrq_shard *file, json_t *header)
{
    const char *name;
    json_t *entry;
    SNRQ_TRY(
        snrq_allocate(json_object_size(header), sizeof *file->table, "tensor table", &file->table));
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            if (json_is_null(entry)) continue; /* as some writers say none */
            SNRQ_TRY(metadata_check(file->path, entry));
            file->metadata = json_incref(entry);
            continue;
        }
        SNRQ_TRY(tensor_parse(file->path, name, entry, &file->table[file->count]));
        file->count++;
    }
    SNRQ_TRY(layout_check(file));
    if (file->count > 1) qsort(file->table, (size_t)file->count, sizeof *file->table, by_name);
    return SNRQ_OK;
}

/* Opens and checks one file. On failure the shard is left for the reader to release. */
static snrq_status shard_open(const char *path, snrq_shard *file)
{
    SNRQ_TRY(snrq_copy_text(path, "path", &file->path));
    SNRQ_TRY(snrq_file_open(path, &file->fd, &file->bytes));
    json_t *header = NULL;
    SNRQ_TRY(header_read(file, &header));
    snrq_status status = header_parse(file, header);
    json_decref(header);
    return status;
}

static snrq_status shards_allocate(snrq_safetensors *reader, size_t count)
{
    if (count > INT_MAX)
        return snrq_fail(SNRQ_BAD_DATA, "%zu shards, expected at most %d", count, INT_MAX);
    SNRQ_TRY(snrq_allocate(count, sizeof *reader->shards, "shard table", &reader->shards));
    for (size_t i = 0; i < count; i++) reader->shards[i].fd = -1;
    return SNRQ_OK;
}

static snrq_status open_single(const char *path, snrq_safetensors *reader)
{
    SNRQ_TRY(shards_allocate(reader, 1));
    reader->shard_count = 1;
    snrq_shard *file = &reader->shards[0];
    SNRQ_TRY(shard_open(path, file));
    reader->tensors = file->table;
    reader->count = file->count;
    file->table = NULL;
    file->count = 0;
    return SNRQ_OK;
}

/* The shard called `name`, opened at its first mention. The table has room for all names. */
static snrq_status shard_find(snrq_safetensors *reader, const char *directory, const char *index,
                              json_t *seen, const char *name, int *out)
{
    char shown[SNRQ_SHOWN], path[PATH_MAX];
    json_t *known = json_object_get(seen, name);
    if (known != NULL) {
        *out = (int)json_integer_value(known);
        return SNRQ_OK;
    }
    if (name[0] == '\0' || strchr(name, '/') != NULL || strcmp(name, "..") == 0 ||
        strcmp(name, ".") == 0)
        return snrq_fail(
            SNRQ_BAD_DATA,
            "%s: weight_map: expected the plain name of a file beside the index, found \"%s\"",
            index, snrq_shown(name, shown));
    SNRQ_TRY(snrq_path_join(directory, name, path, sizeof path));
    *out = reader->shard_count++;
    if (json_object_set_new(seen, name, json_integer(*out)) != 0)
        return snrq_fail(SNRQ_INTERNAL, "cannot allocate the list of shards");
    snrq_status status = shard_open(path, &reader->shards[*out]);
    if (status == SNRQ_NO_INPUT)
        return snrq_fail(status, "%s (a shard named by %s)", snrq_error_message(), index);
    return status;
}

/* Moves the tensors that the index names from the shards' tables into the reader's. */
static snrq_status tensors_collect(snrq_safetensors *reader, const char *directory,
                                   const char *index, json_t *map, json_t *seen)
{
    const char *name;
    json_t *value;
    char shown[SNRQ_SHOWN];
    json_object_foreach(map, name, value)
    {
        if (!snrq_json_is_text(value))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: weight_map: \"%s\": expected a file name, found %s", index,
                             snrq_shown(name, shown), snrq_json_kind(value));
        int file = 0;
        SNRQ_TRY(shard_find(reader, directory, index, seen, json_string_value(value), &file));
        const snrq_shard *home = &reader->shards[file];
        snrq_tensor key = {.name = (char *)name};
        snrq_tensor *found = home->count == 0 ? NULL
                                              : bsearch(&key, home->table, (size_t)home->count,
                                                        sizeof *home->table, by_name);
        if (found == NULL) {
            if (json_object_set_new(reader->missing, name, json_integer(file)) != 0)
                return snrq_fail(SNRQ_INTERNAL, "cannot allocate the list of tensors");
            continue;
        }
        snrq_tensor *tensor = &reader->tensors[reader->count];
        *tensor = *found;
        tensor->name = NULL;
        tensor->file = file;
        reader->count++;
        SNRQ_TRY(snrq_copy_text(name, "tensor name", &tensor->name));
    }
    return SNRQ_OK;
}

static void table_free(snrq_tensor **table, int64_t *count)
{
    for (int64_t i = 0; *table != NULL && i < *count; i++) free((*table)[i].name);
    free(*table);
    *table = NULL;
    *count = 0;
}

static snrq_status open_indexed(const char *directory, const char *index, snrq_safetensors *reader)
{
    json_t *root = NULL, *map = NULL, *seen = json_object();
    snrq_status status = seen != NULL ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "cannot allocate");
    if (status == SNRQ_OK) status = snrq_json_read(index, MAX_INDEX, &root);
    /* metadata.total_size is informative: writers disagree on what it counts, so it is not
     * compared. */
    if (status == SNRQ_OK) status = snrq_json_object(index, root, "weight_map", &map);
    size_t count = json_object_size(map);
    if (status == SNRQ_OK && count == 0)
        status = snrq_fail(SNRQ_BAD_DATA, "%s: weight_map names no tensor", index);
    if (status == SNRQ_OK) status = shards_allocate(reader, count);
    if (status == SNRQ_OK)
        status = snrq_allocate(count, sizeof *reader->tensors, "tensor table", &reader->tensors);
    reader->missing = json_object();
    if (status == SNRQ_OK && reader->missing == NULL)
        status = snrq_fail(SNRQ_INTERNAL, "cannot allocate the list of tensors");
    if (status == SNRQ_OK) status = tensors_collect(reader, directory, index, map, seen);
    json_decref(root);
    json_decref(seen);
    if (status != SNRQ_OK) return status;
    for (int i = 0; i < reader->shard_count; i++)
        table_free(&reader->shards[i].table, &reader->shards[i].count);
    snrq_safetensors_sort(reader);
    if (reader->count == 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: weight_map: none of its %zu tensors is in the shards that it names "
                         "(do index and shards belong together?)",
                         index, count);
    return SNRQ_OK;
}

void snrq_safetensors_sort(snrq_safetensors *reader)
{
    if (reader->count > 1)
        qsort(reader->tensors, (size_t)reader->count, sizeof *reader->tensors, by_name);
}

/* A link that leads nowhere counts: opening it tells more. */
static bool exists(const char *directory, const char *name, char path[PATH_MAX])
{
    struct stat facts;
    return snrq_path_join(directory, name, path, PATH_MAX) == SNRQ_OK && lstat(path, &facts) == 0;
}

static snrq_status open_directory(const char *directory, snrq_safetensors *reader)
{
    char path[PATH_MAX];
    if (exists(directory, "model.safetensors", path)) return open_single(path, reader);
    if (exists(directory, "model.safetensors.index.json", path))
        return open_indexed(directory, path, reader);
    if (exists(directory, "pytorch_model.bin", path) ||
        exists(directory, "pytorch_model.bin.index.json", path))
        return snrq_fail(
            SNRQ_NO_INPUT,
            "%s: has only %s; pickled checkpoints are not read: convert it to safetensors "
            "(transformers: model.save_pretrained(DIR, safe_serialization=True))",
            directory, strrchr(path, '/') + 1);
    return snrq_fail(SNRQ_NO_INPUT,
                     "%s: has neither model.safetensors nor model.safetensors.index.json",
                     directory);
}

snrq_status snrq_safetensors_open(const char *path, snrq_safetensors **out)
{
    *out = NULL;
    snrq_safetensors *reader;
    struct stat facts;
    SNRQ_TRY(snrq_allocate(1, sizeof *reader, "safetensors reader", &reader));
    bool directory = stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
    snrq_status status = directory ? open_directory(path, reader) : open_single(path, reader);
    if (status != SNRQ_OK) snrq_safetensors_close(&reader);
    *out = reader;
    return status;
}

void snrq_safetensors_close(snrq_safetensors **reader)
{
    if (*reader == NULL) return;
    for (int i = 0; i < (*reader)->shard_count; i++) {
        snrq_shard *file = &(*reader)->shards[i];
        table_free(&file->table, &file->count);
        json_decref(file->metadata);
        if (file->fd >= 0) close(file->fd);
        free(file->path);
    }
    table_free(&(*reader)->tensors, &(*reader)->count);
    json_decref((*reader)->missing);
    free((*reader)->shards);
    free(*reader);
    *reader = NULL;
}

int64_t snrq_safetensors_count(const snrq_safetensors *reader)
{
    return reader->count;
}

const snrq_tensor *snrq_safetensors_at(const snrq_safetensors *reader, int64_t index)
{
    return index >= 0 && index < reader->count ? &reader->tensors[index] : NULL;
}

const snrq_tensor *snrq_safetensors_find(const snrq_safetensors *reader, const char *name)
{
    snrq_tensor key = {.name = (char *)name};
    if (reader->count == 0) return NULL;
    return bsearch(&key, reader->tensors, (size_t)reader->count, sizeof key, by_name);
}

const char *snrq_safetensors_missing(const snrq_safetensors *reader, const char *name)
{
    const json_t *shard = json_object_get(reader->missing, name);
    return shard == NULL ? NULL : reader->shards[json_integer_value(shard)].path;
}

const char *snrq_safetensors_metadata(const snrq_safetensors *reader, const char *key)
{
    for (int i = 0; i < reader->shard_count; i++) {
        const char *value = json_string_value(json_object_get(reader->shards[i].metadata, key));
        if (value != NULL) return value;
    }
    return NULL;
}

const char *snrq_safetensors_file(const snrq_safetensors *reader, const snrq_tensor *tensor)
{
    return reader->shards[tensor->file].path;
}

snrq_status snrq_safetensors_read(const snrq_safetensors *reader, const snrq_tensor *tensor,
                                  uint64_t begin, uint64_t bytes, void *out)
{
    const snrq_shard *file = &reader->shards[tensor->file];
    if (begin > tensor->bytes || bytes > tensor->bytes - begin)
        return snrq_fail(SNRQ_INTERNAL,
                         "%s: tensor \"%s\": bytes %" PRIu64 "+%" PRIu64
                         " asked for, but it has %" PRIu64,
                         file->path, tensor->name, begin, bytes, tensor->bytes);
    return snrq_file_read_at(file->fd, file->path, tensor->offset + begin, out, (size_t)bytes);
}

void snrq_safetensors_expect(const snrq_safetensors *reader, const snrq_tensor *tensor,
                             uint64_t begin, uint64_t bytes)
{
    /* The system takes as much of a request as the disk takes at once, and forgets the rest. */
    const uint64_t piece = 1 << 17;
    int fd = reader->shards[tensor->file].fd;
    for (uint64_t at = begin; at < begin + bytes; at += piece)
        (void)posix_fadvise(fd, (off_t)(tensor->offset + at), (off_t)piece, POSIX_FADV_WILLNEED);
}
