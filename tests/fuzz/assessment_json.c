/* Input: a letter that chooses the budget, then the file of --assessment, for a small model. An
 * accepted one gives rules that keep the budget. */
#include <math.h>

#include "pipeline/rules.h"
#include "tests/fuzz/small_model.h"

enum { BUDGETS = 3, WORDS = 6 };

/* a, b, c */
static const char *const budgets[BUDGETS][WORDS] = {
    {"--target-bits", "4.25"},
    {"--target-size", "150000"},
    {"--target-bits", "5", "--formats", "q3_k,q4_0,q6_k"},
};

static void check(const snrq_rules *rules, const snrq_model *model, const snrq_options *o)
{
    const snrq_budget *b = &rules->budget;
    FUZZ_CHECK(isfinite(b->kl) && b->bits_per_weight > 0.0);
    FUZZ_CHECK(o->target_bits == 0.0 || b->bits_per_weight <= o->target_bits * (1.0 + 1e-12));
    FUZZ_CHECK(json_array_size(rules->recipe) > 0);
    for (int64_t layer = 0; layer < model->config.layers; layer++)
        for (int m = 0; m < snrq_model_family(model, layer)->modules; m++) {
            const snrq_rule *r = snrq_rules_at(rules, layer, m);
            FUZZ_CHECK(!r->keep && r->bits >= 2 && r->bits <= 8 && r->group_size >= 0);
            FUZZ_CHECK((o->formats_text != NULL) == (r->format != NULL));
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static snrq_model *model;
    static snrq_options options[BUDGETS];
    static char path[512];
    snrq_rules rules;
    if (size == 0) return 0;
    if (model == NULL) {
        model = fuzz_small_model();
        snprintf(path, sizeof path, "%s", fuzz_file("assessment.json", "", 0));
        for (int i = 0; i < BUDGETS; i++) {
            const char *more[WORDS] = {"--assessment", path};
            int count = 2;
            for (int w = 0; w < WORDS - 2 && budgets[i][w] != NULL; w++)
                more[count++] = budgets[i][w];
            fuzz_quantize_options(more, count, &options[i]);
        }
    }
    const snrq_options *o = &options[(unsigned)(data[0] + BUDGETS * 256 - 'a') % BUDGETS];
    fuzz_file("assessment.json", data + 1, size - 1);
    if (snrq_rules_create(o, model, &rules) == SNRQ_OK)
        check(&rules, model, o);
    else
        FUZZ_CHECK(snrq_error_message()[0] != '\0');
    snrq_rules_free(&rules);
    return 0;
}
