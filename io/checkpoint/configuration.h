/* Is a run the one that was started here before? */
#ifndef SNRQ_CONFIGURATION_H
#define SNRQ_CONFIGURATION_H

#include <jansson.h>

#include "mpi/status.h"

/* Compares the configuration of a run begun earlier with that of this one, key by key. SNRQ_USAGE
 * names up to three keys that differ, with both values: "options.bits: the unfinished run has 3,
 * this one 4". A key that follows from others and came later (calibration.distinct_positions) may
 * be absent before. `run` is what the old one is called ("unfinished run"); `path` its
 * configuration file. */
snrq_status snrq_configuration_compare(const char *path, const char *run, const json_t *before,
                                       const json_t *now);

#endif
