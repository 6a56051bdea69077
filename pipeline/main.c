/* The command line program: starts MPI, runs one command, ends with its status as exit code. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "io/hdf5/start.h"
#include "io/standard_streams.h"
#include "mpi/algebra/blas.h"
#include "mpi/context.h"
#include "mpi/lone_failure.h"
#include "mpi/stop.h"
#include "pipeline/evaluate.h"
#include "pipeline/export.h"
#include "pipeline/inspect.h"
#include "pipeline/options.h"
#include "pipeline/quantize.h"
#include "pipeline/round.h"
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
    case SNRQ_COMMAND_EVALUATE:
        return snrq_evaluate(context, options);
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
        break; /* in main(): it works without MPI */
    }
    return snrq_fail(SNRQ_INTERNAL, "no command");
}

static snrq_status parse_and_run(const snrq_context *context, int argc, char **argv)
{
    snrq_options options;
    char *help = NULL;
    snrq_status status = snrq_options_parse(argc, argv, &options, &help);
    /* Every rank has the same argv, but reads the file for itself. */
    if (options.options_file != NULL) status = snrq_agree(context, status);
    if (help != NULL && status == SNRQ_OK)
        status = snrq_agree(context, context->rank == 0 ? snrq_print(help) : SNRQ_OK);
    else if (help != NULL && context->rank == 0)
        fputs(help, stderr);
    if (help == NULL && status == SNRQ_OK) {
        if (options.command != SNRQ_COMMAND_QUANTIZE) snrq_stop_ignore();
        set_threads(context, &options);
        status = run_command(context, &options);
    }
    free(help);
    snrq_options_free(&options);
    return status;
}

/* Large arrays, the activations above all, go back to the system when they are freed; with glibc's
 * moving threshold they would leave holes that the peak shows. Smaller ones are kept for the next.
 */
static void settle_memory(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 2 << 20);
    mallopt(M_TRIM_THRESHOLD, 32 << 20);
#endif
}

/* The one command that must not need MPI, which a login node may not have. */
static bool is_status_command(int argc, char **argv, snrq_status *status)
{
    snrq_options options;
    char *help = NULL;
    *status = snrq_options_parse(argc, argv, &options, &help);
    bool found = *status == SNRQ_OK && help == NULL && options.command == SNRQ_COMMAND_STATUS;
    free(help);
    if (found) *status = snrq_job_status(&options);
    if (found && *status != SNRQ_OK) fprintf(stderr, "snrq: %s\n", snrq_error_message());
    snrq_options_free(&options);
    return found;
}

int main(int argc, char **argv)
{
    int provided = 0, rank = 0;
    snrq_context *context = NULL;
    snrq_status status = SNRQ_OK;
    snrq_standard_streams_start();
    if (is_status_command(argc, argv, &status)) return (int)status;
    snrq_stop_listen();
    settle_memory();
    status = snrq_hdf5_start();
    if (status != SNRQ_OK) {
        fprintf(stderr, "snrq: %s\n", snrq_error_message());
        return (int)status;
    }
    if (MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        fputs("snrq: MPI could not be started\n", stderr);
        return SNRQ_INTERNAL;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    snrq_lone_failure_listen(rank, LONE_SECONDS);
    status = snrq_context_create(MPI_COMM_WORLD, &context);
    if (status == SNRQ_OK) status = parse_and_run(context, argc, argv);
    if (status != SNRQ_OK && status != SNRQ_STOPPED) snrq_lone_failure_begin(status);
    if (status != SNRQ_OK && (context == NULL || context->rank == 0))
        fprintf(stderr, "snrq: %s\n", snrq_error_message());
    snrq_context_destroy(&context);
    MPI_Finalize();
    snrq_lone_failure_end();
    return (int)status;
}
