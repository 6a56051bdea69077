/* Rounding rows panel by panel: the panels, the tiles, and the greedy recursion; the beam is in
 * beam.c. See search.h. */
#include "pipeline/search.h"

#include <stdlib.h>
#include <string.h>

#include "mpi/blas.h"
#include "pipeline/beam.h"

snrq_status snrq_rows_create(int64_t rows, int bits, const snrq_groups *groups, snrq_rows *out)
{
    int64_t padded = (rows + SNRQ_TILE_ROWS - 1) / SNRQ_TILE_ROWS * SNRQ_TILE_ROWS;
    size_t m = (size_t)padded, n = (size_t)groups->columns, g = (size_t)groups->count;
    memset(out, 0, sizeof *out);
    out->rows = padded;
    out->columns = groups->columns;
    out->bits = bits;
    out->groups = groups;
    SNRQ_TRY(snrq_allocate(m * n, sizeof(float), "rounding targets", &out->target));
    SNRQ_TRY(snrq_allocate(m * g, sizeof(float), "scales", &out->scales));
    SNRQ_TRY(snrq_allocate(m * g, 1, "zeros", &out->zeros));
    SNRQ_TRY(snrq_allocate(m * n, 1, "codes", &out->codes));
    SNRQ_TRY(snrq_allocate(m, sizeof(double), "costs", &out->costs));
    for (size_t i = 0; i < m * g; i++) out->scales[i] = 1.0f;
    return SNRQ_OK;
}

void snrq_rows_free(snrq_rows *r)
{
    free(r->target);
    free(r->scales);
    free(r->zeros);
    free(r->codes);
    free(r->costs);
    memset(r, 0, sizeof *r);
}

/* Brings panel [begin, begin + width) of L to this rank and divides by the diagonal. */
static snrq_status load_panel(const snrq_matrix *l, int64_t begin, int64_t width, double *buffer,
                              snrq_panel *panel)
{
    int64_t below = l->columns - begin;
    SNRQ_TRY(snrq_matrix_broadcast_panel(l, begin, width, begin, buffer));
    panel->begin = begin;
    panel->width = width;
    panel->below = below;
    for (int64_t c = 0; c < width; c++) {
        double diagonal = buffer[c * below + c];
        panel->d2[c] = diagonal * diagonal;
        for (int64_t i = 0; i < below; i++)
            panel->u[i * SNRQ_BLOCK + c] = i > c ? (float)(buffer[c * below + i] / diagonal) : 0.0f;
    }
    return SNRQ_OK;
}

/* y [SNRQ_TILE_ROWS, SNRQ_BLOCK] = R_panel + E_decided U, with E = R - Q of the decided columns
 * [rows, columns]. */
static void bring_in_decided(const snrq_rows *r, int64_t row, const snrq_panel *p,
                             const float *errors, float *y)
{
    int64_t decided = p->begin + p->width, count = r->columns - decided;
    for (int64_t i = 0; i < SNRQ_TILE_ROWS; i++)
        memcpy(y + i * SNRQ_BLOCK, r->target + (row + i) * r->columns + p->begin,
               (size_t)p->width * sizeof *y);
    if (count > 0)
        snrq_sgemm(false, false, SNRQ_TILE_ROWS, p->width, count, 1.0f,
                   errors + row * r->columns + decided, r->columns, p->u + p->width * SNRQ_BLOCK,
                   SNRQ_BLOCK, 1.0f, y, SNRQ_BLOCK);
}

/* Greedy over one panel of one row; y [width] is used up. errors [columns] of this row receives R -
 * Q. */
static void greedy_panel(const snrq_rows *r, int64_t row, const snrq_panel *p,
                         snrq_rounding rounding, float *y, float *errors, uint8_t *codes,
                         double *cost)
{
    int top = (1 << r->bits) - 1;
    const float *target = r->target + row * r->columns,
                *scales = r->scales + row * r->groups->count;
    const uint8_t *zeros = r->zeros + row * r->groups->count;
    for (int64_t c = p->width - 1; c >= 0; c--) {
        int64_t k = p->begin + c;
        int32_t g = r->groups->of_position[k];
        float wanted = rounding == SNRQ_ROUND_NEAREST ? target[k] : y[c];
        int code = snrq_nearest_code(wanted, scales[g], zeros[g], top);
        float value = scales[g] * (float)(code - zeros[g]);
        double miss = (double)(y[c] - value);
        float error = target[k] - value;
        const float *u = p->u + c * SNRQ_BLOCK;
        for (int64_t i = 0; i < c; i++) y[i] += error * u[i];
        codes[k] = (uint8_t)code;
        errors[k] = error;
        *cost += p->d2[c] * miss * miss;
    }
}

/* State of all rows of a rank between panels. */
typedef struct search_state {
    snrq_rounding rounding;
    int beam;
    float *greedy_errors; /* [rows, columns] */
    snrq_beam_row *beams; /* [rows] or NULL */
    float *beam_errors;   /* [rows, columns] of the first beam, or NULL */
} search_state;

static snrq_status search_tile(const snrq_rows *r, int64_t row, const snrq_panel *p,
                               search_state *s, snrq_beam_scratch *scratch)
{
    float y[SNRQ_TILE_ROWS * SNRQ_BLOCK];
    bring_in_decided(r, row, p, s->greedy_errors, y);
    for (int64_t i = row; i < row + SNRQ_TILE_ROWS; i++)
        greedy_panel(r, i, p, s->rounding, y + (i - row) * SNRQ_BLOCK,
                     s->greedy_errors + i * r->columns, r->codes + i * r->columns, &r->costs[i]);
    if (s->beams == NULL) return SNRQ_OK;
    bring_in_decided(r, row, p, s->beam_errors, y);
    for (int64_t i = row; i < row + SNRQ_TILE_ROWS; i++)
        SNRQ_TRY(snrq_beam_panel(r, i, p, y + (i - row) * SNRQ_BLOCK,
                                 s->beam_errors + i * r->columns, &s->beams[i], scratch));
    return SNRQ_OK;
}

/* All tiles of this rank for one panel, as OpenMP tasks. */
static snrq_status search_panel(const snrq_rows *r, const snrq_panel *p, search_state *s)
{
    snrq_status worst = SNRQ_OK;
#pragma omp parallel
    {
        snrq_beam_scratch scratch = {0};
        snrq_status status =
            s->beams != NULL ? snrq_beam_scratch_create(s->beam, &scratch) : SNRQ_OK;
#pragma omp for schedule(dynamic)
        for (int64_t row = 0; row < r->rows; row += SNRQ_TILE_ROWS)
            if (status == SNRQ_OK) status = search_tile(r, row, p, s, &scratch);
#pragma omp critical
        if (status != SNRQ_OK) worst = status;
        snrq_beam_scratch_free(&scratch);
    }
    if (worst != SNRQ_OK) return snrq_fail(worst, "beam search: out of memory");
    return SNRQ_OK;
}

static snrq_status create_state(const snrq_rows *r, snrq_rounding rounding, int beam,
                                search_state *s)
{
    size_t cells = (size_t)(r->rows * r->columns);
    *s = (search_state){.rounding = rounding, .beam = beam};
    SNRQ_TRY(snrq_allocate(cells, sizeof(float), "rounding errors", &s->greedy_errors));
    if (beam == 1 || rounding == SNRQ_ROUND_NEAREST) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate(cells, sizeof(float), "rounding errors", &s->beam_errors));
    SNRQ_TRY(snrq_allocate((size_t)r->rows, sizeof *s->beams, "beams", &s->beams));
    for (int64_t i = 0; i < r->rows; i++)
        SNRQ_TRY(snrq_beam_row_create(beam, r->columns, &s->beams[i]));
    return SNRQ_OK;
}

static void free_state(const snrq_rows *r, search_state *s)
{
    for (int64_t i = 0; i < r->rows && s->beams != NULL; i++) snrq_beam_row_free(&s->beams[i]);
    free(s->beams);
    free(s->beam_errors);
    free(s->greedy_errors);
}

snrq_status snrq_search(const snrq_matrix *l, snrq_rounding rounding, int beam, snrq_rows *rows)
{
    const snrq_context *context = l->grid->context;
    search_state state = {0};
    snrq_panel panel = {0};
    double *buffer = NULL;
    size_t panel_cells = (size_t)l->columns * SNRQ_BLOCK;
    snrq_status status = create_state(rows, rounding, beam, &state);
    if (status == SNRQ_OK)
        status = snrq_allocate(panel_cells, sizeof *panel.u, "panel of L", &panel.u);
    if (status == SNRQ_OK)
        status = snrq_allocate(panel_cells, sizeof *buffer, "panel of L", &buffer);
    status = snrq_agree(context, status);

    memset(rows->costs, 0, (size_t)rows->rows * sizeof *rows->costs);
    for (int64_t begin = (l->columns - 1) / SNRQ_BLOCK * SNRQ_BLOCK;
         status == SNRQ_OK && begin >= 0; begin -= SNRQ_BLOCK) {
        int64_t width = l->columns - begin < SNRQ_BLOCK ? l->columns - begin : SNRQ_BLOCK;
        status = load_panel(l, begin, width, buffer, &panel);
        if (status == SNRQ_OK) status = snrq_agree(context, search_panel(rows, &panel, &state));
    }
    for (int64_t i = 0; status == SNRQ_OK && state.beams != NULL && i < rows->rows; i++)
        snrq_beam_finish(&state.beams[i], rows->codes + i * rows->columns, &rows->costs[i]);
    free(buffer);
    free(panel.u);
    free_state(rows, &state);
    return status;
}
