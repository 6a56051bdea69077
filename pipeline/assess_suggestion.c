/* A recipe from an assessment; see assess_suggestion.h. */
#include "pipeline/assess_suggestion.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json.h"
#include "mpi/log.h"
#include "pipeline/budget.h"
#include "pipeline/weight_sizes.h"

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

snrq_status snrq_assess_suggest(const snrq_assessment *a, const json_t *whole, json_t **recipe)
{
    const int bits = a->choices.bits[a->choices.usual];
    char path[PATH_MAX];
    json_t *rules = NULL;
    snrq_budget budget;
    snrq_options o = *a->options;
    *recipe = NULL;
    SNRQ_TRY(snrq_path_join(o.output, "assessment.json", path, sizeof path));
    o.assessment = path;
    o.formats_text = NULL; /* of widths alone */
    o.engine = -1;
    o.target_bytes = 0;
    o.target_bits = 8.0 * snrq_uniform_bytes(&o, a->model, bits) / snrq_module_weights(a->model);
    SNRQ_TRY(snrq_budget_rules_of(&o, a->model, whole, &rules, &budget));
    snrq_status status = write_recipe(o.output, rules);
    json_decref(rules);
    *recipe = json_pack("{s:f, s:f, s:f}", "bits_per_weight", budget.bits_per_weight, "kl",
                        budget.kl, "bytes", budget.bytes);
    return status;
}

/* bytes: of the modules; rest: of all else */
static json_t *size_of(double bytes, double rest, double weights)
{
    return json_pack("{s:f, s:I}", "bits_per_weight", 8.0 * bytes / weights, "bytes",
                     (json_int_t)(bytes + rest));
}

snrq_status snrq_assess_sizes(const snrq_assessment *a, const json_t *recipe, json_t **sizes)
{
    const double weights = snrq_module_weights(a->model);
    double rest, own;
    *sizes = NULL;
    SNRQ_TRY(snrq_rest_bytes(a->model, &rest));
    SNRQ_TRY(snrq_module_bytes(a->model, &own));
    json_t *uniform = json_array(), *of_recipe;
    for (int w = 0; w < a->choices.widths; w++) {
        const int bits = a->choices.bits[w];
        json_t *size = size_of(snrq_uniform_bytes(a->options, a->model, bits), rest, weights);
        json_object_set_new(size, "bits", json_integer(bits));
        json_array_append_new(uniform, size);
    }
    of_recipe = size_of(json_number_value(json_object_get(recipe, "bytes")), rest, weights);
    json_object_set(of_recipe, "kl", json_object_get(recipe, "kl"));
    *sizes = json_pack("{s:o, s:o, s:o}", "model", size_of(own, rest, weights), "uniform", uniform,
                       "recipe", of_recipe);
    return SNRQ_OK;
}

void snrq_assess_tell(const snrq_assessment *a, const json_t *sizes)
{
    const json_t *recipe = json_object_get(sizes, "recipe");
    const json_t *usual =
        json_array_get(json_object_get(sizes, "uniform"), (size_t)a->choices.usual);
    const char key[] = "bits_per_weight";
    snrq_note(a->context,
              "recipe       %s/recipe.json: %.3f bits per weight, scales and zeros counted, where "
              "%d bits everywhere have %.3f and the model %.0f; predicted KL %.4g nats per token",
              a->options->output, json_number_value(json_object_get(recipe, key)),
              a->choices.bits[a->choices.usual], json_number_value(json_object_get(usual, key)),
              json_number_value(json_object_get(json_object_get(sizes, "model"), key)),
              json_number_value(json_object_get(recipe, "kl")));
}
