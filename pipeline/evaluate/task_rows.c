/* The rows of a task's file; see task_rows.h. */
#include "pipeline/evaluate/task_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/json_lines.h"
#include "io/text_lines.h"
#include "mpi/collective.h"

/* Rows while they are read. */
typedef struct reading {
    snrq_task_rows *rows;
    size_t used, room, end_room, line_room;
} reading;

static snrq_status find_file(const char *directory, const char *task, snrq_task_rows *rows)
{
    static const char *const endings[] = {".jsonl", ".jsonl.gz"};
    for (int i = 0; i < 2; i++) {
        int bytes = snprintf(rows->path, sizeof rows->path, "%s/%s%s", directory, task, endings[i]);
        if (bytes < (int)sizeof rows->path && access(rows->path, F_OK) == 0) return SNRQ_OK;
    }
    return snrq_fail(SNRQ_NO_INPUT,
                     "--task-dir %s has no file %s.jsonl or %s.jsonl.gz: rows of the data set as "
                     "JSON lines (docs/evaluation.md says how to get them)",
                     directory, task, task);
}

static snrq_status add_row(reading *r, const char *line, size_t bytes, int64_t number)
{
    snrq_task_rows *rows = r->rows;
    size_t count = (size_t)rows->count + 1;
    SNRQ_TRY(snrq_grow(r->used + bytes, 1, "rows", &rows->text, &r->room));
    SNRQ_TRY(snrq_grow(count, sizeof *rows->end, "rows", &rows->end, &r->end_room));
    SNRQ_TRY(snrq_grow(count, sizeof *rows->line, "rows", &rows->line, &r->line_room));
    memcpy(rows->text + r->used, line, bytes);
    r->used += bytes;
    rows->end[rows->count] = (int64_t)r->used;
    rows->line[rows->count++] = number;
    return SNRQ_OK;
}

static snrq_status read_rows(const char *directory, const char *task, int64_t limit,
                             snrq_task_rows *rows)
{
    reading r = {.rows = rows};
    snrq_text_lines *lines;
    char *line = NULL;
    size_t bytes;
    int64_t number;
    SNRQ_TRY(find_file(directory, task, rows));
    SNRQ_TRY(snrq_text_lines_open(rows->path, &lines));
    snrq_status status = SNRQ_OK;
    while (status == SNRQ_OK && (limit == 0 || rows->count < limit)) {
        status = snrq_text_lines_next(lines, &line, &bytes, &number);
        if (status != SNRQ_OK || line == NULL) break;
        if (!snrq_json_line_is_blank(line, bytes)) status = add_row(&r, line, bytes, number);
    }
    snrq_text_lines_close(&lines);
    if (status != SNRQ_OK || rows->count > 0) return status;
    return snrq_fail(SNRQ_BAD_DATA, "%s: there are no rows in it", rows->path);
}

static int64_t bytes_of(const snrq_task_rows *rows, int64_t row)
{
    return rows->end[row] - (row > 0 ? rows->end[row - 1] : 0);
}

/* What rank 0 has, all ranks get. */
static snrq_status share_rows(const snrq_context *c, snrq_task_rows *rows)
{
    snrq_status status = SNRQ_OK;
    SNRQ_TRY(snrq_broadcast(c, rows->path, sizeof rows->path));
    SNRQ_TRY(snrq_broadcast(c, &rows->count, sizeof rows->count));
    size_t count = (size_t)rows->count;
    if (c->rank != 0) {
        status = snrq_allocate(count, sizeof *rows->end, "rows", &rows->end);
        if (status == SNRQ_OK)
            status = snrq_allocate(count, sizeof *rows->line, "rows", &rows->line);
    }
    SNRQ_TRY(snrq_agree(c, status));
    SNRQ_TRY(snrq_broadcast(c, rows->end, count * sizeof *rows->end));
    SNRQ_TRY(snrq_broadcast(c, rows->line, count * sizeof *rows->line));
    size_t bytes = (size_t)rows->end[count - 1];
    if (c->rank != 0) status = snrq_allocate(bytes, 1, "rows", &rows->text);
    SNRQ_TRY(snrq_agree(c, status));
    return snrq_broadcast(c, rows->text, bytes);
}

/* A row where rows are sorted by length. */
typedef struct sized_row {
    int64_t bytes, row;
} sized_row;

static int longer_first(const void *a, const void *b)
{
    const sized_row *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return (x->row > y->row) - (x->row < y->row);
}

/* The longest first, so that the last ones even out. */
static snrq_status deal(const snrq_context *c, int64_t *load, snrq_task_rows *rows)
{
    sized_row *sorted;
    size_t count = (size_t)rows->count;
    SNRQ_TRY(snrq_allocate(count, sizeof *rows->owner, "rows", &rows->owner));
    SNRQ_TRY(snrq_allocate(count, sizeof *sorted, "rows", &sorted));
    for (int64_t i = 0; i < rows->count; i++) sorted[i] = (sized_row){bytes_of(rows, i), i};
    qsort(sorted, count, sizeof *sorted, longer_first);
    for (size_t i = 0; i < count; i++) {
        int to = 0;
        for (int rank = 1; rank < c->size; rank++)
            if (load[rank] < load[to]) to = rank;
        rows->owner[sorted[i].row] = to;
        load[to] += sorted[i].bytes;
    }
    free(sorted);
    return SNRQ_OK;
}

snrq_status snrq_task_rows_read(const snrq_context *c, const char *directory, const char *task,
                                int64_t limit, int64_t *load, snrq_task_rows *out)
{
    *out = (snrq_task_rows){0};
    SNRQ_TRY(snrq_agree(c, c->rank == 0 ? read_rows(directory, task, limit, out) : SNRQ_OK));
    SNRQ_TRY(share_rows(c, out));
    return snrq_agree(c, deal(c, load, out));
}

void snrq_task_rows_free(snrq_task_rows *rows)
{
    free(rows->text);
    free(rows->end);
    free(rows->line);
    free(rows->owner);
    *rows = (snrq_task_rows){0};
}

char *snrq_task_row(const snrq_task_rows *rows, int64_t row, size_t *bytes)
{
    *bytes = (size_t)bytes_of(rows, row);
    return rows->text + rows->end[row] - *bytes;
}
