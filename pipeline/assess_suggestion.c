/* A recipe from an assessment; see assess_suggestion.h. */
#include "pipeline/assess_suggestion.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json.h"
#include "mpi/log.h"
#include "pipeline/budget.h"

static snrq_status write_recipe(const char *directory, json_t *rules)
{
    char path[PATH_MAX];
    json_t *recipe = json_pack("{s:O}", "rules", rules);
    char *text = snrq_json_dump(recipe, JSON_INDENT(1));
    snrq_status status = text != NULL ? snrq_path_join(directory, "recipe.json", path, sizeof path)
                                      : snrq_fail(SNRQ_INTERNAL, "no memory for a recipe");
    if (status == SNRQ_OK) status = snrq_file_replace(path, text, strlen(text));
    free(text);
    json_decref(recipe);
    return status;
}

snrq_status snrq_assess_suggest(const snrq_assessment *a)
{
    const int bits = a->choices.bits[a->choices.usual];
    const double own = 8.0 * (double)snrq_dtype_size(a->model->config.dtype);
    char path[PATH_MAX];
    json_t *rules = NULL;
    snrq_budget budget;
    snrq_options o = *a->options;
    SNRQ_TRY(snrq_path_join(o.output, "assessment.json", path, sizeof path));
    o.assessment = path;
    o.formats_text = NULL; /* of widths alone */
    o.target_bits = snrq_uniform_bits(&o, a->model, bits);
    SNRQ_TRY(snrq_budget_rules(&o, a->model, &rules, &budget));
    snrq_status status = write_recipe(o.output, rules);
    json_decref(rules);
    if (status == SNRQ_OK)
        snrq_note(a->context,
                  "recipe       %s/recipe.json: %.3f bits per weight, scales and zeros counted, "
                  "where %d bits everywhere have %.3f and the model %.0f; predicted KL %.4g nats "
                  "per token",
                  o.output, budget.bits_per_weight, bits, o.target_bits, own, budget.kl);
    return status;
}
