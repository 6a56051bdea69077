/* What a block file says about a module besides its arrays.
 *
 * One table of fields serves all forms of a record: the attributes of the module's group in the
 * block file, and the JSON of the manifest, of run.jsonl and of `inspect --json`. A field that
 * files of version 0.1.0 lack has a default there, and is always written.
 */
#ifndef SNRQ_BLOCK_RECORD_H
#define SNRQ_BLOCK_RECORD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "mpi/algebra/weight_format.h"

enum { SNRQ_RECORD_NAME = 160 };

/* Same on all ranks. */
typedef struct snrq_module_record {
    char name[SNRQ_RECORD_NAME]; /* "model.layers.0.self_attn.q_proj" */
    int64_t rows, columns;       /* outputs, inputs */
    int64_t group_size, groups;
    int bits;
    bool symmetric;
    bool permuted_groups; /* groups are runs of columns in decision order, not in original order */
    snrq_dtype scale_type;
    char format[16];     /* "q4_k": of the table in mpi/algebra/weight_format.h; "": integers */
    double tensor_scale; /* what all scales are multiples of; 0: the format has no such number */
    char method[16], grid[16];
    char order[16]; /* of decisions: "diagonal", "natural"; "": unknown (0.1.0) */
    int beam, refine, regrid;
    char alpha_rule[32]; /* where alpha came from: "fixed:0.5", "chained"; "": unknown (0.1.0) */
    double alpha;        /* regularization strength used for this module */
    double alpha_next;   /* closed form for the next block (alpha chained), or NaN */
    double damp;         /* damping asked for, as a share of mean(diag H); 0: unknown (0.1.0) */
    double damping;      /* lambda added to the diagonal of H */
    int damping_attempts;
    double shrink;       /* delta: delta diag(H) was added, too; 0: none (or 0.1.0) */
    double compensation; /* b: how much of the residual stream's error was taken along; 0: none */
    int64_t tokens;      /* different ones that it was calibrated on; 0: unknown (0.1.0) */
    int64_t tokens_sent; /* of an expert: calibration tokens that its router sent to it */
    int64_t dead_inputs;
    double objective;      /* tr((Q - R) H (Q - R)^T), damped H */
    double predicted_loss; /* with G: nats per token, tr(G E H E^T) in units of that; 0: unknown */
    double output_error;   /* ||W X - Q X|| / ||W X|| */
    double model_error;    /* ||W Xf - Q X|| / ||W Xf|| */
    double held_out_error; /* the same over windows that nothing was fitted to; 0: there are none */
    double clipped;        /* share of codes at either end that were clamped, 0..1 */
    double largest_activation; /* magnitude in X and Q X over the calibration; 0: unknown (0.1.0) */
} snrq_module_record;

/* The row of its format; NULL: integers, or an unknown one. Has it minima? */
const snrq_weight_format *snrq_module_record_format(const snrq_module_record *record);
bool snrq_module_record_has_minima(const snrq_module_record *record);
/* Its levels, or NULL. */
const float *snrq_module_record_levels(const snrq_module_record *record);

/* What makes a record impossible, or NULL. */
const char *snrq_module_record_problem(const snrq_module_record *record);

/* The record as a JSON object; alpha_next is null where it is NaN. New reference, NULL without
 * memory. */
json_t *snrq_module_record_json(const snrq_module_record *record);
/* Reads and checks one; `where` is what messages begin with. SNRQ_BAD_DATA says what is wrong. */
snrq_status snrq_module_record_from_json(const char *where, const json_t *object,
                                         snrq_module_record *record);

/* Writes all fields but the name as attributes of a module's group (rank 0). */
typedef struct snrq_hdf5_object snrq_hdf5_object;
snrq_status snrq_module_record_put(const snrq_hdf5_object *group, const snrq_module_record *record);
/* Reads and checks them; the name is the group's. SNRQ_BAD_DATA says what is wrong. */
snrq_status snrq_module_record_get(const snrq_hdf5_object *group, snrq_module_record *record);

#endif
