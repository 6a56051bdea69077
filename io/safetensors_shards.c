/* Safetensors files written by all ranks; see safetensors_shards.h. */
#include "io/safetensors_shards.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "io/file.h"
#include "io/reserve.h"

enum { MAX_DIMENSIONS = 2, MAX_TENSORS = 1 << 24, FILE_NAME = 64 };

typedef struct tensor {
    char *name; /* owned */
    const char *dtype;
    int element_bytes, dimensions;
    int64_t shape[MAX_DIMENSIONS];
    uint64_t bytes, offset; /* offset: in the data of its file */
    int file, index;
} tensor;

typedef struct shard {
    char name[FILE_NAME], path[PATH_MAX];
    uint64_t data, bytes; /* offset of the data, bytes of the data */
    int fd;               /* -1: this rank has not written to it */
} shard;

struct snrq_shards {
    const snrq_context *context; /* borrowed */
    snrq_staging *staging;       /* borrowed */
    uint64_t max_bytes, total;
    tensor *tensors; /* [count] in the order of the list */
    int count;
    size_t capacity;
    shard *shards; /* [shard_count] */
    int shard_count;
};

snrq_status snrq_shards_create(const snrq_context *context, int64_t max_bytes, snrq_shards **out)
{
    SNRQ_TRY(snrq_allocate(1, sizeof **out, "list of tensors", out));
    (*out)->context = context;
    (*out)->max_bytes = (uint64_t)max_bytes;
    return SNRQ_OK;
}

static int element_bytes(const char *dtype)
{
    static const struct {
        const char *dtype;
        int bytes;
    } types[] = {{"I64", 8}, {"I32", 4}, {"U8", 1},  {"F8_E4M3", 1},
                 {"F32", 4}, {"F16", 2}, {"BF16", 2}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].dtype, dtype) == 0) return types[i].bytes;
    return 0;
}

snrq_status snrq_shards_add(snrq_shards *s, const char *name, const char *dtype, int dimensions,
                            const int64_t *shape, int *index)
{
    tensor t = {.dtype = dtype, .dimensions = dimensions, .index = s->count};
    t.element_bytes = element_bytes(dtype);
    t.bytes = (uint64_t)t.element_bytes;
    if (t.element_bytes == 0 || dimensions < 0 || dimensions > MAX_DIMENSIONS)
        return snrq_fail(SNRQ_INTERNAL, "%s: %d dimensions of type %s cannot be written", name,
                         dimensions, dtype);
    for (int d = 0; d < dimensions; d++) {
        t.shape[d] = shape[d];
        if (shape[d] < 1 || t.bytes > (UINT64_C(1) << 62) / (uint64_t)shape[d])
            return snrq_fail(SNRQ_INTERNAL, "%s: impossible size %lld", name, (long long)shape[d]);
        t.bytes *= (uint64_t)shape[d];
    }
    if (s->count == MAX_TENSORS) return snrq_fail(SNRQ_INTERNAL, "more than %d tensors", s->count);
    SNRQ_TRY(snrq_grow((size_t)s->count + 1, sizeof *s->tensors, "list of tensors", &s->tensors,
                       &s->capacity));
    SNRQ_TRY(snrq_copy_text(name, "tensor name", &t.name));
    *index = s->count;
    s->tensors[s->count++] = t;
    return SNRQ_OK;
}

/* The layout. */

static int by_file_and_size(const void *a, const void *b)
{
    const tensor *x = *(const tensor *const *)a, *y = *(const tensor *const *)b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    if (x->element_bytes != y->element_bytes) return x->element_bytes > y->element_bytes ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static snrq_status assign_files(snrq_shards *s)
{
    uint64_t bytes = 0;
    int file = 0;
    for (int i = 0; i < s->count; i++) {
        tensor *t = &s->tensors[i];
        if (bytes > 0 && (t->bytes > s->max_bytes || bytes > s->max_bytes - t->bytes)) {
            file++;
            bytes = 0;
        }
        t->file = file;
        bytes += t->bytes;
        s->total += t->bytes;
    }
    s->shard_count = file + 1;
    SNRQ_TRY(snrq_allocate((size_t)s->shard_count, sizeof *s->shards, "files", &s->shards));
    for (int f = 0; f < s->shard_count; f++) {
        shard *h = &s->shards[f];
        h->fd = -1;
        if (s->shard_count == 1)
            strcpy(h->name, "model.safetensors");
        else
            snprintf(h->name, sizeof h->name, "model-%05d-of-%05d.safetensors", f + 1,
                     s->shard_count);
    }
    return SNRQ_OK;
}

static json_t *describe(const tensor *t)
{
    json_t *shape = json_array();
    for (int d = 0; d < t->dimensions; d++) json_array_append_new(shape, json_integer(t->shape[d]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", t->dtype, "shape", shape, "data_offsets",
                     (json_int_t)t->offset, (json_int_t)(t->offset + t->bytes));
}

/* Sets the offsets of the tensors [count] of one file, and makes its header: length and text. */
static snrq_status make_header(tensor *const *tensors, int count, shard *h, char **out)
{
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    snrq_status status = SNRQ_OK;
    *out = NULL;
    for (int i = 0; i < count && status == SNRQ_OK; i++) {
        tensors[i]->offset = h->bytes;
        h->bytes += tensors[i]->bytes;
        if (json_object_set_new(header, tensors[i]->name, describe(tensors[i])) != 0)
            status = snrq_fail(SNRQ_INTERNAL, "%s cannot be described", tensors[i]->name);
    }
    char *text = status == SNRQ_OK ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    if (text == NULL) return snrq_fail(SNRQ_INTERNAL, "%s: no memory for the header", h->name);
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    h->data = 8 + padded;
    status = snrq_allocate(8 + padded, 1, "header", out);
    if (status == SNRQ_OK) {
        for (int b = 0; b < 8; b++) (*out)[b] = (char)((uint64_t)padded >> (8 * b) & 0xff);
        memset(*out + 8, ' ', padded);
        memcpy(*out + 8, text, length);
    }
    free(text);
    return status;
}

/* Rank 0: the file in its full size, with its header. */
static snrq_status make_file(const shard *h, const char *header)
{
    SNRQ_TRY(snrq_reserve(h->path, (int64_t)(h->data + h->bytes)));
    int fd = open(h->path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be opened: %s", h->path, strerror(errno));
    snrq_status status = snrq_file_write_at(fd, h->path, 0, header, (size_t)h->data);
    if (status == SNRQ_OK) status = snrq_file_sync_open(fd, h->path);
    close(fd);
    return status;
}

/* Where a file system cannot set room aside, one file after the other would seem to fit. */
static snrq_status check_room(const snrq_shards *s)
{
    struct statvfs system;
    char directory[PATH_MAX];
    snprintf(directory, sizeof directory, "%s", s->shards[0].path);
    char *slash = strrchr(directory, '/');
    if (slash != NULL) *slash = '\0';
    if (statvfs(slash != NULL ? directory : ".", &system) != 0 || system.f_blocks == 0)
        return SNRQ_OK;
    double room = (double)system.f_bavail * (double)system.f_frsize;
    if (room >= (double)s->total) return SNRQ_OK;
    return snrq_fail(SNRQ_CANNOT_WRITE,
                     "%s: no room: the weights take %.1f MB, %.1f MB are free; choose a directory "
                     "on another file system",
                     directory, (double)s->total / 1e6, room / 1e6);
}

static snrq_status make_files(snrq_shards *s)
{
    tensor **order = NULL;
    snrq_status status = snrq_allocate((size_t)s->count, sizeof *order, "order of tensors", &order);
    for (int i = 0; i < s->count && status == SNRQ_OK; i++) order[i] = &s->tensors[i];
    if (status == SNRQ_OK) qsort(order, (size_t)s->count, sizeof *order, by_file_and_size);
    for (int f = 0, first = 0; f < s->shard_count && status == SNRQ_OK; f++) {
        char *header = NULL;
        int end = first;
        while (end < s->count && order[end]->file == f) end++;
        status = make_header(order + first, end - first, &s->shards[f], &header);
        if (status == SNRQ_OK && s->context->rank == 0) status = make_file(&s->shards[f], header);
        free(header);
        first = end;
    }
    free(order);
    return status;
}

snrq_status snrq_shards_begin(snrq_shards *s, snrq_staging *staging)
{
    s->staging = staging;
    snrq_status status = assign_files(s);
    for (int f = 0; f < s->shard_count && status == SNRQ_OK; f++)
        status = snrq_staging_add(staging, s->shards[f].name, s->shards[f].path);
    if (status == SNRQ_OK && s->context->rank == 0) status = check_room(s);
    if (status == SNRQ_OK) status = make_files(s);
    return snrq_agree(s->context, status);
}

snrq_status snrq_shards_write(snrq_shards *s, int index, uint64_t begin, const void *data,
                              size_t bytes)
{
    const tensor *t = &s->tensors[index];
    shard *h = &s->shards[t->file];
    if (begin > t->bytes || bytes > t->bytes - begin)
        return snrq_fail(SNRQ_INTERNAL, "%s: %zu bytes from %llu on are too many", t->name, bytes,
                         (unsigned long long)begin);
    if (h->fd < 0) h->fd = open(h->path, O_WRONLY | O_CLOEXEC);
    if (h->fd < 0)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be opened: %s (is the directory shared?)",
                         h->path, strerror(errno));
    return snrq_file_write_at(h->fd, h->path, h->data + t->offset + begin, data, bytes);
}

snrq_status snrq_shards_finish(snrq_shards *s)
{
    snrq_status status = SNRQ_OK;
    for (int f = 0; f < s->shard_count; f++) {
        shard *h = &s->shards[f];
        if (h->fd < 0) continue;
        if (status == SNRQ_OK) status = snrq_file_sync_open(h->fd, h->path);
        /* Network file systems report a full quota here. */
        if (close(h->fd) != 0 && status == SNRQ_OK)
            status = snrq_fail(SNRQ_IO_ERROR, "%s: closing failed: %s", h->path, strerror(errno));
        h->fd = -1;
    }
    return snrq_agree(s->context, status);
}

snrq_status snrq_shards_put_index(snrq_shards *s)
{
    if (s->shard_count == 1) return SNRQ_OK;
    json_t *map = json_object();
    for (int i = 0; i < s->count; i++)
        json_object_set_new(map, s->tensors[i].name,
                            json_string(s->shards[s->tensors[i].file].name));
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)s->total,
                              "weight_map", map);
    char *text = index != NULL ? json_dumps(index, JSON_INDENT(2)) : NULL;
    json_decref(index);
    if (text == NULL) return snrq_fail(SNRQ_INTERNAL, "cannot make the index of the weights");
    snrq_status status =
        snrq_staging_put(s->staging, "model.safetensors.index.json", text, strlen(text));
    free(text);
    return status;
}

uint64_t snrq_shards_bytes(const snrq_shards *s)
{
    return s->total;
}

int snrq_shards_files(const snrq_shards *s)
{
    return s->shard_count;
}

void snrq_shards_destroy(snrq_shards **shards)
{
    snrq_shards *s = *shards;
    if (s == NULL) return;
    for (int f = 0; f < s->shard_count && s->shards != NULL; f++)
        if (s->shards[f].fd >= 0) close(s->shards[f].fd);
    for (int i = 0; i < s->count; i++) free(s->tensors[i].name);
    free(s->tensors);
    free(s->shards);
    free(s);
    *shards = NULL;
}
