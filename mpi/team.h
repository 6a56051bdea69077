/* Teams: some of the ranks of a context, which take over what all of it have gathered.
 *
 * Where there are several things of a kind to be worked on, experts of a block say, the ranks of a
 * context are dealt to teams: neighbours, as many in each as nearly as possible. Teams work at the
 * same time. What a team works with is sent to its ranks alone, and what comes of it to all ranks.
 */
#ifndef SNRQ_TEAM_H
#define SNRQ_TEAM_H

#include <stdbool.h>

#include "mpi/context.h"

/* A team as all ranks of the whole see it. */
typedef struct snrq_team {
    const snrq_context *context; /* of its ranks; NULL on a rank of another team. Borrowed */
    int first, size;             /* its ranks in the whole: [first, first + size) */
} snrq_team;

/* A context dealt to teams. Zeros: to none. */
typedef struct snrq_teams {
    int count;
    const snrq_context *whole; /* borrowed */
    int mine;                  /* this rank's team */
    snrq_context *own;         /* of its ranks; owned; NULL with one team, whose ranks are all */
} snrq_teams;

/* Deals the ranks of `whole` to `count` teams, 1 <= count <= its ranks; nothing is done where they
 * are dealt so. Collective over `whole`; agreed. */
snrq_status snrq_teams_deal(const snrq_context *whole, int count, snrq_teams *teams);
void snrq_teams_free(snrq_teams *teams);

/* Team `index`. Not collective. */
snrq_team snrq_teams_at(const snrq_teams *teams, int index);

/* All ranks of a context as its only team. Not collective. */
snrq_team snrq_team_of_all(const snrq_context *whole);

/* Has the team all ranks of the whole? Not collective. */
bool snrq_team_is_whole(const snrq_context *whole, const snrq_team *team);

#endif
