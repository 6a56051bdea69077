/* The table of effects; see effects.h. */
#include "pipeline/options/effects.h"

#include <string.h>

#define METHOD(name) (1u << SNRQ_##name)
enum {
    ANY = (1 << SNRQ_METHODS) - 1,
    SHIFTED = METHOD(SNRQ) | METHOD(KSNRQ),
    ALL_BUT_RTN = ANY & ~METHOD(RTN)
};

#define IN_ASSESSMENT "it is for `snrq assess`, and for plans of it: --dry-run"

static bool always(const snrq_options *o)
{
    (void)o;
    return true;
}

static bool looks_at_data(const snrq_options *o)
{
    return o->method != SNRQ_RTN || o->grid == SNRQ_QUANT_GRID_HESSIAN;
}

static bool compensates(const snrq_options *o)
{
    return o->alpha_mode == SNRQ_ALPHA_AUTO ||
           (o->alpha_mode == SNRQ_ALPHA_FIXED && o->alpha_value > 0);
}

static bool has_integers(const snrq_options *o)
{
    return o->weight_format < 0 && o->preset < 0;
}

/* Grids whose levels are not as far from zero on both sides, and that are fitted to what counts. */
static bool has_sides(const snrq_options *o)
{
    return o->grid == SNRQ_QUANT_GRID_HESSIAN && !o->asymmetric;
}

static bool has_no_preset(const snrq_options *o)
{
    return o->preset < 0;
}

static bool has_groups(const snrq_options *o)
{
    return o->group_size > 0;
}

static bool is_dry_run(const snrq_options *o)
{
    return o->dry_run;
}

static bool plans_or_assesses(const snrq_options *o)
{
    return o->dry_run || o->command == SNRQ_COMMAND_ASSESS;
}

static bool reads_text(const snrq_options *o)
{
    return o->token_file == NULL;
}

static bool reads_no_ids(const snrq_options *o)
{
    return o->token_file == NULL && o->decode == NULL;
}

static bool starts_are_chosen(const snrq_options *o)
{
    return reads_text(o) && o->sampling == SNRQ_SAMPLING_NONE;
}

static bool goes_back(const snrq_options *o)
{
    return o->command == SNRQ_COMMAND_SENSITIVITY || snrq_options_make_sensitivity(o);
}

/* Windows are drawn, or strengths, by a method that has them. */
static bool draws(const snrq_options *o)
{
    if (goes_back(o)) return true; /* labels */
    if (o->command == SNRQ_COMMAND_EVALUATE)
        return o->protocol != NULL && strstr(o->protocol, "c4") != NULL;
    return (reads_text(o) && (!o->consecutive || o->sampling != SNRQ_SAMPLING_NONE)) ||
           (snrq_method_has_strength((snrq_method)o->method) &&
            o->alpha_mode == SNRQ_ALPHA_SAMPLED);
}

static bool has_tasks(const snrq_options *o)
{
    return o->tasks != NULL;
}

static bool has_windows(const snrq_options *o)
{
    return o->command != SNRQ_COMMAND_EVALUATE || o->text != NULL || o->token_file != NULL;
}

static bool writes_dense(const snrq_options *o)
{
    return o->format < 0 || o->format == SNRQ_FORMAT_SAFETENSORS;
}

static bool writes_codes(const snrq_options *o)
{
    return o->format < 0 || o->format == SNRQ_FORMAT_GPTQ ||
           o->format == SNRQ_FORMAT_COMPRESSED_TENSORS;
}

static bool writes_compressed(const snrq_options *o)
{
    return o->format < 0 || o->format == SNRQ_FORMAT_COMPRESSED_TENSORS;
}

static bool writes_gguf(const snrq_options *o)
{
    return o->format < 0 || o->format == SNRQ_FORMAT_GGUF;
}

static bool writes_shards(const snrq_options *o)
{
    return o->format != SNRQ_FORMAT_GGUF;
}

static bool has_export(const snrq_options *o)
{
    return o->command != SNRQ_COMMAND_VERIFY || o->export_path != NULL;
}

#define BY_FORMAT "the format says it"

/* An option that several rows name has an effect only if all of them say so. */
static const struct {
    const char *name;
    unsigned methods;                   /* those that use it */
    bool (*used)(const snrq_options *); /* with the others as they are */
    snrq_option_idle idle;
} table[] = {
    {"format", ANY, has_no_preset, {"--preset says it", NULL}},
    {"bits", ANY, has_integers, {BY_FORMAT, NULL}},
    {"group-size", ANY, has_integers, {BY_FORMAT, NULL}},
    {"symmetric", ANY, has_integers, {BY_FORMAT, NULL}},
    {"asymmetric", ANY, has_integers, {BY_FORMAT, NULL}},
    {"groups", ANY, has_integers, {BY_FORMAT, "original"}},
    {"scale-type", ANY, has_integers, {BY_FORMAT, NULL}},
    {"scale-signs", ANY, has_integers, {BY_FORMAT, "positive"}},
    {"scale-signs",
     ANY,
     has_sides,
     {"only symmetric groups of --grid hessian have a choice", "positive"}},
    {"beam", METHOD(KSNRQ), always, {"only --method ksnrq searches with a beam", "1"}},
    {"alpha",
     SHIFTED | METHOD(GPTAQ),
     always,
     {"only the methods gptaq, snrq and ksnrq have a strength", NULL}},
    {"refine", ALL_BUT_RTN, always, {"--method rtn takes the nearest values", "0"}},
    {"regrid",
     SHIFTED | METHOD(LDLQ),
     always,
     {"only the methods ldlq, snrq and ksnrq fit scales again after the search", "0"}},
    {"sensitivity",
     SHIFTED | METHOD(LDLQ),
     always,
     {"only the methods ldlq, snrq and ksnrq have feedback between rows", NULL}},
    {"groups",
     ALL_BUT_RTN,
     always,
     {"--method rtn has no order of columns, so groups are the original ones", "original"}},
    {"groups", ANY, has_groups, {"with --group-size channel a row is one group", "original"}},
    {"order", ALL_BUT_RTN, always, {"--method rtn decides every column for itself", NULL}},
    {"damp", ANY, looks_at_data, {"--method rtn looks at no data but for --grid hessian", "0.01"}},
    {"shrink", ALL_BUT_RTN, always, {"--method rtn rounds every column for itself", "0"}},
    {"compensate",
     SHIFTED,
     compensates,
     {"only snrq and ksnrq shift their targets, and only with --alpha auto, or fixed above 0",
      "0"}},
    {"text-key",
     ANY,
     reads_no_ids,
     {"token ids have no keys; it belongs to texts that are JSON lines", NULL}},
    {"windows", ANY, reads_text, {"a --token-file is cut into windows in order", "consecutive"}},
    {"windows", ANY, starts_are_chosen, {"--sampling draws them", "random"}},
    {"sampling", ANY, reads_text, {"a --token-file is cut into windows in order", "none"}},
    {"protocol", ANY, reads_text, {"a --token-file is cut into windows in order", NULL}},
    {"seed",
     ANY,
     draws,
     {"nothing is drawn: windows follow each other, and there is no --alpha sampled", NULL}},
    {"sequences", ANY, has_windows, {"tasks have no windows; --limit counts their items", "0"}},
    {"length", ANY, has_windows, {"tasks have no windows", "0"}},
    {"reference", ANY, has_windows, {"tasks are compared with nothing", NULL}},
    {"task-dir", ANY, has_tasks, {"it belongs to --tasks", NULL}},
    {"pass-memory",
     ANY,
     goes_back,
     {"only a backward pass keeps inputs of blocks: --sensitivity auto", NULL}},
    {"limit", ANY, has_tasks, {"it belongs to --tasks", "0"}},
    {"task-bos", ANY, has_tasks, {"it belongs to --tasks", "tokenizer"}},
    {"plan-ranks", ANY, is_dry_run, {"plans for other ranks need --dry-run", "0"}},
    {"network", ANY, is_dry_run, {"only a plan needs a network: --dry-run", NULL}},
    {"machine", ANY, is_dry_run, {"only a plan needs a machine: --dry-run", NULL}},
    {"widths", ANY, plans_or_assesses, {IN_ASSESSMENT, NULL}},
    {"group-sizes", ANY, plans_or_assesses, {IN_ASSESSMENT, NULL}},
    {"no-uniform", ANY, plans_or_assesses, {IN_ASSESSMENT, NULL}},
    {"judged-windows", ANY, plans_or_assesses, {IN_ASSESSMENT, NULL}},
    {"alone", ANY, plans_or_assesses, {IN_ASSESSMENT, NULL}},
    {"plan-nodes", ANY, is_dry_run, {"plans for other nodes need --dry-run", "0"}},
    {"weights", ANY, writes_dense, {"it belongs to --format safetensors", "model"}},
    {"zero-points",
     ANY,
     writes_codes,
     {"it belongs to --format gptq and compressed-tensors", "stored"}},
    {"head", ANY, writes_compressed, {"it belongs to --format compressed-tensors", "dense"}},
    {"embedding-type", ANY, writes_gguf, {"it belongs to --format gguf", "model"}},
    {"max-shard-size", ANY, writes_shards, {"a GGUF is one file", NULL}},
    {"tokenizer", ANY, has_export, {"of verify, it belongs to --export DIR", NULL}},
};

const snrq_option_idle *snrq_option_find_idle(const snrq_options *o, const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        bool used = (table[i].methods >> o->method & 1u) != 0 && table[i].used(o);
        if (!used && strcmp(table[i].name, name) == 0) return &table[i].idle;
    }
    return NULL;
}
