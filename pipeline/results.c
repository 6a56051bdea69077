/* report; see results.h. */
#include "pipeline/results.h"

#include <limits.h>
#include <stdio.h>

#include "io/directory.h"
#include "io/file.h"
#include "io/standard_streams.h"
#include "mpi/collective.h"
#include "mpi/log.h"
#include "pipeline/results/run_report.h"
#include "pipeline/results/table_report.h"

static snrq_status report_run(const char *path, snrq_document *out)
{
    snrq_run run;
    snrq_status status = snrq_run_read(path, &run);
    if (status == SNRQ_OK) status = snrq_run_report(&run, out);
    snrq_run_free(&run);
    return status;
}

static snrq_status report_table(const char *root, snrq_document *out)
{
    char path[PATH_MAX];
    snrq_experiment experiment = {0};
    snrq_outcome outcome = {0};
    SNRQ_TRY(snrq_path_join(root, "table.json", path, sizeof path));
    snrq_status status = snrq_experiment_read(path, &experiment);
    if (status == SNRQ_OK) status = snrq_outcome_read(root, &experiment, &outcome);
    if (status == SNRQ_OK) status = snrq_table_report(&outcome, out);
    snrq_outcome_free(&outcome);
    snrq_experiment_free(&experiment);
    return status;
}

static snrq_status make_document(const char *path, snrq_document *out)
{
    if (snrq_output_is(path)) return report_run(path, out);
    if (snrq_is_plain_file(path, "table.json")) return report_table(path, out);
    return snrq_fail(SNRQ_NO_INPUT,
                     "%s: expected the output of `snrq quantize` (snrq.json) or of `snrq runs` "
                     "(table.json)",
                     path);
}

/* Files in the directory of a run belong to the run. */
static snrq_status write_files(const snrq_options *o, const snrq_document *document)
{
    bool drawn = true;
    char why[160] = "";
    if (o->output == NULL) return SNRQ_OK;
    if (snrq_output_is(o->output))
        return snrq_fail(SNRQ_USAGE,
                         "report: -o %s is the output of `snrq quantize`; name another directory",
                         o->output);
    SNRQ_TRY(snrq_document_write(document, o->output, &drawn, why));
    if (!drawn) fprintf(stderr, "%s\n", why);
    printf("\n%s/report.html and the files beside it hold this with all tables%s\n", o->output,
           drawn ? " and pictures" : "");
    return SNRQ_OK;
}

static snrq_status report(const snrq_options *o)
{
    snrq_document document = {0};
    snrq_status status = make_document(o->path, &document);
    if (status == SNRQ_OK) status = snrq_document_print(&document, stdout);
    if (status == SNRQ_OK) status = write_files(o, &document);
    if (status == SNRQ_OK) status = snrq_print_end(stdout);
    snrq_document_free(&document);
    return status;
}

snrq_status snrq_report(const snrq_context *context, const snrq_options *o)
{
    return snrq_agree(context, context->rank == 0 ? report(o) : SNRQ_OK);
}
