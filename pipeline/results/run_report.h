/* The report of one run. */
#ifndef SNRQ_RUN_REPORT_H
#define SNRQ_RUN_REPORT_H

#include "pipeline/results/document.h"
#include "pipeline/results/run.h"

/* Makes tables and pictures of a run: settings; quality by kind of module and by layer; what
 * rounding took; where the time went. The caller frees *out in any case. */
snrq_status snrq_run_report(const snrq_run *run, snrq_document *out);

#endif
