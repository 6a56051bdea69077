/* Which tensors a GGUF file of a model has, and where each comes from. */
#ifndef SNRQ_GGUF_PLAN_H
#define SNRQ_GGUF_PLAN_H

#include "io/checkpoint/block_record.h"
#include "io/gguf/layout.h"
#include "pipeline/export/settings.h"
#include "pipeline/model/model.h"

typedef enum snrq_gguf_origin {
    SNRQ_FROM_MODULE, /* codes of a block file */
    SNRQ_FROM_TABLE,  /* codes of tables.h5 */
    SNRQ_FROM_TENSOR, /* a tensor of the checkpoint, or of rest.h5 */
    SNRQ_FROM_ROPE,   /* factors of the rope settings: by how much frequencies are divided */
    SNRQ_FROM_ROPE_SHORT,
    SNRQ_FROM_ROPE_LONG
} snrq_gguf_origin;

typedef struct snrq_gguf_part {
    char name[SNRQ_GGUF_NAME]; /* in the file: "blk.0.attn_q.weight" */
    snrq_gguf_type type;
    int64_t rows, columns; /* columns 0: a vector of `rows` */
    int64_t head;          /* rows of a head, whose two halves are interleaved; 0: rows stay */
    snrq_gguf_origin origin;
    int64_t layer;    /* of a module */
    int module;       /* the first one, of experts; of a table, its place in the file */
    int64_t stacked;  /* matrices of experts, each of `rows`; 0: it is one */
    int stride;       /* from an expert's module to that of the next one */
    bool less_one;    /* the checkpoint has it less 1 */
    char tensor[256]; /* of the checkpoint */
} snrq_gguf_part;

typedef struct snrq_gguf_plan {
    snrq_gguf_part *parts; /* [count] in the order of the file */
    int64_t count;
    snrq_gguf_type weights; /* what most modules are */
} snrq_gguf_plan;

/* The type of a quantized module; SNRQ_USAGE with the reason and the nearest setting that
 * works. Not collective. */
snrq_status snrq_gguf_module_type(const snrq_module_record *record, snrq_gguf_type *out);

/* Lists the tensors, the same on all ranks. The caller frees the plan. Not collective. */
snrq_status snrq_gguf_plan_create(const snrq_model *model, const snrq_export_settings *settings,
                                  snrq_gguf_plan *out);
void snrq_gguf_plan_free(snrq_gguf_plan *plan);

#endif
