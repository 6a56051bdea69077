/* A model on disk - a Hugging Face directory or a quantized OUT directory - and its parts in
 * node-shared memory.
 *
 * No rank ever holds the model: the embedding, the head or one block at a time is read by the ranks
 * of a node together into memory they share, and released after use.
 */
#ifndef SNRQ_MODEL_H
#define SNRQ_MODEL_H

#include "io/checkpoint/block_file.h"
#include "io/checkpoint/rest_file.h"
#include "io/safetensors.h"
#include "mpi/node_memory.h"
#include "pipeline/model/block.h"

/* Matrices with a row per token of the vocabulary. */
typedef enum snrq_table_kind { SNRQ_EMBEDDING_TABLE, SNRQ_HEAD_TABLE, SNRQ_TABLES } snrq_table_kind;
/* "model.embed_tokens", "lm_head". */
extern const char *const snrq_table_names[SNRQ_TABLES];

typedef struct snrq_model {
    char path[4096];
    const char *side_path; /* where its tokenizer and templates are, borrowed; NULL: `path` */
    bool quantized;        /* an OUT directory: blocks are codes, the rest is in rest.h5 */
    snrq_config config;
    snrq_family dense,
        sparse; /* blocks without and with experts; sparse: empty if there are none */
    snrq_safetensors *tensors; /* of a Hugging Face directory, else NULL */
    snrq_rest_file *rest;      /* of an OUT directory, else NULL */
    bool coded[SNRQ_TABLES];   /* quantized, or to be: codes are in tables.h5 */
    bool
        *kept; /* [layers, most modules] those that are not quantized (kept.h); NULL: none; owned */
} snrq_model;

/* Opens `path` and checks that every tensor the configuration asks for is there with the right
 * shape and type. An OUT directory must be complete. Collective; agreed. */
snrq_status snrq_model_open(const snrq_context *context, const char *path, snrq_model **out);
/* Opens a directory for looking at it. Of an OUT directory, data files are not checked, and rest is
 * NULL; of a Hugging Face directory, it is not checked that the tensors are those that are asked
 * for. Not collective. */
snrq_status snrq_model_look(const char *path, snrq_model **out);
/* The parts of a block. Borrowed. */
const snrq_family *snrq_model_family(const snrq_model *model, int64_t layer);
/* The most that a block has of modules, of units and of inputs of a module. */
int snrq_model_max_modules(const snrq_model *model);
int snrq_model_max_units(const snrq_model *model);
int64_t snrq_model_max_columns(const snrq_model *model);
/* Fills in both kinds of blocks. SNRQ_INTERNAL without memory. */
snrq_status snrq_model_create_families(snrq_model *model);
void snrq_model_free_families(snrq_model *model);

/* The directory of tokenizer and templates. Borrowed. */
const char *snrq_model_side_path(const snrq_model *model);
/* Not collective. */
void snrq_model_close(snrq_model **model);

/* 32 hex digits that change with the configuration, the names, types and shapes of the tensors, and
 * the first and last 4 KiB of each tensor. Hugging Face directories only. Not collective. */
snrq_status snrq_model_fingerprint(const snrq_model *model, char out[33]);

/* Names of the tensors that are not quantized (of an OUT directory, quantized tables as well):
 * embedding, last norm, head if there is one, then
 * those of the blocks, block by block: norms, biases, weights of kept modules. *names [*count] and
 * the strings are one allocation; free(*names). */
snrq_status snrq_model_rest_names(const snrq_model *model, char ***names, int *count);

/* A dense matrix in node memory: the token embedding, or the head (the embedding again where they
 * are tied). Collective over `context`, whose nodes get it; agreed. */
typedef struct snrq_table {
    snrq_node_memory *memory;
    snrq_weight weight;
} snrq_table;
snrq_status snrq_model_load_embedding(const snrq_context *context, const snrq_model *model,
                                      snrq_table *out);
snrq_status snrq_model_load_head(const snrq_context *context, const snrq_model *model,
                                 snrq_table *out);
/* The quantized embedding that a run has committed in `directory`. Collective; agreed. */
snrq_status snrq_model_load_coded_embedding(const snrq_context *context, const snrq_model *model,
                                            const char *directory, snrq_table *out);
/* Collective over the node. */
void snrq_table_free(snrq_table *table);
/* The weight of the last RMSNorm, [hidden] fp32; the caller frees it. Not collective. */
snrq_status snrq_model_final_norm(const snrq_model *model, float **out);

/* A block with its weights in node memory. */
typedef struct snrq_loaded_block {
    snrq_block block;
    snrq_node_memory *memory;
    snrq_weight *module;              /* [modules] of `block`; owned, as the rest */
    const float **vector;             /* [vectors] of `block` */
    float *numbers;                   /* norms and biases */
    struct snrq_quantized_part *part; /* [parts] of a quantized block, else NULL */
} snrq_loaded_block;

/* Loads block `layer` as stored: dense, or quantized. ropes are borrowed. Collective; agreed. */
snrq_status snrq_model_load_block(const snrq_context *context, const snrq_model *model,
                                  int64_t layer, const snrq_ropes *ropes, snrq_loaded_block *out);
/* Collective over the node. */
void snrq_loaded_block_free(snrq_loaded_block *block);

/* A part of a quantized block, to be filled in. In node memory the rows of its modules are
 * stacked, so that snrq_node_memory_share_rows() moves a part at once. */
typedef struct snrq_quantized_part {
    size_t codes_at, scales_at, zeros_at, minima_at, g_idx_at; /* offsets in the block's memory */
    uint8_t *codes;                                            /* [part rows, columns] */
    float *scales;                                             /* [part rows, groups] */
    uint8_t *zeros;                                            /* [part rows, groups] */
    float *minima;                                             /* [part rows, groups], or NULL */
    int32_t *g_idx;                                            /* [columns] */
    int64_t groups;
} snrq_quantized_part;

/* How the rows of a part are divided. */
typedef struct snrq_part_groups {
    int64_t count;
    const snrq_weight_format *format; /* or NULL: integers */
} snrq_part_groups;

/* Allocates a quantized block with the norms and biases of `model`; groups [parts]. out->part
 * becomes its parts. Kept modules get their weights. Collective; agreed. */
snrq_status snrq_quantized_block_create(const snrq_context *context, const snrq_model *model,
                                        int64_t layer, const snrq_part_groups *groups,
                                        const snrq_ropes *ropes, snrq_loaded_block *out);

/* Reads the committed file of block `layer` in an OUT directory of `model` into it. Collective;
 * agreed. */
snrq_status snrq_quantized_block_read(const snrq_context *context, const snrq_model *model,
                                      const char *directory, int64_t layer,
                                      snrq_loaded_block *block);

/* Both: loads the committed file of block `layer`, with the norms and biases of `model`.
 * Collective; agreed. */
snrq_status snrq_quantized_block_load(const snrq_context *context, const snrq_model *model,
                                      const char *directory, int64_t layer, const snrq_ropes *ropes,
                                      snrq_loaded_block *out);

/* Opens the file of a block of an OUT directory, which must have the family's modules, but for
 * those that are kept: see snrq_model_stored_index(). Not collective. */
snrq_status snrq_model_open_block(const snrq_model *model, int64_t layer, snrq_block_file **out);

/* Full Hugging Face name of a module. */
void snrq_module_name(int64_t layer, const char *name, char *out, size_t size);

#endif
