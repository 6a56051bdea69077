/* Linear modules; see linear.h. */
#include "pipeline/linear.h"

#include <omp.h>
#include <stdlib.h>

#include "mpi/blas.h"

enum { PANEL_ROWS = 128 };

static void widen_quantized(const snrq_weight *w, int64_t row, float *out)
{
    const uint8_t *codes = w->codes + row * w->columns;
    const float *scales = w->scales + row * w->groups;
    const uint8_t *zeros = w->zeros + row * w->groups;
    for (int64_t c = 0; c < w->columns; c++) {
        int32_t g = w->g_idx[c];
        out[c] = scales[g] * (float)(codes[c] - zeros[g]);
    }
}

void snrq_weight_widen(const snrq_weight *w, int64_t row, int64_t count, float *out)
{
    if (w->dense != NULL) {
        size_t size = snrq_dtype_size(w->dtype);
        snrq_widen(w->dtype, w->dense + (size_t)(row * w->columns) * size,
                   (size_t)(count * w->columns), out);
        return;
    }
    for (int64_t r = 0; r < count; r++) widen_quantized(w, row + r, out + r * w->columns);
}

snrq_status snrq_linear_apply(const snrq_weight *w, const float *x, int64_t sequences,
                              int64_t tokens, float *y, int64_t stride)
{
    int64_t panels = (w->rows + PANEL_ROWS - 1) / PANEL_ROWS;
    int threads = omp_get_max_threads();
    size_t panel_floats = (size_t)(PANEL_ROWS * w->columns);
    float *scratch = NULL;
    SNRQ_TRY(
        snrq_allocate((size_t)threads * panel_floats, sizeof *scratch, "weight panels", &scratch));
#pragma omp parallel
    {
        float *panel = scratch + (size_t)omp_get_thread_num() * panel_floats;
        int64_t widened = -1;
        /* Units run panel by panel, so that a thread widens a panel once for its run of sequences.
         */
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < panels * sequences; unit++) {
            int64_t p = unit / sequences, s = unit % sequences;
            int64_t row = p * PANEL_ROWS;
            int64_t rows = w->rows - row < PANEL_ROWS ? w->rows - row : PANEL_ROWS;
            if (widened != p) snrq_weight_widen(w, row, rows, panel);
            widened = p;
            snrq_sgemm(false, true, tokens, rows, w->columns, 1.0f, x + s * tokens * w->columns,
                       w->columns, panel, w->columns, 0.0f, y + s * tokens * stride + row, stride);
        }
    }
    free(scratch);
    return SNRQ_OK;
}
