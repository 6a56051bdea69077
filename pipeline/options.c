/* The table of options, and what is made from it; see options.h. */
#include "pipeline/options.h"

#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "mpi/algebra/kernels.h"
#include "pipeline/export/settings.h"
#include "pipeline/option_effects.h"
#include "pipeline/option_file.h"
#include "pipeline/option_row.h"

enum {
    Q = SNRQ_COMMAND_QUANTIZE,
    E = SNRQ_COMMAND_EVALUATE,
    I = SNRQ_COMMAND_INSPECT,
    V = SNRQ_COMMAND_VERIFY,
    R = SNRQ_COMMAND_ROUND,
    T = SNRQ_COMMAND_TOKENIZE,
    X = SNRQ_COMMAND_EXPORT,
    S = SNRQ_COMMAND_STATUS,
    P = SNRQ_COMMAND_REPORT,
    N = SNRQ_COMMAND_RUNS,
    B = SNRQ_COMMAND_BENCH,
    ALL = Q | E | I | V | R | T | X | S | P | N | B
};
#define FIELD(name) offsetof(snrq_options, name)

static const snrq_option_row table[] = {
    {"output", 'o', TEXT, FIELD(output), NULL, 0, 0, NULL, Q | R | T | X | P | N | B, false, "OUT",
     "what to write: a directory (quantize resumes an unfinished one, export wants an empty one, "
     "report and runs replace their own files); of round, a safetensors file; of tokenize, a file"},
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
     "regularization strength: auto, by what the tokens support | fixed:V | sampled:B | chained | "
     "corr [auto; of round and with --paper fixed:0.5; gptaq: fixed:0.25]"},
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
    {"shrink", 0, SHARE, FIELD(shrink), "auto", 0, 100, NULL, Q | R, true, "auto|X",
     "round with H + X diag(H): more, the fewer the calibration tokens"},
    {"compensate", 0, SHARE, FIELD(compensate), "auto", 0, 1, NULL, Q, true, "auto|B",
     "how much of the residual stream's error o_proj and down_proj make up for; auto: by what the "
     "tokens support"},
    {"paper", 0, FLAG, FIELD(paper), NULL, 1, 1, NULL, Q | R, false, NULL,
     "the papers' method: --alpha fixed:0.5 --grid minmax --groups permuted --refine 0 --regrid 0 "
     "--shrink 0 --compensate 0, but for those that are given"},
    {"refine", 0, INTEGER, FIELD(refine), "2", 0, 1000, NULL, Q | R, true, "N",
     "coordinate-descent passes after the search, at most"},
    {"regrid", 0, INTEGER, FIELD(regrid), "3", 0, 100, NULL, Q | R, true, "N",
     "rounds of least-squares scales and another search, at most; the better is kept per row"},
    {"baseline-grid", 0, FLAG, FIELD(baseline_grid), NULL, 1, 1, NULL, Q | R, false, NULL,
     "for a comparison in which only the methods differ: scales, refinement and damping of every "
     "method are those of the baselines, --grid minmax --refine 0 --regrid 0 --damp 0.01 --shrink "
     "0 "
     "--compensate 0, and --alpha fixed:0.5 if no other is given"},
    {"sequences", 0, INTEGER, FIELD(sequences), "0", 0, 1 << 24, NULL, Q | E, true, "N",
     "windows to use; 0: 128 for quantize, all for evaluate"},
    {"held-out", 0, INTEGER, FIELD(held_out), "8", 0, 1 << 20, NULL, Q, true, "N",
     "more windows that nothing is fitted to, to tell how far the errors hold for other text: at "
     "most one for 16 of --sequences, and no more than the text has beside them"},
    {"length", 0, INTEGER, FIELD(length), "0", 0, 1 << 24, NULL, Q | E, true, "T",
     "tokens per window; 0: the model's context, at most 2048"},
    {"seed", 0, INTEGER, FIELD(seed), "0", 0, 9007199254740992.0, NULL, Q | E, true, "S",
     "seed of the random windows and of sampled alpha; of evaluate, of the windows of c4"},
    {"windows", 0, CHOICE, FIELD(consecutive), "random", 0, 0, "random|consecutive", Q, true, "W",
     "where calibration windows start in the text"},
    {"sampling", 0, CHOICE, FIELD(sampling), "none", 0, 0, "none|c4|c4-snrq|wikitext2", Q, true,
     "S",
     "draw calibration windows as published programs do, so that a seed means the same windows: "
     "c4, from the documents of JSON lines as the GPTQ code; c4-snrq, as the SNRQ code; wikitext2, "
     "from the text as a whole; none: as --windows says"},
    {"protocol", 0, TEXT, FIELD(protocol), NULL, 0, 0, NULL, E, false, "P,...",
     "how texts become windows, to be compared with published perplexities: wikitext2, c4, "
     "c4-snrq, c4-new (see docs/evaluation.md); several, with commas between them, read one --text "
     "or each its own, and load the model once. Without this: consecutive windows"},
    {"tasks", 0, TEXT, FIELD(tasks), NULL, 0, 0, NULL, E, false, "T,...",
     "zero-shot tasks as lm-evaluation-harness scores them, with commas between them: arc_easy, "
     "arc_challenge, boolq, hellaswag, piqa, winogrande (the six of the papers, with their "
     "average), openbookqa, lambada_openai, wikitext"},
    {"task-dir", 0, TEXT, FIELD(task_dir), NULL, 0, 0, NULL, E, false, "DIR",
     "where the tasks are: a file TASK.jsonl or TASK.jsonl.gz for each, with the rows of its data "
     "set (docs/evaluation.md says how to get them)"},
    {"limit", 0, INTEGER, FIELD(limit), "0", 0, 1 << 30, NULL, E, false, "N",
     "the first N items of each task; 0: all"},
    {"task-bos", 0, CHOICE, FIELD(task_bos_off), "tokenizer", 0, 0, "tokenizer|off", E, false, "B",
     "of tasks, whether texts begin with BOS: as the tokenizer says (lm-evaluation-harness since "
     "0.4.9.2), or never (0.4.9.1 and the published figures of SNRQ)"},
    {"samples", 0, TEXT, FIELD(samples), NULL, 0, 0, NULL, E, false, "FILE.jsonl",
     "write one JSON line for each window and each item of a task: log-probabilities, choices, "
     "where it was drawn"},
    {"reference", 0, TEXT, FIELD(reference), NULL, 0, 0, NULL, E, false, "MODEL",
     "full-precision model to compare with: KL divergence and top-1 agreement"},
    {"logprobs", 0, TEXT, FIELD(logprobs), NULL, 0, 0, NULL, E, false, "FILE.npy",
     "write the log-probability of every scored token (float32)"},
    {"layer-groups", 0, COUNT, FIELD(layer_groups), "1", 1, 4096, NULL, Q, true, "G|auto",
     "divide ranks and blocks into G groups that work at the same time, for more ranks than "
     "--sequences; the quantized stream starts anew in each, which costs some quality; auto: as "
     "many "
     "as the plan finds best"},
    {"expert-tokens", 0, COUNT, FIELD(expert_tokens), "auto", 1, 1 << 30, NULL, Q, true, "N|auto",
     "of mixtures of experts: an expert that is sent fewer tokens is calibrated on those with the "
     "next best scores as well; auto: as many as it has inputs"},
    {"expert-weights", 0, CHOICE, FIELD(weighted_experts), "router", 0, 0, "none|router", Q, true,
     "W", "of mixtures of experts: tokens of an expert count the same, or by the router's weight"},
    {"recipe", 0, TEXT, FIELD(recipe), NULL, 0, 0, NULL, Q, false, "FILE",
     "other bits, groups, methods for some modules: JSON rules such as "
     "{\"modules\": \"*.down_proj\", \"blocks\": \"0-3\", \"bits\": 4}; the first that matches "
     "counts (docs/operations.md)"},
    {"factor-grid", 0, TEXT, FIELD(factor_grid_text), NULL, 0, 0, NULL, Q | R, false, "RxC",
     "process grid of the factorization, for speed alone; default: by matrix size"},
    {"format", 0, CHOICE, FIELD(format), NULL, 0, 0, "gptq|compressed-tensors|gguf|safetensors", X,
     false, "F", "what to export to; `snrq inspect OUT` tells what is possible"},
    {"for", 0, CHOICE, FIELD(engine), NULL, 0, 0, "transformers|gptqmodel|vllm|vllm-cpu|llama.cpp",
     X, false, "ENGINE",
     "refuse, before the work, what this engine is known not to load, and name what it loads; "
     "without this, notes tell of such engines (docs/exporting.md has the table)"},
    {"zero-points", 0, CHOICE, FIELD(fold_zeros), "stored", 0, 0, "stored|folded", X, false, "Z",
     "of an asymmetric model in gptq or compressed-tensors: stored beside the codes, or folded "
     "into them: symmetric codes of 4 bits (of 2 and 3) or 8 (of 4 to 7) for the same weights, "
     "which more engines load"},
    {"max-shard-size", 0, SIZE, FIELD(max_shard_bytes), "5GB", 1, 9e18, NULL, X, false, "BYTES",
     "largest weight file, if no single tensor is larger: a number with KB, MB, GB, KiB, MiB, GiB"},
    {"weights", 0, CHOICE, FIELD(export_float32), "model", 0, 0, "model|f32", X, false, "T",
     "of safetensors: weights rounded to the model's type, or exact in F32"},
    {"embedding-type", 0, CHOICE, FIELD(embedding_type), "model", 0, 0, "model|f16|bf16|q8_0", X,
     false, "T",
     "of gguf: what embeddings and head become (of a model that is not quantized: all matrices); "
     "model: as they are"},
    {"tokenizer", 0, TEXT, FIELD(tokenizer), NULL, 0, 0, NULL, X | V, false, "DIR",
     "take the tokenizer, chat templates and generation_config.json from DIR instead; of verify: "
     "the export was made so"},
    {"export", 0, TEXT, FIELD(export_path), NULL, 0, 0, NULL, V, false, "DIR",
     "compare this export of OUT with OUT, number by number"},
    {"threads", 0, INTEGER, FIELD(threads), "0", 0, 4096, NULL, Q | E | R | B, false, "N",
     "threads per rank; 0: OMP_NUM_THREADS, or the node's cores shared evenly"},
    {"json", 0, FLAG, FIELD(json), NULL, 1, 1, NULL, Q | E | I | V | R | T | S | B, false, NULL,
     "one JSON object on standard output; of quantize, the plan"},
    {"max-time", 0, TIME, FIELD(max_time), NULL, 0, 1e9, NULL, Q, false, "TIME",
     "stop at a safe point before so much time has passed, such as 90s, 45m, 11.5h or 11:30:00; "
     "exit "
     "code 75: run again to go on"},
    {"watchdog", 0, TIME, FIELD(watchdog), "30m", 0, 1e9, NULL, Q, false, "TIME",
     "end with exit code 76, and say where each rank hangs, after so much time in one phase of a "
     "step; 0s: never"},
    {"strict", 0, FLAG, FIELD(strict), NULL, 1, 1, NULL, Q | E | R, false, NULL,
     "stop with exit code 65 where something is a warning otherwise: numerical trouble (dead "
     "inputs, too few tokens, zero or constant rows, ...), or a checkpoint that contradicts its "
     "config.json"},
    {"ignore-unused-layers", 0, FLAG, FIELD(ignore_unused_layers), NULL, 1, 1, NULL, Q | E | X,
     false, NULL,
     "use the first num_hidden_layers layers of a checkpoint that has more; without this, such a "
     "checkpoint is refused with exit code 65, because config.json is mostly wrong then"},
    {"keep-activations", 0, FLAG, FIELD(keep_activations), NULL, 1, 1, NULL, Q, false, NULL,
     "keep the activations after the last committed block in OUT until the run is complete: a run "
     "that resumes reads them instead of replaying blocks (same result; --dry-run tells the size)"},
    {"redo", 0, TEXT, FIELD(redo_text), NULL, 0, 0, NULL, Q, false, "BLOCK",
     "make a block of OUT and those after it again, such as 3 for block-00003.h5, and damaged "
     "files "
     "of no block; `snrq verify OUT` names the one to give. A run that is interrupted goes on with "
     "the same command"},
    {"data", 0, TEXT, FIELD(data), NULL, 0, 0, NULL, N, false, "DIR",
     "where the models and texts are that TABLE names by relative paths; default: where TABLE "
     "lies"},
    {"full", 0, FLAG, FIELD(full), NULL, 1, 1, NULL, S, false, NULL,
     "read all files to find changed ones, as verify does; otherwise their sizes are compared"},
    {"force-unlock", 0, FLAG, FIELD(force_unlock), NULL, 1, 1, NULL, Q, false, NULL,
     "remove the lock of a run on another host that is known to be gone"},
    {"ignore-memory", 0, FLAG, FIELD(ignore_memory), NULL, 1, 1, NULL, Q, false, NULL,
     "start even if the memory needed is more than the node or its limits allow"},
    {"plan-ranks", 0, INTEGER, FIELD(plan_ranks), "0", 0, 1 << 24, NULL, Q, false, "P",
     "with --dry-run: plan for so many ranks; 0: as many as were started"},
    {"plan-nodes", 0, INTEGER, FIELD(plan_nodes), "0", 0, 1 << 20, NULL, Q, false, "N",
     "with --dry-run: on so many nodes"},
    {"network", 0, TEXT, FIELD(network), NULL, 0, 0, NULL, Q, false, "SECONDS,BYTES",
     "with --dry-run and plan: latency and bytes per second of messages of a rank, such as "
     "2e-6,12.5e9"},
    {"machine", 0, TEXT, FIELD(machine), NULL, 0, 0, NULL, Q, false, "FILE",
     "with --dry-run and plan: the speed of the machine that `snrq bench machine -o FILE` measured "
     "on the nodes that will be used; otherwise of those that the plan is made on"},
    {"dry-run", 0, FLAG, FIELD(dry_run), NULL, 1, 1, NULL, Q, false, NULL,
     "check everything, print the plan, say what would become of OUT, write nothing"},
    {"options", 0, TEXT, FIELD(options_file), NULL, 0, 0, NULL, ALL, false, "FILE",
     "read options from FILE: one on a line, written as here; a line that begins with # is a "
     "comment. An option given here and there is given twice, which is refused"},
    {"print-options", 0, FLAG, FIELD(print_options), NULL, 1, 1, NULL, ALL, false, NULL,
     "print every option with its value, as --options reads it, and do nothing else"},
};
enum { ROWS = sizeof table / sizeof table[0] };

/* Where the default depends on other options. */
static const struct {
    const char *name, *otherwise, *when;
} exceptions[] = {{"grid", "minmax", "for rtn, ldlq, gptq, gptaq"},
                  {"refine", "0", "for rtn, ldlq, gptq, gptaq"},
                  {"regrid", "0", "for these and other grids than hessian"},
                  {"shrink", "0", "for these, and of round"}};
enum { GRID, REFINE, REGRID, SHRINK, EXCEPTIONS };

/* What --paper means, but for what is given. */
static const struct {
    const char *name, *value;
} paper[] = {{"grid", "minmax"}, {"groups", "permuted"}, {"refine", "0"},
             {"regrid", "0"},    {"shrink", "0"},        {"compensate", "0"}};
enum { PAPER = sizeof paper / sizeof *paper };

typedef struct command_row {
    const char *name, *argument;
    snrq_command command;
    const char *help, *example;
} command_row;

static const command_row commands[] = {
    {"quantize", "MODEL", SNRQ_COMMAND_QUANTIZE,
     "quantize a Hugging Face checkpoint into OUT; resumes by itself",
     "mpirun -n 2 snrq quantize MODEL --calibration text.txt -o OUT --bits 3 --group-size 64"},
    {"plan", "MODEL", SNRQ_COMMAND_QUANTIZE,
     "what quantize would cost: time and messages by phase, memory, the best ranks and threads",
     "snrq plan MODEL --calibration text.txt --plan-ranks 64 --plan-nodes 8 --machine FILE"},
    {"evaluate", "MODEL|OUT", SNRQ_COMMAND_EVALUATE,
     "perplexity over windows, KL to a reference model, zero-shot tasks",
     "mpirun -n 2 snrq evaluate OUT --text held-out.txt --reference MODEL\n"
     "  mpirun -n 2 snrq evaluate OUT --protocol wikitext2,c4 --text wiki.test.raw --text "
     "c4-validation.jsonl.gz\n"
     "  mpirun -n 2 snrq evaluate OUT --tasks arc_easy,piqa --task-dir DIR"},
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
     "what became of a run, or how far it is: state, rate, time left, last error, what to do",
     "snrq status OUT"},
    {"report", "OUT|ROOT", SNRQ_COMMAND_REPORT,
     "tables and pictures of a run, or of a table of runs, finished or not",
     "snrq report ROOT -o DIR"},
    {"bench", "machine", SNRQ_COMMAND_BENCH,
     "measure products, memory, messages and files of the ranks it runs on, for plan --machine",
     "mpirun -n 64 snrq bench machine -o machine.json"},
    {"runs", "TABLE", SNRQ_COMMAND_RUNS,
     "lay out the runs of a table in ROOT, for slurm/reproduce, which starts them",
     "snrq runs TABLE -o ROOT --data DIR"},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

enum { NOT_GIVEN = 0, COMMAND_LINE = -1 };
typedef int given_rows[ROWS]; /* where a row was given: a line of the file, or one of these */

static snrq_status set_unless_given(const given_rows given, const char *name, const char *value,
                                    snrq_options *o)
{
    for (int row = 0; row < ROWS; row++)
        if (given[row] == NOT_GIVEN && strcmp(table[row].name, name) == 0)
            return snrq_option_set(&table[row], value, o);
    return SNRQ_OK;
}

/* --baseline-grid: what it stands for, unless something else was given, which is refused. */
static snrq_status apply_baseline(const given_rows given, snrq_options *o)
{
    static const struct {
        const char *name, *value;
    } baseline[] = {{"grid", "minmax"}, {"refine", "0"}, {"regrid", "0"},
                    {"damp", "0.01"},   {"shrink", "0"}, {"compensate", "0"}};
    char room[SNRQ_OPTION_VALUE];
    for (size_t i = 0; i < sizeof baseline / sizeof *baseline && o->baseline_grid; i++)
        for (int row = 0; row < ROWS; row++) {
            if (strcmp(table[row].name, baseline[i].name) != 0) continue;
            const char *value = snrq_option_value(&table[row], o, room);
            if (given[row] != NOT_GIVEN && strcmp(value, baseline[i].value) != 0)
                return snrq_fail(SNRQ_USAGE,
                                 "--baseline-grid stands for --%s %s, found also --%s %s: leave "
                                 "one of them out",
                                 baseline[i].name, baseline[i].value, baseline[i].name, value);
            SNRQ_TRY(snrq_option_set(&table[row], baseline[i].value, o));
        }
    return SNRQ_OK;
}

/* The baselines do what their papers do; scales from the range of the weights stay as they are.
 */
static snrq_status apply_exceptions(const given_rows given, snrq_options *o)
{
    bool baseline = o->method != SNRQ_SNRQ && o->method != SNRQ_KSNRQ;
    if (o->baseline_grid) return apply_baseline(given, o);
    for (int i = 0; i < PAPER && o->paper; i++)
        SNRQ_TRY(set_unless_given(given, paper[i].name, paper[i].value, o));
    for (int i = 0; i < EXCEPTIONS; i++) {
        bool applies = baseline || (i == REGRID && o->grid != SNRQ_QUANT_GRID_HESSIAN) ||
                       (i == SHRINK && o->command == SNRQ_COMMAND_ROUND);
        if (applies)
            SNRQ_TRY(set_unless_given(given, exceptions[i].name, exceptions[i].otherwise, o));
    }
    return SNRQ_OK;
}

static snrq_status parse_alpha(snrq_options *o)
{
    bool is_fixed = o->command == SNRQ_COMMAND_ROUND || o->paper || o->baseline_grid;
    if (o->alpha_text == NULL)
        o->alpha_text = o->method == SNRQ_GPTAQ ? "fixed:0.25" : is_fixed ? "fixed:0.5" : "auto";
    SNRQ_TRY(snrq_option_alpha(o->alpha_text, &o->alpha_mode, &o->alpha_value));
    if (o->method != SNRQ_GPTAQ || o->alpha_mode == SNRQ_ALPHA_FIXED ||
        o->alpha_mode == SNRQ_ALPHA_SAMPLED)
        return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE, "--alpha %s: gptaq takes fixed:V or sampled:B", o->alpha_text);
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

static snrq_status parse_redo(snrq_options *o)
{
    char rest;
    long long block = -1;
    o->redo = -1;
    if (o->redo_text == NULL) return SNRQ_OK;
    if (sscanf(o->redo_text, "%9lld%c", &block, &rest) != 1 || block < 0)
        return snrq_fail(SNRQ_USAGE,
                         "--redo: expected the number of a block, such as 3 for block-00003.h5, "
                         "found '%s'",
                         o->redo_text);
    o->redo = block;
    return SNRQ_OK;
}

static const command_row *find_command(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static void print_option(FILE *f, const snrq_option_row *row)
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

static const char states[] =
    "\nexit codes by state:\n"
    "   0  complete\n"
    "  69  starting, running: a process is at work\n"
    "  75  not started, stopped, killed: the same quantize command (again) goes on\n"
    "  76  hung: ended by the watchdog; the same command goes on\n"
    "  65  damaged: a committed file or a record is missing or was changed\n"
    "   N  failed: the exit code with which the run ended (64 to 74)\n"
    "  66  without a state: OUT is not there, no output of snrq, or cannot be read\n";

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
              "69 a run is at work (status),\n73 cannot write, 74 I/O error, 75 stopped on request "
              "(run again to go on), 76 hung\n"
              "(--watchdog), 70 internal error.\n",
              f);
    } else {
        fprintf(f, "usage: [mpirun -n P] snrq %s %s [options]\n%s.\n\noptions [default]:\n",
                command->name, command->argument, command->help);
        for (int i = 0; i < ROWS; i++)
            if (table[i].commands & (unsigned)command->command) print_option(f, &table[i]);
        if (command->command == SNRQ_COMMAND_STATUS) fputs(states, f);
        fprintf(f, "\nexample:\n  %s\n", command->example);
    }
    if (fclose(f) != 0) return snrq_fail(SNRQ_INTERNAL, "cannot allocate the help text");
    return SNRQ_OK;
}

static snrq_status make_version(char **help)
{
    enum { BYTES = 256 };
    char kernels[BYTES - 32];
    SNRQ_TRY(snrq_allocate(1, BYTES, "text of the version", help));
    snrq_kernels_describe(kernels, sizeof kernels);
    snprintf(*help, BYTES, "snrq %s\n%s\n", SNRQ_VERSION, kernels);
    return SNRQ_OK;
}

/* One option as --options reads it; a comment where it has no value or no effect. */
static snrq_status print_value(FILE *f, const snrq_option_row *row, const snrq_options *o)
{
    char room[SNRQ_OPTION_VALUE], *quoted = NULL;
    const snrq_option_idle *idle = snrq_option_find_idle(o, row->name);
    if (idle != NULL && idle->instead == NULL) {
        fprintf(f, "# --%s: %s\n", row->name, idle->reason);
        return SNRQ_OK;
    }
    if (!snrq_option_has_value(row, o)) {
        fprintf(f, "# --%s%s%s\n", row->name, row->unit ? " " : "", row->unit ? row->unit : "");
        return SNRQ_OK;
    }
    if (row->kind == FLAG) {
        fprintf(f, "--%s\n", row->name);
        return SNRQ_OK;
    }
    for (int i = 0; i < (row->kind == TEXTS ? o->texts.count : 1); i++) {
        const char *value = row->kind == TEXTS ? o->texts.path[i] : snrq_option_value(row, o, room);
        SNRQ_TRY(snrq_allocate(2 * strlen(value) + 4, 1, "option", &quoted));
        fprintf(f, "--%s %s\n", row->name, snrq_option_file_quote(value, quoted));
        free(quoted);
    }
    return SNRQ_OK;
}

static snrq_status print_options(const command_row *command, const snrq_options *o, char **text)
{
    size_t bytes = 0;
    FILE *f = open_memstream(text, &bytes);
    if (f == NULL) return snrq_fail(SNRQ_INTERNAL, "cannot allocate the list of options");
    fprintf(f, "# snrq %s %s: options, as --options FILE reads them\n", command->name,
            command->argument);
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < ROWS && status == SNRQ_OK; i++)
        if ((table[i].commands & (unsigned)command->command) != 0 &&
            table[i].field != FIELD(options_file) && table[i].field != FIELD(print_options))
            status = print_value(f, &table[i], o);
    if (fclose(f) != 0 && status == SNRQ_OK)
        status = snrq_fail(SNRQ_INTERNAL, "cannot allocate the list of options");
    if (status != SNRQ_OK) free(*text);
    if (status != SNRQ_OK) *text = NULL;
    return status;
}

static snrq_status check_evaluation(const snrq_options *o)
{
    if (o->text != NULL && o->token_file != NULL)
        return snrq_fail(SNRQ_USAGE, "evaluate: give either --text TEXT or --token-file FILE");
    if (o->text == NULL && o->token_file == NULL && o->tasks == NULL)
        return snrq_fail(SNRQ_USAGE,
                         "evaluate: give either --text TEXT or --token-file FILE, or --tasks");
    if (o->tasks != NULL && o->task_dir == NULL)
        return snrq_fail(SNRQ_USAGE,
                         "evaluate: --tasks needs --task-dir DIR, where their files are");
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
        if (o->output == NULL && o->redo >= 0)
            return snrq_fail(SNRQ_USAGE, "quantize: --redo needs -o OUT, the run to mend");
        if (o->plan_nodes > (o->plan_ranks > 0 ? o->plan_ranks : o->plan_nodes))
            return snrq_fail(SNRQ_USAGE,
                             "quantize: --plan-nodes %lld is more than --plan-ranks %lld",
                             (long long)o->plan_nodes, (long long)o->plan_ranks);
        if ((o->calibration == NULL) == (o->token_file == NULL))
            return snrq_fail(SNRQ_USAGE,
                             "quantize: give either --calibration TEXT or --token-file FILE");
    }
    if (o->command == SNRQ_COMMAND_RUNS && o->output == NULL)
        return snrq_fail(SNRQ_USAGE, "runs: -o ROOT is missing; example: %s", command->example);
    if (o->command == SNRQ_COMMAND_EXPORT && (o->output == NULL || o->format < 0))
        return snrq_fail(SNRQ_USAGE, "export: %s is missing; example: %s",
                         o->output == NULL ? "-o DIR" : "--format F", command->example);
    if (o->command == SNRQ_COMMAND_EVALUATE) SNRQ_TRY(check_evaluation(o));
    if (o->command == SNRQ_COMMAND_TOKENIZE) {
        if ((o->text == NULL) == (o->decode == NULL))
            return snrq_fail(SNRQ_USAGE, "tokenize: give either --text TEXT or --decode IDS");
        if (o->output == NULL)
            return snrq_fail(SNRQ_USAGE, "tokenize: -o OUT is missing; example: %s",
                             command->example);
    }
    return SNRQ_OK;
}

/* ---- parsing ---- */

typedef struct parser {
    const command_row *command;
    snrq_options *options;
    given_rows given;
    bool help;
} parser;

static const char *place(const parser *p, int line, char *out, size_t size)
{
    if (line == COMMAND_LINE) return "on the command line";
    snprintf(out, size, "in %s, line %d", p->options->options_file, line);
    return out;
}

/* Texts may be given several times, in one place: their order counts. */
static bool is_next_text(const parser *p, int row, int line)
{
    return table[row].kind == TEXTS && (p->given[row] == COMMAND_LINE) == (line == COMMAND_LINE);
}

/* Not twice, and no other option for the same thing. `line` is where the row is given now. */
static snrq_status check_once(const parser *p, int row, int line)
{
    char before[512], now[512];
    for (int i = 0; i < ROWS; i++) {
        if (p->given[i] == NOT_GIVEN || table[i].field != table[row].field) continue;
        if (i == row && is_next_text(p, row, line)) continue;
        if (i == row && line == COMMAND_LINE)
            return snrq_fail(SNRQ_USAGE,
                             "%s: --%s is given twice; leave out the one that is not meant",
                             p->command->name, table[row].name);
        const char *first = place(p, p->given[i], before, sizeof before);
        const char *second = place(p, line, now, sizeof now);
        if (i == row)
            return snrq_fail(SNRQ_USAGE, "%s: --%s is given twice, %s and %s; %s", p->command->name,
                             table[row].name, first, second,
                             table[row].kind == TEXTS ? "give all of them in one place"
                                                      : "leave out the one that is not meant");
        return snrq_fail(SNRQ_USAGE, "%s: --%s (%s) and --%s (%s) contradict each other",
                         p->command->name, table[i].name, first, table[row].name, second);
    }
    return SNRQ_OK;
}

/* A row of the command, with its value (borrowed; NULL: none). */
static snrq_status take(parser *p, int row, const char *value, int line)
{
    if (!(table[row].commands & (unsigned)p->command->command))
        return snrq_fail(SNRQ_USAGE, "%s: --%s does not belong to this command; `snrq %s --help`",
                         p->command->name, table[row].name, p->command->name);
    SNRQ_TRY(check_once(p, row, line));
    SNRQ_TRY(snrq_option_set(&table[row], value, p->options));
    p->given[row] = line;
    return SNRQ_OK;
}

static snrq_status parse_arguments(parser *p, int argc, char **argv)
{
    const char *command = p->command->name;
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
            p->help = true;
            return SNRQ_OK;
        }
        if (c == ':')
            return snrq_fail(SNRQ_USAGE, "%s: option %s needs a value", command, argv[optind - 1]);
        int row = c - 1000;
        for (int i = 0; i < ROWS && row < 0; i++)
            if (table[i].letter == (char)c && c != '?') row = i;
        if (c == '?' || row < 0)
            return snrq_fail(SNRQ_USAGE, "%s: unknown option %s; `snrq %s --help` lists them",
                             command, argv[optind - 1], command);
        SNRQ_TRY(take(p, row, optarg, COMMAND_LINE));
    }
    if (optind < argc) p->options->path = argv[optind++];
    if (optind < argc)
        return snrq_fail(SNRQ_USAGE, "%s: expected one %s, found also '%s'%s", command,
                         p->command->argument, argv[optind],
                         p->options->texts.count > 0
                             ? "; each of several texts needs its own --calibration or --text"
                             : "");
    return SNRQ_OK;
}

/* Row of "--bits" or "-o", or -1. */
static int find_row(const char *name)
{
    for (int i = 0; i < ROWS; i++) {
        bool is_long = strncmp(name, "--", 2) == 0 && strcmp(name + 2, table[i].name) == 0;
        bool is_short = table[i].letter != 0 && name[1] == table[i].letter && name[2] == '\0';
        if (is_long || is_short) return i;
    }
    return -1;
}

static snrq_status take_line(parser *p, const snrq_option_line *line)
{
    char shown[SNRQ_SHOWN];
    int row = find_row(line->name);
    if (row < 0)
        return snrq_fail(SNRQ_USAGE, "unknown option %s; `snrq %s --help` lists them",
                         snrq_shown(line->name, shown), p->command->name);
    if (table[row].field == FIELD(options_file) || table[row].field == FIELD(print_options))
        return snrq_fail(SNRQ_USAGE, "--%s belongs on the command line", table[row].name);
    if (table[row].kind == FLAG && line->value != NULL)
        return snrq_fail(SNRQ_USAGE, "--%s takes no value, found '%s'", table[row].name,
                         snrq_shown(line->value, shown));
    if (table[row].kind != FLAG && line->value == NULL)
        return snrq_fail(SNRQ_USAGE, "option %s needs a value", line->name);
    return take(p, row, line->value, line->number);
}

static snrq_status parse_file(parser *p)
{
    snrq_options *o = p->options;
    const char *path = o->options_file;
    snrq_option_line line;
    bool found = true;
    int number = 0;
    if (path == NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_option_file_read(path, &o->file_text));
    for (char *at = o->file_text;;) {
        SNRQ_TRY(snrq_option_file_next(path, &at, &number, &line, &found));
        if (!found) return SNRQ_OK;
        snrq_status status = take_line(p, &line);
        if (status != SNRQ_OK)
            return snrq_fail(status, "%s: line %d: %s", path, number, snrq_error_message());
    }
}

/* ---- what follows from what was given ---- */

/* Refuses what was given in vain, unless it says what is done anyway. */
static snrq_status check_effects(const parser *p)
{
    const snrq_options *o = p->options;
    char room[SNRQ_OPTION_VALUE];
    for (int i = 0; i < ROWS; i++) {
        if (p->given[i] == NOT_GIVEN) continue;
        const snrq_option_idle *idle = snrq_option_find_idle(o, table[i].name);
        if (idle == NULL) continue;
        const char *value = snrq_option_value(&table[i], o, room);
        if (idle->instead != NULL && strcmp(value, idle->instead) == 0) continue;
        return snrq_fail(SNRQ_USAGE, "%s: --%s %s has no effect here: %s; leave it out",
                         p->command->name, table[i].name, value, idle->reason);
    }
    return SNRQ_OK;
}

/* Options without effect say what is done. */
static snrq_status settle(snrq_options *o)
{
    for (int i = 0; i < ROWS; i++) {
        const snrq_option_idle *idle = (table[i].commands & (unsigned)o->command) != 0
                                           ? snrq_option_find_idle(o, table[i].name)
                                           : NULL;
        if (idle != NULL && idle->instead != NULL)
            SNRQ_TRY(snrq_option_set(&table[i], idle->instead, o));
    }
    return SNRQ_OK;
}

static snrq_status set_defaults(snrq_options *o)
{
    memset(o, 0, sizeof *o);
    o->format = -1;
    o->engine = -1;
    for (int i = 0; i < ROWS; i++)
        if (table[i].fallback != NULL) SNRQ_TRY(snrq_option_set(&table[i], table[i].fallback, o));
    return SNRQ_OK;
}

static snrq_status parse_command(parser *p, int argc, char **argv, char **text)
{
    snrq_options *o = p->options;
    SNRQ_TRY(parse_arguments(p, argc - 1, argv + 1));
    if (p->help) return make_help(p->command, text);
    SNRQ_TRY(parse_file(p));
    if (strcmp(p->command->name, "plan") == 0) o->plan = o->dry_run = true;
    SNRQ_TRY(apply_exceptions(p->given, o));
    SNRQ_TRY(parse_alpha(o));
    SNRQ_TRY(parse_factor_grid(o));
    SNRQ_TRY(parse_redo(o));
    if (!o->print_options) SNRQ_TRY(check_required(p->command, o));
    SNRQ_TRY(check_effects(p));
    SNRQ_TRY(settle(o));
    return o->print_options ? print_options(p->command, o, text) : SNRQ_OK;
}

snrq_status snrq_options_parse(int argc, char **argv, snrq_options *o, char **text)
{
    *text = NULL;
    SNRQ_TRY(set_defaults(o));
    if (argc < 2) {
        SNRQ_TRY(make_help(NULL, text));
        return snrq_fail(SNRQ_USAGE, "no command given; `snrq --help` lists them");
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return make_help(argc > 2 ? find_command(argv[2]) : NULL, text);
    if (strcmp(argv[1], "--version") == 0) return make_version(text);
    const command_row *command = find_command(argv[1]);
    if (command == NULL)
        return snrq_fail(SNRQ_USAGE,
                         "unknown command '%s'; expected quantize, plan, evaluate, inspect, "
                         "verify, export, round, tokenize, status, report, runs or bench",
                         argv[1]);
    o->command = command->command;
    parser p = {.command = command, .options = o};
    return parse_command(&p, argc, argv, text);
}

int snrq_options_inputs(const snrq_options *o, const char *paths[SNRQ_MOST_INPUTS])
{
    const char *const others[] = {o->path,         o->reference, o->token_file, o->decode,
                                  o->options_file, o->machine,   o->recipe};
    int count = 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) paths[count++] = others[i];
    for (int i = 0; i < o->texts.count; i++) paths[count++] = o->texts.path[i];
    return count;
}

void snrq_options_free(snrq_options *o)
{
    free(o->file_text);
    o->file_text = NULL;
}

/* ---- the stored configuration ---- */

static json_t *stored_value(const snrq_option_row *row, const snrq_options *o)
{
    const char *field = (const char *)o + row->field;
    const snrq_option_idle *idle = snrq_option_find_idle(o, row->name);
    char room[SNRQ_OPTION_VALUE];
    if (idle != NULL && idle->instead == NULL) return json_null();
    switch (row->kind) {
    case FLAG:
        return json_boolean(*(const bool *)(const void *)field);
    case SHARE:
        if (*(const double *)(const void *)field == SNRQ_AUTO) return json_string("auto");
        __attribute__((fallthrough));
    case TIME:
    case REAL:
        return json_real(*(const double *)(const void *)field);
    case GROUP:
        if (*(const int64_t *)(const void *)field == 0) return json_string("channel");
        return json_integer(*(const int64_t *)(const void *)field);
    case COUNT:
        if (*(const int64_t *)(const void *)field == 0) return json_string("auto");
        __attribute__((fallthrough));
    case SIZE:
    case INTEGER:
        return json_integer(*(const int64_t *)(const void *)field);
    case TEXT:
    case TEXTS:
    case CHOICE:
        return json_string(snrq_option_value(row, o, room));
    }
    return NULL;
}

json_t *snrq_options_stored(const snrq_options *o)
{
    json_t *object = json_object();
    for (int i = 0; i < ROWS && object != NULL; i++) {
        if (!table[i].stored || !(table[i].commands & (unsigned)o->command)) continue;
        if (json_object_set_new(object, table[i].name, stored_value(&table[i], o)) == 0) continue;
        json_decref(object);
        return NULL;
    }
    return object;
}

/* The value as it is typed; NULL: there is none, or none that can be typed. */
static const char *typed(const json_t *value, char room[SNRQ_OPTION_VALUE])
{
    if (json_is_string(value)) return json_string_value(value);
    if (json_is_integer(value))
        snprintf(room, SNRQ_OPTION_VALUE, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(room, SNRQ_OPTION_VALUE, "%.17g", json_real_value(value));
    else
        return NULL;
    return room;
}

/* What was done before there were these options. */
static const struct {
    const char *name, *value;
} newer[] = {{"shrink", "0"}, {"compensate", "0"}, {"held-out", "0"}};

snrq_status snrq_options_restore(const json_t *stored, snrq_options *o)
{
    char room[SNRQ_OPTION_VALUE];
    given_rows given = {NOT_GIVEN};
    SNRQ_TRY(set_defaults(o));
    o->command = SNRQ_COMMAND_QUANTIZE;
    for (size_t i = 0; i < sizeof newer / sizeof *newer; i++)
        SNRQ_TRY(set_unless_given(given, newer[i].name, newer[i].value, o));
    for (int i = 0; i < ROWS; i++) {
        const json_t *value = json_object_get(stored, table[i].name);
        const char *text = typed(value, room);
        if (!table[i].stored || (table[i].kind == FLAG ? !json_is_true(value) : text == NULL))
            continue;
        SNRQ_TRY(snrq_option_set(&table[i], text, o));
        given[i] = COMMAND_LINE;
    }
    SNRQ_TRY(apply_exceptions(given, o));
    SNRQ_TRY(parse_alpha(o));
    SNRQ_TRY(parse_redo(o));
    return settle(o);
}
