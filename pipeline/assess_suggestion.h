/* What an assessment suggests.
 */
#ifndef SNRQ_ASSESS_SUGGESTION_H
#define SNRQ_ASSESS_SUGGESTION_H

#include "pipeline/assessment.h"

/* Writes recipe.json, {"rules"}, for `quantize --recipe`: the choices within as many bytes as the
 * usual width has in groups of --group-size; and tells of it. assessment.json must be there. Not
 * collective. */
snrq_status snrq_assess_suggest(const snrq_assessment *assessment);

#endif
