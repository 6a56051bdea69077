/* The formats of `snrq export`: the option, the table, the writers and the reader agree on what
 * there is and how it is called. */
#include <string.h>

#include "io/json.h"
#include "pipeline/export.h"
#include "pipeline/export/checkpoint.h"
#include "tests/unit/test_files.h"

static const snrq_export_format *format_at(int i)
{
    return snrq_export_format_of((snrq_format_choice)i);
}

/* What --format NAME chooses, or -1 if it is refused. */
static int64_t chosen(const char *name)
{
    char *argv[] = {(char *)"snrq", (char *)"export",   (char *)"OUT", (char *)"-o",
                    (char *)"DIR",  (char *)"--format", (char *)name,  NULL};
    snrq_options options;
    char *help = NULL;
    snrq_status status = snrq_options_parse(7, argv, &options, &help);
    free(help);
    return status == SNRQ_OK ? options.format : -1;
}

static void the_option_has_the_formats_of_the_table_in_its_order(void)
{
    char all[256] = "expected one of ";
    for (int i = 0; i < SNRQ_FORMATS; i++) {
        CU_ASSERT_PTR_NOT_NULL_FATAL(format_at(i)->name);
        CU_ASSERT_EQUAL(chosen(format_at(i)->name), i);
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i > 0 ? "|" : "",
                 format_at(i)->name);
    }
    CU_ASSERT_EQUAL(chosen("no format"), -1);
    strcat(all, ", found");
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), all));
}

static void every_row_is_whole(void)
{
    for (int i = 0; i < SNRQ_FORMATS; i++) {
        const snrq_export_format *f = format_at(i);
        bool own = f->write != NULL && f->recognize != NULL && f->verify != NULL;
        bool none = f->write == NULL && f->recognize == NULL && f->verify == NULL;
        CU_ASSERT_PTR_NOT_NULL(f->possible);
        CU_ASSERT_TRUE(f->layout != NULL ? none : own);
        if (f->layout != NULL) CU_ASSERT_STRING_EQUAL(f->layout->name, f->name);
    }
}

/* config.json with what the layout's writer says about its tensors. */
static void write_config(const snrq_checkpoint_layout *layout)
{
    static const snrq_model none = {.quantized = true};
    snrq_export_facts kind = {.bits = 4, .group_size = 32, .symmetric = true};
    const snrq_export_mixture mixture = {.kind = &kind, .kinds = 1};
    const snrq_export_job job = {.model = &none, .facts = kind, .mixture = &mixture};
    json_t *config = json_pack("{s:s}", "model_type", "llama");
    if (layout->describe != NULL)
        json_object_set_new(config, "quantization_config", layout->describe(&job, 0.01));
    char *text = json_dumps(config, 0);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    scratch_write_text("config.json", text);
    free(text);
    json_decref(config);
}

static void what_one_layout_writes_is_recognized_as_it_alone(void)
{
    for (int i = 0; i < SNRQ_FORMATS; i++) {
        if (format_at(i)->layout == NULL) continue;
        write_config(format_at(i)->layout);
        for (int k = 0; k < SNRQ_FORMATS; k++) {
            bool is = snrq_export_format_is(format_at(k), scratch());
            if (is != (k == i))
                fprintf(stderr, "the config.json of %s is %staken for %s: see decode.c\n",
                        format_at(i)->name, is ? "" : "not ", format_at(k)->name);
            CU_ASSERT_EQUAL(is, k == i);
        }
    }
}

int main(void)
{
    const snrq_test tests[] = {SNRQ_TEST(the_option_has_the_formats_of_the_table_in_its_order),
                               SNRQ_TEST(every_row_is_whole),
                               SNRQ_TEST(what_one_layout_writes_is_recognized_as_it_alone)};
    int failures = snrq_run_tests("export formats", tests, sizeof tests / sizeof *tests, 1);
    scratch_remove();
    return failures;
}
