/* What engines do with exports: the option and the table agree, rows name the settings that they
 * concern, and what they say to do instead has no trouble itself. */
#include <stdlib.h>
#include <string.h>

#include "pipeline/export.h"
#include "pipeline/export/engines.h"
#include "tests/snrq_test.h"

static int64_t chosen(const char *name)
{
    char *argv[] = {
        (char *)"snrq",     (char *)"export", (char *)"OUT",   (char *)"-o", (char *)"DIR",
        (char *)"--format", (char *)"gptq",   (char *)"--for", (char *)name, NULL};
    snrq_options options;
    char *help = NULL;
    snrq_status status = snrq_options_parse(9, argv, &options, &help);
    free(help);
    return status == SNRQ_OK ? options.engine : -1;
}

static void the_option_has_the_engines_of_the_table_in_its_order(void)
{
    for (int i = 0; i < SNRQ_ENGINES; i++)
        CU_ASSERT_EQUAL(chosen(snrq_engine_name((snrq_engine)i)), i);
    CU_ASSERT_EQUAL(chosen("exllama"), -1);
}

static void every_format_of_an_engine_is_one_of_the_table_of_formats(void)
{
    for (int i = 0; i < SNRQ_ENGINES; i++) {
        int count = 0, commas = 0;
        const char *formats = snrq_engine_formats((snrq_engine)i);
        for (int f = 0; f < SNRQ_FORMATS; f++)
            count += snrq_engine_reads((snrq_engine)i,
                                       snrq_export_format_of((snrq_format_choice)f)->name);
        for (const char *at = formats; *at != '\0'; at++) commas += *at == ',';
        CU_ASSERT_EQUAL(count, commas + 1);
    }
}

/* Does the newest version of the engine load such an export, as far as is known? */
static bool loads(snrq_engine engine, const char *format, snrq_export_facts facts)
{
    const snrq_engine_trouble *t;
    int at = 0;
    while ((t = snrq_engine_trouble_next(engine, format, &facts, &at)) != NULL)
        if (t->fatal) return false;
    return true;
}

/* Rows as in the tables of engines that were run (docs/exporting.md). */
static void what_was_read_is_let_pass_and_what_failed_is_not(void)
{
    static const struct {
        snrq_engine engine;
        const char *format;
        int bits;
        bool symmetric, permuted, loads;
    } rows[] = {
        {SNRQ_ENGINE_TRANSFORMERS, "compressed-tensors", 2, true, false, true},
        {SNRQ_ENGINE_TRANSFORMERS, "compressed-tensors", 3, true, false, true},
        {SNRQ_ENGINE_TRANSFORMERS, "compressed-tensors", 8, true, false, true},
        {SNRQ_ENGINE_TRANSFORMERS, "compressed-tensors", 4, false, false, false},
        {SNRQ_ENGINE_TRANSFORMERS, "compressed-tensors", 8, false, false, false},
        {SNRQ_ENGINE_TRANSFORMERS, "compressed-tensors", 4, true, true, false},
        {SNRQ_ENGINE_TRANSFORMERS, "gptq", 4, false, false, true},
        {SNRQ_ENGINE_GPTQMODEL, "gptq", 4, false, false, true},
        {SNRQ_ENGINE_GPTQMODEL, "gptq", 3, true, true, true},
        {SNRQ_ENGINE_VLLM_CPU, "gptq", 4, true, false, true},
        {SNRQ_ENGINE_VLLM_CPU, "gptq", 4, false, false, false},
        {SNRQ_ENGINE_VLLM_CPU, "gptq", 3, true, false, false},
        {SNRQ_ENGINE_VLLM_CPU, "gptq", 8, true, false, false},
        {SNRQ_ENGINE_VLLM_CPU, "gptq", 4, true, true, false},
        {SNRQ_ENGINE_VLLM_CPU, "compressed-tensors", 4, true, false, true},
        {SNRQ_ENGINE_VLLM_CPU, "compressed-tensors", 4, false, false, true},
        {SNRQ_ENGINE_VLLM_CPU, "compressed-tensors", 3, true, false, false},
        {SNRQ_ENGINE_VLLM_CPU, "compressed-tensors", 8, true, false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snrq_export_facts facts = {.bits = rows[i].bits,
                                   .group_size = 64,
                                   .symmetric = rows[i].symmetric,
                                   .permuted = rows[i].permuted};
        if (loads(rows[i].engine, rows[i].format, facts) != rows[i].loads)
            fprintf(stderr, "row %zu: %s\n", i, snrq_engine_name(rows[i].engine));
        CU_ASSERT_EQUAL(loads(rows[i].engine, rows[i].format, facts), rows[i].loads);
    }
}

static void folded_codes_help_where_a_row_says_so(void)
{
    static const char *const formats[] = {"gptq", "compressed-tensors"};
    for (int engine = 0; engine < SNRQ_ENGINES; engine++)
        for (int f = 0; f < 2; f++)
            for (int bits = 2; bits < 8; bits++) {
                snrq_export_facts facts = {.bits = bits, .group_size = 64};
                const snrq_engine_trouble *t;
                int at = 0;
                t = snrq_engine_trouble_next(engine, formats[f], &facts, &at);
                if (t == NULL || strstr(t->instead, "folded") == NULL) continue;
                facts.bits = snrq_export_folded_bits(bits);
                facts.symmetric = true;
                CU_ASSERT_TRUE(loads((snrq_engine)engine, formats[f], facts));
            }
    CU_ASSERT_EQUAL(snrq_export_folded_bits(8), 0);
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(the_option_has_the_engines_of_the_table_in_its_order),
        SNRQ_TEST(every_format_of_an_engine_is_one_of_the_table_of_formats),
        SNRQ_TEST(what_was_read_is_let_pass_and_what_failed_is_not),
        SNRQ_TEST(folded_codes_help_where_a_row_says_so),
    };
    return snrq_run_tests("export engines", tests, sizeof tests / sizeof *tests, 1);
}
