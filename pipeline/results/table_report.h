/* The report of a table of runs. */
#ifndef SNRQ_TABLE_REPORT_H
#define SNRQ_TABLE_REPORT_H

#include "pipeline/results/document.h"
#include "pipeline/results/outcome.h"

/* Makes tables and pictures of what is there: quality beside what was published, cost, what is
 * missing, which options differ between rows; quality against options and seconds; rows by layer.
 * The caller frees *out in any case. */
snrq_status snrq_table_report(const snrq_outcome *outcome, snrq_document *out);

/* The pictures of it, for table_report.c. */
void snrq_table_pictures(const snrq_outcome *outcome, snrq_document *out);

#endif
