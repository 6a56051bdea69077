/* Where tuning is, in parallel HDF5; see tuning_file.h. */
#include "io/checkpoint/tuning_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "io/hdf5/reader.h"
#include "io/hdf5/writer.h"

enum { FORMAT_VERSION = 1, HASH_DIGITS = 16, MOST_HISTORY = 1 << 24 };
static const char format_name[] = "snrq-tuning";

typedef struct source {
    const snrq_tuning_facts *facts;
    const float *numbers;
} source;

static void hash_of(int64_t rows, const float *numbers, char out[HASH_DIGITS + 1])
{
    size_t bytes = (size_t)rows * SNRQ_TUNING_ROW * sizeof *numbers;
    snprintf(out, HASH_DIGITS + 1, "%016llx", (unsigned long long)XXH3_64bits(numbers, bytes));
}

/* ---- writing ---- */

static snrq_status lay_out(const snrq_hdf5_object *root, const void *user)
{
    const source *s = user;
    const int64_t history[] = {(int64_t)strlen(s->facts->history)};
    const int64_t numbers[] = {s->facts->rows, SNRQ_TUNING_ROW};
    char hash[HASH_DIGITS + 1];
    hash_of(s->facts->rows, s->numbers, hash);
    SNRQ_TRY(snrq_hdf5_put_text(root, "format", format_name));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "format_version", FORMAT_VERSION));
    SNRQ_TRY(snrq_hdf5_put_text(root, "records", s->facts->records));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "epoch", s->facts->epoch));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "best", s->facts->best));
    SNRQ_TRY(snrq_hdf5_put_text(root, "xxh3", hash));
    SNRQ_TRY(snrq_hdf5_make_table(root, "history", SNRQ_HDF5_U8, 1, history));
    return snrq_hdf5_make_table(root, "numbers", SNRQ_HDF5_F32, 2, numbers);
}

static snrq_status fill_history(const void *user, snrq_range rows, void *out)
{
    const source *s = user;
    memcpy(out, s->facts->history + rows.begin, (size_t)(rows.end - rows.begin));
    return SNRQ_OK;
}

static snrq_status fill_numbers(const void *user, snrq_range rows, void *out)
{
    const source *s = user;
    memcpy(out, s->numbers + rows.begin * SNRQ_TUNING_ROW,
           (size_t)((rows.end - rows.begin) * SNRQ_TUNING_ROW) * sizeof *s->numbers);
    return SNRQ_OK;
}

/* Of `rows` rows of a table, this rank's. */
static snrq_range share_of(const snrq_context *c, int64_t rows)
{
    return snrq_share(rows, 1, c->size, c->rank);
}

static snrq_status open_tables(const snrq_hdf5_object *root, const snrq_tuning_facts *facts,
                               snrq_hdf5_table *history, snrq_hdf5_table *numbers)
{
    const int64_t shape[] = {facts->rows, SNRQ_TUNING_ROW};
    const snrq_hdf5_kind kind = SNRQ_HDF5_U8;
    snrq_hdf5_kind found;
    SNRQ_TRY(snrq_hdf5_find_table(root, "history", &kind, 1, &found, history));
    SNRQ_TRY(snrq_hdf5_open_table(root, "numbers", SNRQ_HDF5_F32, 2, shape, numbers));
    numbers->index = 1;
    return SNRQ_OK;
}

static snrq_status write_all(snrq_hdf5_writer *w, const source *s)
{
    snrq_hdf5_table history = {0}, numbers = {0};
    snrq_status status = open_tables(&w->root, s->facts, &history, &numbers);
    status = snrq_agree(w->context, snrq_hdf5_opened(w, status));
    if (status == SNRQ_OK)
        status =
            snrq_hdf5_write_rows(w, &history, share_of(w->context, history.rows), fill_history, s);
    if (status == SNRQ_OK)
        status =
            snrq_hdf5_write_rows(w, &numbers, share_of(w->context, numbers.rows), fill_numbers, s);
    snrq_hdf5_table_close(&history);
    snrq_hdf5_table_close(&numbers);
    return status;
}

snrq_status snrq_tuning_file_write(const snrq_context *context, const char *path,
                                   const snrq_tuning_facts *facts, const float *numbers)
{
    const source s = {facts, numbers};
    const int64_t bytes =
        (int64_t)strlen(facts->history) + facts->rows * SNRQ_TUNING_ROW * (int64_t)sizeof *numbers;
    snrq_hdf5_writer writer;
    SNRQ_TRY(snrq_hdf5_create(context, path, bytes, lay_out, &s, &writer));
    return snrq_hdf5_finish(&writer, write_all(&writer, &s), NULL);
}

/* ---- reading ---- */

static snrq_status read_history(const char *path, const snrq_hdf5_table *table, char **history)
{
    if (table->dimensions != 1 || table->rows > MOST_HISTORY)
        return snrq_fail(SNRQ_BAD_DATA, "%s: history is no text of at most %d bytes", path,
                         MOST_HISTORY);
    SNRQ_TRY(snrq_allocate((size_t)table->rows + 1, 1, "history", history));
    return snrq_hdf5_read_rows(path, table, (snrq_range){0, table->rows}, *history);
}

static snrq_status read_all(const snrq_context *c, const char *path, const snrq_hdf5_object *root,
                            snrq_tuning_facts *facts, char **history, float *numbers)
{
    char records[sizeof facts->records];
    snrq_hdf5_table text = {0}, table = {0};
    SNRQ_TRY(snrq_hdf5_get_text(root, "records", records, sizeof records));
    if (strcmp(records, facts->records) != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: belongs to records %s, expected %s", path, records,
                         facts->records);
    SNRQ_TRY(snrq_hdf5_get_integer(root, "epoch", &facts->epoch));
    SNRQ_TRY(snrq_hdf5_get_integer(root, "best", &facts->best));
    snrq_status status = open_tables(root, facts, &text, &table);
    if (status == SNRQ_OK) status = read_history(path, &text, history);
    snrq_range mine = snrq_share(facts->rows, 1, c->node_size, c->node_rank);
    if (status == SNRQ_OK)
        status = snrq_hdf5_read_rows(path, &table, mine, numbers + mine.begin * SNRQ_TUNING_ROW);
    snrq_hdf5_table_close(&text);
    snrq_hdf5_table_close(&table);
    return status;
}

snrq_status snrq_tuning_file_read(const snrq_context *context, const char *path,
                                  snrq_tuning_facts *facts, char **history, float *numbers)
{
    snrq_hdf5_object root;
    *history = NULL;
    SNRQ_TRY(snrq_hdf5_open(path, format_name, FORMAT_VERSION, &root));
    snrq_status status = read_all(context, path, &root, facts, history, numbers);
    snrq_hdf5_close_file(&root);
    facts->history = *history;
    return status;
}

snrq_status snrq_tuning_file_check(const char *path, int64_t rows, const float *numbers)
{
    char stored[HASH_DIGITS + 1], found[HASH_DIGITS + 1];
    snrq_hdf5_object root;
    SNRQ_TRY(snrq_hdf5_open(path, format_name, FORMAT_VERSION, &root));
    snrq_status status = snrq_hdf5_get_text(&root, "xxh3", stored, sizeof stored);
    snrq_hdf5_close_file(&root);
    SNRQ_TRY(status);
    hash_of(rows, numbers, found);
    if (strcmp(stored, found) == 0) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: its numbers are damaged: their hash is %s, expected %s",
                     path, found, stored);
}
