/* Panels on their way; see panel_feed.h.
 *
 * Every process of the grid that has a part of the panel packs it and broadcasts it. All parts lie
 * one after the other in one buffer; it is free again when they have been put into the caller's
 * panel, so that it serves the next one.
 */
#include "mpi/algebra/panel_feed.h"

#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/panel_part.h"

enum { CHUNK_ITEMS = 1 << 23 }; /* as in mpi/collective.c */

struct snrq_panel_feed {
    const snrq_matrix *matrix;
    size_t size;           /* of a number */
    int64_t width;         /* of the widest panel */
    snrq_panel_place here; /* what is on its way, if `expected` */
    bool expected, failed; /* failed: MPI may still write to the buffer */
    int in_flight;
    MPI_Request *requests;
    unsigned char *packed; /* [rows * width] numbers */
};

int64_t snrq_panel_feed_bytes(int64_t rows, int64_t width, size_t size)
{
    return rows * width * (int64_t)size;
}

static snrq_status allocate(snrq_panel_feed *f)
{
    const snrq_process_grid *g = f->matrix->grid;
    size_t cells = (size_t)(f->matrix->rows * f->width);
    size_t requests = (size_t)(g->rows * g->columns) + cells / CHUNK_ITEMS;
    if (g->context->size == 1) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate(requests, sizeof *f->requests, "requests of panels", &f->requests));
    return snrq_allocate_scratch(cells, f->size, "panels on their way", &f->packed);
}

snrq_status snrq_panel_feed_create(const snrq_matrix *matrix, int64_t width, size_t size,
                                   snrq_panel_feed **out)
{
    SNRQ_TRY(snrq_allocate(1, sizeof **out, "panels on their way", out));
    **out = (snrq_panel_feed){.matrix = matrix, .size = size, .width = width};
    snrq_status status = allocate(*out);
    if (status != SNRQ_OK) snrq_panel_feed_destroy(out);
    return status;
}

/* This rank's own part, as it travels. */
static void pack(const snrq_panel_feed *f, const snrq_panel_part *p, unsigned char *packed)
{
    const snrq_matrix *m = f->matrix;
    const double *own = snrq_panel_part_own(m, p);
    int64_t rows = p->row_end - p->row_begin, columns = p->column_end - p->column_begin;
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < columns; j++) {
        const double *from = own + j * m->local_rows;
        float *floats = (float *)(void *)packed + j * rows;
        if (f->size == sizeof *from)
            memcpy((double *)(void *)packed + j * rows, from, (size_t)rows * sizeof *from);
        else
            for (int64_t i = 0; i < rows; i++) floats[i] = (float)from[i];
    }
}

/* Begins to send one process's part to everyone. */
static snrq_status start_part(snrq_panel_feed *f, const snrq_panel_part *p, unsigned char *packed)
{
    const snrq_process_grid *g = f->matrix->grid;
    const MPI_Datatype type = f->size == sizeof(double) ? MPI_DOUBLE : MPI_FLOAT;
    int owner = p->row * g->columns + p->column;
    int64_t count = snrq_panel_part_count(p);
    if (g->context->rank == owner) pack(f, p, packed);
    for (int64_t at = 0; at < count; at += CHUNK_ITEMS) {
        int items = (int)(count - at < CHUNK_ITEMS ? count - at : CHUNK_ITEMS);
        SNRQ_TRY(snrq_mpi_check(MPI_Ibcast(packed + (size_t)at * f->size, items, type, owner,
                                           g->context->comm, &f->requests[f->in_flight]),
                                "MPI_Ibcast"));
        f->in_flight++;
    }
    return SNRQ_OK;
}

/* Goes through the parts in the order in which they are packed. */
typedef snrq_status part_work(snrq_panel_feed *f, const snrq_panel_part *p, unsigned char *packed,
                              void *panel);

static snrq_status start_one(snrq_panel_feed *f, const snrq_panel_part *p, unsigned char *packed,
                             void *panel)
{
    (void)panel;
    return start_part(f, p, packed);
}

static snrq_status unpack_one(snrq_panel_feed *f, const snrq_panel_part *p, unsigned char *packed,
                              void *panel)
{
    snrq_panel_part_unpack(f->matrix, p, f->here, packed, f->size, p->row_end - p->row_begin, panel,
                           f->size);
    return SNRQ_OK;
}

static snrq_status for_all_parts(snrq_panel_feed *f, part_work *work, void *panel)
{
    const snrq_process_grid *g = f->matrix->grid;
    size_t at = 0;
    for (int row = 0; row < g->rows; row++)
        for (int column = 0; column < g->columns; column++) {
            snrq_panel_part p = snrq_panel_part_of(f->matrix, row, column, f->here);
            SNRQ_TRY(work(f, &p, f->packed + at * f->size, panel));
            at += (size_t)snrq_panel_part_count(&p);
        }
    return SNRQ_OK;
}

snrq_status snrq_panel_feed_start(snrq_panel_feed *f, int64_t begin, int64_t width,
                                  int64_t first_row)
{
    const snrq_context *c = f->matrix->grid->context;
    if (f->expected || width > f->width)
        return snrq_fail(
            SNRQ_INTERNAL,
            "a panel of %lld columns from %lld cannot be put on its way; this is a bug",
            (long long)width, (long long)begin);
    SNRQ_TRY(snrq_call_check(c, SNRQ_HERE, "starts columns %lld to %lld from row %lld",
                             (long long)begin, (long long)(begin + width), (long long)first_row));
    f->here = (snrq_panel_place){begin, width, first_row};
    f->expected = true;
    if (c->size == 1) return SNRQ_OK;
    f->in_flight = 0;
    snrq_status status = for_all_parts(f, start_one, NULL);
    f->failed = f->failed || status != SNRQ_OK;
    return status;
}

bool snrq_panel_feed_expects(const snrq_panel_feed *f, int64_t begin)
{
    return f->expected && f->here.begin == begin;
}

static snrq_status wait(snrq_panel_feed *f)
{
    int requests = f->in_flight;
    f->in_flight = 0;
    snrq_status status =
        snrq_mpi_check(MPI_Waitall(requests, f->requests, MPI_STATUSES_IGNORE), "MPI_Waitall");
    f->failed = f->failed || status != SNRQ_OK;
    return status;
}

snrq_status snrq_panel_feed_take(snrq_panel_feed *f, void *panel)
{
    const snrq_matrix *m = f->matrix;
    if (!f->expected) return snrq_fail(SNRQ_INTERNAL, "no panel is on its way; this is a bug");
    f->expected = false;
    if (m->grid->context->size == 1) {
        snrq_panel_part all = snrq_panel_part_of(m, 0, 0, f->here);
        snrq_panel_part_unpack(m, &all, f->here, snrq_panel_part_own(m, &all), sizeof(double),
                               m->local_rows, panel, f->size);
        return SNRQ_OK;
    }
    SNRQ_TRY(wait(f));
    return for_all_parts(f, unpack_one, panel);
}

void snrq_panel_feed_progress(snrq_panel_feed *f)
{
    int done;
    if (f->in_flight == 0) return;
    /* What goes wrong here is found again by those who wait. */
    MPI_Testall(f->in_flight, f->requests, &done, MPI_STATUSES_IGNORE);
}

void snrq_panel_feed_destroy(snrq_panel_feed **feed)
{
    snrq_panel_feed *f = *feed;
    if (f == NULL) return;
    *feed = NULL;
    if (f->in_flight > 0 && !f->failed) wait(f);
    if (f->failed) return;
    free(f->requests);
    free(f->packed);
    free(f);
}
