/* Activations in parallel HDF5; see activation_file.h. */
#include "io/checkpoint/activation_file.h"

#include <stdlib.h>
#include <string.h>

#include "io/hdf5/reader.h"
#include "io/hdf5/writer.h"

enum { FORMAT_VERSION = 1, STREAMS = 2, HASH_BYTES = 8 };
static const char format_name[] = "snrq-activations";
static const char *const stream_name[STREAMS] = {"quantized", "full"};

/* The tables of an open file; zeroed before they are opened. */
struct tables {
    snrq_hdf5_table stream[STREAMS], hashes;
};

/* Where rows come from: this rank's windows of one stream, or of both for their hashes. */
struct source {
    const struct tables *tables;
    snrq_range windows;
    const float *stream[STREAMS];
};

int64_t snrq_activation_file_bytes(int64_t windows, int64_t tokens, int64_t hidden)
{
    return windows * (STREAMS * tokens * hidden * (int64_t)sizeof(float) + STREAMS * HASH_BYTES);
}

/* Opening. */

static void close_tables(struct tables *t)
{
    for (int i = 0; i < STREAMS; i++) snrq_hdf5_table_close(&t->stream[i]);
    snrq_hdf5_table_close(&t->hashes);
}

static snrq_status open_tables(const snrq_hdf5_object *root, const snrq_activation_facts *facts,
                               struct tables *t)
{
    const int64_t shape[] = {facts->windows, facts->tokens, facts->hidden};
    const int64_t hashes[] = {facts->windows, STREAMS * HASH_BYTES};
    for (int i = 0; i < STREAMS; i++) {
        SNRQ_TRY(
            snrq_hdf5_open_table(root, stream_name[i], SNRQ_HDF5_F32, 3, shape, &t->stream[i]));
        t->stream[i].index = i;
    }
    return snrq_hdf5_open_table(root, "hashes", SNRQ_HDF5_U8, 2, hashes, &t->hashes);
}

static snrq_status read_facts(const snrq_hdf5_object *root, snrq_activation_facts *facts)
{
    const snrq_hdf5_kind kind = SNRQ_HDF5_F32;
    snrq_hdf5_kind found;
    snrq_hdf5_table table;
    *facts = (snrq_activation_facts){0};
    SNRQ_TRY(snrq_hdf5_get_integer(root, "block", &facts->block));
    SNRQ_TRY(snrq_hdf5_get_text(root, "record", facts->record, sizeof facts->record));
    SNRQ_TRY(snrq_hdf5_find_table(root, stream_name[0], &kind, 1, &found, &table));
    if (table.dimensions == 3) {
        facts->windows = table.shape[0];
        facts->tokens = table.shape[1];
        facts->hidden = table.shape[2];
    }
    snrq_hdf5_table_close(&table);
    return SNRQ_OK;
}

static snrq_status check_facts(const char *path, const snrq_activation_facts *expected,
                               const snrq_activation_facts *found)
{
    if (found->block != expected->block || strcmp(found->record, expected->record) != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: belongs to block %lld with record %s, expected block %lld with "
                         "record %s",
                         path, (long long)found->block, found->record, (long long)expected->block,
                         expected->record);
    if (found->windows != expected->windows || found->tokens != expected->tokens ||
        found->hidden != expected->hidden)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: holds %lld windows of %lld tokens of %lld numbers, expected %lld of "
                         "%lld of %lld",
                         path, (long long)found->windows, (long long)found->tokens,
                         (long long)found->hidden, (long long)expected->windows,
                         (long long)expected->tokens, (long long)expected->hidden);
    return SNRQ_OK;
}

/* Writing. */

static snrq_status lay_out(const snrq_hdf5_object *root, const void *source)
{
    const snrq_activation_facts *facts = source;
    const int64_t shape[] = {facts->windows, facts->tokens, facts->hidden};
    const int64_t hashes[] = {facts->windows, STREAMS * HASH_BYTES};
    SNRQ_TRY(snrq_hdf5_put_text(root, "format", format_name));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "format_version", FORMAT_VERSION));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "block", facts->block));
    SNRQ_TRY(snrq_hdf5_put_text(root, "record", facts->record));
    for (int i = 0; i < STREAMS; i++)
        SNRQ_TRY(snrq_hdf5_make_table(root, stream_name[i], SNRQ_HDF5_F32, 3, shape));
    return snrq_hdf5_make_table(root, "hashes", SNRQ_HDF5_U8, 2, hashes);
}

/* Hash of a window, as it lies in the file. */
static void put_hash(const snrq_hdf5_table *stream, int64_t window, const float *data,
                     unsigned char out[HASH_BYTES])
{
    uint64_t hash = snrq_hdf5_row_hashes(stream, (snrq_range){window, window + 1}, data);
    for (int i = 0; i < HASH_BYTES; i++) out[i] = (unsigned char)(hash >> (8 * i));
}

static const float *window_of(const struct source *s, int stream, int64_t window)
{
    size_t numbers = s->tables->stream[stream].row_bytes / sizeof(float);
    return s->stream[stream] + (size_t)(window - s->windows.begin) * numbers;
}

static void fill_stream(const struct source *s, int stream, snrq_range rows, void *out)
{
    memcpy(out, window_of(s, stream, rows.begin),
           (size_t)(rows.end - rows.begin) * s->tables->stream[stream].row_bytes);
}

static snrq_status fill_quantized(const void *source, snrq_range rows, void *out)
{
    fill_stream(source, 0, rows, out);
    return SNRQ_OK;
}

static snrq_status fill_full(const void *source, snrq_range rows, void *out)
{
    fill_stream(source, 1, rows, out);
    return SNRQ_OK;
}

static snrq_status fill_hashes(const void *source, snrq_range rows, void *out)
{
    const struct source *s = source;
    unsigned char *hash = out;
    for (int64_t w = rows.begin; w < rows.end; w++)
        for (int i = 0; i < STREAMS; i++, hash += HASH_BYTES)
            put_hash(&s->tables->stream[i], w, window_of(s, i, w), hash);
    return SNRQ_OK;
}

static snrq_status write_all(snrq_hdf5_writer *w, const snrq_activation_facts *facts,
                             snrq_range windows, const float *quantized, const float *full)
{
    struct tables tables = {0};
    const struct source source = {&tables, windows, {quantized, full}};
    snrq_status status = snrq_agree(w->context, open_tables(&w->root, facts, &tables));
    if (status == SNRQ_OK)
        status = snrq_hdf5_write_rows(w, &tables.stream[0], windows, fill_quantized, &source);
    if (status == SNRQ_OK)
        status = snrq_hdf5_write_rows(w, &tables.stream[1], windows, fill_full, &source);
    if (status == SNRQ_OK)
        status = snrq_hdf5_write_rows(w, &tables.hashes, windows, fill_hashes, &source);
    close_tables(&tables);
    return status;
}

snrq_status snrq_activation_file_write(const snrq_context *context, const char *path,
                                       const snrq_activation_facts *facts, snrq_range windows,
                                       const float *quantized, const float *full)
{
    snrq_hdf5_writer writer;
    int64_t bytes = snrq_activation_file_bytes(facts->windows, facts->tokens, facts->hidden);
    SNRQ_TRY(snrq_hdf5_create(context, path, bytes, lay_out, facts, &writer));
    return snrq_hdf5_finish(&writer, write_all(&writer, facts, windows, quantized, full), NULL);
}

/* Reading. */

static snrq_status compare_hashes(const char *path, const struct tables *t, snrq_range windows,
                                  float *const streams[STREAMS])
{
    for (int64_t w = windows.begin; w < windows.end; w++) {
        unsigned char stored[STREAMS * HASH_BYTES], found[STREAMS * HASH_BYTES];
        SNRQ_TRY(snrq_hdf5_read_rows(path, &t->hashes, (snrq_range){w, w + 1}, stored));
        for (int i = 0; i < STREAMS; i++) {
            size_t numbers = t->stream[i].row_bytes / sizeof(float);
            const float *data = streams[i] + (size_t)(w - windows.begin) * numbers;
            put_hash(&t->stream[i], w, data, found + HASH_BYTES * i);
        }
        if (memcmp(stored, found, sizeof stored) != 0)
            return snrq_fail(SNRQ_BAD_DATA, "%s: window %lld is damaged: its hash does not fit",
                             path, (long long)w);
    }
    return SNRQ_OK;
}

static snrq_status read_windows(const char *path, const struct tables *t, snrq_range windows,
                                float *const streams[STREAMS])
{
    for (int i = 0; i < STREAMS; i++)
        SNRQ_TRY(snrq_hdf5_read_rows(path, &t->stream[i], windows, streams[i]));
    return compare_hashes(path, t, windows, streams);
}

snrq_status snrq_activation_file_read(const char *path, const snrq_activation_facts *facts,
                                      snrq_range windows, float *quantized, float *full)
{
    float *const streams[STREAMS] = {quantized, full};
    snrq_activation_facts found;
    struct tables tables = {0};
    snrq_hdf5_object root;
    SNRQ_TRY(snrq_hdf5_open(path, format_name, FORMAT_VERSION, &root));
    snrq_status status = read_facts(&root, &found);
    if (status == SNRQ_OK) status = check_facts(path, facts, &found);
    if (status == SNRQ_OK) status = open_tables(&root, facts, &tables);
    if (status == SNRQ_OK) status = read_windows(path, &tables, windows, streams);
    close_tables(&tables);
    snrq_hdf5_close_file(&root);
    return status;
}

/* One window after the other. */
static snrq_status check_windows(const char *path, const struct tables *t)
{
    float *data = NULL;
    size_t numbers = t->stream[0].row_bytes / sizeof *data;
    SNRQ_TRY(snrq_allocate(STREAMS * numbers, sizeof *data, "a window", &data));
    float *const streams[STREAMS] = {data, data + numbers};
    snrq_status status = SNRQ_OK;
    for (int64_t w = 0; w < t->stream[0].rows && status == SNRQ_OK; w++)
        status = read_windows(path, t, (snrq_range){w, w + 1}, streams);
    free(data);
    return status;
}

snrq_status snrq_activation_file_check(const char *path)
{
    snrq_activation_facts facts;
    struct tables tables = {0};
    snrq_hdf5_object root;
    SNRQ_TRY(snrq_hdf5_open(path, format_name, FORMAT_VERSION, &root));
    snrq_status status = read_facts(&root, &facts);
    if (status == SNRQ_OK) status = open_tables(&root, &facts, &tables);
    if (status == SNRQ_OK) status = check_windows(path, &tables);
    close_tables(&tables);
    snrq_hdf5_close_file(&root);
    return status;
}
