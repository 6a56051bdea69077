/* Internal to the reader of config.json: its settings of the rotary position embedding. */
#ifndef SNRQ_CONFIG_ROPE_H
#define SNRQ_CONFIG_ROPE_H

#include <jansson.h>

#include "io/config_families.h"

/* Reads the rope settings of `root`, and those of local layers where the architecture has some;
 * sizes of *out are known. `path` is what messages begin with. */
snrq_status snrq_config_read_rope(const char *path, const json_t *root, const snrq_architecture *a,
                                  snrq_config *out);

/* KEY "FOUND" is not supported (supported: ...) */
snrq_status snrq_config_refuse(const char *path, const char *key, const char *found,
                               const char *supported);

#endif
