/* Writing a GGUF file with all ranks; see writer.h, and layout.h for the layout. */
#include "io/gguf/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file.h"
#include "io/gguf/blocks.h"
#include "io/reserve.h"
#include "io/staging.h"
#include "mpi/collective.h"

typedef struct bytes {
    unsigned char *data;
    size_t used, capacity;
} bytes;

typedef struct tensor {
    char name[SNRQ_GGUF_NAME];
    snrq_gguf_type type;
    int64_t rows, columns;
    uint64_t offset; /* in the data */
    size_t row_bytes;
    int64_t stacked; /* matrices; 0: it is one, or a vector */
} tensor;

struct snrq_gguf_writer {
    snrq_status status; /* of the description */
    char message[256];  /* that belongs to it */
    bytes pairs;
    int64_t pair_count;
    tensor *tensors; /* [count] */
    int64_t count;
    size_t capacity;
    uint64_t data; /* where the data begins */
    char path[PATH_MAX], temporary[PATH_MAX];
    int fd;       /* -1: not open */
    bool created; /* rank 0: there is a temporary file to remove */
};

static uint64_t aligned(uint64_t at)
{
    return (at + SNRQ_GGUF_ALIGNMENT - 1) / SNRQ_GGUF_ALIGNMENT * SNRQ_GGUF_ALIGNMENT;
}

static snrq_status append(bytes *b, const void *data, size_t size)
{
    if (size > SIZE_MAX / 4 - b->used) return snrq_fail(SNRQ_INTERNAL, "GGUF header is too large");
    SNRQ_TRY(snrq_grow(b->used + size, 1, "GGUF header", &b->data, &b->capacity));
    if (size > 0) memcpy(b->data + b->used, data, size);
    b->used += size;
    return SNRQ_OK;
}

/* Keeps the first failure with its message until snrq_gguf_open() tells it. */
static void keep(snrq_gguf_writer *w, snrq_status status)
{
    w->status = status;
    if (status != SNRQ_OK) snprintf(w->message, sizeof w->message, "%s", snrq_error_message());
}

static void add(snrq_gguf_writer *w, const void *data, size_t size)
{
    if (w->status == SNRQ_OK) keep(w, append(&w->pairs, data, size));
}

static void add_string(snrq_gguf_writer *w, const char *text, size_t size)
{
    uint64_t length = size;
    add(w, &length, sizeof length);
    add(w, text, size);
}

static void add_pair(snrq_gguf_writer *w, const char *key, snrq_gguf_kind kind)
{
    uint32_t number = (uint32_t)kind;
    add_string(w, key, strlen(key));
    add(w, &number, sizeof number);
    w->pair_count++;
}

snrq_status snrq_gguf_writer_create(snrq_gguf_writer **out)
{
    SNRQ_TRY(snrq_allocate(1, sizeof **out, "GGUF writer", out));
    (*out)->fd = -1;
    return SNRQ_OK;
}

static void discard(snrq_gguf_writer *w)
{
    if (w->fd >= 0) close(w->fd);
    if (w->created) unlink(w->temporary);
    w->fd = -1;
    w->created = false;
}

void snrq_gguf_writer_destroy(snrq_gguf_writer **writer)
{
    snrq_gguf_writer *w = *writer;
    if (w == NULL) return;
    discard(w);
    free(w->pairs.data);
    free(w->tensors);
    free(w);
    *writer = NULL;
}

void snrq_gguf_put_u32(snrq_gguf_writer *w, const char *key, int64_t value)
{
    uint32_t number = (uint32_t)value;
    add_pair(w, key, SNRQ_GGUF_U32);
    add(w, &number, sizeof number);
}

void snrq_gguf_put_f32(snrq_gguf_writer *w, const char *key, double value)
{
    add_pair(w, key, SNRQ_GGUF_F32_VALUE);
    snrq_gguf_element_f32(w, value);
}

void snrq_gguf_put_bool(snrq_gguf_writer *w, const char *key, bool value)
{
    unsigned char byte = value;
    add_pair(w, key, SNRQ_GGUF_BOOL);
    add(w, &byte, sizeof byte);
}

void snrq_gguf_put_string(snrq_gguf_writer *w, const char *key, const char *text)
{
    add_pair(w, key, SNRQ_GGUF_STRING);
    add_string(w, text, strlen(text));
}

void snrq_gguf_put_array(snrq_gguf_writer *w, const char *key, snrq_gguf_kind kind, int64_t count)
{
    uint32_t number = (uint32_t)kind;
    uint64_t elements = (uint64_t)count;
    add_pair(w, key, SNRQ_GGUF_ARRAY);
    add(w, &number, sizeof number);
    add(w, &elements, sizeof elements);
}

void snrq_gguf_element_string(snrq_gguf_writer *w, const char *text, size_t size)
{
    add_string(w, text, size);
}

void snrq_gguf_element_i32(snrq_gguf_writer *w, int64_t value)
{
    int32_t number = (int32_t)value;
    add(w, &number, sizeof number);
}

void snrq_gguf_element_f32(snrq_gguf_writer *w, double value)
{
    float number = (float)value;
    add(w, &number, sizeof number);
}

int64_t snrq_gguf_add_tensor(snrq_gguf_writer *w, const char *name, snrq_gguf_type type,
                             int64_t rows, int64_t columns, int64_t stacked)
{
    if (w->status == SNRQ_OK)
        keep(w, snrq_grow((size_t)w->count + 1, sizeof *w->tensors, "tensors of a GGUF file",
                          &w->tensors, &w->capacity));
    if (w->status != SNRQ_OK) return w->count;
    tensor *t = &w->tensors[w->count];
    *t = (tensor){.type = type,
                  .rows = stacked > 0 ? rows * stacked : rows,
                  .columns = columns,
                  .stacked = stacked};
    snprintf(t->name, sizeof t->name, "%s", name);
    t->row_bytes = snrq_gguf_row_bytes(type, columns > 0 ? columns : 1);
    if (w->count > 0) {
        const tensor *before = t - 1;
        t->offset = aligned(before->offset + (uint64_t)before->rows * before->row_bytes);
    }
    return w->count++;
}

static snrq_status add_info(bytes *header, const tensor *t)
{
    uint64_t length = strlen(t->name);
    const int64_t stacked = t->stacked > 0 ? t->stacked : 1;
    const uint64_t sizes[3] = {(uint64_t)t->columns, (uint64_t)(t->rows / stacked),
                               (uint64_t)stacked};
    const uint64_t *first = t->columns > 0 ? sizes : sizes + 1;
    uint32_t dimensions = t->columns == 0 ? 1 : t->stacked > 0 ? 3 : 2, type = (uint32_t)t->type;
    SNRQ_TRY(append(header, &length, sizeof length));
    SNRQ_TRY(append(header, t->name, length));
    SNRQ_TRY(append(header, &dimensions, sizeof dimensions));
    SNRQ_TRY(append(header, first, dimensions * sizeof sizes[0]));
    SNRQ_TRY(append(header, &type, sizeof type));
    return append(header, &t->offset, sizeof t->offset);
}

/* Rank 0: everything before the data, padded. */
static snrq_status make_header(const snrq_gguf_writer *w, bytes *header)
{
    static const unsigned char zeros[SNRQ_GGUF_ALIGNMENT];
    const uint32_t version = SNRQ_GGUF_VERSION;
    const uint64_t counts[2] = {(uint64_t)w->count, (uint64_t)w->pair_count};
    SNRQ_TRY(append(header, "GGUF", 4));
    SNRQ_TRY(append(header, &version, sizeof version));
    SNRQ_TRY(append(header, counts, sizeof counts));
    SNRQ_TRY(append(header, w->pairs.data, w->pairs.used));
    for (int64_t i = 0; i < w->count; i++) SNRQ_TRY(add_info(header, &w->tensors[i]));
    return append(header, zeros, (size_t)(aligned(header->used) - header->used));
}

snrq_status snrq_gguf_header(const snrq_gguf_writer *w, unsigned char **out, size_t *size)
{
    bytes header = {0};
    *out = NULL;
    if (w->status != SNRQ_OK) return snrq_fail(w->status, "%s", w->message);
    snrq_status status = make_header(w, &header);
    if (status == SNRQ_OK) {
        *out = header.data;
        *size = header.used;
    } else {
        free(header.data);
    }
    return status;
}

uint64_t snrq_gguf_bytes(const snrq_gguf_writer *w)
{
    if (w->count == 0) return w->data;
    const tensor *last = &w->tensors[w->count - 1];
    return w->data + aligned(last->offset + (uint64_t)last->rows * last->row_bytes);
}

static snrq_status open_temporary(snrq_gguf_writer *w)
{
    w->fd = open(w->temporary, O_WRONLY | O_CLOEXEC);
    return w->fd >= 0 ? SNRQ_OK
                      : snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be opened: %s", w->temporary,
                                  strerror(errno));
}

/* Rank 0: the file at its full size, so that a full disk is found before the work. */
static snrq_status create_temporary(snrq_gguf_writer *w)
{
    bytes header = {0};
    snrq_status status = make_header(w, &header);
    w->data = header.used;
    uint64_t total = snrq_gguf_bytes(w);
    unlink(w->temporary);
    w->created = true;
    if (status == SNRQ_OK) status = snrq_reserve(w->temporary, (int64_t)total);
    if (status == SNRQ_OK) status = open_temporary(w);
    if (status == SNRQ_OK && ftruncate(w->fd, (off_t)total) != 0)
        status = snrq_fail(SNRQ_IO_ERROR, "%s: cannot be made %llu bytes long: %s", w->temporary,
                           (unsigned long long)total, strerror(errno));
    if (status == SNRQ_OK)
        status = snrq_file_write_at(w->fd, w->temporary, 0, header.data, header.used);
    free(header.data);
    return status;
}

snrq_status snrq_gguf_open(const snrq_context *context, snrq_gguf_writer *w, const char *path)
{
    snrq_status status = w->status != SNRQ_OK ? snrq_fail(w->status, "%s", w->message) : SNRQ_OK;
    if (status == SNRQ_OK)
        status = snrq_path_join("", path, w->path, sizeof w->path - sizeof SNRQ_STAGING_SUFFIX);
    if (status == SNRQ_OK) {
        strcpy(w->temporary, w->path);
        strcat(w->temporary, SNRQ_STAGING_SUFFIX);
        if (context->rank == 0) status = create_temporary(w);
    }
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = snrq_broadcast(context, &w->data, sizeof w->data);
    if (status == SNRQ_OK)
        status = snrq_agree(context, context->rank > 0 ? open_temporary(w) : SNRQ_OK);
    if (status != SNRQ_OK) discard(w);
    return status;
}

snrq_status snrq_gguf_write_rows(const snrq_gguf_writer *w, int64_t index, int64_t first,
                                 int64_t rows, const void *data)
{
    const tensor *t = &w->tensors[index];
    if (first < 0 || rows < 0 || first > t->rows - rows)
        return snrq_fail(SNRQ_INTERNAL, "%s: %s has no rows %lld + %lld", w->path, t->name,
                         (long long)first, (long long)rows);
    return snrq_file_write_at(w->fd, w->temporary,
                              w->data + t->offset + (uint64_t)first * t->row_bytes, data,
                              (size_t)rows * t->row_bytes);
}

/* Every rank makes durable what it wrote: ranks may be on different nodes. */
static snrq_status close_written(snrq_gguf_writer *w)
{
    snrq_status status = snrq_file_sync_open(w->fd, w->temporary);
    if (close(w->fd) != 0 && status == SNRQ_OK)
        status = snrq_fail(SNRQ_IO_ERROR, "%s: closing failed: %s", w->temporary, strerror(errno));
    w->fd = -1;
    return status;
}

static snrq_status rename_temporary(snrq_gguf_writer *w)
{
    char directory[PATH_MAX];
    if (rename(w->temporary, w->path) != 0)
        return snrq_fail(SNRQ_IO_ERROR, "%s: cannot be renamed to %s: %s", w->temporary, w->path,
                         strerror(errno));
    strcpy(directory, w->path);
    char *slash = strrchr(directory, '/');
    if (slash == NULL)
        strcpy(directory, ".");
    else
        slash[slash == directory] = '\0';
    snrq_status status = snrq_directory_sync(directory);
    if (status == SNRQ_OK)
        w->created = false;
    else
        (void)rename(w->path, w->temporary); /* a failed export leaves no file */
    return status;
}

snrq_status snrq_gguf_finish(const snrq_context *context, snrq_gguf_writer *w, snrq_status status)
{
    if (status == SNRQ_OK) status = close_written(w);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK)
        status = snrq_agree(context, context->rank == 0 ? rename_temporary(w) : SNRQ_OK);
    if (status != SNRQ_OK) discard(w);
    return status;
}
