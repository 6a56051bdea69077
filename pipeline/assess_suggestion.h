/* What an assessment suggests.
 */
#ifndef SNRQ_ASSESS_SUGGESTION_H
#define SNRQ_ASSESS_SUGGESTION_H

#include "pipeline/assessment.h"

/* Writes recipe.json, {"rules"}, for `quantize --recipe`: the choices within as many bytes as the
 * usual width has in groups of --group-size. *recipe <- {"bits_per_weight", "kl", "bytes"}, bytes
 * of the modules; a new reference. `whole` is what assessment.json will hold. Not collective. */
snrq_status snrq_assess_suggest(const snrq_assessment *assessment, const json_t *whole,
                                json_t **recipe);

/* Bytes of all weights, in memory when they are served: of the model, of each width everywhere, and
 * of the recipe; a new reference. SNRQ_BAD_DATA if a tensor is not there. Not collective. */
snrq_status snrq_assess_sizes(const snrq_assessment *assessment, const json_t *recipe,
                              json_t **sizes);

/* Tells of recipe and sizes. */
void snrq_assess_tell(const snrq_assessment *assessment, const json_t *sizes);

#endif
