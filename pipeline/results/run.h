/* What the directory of a quantization says about the run, finished or not: settings, the figures
 * of modules and of units, where the time went. Not collective. */
#ifndef SNRQ_RESULTS_RUN_H
#define SNRQ_RESULTS_RUN_H

#include "io/checkpoint/reader.h"

enum { SNRQ_KIND = 96, SNRQ_RUN_PHASES = 16 };

/* Phases of rounding, by their names in the log; see snrq_round_phase_name(). */
typedef enum snrq_round_phase {
    SNRQ_ROUND_GRAM, /* of the input, before the rounding */
    SNRQ_ROUND_FACTOR,
    SNRQ_ROUND_GRID,
    SNRQ_ROUND_SEARCH,
    SNRQ_ROUND_PHASES
} snrq_round_phase;
const char *snrq_round_phase_name(snrq_round_phase phase);

typedef struct snrq_run_module {
    snrq_module_record record;
    int64_t layer;
    char kind[SNRQ_KIND]; /* "mlp.down_proj"; of experts without their numbers */
} snrq_run_module;

/* Modules that read one input. What the log does not have is NaN. */
typedef struct snrq_run_unit {
    int64_t layer;
    char kind[SNRQ_KIND];                   /* "self_attn.q_proj + k_proj + v_proj" */
    double milliseconds[SNRQ_ROUND_PHASES]; /* of rank 0, by phase */
    double rounding;                        /* factor, grid and search together, in milliseconds */
    double peak_memory;                     /* bytes; the largest of rank 0 up to then */
    double mismatch_mean, mismatch_norm;    /* of |Xf - X|; ||Xf - X||_F */
    double mismatch_share;                  /* ||Xf - X||_F / ||Xf||_F */
} snrq_run_unit;

/* A phase over the starts that told of it. */
typedef struct snrq_run_phase {
    char name[16];
    double min, mean, max; /* seconds of a rank, over ranks */
} snrq_run_phase;

/* Ranks that quantized a run of blocks by themselves (--layer-groups). */
typedef struct snrq_run_group {
    int64_t first, end, committed; /* blocks [first, end), and how many of them are finished */
    double seconds;                /* of the steps that count */
} snrq_run_group;

typedef struct snrq_run {
    snrq_output_facts output;
    snrq_run_module *module; /* [modules] owned */
    int64_t modules;
    snrq_run_unit *unit; /* [units] owned */
    int64_t units;
    snrq_run_group *group; /* [groups] owned; 0: status.json tells of none, there was one */
    int64_t groups;
    snrq_run_phase phase[SNRQ_RUN_PHASES]; /* in the order of the log */
    int phases;
    int64_t blocks, committed; /* of the model; finished */
    int64_t starts, timed;     /* how often it was started; how many starts told their times */
    double seconds;            /* of the steps that count: without starts and replays. NaN: none */
    double peak_memory;        /* bytes per rank; NaN: unknown */
    double ranks, threads, nodes; /* of the last start; NaN: unknown */
    double bytes;                 /* of the files that are committed */
} snrq_run;

/* Reads `directory` (borrowed). As snrq_output_read() if it is no output, or damaged. Free it in
 * any case. */
snrq_status snrq_run_read(const char *directory, snrq_run *out);
void snrq_run_free(snrq_run *run);

#endif
