/* What a step can be rounded to: widths, and sizes of groups; or formats.
 */
#ifndef SNRQ_ASSESS_CHOICES_H
#define SNRQ_ASSESS_CHOICES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "pipeline/rounding/rule.h"

enum { SNRQ_MOST_WIDTHS = 7, SNRQ_MOST_SIZES = 4 };

/* Any width goes with any size; a format has its own ones. A choice is a number, width * sizes +
 * size; behind them are the formats. */
typedef struct snrq_choices {
    int widths, bits[SNRQ_MOST_WIDTHS]; /* growing */
    int sizes;
    int64_t group_size[SNRQ_MOST_SIZES]; /* the first is --group-size; 0: whole rows */
    int usual; /* of the widths: divergences are measured with it, and --group-size */
    int formats;
    const snrq_weight_format *format[SNRQ_WEIGHT_FORMATS];
} snrq_choices;

/* From --widths ("2,3,4,8": 2 to 8, growing), --group-sizes and --group-size. SNRQ_USAGE if they
 * are no such texts. Not collective. */
snrq_status snrq_choices_parse(const char *widths, const char *group_sizes, int64_t group_size,
                               snrq_choices *out);

/* Adds those of --formats ("q3_k,q4_k"; NULL: none). SNRQ_USAGE if it has other names, or one
 * twice. Not collective. */
snrq_status snrq_choices_add_formats(const char *formats, snrq_choices *choices);

int snrq_choices_count(const snrq_choices *choices);

/* Makes a rule for rows of so many columns that of a choice; of formats that have no whole blocks
 * there, see snrq_choices_unfit(). */
void snrq_choice_set(const snrq_choices *choices, int choice, int64_t columns, snrq_rule *rule);

/* {"bits", "group_size"}, and of a format its name, "format". New reference. */
json_t *snrq_choice_describe(const snrq_choices *choices, int choice);

/* The first of the formats that rows of so many columns cannot have; NULL: they can have all. */
const snrq_weight_format *snrq_choices_unfit(const snrq_choices *choices, int64_t columns);

/* Sizes other than --group-size (`usual`) are for rows that are whole groups of them. */
bool snrq_group_size_fits(int64_t size, int64_t usual, int64_t columns);

#endif
