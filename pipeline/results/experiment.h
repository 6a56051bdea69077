/* A table of runs as a file: which models are quantized how, how they are evaluated, and what was
 * published about it.
 *
 * The file is JSON (docs/reproduction/README.md describes it). Runs are all combinations of the
 * values that the table lists; options are those of `snrq quantize` and `snrq evaluate` by their
 * names. Not collective.
 */
#ifndef SNRQ_EXPERIMENT_H
#define SNRQ_EXPERIMENT_H

#include <jansson.h>
#include <stdbool.h>

#include "mpi/status.h"

enum { SNRQ_RUN_NAME = 200, SNRQ_MOST_RUNS = 10000, SNRQ_MOST_TABLE_FIGURES = 16 };

typedef struct snrq_experiment_run {
    char name[SNRQ_RUN_NAME]; /* of its folder: letters, digits and ._+- */
    const char *model;        /* as the table calls it; borrowed */
    const char *path;         /* its directory as the table has it; borrowed */
    bool full;                /* the model itself: method "fp", nothing is quantized */
    json_t *key;     /* what makes it another row: {"model", "method", ...} without seed; owned */
    json_t *options; /* of quantize, those that all runs share among them; owned */
} snrq_experiment_run;

/* A column of the report: a number in the JSON answer of an evaluation. */
typedef struct snrq_table_figure {
    const char *name, *evaluation; /* borrowed */
    const char *value; /* the key, or several with points: "evaluations.0.perplexity"; borrowed */
    double scale;
    int digits;    /* after the point */
    bool more;     /* more is better */
    bool optional; /* not every evaluation has it */
} snrq_table_figure;

typedef struct snrq_experiment {
    json_t *file;            /* owned; what is borrowed lies in it */
    const char *title;       /* borrowed */
    const json_t *notes;     /* array of strings, or NULL; borrowed */
    json_t *evaluations;     /* {"name": {options}}; borrowed */
    const json_t *published; /* array of objects, or NULL; borrowed */
    const char *source;      /* of what was published, or ""; borrowed */
    snrq_table_figure figure[SNRQ_MOST_TABLE_FIGURES];
    int figures;
    snrq_experiment_run *run; /* [runs] owned */
    int runs;
} snrq_experiment;

/* Reads a table. `where` is what messages begin with. SNRQ_BAD_DATA says where something is
 * missing, unknown, of another kind, or twice. Free it in any case. */
snrq_status snrq_experiment_parse(const char *where, const char *data, size_t bytes,
                                  snrq_experiment *out);
/* The same of a file. Also as snrq_file_read(). */
snrq_status snrq_experiment_read(const char *path, snrq_experiment *out);
void snrq_experiment_free(snrq_experiment *experiment);

/* Makes the runs of an experiment from its models and "runs"; for experiment.c. */
snrq_status snrq_experiment_expand(const char *where, snrq_experiment *experiment);

#endif
