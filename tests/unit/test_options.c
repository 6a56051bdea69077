/* The command line: what is accepted, what is refused and how, what is stored. */
#include <string.h>

#include "pipeline/options.h"
#include "pipeline/rules.h"
#include "tests/snrq_test.h"

enum { MOST = 48 };

/* Parses a command line given as one string, split at spaces. */
static snrq_status parse(const char *line, snrq_options *options, char **help)
{
    static char copy[512];
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
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), what));
    free(help);
}

static void quantize_reads_every_option(void)
{
    snrq_options o;
    accepts("quantize M -o OUT --calibration T --bits 3 --group-size 64 --asymmetric --method snrq "
            "--beam 4 "
            "--alpha sampled:5 --grid hessian --groups permuted --order natural",
            &o);
    CU_ASSERT_STRING_EQUAL(o.path, "M");
    CU_ASSERT_STRING_EQUAL(o.output, "OUT");
    CU_ASSERT_EQUAL(o.bits, 3);
    CU_ASSERT_EQUAL(o.group_size, 64);
    CU_ASSERT_TRUE(o.asymmetric);
    CU_ASSERT_EQUAL(o.method, SNRQ_SNRQ);
    CU_ASSERT_EQUAL(o.beam, 4);
    CU_ASSERT_EQUAL(o.alpha_mode, SNRQ_ALPHA_SAMPLED);
    CU_ASSERT_EQUAL(o.alpha_value, 5.0);
    CU_ASSERT_EQUAL(o.grid, SNRQ_QUANT_GRID_HESSIAN);
    CU_ASSERT_EQUAL(o.permuted_groups, 1);
    CU_ASSERT_EQUAL(o.natural_order, 1);
    accepts("quantize M -o OUT --token-file T --scale-type bf16 --damp 0.1 --refine 2 --sequences "
            "8 --length 64 "
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
    CU_ASSERT_EQUAL(o.alpha_mode, SNRQ_ALPHA_FIXED);
    CU_ASSERT_EQUAL(o.alpha_value, 0.5);
    CU_ASSERT_EQUAL(o.scale_type, SNRQ_F16);
    CU_ASSERT_EQUAL(o.damp, 0.01);
    CU_ASSERT_EQUAL(o.grid, SNRQ_QUANT_GRID_HESSIAN);
    CU_ASSERT_EQUAL(o.refine, 2);
    CU_ASSERT_EQUAL(o.regrid, 3);
    CU_ASSERT_EQUAL(o.permuted_groups, 0);
    CU_ASSERT_FALSE(o.asymmetric);
    accepts("quantize M -o OUT --calibration T --group-size channel --asymmetric --symmetric", &o);
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

/* Options that decide the result are stored, others are not. */
static void stored_options_decide_the_result(void)
{
    snrq_options o;
    accepts("quantize M -o OUT --calibration T --bits 3 --group-size channel --threads 4", &o);
    json_t *stored = snrq_options_stored(&o);
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(stored, "bits")), 3);
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(stored, "group-size")), "channel");
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(stored, "method")), "ksnrq");
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(stored, "alpha")), "fixed:0.5");
    CU_ASSERT_PTR_NULL(json_object_get(stored, "threads"));
    CU_ASSERT_PTR_NULL(json_object_get(stored, "output"));
    CU_ASSERT_PTR_NULL(json_object_get(stored, "calibration"));
    json_decref(stored);
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

/* A rule says what is done, not what was asked for in vain. */
static void rules_hold_what_a_method_does(void)
{
    snrq_options o;
    accepts("quantize M -o OUT --calibration T --method snrq --beam 16", &o);
    CU_ASSERT_EQUAL(snrq_options_rule(&o).beam, 1);
    accepts("quantize M -o OUT --calibration T --method rtn --refine 2 --regrid 3", &o);
    CU_ASSERT_EQUAL(snrq_options_rule(&o).refine, 0);
    CU_ASSERT_EQUAL(snrq_options_rule(&o).regrid, 0);
    accepts("quantize M -o OUT --calibration T --method gptq --regrid 3", &o);
    CU_ASSERT_EQUAL(snrq_options_rule(&o).regrid, 0);
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
    accepts("verify OUT --export DIR", &o);
    CU_ASSERT_STRING_EQUAL(o.export_path, "DIR");
}

static void export_refuses(void)
{
    refuses("export OUT --format gptq", "-o DIR is missing");
    refuses("export OUT -o DIR", "--format F is missing");
    refuses("export OUT -o DIR --format awq", "gptq|compressed-tensors");
    refuses("export OUT -o DIR --format gptq --weights f32", "--weights f32");
    refuses("export OUT -o DIR --format gptq --max-shard-size 5XB", "5XB");
    refuses("export OUT -o DIR --format gptq --max-shard-size 0", "--max-shard-size");
    refuses("export OUT -o DIR --format gptq --max-shard-size infGB", "--max-shard-size");
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
    refuses("evaluate M --token-file T --text-key body", "--text-key");
    refuses("quantize M N -o OUT --calibration A", "its own --calibration");
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
    static const snrq_test tests[] = {SNRQ_TEST(quantize_reads_every_option),
                                      SNRQ_TEST(defaults_are_those_of_the_table),
                                      SNRQ_TEST(baselines_do_what_their_papers_do),
                                      SNRQ_TEST(scales_of_the_range_stay_unless_told),
                                      SNRQ_TEST(wrong_values_are_refused_by_name),
                                      SNRQ_TEST(missing_parts_are_named),
                                      SNRQ_TEST(help_lists_the_options_of_a_command),
                                      SNRQ_TEST(times_have_a_unit),
                                      SNRQ_TEST(stored_options_decide_the_result),
                                      SNRQ_TEST(names_of_rules_are_those_of_the_options),
                                      SNRQ_TEST(rules_hold_what_a_method_does),
                                      SNRQ_TEST(export_reads_formats_and_sizes),
                                      SNRQ_TEST(export_refuses),
                                      SNRQ_TEST(texts_keep_their_order),
                                      SNRQ_TEST(too_many_texts_are_refused)};
    return snrq_run_tests("options", tests, sizeof tests / sizeof *tests, 1);
}
