/* What `snrq assess` costs: memory and time.
 */
#ifndef SNRQ_ASSESS_COST_H
#define SNRQ_ASSESS_COST_H

#include "pipeline/cost.h"

/* Windows that are judged, and choices, as a plan takes them: those of the defaults. */
enum { SNRQ_PLANNED_JUDGED = 8, SNRQ_PLANNED_CHOICES = 12 };

/* Bytes of a rank beside those of a quantization: the judged windows in each step's variant, and
 * what enters a block. Not collective. */
double snrq_assess_rank_bytes(const snrq_model *model, const snrq_windows *windows, int ranks);

/* Seconds, without the models of one width: two quantizations; for each choice H factorized twice,
 * and a search of one beam; and each block's variants through the blocks behind it. Not collective.
 */
double snrq_assess_seconds(const snrq_cost *quantization, const snrq_rules *rules,
                           const snrq_model *model, const snrq_windows *windows);

#endif
