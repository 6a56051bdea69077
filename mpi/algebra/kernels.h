/* The instructions that the fast loops use (lanes.h), and those of BLAS.
 *
 * A program is compiled for one set of instructions: generic, avx2 (with FMA) or avx512. A native
 * build has the one of the machine it was built on. A portable build for x86-64 is one program for
 * each set, and a small one, which is called snrq, that becomes the best of them the CPU can run.
 *
 * The last bits of a result depend on the set, and on the kernels that BLAS chooses for a CPU. So
 * the ranks of one job must have the same; a rank's program cannot be changed once it runs, so that
 * ranks that differ are refused with what to set.
 */
#ifndef SNRQ_KERNELS_H
#define SNRQ_KERNELS_H

#include "mpi/context.h"

/* "generic", "avx2" or "avx512": what this program was compiled for. Not collective. */
const char *snrq_kernels_name(void);

/* One line of text: the set of instructions, how it came to that, and BLAS's choice if it can tell.
 * Not collective. */
void snrq_kernels_describe(char *out, size_t size);

/* Call first in main(). SNRQ_USAGE if the CPU lacks the instructions, or if the environment
 * variable SNRQ_CPU names others than those of this program. Not collective. */
snrq_status snrq_kernels_check(void);

/* SNRQ_USAGE if ranks use different instructions, or BLAS has different kernels on them.
 * Collective; agreed. */
snrq_status snrq_kernels_compare(const snrq_context *context);

#endif
