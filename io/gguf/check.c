/* Reading a GGUF file to check it; see check.h.
 *
 * The header is read once from front to back through a small window. Kept are the place of each
 * value and the description of each tensor; values and data are read when they are asked for.
 */
#include "io/gguf/check.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file.h"
#include "io/gguf/values.h"

enum { WINDOW = 1 << 16, MAX_PAIRS = 1 << 16, MAX_TENSORS = 1 << 20, MAX_KEY = 127, ARRAY = 9 };
enum { STRING = 8, ALIGNMENT = 32 };

/* Bytes of a value by its kind; 0: of no fixed size. */
static const int kind_bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
enum { KINDS = sizeof kind_bytes / sizeof kind_bytes[0] };

typedef struct pair {
    char key[MAX_KEY + 1];
    uint32_t kind;     /* of the value, or of the elements */
    int64_t elements;  /* -1: not an array */
    uint64_t at, size; /* of a string: its bytes */
    uint64_t end;      /* of the whole pair */
} pair;

struct snrq_gguf_file {
    char *path;
    int fd;
    uint64_t bytes;
    uint64_t at; /* what is read next */
    uint64_t window_at, window_used;
    unsigned char *window; /* [WINDOW] */
    pair *pairs;           /* [pair_count] by key */
    int64_t pair_count;
    snrq_gguf_tensor *tensors; /* [count] in the order of the file */
    const snrq_gguf_tensor **by_name;
    int64_t count;
};

static snrq_status bad(const snrq_gguf_file *f, const char *what, uint64_t expected, uint64_t found)
{
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: byte %" PRIu64 ": %s: expected %" PRIu64 ", found %" PRIu64, f->path,
                     f->at, what, expected, found);
}

/* The next `size` bytes; out may be NULL to pass over them. */
static snrq_status take(snrq_gguf_file *f, const char *what, void *out, uint64_t size)
{
    if (size > f->bytes - f->at)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: byte %" PRIu64 ": %s takes %" PRIu64
                         " bytes, but the file ends after %" PRIu64,
                         f->path, f->at, what, size, f->bytes - f->at);
    unsigned char *to = out;
    while (size > 0 && to != NULL) {
        if (f->at < f->window_at || f->at >= f->window_at + f->window_used) {
            f->window_at = f->at;
            f->window_used = f->bytes - f->at < WINDOW ? f->bytes - f->at : WINDOW;
            SNRQ_TRY(snrq_file_read_at(f->fd, f->path, f->at, f->window, (size_t)f->window_used));
        }
        uint64_t part = f->window_at + f->window_used - f->at;
        if (part > size) part = size;
        memcpy(to, f->window + (f->at - f->window_at), (size_t)part);
        to += part;
        f->at += part;
        size -= part;
    }
    f->at += size;
    return SNRQ_OK;
}

static snrq_status take_u32(snrq_gguf_file *f, const char *what, uint32_t *out)
{
    unsigned char b[4];
    SNRQ_TRY(take(f, what, b, sizeof b));
    *out = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    return SNRQ_OK;
}

static snrq_status take_u64(snrq_gguf_file *f, const char *what, uint64_t *out)
{
    uint32_t low, high;
    SNRQ_TRY(take_u32(f, what, &low));
    SNRQ_TRY(take_u32(f, what, &high));
    *out = (uint64_t)high << 32 | low;
    return SNRQ_OK;
}

/* A string of at most `limit` bytes without NUL among them; out [limit + 1]. */
static snrq_status take_name(snrq_gguf_file *f, const char *what, uint64_t limit, char *out)
{
    uint64_t length;
    SNRQ_TRY(take_u64(f, what, &length));
    if (length > limit) return bad(f, what, limit, length);
    SNRQ_TRY(take(f, what, out, length));
    out[length] = '\0';
    return strlen(out) == length ? SNRQ_OK : bad(f, what, length, strlen(out));
}

static snrq_status skip_value(snrq_gguf_file *f, uint32_t kind)
{
    uint64_t length = 0;
    if (kind != STRING) return take(f, "a value", NULL, (uint64_t)kind_bytes[kind]);
    SNRQ_TRY(take_u64(f, "length of a string", &length));
    return take(f, "a string", NULL, length);
}

static snrq_status take_array(snrq_gguf_file *f, pair *p)
{
    uint64_t elements;
    SNRQ_TRY(take_u32(f, "kind of elements", &p->kind));
    if (p->kind >= KINDS || p->kind == ARRAY) return bad(f, p->key, KINDS - 1, p->kind);
    SNRQ_TRY(take_u64(f, "number of elements", &elements));
    if (elements > f->bytes - f->at) return bad(f, p->key, f->bytes - f->at, elements);
    p->elements = (int64_t)elements;
    p->at = f->at;
    for (uint64_t i = 0; i < elements; i++) SNRQ_TRY(skip_value(f, p->kind));
    return SNRQ_OK;
}

static snrq_status take_pair(snrq_gguf_file *f, pair *p)
{
    *p = (pair){.elements = -1};
    SNRQ_TRY(take_name(f, "length of a key", MAX_KEY, p->key));
    SNRQ_TRY(take_u32(f, p->key, &p->kind));
    if (p->kind >= KINDS) return bad(f, p->key, KINDS - 1, p->kind);
    if (p->kind == ARRAY) return take_array(f, p);
    uint64_t before = f->at;
    SNRQ_TRY(skip_value(f, p->kind));
    p->at = before + (p->kind == STRING ? 8 : 0);
    p->size = f->at - p->at;
    return SNRQ_OK;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const pair *)a)->key, ((const pair *)b)->key);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const snrq_gguf_tensor *const *)a)->name,
                  (*(const snrq_gguf_tensor *const *)b)->name);
}

static snrq_status take_pairs(snrq_gguf_file *f, uint64_t count)
{
    /* 13 bytes are the shortest pair: the count is held against the file before memory is
     * asked for */
    uint64_t most = (f->bytes - f->at) / 13;
    if (most > MAX_PAIRS) most = MAX_PAIRS;
    if (count > most) return bad(f, "number of keys, at most", most, count);
    SNRQ_TRY(snrq_allocate((size_t)count, sizeof *f->pairs, "keys of a GGUF file", &f->pairs));
    f->pair_count = (int64_t)count;
    for (uint64_t i = 0; i < count; i++) {
        SNRQ_TRY(take_pair(f, &f->pairs[i]));
        f->pairs[i].end = f->at;
    }
    qsort(f->pairs, (size_t)count, sizeof *f->pairs, by_key);
    for (uint64_t i = 1; i < count; i++)
        if (by_key(&f->pairs[i - 1], &f->pairs[i]) == 0)
            return snrq_fail(SNRQ_BAD_DATA, "%s: key \"%s\" is there twice", f->path,
                             f->pairs[i].key);
    return SNRQ_OK;
}

/* Describes a tensor; *next is where its data must begin, counted from the start of the
 * data. */
static snrq_status take_tensor(snrq_gguf_file *f, uint64_t *next, snrq_gguf_tensor *t)
{
    uint32_t dimensions, type;
    uint64_t size[4] = {1, 1, 1, 1}, rows = 1;
    SNRQ_TRY(take_name(f, "length of a tensor's name", sizeof t->name - 1, t->name));
    SNRQ_TRY(take_u32(f, t->name, &dimensions));
    if (dimensions < 1 || dimensions > 4) return bad(f, "dimensions, at most", 4, dimensions);
    for (uint32_t d = 0; d < dimensions; d++) {
        SNRQ_TRY(take_u64(f, t->name, &size[d]));
        if (size[d] < 1 || size[d] > INT32_MAX) return bad(f, "a dimension", INT32_MAX, size[d]);
        if (d > 0 && rows > INT64_MAX / INT32_MAX / size[d])
            return bad(f, "rows, at most", INT64_MAX / INT32_MAX, size[d]);
        if (d > 0) rows *= size[d];
    }
    SNRQ_TRY(take_u32(f, t->name, &type));
    SNRQ_TRY(take_u64(f, t->name, &t->offset));
    t->kind = snrq_gguf_value_kind(type);
    if (t->kind < 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: tensor %s is of type %" PRIu32 ", which snrq does not "
                         "write",
                         f->path, t->name, type);
    const snrq_gguf_value *v = &snrq_gguf_values[t->kind];
    if (size[0] % (uint64_t)v->weights != 0)
        return bad(f, "columns, a multiple of", (uint64_t)v->weights, size[0]);
    t->type = v->name;
    t->dimensions = (int)dimensions;
    t->columns = (int64_t)size[0];
    t->rows = (int64_t)rows;
    t->row_bytes = size[0] / (uint64_t)v->weights * (uint64_t)v->bytes;
    if (t->offset != *next) return bad(f, "offset of a tensor", *next, t->offset);
    /* A row has at most 2^33 bytes, rows are at most 2^32: their product may pass 2^64. */
    if (t->row_bytes > f->bytes / rows || *next + t->row_bytes * rows > f->bytes)
        return bad(f, "bytes of tensors, at most", f->bytes, *next);
    *next += (t->row_bytes * rows + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return SNRQ_OK;
}

static snrq_status take_tensors(snrq_gguf_file *f, uint64_t count)
{
    uint64_t next = 0;
    uint64_t most = (f->bytes - f->at) / 33;
    if (most > MAX_TENSORS) most = MAX_TENSORS;
    if (count > most) return bad(f, "number of tensors, at most", most, count);
    for (int64_t i = 0; i < f->pair_count; i++)
        if (strcmp(f->pairs[i].key, "general.alignment") == 0)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: general.alignment: expected none, snrq writes files with the "
                             "default",
                             f->path);
    SNRQ_TRY(snrq_allocate((size_t)count, sizeof *f->tensors, "tensors", &f->tensors));
    SNRQ_TRY(snrq_allocate((size_t)count, sizeof *f->by_name, "tensors", &f->by_name));
    f->count = (int64_t)count;
    for (uint64_t i = 0; i < count; i++) {
        SNRQ_TRY(take_tensor(f, &next, &f->tensors[i]));
        f->by_name[i] = &f->tensors[i];
    }
    uint64_t data = (f->at + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (data + next != f->bytes) return bad(f, "bytes of the file", data + next, f->bytes);
    for (uint64_t i = 0; i < count; i++) f->tensors[i].offset += data;
    qsort(f->by_name, (size_t)count, sizeof *f->by_name, by_name);
    for (uint64_t i = 1; i < count; i++)
        if (by_name(&f->by_name[i - 1], &f->by_name[i]) == 0)
            return snrq_fail(SNRQ_BAD_DATA, "%s: tensor \"%s\" is there twice", f->path,
                             f->by_name[i]->name);
    return SNRQ_OK;
}

static snrq_status read_header(snrq_gguf_file *f)
{
    char magic[4];
    uint32_t version;
    uint64_t tensors, pairs;
    SNRQ_TRY(take(f, "\"GGUF\"", magic, sizeof magic));
    if (memcmp(magic, "GGUF", 4) != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: does not begin with \"GGUF\"", f->path);
    SNRQ_TRY(take_u32(f, "version", &version));
    if (version != 3) return bad(f, "version", 3, version);
    SNRQ_TRY(take_u64(f, "number of tensors", &tensors));
    SNRQ_TRY(take_u64(f, "number of keys", &pairs));
    SNRQ_TRY(take_pairs(f, pairs));
    return take_tensors(f, tensors);
}

snrq_status snrq_gguf_file_open(const char *path, snrq_gguf_file **out)
{
    snrq_gguf_file *f = NULL;
    *out = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *f, "GGUF file", &f));
    f->fd = -1;
    snrq_status status = snrq_copy_text(path, "path", &f->path);
    if (status == SNRQ_OK) status = snrq_allocate(WINDOW, 1, "window on a GGUF file", &f->window);
    if (status == SNRQ_OK) status = snrq_file_open(path, &f->fd, &f->bytes);
    if (status == SNRQ_OK) status = read_header(f);
    if (status == SNRQ_OK)
        *out = f;
    else
        snrq_gguf_file_close(&f);
    return status;
}

void snrq_gguf_file_close(snrq_gguf_file **file)
{
    snrq_gguf_file *f = *file;
    if (f == NULL) return;
    if (f->fd >= 0) close(f->fd);
    free(f->by_name);
    free(f->tensors);
    free(f->pairs);
    free(f->window);
    free(f->path);
    free(f);
    *file = NULL;
}

int64_t snrq_gguf_file_count(const snrq_gguf_file *f)
{
    return f->count;
}

const snrq_gguf_tensor *snrq_gguf_file_at(const snrq_gguf_file *f, int64_t index)
{
    return index >= 0 && index < f->count ? &f->tensors[index] : NULL;
}

static int against_name(const void *name, const void *tensor)
{
    return strcmp(name, (*(const snrq_gguf_tensor *const *)tensor)->name);
}

const snrq_gguf_tensor *snrq_gguf_file_find(const snrq_gguf_file *f, const char *name)
{
    const snrq_gguf_tensor **found =
        bsearch(name, f->by_name, (size_t)f->count, sizeof *f->by_name, against_name);
    return found != NULL ? *found : NULL;
}

static int against_key(const void *key, const void *candidate)
{
    return strcmp(key, ((const pair *)candidate)->key);
}

static snrq_status find_pair(const snrq_gguf_file *f, const char *key, const pair **out)
{
    *out = bsearch(key, f->pairs, (size_t)f->pair_count, sizeof *f->pairs, against_key);
    return *out != NULL ? SNRQ_OK
                        : snrq_fail(SNRQ_BAD_DATA, "%s: key \"%s\" is missing", f->path, key);
}

static snrq_status wrong_kind(const snrq_gguf_file *f, const pair *p, const char *expected)
{
    return snrq_fail(SNRQ_BAD_DATA, "%s: key \"%s\": expected %s, found %s of kind %" PRIu32,
                     f->path, p->key, expected, p->elements >= 0 ? "an array" : "a value", p->kind);
}

snrq_status snrq_gguf_file_number(const snrq_gguf_file *f, const char *key, double *out)
{
    unsigned char raw[8] = {0};
    uint64_t bits = 0;
    const pair *p;
    SNRQ_TRY(find_pair(f, key, &p));
    if (p->elements >= 0 || p->kind == STRING) return wrong_kind(f, p, "a number");
    SNRQ_TRY(snrq_file_read_at(f->fd, f->path, p->at, raw, (size_t)p->size));
    for (int i = 0; i < 8; i++) bits |= (uint64_t)raw[i] << (8 * i);
    bool negative = p->size < 8 && bits >> (8 * p->size - 1) != 0;
    switch (p->kind) {
    case 1:
    case 3:
    case 5: /* signed and shorter than 64 bits */
        *out = (double)bits - (negative ? ldexp(1.0, 8 * (int)p->size) : 0.0);
        return SNRQ_OK;
    case 6:
        *out = (double)snrq_gguf_single((uint32_t)bits);
        return SNRQ_OK;
    case 11:
        *out = (double)(int64_t)bits;
        return SNRQ_OK;
    case 12:
        memcpy(out, &bits, sizeof *out);
        return SNRQ_OK;
    default: /* unsigned, or a boolean */
        *out = (double)bits;
        return SNRQ_OK;
    }
}

snrq_status snrq_gguf_file_text(const snrq_gguf_file *f, const char *key, char *out, size_t size)
{
    const pair *p;
    SNRQ_TRY(find_pair(f, key, &p));
    if (p->elements >= 0 || p->kind != STRING) return wrong_kind(f, p, "a string");
    size_t kept = p->size < size - 1 ? (size_t)p->size : size - 1;
    out[kept] = '\0';
    return snrq_file_read_at(f->fd, f->path, p->at, out, kept);
}

snrq_status snrq_gguf_file_elements(const snrq_gguf_file *f, const char *key, int64_t *out)
{
    const pair *p;
    SNRQ_TRY(find_pair(f, key, &p));
    if (p->elements < 0) return wrong_kind(f, p, "an array");
    *out = p->elements;
    return SNRQ_OK;
}

snrq_status snrq_gguf_file_compare(const snrq_gguf_file *f, uint64_t at,
                                   const unsigned char *expected, size_t bytes, size_t *same)
{
    unsigned char *found = NULL;
    *same = 0;
    if (at > f->bytes) return SNRQ_OK;
    if (bytes > f->bytes - at) bytes = (size_t)(f->bytes - at);
    SNRQ_TRY(snrq_allocate(bytes, 1, "bytes of a GGUF file", &found));
    snrq_status status = snrq_file_read_at(f->fd, f->path, at, found, bytes);
    while (status == SNRQ_OK && *same < bytes && found[*same] == expected[*same]) ++*same;
    free(found);
    return status;
}

void snrq_gguf_file_place(const snrq_gguf_file *f, uint64_t at, char *out, size_t size)
{
    const pair *found = NULL;
    if (at < 24) {
        snprintf(out, size, "the beginning of the file");
        return;
    }
    for (int64_t i = 0; i < f->pair_count; i++)
        if (at < f->pairs[i].end && (found == NULL || f->pairs[i].end < found->end))
            found = &f->pairs[i];
    if (found != NULL)
        snprintf(out, size, "key %s", found->key);
    else
        snprintf(out, size, "the list of tensors");
    for (int64_t i = 0; i < f->count && at >= f->tensors[i].offset; i++)
        snprintf(out, size, "tensor %s", f->tensors[i].name);
}

snrq_status snrq_gguf_file_check_padding(const snrq_gguf_file *f)
{
    static const unsigned char zeros[ALIGNMENT];
    for (int64_t i = 0; i < f->count; i++) {
        const snrq_gguf_tensor *t = &f->tensors[i];
        uint64_t end = t->offset + t->row_bytes * (uint64_t)t->rows;
        size_t padding = (size_t)((ALIGNMENT - end % ALIGNMENT) % ALIGNMENT), same;
        SNRQ_TRY(snrq_gguf_file_compare(f, end, zeros, padding, &same));
        if (same < padding)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: byte %" PRIu64 ", behind tensor %s: expected 0 (padding)",
                             f->path, end + same, t->name);
    }
    return SNRQ_OK;
}

snrq_status snrq_gguf_file_read(const snrq_gguf_file *f, const snrq_gguf_tensor *t, int64_t first,
                                int64_t rows, float *out)
{
    const snrq_gguf_value *v = &snrq_gguf_values[t->kind];
    unsigned char *raw = NULL;
    if (first < 0 || rows < 0 || first > t->rows - rows)
        return snrq_fail(SNRQ_INTERNAL, "%s: %s has no rows %lld + %lld", f->path, t->name,
                         (long long)first, (long long)rows);
    size_t size = (size_t)rows * (size_t)t->row_bytes;
    SNRQ_TRY(snrq_allocate(size, 1, "rows of a GGUF tensor", &raw));
    snrq_status status =
        snrq_file_read_at(f->fd, f->path, t->offset + (uint64_t)first * t->row_bytes, raw, size);
    const unsigned char *gguf_block = raw;
    for (int64_t i = 0; status == SNRQ_OK && i < rows * t->columns;
         i += v->weights, gguf_block += v->bytes)
        for (int j = 0; j < v->weights; j++) *out++ = v->value(gguf_block, j);
    free(raw);
    return status;
}
