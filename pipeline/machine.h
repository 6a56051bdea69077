/* What a machine does in a second, measured: the rates of the phases of a run, the network, files.
 *
 * Every rank runs small trials of the program's own code at the same time as the others, so that
 * they share caches and memory as in a run. A trial is a unit of m rows and n inputs; from a few of
 * different sizes follow the terms of each phase's time:
 *
 *     forward   tokens m n (weights as they are, and as codes); tokens^2 (head_dim + value_dim)
 *     gram      tokens n^2, and n^2 for each piece of a sequence that is summed
 *     factor    n^3, m n^2
 *     grid      m n, of each format by itself
 *     search    m n^2, m n
 *
 * The slowest rank counts. Times of a run follow from these by pipeline/cost.h.
 */
#ifndef SNRQ_MACHINE_H
#define SNRQ_MACHINE_H

#include <jansson.h>

#include "mpi/context.h"
#include "pipeline/options/options.h"
#include "pipeline/rounding/rule.h"

/* Seconds per multiply-add, or per element, of one rank with its threads. */
typedef enum snrq_rate {
    SNRQ_RATE_FORWARD_DENSE,
    SNRQ_RATE_FORWARD_CODES,
    SNRQ_RATE_ATTENTION,
    SNRQ_RATE_GRAM_TOKENS,
    SNRQ_RATE_GRAM_PIECES,
    SNRQ_RATE_FACTOR_CUBE,
    SNRQ_RATE_FACTOR_ROWS,
    SNRQ_RATE_GRID,
    SNRQ_RATE_SEARCH_ROWS,
    SNRQ_RATE_SEARCH_CELLS,
    SNRQ_RATES
} snrq_rate;

typedef struct snrq_machine {
    double seconds[SNRQ_RATES];       /* of the slowest rank; grid: of integers */
    double fits[SNRQ_WEIGHT_FORMATS]; /* the same as grid, of formats; 0: not measured */
    double spread;             /* its time over that of the fastest rank, all trials together */
    int slowest;               /* rank */
    int ranks, nodes, threads; /* that it was measured with; threads of a rank */
    int cores;                 /* of a node */
    double latency, bandwidth; /* of messages: seconds, bytes per second of a rank */
    bool network_measured;
    double read, write; /* bytes per second of a node; 0: not measured */
} snrq_machine;

/* The widest matrices of a trial. */
enum { SNRQ_MACHINE_COLUMNS = 2048 };

/* Runs the trials (machine_trial.c), for rules like this one (rows that do not know
 * of each other), with matrices of up to `columns`. formats: a bit for each place in the table of
 * formats whose fits are timed.
 * Collective; agreed. */
snrq_status snrq_machine_measure(const snrq_context *context, const snrq_rule *rule,
                                 unsigned formats, int64_t columns, snrq_machine *out);

/* Seconds per weight that the fit of scales takes with the rule's grid, whatever its format is: of
 * integers, and of the formats of which there is a bit (fits [SNRQ_WEIGHT_FORMATS]; 0: none, or
 * its scales come from the largest weights alone). Not collective. */
snrq_status snrq_machine_time_fits(const snrq_rule *rule, unsigned formats, double *integers,
                                   double *fits);

/* Measures how fast a file in `directory` is written and read. Collective; agreed. */
snrq_status snrq_machine_measure_files(const snrq_context *context, const char *directory,
                                       snrq_machine *machine);

/* The machine as JSON, and back. NULL without memory; SNRQ_BAD_DATA names the key. */
json_t *snrq_machine_json(const snrq_machine *machine);
snrq_status snrq_machine_read(const char *path, snrq_machine *out);

/* --network LATENCY,BANDWIDTH: seconds, bytes per second. SNRQ_USAGE. */
snrq_status snrq_machine_network(const char *text, snrq_machine *machine);

/* `snrq bench machine`: measures, prints what it found and VALID, or what is wrong: SNRQ_BAD_DATA.
 * -o writes a file for --machine. Collective; agreed. */
snrq_status snrq_bench(const snrq_context *context, const snrq_options *options);

#endif
