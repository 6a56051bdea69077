/* Numerical trouble that the method can handle: found, counted, named.
 *
 * What cannot be handled (a NaN among weights or activations, a scale beyond its type) is an error
 * where it is met. What is found here changes no result: the method page says what is done about
 * it. It is told, because it often means that the calibration text or the checkpoint is not what it
 * should be; with --strict it ends the run.
 */
#ifndef SNRQ_TROUBLE_H
#define SNRQ_TROUBLE_H

#include "pipeline/rounding/search.h"
#include "pipeline/rounding/target.h"

typedef enum snrq_trouble_kind {
    SNRQ_DEAD_INPUTS,    /* columns that are zero on every calibration token */
    SNRQ_FEW_TOKENS,     /* fewer distinct calibration tokens than columns: H has not full rank */
    SNRQ_RAISED_DAMPING, /* H was not positive definite with the damping asked for */
    SNRQ_ZERO_ROWS,      /* all weights of a row are zero (those of live inputs) */
    SNRQ_CONSTANT_ROWS,  /* they are all the same, and not zero */
    SNRQ_LOST_GROUPS,    /* the scale of a group is too small for the type of scales */
    SNRQ_TROUBLES
} snrq_trouble_kind;

typedef struct snrq_trouble {
    snrq_trouble_kind kind;
    char where[SNRQ_MODULES_NAME]; /* the module, or all that share the input */
    int first_module, modules;     /* which of the modules that are rounded together */
    int64_t count, of;             /* how many, of how many; few tokens: tokens, live inputs */
    int64_t first;                 /* the first such column, row of the module; raised damping: 0 */
    double damping;                /* raised damping: what was added to the diagonal; else 0 */
} snrq_trouble;

typedef struct snrq_trouble_list {
    int count;
    snrq_trouble *trouble; /* [count] owned */
} snrq_trouble_list;

/* Looks at the statistics and at the weights, targets and fitted grids of all ranks' rows. The same
 * list on all ranks. Collective; agreed. */
snrq_status snrq_trouble_find(const snrq_context *context, const snrq_rule *rule,
                              const snrq_statistics *statistics, const snrq_stack *stack,
                              const snrq_target_parts *target, const snrq_rows *rows,
                              snrq_trouble_list *out);
void snrq_trouble_free(snrq_trouble_list *list);

/* Gives the list of a team to all ranks of the context; those of other teams pass an empty one.
 * Collective over the context; agreed. The caller frees it. */
snrq_status snrq_trouble_share(const snrq_context *context, const snrq_team *team,
                               snrq_trouble_list *list);

/* "dead_inputs". Borrowed. */
const char *snrq_trouble_name(snrq_trouble_kind kind);

/* One line: where, what, how many, the first, and what is done. */
void snrq_trouble_text(const snrq_trouble *trouble, snrq_dtype scale_type, char *out, size_t size);

/* SNRQ_OK if the list is empty, else SNRQ_BAD_DATA with its first line. For --strict. Not
 * collective. */
snrq_status snrq_trouble_refuse(const snrq_trouble_list *list, snrq_dtype scale_type);

#endif
