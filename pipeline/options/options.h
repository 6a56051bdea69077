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
    SNRQ_COMMAND_STATUS = 128,
    SNRQ_COMMAND_REPORT = 256,
    SNRQ_COMMAND_RUNS = 512,
    SNRQ_COMMAND_BENCH = 1024,
    SNRQ_COMMAND_SENSITIVITY = 2048,
    SNRQ_COMMAND_ASSESS = 4096
} snrq_command;

/* What --format can say, in the order of the option's choices in options.c; each has a row in the
 * table of formats in export.c. */
typedef enum snrq_format_choice {
    SNRQ_FORMAT_GPTQ,
    SNRQ_FORMAT_COMPRESSED_TENSORS,
    SNRQ_FORMAT_GGUF,
    SNRQ_FORMAT_SAFETENSORS,
    SNRQ_FORMAT_FP8,
    SNRQ_FORMATS
} snrq_format_choice;

/* What --sampling can say, in the order of its choices. */
typedef enum snrq_sampling_choice {
    SNRQ_SAMPLING_NONE,
    SNRQ_SAMPLING_C4,
    SNRQ_SAMPLING_C4_SNRQ,
    SNRQ_SAMPLING_WIKITEXT2
} snrq_sampling_choice;

/* Texts in the order in which they were given. */
enum { SNRQ_MOST_TEXTS = 1024 };
typedef struct snrq_text_paths {
    int count;
    const char *path[SNRQ_MOST_TEXTS];
} snrq_text_paths;

/* Everything a command can be told, with what is done where nothing was said, or where an option
 * has no effect with the others. Strings are borrowed from argv, or from the text of the file of
 * options. */
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
    int64_t grid, either_sign, permuted_groups, natural_order, scale_type;
    double damp;
    double shrink, compensate; /* SNRQ_AUTO: auto */
    bool paper;
    int64_t refine, regrid;
    bool baseline_grid; /* of grid, refine, regrid and damp, the values of the baselines */
    int64_t tune;       /* epochs; 0: none */
    int64_t sequences, held_out, first_tokens, length, seed, consecutive;
    int64_t sampling;        /* snrq_sampling_choice */
    const char *protocol;    /* evaluate: names with commas between them, or NULL */
    const char *samples;     /* evaluate: a file for the figures of each window and item, or NULL */
    const char *tasks;       /* evaluate: names with commas between them, or NULL */
    const char *task_dir;    /* evaluate: where their files are, or NULL */
    int64_t limit;           /* evaluate: items of each task; 0: all */
    int64_t task_bos_off;    /* evaluate: requests begin without BOS whatever the tokenizer says */
    int64_t layer_groups;    /* 0: auto */
    const char *recipe;      /* a file of rules for some modules, or NULL */
    double target_bits;      /* of a weight on average, or */
    int64_t target_bytes;    /* of OUT; 0: none is given */
    const char *assessment;  /* what they are chosen by, or NULL */
    const char *widths_text; /* assess: "2,3,4,8" */
    const char *group_sizes_text; /* assess: "64,128,channel", or "auto" */
    const char *formats_text;     /* assess, budgets: "q3_k,q4_k", or NULL */
    bool no_uniform;              /* assess: no runs with one width for all */
    int64_t judged_windows;       /* assess: of which divergences are measured */
    const char *judged_text;      /* assess: what those windows are of, or NULL: as the others */
    int64_t alone_modules;        /* assess: they are measured of each module, too */
    const char *sensitivity;      /* what outputs are worth: a file of `snrq sensitivity`, or
                                     SNRQ_SENSITIVITY_AUTO, or NULL */
    int64_t expert_tokens, weighted_experts; /* 0: auto */
    const char *factor_grid_text;
    int factor_rows, factor_columns; /* 0: chosen by size */
    int64_t weight_format;           /* place in snrq_weight_formats; -1: integers of --bits */
    int64_t table_format;            /* of embeddings and head, like weight_format; -1: none */
    int64_t preset;                  /* place in the table of preset.c; -1: none */
    int64_t format;                  /* snrq_format_choice; -1: not given */
    int64_t max_shard_bytes;         /* export */
    int64_t engine;                  /* export: snrq_engine; -1: not given */
    int64_t coded_head;              /* export: a quantized head as codes */
    int64_t fold_zeros;              /* export: zeros in the codes (see snrq_export_settings) */
    int64_t export_float32;  /* export: dequantized weights in F32 instead of the model's type */
    int64_t embedding_type;  /* export to gguf: snrq_embedding_type */
    const char *data;        /* runs: where relative paths of a table are, or NULL */
    const char *tokenizer;   /* export, verify: directory of other side files, or NULL */
    const char *export_path; /* verify: the exported directory, or NULL */
    int64_t pass_memory;     /* sensitivity: bytes of block inputs that a rank keeps */
    int64_t threads;
    int64_t plan_ranks, plan_nodes; /* 0: as started */
    const char *network, *machine;  /* of plans; or NULL */
    bool plan;                      /* the command is plan: a dry run that tells more */
    double max_time, watchdog;      /* seconds; 0: no limit */
    const char *redo_text;
    int64_t redo; /* the block to make again, with those after it; -1: none */
    bool full;    /* status: read all files */
    bool json, dry_run, force_unlock, ignore_memory, keep_activations, strict;
    bool ignore_unused_layers;
    const char *options_file;
    bool print_options;
    char *file_text; /* owned: of options_file, or NULL */
} snrq_options;

/* Parses argv (argv[1] is the command) and the file that --options names. *text is NULL, or what to
 * print instead of running anything (help, version or the options were asked for, or no command
 * given); the caller frees it. SNRQ_USAGE with a message that names the option, what was expected
 * and what was found: also for an option that is given twice (but for texts in one place),
 * contradicts another, or has no effect with the others (effects.h). The status of
 * snrq_file_read() for the file. The caller releases *out with snrq_options_free(), also after a
 * failure. Not collective: every rank parses the same argv; agree on the status, because every rank
 * reads the file. */
snrq_status snrq_options_parse(int argc, char **argv, snrq_options *out, char **text);
void snrq_options_free(snrq_options *options);

/* The word of --sensitivity that is no file: quantize makes it. */
#define SNRQ_SENSITIVITY_AUTO "auto"
bool snrq_options_make_sensitivity(const snrq_options *options);

/* Every path that the command reads, the options' file among them, NULL where there is none.
 * Borrowed. Returns their number. */
enum { SNRQ_MOST_INPUTS = SNRQ_MOST_TEXTS + 9 };
int snrq_options_inputs(const snrq_options *options, const char *paths[SNRQ_MOST_INPUTS]);

/* The options that decide the result, as a JSON object {"bits": 3, ...}, for the stored
 * configuration: what is done, so that two of them are equal if the same is done. null: nothing is.
 * New reference; NULL without memory. */
json_t *snrq_options_stored(const snrq_options *options);

/* The options of quantize that made snrq_options_stored(), of this version or an earlier one; what
 * it lacks gets its default. Texts are borrowed from `stored`. SNRQ_USAGE if it holds values that
 * no option has. Not collective. */
snrq_status snrq_options_restore(const json_t *stored, snrq_options *out);

#endif
