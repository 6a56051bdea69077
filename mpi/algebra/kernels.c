/* Which instructions are used; see kernels.h. */
#include "mpi/algebra/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/blas.h"
#include "mpi/collective.h"

enum { TEXT_BYTES = 128 };

const char *snrq_kernels_name(void)
{
#if defined __AVX512F__
    return "avx512";
#elif defined __AVX2__ && defined __FMA__
    return "avx2";
#else
    return "generic";
#endif
}

static bool cpu_can(void)
{
#if defined __AVX512F__
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#elif defined __AVX2__ && defined __FMA__
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return true;
#endif
}

void snrq_kernels_describe(char *out, size_t size)
{
    const char *blas = snrq_blas_kernels(), *how = "built for the CPU of one machine";
    if (strcmp(SNRQ_KERNELS_ORIGIN, "chosen") == 0)
        how = "chosen when it starts; the variable SNRQ_CPU=generic|avx2|avx512 chooses another";
    else if (strcmp(SNRQ_KERNELS_ORIGIN, "native") != 0)
        how = "built for this one";
    snprintf(out, size, "%s instructions (%s)%s%s", snrq_kernels_name(), how,
             blas[0] != '\0' ? ", BLAS kernels " : "", blas);
}

snrq_status snrq_kernels_check(void)
{
    const char *wish = getenv("SNRQ_CPU");
    if (!cpu_can())
        return snrq_fail(SNRQ_USAGE,
                         "this program was compiled for CPUs with %s instructions, which this CPU "
                         "does not have; build it here, or for all CPUs with -DSNRQ_NATIVE=OFF",
                         snrq_kernels_name());
    if (wish != NULL && wish[0] != '\0' && strcmp(wish, snrq_kernels_name()) != 0)
        return snrq_fail(SNRQ_USAGE,
                         "SNRQ_CPU is '%s', but this program has nothing but %s instructions; a "
                         "build with -DSNRQ_NATIVE=OFF can choose",
                         wish, snrq_kernels_name());
    return SNRQ_OK;
}

snrq_status snrq_kernels_compare(const snrq_context *c)
{
    char mine[TEXT_BYTES] = "", first[TEXT_BYTES];
    snprintf(mine, sizeof mine, "%s instructions, BLAS kernels %s", snrq_kernels_name(),
             snrq_blas_kernels()[0] != '\0' ? snrq_blas_kernels() : "unknown");
    memcpy(first, mine, sizeof first);
    SNRQ_TRY(snrq_broadcast(c, first, sizeof first));
    snrq_status status = SNRQ_OK;
    if (strcmp(mine, first) != 0)
        status = snrq_fail(
            SNRQ_USAGE,
            "the ranks use different instructions, and would not get the same bits: expected those "
            "of rank 0 (%s), found %s; take nodes with one kind of CPU, or set SNRQ_CPU=generic|"
            "avx2|avx512 (a build with -DSNRQ_NATIVE=OFF) and, for OpenBLAS, OPENBLAS_CORETYPE "
            "for all ranks to what all CPUs have (mpirun -x SNRQ_CPU=avx2)",
            first, mine);
    return snrq_agree(c, status);
}
