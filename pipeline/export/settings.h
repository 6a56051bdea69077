/* What a user may choose about an export. */
#ifndef SNRQ_EXPORT_SETTINGS_H
#define SNRQ_EXPORT_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

/* What an exported file holds embeddings and head in; model: what the checkpoint has. */
typedef enum snrq_embedding_type {
    SNRQ_EMBEDDING_MODEL,
    SNRQ_EMBEDDING_F16,
    SNRQ_EMBEDDING_BF16,
    SNRQ_EMBEDDING_Q8_0
} snrq_embedding_type;

typedef struct snrq_export_settings {
    int64_t max_shard_bytes;            /* of one safetensors file */
    bool float32;                       /* dequantized weights in F32, not in the model's type */
    snrq_embedding_type embedding_type; /* gguf */
    bool coded_head; /* compressed-tensors: a quantized head as codes, not dense */
    bool fold_zeros; /* gptq, compressed-tensors: symmetric codes that contain the zeros */
} snrq_export_settings;

#endif
