/* Input: the file of --recipe, for a small model. An accepted one gives every module a rule that
 * can be followed, and the same rules once more when it is written as a run stores it. */
#include <math.h>

#include "pipeline/recipe.h"
#include "tests/fuzz/small_model.h"

static void check_rule(const snrq_rule *r)
{
    if (r->keep) return;
    FUZZ_CHECK(r->method >= 0 && r->method < SNRQ_METHODS && r->beam >= 1);
    FUZZ_CHECK(r->format != NULL || (r->bits >= 2 && r->bits <= 8 && r->group_size >= 0));
    FUZZ_CHECK(r->grid >= 0 && r->grid < SNRQ_QUANT_GRID_KINDS && r->refine >= 0 && r->regrid >= 0);
    FUZZ_CHECK(isfinite(r->alpha_value) && isfinite(r->damp) && r->damp >= 0.0);
    FUZZ_CHECK(isfinite(r->shrink) && isfinite(r->compensate));
}

static void check_again(const char *path, const json_t *recipe, const snrq_options *options,
                        const snrq_model *model, const snrq_rules *first)
{
    snrq_rules second;
    char *text = json_dumps(recipe, JSON_COMPACT);
    FUZZ_CHECK(text != NULL);
    char *file = malloc(strlen(text) + 16);
    FUZZ_CHECK(file != NULL);
    const int bytes = sprintf(file, "{\"rules\":%s}", text);
    fuzz_file("recipe.json", file, (size_t)bytes);
    if (snrq_rules_create(options, model, &second) != SNRQ_OK) {
        fprintf(stderr, "%s: %s\n%s\n", path, snrq_error_message(), file);
        abort();
    }
    for (int64_t layer = 0; layer < model->config.layers; layer++)
        for (int m = 0; m < snrq_model_family(model, layer)->modules; m++)
            FUZZ_CHECK(
                snrq_rule_equals(snrq_rules_at(first, layer, m), snrq_rules_at(&second, layer, m)));
    snrq_rules_free(&second);
    free(file);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static snrq_model *model;
    static snrq_options options;
    static char recipe[512];
    snrq_rules rules;
    if (model == NULL) {
        const char *more[] = {"--recipe", recipe};
        model = fuzz_small_model();
        snprintf(recipe, sizeof recipe, "%s", fuzz_file("recipe.json", "", 0));
        fuzz_quantize_options(more, 2, &options);
    }
    fuzz_file("recipe.json", data, size);
    if (snrq_rules_create(&options, model, &rules) == SNRQ_OK) {
        for (int64_t layer = 0; layer < model->config.layers; layer++)
            for (int m = 0; m < snrq_model_family(model, layer)->modules; m++)
                check_rule(snrq_rules_at(&rules, layer, m));
        for (int t = 0; t < SNRQ_TABLES; t++) check_rule(&rules.table[t]);
        check_again(recipe, rules.recipe, &options, model, &rules);
    } else {
        FUZZ_CHECK(snrq_error_message()[0] != '\0');
    }
    snrq_rules_free(&rules);
    return 0;
}
