/* The options of a run as its snrq.json holds them: what is done to this model, and when two runs
 * do the same. */
#ifndef SNRQ_SETTINGS_H
#define SNRQ_SETTINGS_H

#include <jansson.h>

#include "pipeline/model/family.h"

/* Gives options (of snrq_options_stored(); changed) the values that they have for a model and its
 * calibration ({"sequences", "length"}): the number and length of the windows there are, "channel"
 * for groups as wide as every module's input, no process grid where the one that was given is the
 * one there is. Not collective; SNRQ_INTERNAL without memory. */
snrq_status snrq_settings_resolve(json_t *options, const json_t *calibration, int64_t columns);

/* Gives the options of `now` the form that they have in `before`, the configuration of a run begun
 * earlier, wherever that means the same: written otherwise ("fixed:.5"), or stored by an earlier
 * version though it had no effect. What still differs does so in what is done. Both are whole
 * configurations, `now` with resolved options (changed). A `before` that cannot be understood
 * changes nothing. Not collective; SNRQ_INTERNAL without memory. */
snrq_status snrq_settings_adopt(json_t *now, const json_t *before, int64_t columns);

#endif
