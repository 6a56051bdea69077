/* The file of sensitivities that a run makes for itself: `quantize --sensitivity auto`.
 *
 * It is what `snrq sensitivity` would make of the run's calibration windows, of the first, or of
 * more of that text (snrq_sensitivity_windows()), labels by the run's seed. It lies in OUT as
 * sensitivity.h5 and is committed like any other file there: a run that is killed in the pass makes
 * it again, a later one finds it.
 */
#ifndef SNRQ_OWN_SENSITIVITY_H
#define SNRQ_OWN_SENSITIVITY_H

#include "pipeline/job.h"

#define SNRQ_OWN_SENSITIVITY "sensitivity.h5"

/* Work of the pass that a run has still to make, in multiply-adds; 0: none. */
double snrq_own_sensitivity_work(const snrq_job *job);

/* Makes the file, if this run has none, and opens it as the job's. Nothing without --sensitivity
 * auto. SNRQ_STOPPED between two blocks of the pass, what was done of it is dropped. Collective
 * over the job, before its groups begin; agreed. */
snrq_status snrq_own_sensitivity(snrq_job *job);

#endif
