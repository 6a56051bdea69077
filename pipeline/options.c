/* The table of options, and what is made from it; see options.h. */
#include "pipeline/options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum kind { TEXT, TEXTS, INTEGER, REAL, CHOICE, FLAG, GROUP, SIZE, TIME } kind;

typedef struct option_row {
    const char *name;
    char letter; /* short form, or 0 */
    kind kind; /* where the value goes: char *, char * and texts, int64_t, double, int64_t (index),
                  bool, int64_t, int64_t (bytes), double (seconds) */
    size_t field;         /* offset in snrq_options */
    const char *fallback; /* default, as it would be typed; NULL: none */
    double low, high;     /* numbers: inclusive bounds. FLAG: low is the value it sets */
    const char *choices;  /* CHOICE: "a|b|c", in the order of the enum */
    unsigned commands;    /* which commands take it */
    bool stored;          /* decides the result: part of the stored configuration */
    const char *unit;     /* placeholder in --help */
    const char *help;
} option_row;

enum {
    Q = SNRQ_COMMAND_QUANTIZE,
    E = SNRQ_COMMAND_EVALUATE,
    I = SNRQ_COMMAND_INSPECT,
    V = SNRQ_COMMAND_VERIFY,
    R = SNRQ_COMMAND_ROUND,
    T = SNRQ_COMMAND_TOKENIZE,
    X = SNRQ_COMMAND_EXPORT,
    S = SNRQ_COMMAND_STATUS
};
#define FIELD(name) offsetof(snrq_options, name)

static const option_row table[] = {
    {"output", 'o', TEXT, FIELD(output), NULL, 0, 0, NULL, Q | R | T | X, false, "OUT",
     "what to write: a directory (quantize resumes an unfinished one, export wants an empty one); "
     "of round, a safetensors file; of tokenize, a file"},
    {"calibration", 0, TEXTS, FIELD(calibration), NULL, 0, 0, NULL, Q, false, "TEXT",
     "calibration text (UTF-8), or JSON lines with {\"text\": \"...\"}; either may be gzip; for "
     "several files give it several times, the order counts"},
    {"text", 0, TEXTS, FIELD(text), NULL, 0, 0, NULL, E | T, false, "TEXT",
     "text (UTF-8), or JSON lines with {\"text\": \"...\"}; either may be gzip; may be given "
     "several times: held-out text; of tokenize, what becomes int32 little-endian token ids, with "
     "the special tokens that the model puts around a text"},
    {"text-key", 0, TEXT, FIELD(text_key), NULL, 0, 0, NULL, Q | E | T, false, "KEY",
     "which key of JSON lines holds the text, if it is not \"text\": every line must have it"},
    {"decode", 0, TEXT, FIELD(decode), NULL, 0, 0, NULL, T, false, "IDS",
     "int32 little-endian token ids that become text again, without the special tokens around it"},
    {"token-file", 0, TEXT, FIELD(token_file), NULL, 0, 0, NULL, Q | E, false, "FILE",
     "token ids instead of a text, cut into windows in order: raw little-endian int32, or .npy of "
     "any integer type"},
    {"bits", 0, INTEGER, FIELD(bits), "4", 2, 8, NULL, Q | R, true, "B", "bits per weight"},
    {"group-size", 0, GROUP, FIELD(group_size), "128", 1, 1 << 20, NULL, Q | R, true, "N|channel",
     "columns that share a scale"},
    {"symmetric", 0, FLAG, FIELD(asymmetric), NULL, 0, 0, NULL, Q | R, false, NULL,
     "zero point in the middle of the codes (default)"},
    {"asymmetric", 0, FLAG, FIELD(asymmetric), NULL, 1, 1, NULL, Q | R, true, NULL,
     "a zero point per group"},
    {"method", 0, CHOICE, FIELD(method), "ksnrq", 0, 0, "rtn|ldlq|gptq|gptaq|snrq|ksnrq", Q | R,
     true, "M",
     "rtn: nearest value; ldlq: error feedback; gptq, gptaq: grids fitted on the way; snrq: "
     "shifted "
     "target; ksnrq: snrq with beam search"},
    {"beam", 0, INTEGER, FIELD(beam), "8", 1, 256, NULL, Q | R, true, "K", "beam width of ksnrq"},
    {"alpha", 0, TEXT, FIELD(alpha_text), NULL, 0, 0, NULL, Q | R, true, "MODE",
     "regularization strength: fixed:V | sampled:B | chained | corr [fixed:0.5; gptaq: "
     "fixed:0.25]"},
    {"grid", 0, CHOICE, FIELD(grid), "hessian", 0, 0, "minmax|mse|hessian", Q | R, true, "G",
     "how scales are chosen"},
    {"groups", 0, CHOICE, FIELD(permuted_groups), "original", 0, 0, "original|permuted", Q | R,
     true, "G", "groups of neighbouring columns, or of columns in decision order"},
    {"order", 0, CHOICE, FIELD(natural_order), "diagonal", 0, 0, "diagonal|natural", Q | R, true,
     "O", "decide the columns of largest diag(H) first, or the last one first"},
    {"scale-type", 0, CHOICE, FIELD(scale_type), "f16", 0, 0, "f32|f16|bf16", Q | R, true, "T",
     "what the checkpoint stores scales in (fixed before rounding starts)"},
    {"damp", 0, REAL, FIELD(damp), "0.01", 0, 1, NULL, Q | R, true, "X",
     "damping, as a share of mean(diag H)"},
    {"refine", 0, INTEGER, FIELD(refine), "2", 0, 1000, NULL, Q | R, true, "N",
     "coordinate-descent passes after the search, at most"},
    {"regrid", 0, INTEGER, FIELD(regrid), "3", 0, 100, NULL, Q | R, true, "N",
     "rounds of least-squares scales and another search, at most; the better is kept per row"},
    {"sequences", 0, INTEGER, FIELD(sequences), "0", 0, 1 << 24, NULL, Q | E, true, "N",
     "windows to use; 0: 128 for quantize, all for evaluate"},
    {"length", 0, INTEGER, FIELD(length), "0", 0, 1 << 24, NULL, Q | E, true, "T",
     "tokens per window; 0: the model's context, at most 2048"},
    {"seed", 0, INTEGER, FIELD(seed), "0", 0, 9007199254740992.0, NULL, Q, true, "S",
     "seed of the random windows and of sampled alpha"},
    {"windows", 0, CHOICE, FIELD(consecutive), "random", 0, 0, "random|consecutive", Q, true, "W",
     "where calibration windows start in the text"},
    {"reference", 0, TEXT, FIELD(reference), NULL, 0, 0, NULL, E, false, "MODEL",
     "full-precision model to compare with: KL divergence and top-1 agreement"},
    {"logprobs", 0, TEXT, FIELD(logprobs), NULL, 0, 0, NULL, E, false, "FILE.npy",
     "write the log-probability of every scored token (float32)"},
    {"factor-grid", 0, TEXT, FIELD(factor_grid_text), NULL, 0, 0, NULL, Q | R, true, "RxC",
     "process grid of the factorization; default: by matrix size"},
    {"format", 0, CHOICE, FIELD(format), NULL, 0, 0, "gptq|compressed-tensors|gguf|safetensors", X,
     false, "F", "what to export to; `snrq inspect OUT` tells what is possible"},
    {"max-shard-size", 0, SIZE, FIELD(max_shard_bytes), "5GB", 1, 9e18, NULL, X, false, "BYTES",
     "largest weight file, if no single tensor is larger: a number with KB, MB, GB, KiB, MiB, GiB"},
    {"weights", 0, CHOICE, FIELD(export_float32), "model", 0, 0, "model|f32", X, false, "T",
     "of safetensors: weights rounded to the model's type, or exact in F32"},
    {"embedding-type", 0, CHOICE, FIELD(embedding_type), "model", 0, 0, "model|f16|bf16|q8_0", X,
     false, "T",
     "of gguf: what embeddings and head become (of a model that is not quantized: all matrices); "
     "model: as they are"},
    {"export", 0, TEXT, FIELD(export_path), NULL, 0, 0, NULL, V, false, "DIR",
     "compare this export of OUT with OUT, number by number"},
    {"threads", 0, INTEGER, FIELD(threads), "0", 0, 4096, NULL, Q | E | R, false, "N",
     "threads per rank; 0: OMP_NUM_THREADS, or the node's cores shared evenly"},
    {"json", 0, FLAG, FIELD(json), NULL, 1, 1, NULL, Q | E | I | V | R | T | S, false, NULL,
     "one JSON object on standard output; of quantize, the plan"},
    {"max-time", 0, TIME, FIELD(max_time), NULL, 0, 1e9, NULL, Q, false, "TIME",
     "stop at a safe point before so much time has passed, such as 90s, 45m, 11.5h or 11:30:00; "
     "exit "
     "code 75: run again to go on"},
    {"watchdog", 0, TIME, FIELD(watchdog), "30m", 0, 1e9, NULL, Q, false, "TIME",
     "end with exit code 76, and say where each rank hangs, after so much time in one phase of a "
     "step; 0s: never"},
    {"strict", 0, FLAG, FIELD(strict), NULL, 1, 1, NULL, Q | R, false, NULL,
     "stop with exit code 65 where numerical trouble (dead inputs, too few tokens, zero or "
     "constant "
     "rows, ...) is a warning otherwise"},
    {"keep-activations", 0, FLAG, FIELD(keep_activations), NULL, 1, 1, NULL, Q, false, NULL,
     "keep the activations after the last committed block in OUT until the run is complete: a run "
     "that resumes reads them instead of replaying blocks (same result; --dry-run tells the size)"},
    {"force-unlock", 0, FLAG, FIELD(force_unlock), NULL, 1, 1, NULL, Q, false, NULL,
     "remove the lock of a run on another host that is known to be gone"},
    {"ignore-memory", 0, FLAG, FIELD(ignore_memory), NULL, 1, 1, NULL, Q, false, NULL,
     "start even if the memory needed is more than the node or its limits allow"},
    {"plan-ranks", 0, INTEGER, FIELD(plan_ranks), "0", 0, 1 << 24, NULL, Q, false, "P",
     "with --dry-run: plan for so many ranks; 0: as many as were started"},
    {"plan-nodes", 0, INTEGER, FIELD(plan_nodes), "0", 0, 1 << 20, NULL, Q, false, "N",
     "with --dry-run: on so many nodes"},
    {"dry-run", 0, FLAG, FIELD(dry_run), NULL, 1, 1, NULL, Q, false, NULL,
     "check everything, print the plan, write nothing"},
};
enum { ROWS = sizeof table / sizeof table[0] };

/* Where the default depends on other options. */
static const struct {
    const char *name, *otherwise, *when;
} exceptions[] = {{"grid", "minmax", "for rtn, ldlq, gptq, gptaq"},
                  {"refine", "0", "for rtn, ldlq, gptq, gptaq"},
                  {"regrid", "0", "for these and other grids than hessian"}};
enum { GRID, REFINE, REGRID, EXCEPTIONS };

typedef struct command_row {
    const char *name, *argument;
    snrq_command command;
    const char *help, *example;
} command_row;

static const command_row commands[] = {
    {"quantize", "MODEL", SNRQ_COMMAND_QUANTIZE,
     "quantize a Hugging Face checkpoint into OUT; resumes by itself",
     "mpirun -n 2 snrq quantize MODEL --calibration text.txt -o OUT --bits 3 --group-size 64"},
    {"evaluate", "MODEL|OUT", SNRQ_COMMAND_EVALUATE,
     "perplexity over non-overlapping windows; KL to a reference model",
     "mpirun -n 2 snrq evaluate OUT --text held-out.txt --reference MODEL"},
    {"inspect", "MODEL|OUT", SNRQ_COMMAND_INSPECT, "what it is: shapes, sizes, quality per module",
     "snrq inspect OUT"},
    {"round", "CASE", SNRQ_COMMAND_ROUND,
     "round one layer from W, H, D, E in a safetensors file; for tests and research",
     "snrq round CASE.safetensors --bits 3 --group-size 64 --method ksnrq -o RESULT.safetensors"},
    {"tokenize", "MODEL", SNRQ_COMMAND_TOKENIZE,
     "text to a file of token ids, as --token-file reads it, and back",
     "snrq tokenize MODEL --text text.txt -o ids.i32\n  snrq tokenize MODEL --decode ids.i32 -o "
     "text.txt"},
    {"verify", "OUT", SNRQ_COMMAND_VERIFY,
     "check every committed file against the manifest, or an export against OUT",
     "snrq verify OUT --export DIR"},
    {"export", "OUT", SNRQ_COMMAND_EXPORT, "write a checkpoint for inference engines, losslessly",
     "mpirun -n 2 snrq export OUT --format gptq -o DIR"},
    {"status", "OUT", SNRQ_COMMAND_STATUS,
     "progress of a run beside it, without MPI: done, rate, time left, last error",
     "snrq status OUT"},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

/* Position of `value` among "a|b|c", or -1. */
static int64_t choice_index(const char *choices, const char *value)
{
    size_t length = strlen(value);
    int64_t index = 0;
    for (const char *at = choices; at != NULL; index++) {
        const char *end = strchr(at, '|');
        size_t size = end ? (size_t)(end - at) : strlen(at);
        if (size == length && memcmp(at, value, size) == 0) return index;
        at = end ? end + 1 : NULL;
    }
    return -1;
}

/* Copies the index-th of "a|b|c" to out. */
static void choice_name(const char *choices, int64_t index, char *out, size_t size)
{
    const char *at = choices;
    while (index-- > 0) at = strchr(at, '|') + 1;
    const char *end = strchr(at, '|');
    snprintf(out, size, "%.*s", end ? (int)(end - at) : (int)strlen(at), at);
}

static snrq_status parse_number(const option_row *row, const char *value, double *out)
{
    char *end = NULL;
    errno = 0;
    *out = strtod(value, &end);
    bool whole = row->kind == REAL || *out == floor(*out);
    if (end == value || *end != '\0' || errno != 0 || !whole ||
        !(*out >= row->low && *out <= row->high))
        return snrq_fail(SNRQ_USAGE, "--%s: expected %s from %.15g to %.15g, found '%s'", row->name,
                         row->kind == REAL ? "a number" : "a whole number", row->low, row->high,
                         value);
    return SNRQ_OK;
}

/* A number of bytes with an optional unit: 5GB, 500 MB, 2GiB. */
static snrq_status parse_size(const option_row *row, const char *value, int64_t *out)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"", 1},      {"KB", 1e3},      {"MB", 1e6},      {"GB", 1e9},
                 {"TB", 1e12}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
    char *end = NULL;
    double number = strtod(value, &end);
    while (*end == ' ') end++;
    for (size_t i = 0; i < sizeof units / sizeof units[0] && end != value; i++) {
        double bytes = number * units[i].bytes;
        if (strcmp(end, units[i].name) != 0 || !(bytes >= row->low && bytes <= row->high)) continue;
        *out = (int64_t)bytes;
        return SNRQ_OK;
    }
    return snrq_fail(SNRQ_USAGE,
                     "--%s: expected a number of bytes such as 5GB, 500MB or 2GiB, found '%s'",
                     row->name, value);
}

/* "90s", "45m", "11.5h" or "[H:]MM:SS". A bare number is refused: it is minutes to Slurm, and
 * seconds to others. */
static snrq_status parse_time(const option_row *row, const char *value, double *out)
{
    char *end = NULL, rest;
    int hours = 0, minutes = 0, seconds = 0;
    double unit = 0;
    errno = 0;
    *out = strtod(value, &end);
    if (end != value && errno == 0 && end[0] != '\0' && end[1] == '\0')
        unit = end[0] == 's' ? 1 : end[0] == 'm' ? 60 : end[0] == 'h' ? 3600 : 0;
    *out *= unit;
    if (unit == 0 && sscanf(value, "%6d:%2d:%2d%c", &hours, &minutes, &seconds, &rest) != 3) {
        hours = 0;
        if (sscanf(value, "%6d:%2d%c", &minutes, &seconds, &rest) != 2) minutes = -1;
    }
    if (unit == 0) *out = hours * 3600.0 + minutes * 60.0 + seconds;
    if (hours < 0 || minutes < 0 || seconds < 0 || seconds > 59 ||
        !(*out >= row->low && *out <= row->high))
        return snrq_fail(SNRQ_USAGE,
                         "--%s: expected a time such as 90s, 45m, 11.5h or 11:30:00, found '%s'",
                         row->name, value);
    return SNRQ_OK;
}

static snrq_status add_text(const char **first, const char *value, snrq_text_paths *texts)
{
    if (texts->count == SNRQ_MOST_TEXTS)
        return snrq_fail(SNRQ_USAGE, "%s is text number %d: expected at most %d; join some", value,
                         texts->count + 1, (int)SNRQ_MOST_TEXTS);
    if (*first == NULL) *first = value;
    texts->path[texts->count++] = value;
    return SNRQ_OK;
}

static snrq_status set_value(const option_row *row, const char *value, snrq_options *o)
{
    char *field = (char *)o + row->field;
    double number = 0;
    switch (row->kind) {
    case TEXT:
        *(const char **)(void *)field = value;
        return SNRQ_OK;
    case TEXTS:
        return add_text((const char **)(void *)field, value, &o->texts);
    case FLAG:
        *(bool *)(void *)field = row->low != 0;
        return SNRQ_OK;
    case REAL:
        SNRQ_TRY(parse_number(row, value, &number));
        *(double *)(void *)field = number;
        return SNRQ_OK;
    case TIME:
        return parse_time(row, value, (double *)(void *)field);
    case GROUP:
        if (strcmp(value, "channel") == 0) {
            *(int64_t *)(void *)field = 0;
            return SNRQ_OK;
        }
        __attribute__((fallthrough));
    case INTEGER:
        SNRQ_TRY(parse_number(row, value, &number));
        *(int64_t *)(void *)field = (int64_t)number;
        return SNRQ_OK;
    case SIZE:
        return parse_size(row, value, (int64_t *)(void *)field);
    case CHOICE:
        *(int64_t *)(void *)field = choice_index(row->choices, value);
        if (*(int64_t *)(void *)field < 0)
            return snrq_fail(SNRQ_USAGE, "--%s: expected one of %s, found '%s'", row->name,
                             row->choices, value);
        return SNRQ_OK;
    }
    return snrq_fail(SNRQ_INTERNAL, "--%s: no such kind of option", row->name);
}

/* The baselines do what their papers do; scales from the range of the weights stay as they are.
 * given: which rows of the table were on the command line. */
static snrq_status apply_exceptions(const bool given[ROWS], snrq_options *o)
{
    bool baseline = o->method != SNRQ_SNRQ && o->method != SNRQ_KSNRQ;
    for (int i = 0; i < EXCEPTIONS; i++) {
        bool applies = baseline || (i == REGRID && o->grid != SNRQ_QUANT_GRID_HESSIAN);
        for (int row = 0; row < ROWS && applies; row++)
            if (!given[row] && strcmp(table[row].name, exceptions[i].name) == 0)
                SNRQ_TRY(set_value(&table[row], exceptions[i].otherwise, o));
    }
    return SNRQ_OK;
}

static snrq_status parse_alpha(snrq_options *o)
{
    const option_row fixed = {.name = "alpha fixed", .kind = REAL, .low = 0, .high = 1};
    const option_row sampled = {.name = "alpha sampled", .kind = REAL, .low = 0.1, .high = 1000};
    if (o->alpha_text == NULL) o->alpha_text = o->method == SNRQ_GPTAQ ? "fixed:0.25" : "fixed:0.5";
    const char *text = o->alpha_text;
    o->alpha_value = 0;
    if (strncmp(text, "fixed:", 6) == 0) {
        o->alpha_mode = SNRQ_ALPHA_FIXED;
        return parse_number(&fixed, text + 6, &o->alpha_value);
    }
    if (strncmp(text, "sampled:", 8) == 0) {
        o->alpha_mode = SNRQ_ALPHA_SAMPLED;
        return parse_number(&sampled, text + 8, &o->alpha_value);
    }
    o->alpha_mode = strcmp(text, "chained") == 0 ? SNRQ_ALPHA_CHAINED : SNRQ_ALPHA_CORR;
    if (o->alpha_mode == SNRQ_ALPHA_CORR && strcmp(text, "corr") != 0)
        return snrq_fail(SNRQ_USAGE,
                         "--alpha: expected fixed:V, sampled:B, chained or corr, found '%s'", text);
    if (o->method == SNRQ_GPTAQ)
        return snrq_fail(SNRQ_USAGE, "--alpha %s: gptaq takes fixed:V or sampled:B", text);
    return SNRQ_OK;
}

static snrq_status parse_factor_grid(snrq_options *o)
{
    char rest;
    if (o->factor_grid_text == NULL) return SNRQ_OK;
    if (sscanf(o->factor_grid_text, "%4dx%4d%c", &o->factor_rows, &o->factor_columns, &rest) != 2 ||
        o->factor_rows < 1 || o->factor_columns < 1)
        return snrq_fail(SNRQ_USAGE, "--factor-grid: expected ROWSxCOLUMNS such as 2x4, found '%s'",
                         o->factor_grid_text);
    return SNRQ_OK;
}

static const command_row *find_command(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static void print_option(FILE *f, const option_row *row)
{
    char left[64], letter[8] = "    ";
    if (row->letter != 0) snprintf(letter, sizeof letter, "-%c, ", row->letter);
    snprintf(left, sizeof left, "%s--%s%s%s", letter, row->name, row->unit ? " " : "",
             row->unit ? row->unit : "");
    fprintf(f, "  %-32s %s", left, row->help);
    if (row->choices) fprintf(f, " (%s)", row->choices);
    if (row->fallback) fprintf(f, " [%s", row->fallback);
    for (int i = 0; i < EXCEPTIONS; i++)
        if (strcmp(exceptions[i].name, row->name) == 0)
            fprintf(f, "; %s %s", exceptions[i].otherwise, exceptions[i].when);
    if (row->fallback) fputc(']', f);
    fputc('\n', f);
}

static snrq_status make_help(const command_row *command, char **help)
{
    size_t bytes = 0;
    FILE *f = open_memstream(help, &bytes);
    if (f == NULL) return snrq_fail(SNRQ_INTERNAL, "cannot allocate the help text");
    if (command == NULL) {
        fprintf(f,
                "snrq %s - distributed post-training quantization of large language models\n\n"
                "usage: [mpirun -n P] snrq COMMAND ARGUMENT [options]\n\ncommands:\n",
                SNRQ_VERSION);
        for (int i = 0; i < COMMANDS; i++)
            fprintf(f, "  %-9s %-10s %s\n", commands[i].name, commands[i].argument,
                    commands[i].help);
        fputs("\n`snrq COMMAND --help` lists the options of a command. Exit codes: 0 complete, "
              "64 usage, 65 bad input data, 66 missing input, "
              "73 cannot\n"
              "write, 74 I/O error, 75 stopped on request (run again to go on), 76 hung "
              "(--watchdog), 70 internal error.\n",
              f);
    } else {
        fprintf(f, "usage: [mpirun -n P] snrq %s %s [options]\n%s.\n\noptions [default]:\n",
                command->name, command->argument, command->help);
        for (int i = 0; i < ROWS; i++)
            if (table[i].commands & (unsigned)command->command) print_option(f, &table[i]);
        fprintf(f, "\nexample:\n  %s\n", command->example);
    }
    if (fclose(f) != 0) return snrq_fail(SNRQ_INTERNAL, "cannot allocate the help text");
    return SNRQ_OK;
}

/* What the command cannot do without. */
static snrq_status check_required(const command_row *command, const snrq_options *o)
{
    if (o->path == NULL)
        return snrq_fail(SNRQ_USAGE, "%s: expected %s, found nothing; example: %s", command->name,
                         command->argument, command->example);
    if (o->command == SNRQ_COMMAND_QUANTIZE) {
        if (o->output == NULL && !o->dry_run)
            return snrq_fail(SNRQ_USAGE, "quantize: -o OUT is missing; example: %s",
                             command->example);
        if ((o->plan_ranks > 0 || o->plan_nodes > 0) && !o->dry_run)
            return snrq_fail(SNRQ_USAGE, "quantize: --plan-ranks and --plan-nodes need --dry-run");
        if (o->plan_nodes > (o->plan_ranks > 0 ? o->plan_ranks : o->plan_nodes))
            return snrq_fail(SNRQ_USAGE,
                             "quantize: --plan-nodes %lld is more than --plan-ranks %lld",
                             (long long)o->plan_nodes, (long long)o->plan_ranks);
        if ((o->calibration == NULL) == (o->token_file == NULL))
            return snrq_fail(SNRQ_USAGE,
                             "quantize: give either --calibration TEXT or --token-file FILE");
    }
    if (o->command == SNRQ_COMMAND_EXPORT && (o->output == NULL || o->format < 0))
        return snrq_fail(SNRQ_USAGE, "export: %s is missing; example: %s",
                         o->output == NULL ? "-o DIR" : "--format F", command->example);
    if (o->export_float32 && o->format != SNRQ_FORMAT_SAFETENSORS)
        return snrq_fail(SNRQ_USAGE, "export: --weights f32 belongs to --format safetensors");
    if (o->embedding_type != SNRQ_EMBEDDING_MODEL && o->format != SNRQ_FORMAT_GGUF)
        return snrq_fail(SNRQ_USAGE, "export: --embedding-type belongs to --format gguf");
    if (o->command == SNRQ_COMMAND_EVALUATE && (o->text == NULL) == (o->token_file == NULL))
        return snrq_fail(SNRQ_USAGE, "evaluate: give either --text TEXT or --token-file FILE");
    if (o->text_key != NULL && o->texts.count == 0)
        return snrq_fail(SNRQ_USAGE, "%s: --text-key belongs to texts that are JSON lines",
                         command->name);
    if (o->command == SNRQ_COMMAND_TOKENIZE) {
        if ((o->text == NULL) == (o->decode == NULL))
            return snrq_fail(SNRQ_USAGE, "tokenize: give either --text TEXT or --decode IDS");
        if (o->output == NULL)
            return snrq_fail(SNRQ_USAGE, "tokenize: -o OUT is missing; example: %s",
                             command->example);
    }
    return SNRQ_OK;
}

static snrq_status parse_arguments(const command_row *command, int argc, char **argv,
                                   snrq_options *o, bool given[ROWS], bool *help)
{
    struct option longs[ROWS + 2];
    char shorts[8 + 2 * ROWS] = ":h";
    memset(longs, 0, sizeof longs);
    for (int i = 0; i < ROWS; i++) {
        int argument = table[i].kind == FLAG ? no_argument : required_argument;
        longs[i] = (struct option){table[i].name, argument, NULL, 1000 + i};
        if (table[i].letter != 0)
            snprintf(shorts + strlen(shorts), 4, "%c%s", table[i].letter, argument ? ":" : "");
    }
    longs[ROWS] = (struct option){"help", no_argument, NULL, 'h'};
    optind = 1;
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        if (c == 'h') {
            *help = true;
            return SNRQ_OK;
        }
        if (c == ':')
            return snrq_fail(SNRQ_USAGE, "%s: option %s needs a value", command->name,
                             argv[optind - 1]);
        int row = c - 1000;
        for (int i = 0; i < ROWS && row < 0; i++)
            if (table[i].letter == (char)c && c != '?') row = i;
        if (c == '?' || row < 0)
            return snrq_fail(SNRQ_USAGE, "%s: unknown option %s; `snrq %s --help` lists them",
                             command->name, argv[optind - 1], command->name);
        if (!(table[row].commands & (unsigned)command->command))
            return snrq_fail(SNRQ_USAGE,
                             "%s: --%s does not belong to this command; `snrq %s --help`",
                             command->name, table[row].name, command->name);
        SNRQ_TRY(set_value(&table[row], optarg, o));
        given[row] = true;
    }
    if (optind < argc) o->path = argv[optind++];
    if (optind < argc)
        return snrq_fail(SNRQ_USAGE, "%s: expected one %s, found also '%s'%s", command->name,
                         command->argument, argv[optind],
                         o->texts.count > 0 ? "; each of several texts needs its own --calibration "
                                              "or --text"
                                            : "");
    return SNRQ_OK;
}

snrq_status snrq_options_parse(int argc, char **argv, snrq_options *o, char **help)
{
    memset(o, 0, sizeof *o);
    o->format = -1;
    *help = NULL;
    for (int i = 0; i < ROWS; i++)
        if (table[i].fallback != NULL) SNRQ_TRY(set_value(&table[i], table[i].fallback, o));
    if (argc < 2) {
        SNRQ_TRY(make_help(NULL, help));
        return snrq_fail(SNRQ_USAGE, "no command given; `snrq --help` lists them");
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return make_help(argc > 2 ? find_command(argv[2]) : NULL, help);
    if (strcmp(argv[1], "--version") == 0) {
        *help = strdup("snrq " SNRQ_VERSION "\n");
        return *help ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "out of memory");
    }
    const command_row *command = find_command(argv[1]);
    if (command == NULL)
        return snrq_fail(SNRQ_USAGE,
                         "unknown command '%s'; expected quantize, evaluate, inspect, verify, "
                         "export, round, tokenize or status",
                         argv[1]);
    o->command = command->command;
    bool wants_help = false, given[ROWS] = {false};
    SNRQ_TRY(parse_arguments(command, argc - 1, argv + 1, o, given, &wants_help));
    if (wants_help) return make_help(command, help);
    SNRQ_TRY(apply_exceptions(given, o));
    SNRQ_TRY(parse_alpha(o));
    SNRQ_TRY(parse_factor_grid(o));
    return check_required(command, o);
}

json_t *snrq_options_stored(const snrq_options *o)
{
    json_t *object = json_object();
    for (int i = 0; i < ROWS && object != NULL; i++) {
        const option_row *row = &table[i];
        const char *field = (const char *)o + row->field;
        char name[32];
        json_t *value = NULL;
        if (!row->stored || !(row->commands & (unsigned)o->command)) continue;
        switch (row->kind) {
        case TEXTS:
        case TEXT: {
            const char *text = *(const char *const *)(const void *)field;
            value = text ? json_string(text) : json_null();
            break;
        }
        case FLAG:
            value = json_boolean(*(const bool *)(const void *)field);
            break;
        case TIME:
        case REAL:
            value = json_real(*(const double *)(const void *)field);
            break;
        case CHOICE:
            choice_name(row->choices, *(const int64_t *)(const void *)field, name, sizeof name);
            value = json_string(name);
            break;
        case GROUP:
        case SIZE:
        case INTEGER:
            value = json_integer(*(const int64_t *)(const void *)field);
            if (row->kind == GROUP && json_integer_value(value) == 0) {
                json_decref(value);
                value = json_string("channel");
            }
            break;
        }
        json_object_set_new(object, row->name, value);
    }
    return object;
}
