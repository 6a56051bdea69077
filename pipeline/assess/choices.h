/* What a step can be rounded to: widths, and sizes of groups.
 */
#ifndef SNRQ_ASSESS_CHOICES_H
#define SNRQ_ASSESS_CHOICES_H

#include <stdbool.h>
#include <stdint.h>

#include "mpi/status.h"

enum { SNRQ_MOST_WIDTHS = 7, SNRQ_MOST_SIZES = 4 };

/* Any width goes with any size. A choice is a number, width * sizes + size. */
typedef struct snrq_choices {
    int widths, bits[SNRQ_MOST_WIDTHS]; /* growing */
    int sizes;
    int64_t group_size[SNRQ_MOST_SIZES]; /* the first is --group-size; 0: whole rows */
    int usual; /* of the widths: divergences are measured with it, and --group-size */
} snrq_choices;

/* From --widths ("2,3,4,8": 2 to 8, growing), --group-sizes and --group-size. SNRQ_USAGE if they
 * are no such texts. Not collective. */
snrq_status snrq_choices_parse(const char *widths, const char *group_sizes, int64_t group_size,
                               snrq_choices *out);

/* Sizes other than --group-size (`usual`) are for rows that are whole groups of them. */
bool snrq_group_size_fits(int64_t size, int64_t usual, int64_t columns);

#endif
