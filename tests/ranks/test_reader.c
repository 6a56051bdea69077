/* Reading an output directory: a block file must be the block that was asked for, with its modules;
 * records of the manifest become records of modules. */
#include "io/checkpoint/reader.h"

#include <math.h>

#include "io/checkpoint/output.h"
#include "tests/ranks/rank_files.h"

enum { BLOCK = 3, MODULES = 2, ROWS = 5, COLUMNS = 9 };
static const char *const names[MODULES] = {"model.layers.3.self_attn.q_proj",
                                           "model.layers.3.mlp.up_proj"};

static snrq_module_record make_record(int index)
{
    snrq_module_record r = {.rows = ROWS + index,
                            .columns = COLUMNS,
                            .group_size = COLUMNS,
                            .groups = 1,
                            .bits = 4,
                            .method = "rtn",
                            .grid = "minmax",
                            .alpha_next = NAN};
    snprintf(r.name, sizeof r.name, "%s", names[index]);
    return r;
}

/* Writes block 3 at `path`. Collective. */
static snrq_status write_block(const char *path)
{
    static uint8_t codes[(ROWS + 1) * COLUMNS], zeros[ROWS + 1];
    static float scales[ROWS + 1];
    static int32_t g_idx[COLUMNS];
    snrq_module_rows m[MODULES];
    for (int i = 0; i < MODULES; i++)
        m[i] = (snrq_module_rows){
            .record = make_record(i),
            .rows = snrq_share(ROWS + i, 1, rank_test_world->size, rank_test_world->rank),
            .codes = codes,
            .scales = scales,
            .zeros = zeros,
            .g_idx = g_idx};
    return snrq_block_file_write(rank_test_world, path, BLOCK, m, MODULES);
}

static void expect(snrq_expected_module e[MODULES])
{
    for (int i = 0; i < MODULES; i++) {
        e[i] = (snrq_expected_module){.rows = ROWS + i, .columns = COLUMNS};
        snprintf(e[i].name, sizeof e[i].name, "%s", names[i]);
    }
}

static void check_refused(int64_t block, const snrq_expected_module *e, int count,
                          snrq_status expected, const char *message)
{
    snrq_block_file *file = NULL;
    assert_failed(snrq_output_block_open(scratch(), block, e, count, &file), expected, message);
    CU_ASSERT_PTR_NULL(file);
}

static void a_block_is_the_one_asked_for(void)
{
    snrq_expected_module e[MODULES + 1] = {{.rows = 0}};
    snrq_block_file *file = NULL;
    rank_files_begin();
    assert_ok(write_block(scratch_path("block-00003.h5")));
    expect(e);
    if (assert_ok(snrq_output_block_open(scratch(), BLOCK, e, MODULES, &file)))
        CU_ASSERT_EQUAL(snrq_block_file_block(file), BLOCK);
    snrq_block_file_close(&file);
    check_refused(4, e, MODULES, SNRQ_NO_INPUT, "block-00004.h5");
    check_refused(BLOCK, e, MODULES + 1, SNRQ_BAD_DATA, "2 modules, expected 3");
    check_refused(BLOCK, e, 1, SNRQ_BAD_DATA, "2 modules, expected 1");
    e[1].rows++;
    check_refused(BLOCK, e, MODULES, SNRQ_BAD_DATA, "up_proj' [6, 9], expected");
    expect(e);
    e[0].columns--;
    check_refused(BLOCK, e, MODULES, SNRQ_BAD_DATA,
                  "expected 'model.layers.3.self_attn.q_proj' [5, 8]");
    expect(e);
    e[0].name[13] = '4';
    check_refused(BLOCK, e, MODULES, SNRQ_BAD_DATA, "expected 'model.layers.4.self_attn.q_proj'");
    rank_files_end();
}

static void a_block_under_another_name_is_refused(void)
{
    snrq_expected_module e[MODULES];
    rank_files_begin();
    assert_ok(write_block(scratch_path("block-00002.h5")));
    expect(e);
    check_refused(2, e, MODULES, SNRQ_BAD_DATA, "is block 3, expected 2");
    rank_files_end();
}

/* A run that committed one file of a block with the modules of `details`. Collective. */
static void make_output(const char *directory, json_t *details)
{
    snrq_output *output = NULL;
    json_t *configuration = json_pack("{s:s}", "format", "snrq");
    if (assert_ok(snrq_output_open(rank_test_world, directory, configuration, &output))) {
        const char *path = snrq_output_temporary(output, "a.h5");
        FILE *file = rank_test_world->rank == 0 ? fopen(path, "w") : NULL;
        if (file != NULL) fclose(file);
        assert_ok(snrq_output_commit(output, rank_test_world, "a.h5", details));
    }
    snrq_output_close(&output);
    json_decref(configuration);
}

static void modules_come_from_the_manifest(void)
{
    snrq_output_facts facts;
    snrq_module_record *modules = NULL;
    int64_t count = 0;
    char directory[PATH_MAX];
    rank_files_begin();
    snprintf(directory, sizeof directory, "%s", scratch_path("OUT"));
    snrq_module_record r[MODULES] = {make_record(0), make_record(1)};
    json_t *details = json_pack("{s:[o, o]}", "modules", snrq_module_record_json(&r[0]),
                                snrq_module_record_json(&r[1]));
    make_output(directory, details);
    if (assert_ok(snrq_output_read(directory, &facts))) {
        CU_ASSERT_FALSE(facts.complete);
        assert_ok(snrq_output_modules(&facts, &modules, &count));
        CU_ASSERT_EQUAL(count, MODULES);
        for (int i = 0; i < count; i++) {
            CU_ASSERT_STRING_EQUAL(modules[i].name, names[i]);
            CU_ASSERT_EQUAL(modules[i].rows, ROWS + i);
        }
    }
    free(modules);
    snrq_output_facts_free(&facts);
    json_decref(details);
    rank_files_end();
}

static void what_is_no_output_is_refused(void)
{
    snrq_output_facts facts;
    snrq_module_record *modules = NULL;
    int64_t count = 0;
    char directory[PATH_MAX];
    rank_files_begin();
    assert_failed(snrq_output_read(scratch(), &facts), SNRQ_NO_INPUT, "no snrq.json");
    snrq_output_facts_free(&facts);
    snprintf(directory, sizeof directory, "%s", scratch_path("OUT"));
    json_t *details = json_pack("{s:[{s:s}]}", "modules", "name", names[0]);
    make_output(directory, details);
    if (assert_ok(snrq_output_read(directory, &facts)))
        assert_failed(snrq_output_modules(&facts, &modules, &count), SNRQ_BAD_DATA,
                      "manifest.jsonl: key \"rows\"");
    CU_ASSERT_PTR_NULL(modules);
    snrq_output_facts_free(&facts);
    json_decref(details);
    rank_files_end();
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(a_block_is_the_one_asked_for), SNRQ_TEST(a_block_under_another_name_is_refused),
        SNRQ_TEST(modules_come_from_the_manifest), SNRQ_TEST(what_is_no_output_is_refused)};
    return rank_test_main(argc, argv, "reader", tests, sizeof tests / sizeof *tests);
}
