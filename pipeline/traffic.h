/* What the ranks of a group send each other for a unit, counted from the sizes of what is sent.
 *
 * Symbols as in cost.h. Everything is either added up over the ranks or sent by one of them to all.
 * How often the search goes through H and L depends on the data: as often as the rule allows, which
 * is what happens but for tiny matrices.
 */
#ifndef SNRQ_TRAFFIC_H
#define SNRQ_TRAFFIC_H

#include <stdbool.h>
#include <stdint.h>

#include "pipeline/model/family.h"
#include "pipeline/phase.h"
#include "pipeline/rounding/rule.h"

typedef struct snrq_traffic {
    double summed, sums;         /* bytes that are added up, in so many calls */
    double agreements;           /* calls that add up a few bytes, or wait */
    double sent, broadcasts;     /* bytes that go from one rank to all, in so many calls */
    double exchanged, exchanges; /* the same, from one node to all */
} snrq_traffic;

/* all, team [SNRQ_PHASES] += the traffic of a unit among all ranks, and within the team that works
 * on it; nothing where that is all ranks (teams 1). hidden: columns of C, if the unit writes to the
 * residual stream and its rule makes up for errors there, else 0. */
void snrq_traffic_of_unit(const snrq_rule *rule, const snrq_unit_shape *unit, int64_t hidden,
                          int ranks, int teams, snrq_traffic *all, snrq_traffic *team);

/* out [SNRQ_PHASES] += what a block needs besides its units. */
void snrq_traffic_of_block(snrq_traffic *out);

#endif
