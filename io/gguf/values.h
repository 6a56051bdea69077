/* What the weights of a GGUF block are, one at a time, computed from bytes and bits as the
 * format defines them. For checking: simple, not fast, and independent of how they are
 * written. */
#ifndef SNRQ_GGUF_VALUES_H
#define SNRQ_GGUF_VALUES_H

#include <stdint.h>

typedef struct snrq_gguf_value {
    uint32_t type; /* as the file numbers it */
    const char *name;
    int weights, bytes; /* of a GGUF block */
    float (*value)(const unsigned char *gguf_block, int index);
} snrq_gguf_value;

extern const snrq_gguf_value snrq_gguf_values[];

/* Index in snrq_gguf_values of a type, or -1 for types that snrq does not write. */
int snrq_gguf_value_kind(uint32_t type);

/* binary32 from its bits. */
float snrq_gguf_single(uint32_t bits);

#endif
