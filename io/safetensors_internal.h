/* What a reader of safetensors holds; for the files that make it up. */
#ifndef SNRQ_SAFETENSORS_INTERNAL_H
#define SNRQ_SAFETENSORS_INTERNAL_H

#include <jansson.h>

#include "io/safetensors.h"

typedef struct snrq_shard {
    char *path;
    int fd;             /* -1: not open */
    uint64_t bytes;     /* of the file */
    uint64_t data;      /* offset of the data buffer */
    json_t *metadata;   /* __metadata__, or NULL */
    snrq_tensor *table; /* [count] every tensor of the file, by name; moved out when the reader is
                           complete */
    int64_t count;
} snrq_shard;

struct snrq_safetensors {
    snrq_shard *shards; /* [shard_count] */
    int shard_count;
    snrq_tensor *tensors; /* [count] by name */
    int64_t count;
    char spelling[192]; /* what snrq_safetensors_resolve() changed; "": nothing */
    json_t *missing; /* {tensor: number of the shard} of an index's tensors that no shard holds */
};

/* Puts the table in order of name. */
void snrq_safetensors_sort(snrq_safetensors *reader);

#endif
