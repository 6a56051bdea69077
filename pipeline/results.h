/* Reports of runs and of tables of runs. */
#ifndef SNRQ_RESULTS_H
#define SNRQ_RESULTS_H

#include "mpi/context.h"
#include "pipeline/options/options.h"

/* `snrq report OUT|ROOT [-o DIR]`: prints what is there, finished or not; with -o, writes it into
 * DIR as text, Markdown, TSV, LaTeX and one page of HTML with pictures. OUT is the directory of a
 * run, ROOT that of a table of runs (`snrq runs`). Reads only; a run may be at work. Collective;
 * agreed: rank 0 works. */
snrq_status snrq_report(const snrq_context *context, const snrq_options *options);

#endif
