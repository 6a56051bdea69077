/* Counts what a rank asks MPI for, and what its host sends meanwhile: a library for LD_PRELOAD.
 *
 * Every function below has its own name in front of MPI's, the usual way of profiling. For each of
 * them and each phase of the run (mpi/timers.h tells them by MPI_Pcontrol) it counts calls and
 * bytes: those of this rank's own arguments, whatever MPI makes of them. So the numbers depend on
 * the program alone. Calls of ScaLAPACK and HDF5 are counted, too.
 *
 * What MPI does make of them is counted by the network device SNRQ_COUNT_DEVICE, if it is set: the
 * bytes that it sent in each phase, with all headers, by all programs of the namespace.
 *
 * The payload of a sum or a broadcast among P ranks is what a rank has to send for it on the
 * average, however it is done: (P - 1) / P of its bytes, twice for a sum that all ranks get.
 *
 * At its end a rank writes SNRQ_COUNT_FILE.RANK: lines of phase, function, calls, bytes, payload.
 */
#include <mpi.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PHASES = 32, LEVEL = 100 /* SNRQ_PHASE_LEVEL of mpi/timers.h: no phase */ };

#define FUNCTIONS(F)                                                                               \
    F(Allreduce)                                                                                   \
    F(Iallreduce)                                                                                  \
    F(Reduce)                                                                                      \
    F(Ireduce)                                                                                     \
    F(Bcast)                                                                                       \
    F(Ibcast)                                                                                      \
    F(Allgather)                                                                                   \
    F(Allgatherv)                                                                                  \
    F(Barrier)                                                                                     \
    F(Ibarrier)                                                                                    \
    F(Send)                                                                                        \
    F(Isend)                                                                                       \
    F(Recv)                                                                                        \
    F(Comm_split)                                                                                  \
    F(Comm_split_type)                                                                             \
    F(Comm_dup)                                                                                    \
    F(Comm_free)                                                                                   \
    F(Win_allocate_shared)

#define NAME(f) COUNTED_##f,
typedef enum counted { FUNCTIONS(NAME) COUNTED } counted;
#define TEXT(f) #f,
static const char *const names[COUNTED] = {FUNCTIONS(TEXT)};

static uint64_t calls[PHASES][COUNTED], bytes[PHASES][COUNTED], sent[PHASES];
static double payload[PHASES][COUNTED];
static int phase; /* 0: none */
static uint64_t sent_before;

static void count(counted function, int items, MPI_Datatype type)
{
    int size = 0;
    if (items > 0) PMPI_Type_size(type, &size);
    calls[phase][function]++;
    bytes[phase][function] += (uint64_t)items * (uint64_t)size;
}

/* Among the ranks of c, `times` times. */
static void count_payload(counted function, int items, MPI_Datatype type, MPI_Comm c, double times)
{
    int ranks = 1, size = 0;
    count(function, items, type);
    PMPI_Comm_size(c, &ranks);
    if (items > 0) PMPI_Type_size(type, &size);
    payload[phase][function] += times * (ranks - 1) / ranks * items * size;
}

/* Bytes that the device has sent since the host started. */
static uint64_t read_device(void)
{
    const char *device = getenv("SNRQ_COUNT_DEVICE");
    char line[512];
    unsigned long long all = 0;
    if (device == NULL) return 0;
    FILE *f = fopen("/proc/self/net/dev", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        char *colon = strchr(line, ':'), *name = line + strspn(line, " ");
        if (colon == NULL || strncmp(name, device, strlen(device)) != 0) continue;
        if (sscanf(colon + 1, "%*u %*u %*u %*u %*u %*u %*u %*u %llu", &all) == 1) break;
    }
    if (f != NULL) fclose(f);
    return all;
}

static void end_phase(void)
{
    uint64_t all = read_device();
    sent[phase] += all - sent_before;
    sent_before = all;
}

int MPI_Pcontrol(const int level, ...)
{
    end_phase();
    if (level >= LEVEL && level < LEVEL + PHASES) phase = level - LEVEL;
    return MPI_SUCCESS;
}

int MPI_Init_thread(int *argc, char ***argv, int required, int *provided)
{
    int code = PMPI_Init_thread(argc, argv, required, provided);
    sent_before = read_device();
    return code;
}

int MPI_Finalize(void)
{
    const char *path = getenv("SNRQ_COUNT_FILE");
    char name[4096];
    int rank = 0;
    end_phase();
    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    snprintf(name, sizeof name, "%s.%d", path != NULL ? path : "messages", rank);
    FILE *f = fopen(name, "w");
    for (int p = 0; f != NULL && p < PHASES; p++) {
        for (int k = 0; k < COUNTED; k++)
            if (calls[p][k] > 0)
                fprintf(f, "%d %s %llu %llu %.1f\n", p - 1, names[k],
                        (unsigned long long)calls[p][k], (unsigned long long)bytes[p][k],
                        payload[p][k]);
        if (sent[p] > 0) fprintf(f, "%d device 0 %llu 0\n", p - 1, (unsigned long long)sent[p]);
    }
    if (f != NULL) fclose(f);
    return PMPI_Finalize();
}

/* ---- one for each function ---- */

int MPI_Allreduce(const void *in, void *out, int n, MPI_Datatype t, MPI_Op op, MPI_Comm c)
{
    count_payload(COUNTED_Allreduce, n, t, c, 2.0);
    return PMPI_Allreduce(in, out, n, t, op, c);
}

int MPI_Iallreduce(const void *in, void *out, int n, MPI_Datatype t, MPI_Op op, MPI_Comm c,
                   MPI_Request *r)
{
    count_payload(COUNTED_Iallreduce, n, t, c, 2.0);
    return PMPI_Iallreduce(in, out, n, t, op, c, r);
}

int MPI_Reduce(const void *in, void *out, int n, MPI_Datatype t, MPI_Op op, int root, MPI_Comm c)
{
    count_payload(COUNTED_Reduce, n, t, c, 1.0);
    return PMPI_Reduce(in, out, n, t, op, root, c);
}

int MPI_Ireduce(const void *in, void *out, int n, MPI_Datatype t, MPI_Op op, int root, MPI_Comm c,
                MPI_Request *r)
{
    count_payload(COUNTED_Ireduce, n, t, c, 1.0);
    return PMPI_Ireduce(in, out, n, t, op, root, c, r);
}

int MPI_Bcast(void *data, int n, MPI_Datatype t, int root, MPI_Comm c)
{
    count_payload(COUNTED_Bcast, n, t, c, 1.0);
    return PMPI_Bcast(data, n, t, root, c);
}

int MPI_Ibcast(void *data, int n, MPI_Datatype t, int root, MPI_Comm c, MPI_Request *r)
{
    count_payload(COUNTED_Ibcast, n, t, c, 1.0);
    return PMPI_Ibcast(data, n, t, root, c, r);
}

int MPI_Allgather(const void *in, int n, MPI_Datatype t, void *out, int m, MPI_Datatype u,
                  MPI_Comm c)
{
    int size = 1;
    PMPI_Comm_size(c, &size);
    count(COUNTED_Allgather, m * size, u);
    return PMPI_Allgather(in, n, t, out, m, u, c);
}

int MPI_Allgatherv(const void *in, int n, MPI_Datatype t, void *out, const int *counts,
                   const int *begins, MPI_Datatype u, MPI_Comm c)
{
    int size = 1, all = 0;
    PMPI_Comm_size(c, &size);
    for (int r = 0; r < size; r++) all += counts[r];
    count(COUNTED_Allgatherv, all, u);
    return PMPI_Allgatherv(in, n, t, out, counts, begins, u, c);
}

int MPI_Barrier(MPI_Comm c)
{
    count(COUNTED_Barrier, 0, MPI_BYTE);
    return PMPI_Barrier(c);
}

int MPI_Ibarrier(MPI_Comm c, MPI_Request *r)
{
    count(COUNTED_Ibarrier, 0, MPI_BYTE);
    return PMPI_Ibarrier(c, r);
}

int MPI_Send(const void *data, int n, MPI_Datatype t, int to, int tag, MPI_Comm c)
{
    count(COUNTED_Send, n, t);
    return PMPI_Send(data, n, t, to, tag, c);
}

int MPI_Isend(const void *data, int n, MPI_Datatype t, int to, int tag, MPI_Comm c, MPI_Request *r)
{
    count(COUNTED_Isend, n, t);
    return PMPI_Isend(data, n, t, to, tag, c, r);
}

int MPI_Recv(void *data, int n, MPI_Datatype t, int from, int tag, MPI_Comm c, MPI_Status *s)
{
    count(COUNTED_Recv, n, t);
    return PMPI_Recv(data, n, t, from, tag, c, s);
}

int MPI_Comm_split(MPI_Comm c, int color, int key, MPI_Comm *out)
{
    count(COUNTED_Comm_split, 0, MPI_BYTE);
    return PMPI_Comm_split(c, color, key, out);
}

int MPI_Comm_split_type(MPI_Comm c, int type, int key, MPI_Info info, MPI_Comm *out)
{
    count(COUNTED_Comm_split_type, 0, MPI_BYTE);
    return PMPI_Comm_split_type(c, type, key, info, out);
}

int MPI_Comm_dup(MPI_Comm c, MPI_Comm *out)
{
    count(COUNTED_Comm_dup, 0, MPI_BYTE);
    return PMPI_Comm_dup(c, out);
}

int MPI_Comm_free(MPI_Comm *c)
{
    count(COUNTED_Comm_free, 0, MPI_BYTE);
    return PMPI_Comm_free(c);
}

int MPI_Win_allocate_shared(MPI_Aint size, int unit, MPI_Info info, MPI_Comm c, void *base,
                            MPI_Win *w)
{
    count(COUNTED_Win_allocate_shared, 0, MPI_BYTE);
    return PMPI_Win_allocate_shared(size, unit, info, c, base, w);
}
