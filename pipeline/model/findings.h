/* What a checkpoint holds beside what is read, and where it contradicts its config.json: found,
 * counted, named. None of it changes what is computed, but much of it means that config.json or the
 * tensors are not what they should be.
 */
#ifndef SNRQ_FINDINGS_H
#define SNRQ_FINDINGS_H

#include <jansson.h>

#include "pipeline/model/model.h"

/* What a tensor of a Hugging Face checkpoint is to its model. */
typedef enum snrq_tensor_use {
    SNRQ_TENSOR_READ,
    SNRQ_TENSOR_CACHED,      /* what modeling code once stored and can compute: rotations, masks */
    SNRQ_TENSOR_TIED_HEAD,   /* a head where config.json says that the embedding is it */
    SNRQ_TENSOR_PREDICTION,  /* of a layer behind the last one that predicts further tokens */
    SNRQ_TENSOR_BEYOND,      /* of another layer that config.json does not count */
    SNRQ_TENSOR_OUTSIDE,     /* beside the model: a vision tower, score.weight, ... */
    SNRQ_TENSOR_WITHOUT_USE, /* of a block that has no place for it: refused when it is opened */
    SNRQ_TENSOR_USES
} snrq_tensor_use;

snrq_tensor_use snrq_model_tensor_use(const snrq_model *model, const snrq_tensor *tensor);

typedef enum snrq_finding_kind {
    SNRQ_OTHER_SPELLING,    /* of names */
    SNRQ_CACHED_BUFFERS,    /* tensors that nothing needs */
    SNRQ_PREDICTION_LAYERS, /* as config.json announces them */
    SNRQ_UNUSED_TENSORS,    /* tensors outside the model */
    SNRQ_UNUSED_LAYERS,     /* layers that config.json does not count */
    SNRQ_OTHER_HEAD,        /* the head differs from the embedding that config.json ties it to */
    SNRQ_OTHER_DTYPE,       /* config.json names another type than the tensors have */
    SNRQ_FINDINGS
} snrq_finding_kind;

typedef struct snrq_findings {
    int64_t tensors[SNRQ_TENSOR_USES]; /* how many there are of each use */
    bool there[SNRQ_FINDINGS];
    char text[SNRQ_FINDINGS][1024]; /* one line, without the model's path */
} snrq_findings;

/* Looks through a model; an OUT directory has no findings. Compares the bytes of embedding and head
 * where they should be the same, shared out over the ranks. Collective; agreed. */
snrq_status snrq_findings_make(const snrq_context *context, const snrq_model *model,
                               snrq_findings *out);

/* "unused_layers". Borrowed. */
const char *snrq_finding_name(snrq_finding_kind kind);

/* Rank 0 prints a line for each. SNRQ_BAD_DATA for unused layers, unless they are to be ignored,
 * and, if `strict`, for whatever contradicts config.json. Not collective; the same on all ranks. */
snrq_status snrq_findings_tell(const snrq_context *context, const char *path,
                               const snrq_findings *findings, bool ignore_unused_layers,
                               bool strict);

/* snrq_findings_make() and snrq_findings_tell(). Collective; agreed. */
snrq_status snrq_model_check(const snrq_context *context, const snrq_model *model,
                             bool ignore_unused_layers, bool strict);

#endif
