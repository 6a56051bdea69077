/* Phase timers; see timers.h. */
#include "mpi/timers.h"

#include <string.h>
#include <sys/resource.h>
#include <time.h>

double snrq_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* not MPI's clock: not every command starts MPI */
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void snrq_timers_reset(snrq_timers *t, int phases)
{
    memset(t, 0, sizeof *t);
    t->phases = phases;
    t->running = -1;
    t->created = snrq_now();
}

/* Does nothing where no tool looks at MPI calls. */
static void tell_tools(int phase)
{
    int started = 0;
    MPI_Initialized(&started); /* not by every command */
    if (started) MPI_Pcontrol(SNRQ_PHASE_LEVEL + 1 + phase);
}

void snrq_timers_enter(snrq_timers *t, int phase)
{
    tell_tools(phase);
    double now = snrq_now();
    if (t->running >= 0) t->seconds[t->running] += now - t->started;
    t->running = phase;
    t->entered++;
    t->started = now;
}

snrq_status snrq_timers_report(const snrq_context *c, const snrq_timers *t,
                               snrq_phase_report *report, double *total)
{
    struct {
        double seconds;
        int rank;
    } mine[SNRQ_MAX_PHASES + 1], most[SNRQ_MAX_PHASES + 1];
    double row[SNRQ_MAX_PHASES + 2], least[SNRQ_MAX_PHASES + 2], sum[SNRQ_MAX_PHASES + 2];
    int rows = t->phases + 1;
    row[t->phases] = row[t->phases + 1] = snrq_now() - t->created;
    for (int i = 0; i < t->phases; i++) {
        row[i] = t->seconds[i];
        row[t->phases] -= t->seconds[i];
    }
    for (int i = 0; i < rows; i++) {
        mine[i].seconds = row[i];
        mine[i].rank = c->rank;
    }
    SNRQ_TRY(snrq_call_check(c, SNRQ_HERE, "reports %d timers", rows));
    SNRQ_TRY(snrq_mpi_check(MPI_Allreduce(mine, most, rows, MPI_DOUBLE_INT, MPI_MAXLOC, c->comm),
                            "MPI_Allreduce"));
    SNRQ_TRY(snrq_mpi_check(MPI_Allreduce(row, least, rows, MPI_DOUBLE, MPI_MIN, c->comm),
                            "MPI_Allreduce"));
    SNRQ_TRY(snrq_mpi_check(MPI_Allreduce(row, sum, rows, MPI_DOUBLE, MPI_SUM, c->comm),
                            "MPI_Allreduce"));
    SNRQ_TRY(
        snrq_mpi_check(MPI_Allreduce(&row[t->phases + 1], total, 1, MPI_DOUBLE, MPI_MAX, c->comm),
                       "MPI_Allreduce"));
    for (int i = 0; i < rows; i++)
        report[i] = (snrq_phase_report){least[i], sum[i] / c->size, most[i].seconds, most[i].rank};
    return SNRQ_OK;
}

double snrq_peak_memory(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss * 1024.0;
}
