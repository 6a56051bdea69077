/* The files of an assessment: assessment.json, and assessment.txt with the worst first.
 */
#ifndef SNRQ_ASSESS_SUMMARY_H
#define SNRQ_ASSESS_SUMMARY_H

#include <jansson.h>
#include <stdbool.h>

#include "mpi/status.h"

/* Adds "ranking" to `whole` (blocks by what each costs alone, the worst first), writes both files
 * to `directory`, and if it `tells` pictures, and the text to standard output. Not collective. */
snrq_status snrq_assess_write(const char *directory, json_t *whole, bool tells);

#endif
