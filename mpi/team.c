/* Teams of ranks; see team.h. */
#include "mpi/team.h"

#include "mpi/collective.h"

static snrq_range ranks_of(const snrq_context *whole, int count, int index)
{
    return snrq_share(whole->size, 1, count, index);
}

snrq_status snrq_teams_deal(const snrq_context *whole, int count, snrq_teams *t)
{
    if (t->count == count && t->whole == whole) return SNRQ_OK;
    snrq_teams_free(t);
    *t = (snrq_teams){.count = count, .whole = whole};
    if (count == 1) return SNRQ_OK;
    while (ranks_of(whole, count, t->mine).end <= whole->rank) t->mine++;
    return snrq_context_split(whole, t->mine, &t->own);
}

void snrq_teams_free(snrq_teams *t)
{
    if (t->own != NULL) snrq_context_destroy(&t->own);
    *t = (snrq_teams){0};
}

snrq_team snrq_teams_at(const snrq_teams *t, int index)
{
    if (t->count == 1) return snrq_team_of_all(t->whole);
    snrq_range ranks = ranks_of(t->whole, t->count, index);
    return (snrq_team){.context = index == t->mine ? t->own : NULL,
                       .first = (int)ranks.begin,
                       .size = (int)(ranks.end - ranks.begin)};
}

snrq_team snrq_team_of_all(const snrq_context *whole)
{
    return (snrq_team){.context = whole, .size = whole->size};
}

bool snrq_team_is_whole(const snrq_context *whole, const snrq_team *team)
{
    return team->size == whole->size;
}
