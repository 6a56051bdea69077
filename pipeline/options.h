/* The command line: one table of options, from which --help, validation and the stored
 * configuration come. */
#ifndef SNRQ_OPTIONS_H
#define SNRQ_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "pipeline/rounding/rule.h"

typedef enum snrq_command {
    SNRQ_COMMAND_QUANTIZE = 1,
    SNRQ_COMMAND_EVALUATE = 2,
    SNRQ_COMMAND_INSPECT = 4,
    SNRQ_COMMAND_VERIFY = 8,
    SNRQ_COMMAND_ROUND = 16,
    SNRQ_COMMAND_TOKENIZE = 32,
    SNRQ_COMMAND_EXPORT = 64,
    SNRQ_COMMAND_STATUS = 128
} snrq_command;

/* In the order of the table of formats in export.c. */
typedef enum snrq_format {
    SNRQ_FORMAT_GPTQ,
    SNRQ_FORMAT_COMPRESSED_TENSORS,
    SNRQ_FORMAT_GGUF,
    SNRQ_FORMAT_SAFETENSORS
} snrq_format;
/* What an exported file holds embeddings and head in; model: what the checkpoint has. */
typedef enum snrq_embedding_type {
    SNRQ_EMBEDDING_MODEL,
    SNRQ_EMBEDDING_F16,
    SNRQ_EMBEDDING_BF16,
    SNRQ_EMBEDDING_Q8_0
} snrq_embedding_type;

/* Texts in the order in which they were given. */
enum { SNRQ_MOST_TEXTS = 1024 };
typedef struct snrq_text_paths {
    int count;
    const char *path[SNRQ_MOST_TEXTS];
} snrq_text_paths;

/* Everything a command can be told. Strings are borrowed from argv. */
typedef struct snrq_options {
    snrq_command command;
    const char *path; /* the positional argument: MODEL or OUT */
    const char *output, *token_file, *decode, *reference, *logprobs;
    const char *calibration, *text; /* the first text, of quantize and of the others */
    snrq_text_paths texts;          /* all of them */
    const char *text_key;           /* of JSON lines; NULL: "text" */
    int64_t bits, group_size;       /* group_size 0: per channel */
    bool asymmetric;
    int64_t method, beam;
    const char *alpha_text; /* as given; parsed into the next two */
    snrq_alpha_mode alpha_mode;
    double alpha_value; /* fixed: a; sampled: B */
    int64_t grid, permuted_groups, natural_order, scale_type;
    double damp;
    int64_t refine, regrid;
    int64_t sequences, length, seed, consecutive;
    const char *factor_grid_text;
    int factor_rows, factor_columns; /* 0: chosen by size */
    int64_t format;                  /* snrq_format; -1: not given */
    int64_t max_shard_bytes;         /* export */
    int64_t export_float32;  /* export: dequantized weights in F32 instead of the model's type */
    int64_t embedding_type;  /* export to gguf: snrq_embedding_type */
    const char *export_path; /* verify: the exported directory, or NULL */
    int64_t threads;
    int64_t plan_ranks, plan_nodes; /* 0: as started */
    double max_time, watchdog;      /* seconds; 0: no limit */
    bool json, dry_run, force_unlock, ignore_memory, keep_activations, strict;
} snrq_options;

/* Parses argv (argv[1] is the command). *help is NULL, or a text to print instead of running
 * anything (help or version was asked for, or no command given); the caller frees it. SNRQ_USAGE
 * with a message that names the option, what was expected and what was found. Not collective: every
 * rank parses the same argv. */
snrq_status snrq_options_parse(int argc, char **argv, snrq_options *out, char **help);

/* The options that decide the result, as a JSON object {"bits": 3, ...}, for the stored
 * configuration. New reference; NULL without memory. */
json_t *snrq_options_stored(const snrq_options *options);

#endif
