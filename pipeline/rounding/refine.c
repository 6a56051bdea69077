/* Coordinate descent after the search; see search.h. G = (R - Q) H, so that the step of column j is
 * G_j / H_jj. */
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/blas.h"
#include "pipeline/rounding/search.h"

/* A column panel of H in fp32, row-major. */
typedef struct gram_panel {
    int64_t begin, width;
    float *h; /* [columns, SNRQ_PANEL] */
} gram_panel;

static snrq_status load_panel(const snrq_matrix *h, int64_t begin, int64_t width, double *buffer,
                              gram_panel *panel)
{
    SNRQ_TRY(snrq_matrix_broadcast_panel(h, begin, width, 0, buffer));
    panel->begin = begin;
    panel->width = width;
    for (int64_t c = 0; c < width; c++)
        for (int64_t i = 0; i < h->rows; i++)
            panel->h[i * SNRQ_PANEL + c] = (float)buffer[c * h->rows + i];
    return SNRQ_OK;
}

/* One panel of one row; g [width] is used up. Returns how many codes changed. */
static int64_t descend(snrq_rows *r, int64_t row, const gram_panel *p, float *g, float *errors)
{
    int top = (1 << r->bits) - 1;
    int64_t changed = 0;
    const float *scales = r->scales + row * r->groups->count;
    const uint8_t *zeros = r->zeros + row * r->groups->count;
    uint8_t *codes = r->codes + row * r->columns;
    for (int64_t c = p->width - 1; c >= 0; c--) {
        int64_t k = p->begin + c;
        int32_t group = r->groups->of_position[k];
        const float *h = p->h + k * SNRQ_PANEL;
        float value = scales[group] * (float)(codes[k] - zeros[group]);
        int code = snrq_nearest_code(value + g[c] / h[c], scales[group], zeros[group], top);
        float step = scales[group] * (float)(code - codes[k]);
        /* tr((Q - R) H (Q - R)^T) changes by -2 step G_j + step^2 H_jj. */
        double change = (double)step * ((double)step * (double)h[c] - 2.0 * (double)g[c]);
        if (code == codes[k] || !(change < 0.0)) continue;
        for (int64_t i = 0; i < p->width; i++) g[i] -= step * h[i];
        codes[k] = (uint8_t)code;
        errors[k] -= step;
        r->costs[row] += change;
        changed++;
    }
    return changed;
}

static int64_t refine_panel(snrq_rows *r, const gram_panel *p, float *errors)
{
    int64_t changed = 0;
#pragma omp parallel for schedule(dynamic) reduction(+ : changed)
    for (int64_t row = 0; row < r->rows; row += SNRQ_TILE_ROWS) {
        float g[SNRQ_TILE_ROWS * SNRQ_PANEL];
        snrq_sgemm(false, false, SNRQ_TILE_ROWS, p->width, r->columns, 1.0f,
                   errors + row * r->columns, r->columns, p->h, SNRQ_PANEL, 0.0f, g, SNRQ_PANEL);
        for (int64_t i = 0; i < SNRQ_TILE_ROWS; i++)
            changed += descend(r, row + i, p, g + i * SNRQ_PANEL, errors + (row + i) * r->columns);
    }
    return changed;
}

snrq_status snrq_refine(const snrq_matrix *h, int64_t passes, snrq_rows *rows)
{
    const snrq_context *context = h->grid->context;
    size_t cells = (size_t)(rows->rows * rows->columns), panel_cells = (size_t)h->rows * SNRQ_PANEL;
    float *errors = NULL;
    double *buffer = NULL;
    gram_panel panel = {0};
    if (passes == 0) return SNRQ_OK;
    snrq_status status = snrq_allocate(cells, sizeof *errors, "rounding errors", &errors);
    if (status == SNRQ_OK)
        status = snrq_allocate(panel_cells, sizeof *buffer, "panel of H", &buffer);
    if (status == SNRQ_OK)
        status = snrq_allocate(panel_cells, sizeof *panel.h, "panel of H", &panel.h);
    status = snrq_agree(context, status);
    for (int64_t i = 0; status == SNRQ_OK && i < rows->rows; i++)
        for (int64_t k = 0; k < rows->columns; k++)
            errors[i * rows->columns + k] =
                rows->target[i * rows->columns + k] - snrq_rows_value(rows, i, k);

    for (int64_t pass = 0, changed = 1; status == SNRQ_OK && pass < passes && changed > 0; pass++) {
        changed = 0;
        for (int64_t begin = (h->rows - 1) / SNRQ_PANEL * SNRQ_PANEL;
             status == SNRQ_OK && begin >= 0; begin -= SNRQ_PANEL) {
            int64_t width = h->rows - begin < SNRQ_PANEL ? h->rows - begin : SNRQ_PANEL;
            status = load_panel(h, begin, width, buffer, &panel);
            if (status == SNRQ_OK) changed += refine_panel(rows, &panel, errors);
        }
        if (status == SNRQ_OK) status = snrq_sum_int64(context, &changed, 1);
    }
    free(panel.h);
    free(buffer);
    free(errors);
    return status;
}
