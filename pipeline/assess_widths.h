/* A unit rounded at several widths, all from one H.
 */
#ifndef SNRQ_ASSESS_WIDTHS_H
#define SNRQ_ASSESS_WIDTHS_H

#include <jansson.h>

#include "pipeline/unit.h"

enum { SNRQ_MOST_WIDTHS = 7 };

typedef struct snrq_widths {
    int count, bits[SNRQ_MOST_WIDTHS]; /* growing */
} snrq_widths;

/* "2,3,4,8", 2 to 8, growing. False if it is no such text. */
bool snrq_widths_parse(const char *text, snrq_widths *out);

/* The unit whose modules are rounded. All borrowed. */
typedef struct snrq_assess_unit {
    const snrq_context *context;
    const snrq_widths *widths;
    const snrq_rule *rule; /* of the method, for any width */
    const snrq_loaded_block *full;
    const snrq_loaded_block *quantized; /* [widths] that get the codes */
    int64_t layer;
    int unit;
} snrq_assess_unit;

/* Rounds the modules of a unit with the statistics of their input, which are used up. *modules is a
 * list with an object for each, *inputs an object about the input; new references. Collective;
 * agreed. */
snrq_status snrq_assess_widths(const snrq_assess_unit *unit, snrq_statistics *statistics,
                               json_t **modules, json_t **inputs);

#endif
