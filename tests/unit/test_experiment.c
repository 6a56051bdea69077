/* Tables of runs: which runs they make, and what is refused. */
#include "pipeline/results/experiment.h"

#include <string.h>

#include "tests/snrq_test.h"

/* A table with some parts of it replaced. */
static snrq_status parse(const char *models, const char *runs, const char *more,
                         snrq_experiment *out)
{
    char text[2048];
    snprintf(
        text, sizeof text,
        "{\"title\": \"T\", \"models\": {%s}, \"options\": {\"length\": 64, \"strict\": true}, "
        "\"runs\": [%s], \"evaluations\": {\"e\": {\"text\": \"held-out.txt\"}}%s}",
        models, runs, more);
    return snrq_experiment_parse("table.json", text, strlen(text), out);
}

#define MODEL "\"m\": \"models/m\""
#define FIGURES ", \"figures\": [{\"name\": \"f\", \"evaluation\": \"e\", \"value\": \"v\"}]"

static void runs_are_all_combinations_in_order(void)
{
    static const char *const expected[] = {
        "a_fp",
        "a_bits-2_snrq_seed-0",
        "a_bits-2_snrq_seed-1",
        "a_bits-2_gptq_seed-0",
        "a_bits-2_gptq_seed-1",
        "a_bits-3_snrq_seed-0",
        "a_bits-3_snrq_seed-1",
        "a_bits-3_gptq_seed-0",
        "a_bits-3_gptq_seed-1",
        "b_fp",
    };
    snrq_experiment x;
    CU_ASSERT_EQUAL(parse("\"a\": \"p\", \"b\": \"q\"",
                          "{\"method\": \"fp\"}, {\"bits\": [2, 3], \"method\": [\"snrq\", "
                          "\"gptq\"], \"seed\": [0, 1]}",
                          FIGURES, &x),
                    SNRQ_OK);
    CU_ASSERT_EQUAL_FATAL(x.runs, 18);
    for (size_t r = 0; r < sizeof expected / sizeof *expected; r++)
        CU_ASSERT_STRING_EQUAL(x.run[r].name, expected[r]);
    CU_ASSERT_TRUE(x.run[0].full);
    CU_ASSERT_FALSE(x.run[1].full);
    CU_ASSERT_STRING_EQUAL(x.run[17].path, "q");
    snrq_experiment_free(&x);
}

/* Seeds make one row; everything else makes another one. */
static void runs_with_other_seeds_have_the_same_key(void)
{
    snrq_experiment x;
    CU_ASSERT_EQUAL(parse(MODEL,
                          "{\"method\": \"snrq\", \"seed\": [0, 1], \"alpha\": [\"corr\", "
                          "\"fixed:0.5\"]}",
                          FIGURES, &x),
                    SNRQ_OK);
    CU_ASSERT_EQUAL_FATAL(x.runs, 4);
    CU_ASSERT_TRUE(json_equal(x.run[0].key, x.run[2].key));
    CU_ASSERT_FALSE(json_equal(x.run[0].key, x.run[1].key));
    CU_ASSERT_STRING_EQUAL(x.run[1].name, "m_snrq_seed-0_alpha-fixed-0.5");
    snrq_experiment_free(&x);
}

static void runs_have_the_common_options(void)
{
    snrq_experiment x;
    CU_ASSERT_EQUAL(
        parse(MODEL, "{\"method\": \"rtn\", \"length\": 32}, {\"method\": \"snrq\"}", FIGURES, &x),
        SNRQ_OK);
    CU_ASSERT_EQUAL_FATAL(x.runs, 2);
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(x.run[0].options, "length")), 32);
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(x.run[1].options, "length")), 64);
    CU_ASSERT_TRUE(json_is_true(json_object_get(x.run[1].options, "strict")));
    CU_ASSERT_PTR_NULL(json_object_get(x.run[1].key, "length"));
    snrq_experiment_free(&x);
}

/* Refused as bad data, with a message that names `what`. */
static void refuses(const char *models, const char *runs, const char *more, const char *what)
{
    snrq_experiment x;
    CU_ASSERT_EQUAL(parse(models, runs, more, &x), SNRQ_BAD_DATA);
    if (strstr(snrq_error_message(), what) == NULL) {
        fprintf(stderr, "%s\nlacks: %s\n", snrq_error_message(), what);
        CU_FAIL("the message lacks what it should name");
    }
    snrq_experiment_free(&x);
}

static void slips_are_refused_by_name(void)
{
    const char *snrq = "{\"method\": \"snrq\"}";
    refuses("\"../m\": \"p\"", snrq, FIGURES, "'../m'");
    refuses("\"m\": 3", snrq, FIGURES, "m: expected a path, found an integer");
    refuses("\"m\": \"a\\tb\"", snrq, FIGURES, "expected a path");
    refuses(MODEL, "", FIGURES, "no runs");
    refuses(MODEL, "{\"bits\": 3}", FIGURES, "runs: 1: expected an object with a method");
    refuses(MODEL, "{\"method\": []}", FIGURES, "method: expected a text");
    refuses(MODEL, "{\"method\": [[\"snrq\"]]}", FIGURES, "method: expected a text");
    refuses(MODEL, "{\"method\": [\"snrq\", \"snrq\"]}", FIGURES, "two runs");
    /* Other values, but the same name. */
    refuses(MODEL, "{\"method\": \"snrq\", \"alpha\": [\"a:b\", \"a/b\"]}", FIGURES, "two runs");
    refuses(MODEL, snrq, "", "figures");
    refuses(MODEL, snrq,
            ", \"figures\": [{\"name\": \"f\", \"evaluation\": \"x\", \"value\": "
            "\"v\"}]",
            "no such evaluation");
    refuses(MODEL, snrq,
            ", \"figures\": [{\"name\": \"f\", \"evaluation\": \"e\", \"value\": "
            "\"v\", \"digit\": 2}]",
            "'digit'");
    refuses(MODEL, snrq, FIGURES ", \"publisht\": {}", "'publisht'");
    refuses(MODEL, snrq, FIGURES ", \"published\": {\"rows\": [{\"f\": [1, 2, 3]}]}", "rows: 1: f");
    refuses(MODEL, snrq, FIGURES ", \"notes\": [1]", "notes");
}

int main(void)
{
    const snrq_test tests[] = {SNRQ_TEST(runs_are_all_combinations_in_order),
                               SNRQ_TEST(runs_with_other_seeds_have_the_same_key),
                               SNRQ_TEST(runs_have_the_common_options),
                               SNRQ_TEST(slips_are_refused_by_name)};
    return snrq_run_tests("experiment", tests, sizeof tests / sizeof *tests, 1);
}
