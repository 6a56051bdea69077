/* The command line: what is accepted, what is refused and how, what is stored. */
#include <string.h>

#include "pipeline/options/effects.h"
#include "pipeline/options/options.h"
#include "pipeline/rules.h"
#include "tests/snrq_test.h"
#include "tests/unit/test_files.h"

enum { MOST = 48 };

/* Parses a command line given as one string, split at spaces. */
static snrq_status parse(const char *line, snrq_options *options, char **help)
{
    static char copy[1024];
    char *argv[MOST] = {(char *)"snrq"};
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *at = strtok(copy, " "); at != NULL && argc < MOST; at = strtok(NULL, " "))
        argv[argc++] = at;
    return snrq_options_parse(argc, argv, options, help);
}

static void accepts(const char *line, snrq_options *options)
{
    char *help = NULL;
    CU_ASSERT_EQUAL(parse(line, options, &help), SNRQ_OK);
    CU_ASSERT_PTR_NULL(help);
    free(help);
}

/* Refused as usage, with a message that names `what`. */
static void refuses(const char *line, const char *what)
{
    snrq_options options;
    char *help = NULL;
    CU_ASSERT_EQUAL(parse(line, &options, &help), SNRQ_USAGE);
    if (strstr(snrq_error_message(), what) == NULL) {
        fprintf(stderr, "%s: %s\n", line, snrq_error_message());
        CU_FAIL("the message lacks what it should name");
    }
    snrq_options_free(&options);
    free(help);
}

static void quantize_reads_every_option(void)
{
    snrq_options o;
    accepts(
        "quantize M -o OUT --calibration T --bits 3 --group-size 64 --asymmetric --method ksnrq "
        "--beam 4 "
        "--alpha sampled:5 --grid hessian --groups permuted --order natural",
        &o);
    CU_ASSERT_STRING_EQUAL(o.path, "M");
    CU_ASSERT_STRING_EQUAL(o.output, "OUT");
    CU_ASSERT_EQUAL(o.bits, 3);
    CU_ASSERT_EQUAL(o.group_size, 64);
    CU_ASSERT_TRUE(o.asymmetric);
    CU_ASSERT_EQUAL(o.method, SNRQ_KSNRQ);
    CU_ASSERT_EQUAL(o.beam, 4);
    CU_ASSERT_EQUAL(o.alpha_mode, SNRQ_ALPHA_SAMPLED);
    CU_ASSERT_EQUAL(o.alpha_value, 5.0);
    CU_ASSERT_EQUAL(o.grid, SNRQ_QUANT_GRID_HESSIAN);
    CU_ASSERT_EQUAL(o.permuted_groups, 1);
    CU_ASSERT_EQUAL(o.natural_order, 1);
    accepts("quantize M -o OUT --token-file T --scale-type bf16 --damp 0.1 --refine 2 --sequences "
            "8 --length 64 --alpha sampled:2 "
            "--seed 7 --windows consecutive --factor-grid 2x3 --threads 2 --dry-run",
            &o);
    CU_ASSERT_EQUAL(o.scale_type, SNRQ_BF16);
    CU_ASSERT_EQUAL(o.damp, 0.1);
    CU_ASSERT_EQUAL(o.refine, 2);
    CU_ASSERT_EQUAL(o.sequences, 8);
    CU_ASSERT_EQUAL(o.length, 64);
    CU_ASSERT_EQUAL(o.seed, 7);
    CU_ASSERT_EQUAL(o.consecutive, 1);
    CU_ASSERT_EQUAL(o.factor_rows * 10 + o.factor_columns, 23);
    CU_ASSERT_EQUAL(o.threads, 2);
    CU_ASSERT_TRUE(o.dry_run);
}

static void defaults_are_those_of_the_table(void)
{
    snrq_options o;
    accepts("quantize M -o OUT --calibration T", &o);
    CU_ASSERT_EQUAL(o.method, SNRQ_KSNRQ);
    CU_ASSERT_EQUAL(o.beam, 8);
    CU_ASSERT_EQUAL(o.alpha_mode, SNRQ_ALPHA_AUTO);
    CU_ASSERT_EQUAL(o.shrink, SNRQ_AUTO);
    CU_ASSERT_EQUAL(o.compensate, SNRQ_AUTO);
    CU_ASSERT_EQUAL(o.held_out, 8);
    CU_ASSERT_EQUAL(o.scale_type, SNRQ_F16);
    CU_ASSERT_EQUAL(o.damp, 0.01);
    CU_ASSERT_EQUAL(o.grid, SNRQ_QUANT_GRID_HESSIAN);
    CU_ASSERT_EQUAL(o.refine, 2);
    CU_ASSERT_EQUAL(o.regrid, 3);
    CU_ASSERT_EQUAL(o.permuted_groups, 0);
    CU_ASSERT_FALSE(o.asymmetric);
    accepts("quantize M -o OUT --calibration T --group-size channel --symmetric", &o);
    CU_ASSERT_EQUAL(o.group_size, 0);
    CU_ASSERT_FALSE(o.asymmetric);
}

static void baselines_do_what_their_papers_do(void)
{
    snrq_options o;
    accepts("quantize M -o OUT --calibration T --method gptq", &o);
    CU_ASSERT_EQUAL(o.grid, SNRQ_QUANT_GRID_MINMAX);
    CU_ASSERT_EQUAL(o.refine, 0);
    CU_ASSERT_EQUAL(o.regrid, 0);
    accepts("quantize M -o OUT --calibration T --grid hessian --refine 1 --method ldlq", &o);
    CU_ASSERT_EQUAL(o.grid, SNRQ_QUANT_GRID_HESSIAN);
    CU_ASSERT_EQUAL(o.refine, 1);
    CU_ASSERT_EQUAL(o.regrid, 0);
}

static void baseline_grid_makes_methods_differ_in_nothing_else(void)
{
    static const char *const methods[] = {"rtn", "ldlq", "gptq", "gptaq", "snrq", "ksnrq"};
    snrq_options o;
    char line[128];
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
        snprintf(line, sizeof line, "quantize M -o OUT --calibration T --baseline-grid --method %s",
                 methods[m]);
        accepts(line, &o);
        CU_ASSERT_EQUAL(o.grid, SNRQ_QUANT_GRID_MINMAX);
        CU_ASSERT_EQUAL(o.refine, 0);
        CU_ASSERT_EQUAL(o.regrid, 0);
        CU_ASSERT_EQUAL(o.damp, 0.01);
    }
    accepts("quantize M -o OUT --calibration T --baseline-grid --grid minmax --damp 0.01", &o);
    refuses("quantize M -o OUT --calibration T --baseline-grid --grid hessian", "--grid hessian");
    refuses("quantize M -o OUT --calibration T --refine 1 --baseline-grid", "--refine 1");
    refuses("quantize M -o OUT --calibration T --damp 0.1 --baseline-grid", "--damp 0.1");
    refuses("evaluate M --text T --baseline-grid", "does not belong");
}

/* A run begun with it is the same as one with what it stands for. */
static void baseline_grid_is_stored_as_what_it_stands_for(void)
{
    snrq_options short_form, long_form;
    accepts("quantize M -o OUT --calibration T --method snrq --baseline-grid", &short_form);
    accepts("quantize M -o OUT --calibration T --method snrq --grid minmax --refine 0 --regrid 0 "
            "--alpha fixed:0.5 --shrink 0 --compensate 0 --first-tokens 0",
            &long_form);
    json_t *a = snrq_options_stored(&short_form), *b = snrq_options_stored(&long_form);
    CU_ASSERT_TRUE(json_equal(a, b));
    json_decref(a);
    json_decref(b);
}

static void first_tokens_are_for_two_bits(void)
{
    snrq_options o;
    accepts("quantize M -o OUT --calibration T --bits 2", &o);
    CU_ASSERT_EQUAL(o.first_tokens, 1);
    accepts("quantize M -o OUT --calibration T --bits 3", &o);
    CU_ASSERT_EQUAL(o.first_tokens, 0);
    accepts("quantize M -o OUT --calibration T --bits 2 --method gptq", &o);
    CU_ASSERT_EQUAL(o.first_tokens, 0);
    accepts("quantize M -o OUT --calibration T --bits 2 --paper", &o);
    CU_ASSERT_EQUAL(o.first_tokens, 0);
    accepts("quantize M -o OUT --calibration T --bits 3 --first-tokens 2", &o);
    CU_ASSERT_EQUAL(o.first_tokens, 2);
}

static void scales_of_the_range_stay_unless_told(void)
{
    snrq_options o;
    accepts("quantize M -o OUT --calibration T --grid minmax", &o);
    CU_ASSERT_EQUAL(o.refine, 2);
    CU_ASSERT_EQUAL(o.regrid, 0);
    accepts("quantize M -o OUT --calibration T --grid minmax --regrid 2", &o);
    CU_ASSERT_EQUAL(o.regrid, 2);
}

static void wrong_values_are_refused_by_name(void)
{
    const char *base = "quantize M -o OUT --calibration T ";
    const char *const wrong[][2] = {{"--bits 9", "--bits"},
                                    {"--bits 1", "--bits"},
                                    {"--bits 3.5", "--bits"},
                                    {"--bits x", "found 'x'"},
                                    {"--group-size 0", "group-size"},
                                    {"--method magic", "rtn|ldlq"},
                                    {"--alpha fixed:2", "from 0 to 1"},
                                    {"--alpha often", "chained"},
                                    {"--damp nan", "--damp"},
                                    {"--damp -1", "--damp"},
                                    {"--factor-grid 2by2", "2x4"},
                                    {"--factor-grid 0x2", "2x4"},
                                    {"--beam 0", "--beam"},
                                    {"--frobnicate", "unknown option"},
                                    {"--text T", "does not belong"},
                                    {"--bits", "needs a value"},
                                    {"EXTRA", "found also 'EXTRA'"},
                                    {"--token-file F", "either"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char line[256];
        snprintf(line, sizeof line, "%s%s", base, wrong[i][0]);
        refuses(line, wrong[i][1]);
    }
}

static void missing_parts_are_named(void)
{
    refuses("", "no command");
    refuses("quantise M", "unknown command");
    refuses("quantize", "expected MODEL");
    refuses("quantize M --calibration T", "-o OUT");
    refuses("quantize M -o OUT", "--calibration");
    refuses("evaluate M", "--text");
    refuses("tokenize M -o F", "--decode");
    refuses("tokenize M -o F --text T --decode T", "either");
    refuses("tokenize M --text T", "-o OUT");
}

static void help_lists_the_options_of_a_command(void)
{
    snrq_options o;
    char *help = NULL;
    CU_ASSERT_EQUAL(parse("evaluate --help", &o, &help), SNRQ_OK);
    CU_ASSERT_PTR_NOT_NULL_FATAL(help);
    CU_ASSERT_PTR_NOT_NULL(strstr(help, "--reference"));
    CU_ASSERT_PTR_NULL(strstr(help, "--bits"));
    free(help);
    CU_ASSERT_EQUAL(parse("--help", &o, &help), SNRQ_OK);
    CU_ASSERT_PTR_NOT_NULL_FATAL(help);
    CU_ASSERT_PTR_NOT_NULL(strstr(help, "quantize"));
    free(help);
}

static void times_have_a_unit(void)
{
    static const struct {
        const char *text;
        double seconds;
    } good[] = {{"90s", 90}, {"45m", 2700}, {"11.5h", 41400}, {"11:30:00", 41400}, {"5:07", 307}};
    static const char *const bad[] = {"90",    "1d",   "-1s",  "s", "1:2:3:4",
                                      "1:60x", "1:99", "nans", ""};
    char line[128];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snrq_options o;
        snprintf(line, sizeof line, "quantize M -o OUT --calibration T --max-time=%s",
                 good[i].text);
        accepts(line, &o);
        CU_ASSERT_EQUAL(o.max_time, good[i].seconds);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(line, sizeof line, "quantize M -o OUT --calibration T --max-time=%s", bad[i]);
        refuses(line, "--max-time: expected a time such as 90s");
    }
}

/* Where there is no choice, what is stored is what older versions did. */
static void scales_have_either_sign_where_there_is_a_choice(void)
{
    static const char *const positive[] = {
        "quantize M -o OUT --calibration T --method gptq --grid hessian",
        "quantize M -o OUT --calibration T --grid mse",
        "quantize M -o OUT --calibration T --asymmetric",
        "quantize M -o OUT --calibration T --format q4_0",
        "quantize M -o OUT --calibration T --paper --grid hessian",
        "quantize M -o OUT --calibration T --scale-signs positive",
        "round CASE"};
    snrq_options o;
    accepts("quantize M -o OUT --calibration T", &o);
    CU_ASSERT_EQUAL(o.either_sign, 1);
    json_t *stored = snrq_options_stored(&o);
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(stored, "scale-signs")), "either");
    json_object_del(stored, "scale-signs"); /* as it was before there were such scales */
    CU_ASSERT_EQUAL(snrq_options_restore(stored, &o), SNRQ_OK);
    CU_ASSERT_EQUAL(o.either_sign, 0);
    json_decref(stored);
    for (size_t i = 0; i < sizeof positive / sizeof *positive; i++) {
        accepts(positive[i], &o);
        CU_ASSERT_EQUAL(o.either_sign, 0);
    }
    accepts("round CASE --scale-signs either", &o);
    CU_ASSERT_EQUAL(o.either_sign, 1);
}

/* Options that decide the result are stored, others are not. */
static void stored_options_decide_the_result(void)
{
    snrq_options o;
    accepts("quantize M -o OUT --calibration T --bits 3 --group-size channel --threads 4", &o);
    json_t *stored = snrq_options_stored(&o);
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(stored, "bits")), 3);
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(stored, "group-size")), "channel");
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(stored, "method")), "ksnrq");
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(stored, "alpha")), "auto");
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(stored, "shrink")), "auto");
    CU_ASSERT_PTR_NULL(json_object_get(stored, "tune")); /* as before there was tuning */
    CU_ASSERT_PTR_NULL(json_object_get(stored, "threads"));
    CU_ASSERT_PTR_NULL(json_object_get(stored, "output"));
    CU_ASSERT_PTR_NULL(json_object_get(stored, "calibration"));
    json_decref(stored);
}

/* A run resumes whatever the value of an option that is not stored. So an option that decides the
 * result must be stored; one that does not is listed here, and one that only sets others which are.
 */
static void options_that_are_not_stored_are_known_to_decide_nothing(void)
{
    static const char harmless[] =
        " output calibration text-key token-file symmetric threads json max-time watchdog strict "
        "keep-activations force-unlock ignore-memory ignore-unused-layers plan-ranks plan-nodes "
        "network machine recipe table-format sensitivity pass-memory for target-bits target-size "
        "assessment widths group-sizes no-uniform judged-windows alone "
        "formats redo dry-run "
        "options "
        "print-options help baseline-grid paper "
        "factor-grid ";
    snrq_options o;
    char *help = NULL, name[40], word[44];
    int options = 0;
    CU_ASSERT_EQUAL(parse("quantize --help", &o, &help), SNRQ_OK);
    CU_ASSERT_PTR_NOT_NULL_FATAL(help);
    accepts("quantize M -o OUT --calibration T --format q4_k --tune 2", &o);
    json_t *stored = snrq_options_stored(&o);
    accepts("quantize M -o OUT --calibration T --preset q4_k_m", &o);
    json_t *preset = snrq_options_stored(&o);
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(preset, "preset")), "q4_k_m");
    CU_ASSERT_TRUE(json_is_null(json_object_get(preset, "format")));
    for (const char *line = help; line != NULL; line = strchr(line + 1, '\n')) {
        if (sscanf(line, "%*[ \n]--%38[a-z-]", name) != 1 &&
            sscanf(line, "%*[ \n]-%*c, --%38[a-z-]", name) != 1)
            continue;
        snprintf(word, sizeof word, " %s ", name);
        bool known = json_object_get(stored, name) != NULL ||
                     json_object_get(preset, name) != NULL || strstr(harmless, word) != NULL;
        if (!known) fprintf(stderr, "--%s is neither stored nor listed in this test\n", name);
        CU_ASSERT_TRUE(known);
        options++;
    }
    CU_ASSERT_TRUE(options > 20);
    json_decref(preset);
    json_decref(stored);
    free(help);
}

/* What rules call things is what the command line calls them. */
static void names_of_rules_are_those_of_the_options(void)
{
    snrq_options o;
    char line[128], alpha[32];
    for (int m = 0; m < SNRQ_METHODS; m++) {
        snprintf(line, sizeof line, "quantize M -o OUT --calibration T --method %s",
                 snrq_method_name((snrq_method)m));
        accepts(line, &o);
        CU_ASSERT_EQUAL(o.method, m);
    }
    for (int k = 0; k < SNRQ_QUANT_GRID_KINDS; k++) {
        snprintf(line, sizeof line, "quantize M -o OUT --calibration T --grid %s",
                 snrq_quant_grid_name((snrq_quant_grid_kind)k));
        accepts(line, &o);
        CU_ASSERT_EQUAL(o.grid, k);
    }
    for (int natural = 0; natural < 2; natural++) {
        snprintf(line, sizeof line, "quantize M -o OUT --calibration T --order %s",
                 snrq_order_name(natural));
        accepts(line, &o);
        CU_ASSERT_EQUAL(o.natural_order, natural);
    }
    static const char *const modes[] = {"fixed:0.25", "sampled:5", "chained", "corr"};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        snprintf(line, sizeof line, "quantize M -o OUT --calibration T --alpha %s", modes[i]);
        accepts(line, &o);
        snrq_rule rule = snrq_options_rule(&o);
        snrq_rule_alpha_text(&rule, alpha, sizeof alpha);
        CU_ASSERT_STRING_EQUAL(alpha, modes[i]);
    }
}

/* By name, with the reason. */
static void options_without_effect_are_refused(void)
{
    static const char *const idle[][2] = {
        {"--calibration T --grid mse --scale-signs either", "--scale-signs either has no effect"},
        {"--calibration T --method gptq --regrid 3", "--regrid 3 has no effect here: only"},
        {"--calibration T --method gptaq --regrid 1", "--regrid 1 has no effect"},
        {"--calibration T --method rtn --regrid 1", "--regrid 1 has no effect"},
        {"--calibration T --method rtn --refine 2", "--refine 2 has no effect here: --method rtn"},
        {"--calibration T --method rtn --alpha corr", "--alpha corr has no effect here: only"},
        {"--calibration T --method ldlq --alpha fixed:.5", "--alpha fixed:0.5 has no effect"},
        {"--calibration T --method gptq --alpha chained", "--alpha chained has no effect"},
        {"--calibration T --method snrq --beam 16", "--beam 16 has no effect here: only --method"},
        {"--calibration T --method rtn --beam 8", "--beam 8 has no effect"},
        {"--calibration T --method rtn --groups permuted", "--groups permuted has no effect"},
        {"--calibration T --group-size channel --groups permuted", "a row is one group"},
        {"--calibration T --method rtn --order diagonal", "--order diagonal has no effect"},
        {"--calibration T --method rtn --damp 0.1", "--damp 0.1 has no effect"},
        {"--calibration T --method rtn --grid mse --damp 0.1", "--damp 0.1 has no effect"},
        {"--token-file F --windows random", "--windows random has no effect here: a --token-file"},
        {"--token-file F --seed 1", "--seed 1 has no effect here: nothing is drawn"},
        {"--token-file F --seed 0", "--seed 0 has no effect"},
        {"--calibration T --windows consecutive --seed 1", "--seed 1 has no effect"},
        {"--token-file F --method gptq --seed 1", "--seed 1 has no effect"},
        {"--calibration T --plan-ranks 8", "--plan-ranks 8 has no effect here: plans for other"},
        {"--calibration T --plan-nodes 2", "need --dry-run"},
        {"--token-file F --text-key body", "--text-key body has no effect here: token ids"}};
    char line[256];
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++) {
        snprintf(line, sizeof line, "quantize M -o OUT %s", idle[i][0]);
        refuses(line, idle[i][1]);
    }
    refuses("round CASE --method rtn --damp 0.1", "--damp 0.1 has no effect");
    refuses("evaluate M --token-file F --text-key body", "--text-key body has no effect here");
    refuses("tokenize M --decode F -o T --text-key body", "--text-key body has no effect here");
}

/* The same options where they count, and values that are true in any case. */
static void what_is_done_anyway_may_be_said(void)
{
    static const char *const good[] = {
        "--calibration T --method gptq --regrid 0 --refine 1",
        "--calibration T --method rtn --refine 0 --regrid 0 --groups original --beam 1",
        "--calibration T --method rtn --grid hessian --damp 0.1",
        "--calibration T --method gptaq --alpha sampled:2 --groups permuted --order natural",
        "--calibration T --method snrq --beam 1 --alpha corr --regrid 2",
        "--calibration T --group-size channel --groups original",
        "--calibration T --group-size 1000000 --groups permuted",
        "--calibration T --seed 3 --windows random",
        "--calibration T --windows consecutive --alpha sampled:2 --seed 3",
        "--token-file F --windows consecutive",
        "--token-file F --alpha sampled:2 --seed 3",
        "--calibration T --plan-ranks 0",
        "--calibration T --dry-run --plan-ranks 8 --plan-nodes 2"};
    snrq_options o;
    char line[256];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(line, sizeof line, "quantize M -o OUT %s", good[i]);
        accepts(line, &o);
    }
    accepts("export OUT -o DIR --format gptq --weights model --embedding-type model", &o);
}

/* rounding/rule.h knows by itself what a method uses. */
static void the_table_of_effects_agrees_with_the_rules(void)
{
    snrq_options o;
    char line[128];
    for (int m = 0; m < SNRQ_METHODS; m++) {
        snprintf(line, sizeof line, "quantize M -o OUT --calibration T --method %s",
                 snrq_method_name((snrq_method)m));
        accepts(line, &o);
        snrq_rule rule = snrq_options_rule(&o);
        CU_ASSERT_EQUAL(snrq_option_find_idle(&o, "regrid") == NULL,
                        snrq_method_regrids((snrq_method)m));
        CU_ASSERT_EQUAL(snrq_option_find_idle(&o, "alpha") == NULL, snrq_rule_needs_d(&rule));
        CU_ASSERT_EQUAL(snrq_option_find_idle(&o, "beam") == NULL, m == SNRQ_KSNRQ);
        CU_ASSERT_EQUAL(snrq_option_find_idle(&o, "refine") == NULL, m != SNRQ_RTN);
        CU_ASSERT_PTR_NULL(snrq_option_find_idle(&o, "bits"));
    }
}

static void repeated_options_are_refused(void)
{
    refuses("quantize M -o OUT --calibration T --bits 3 --bits 4", "--bits is given twice");
    refuses("quantize M -o OUT --calibration T --bits 3 --bits 3", "--bits is given twice");
    refuses("quantize M -o OUT --calibration T --output OUT", "--output is given twice");
    refuses("quantize M -o OUT --calibration T --strict --strict", "--strict is given twice");
    refuses("quantize M -o OUT --calibration T --symmetric --asymmetric", "contradict each other");
    refuses("round C --asymmetric --symmetric", "contradict each other");
}

/* A rule says what is done. */
static void rules_hold_what_a_method_does(void)
{
    snrq_options o;
    accepts("quantize M -o OUT --calibration T --method snrq", &o);
    CU_ASSERT_EQUAL(snrq_options_rule(&o).beam, 1);
    CU_ASSERT_EQUAL(snrq_options_rule(&o).regrid, 3);
    accepts("quantize M -o OUT --calibration T --method rtn --grid hessian", &o);
    CU_ASSERT_EQUAL(snrq_options_rule(&o).beam, 1);
    CU_ASSERT_EQUAL(snrq_options_rule(&o).refine, 0);
    CU_ASSERT_EQUAL(snrq_options_rule(&o).regrid, 0);
    accepts("quantize M -o OUT --calibration T --method gptq --refine 2", &o);
    CU_ASSERT_EQUAL(snrq_options_rule(&o).refine, 2);
    CU_ASSERT_EQUAL(snrq_options_rule(&o).regrid, 0);
}

/* What is stored of this command line equals what is stored of that one. */
static void stores_the_same(const char *one, const char *other)
{
    snrq_options a, b;
    char line[256];
    snprintf(line, sizeof line, "quantize M -o OUT %s", one);
    accepts(line, &a);
    json_t *first = snrq_options_stored(&a);
    snprintf(line, sizeof line, "quantize M -o OUT %s", other);
    accepts(line, &b);
    json_t *second = snrq_options_stored(&b);
    CU_ASSERT_TRUE(json_equal(first, second));
    json_decref(first);
    json_decref(second);
}

static void stored_options_are_values(void)
{
    snrq_options o;
    stores_the_same("--calibration T --alpha fixed:.5", "--calibration T --alpha fixed:0.50");
    stores_the_same("--calibration T --alpha sampled:1e1", "--calibration T --alpha sampled:10");
    stores_the_same("--calibration T --factor-grid 2x1", "--calibration T");
    stores_the_same("--calibration T --damp 1e-2", "--calibration T");
    stores_the_same("--calibration T --method snrq --beam 1", "--calibration T --method snrq");
    accepts("quantize M -o OUT --token-file F --method gptq", &o);
    json_t *stored = snrq_options_stored(&o);
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(stored, "beam")), 1);
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(stored, "regrid")), 0);
    CU_ASSERT_TRUE(json_is_null(json_object_get(stored, "alpha")));
    CU_ASSERT_TRUE(json_is_null(json_object_get(stored, "seed")));
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(stored, "windows")), "consecutive");
    json_decref(stored);
}

/* As version 0.1.0 wrote them: as typed, also what had no effect. */
static void options_of_older_runs_are_restored(void)
{
    snrq_options before, now;
    json_t *old = json_pack(
        "{s:i, s:i, s:b, s:s, s:i, s:s, s:s, s:s, s:s, s:s, s:f, s:i, s:i, s:i, s:i, s:i, s:s, "
        "s:n}",
        "bits", 3, "group-size", 64, "asymmetric", 1, "method", "gptq", "beam", 16, "alpha",
        "fixed:.5", "grid", "mse", "groups", "permuted", "order", "natural", "scale-type", "bf16",
        "damp", 0.02, "refine", 1, "regrid", 3, "sequences", 0, "length", 0, "seed", 7, "windows",
        "random", "factor-grid");
    CU_ASSERT_PTR_NOT_NULL_FATAL(old);
    CU_ASSERT_EQUAL(snrq_options_restore(old, &before), SNRQ_OK);
    accepts("quantize M -o OUT --calibration T --bits 3 --group-size 64 --asymmetric --method gptq "
            "--grid mse --groups permuted --order natural --scale-type bf16 --damp .02 --refine 1 "
            "--seed 7 --held-out 0",
            &now);
    json_t *a = snrq_options_stored(&before), *b = snrq_options_stored(&now);
    CU_ASSERT_TRUE(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    json_object_set_new(old, "bits", json_string("many"));
    CU_ASSERT_EQUAL(snrq_options_restore(old, &before), SNRQ_USAGE);
    json_decref(old);
}

/* A file of options with this content. Returns its path. */
static const char *option_file(const char *content)
{
    scratch_write_text("options", content);
    return scratch_path("options");
}

static void a_file_gives_options(void)
{
    snrq_options o;
    char line[600];
    snprintf(line, sizeof line, "quantize M --method gptq --options %s",
             option_file("\xef\xbb\xbf# the first line\n\n  --bits 3\r\n\t--group-size=64\n"
                         "-o  my out \n--strict\n\t # more\n--calibration \" a \\\"#\\\\ #b \"\n"
                         "--max-time 90s"));
    accepts(line, &o);
    CU_ASSERT_EQUAL(o.method, SNRQ_GPTQ);
    CU_ASSERT_EQUAL(o.bits, 3);
    CU_ASSERT_EQUAL(o.group_size, 64);
    CU_ASSERT_STRING_EQUAL(o.output, "my out");
    CU_ASSERT_STRING_EQUAL(o.calibration, " a \"#\\ #b ");
    CU_ASSERT_TRUE(o.strict);
    CU_ASSERT_EQUAL(o.max_time, 90);
    CU_ASSERT_EQUAL(o.regrid, 0); /* defaults follow from the method, wherever it is given */
    snrq_options_free(&o);
}

static void faults_of_a_file_are_named_with_their_line(void)
{
    static const char *const wrong[][2] = {
        {"--bits 3\n--bits 4\n", "line 2: quantize: --bits is given twice, in"},
        {"\n--calibration X\n", "given twice, on the command line and in"},
        {"--symmetric\n--asymmetric\n", "line 2: quantize: --symmetric (in"},
        {"# x\n\n--bits 9\n", "line 3: --bits: expected a whole number from 2 to 8, found '9'"},
        {"bits 3\n", "line 1: expected an option such as --bits 3, found 'bits 3'"},
        {"--\n", "line 1: expected an option"},
        {"-\n", "line 1: expected an option"},
        {"--frobnicate\n", "line 1: unknown option --frobnicate"},
        {"--bit 3\n", "line 1: unknown option --bit"},
        {"--help\n", "line 1: unknown option --help"},
        {"--text T\n", "line 1: quantize: --text does not belong to this command"},
        {"--bits\n", "line 1: option --bits needs a value"},
        {"--bits 3 # as in the paper\n", "line 1: a comment needs a line of its own"},
        {"--strict yes\n", "line 1: --strict takes no value, found 'yes'"},
        {"--bits '3'\n", "line 1: expected a value, or one in double quotes"},
        {"--bits \"3\n", "line 1: expected a closing quote"},
        {"--bits \"3\" 4\n", "line 1: expected a closing quote"},
        {"--bits \"\\3\"\n", "line 1: a backslash between quotes"},
        {"--bits \"\\", "line 1: a backslash between quotes"},
        {"--options other\n", "line 1: --options belongs on the command line"},
        {"--print-options\n", "line 1: --print-options belongs on the command line"}};
    char line[600];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(line, sizeof line, "quantize M -o OUT --calibration T --options %s",
                 option_file(wrong[i][0]));
        refuses(line, wrong[i][1]);
    }
    snprintf(line, sizeof line, "status OUT --options %s", option_file(""));
    scratch_write("options", "--json\n\0\n", 9);
    refuses(line, "line 2: a NUL byte");
    snrq_options o;
    char *help = NULL;
    CU_ASSERT_EQUAL(parse("status OUT --options /nowhere/options", &o, &help), SNRQ_NO_INPUT);
    CU_ASSERT_EQUAL(parse("status OUT --options /dev/null", &o, &help), SNRQ_BAD_DATA);
    CU_ASSERT_EQUAL(parse("status OUT --options /", &o, &help), SNRQ_BAD_DATA);
}

/* What --print-options says of a command line, read back by --options, says the same again. */
static void printed_options_are_read_back(void)
{
    static const char *const lines[] = {
        "quantize",
        "quantize M -o OUT --calibration T --bits 3 --asymmetric --alpha fixed:0.1 --max-time 1:30",
        "quantize M --method rtn",
        "quantize M --method gptq --token-file F --strict",
        "quantize --group-size channel --factor-grid 2x3 --damp 0.30000000000000004",
        "evaluate M --text T --logprobs F",
        "evaluate M --text B --text A --text B --text-key body",
        "quantize M --text-key body",
        "tokenize M --decode F",
        "round C --alpha sampled:5 --scale-type f32",
        "tokenize",
        "inspect --json",
        "verify O",
        "status",
        "report OUT -o DIR",
        "runs TABLE -o ROOT --data DIR",
        "quantize M --method snrq --baseline-grid",
        "export --max-shard-size 1.5GiB --format safetensors",
        "export"};
    char line[600], command[16];
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        snrq_options o;
        char *first = NULL, *second = NULL;
        snprintf(line, sizeof line, "%s --print-options", lines[i]);
        CU_ASSERT_EQUAL(parse(line, &o, &first), SNRQ_OK);
        CU_ASSERT_PTR_NOT_NULL_FATAL(first);
        sscanf(lines[i], "%15s", command);
        snprintf(line, sizeof line, "%s --print-options --options %s", command, option_file(first));
        CU_ASSERT_EQUAL(parse(line, &o, &second), SNRQ_OK);
        CU_ASSERT_PTR_NOT_NULL_FATAL(second);
        CU_ASSERT_STRING_EQUAL(first, second);
        snrq_options_free(&o);
        free(first);
        free(second);
    }
    refuses("quantize M --print-options --method snrq --beam 4", "--beam 4 has no effect");
    refuses("quantize M --print-options --bits 9", "--bits");
}

static void printed_texts_are_read_back(void)
{
    static const char *const texts[] = {
        "plain", " begins",     "ends ",     "tab\tinside", "\ttab", "",
        "a #b",  "#a",          "a#b",       "\"quoted\"",  "'q'",   "a\nb",
        "a\r",   "back\\slash", "\" \\ \\n", "=x",          "-x",    "caf\xe9 \x01"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char path[512], *text = NULL;
        snrq_options o;
        char *typed[] = {(char *)"snrq", (char *)"tokenize", (char *)"-o", (char *)texts[i],
                         (char *)"--print-options"};
        CU_ASSERT_EQUAL(snrq_options_parse(5, typed, &o, &text), SNRQ_OK);
        CU_ASSERT_PTR_NOT_NULL_FATAL(text);
        snprintf(path, sizeof path, "%s", option_file(text));
        free(text);
        char *read[] = {(char *)"snrq", (char *)"tokenize",  (char *)"M", (char *)"--text",
                        (char *)"T",    (char *)"--options", path};
        text = NULL;
        if (snrq_options_parse(7, read, &o, &text) != SNRQ_OK) CU_FAIL("cannot be read back");
        CU_ASSERT_PTR_NOT_NULL_FATAL(o.output);
        CU_ASSERT_STRING_EQUAL(o.output, texts[i]);
        snrq_options_free(&o);
    }
}

static void export_reads_formats_and_sizes(void)
{
    static const struct {
        const char *text;
        int64_t bytes;
    } sizes[] = {{"5GB", 5000000000},
                 {"500MB", 500000000},
                 {"1.5KB", 1500},
                 {"2GiB", 1ll << 31},
                 {"4096", 4096}};
    snrq_options o;
    char line[128];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        snprintf(line, sizeof line, "export OUT -o DIR --format gptq --max-shard-size %s",
                 sizes[i].text);
        accepts(line, &o);
        CU_ASSERT_EQUAL(o.max_shard_bytes, sizes[i].bytes);
        CU_ASSERT_EQUAL(o.format, SNRQ_FORMAT_GPTQ);
    }
    accepts("export OUT -o DIR --format safetensors --weights f32", &o);
    CU_ASSERT_EQUAL(o.format, SNRQ_FORMAT_SAFETENSORS);
    CU_ASSERT_EQUAL(o.max_shard_bytes, 5000000000);
    CU_ASSERT_EQUAL(o.export_float32, 1);
    CU_ASSERT_EQUAL(o.engine, -1);
    CU_ASSERT_EQUAL(o.fold_zeros, 0);
    accepts("export OUT -o DIR --format gptq --for vllm-cpu --zero-points folded", &o);
    CU_ASSERT_EQUAL(o.engine, 3);
    CU_ASSERT_EQUAL(o.fold_zeros, 1);
    accepts("verify OUT --export DIR", &o);
    CU_ASSERT_STRING_EQUAL(o.export_path, "DIR");
}

static void format_names_widths(void)
{
    snrq_options o;
    accepts("quantize M -o OUT --calibration T --format int2 --group-size 64", &o);
    CU_ASSERT(o.bits == 2 && o.group_size == 64 && o.weight_format == -1 && o.first_tokens == 1);
    accepts("quantize M -o OUT --calibration T --format int8 --bits 8 --asymmetric", &o);
    CU_ASSERT(o.bits == 8 && o.asymmetric && o.weight_format == -1);
    accepts("round CASE --format q3_k", &o);
    CU_ASSERT_STRING_EQUAL(snrq_weight_formats[o.weight_format].name, "q3_k");
    refuses("quantize M -o OUT --calibration T --format int3 --bits 4", "--bits 3, and --bits");
    refuses("quantize M -o OUT --calibration T --format int3 --preset q4_k_m", "--preset");
    refuses("quantize M -o OUT --calibration T --format int3 --target-bits 3", "--target-bits");
    refuses("quantize M -o OUT --calibration T --format int9", "int8");
    accepts("quantize M -o OUT --calibration T --table-format iq4_xs", &o);
    CU_ASSERT_STRING_EQUAL(snrq_weight_formats[o.table_format].name, "iq4_xs");
    refuses("quantize M -o OUT --calibration T --table-format nvfp4", "q4_0|q4_1");
    refuses("quantize M -o OUT --calibration T --table-format q6_k --preset q4_k_m",
            "leave out --table-format");
}

static void export_refuses(void)
{
    refuses("export OUT --format gptq", "-o DIR is missing");
    refuses("export OUT -o DIR", "--format F is missing");
    refuses("export OUT -o DIR --format awq", "gptq|compressed-tensors");
    refuses("export OUT -o DIR --format gptq --weights f32", "--weights f32 has no effect");
    refuses("export OUT -o DIR --format gptq --embedding-type f16", "--format gguf");
    refuses("export OUT -o DIR --format gptq --for tensorrt", "transformers|gptqmodel|vllm");
    refuses("export OUT -o DIR --format gguf --zero-points folded",
            "--zero-points folded has no effect");
    refuses("export OUT -o DIR --format gguf --max-shard-size 1GB", "a GGUF is one file");
    refuses("export OUT -o DIR --format gptq --max-shard-size 5XB", "5XB");
    refuses("export OUT -o DIR --format gptq --max-shard-size 0", "--max-shard-size");
    refuses("export OUT -o DIR --format gptq --max-shard-size infGB", "--max-shard-size");
}

/* Asserts that `found` [count] are the texts of `expected`, each followed by a blank. */
static void assert_texts(const char *const *found, int count, const char *expected)
{
    char joined[256] = "";
    for (int i = 0; i < count; i++)
        snprintf(joined + strlen(joined), sizeof joined - strlen(joined), "%s ",
                 found[i] != NULL ? found[i] : "-");
    CU_ASSERT_STRING_EQUAL(joined, expected);
}

static void texts_keep_their_order(void)
{
    snrq_options o;
    accepts("quantize M -o OUT --calibration A --calibration B --calibration A --text-key body",
            &o);
    CU_ASSERT_STRING_EQUAL(o.calibration, "A");
    CU_ASSERT_EQUAL(o.texts.count, 3);
    CU_ASSERT_STRING_EQUAL(o.texts.path[1], "B");
    CU_ASSERT_STRING_EQUAL(o.texts.path[2], "A");
    CU_ASSERT_STRING_EQUAL(o.text_key, "body");
    accepts("evaluate M --text T", &o);
    CU_ASSERT_STRING_EQUAL(o.text, "T");
    CU_ASSERT_EQUAL(o.texts.count, 1);
    CU_ASSERT_PTR_NULL(o.text_key);
    refuses("quantize M N -o OUT --calibration A", "its own --calibration");
}

static void a_file_gives_texts_in_order(void)
{
    snrq_options o;
    char line[600], *printed = NULL;
    snprintf(line, sizeof line, "quantize M -o OUT --options %s",
             option_file("--calibration B\n--bits 3\n--calibration  A b\n--calibration B\n"));
    accepts(line, &o);
    assert_texts(o.texts.path, o.texts.count, "B A b B ");
    CU_ASSERT_STRING_EQUAL(o.calibration, "B");
    snrq_options_free(&o);
    snprintf(line + strlen(line), sizeof line - strlen(line), " --print-options");
    CU_ASSERT_EQUAL(parse(line, &o, &printed), SNRQ_OK);
    CU_ASSERT_PTR_NOT_NULL_FATAL(printed);
    CU_ASSERT_PTR_NOT_NULL(
        strstr(printed, "--calibration B\n--calibration A b\n--calibration B\n"));
    snrq_options_free(&o);
    free(printed);
}

/* In two places it would depend on the program which ones come first. */
static void texts_in_two_places_are_refused(void)
{
    char line[600];
    snprintf(line, sizeof line, "evaluate M --text A --text B --options %s",
             option_file("--text C\n"));
    refuses(line, "line 1: evaluate: --text is given twice, on the command line and in");
    refuses(line, "line 1; give all of them in one place");
}

static void inputs_are_all_that_is_read(void)
{
    snrq_options o;
    char line[600];
    const char *paths[SNRQ_MOST_INPUTS];
    snprintf(line, sizeof line, "evaluate M --text A --text B --reference R --options %s",
             option_file("--json\n"));
    accepts(line, &o);
    CU_ASSERT_EQUAL(snrq_options_inputs(&o, paths), 11);
    assert_texts(paths, 4, "M R - - ");
    CU_ASSERT_STRING_EQUAL(paths[4], scratch_path("options"));
    assert_texts(paths + 5, 6, "- - - - A B ");
    snrq_options_free(&o);
    accepts("tokenize M --decode F -o T", &o);
    CU_ASSERT_EQUAL(snrq_options_inputs(&o, paths), 9);
    assert_texts(paths, 9, "M - - F - - - - - ");
    accepts("quantize M --token-file F -o OUT", &o);
    CU_ASSERT_EQUAL(snrq_options_inputs(&o, paths), 9);
    assert_texts(paths, 9, "M - F - - - - - - ");
    accepts("quantize M --calibration T -o OUT --target-bits 3", &o);
    CU_ASSERT_PTR_NULL(o.assessment);
    snrq_options_free(&o);
    refuses("plan M --calibration T --target-bits 3", "--target-bits needs --assessment");
    refuses("quantize M --calibration T -o OUT --assessment A",
            "--assessment is for --target-bits");
    refuses("quantize M --calibration T -o OUT --target-bits 3 --target-size 1GB --assessment A",
            "contradict each other");
    refuses("quantize M --calibration T -o OUT --target-size 1GB --assessment A --recipe R",
            "a budget makes a recipe");
    refuses("quantize M --calibration T -o OUT --judged-windows 4", "for plans of it: --dry-run");
    accepts("plan M --calibration T --judged-windows 4 --alone modules", &o);
    CU_ASSERT_EQUAL(o.judged_windows, 4);
    CU_ASSERT_EQUAL(o.alone_modules, 1);
    refuses("assess M --calibration T", "-o DIR is missing");
    refuses("assess M -o DIR", "either --calibration TEXT or --token-file FILE");
    accepts("plan M --token-file F --machine N", &o);
    CU_ASSERT_TRUE(o.plan && o.dry_run);
    CU_ASSERT_EQUAL(snrq_options_inputs(&o, paths), 9);
    assert_texts(paths, 9, "M - F - - N - - - ");
}

/* More files than there are arguments of a command line in practice. */
static void too_many_texts_are_refused(void)
{
    enum { FIRST = 3 };
    static char *argv[FIRST + 2 * (SNRQ_MOST_TEXTS + 1)] = {(char *)"snrq", (char *)"evaluate",
                                                            (char *)"M"};
    snrq_options o;
    char *help = NULL;
    for (int i = 0; i <= SNRQ_MOST_TEXTS; i++) {
        argv[FIRST + 2 * i] = (char *)"--text";
        argv[FIRST + 2 * i + 1] = (char *)"T";
    }
    CU_ASSERT_EQUAL(snrq_options_parse(FIRST + 2 * SNRQ_MOST_TEXTS, argv, &o, &help), SNRQ_OK);
    CU_ASSERT_EQUAL(o.texts.count, SNRQ_MOST_TEXTS);
    CU_ASSERT_EQUAL(snrq_options_parse(FIRST + 2 * SNRQ_MOST_TEXTS + 2, argv, &o, &help),
                    SNRQ_USAGE);
}

int main(void)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(quantize_reads_every_option),
        SNRQ_TEST(defaults_are_those_of_the_table),
        SNRQ_TEST(baselines_do_what_their_papers_do),
        SNRQ_TEST(baseline_grid_makes_methods_differ_in_nothing_else),
        SNRQ_TEST(baseline_grid_is_stored_as_what_it_stands_for),
        SNRQ_TEST(first_tokens_are_for_two_bits),
        SNRQ_TEST(scales_of_the_range_stay_unless_told),
        SNRQ_TEST(wrong_values_are_refused_by_name),
        SNRQ_TEST(missing_parts_are_named),
        SNRQ_TEST(help_lists_the_options_of_a_command),
        SNRQ_TEST(times_have_a_unit),
        SNRQ_TEST(scales_have_either_sign_where_there_is_a_choice),
        SNRQ_TEST(stored_options_decide_the_result),
        SNRQ_TEST(options_that_are_not_stored_are_known_to_decide_nothing),
        SNRQ_TEST(names_of_rules_are_those_of_the_options),
        SNRQ_TEST(options_without_effect_are_refused),
        SNRQ_TEST(what_is_done_anyway_may_be_said),
        SNRQ_TEST(the_table_of_effects_agrees_with_the_rules),
        SNRQ_TEST(repeated_options_are_refused),
        SNRQ_TEST(rules_hold_what_a_method_does),
        SNRQ_TEST(stored_options_are_values),
        SNRQ_TEST(options_of_older_runs_are_restored),
        SNRQ_TEST(a_file_gives_options),
        SNRQ_TEST(faults_of_a_file_are_named_with_their_line),
        SNRQ_TEST(printed_options_are_read_back),
        SNRQ_TEST(printed_texts_are_read_back),
        SNRQ_TEST(export_reads_formats_and_sizes),
        SNRQ_TEST(format_names_widths),
        SNRQ_TEST(export_refuses),
        SNRQ_TEST(texts_keep_their_order),
        SNRQ_TEST(a_file_gives_texts_in_order),
        SNRQ_TEST(texts_in_two_places_are_refused),
        SNRQ_TEST(inputs_are_all_that_is_read),
        SNRQ_TEST(too_many_texts_are_refused)};
    int failed = snrq_run_tests("options", tests, sizeof tests / sizeof *tests, 1);
    scratch_remove();
    return failed;
}
