/* Internal to the reader of config.json: its settings of the rotary position embedding. */
#ifndef SNRQ_CONFIG_ROPE_H
#define SNRQ_CONFIG_ROPE_H

#include <jansson.h>

#include "io/config.h"

/* What an architecture says about its rope settings. */
typedef struct snrq_rope_rules {
    const char *architecture;   /* for messages */
    bool partial;               /* partial_rotary_factor may be below 1 */
    bool older_longrope;        /* "su" and "yarn" are older names of "longrope" */
    int64_t original_positions; /* where the key is absent; 0: the whole context */
} snrq_rope_rules;

/* Reads the rope settings of `root`; head_dim and max_positions of *out are known. `path` is what
 * messages begin with. */
snrq_status snrq_config_read_rope(const char *path, const json_t *root,
                                  const snrq_rope_rules *rules, snrq_config *out);

/* KEY "FOUND" is not supported (supported: ...) */
snrq_status snrq_config_refuse(const char *path, const char *key, const char *found,
                               const char *supported);

#endif
