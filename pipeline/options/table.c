/* The options and the commands; see table.h. */
#include "pipeline/options/table.h"

#include "pipeline/options/preset.h"

#include <stddef.h>
#include <string.h>

#include "pipeline/options/row.h"

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
    F = SNRQ_COMMAND_SENSITIVITY,
    A = SNRQ_COMMAND_ASSESS,
    ALL = Q | E | I | V | R | T | X | S | P | N | B | F | A
};
#define FIELD(name) offsetof(snrq_options, name)

const snrq_option_row snrq_option_table[] = {
    {"output", 'o', TEXT, FIELD(output), NULL, 0, 0, NULL, Q | R | T | X | P | N | B | F | A, false,
     "OUT",
     "what to write: a directory (quantize resumes an unfinished one, export wants an empty one, "
     "report and runs replace their own files); of round, a safetensors file; of tokenize, a file"},
    {"calibration", 0, TEXTS, FIELD(calibration), NULL, 0, 0, NULL, Q | F | A, false, "TEXT",
     "calibration text (UTF-8), or JSON lines with {\"text\": \"...\"}; either may be gzip; for "
     "several files give it several times, the order counts"},
    {"text", 0, TEXTS, FIELD(text), NULL, 0, 0, NULL, E | T, false, "TEXT",
     "text (UTF-8), or JSON lines with {\"text\": \"...\"}; either may be gzip; may be given "
     "several times: held-out text; of tokenize, what becomes int32 little-endian token ids, with "
     "the special tokens that the model puts around a text"},
    {"text-key", 0, TEXT, FIELD(text_key), NULL, 0, 0, NULL, Q | E | T | F | A, false, "KEY",
     "which key of JSON lines holds the text, if it is not \"text\": every line must have it"},
    {"decode", 0, TEXT, FIELD(decode), NULL, 0, 0, NULL, T, false, "IDS",
     "int32 little-endian token ids that become text again, without the special tokens around it"},
    {"token-file", 0, TEXT, FIELD(token_file), NULL, 0, 0, NULL, Q | E | F | A, false, "FILE",
     "token ids instead of a text, cut into windows in order: raw little-endian int32, or .npy of "
     "any integer type"},
    {"bits", 0, INTEGER, FIELD(bits), "4", 2, 8, NULL, Q | R, true, "B", "bits per weight"},
    {"group-size", 0, GROUP, FIELD(group_size), "128", 1, 1 << 20, NULL, Q | R | A, true,
     "N|channel", "columns that share a scale"},
    {"preset", 0, CHOICE, FIELD(preset), NULL, 0, 0, SNRQ_PRESETS, Q, true, "P",
     "a type for each module, embeddings and head, as llama-quantize chooses them for a file of "
     "this name (docs/gguf.md)"},
    {"table-format", 0, CHOICE, FIELD(table_format), NULL, 0, 0,
     "q4_0|q4_1|q5_0|q5_1|q8_0|q2_k|q3_k|q4_k|q5_k|q6_k|iq4_nl|iq4_xs|mxfp4", Q, false, "F",
     "round embeddings and head to this format, to nearest, where no rule of a recipe names them; "
     "--target-size counts them so"},
    {"format", 0, CHOICE, FIELD(weight_format), NULL, 0, 0,
     "q4_0|q4_1|q5_0|q5_1|q8_0|q2_k|q3_k|q4_k|q5_k|q6_k|iq4_nl|iq4_xs|mxfp4|"
     "nvfp4|fp8_block|int2|int3|int4|int5|int6|int7|int8",
     Q | R, true, "F",
     "round to weights as machines run them, instead of --bits and --group-size, with this "
     "format's "
     "levels, groups, scales and minima: types of llama.cpp, microscaling, FP8 (docs/gguf.md, "
     "docs/exporting.md); int2 to int8 are --bits 2 to 8"},
    {"format", 0, CHOICE, FIELD(format), NULL, 0, 0, "gptq|compressed-tensors|gguf|safetensors|fp8",
     X, false, "F", "what to export to; `snrq inspect OUT` tells what is possible"},
    {"symmetric", 0, FLAG, FIELD(asymmetric), NULL, 0, 0, NULL, Q | R | A, false, NULL,
     "zero point in the middle of the codes (default)"},
    {"asymmetric", 0, FLAG, FIELD(asymmetric), NULL, 1, 1, NULL, Q | R | A, true, NULL,
     "a zero point per group"},
    {"method", 0, CHOICE, FIELD(method), "ksnrq", 0, 0, "rtn|ldlq|gptq|gptaq|snrq|ksnrq", Q | R | A,
     true, "M",
     "rtn: nearest value; ldlq: error feedback; gptq, gptaq: grids fitted on the way; snrq: "
     "shifted "
     "target; ksnrq: snrq with beam search"},
    {"beam", 0, INTEGER, FIELD(beam), "8", 1, 256, NULL, Q | R | A, true, "K",
     "beam width of ksnrq"},
    {"alpha", 0, TEXT, FIELD(alpha_text), NULL, 0, 0, NULL, Q | R | A, true, "MODE",
     "regularization strength: auto, by what the tokens support | fixed:V | sampled:B | chained | "
     "corr [auto; of round and with --paper fixed:0.5; gptaq: fixed:0.25]"},
    {"grid", 0, CHOICE, FIELD(grid), "hessian", 0, 0, "minmax|mse|hessian", Q | R | A, true, "G",
     "how scales are chosen"},
    {"scale-signs", 0, CHOICE, FIELD(either_sign), "either", 0, 0, "positive|either", Q | R | A,
     true, "S",
     "of symmetric groups with --grid hessian: codes reach one step further below zero than above; "
     "either: with a negative scale, above, where that is better"},
    {"groups", 0, CHOICE, FIELD(permuted_groups), "original", 0, 0, "original|permuted", Q | R | A,
     true, "G", "groups of neighbouring columns, or of columns in decision order"},
    {"order", 0, CHOICE, FIELD(natural_order), "diagonal", 0, 0, "diagonal|natural", Q | R | A,
     true, "O", "decide the columns of largest diag(H) first, or the last one first"},
    {"scale-type", 0, CHOICE, FIELD(scale_type), "f16", 0, 0, "f32|f16|bf16", Q | R | A, true, "T",
     "what the checkpoint stores scales in (fixed before rounding starts)"},
    {"damp", 0, REAL, FIELD(damp), "0.01", 0, 1, NULL, Q | R | A, true, "X",
     "damping, as a share of mean(diag H)"},
    {"shrink", 0, SHARE, FIELD(shrink), "auto", 0, 100, NULL, Q | R | A, true, "auto|X",
     "round with H + X diag(H): more, the fewer the calibration tokens"},
    {"compensate", 0, SHARE, FIELD(compensate), "auto", 0, 1, NULL, Q | A, true, "auto|B",
     "how much of the residual stream's error o_proj and down_proj make up for; auto: by what the "
     "tokens support"},
    {"paper", 0, FLAG, FIELD(paper), NULL, 1, 1, NULL, Q | R, false, NULL,
     "the papers' method: --alpha fixed:0.5 --grid minmax --groups permuted --refine 0 --regrid 0 "
     "--scale-signs positive --shrink 0 --compensate 0 --first-tokens 0, but for those that are "
     "given"},
    {"refine", 0, INTEGER, FIELD(refine), "2", 0, 1000, NULL, Q | R | A, true, "N",
     "coordinate-descent passes after the search, at most"},
    {"regrid", 0, INTEGER, FIELD(regrid), "3", 0, 100, NULL, Q | R | A, true, "N",
     "rounds of least-squares scales and another search, at most; the better is kept per row"},
    {"baseline-grid", 0, FLAG, FIELD(baseline_grid), NULL, 1, 1, NULL, Q | R, false, NULL,
     "for a comparison in which only the methods differ: scales, refinement and damping of every "
     "method are those of the baselines, --grid minmax --refine 0 --regrid 0 --damp 0.01 --shrink "
     "0 "
     "--compensate 0 --first-tokens 0, and --alpha fixed:0.5 if no other is given"},
    {"sequences", 0, INTEGER, FIELD(sequences), "0", 0, 1 << 24, NULL, Q | E | F | A, true, "N",
     "windows to use; 0: 128 for quantize, sensitivity and assess, all for evaluate"},
    {"held-out", 0, INTEGER, FIELD(held_out), "8", 0, 1 << 20, NULL, Q, true, "N",
     "more windows that nothing is fitted to, to tell how far the errors hold for other text: at "
     "most one for 16 of --sequences, and no more than the text has beside them"},
    {"first-tokens", 0, INTEGER, FIELD(first_tokens), "1", 0, 1 << 20, NULL, Q, true, "N",
     "more windows of tokens that each stand alone, as the first of a text does, which all later "
     "tokens attend to: at most one for 16 of --sequences, none for fewer"},
    {"tune", 0, INTEGER, FIELD(tune), "0", 0, 1000, NULL, Q, true, "EPOCHS",
     "afterwards tune scales and norms, with all codes as they are, so that the whole model's "
     "predictions come closer to those of the original: so many times over the calibration windows "
     "at most, as long as the held-out ones agree; 0: not at all"},
    {"length", 0, INTEGER, FIELD(length), "0", 0, 1 << 24, NULL, Q | E | F | A, true, "T",
     "tokens per window; 0: the model's context, at most 2048"},
    {"seed", 0, INTEGER, FIELD(seed), "0", 0, 9007199254740992.0, NULL, Q | E | F | A, true, "S",
     "seed of the random windows and of sampled alpha; of evaluate, of the windows of c4; of "
     "sensitivity, also of the labels that are drawn"},
    {"windows", 0, CHOICE, FIELD(consecutive), "random", 0, 0, "random|consecutive", Q | F | A,
     true, "W", "where calibration windows start in the text"},
    {"sampling", 0, CHOICE, FIELD(sampling), "none", 0, 0, "none|c4|c4-snrq|wikitext2", Q | F | A,
     true, "S",
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
    {"expert-tokens", 0, COUNT, FIELD(expert_tokens), "auto", 1, 1 << 30, NULL, Q | A, true,
     "N|auto",
     "of mixtures of experts: an expert that is sent fewer tokens is calibrated on those with the "
     "next best scores as well; auto: as many as it has inputs"},
    {"expert-weights", 0, CHOICE, FIELD(weighted_experts), "router", 0, 0, "none|router", Q | A,
     true, "W",
     "of mixtures of experts: tokens of an expert count the same, or by the router's weight"},
    {"recipe", 0, TEXT, FIELD(recipe), NULL, 0, 0, NULL, Q, false, "FILE",
     "other bits, groups, methods for some modules: JSON rules such as "
     "{\"modules\": \"*.down_proj\", \"blocks\": \"0-3\", \"bits\": 4}; the first that matches "
     "counts (docs/operations.md)"},
    {"sensitivity", 0, TEXT, FIELD(sensitivity), NULL, 0, 0, NULL, Q, false, "FILE|auto",
     "weigh errors by what a module's outputs are worth: a file of `snrq sensitivity MODEL`; the "
     "error of a row is made up for by the rows after it; auto: makes the file first, from the "
     "first calibration windows, or from more of them if they are few, and keeps it in OUT (a "
     "file of this name is ./auto)"},
    {"target-bits", 0, REAL, FIELD(target_bits), "0", 0, 16, NULL, Q, false, "B",
     "bits per weight that the modules may have on average, scales and zeros counted: each step of "
     "a "
     "block gets the width that costs least by --assessment; 0: no budget"},
    {"target-size", 0, SIZE, FIELD(target_bytes), "0", 0, 9e18, NULL, Q, false, "BYTES",
     "the same for all of OUT: a number with KB, MB, GB, KiB, MiB, GiB"},
    {"assessment", 0, TEXT, FIELD(assessment), NULL, 0, 0, NULL, Q, false, "FILE",
     "assessment.json of `snrq assess` for --target-bits and --target-size; default: one that is "
     "made in OUT first"},
    {"widths", 0, TEXT, FIELD(widths_text), "2,3,4,8", 0, 0, NULL, Q | A, false, "B,...",
     "widths that are tried; divergences are measured with 3 bits, or the first above 2"},
    {"group-sizes", 0, TEXT, FIELD(group_sizes_text), "auto", 0, 0, NULL, Q | A, false, "G,...",
     "sizes of groups that are tried with each width, --group-size among them; "
     "auto: --group-size, twice that, and channel"},
    {"formats", 0, TEXT, FIELD(formats_text), NULL, 0, 0, NULL, Q | A, false, "F,...",
     "of assess: formats of --format that are tried beside the widths; of quantize: what "
     "--target-bits and --target-size choose among, instead of widths and sizes of groups"},
    {"no-uniform", 0, FLAG, FIELD(no_uniform), NULL, 1, 1, NULL, Q | A, false, NULL,
     "do not quantize the whole model with each width up to 4 bits, which tells how far the sum of "
     "divergences holds: predictions are then that sum"},
    {"judged-windows", 0, INTEGER, FIELD(judged_windows), "8", 1, 1 << 20, NULL, Q | A, false, "N",
     "more windows that nothing is fitted to: the divergence is measured on them"},
    {"judged-text", 0, TEXT, FIELD(judged_text), NULL, 0, 0, NULL, A, false, "TEXT",
     "text of the judged windows, as like as can be to what the model will be used for; without "
     "this they are of the calibration text"},
    {"alone", 0, CHOICE, FIELD(alone_modules), "steps", 0, 0, "steps|modules", Q | A, false, "WHAT",
     "what is rounded alone to measure its divergence, beside whole blocks: steps (q, k and v; o; "
     "gate and up; down), or each module of them, too, all experts of a block as one"},
    {"factor-grid", 0, TEXT, FIELD(factor_grid_text), NULL, 0, 0, NULL, Q | R | A, false, "RxC",
     "process grid of the factorization, for speed alone; default: by matrix size"},
    {"for", 0, CHOICE, FIELD(engine), NULL, 0, 0, "transformers|gptqmodel|vllm|vllm-cpu|llama.cpp",
     Q | X, false, "ENGINE",
     "refuse, before the work, what this engine is known not to load, and name what it loads; of "
     "export, without this, notes tell of such engines (docs/exporting.md has the table)"},
    {"zero-points", 0, CHOICE, FIELD(fold_zeros), "stored", 0, 0, "stored|folded", X, false, "Z",
     "of an asymmetric model in gptq or compressed-tensors: stored beside the codes, or folded "
     "into them: symmetric codes of 4 bits (of 2 and 3) or 8 (of 4 to 7) for the same weights, "
     "which more engines load"},
    {"head", 0, CHOICE, FIELD(coded_head), "dense", 0, 0, "dense|codes", X, false, "H",
     "of compressed-tensors: a quantized output head dense, with its rounded values, which every "
     "engine loads, or as codes, which transformers loads; embeddings are dense"},
    {"max-shard-size", 0, SIZE, FIELD(max_shard_bytes), "5GB", 1, 9e18, NULL, X, false, "BYTES",
     "largest weight file, if no single tensor is larger: a number with KB, MB, GB, KiB, MiB, GiB"},
    {"pass-memory", 0, SIZE, FIELD(pass_memory), "1GiB", 1, 9e18, NULL, Q | F, false, "BYTES",
     "what a rank keeps of the inputs of blocks: with less of it, fewer sequences are taken at a "
     "time, and the checkpoint is read more often (same result)"},
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
    {"threads", 0, INTEGER, FIELD(threads), "0", 0, 4096, NULL, Q | E | R | B | F | A, false, "N",
     "threads per rank; 0: OMP_NUM_THREADS, or the node's cores shared evenly"},
    {"json", 0, FLAG, FIELD(json), NULL, 1, 1, NULL, Q | E | I | V | R | T | S | B | F, false, NULL,
     "one JSON object on standard output; of quantize, the plan"},
    {"max-time", 0, TIME, FIELD(max_time), NULL, 0, 1e9, NULL, Q, false, "TIME",
     "stop at a safe point before so much time has passed, such as 90s, 45m, 11.5h or 11:30:00; "
     "exit "
     "code 75: run again to go on"},
    {"watchdog", 0, TIME, FIELD(watchdog), "30m", 0, 1e9, NULL, Q, false, "TIME",
     "end with exit code 76, and say where each rank hangs, after so much time in one phase of a "
     "step; 0s: never"},
    {"strict", 0, FLAG, FIELD(strict), NULL, 1, 1, NULL, Q | E | R | F | A, false, NULL,
     "stop with exit code 65 where something is a warning otherwise: numerical trouble (dead "
     "inputs, too few tokens, zero or constant rows, ...), or a checkpoint that contradicts its "
     "config.json"},
    {"ignore-unused-layers", 0, FLAG, FIELD(ignore_unused_layers), NULL, 1, 1, NULL,
     Q | E | X | F | A, false, NULL,
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
const int snrq_option_rows = sizeof snrq_option_table / sizeof snrq_option_table[0];
_Static_assert(sizeof snrq_option_table / sizeof snrq_option_table[0] <= SNRQ_MOST_OPTIONS,
               "raise SNRQ_MOST_OPTIONS");

/* Where the default depends on other options. */
const snrq_option_exception snrq_option_exceptions[] = {
    {"grid", "minmax", "for rtn, ldlq, gptq, gptaq"},
    {"refine", "0", "for rtn, ldlq, gptq, gptaq"},
    {"first-tokens", "0", "for these, and above 2 bits"},
    {"regrid", "0", "for these and other grids than hessian"},
    {"shrink", "0", "for these, and of round"},
    {"scale-signs", "positive", "for these, and of round"}};
_Static_assert(sizeof snrq_option_exceptions / sizeof snrq_option_exceptions[0] ==
                   SNRQ_OPTION_EXCEPTIONS,
               "a name for each exception");

const snrq_command_row snrq_command_table[] = {
    {"quantize", "MODEL", SNRQ_COMMAND_QUANTIZE,
     "quantize a Hugging Face checkpoint into OUT; resumes by itself",
     "mpirun -n 2 snrq quantize MODEL --calibration text.txt -o OUT --bits 3 --group-size 64"},
    {"plan", "MODEL", SNRQ_COMMAND_QUANTIZE,
     "what quantize would cost: time and messages by phase, memory, the best ranks and threads",
     "snrq plan MODEL --calibration text.txt --plan-ranks 64 --plan-nodes 8 --machine FILE"},
    {"sensitivity", "MODEL", SNRQ_COMMAND_SENSITIVITY,
     "what each output of every module is worth: mean squares of its gradients, by a backward pass",
     "mpirun -n 2 snrq sensitivity MODEL --calibration text.txt -o sensitivity.h5"},
    {"assess", "MODEL", SNRQ_COMMAND_ASSESS,
     "what rounding each part of a model costs, at several widths, for --target-bits of quantize",
     "mpirun -n 2 snrq assess MODEL --calibration text.txt -o DIR --group-size 64"},
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
const int snrq_command_rows = sizeof snrq_command_table / sizeof snrq_command_table[0];

const snrq_command_row *snrq_command_find(const char *name)
{
    for (int i = 0; i < snrq_command_rows; i++)
        if (strcmp(snrq_command_table[i].name, name) == 0) return &snrq_command_table[i];
    return NULL;
}
