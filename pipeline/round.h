/* Rounding one layer from files: for tests, benchmarks and research. */
#ifndef SNRQ_ROUND_H
#define SNRQ_ROUND_H

#include "mpi/context.h"
#include "pipeline/options/options.h"

/* `snrq round CASE.safetensors -o RESULT.safetensors`: CASE holds W [m, n], H, and where the method
 * needs them D and E [n, n], undamped, in original column order (float32). RESULT gets codes u8 [m,
 * n], scales f32 [m, groups], zeros i32 [m, groups] and g_idx i32 [n], original column order; with
 * a --format that has minima, minima f32 [m, groups], too (docs/format.md says what codes mean).
 * Collective; agreed; the same bytes on any number of ranks. */
snrq_status snrq_round(const snrq_context *context, const snrq_options *options);

#endif
