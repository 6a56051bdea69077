/* Who looks after long work; see watch.h. */
#include "mpi/watch.h"

void snrq_watch_enter(const snrq_watch *w, int phase)
{
    if (w != NULL) snrq_timers_enter(w->timers, phase);
}

void snrq_watch_go_on(const snrq_watch *w)
{
    if (w != NULL) snrq_timers_enter(w->timers, w->timers->running);
}

snrq_status snrq_watch_check(const snrq_context *c, const snrq_watch *w)
{
    snrq_watch_go_on(w);
    return w != NULL ? snrq_stop_check(c, w->stop) : SNRQ_OK;
}
