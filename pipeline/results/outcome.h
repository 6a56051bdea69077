/* What became of a table of runs: the results of every run, and the rows that several seeds make.
 * Not collective. */
#ifndef SNRQ_OUTCOME_H
#define SNRQ_OUTCOME_H

#include "pipeline/results/experiment.h"
#include "pipeline/results/option_text.h"
#include "pipeline/results/run.h"
#include "pipeline/results/sheet.h"

enum { SNRQ_MISSING = 300, SNRQ_MOST_AXES = 32, SNRQ_LABEL = 256 };

/* One run of the table. */
typedef struct snrq_run_outcome {
    const snrq_experiment_run *run;         /* borrowed */
    char folder[1024];                      /* ROOT/NAME/out, for the next */
    snrq_run results;                       /* of the quantization; empty if there is none */
    bool there;                             /* there is a quantization, finished or not */
    double figure[SNRQ_MOST_TABLE_FIGURES]; /* NaN: not there */
    char missing[SNRQ_MISSING];             /* what is missing, for people; "": nothing */
} snrq_run_outcome;

/* The runs that differ in nothing but the seed. */
typedef struct snrq_row_outcome {
    const json_t *key; /* borrowed from its first run */
    int first, runs;   /* its first run; how many there are */
    int *run;          /* [runs] owned */
    snrq_spread figure[SNRQ_MOST_TABLE_FIGURES];
    snrq_spread seconds, memory, bytes; /* quantization: time, peak per rank, size */
    const json_t *published;            /* the object with what was published, or NULL; borrowed */
} snrq_row_outcome;

/* An option that rows have. */
typedef struct snrq_axis {
    const char *name; /* borrowed */
    bool varies;      /* rows differ in it */
} snrq_axis;

typedef struct snrq_outcome {
    const snrq_experiment *experiment; /* borrowed */
    snrq_run_outcome *run;             /* [experiment->runs] owned */
    snrq_row_outcome *row;             /* [rows] owned */
    int rows;
    snrq_axis axis[SNRQ_MOST_AXES]; /* model, bits, group-size, method, beam, alpha, then others */
    int axes;
} snrq_outcome;

/* Reads what is there of a table in `root`. What is missing or cannot be read is said of its run.
 * Fails only without memory. Free it in any case. */
snrq_status snrq_outcome_read(const char *root, const snrq_experiment *experiment,
                              snrq_outcome *out);
void snrq_outcome_free(snrq_outcome *outcome);

/* A row's value of an option, "-" if it has none. Returns `out`. */
const char *snrq_row_option(const snrq_row_outcome *row, const char *name,
                            char out[SNRQ_OPTION_TEXT]);

/* A short name of a row among the others: the values of the options in which rows differ, without
 * `without` and `without_too` (NULL: none). Returns `out`. */
const char *snrq_row_label(const snrq_outcome *outcome, const snrq_row_outcome *row,
                           const char *without, const char *without_too, char out[SNRQ_LABEL]);

/* What was published of a row under `name`, count 0 if nothing: a mean, and sd or NaN. */
snrq_spread snrq_row_published(const snrq_row_outcome *row, const char *name);

#endif
