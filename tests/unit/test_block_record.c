/* Records of modules as JSON: what is written, and what reading refuses. The attributes of block
 * files are tested in ranks/test_block_file.c and test_block_damage.c. */
#include "io/checkpoint/block_record.h"

#include <math.h>
#include <string.h>

#include "tests/snrq_test.h"

/* Keys and values as docs/format.md names them. */
static const char whole[] =
    "{\"name\":\"model.layers.3.mlp.up_proj\",\"rows\":6,\"columns\":20,\"bits\":3,"
    "\"group_size\":8,\"groups\":3,\"symmetric\":true,\"permuted_groups\":false,"
    "\"scale_type\":\"BF16\",\"method\":\"ksnrq\",\"grid\":\"hessian\",\"order\":\"natural\","
    "\"beam\":8,\"refine\":2,\"regrid\":3,\"alpha_rule\":\"fixed:0.5\",\"alpha\":0.5,"
    "\"alpha_next\":null,\"damp\":0.125,\"damping\":0.25,\"damping_attempts\":1,"
    "\"shrink\":0.375,\"compensation\":0.625,"
    "\"tokens\":300,\"tokens_sent\":200,\"dead_inputs\":4,\"objective\":1.75,"
    "\"predicted_loss\":0.03125,\"output_error\":0."
    "375,\"model_error\":0.625,"
    "\"held_out_error\":0.75,\"clipped\":0.0625,\"largest_activation\":96.5}";

static const snrq_module_record sample = {.name = "model.layers.3.mlp.up_proj",
                                          .rows = 6,
                                          .columns = 20,
                                          .group_size = 8,
                                          .groups = 3,
                                          .bits = 3,
                                          .symmetric = true,
                                          .scale_type = SNRQ_BF16,
                                          .method = "ksnrq",
                                          .grid = "hessian",
                                          .order = "natural",
                                          .beam = 8,
                                          .refine = 2,
                                          .regrid = 3,
                                          .alpha_rule = "fixed:0.5",
                                          .alpha = 0.5,
                                          .alpha_next = NAN,
                                          .damp = 0.125,
                                          .damping = 0.25,
                                          .damping_attempts = 1,
                                          .shrink = 0.375,
                                          .compensation = 0.625,
                                          .tokens = 300,
                                          .tokens_sent = 200,
                                          .dead_inputs = 4,
                                          .objective = 1.75,
                                          .predicted_loss = 0.03125,
                                          .output_error = 0.375,
                                          .held_out_error = 0.75,
                                          .model_error = 0.625,
                                          .clipped = 0.0625,
                                          .largest_activation = 96.5};

static json_t *parse(const char *text)
{
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    CU_ASSERT_PTR_NOT_NULL_FATAL(object);
    return object;
}

static void the_text_has_all_fields(void)
{
    json_t *object = snrq_module_record_json(&sample);
    CU_ASSERT_PTR_NOT_NULL_FATAL(object);
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(17));
    CU_ASSERT_STRING_EQUAL(text, whole);
    free(text);
    json_decref(object);
}

static void check_equal(const snrq_module_record *a, const snrq_module_record *b)
{
    CU_ASSERT_STRING_EQUAL(a->name, b->name);
    CU_ASSERT_STRING_EQUAL(a->method, b->method);
    CU_ASSERT_STRING_EQUAL(a->grid, b->grid);
    CU_ASSERT_STRING_EQUAL(a->order, b->order);
    CU_ASSERT_STRING_EQUAL(a->alpha_rule, b->alpha_rule);
    CU_ASSERT_TRUE(a->rows == b->rows && a->columns == b->columns && a->groups == b->groups);
    CU_ASSERT_TRUE(a->group_size == b->group_size && a->bits == b->bits);
    CU_ASSERT_TRUE(a->symmetric == b->symmetric && a->permuted_groups == b->permuted_groups);
    CU_ASSERT_TRUE(a->scale_type == b->scale_type && a->dead_inputs == b->dead_inputs);
    CU_ASSERT_TRUE(a->beam == b->beam && a->refine == b->refine && a->regrid == b->regrid);
    CU_ASSERT_TRUE(a->alpha == b->alpha && a->damp == b->damp && a->damping == b->damping);
    CU_ASSERT_TRUE(a->shrink == b->shrink && a->compensation == b->compensation);
    CU_ASSERT_EQUAL(a->held_out_error, b->held_out_error);
    CU_ASSERT_EQUAL(a->predicted_loss, b->predicted_loss);
    CU_ASSERT_TRUE(a->tokens == b->tokens && a->tokens_sent == b->tokens_sent);
    CU_ASSERT_TRUE(isnan(b->alpha_next) ? isnan(a->alpha_next) : a->alpha_next == b->alpha_next);
    CU_ASSERT_TRUE(a->damping_attempts == b->damping_attempts && a->objective == b->objective);
    CU_ASSERT_TRUE(a->output_error == b->output_error && a->model_error == b->model_error);
    CU_ASSERT_TRUE(a->clipped == b->clipped && a->largest_activation == b->largest_activation);
}

static void reading_gives_it_back(void)
{
    snrq_module_record found;
    json_t *object = parse(whole);
    CU_ASSERT_EQUAL(snrq_module_record_from_json("here", object, &found), SNRQ_OK);
    check_equal(&found, &sample);
    json_object_set_new(object, "alpha_next", json_real(0.75));
    CU_ASSERT_EQUAL(snrq_module_record_from_json("here", object, &found), SNRQ_OK);
    CU_ASSERT_EQUAL(found.alpha_next, 0.75);
    json_decref(object);
}

/* Files of version 0.1.0 do not have these fields. */
static void newer_fields_may_be_absent(void)
{
    static const char *const newer[] = {"alpha_rule", "damp",         "order",
                                        "shrink",     "compensation", "held_out_error",
                                        "tokens",     "tokens_sent",  "predicted_loss"};
    snrq_module_record found, expected = sample;
    json_t *object = parse(whole);
    for (size_t i = 0; i < sizeof newer / sizeof *newer; i++) json_object_del(object, newer[i]);
    expected.alpha_rule[0] = expected.order[0] = '\0';
    expected.damp = expected.shrink = expected.compensation = expected.held_out_error = 0;
    expected.tokens = expected.tokens_sent = 0;
    expected.predicted_loss = 0;
    CU_ASSERT_EQUAL(snrq_module_record_from_json("here", object, &found), SNRQ_OK);
    check_equal(&found, &expected);
    json_decref(object);
}

static void bad_values_are_refused(void)
{
    static const struct {
        const char *key, *value, *message; /* value NULL: without the key */
    } cases[] = {
        {"name", NULL, "\"name\""},
        {"name", "\"a/b\"", "name"},
        {"rows", "0", "rows"},
        {"rows", "6.5", "\"rows\""},
        {"rows", NULL, "\"rows\""},
        {"columns", "-20", "columns"},
        {"bits", "9", "bits"},
        {"bits", "4294967299", "\"bits\""},
        {"groups", "2", "groups"},
        {"symmetric", "1", "\"symmetric\""},
        {"scale_type", "\"F64\"", "scale_type is \"F64\""},
        {"method", "\"a method of many bytes\"", "\"method\""},
        {"method", "\"a\\nb\"", "not printable"},
        {"order", "3", "\"order\""},
        {"beam", "-1", "beam"},
        {"alpha", "null", "\"alpha\""},
        {"alpha", "\"half\"", "\"alpha\""},
        {"dead_inputs", "21", "dead_inputs"},
        {"clipped", NULL, "\"clipped\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snrq_module_record found;
        json_t *object = parse(whole);
        if (cases[i].value == NULL)
            json_object_del(object, cases[i].key);
        else
            json_object_set_new(object, cases[i].key,
                                json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
        snrq_status status = snrq_module_record_from_json("the place", object, &found);
        CU_ASSERT_EQUAL(status, SNRQ_BAD_DATA);
        CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "the place: "));
        CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), cases[i].message));
        json_decref(object);
    }
}

int main(void)
{
    const snrq_test tests[] = {SNRQ_TEST(the_text_has_all_fields), SNRQ_TEST(reading_gives_it_back),
                               SNRQ_TEST(newer_fields_may_be_absent),
                               SNRQ_TEST(bad_values_are_refused)};
    return snrq_run_tests("block record", tests, sizeof tests / sizeof *tests, 1);
}
