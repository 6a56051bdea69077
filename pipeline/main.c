/* The command line program: starts MPI where the command needs it, runs the command, ends with its
 * status as exit code. */
#include <errno.h>
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "io/hdf5/start.h"
#include "io/standard_streams.h"
#include "mpi/algebra/blas.h"
#include "mpi/algebra/kernels.h"
#include "mpi/context.h"
#include "mpi/launcher.h"
#include "mpi/lone_failure.h"
#include "mpi/stop.h"
#include "pipeline/assess.h"
#include "pipeline/evaluate.h"
#include "pipeline/export.h"
#include "pipeline/inspect.h"
#include "pipeline/machine.h"
#include "pipeline/options/options.h"
#include "pipeline/quantize.h"
#include "pipeline/results.h"
#include "pipeline/round.h"
#include "pipeline/runs.h"
#include "pipeline/sensitivity.h"
#include "pipeline/status.h"
#include "pipeline/tokenize.h"

enum { LONE_SECONDS = 10 }; /* that a failed rank has for its way out */

/* --threads, or OMP_NUM_THREADS, or the cores this process may use shared evenly by the ranks of
 * the node. */
static void set_threads(const snrq_context *context, const snrq_options *options)
{
    int cores = omp_get_num_procs() / context->node_size;
    if (options->threads > 0)
        omp_set_num_threads((int)options->threads);
    else if (getenv("OMP_NUM_THREADS") == NULL)
        omp_set_num_threads(cores > 0 ? cores : 1);
    snrq_blas_single_thread();
}

static snrq_status run_command(const snrq_context *context, const snrq_options *options)
{
    switch (options->command) {
    case SNRQ_COMMAND_QUANTIZE:
        return snrq_quantize(context, options);
    case SNRQ_COMMAND_ASSESS:
        return snrq_assess(context, options);
    case SNRQ_COMMAND_EVALUATE:
        return snrq_evaluate(context, options);
    case SNRQ_COMMAND_SENSITIVITY:
        return snrq_sensitivity(context, options);
    case SNRQ_COMMAND_INSPECT:
        return snrq_inspect(context, options);
    case SNRQ_COMMAND_VERIFY:
        return snrq_verify(context, options);
    case SNRQ_COMMAND_EXPORT:
        return snrq_export(context, options);
    case SNRQ_COMMAND_ROUND:
        return snrq_round(context, options);
    case SNRQ_COMMAND_TOKENIZE:
        return snrq_tokenize(context, options);
    case SNRQ_COMMAND_STATUS:
        return snrq_job_status(options);
    case SNRQ_COMMAND_REPORT:
        return snrq_report(context, options);
    case SNRQ_COMMAND_RUNS:
        return snrq_runs(context, options);
    case SNRQ_COMMAND_BENCH:
        return snrq_bench(context, options);
    }
    return snrq_fail(SNRQ_INTERNAL, "no command");
}

/* Arrays of more than 8 MiB, the activations above all, go back to the system when they are freed,
 * for the peak shows the holes that they would leave: at 32 MiB a third of a small run. Smaller
 * ones are kept for the next unit: touching new pages takes a tenth of an expert's time. Without
 * this, glibc moves the threshold.
 */
static void settle_memory(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 8 << 20);
    mallopt(M_TRIM_THRESHOLD, 32 << 20);
#endif
}

/* The command, or the help that was asked for instead. */
static snrq_status run(const snrq_context *context, const snrq_options *options, const char *help,
                       snrq_status status)
{
    /* Every rank has the same argv, but reads the file of options for itself. */
    if (options->options_file != NULL) status = snrq_agree(context, status);
    if (help != NULL && status == SNRQ_OK)
        return snrq_agree(context, context->rank == 0 ? snrq_print(help) : SNRQ_OK);
    if (help != NULL && context->rank == 0) fputs(help, stderr);
    if (status != SNRQ_OK) return status;
    if (options->command != SNRQ_COMMAND_QUANTIZE) snrq_stop_ignore();
    SNRQ_TRY(snrq_kernels_compare(context));
    set_threads(context, options);
    return run_command(context, options);
}

/* What was printed last may not have been written yet. */
static snrq_status finish_printing(snrq_status status)
{
    bool failed = fflush(stdout) != 0 || ferror(stdout) != 0;
    if (!failed || status != SNRQ_OK) return status;
    return snrq_fail(SNRQ_IO_ERROR, "standard output: what was printed cannot be written: %s",
                     strerror(errno));
}

/* Commands that use one process, or as many as there are, start no MPI unless there may be more.
 * The status of a run is asked beside it, in its own job as well, and never needs others. */
static bool needs_mpi(const snrq_options *options, bool runs_command)
{
    if (!runs_command) return snrq_launcher_is_there();
    switch (options->command) {
    case SNRQ_COMMAND_QUANTIZE:
    case SNRQ_COMMAND_SENSITIVITY:
    case SNRQ_COMMAND_ASSESS:
    case SNRQ_COMMAND_EVALUATE:
    case SNRQ_COMMAND_ROUND:
    case SNRQ_COMMAND_BENCH:
        return true;
    case SNRQ_COMMAND_INSPECT:
    case SNRQ_COMMAND_VERIFY:
    case SNRQ_COMMAND_EXPORT:
    case SNRQ_COMMAND_TOKENIZE:
    case SNRQ_COMMAND_REPORT:
    case SNRQ_COMMAND_RUNS:
        return snrq_launcher_is_there();
    case SNRQ_COMMAND_STATUS:
        break;
    }
    return false;
}

static snrq_status run_alone(const snrq_options *options, const char *help, snrq_status status)
{
    snrq_context *context = NULL;
    snrq_status created = snrq_context_create_alone(&context);
    if (created == SNRQ_OK)
        status = finish_printing(run(context, options, help, status));
    else
        status = created;
    /* The answer of `status` has told the rest. */
    if (status != SNRQ_OK && snrq_error_message()[0] != '\0')
        fprintf(stderr, "snrq: %s\n", snrq_error_message());
    snrq_context_destroy(&context);
    return status;
}

static snrq_status run_with_mpi(int *argc, char ***argv, const snrq_options *options,
                                const char *help, snrq_status status)
{
    int provided = 0, rank = 0;
    snrq_context *context = NULL;
    if (!snrq_launcher_is_there()) snrq_launcher_expect_none();
    if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        fputs("snrq: MPI could not be started\n", stderr);
        return SNRQ_INTERNAL;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    snrq_lone_failure_listen(rank, LONE_SECONDS);
    snrq_status created = snrq_context_create(MPI_COMM_WORLD, &context);
    if (created == SNRQ_OK)
        status = finish_printing(run(context, options, help, status));
    else
        status = created;
    if (status != SNRQ_OK && status != SNRQ_STOPPED) snrq_lone_failure_begin(status);
    if (status != SNRQ_OK && (context == NULL || context->rank == 0))
        fprintf(stderr, "snrq: %s\n", snrq_error_message());
    snrq_context_destroy(&context);
    MPI_Finalize();
    snrq_lone_failure_end();
    return status;
}

int main(int argc, char **argv)
{
    snrq_options options;
    char *help = NULL;
    snrq_standard_streams_start();
    snrq_stop_listen();
    settle_memory();
    snrq_status started = snrq_kernels_check();
    snrq_status status = snrq_options_parse(argc, argv, &options, &help);
    bool runs_command = status == SNRQ_OK && help == NULL;
    if (started == SNRQ_OK) started = snrq_hdf5_start();
    if (started != SNRQ_OK) {
        fprintf(stderr, "snrq: %s\n", snrq_error_message());
        status = started;
    } else if (needs_mpi(&options, runs_command)) {
        status = run_with_mpi(&argc, &argv, &options, help, status);
    } else {
        status = run_alone(&options, help, status);
    }
    free(help);
    snrq_options_free(&options);
    return (int)status;
}
