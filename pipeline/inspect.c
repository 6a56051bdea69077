/* inspect and verify; see inspect.h. */
#include "pipeline/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/reader.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/standard_streams.h"
#include "pipeline/export.h"
#include "pipeline/model/findings.h"
#include "pipeline/plan.h"

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "?";
}

static void print_module(const snrq_module_record *m)
{
    printf(
        "%-40s %6lld %6lld %4d %6lld  %-6s %6.3f %12.5g %8.3f %8.3f %8.3f %7.3f %10.4g %9.3g%s%s\n",
        m->name, (long long)m->rows, (long long)m->columns, m->bits, (long long)m->group_size,
        m->method, m->alpha, m->objective, 100 * m->output_error, 100 * m->model_error,
        100 * m->held_out_error, 100 * m->clipped, m->largest_activation, m->predicted_loss,
        m->format[0] != '\0' ? "  " : "", m->format);
}

/* All module records of the manifest as they stand there, in block order. New reference. */
static json_t *collect_modules(const json_t *records)
{
    json_t *all = json_array();
    size_t i;
    const json_t *record;
    json_array_foreach((json_t *)records, i, record)
        json_array_extend(all, json_object_get(record, "modules"));
    return all;
}

/* The rules of a recipe, as they stand in snrq.json. */
static void print_recipe(const json_t *configuration)
{
    size_t i;
    const json_t *rule;
    json_array_foreach(json_object_get(configuration, "recipe"), i, rule)
    {
        char *text = json_dumps(rule, JSON_COMPACT | JSON_SORT_KEYS);
        printf("recipe rule %zu: %s\n", i + 1, text != NULL ? text : "");
        free(text);
    }
    if (json_array_size(json_object_get(configuration, "recipe")) > 0) putchar('\n');
}

/* Modules that were left in the model's type. */
static void print_kept(const json_t *configuration)
{
    size_t i;
    const json_t *name;
    json_array_foreach(json_object_get(configuration, "kept"), i, name)
        printf("%-40s kept in the model's type\n", json_string_value(name));
}

/* Embeddings and head, where they are quantized: a list, empty if not. New reference. */
static json_t *collect_tables(const json_t *records)
{
    size_t i;
    const json_t *record;
    json_t *list = json_array();
    json_array_foreach((json_t *)records, i, record) if (json_object_get(record, "tables") != NULL)
        json_array_extend(list, json_object_get(record, "tables"));
    return list;
}

static void print_tables(const char *where, const json_t *records)
{
    size_t i;
    const json_t *table;
    json_t *list = collect_tables(records);
    snrq_module_record r;
    json_array_foreach(list, i, table) if (snrq_module_record_from_json(where, table, &r) ==
                                           SNRQ_OK) print_module(&r);
    json_decref(list);
}

static void print_exports(const json_t *exports)
{
    size_t i;
    const json_t *row;
    printf("\n%-20s %s\n", "export to", "possible");
    json_array_foreach((json_t *)exports, i, row) printf(
        "%-20s %s%s\n", text_of(row, "format"),
        json_is_true(json_object_get(row, "possible")) ? "yes" : "no: ", text_of(row, "why"));
}

static snrq_status print_output(const snrq_output_facts *output, const json_t *exports)
{
    snrq_module_record *modules = NULL;
    int64_t count = 0;
    SNRQ_TRY(snrq_output_modules(output, &modules, &count));
    char *options = json_dumps(json_object_get(output->configuration, "options"), JSON_INDENT(2));
    printf("%s: quantized checkpoint, %s\noptions %s\n\n", output->directory,
           output->complete ? "complete" : "UNFINISHED (run the same command again)",
           options ? options : "");
    print_recipe(output->configuration);
    printf("%-40s %6s %6s %4s %6s  %-6s %6s %12s %8s %8s %8s %7s %10s %9s\n", "module", "rows",
           "cols", "bits", "group", "method", "alpha", "objective", "output%", "model%", "held%",
           "clip%", "largest", "loss");
    for (int64_t i = 0; i < count; i++) print_module(&modules[i]);
    print_tables(output->directory, output->records);
    print_kept(output->configuration);
    if (exports != NULL) print_exports(exports);
    free(options);
    free(modules);
    return SNRQ_OK;
}

static snrq_status print_output_json(const snrq_output_facts *output, json_t *exports)
{
    json_t *modules = collect_modules(output->records), *tables = collect_tables(output->records);
    snrq_status status = snrq_json_print(json_pack(
        "{s:o, s:b, s:O, s:O, s:O*, s:O?}", "path", snrq_json_text(output->directory), "complete",
        output->complete, "configuration", output->configuration, "modules", modules, "tables",
        json_array_size(tables) > 0 ? tables : NULL, "exports", exports));
    json_decref(tables);
    json_decref(modules);
    return status;
}

static snrq_status inspect_output(const char *path, bool json)
{
    snrq_output_facts output;
    json_t *exports = NULL;
    snrq_status status = snrq_output_read(path, &output);
    if (status == SNRQ_OK && output.complete) status = snrq_export_table(path, &exports);
    if (status == SNRQ_OK)
        status = json ? print_output_json(&output, exports) : print_output(&output, exports);
    json_decref(exports);
    snrq_output_facts_free(&output);
    return status;
}

/* What a model is made of, how much of it can be quantized, and what is strange about it. */
typedef struct model_facts {
    snrq_model *model;
    snrq_findings findings;
    int64_t tensors;
    uint64_t bytes;
    double quantizable;
} model_facts;

static snrq_status find_strange(const snrq_model *model, snrq_findings *out)
{
    snrq_context *alone = NULL; /* the other ranks do not look */
    SNRQ_TRY(snrq_context_create_alone(&alone));
    snrq_status status = snrq_findings_make(alone, model, out);
    snrq_context_destroy(&alone);
    return status;
}

static snrq_status collect_facts(const char *path, model_facts *out)
{
    *out = (model_facts){0};
    SNRQ_TRY(snrq_model_look(path, &out->model));
    for (int64_t i = 0; i < snrq_safetensors_count(out->model->tensors); i++) {
        const snrq_tensor *tensor = snrq_safetensors_at(out->model->tensors, i);
        if (tensor->another) continue;
        out->tensors++;
        out->bytes += tensor->bytes;
    }
    for (int64_t layer = 0; layer < out->model->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(out->model, layer);
        for (int i = 0; i < f->modules; i++)
            out->quantizable += (double)f->module[i].rows * (double)f->module[i].columns;
    }
    return find_strange(out->model, &out->findings);
}

/* Tensors that nothing reads. */
static int64_t count_unread(const snrq_findings *f)
{
    int64_t count = 0;
    for (int use = 0; use < SNRQ_TENSOR_USES; use++)
        if (use != SNRQ_TENSOR_READ) count += f->tensors[use];
    return count;
}

static json_t *findings_json(const snrq_findings *f)
{
    json_t *list = json_array();
    for (int k = 0; k < SNRQ_FINDINGS; k++)
        if (f->there[k])
            json_array_append_new(list, json_pack("{s:s, s:s}", "kind",
                                                  snrq_finding_name((snrq_finding_kind)k), "text",
                                                  f->text[k]));
    return list;
}

/* Of the step that a module belongs to. */
static const char *step_name(const snrq_family *f, int module)
{
    return f->step[f->unit[f->module[module].unit].step].name;
}

static json_t *modules_json(const snrq_family *f)
{
    json_t *list = json_array();
    for (int m = 0; m < f->modules; m++)
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:s}", "name", f->module[m].name,
                                              "rows", (json_int_t)f->module[m].rows, "columns",
                                              (json_int_t)f->module[m].columns, "stage",
                                              step_name(f, m)));
    return list;
}

static snrq_status print_facts_json(const model_facts *m, json_t *exports)
{
    const snrq_config *c = &m->model->config;
    json_t *object =
        json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I}", "path",
                  snrq_json_text(m->model->path), "architecture", c->architecture, "layers",
                  (json_int_t)c->layers, "hidden", (json_int_t)c->hidden, "intermediate",
                  (json_int_t)c->intermediate, "heads", (json_int_t)c->heads, "kv_heads",
                  (json_int_t)c->kv_heads, "head_dim", (json_int_t)c->head_dim, "vocabulary",
                  (json_int_t)c->vocabulary, "max_positions", (json_int_t)c->max_positions,
                  "quantizable_weights", m->quantizable, "tensor_bytes", (json_int_t)m->bytes);
    json_t *window = c->window > 0 ? json_integer((json_int_t)c->window) : json_null();
    json_object_set_new(object, "rope_type", json_string(snrq_rope_type_name(c->rope.type)));
    json_object_set_new(object, "rope_theta", json_real(c->rope.theta));
    json_object_set_new(object, "sliding_window", window);
    json_object_set_new(object, "attention_bias", json_boolean(c->attention_bias));
    json_object_set_new(object, "mlp_bias", json_boolean(c->mlp_bias));
    json_object_set_new(object, "head_norms", json_boolean(c->head_norms != SNRQ_NO_HEAD_NORM));
    json_object_set_new(object, "tied_embeddings", json_boolean(c->tied_embeddings));
    json_object_set_new(object, "experts", json_integer((json_int_t)c->experts.count));
    json_object_set_new(object, "experts_of_a_token", json_integer((json_int_t)c->experts.chosen));
    json_object_set_new(object, "modules",
                        modules_json(snrq_model_family(m->model, c->layers - 1)));
    json_object_set_new(object, "unread_tensors", json_integer(count_unread(&m->findings)));
    json_object_set_new(object, "findings", findings_json(&m->findings));
    json_object_set(object, "exports", exports);
    return snrq_json_print(object);
}

static void print_attention(const snrq_config *c)
{
    printf("rope %s, theta %g", snrq_rope_type_name(c->rope.type), c->rope.theta);
    if (c->rope.dimensions < c->head_dim)
        printf(", %lld of %lld dimensions turn", (long long)c->rope.dimensions,
               (long long)c->head_dim);
    if (c->rope.original_positions > 0)
        printf(", original context %lld", (long long)c->rope.original_positions);
    const int64_t windowed = snrq_config_layers_with(c, SNRQ_LAYER_WINDOW);
    const int64_t still = snrq_config_layers_with(c, SNRQ_LAYER_NO_ROPE);
    if (windowed > 0)
        printf("; sliding window %lld in %lld of the blocks", (long long)c->window,
               (long long)windowed);
    if (still > 0) printf("; no rope in %lld of the blocks", (long long)still);
    if (c->latent.keys > 0)
        printf("; latent vectors of %lld and %lld", (long long)c->latent.queries,
               (long long)c->latent.keys);
    printf("%s%s%s\n", c->head_norms ? "; norms of query and key heads" : "",
           c->attention_bias ? "; attention biases" : "", c->mlp_bias ? "; mlp biases" : "");
}

static void print_experts(const snrq_config *c)
{
    const snrq_experts_config *e = &c->experts;
    if (e->count == 0) return;
    printf("%lld experts in %lld of the blocks, %lld for a token, intermediate %lld",
           (long long)e->count, (long long)snrq_config_layers_with(c, SNRQ_LAYER_EXPERTS),
           (long long)e->chosen, (long long)e->intermediate);
    if (e->shared > 0) printf("; one for all tokens, intermediate %lld", (long long)e->shared);
    printf("\n");
}

/* The modules of a block; of experts, those of the first one and of the one for all tokens. */
static void print_modules(const snrq_family *f)
{
    for (int i = 0; i < f->modules; i++)
        if (f->unit[f->module[i].unit].expert <= 0)
            printf("  %-20s [%lld, %lld]  step %s\n", f->module[i].name,
                   (long long)f->module[i].rows, (long long)f->module[i].columns, step_name(f, i));
}

static void print_facts(const model_facts *m)
{
    const snrq_config *c = &m->model->config;
    const snrq_family *f = snrq_model_family(m->model, c->layers - 1);
    printf("%s: %s, %s embeddings\n", m->model->path, c->architecture,
           c->tied_embeddings ? "tied" : "untied");
    printf("%lld blocks, hidden %lld, intermediate %lld, heads %lld/%lld of %lld, vocabulary %lld, "
           "context %lld\n",
           (long long)c->layers, (long long)c->hidden, (long long)c->intermediate,
           (long long)c->heads, (long long)c->kv_heads, (long long)c->head_dim,
           (long long)c->vocabulary, (long long)c->max_positions);
    print_attention(c);
    print_experts(c);
    print_modules(f);
    printf("%.3f M weights can be quantized; %lld tensors of %.1f MB in all\n",
           m->quantizable / 1e6, (long long)m->tensors, (double)m->bytes / 1e6);
    for (int k = 0; k < SNRQ_FINDINGS; k++)
        if (m->findings.there[k])
            printf("%s: %s\n", snrq_finding_name((snrq_finding_kind)k), m->findings.text[k]);
}

/* What the default settings can be exported to. */
static snrq_status forecast_exports(const snrq_model *model, json_t **exports, int64_t *better)
{
    snrq_options defaults;
    SNRQ_TRY(snrq_options_restore(NULL, &defaults));
    const snrq_rule rule = snrq_options_rule(&defaults);
    return snrq_plan_exports(model, &rule, exports, better);
}

static snrq_status inspect_model(const char *path, bool json)
{
    model_facts facts;
    json_t *exports = NULL;
    int64_t better = 0;
    snrq_status status = collect_facts(path, &facts);
    if (status == SNRQ_OK) status = forecast_exports(facts.model, &exports, &better);
    if (status == SNRQ_OK && json) {
        status = print_facts_json(&facts, exports);
    } else if (status == SNRQ_OK) {
        print_facts(&facts);
        print_exports(exports);
        puts("(of `snrq quantize` with its default settings; --dry-run tells it of others)");
        if (better > 0)
            printf("more formats are possible with --group-size %lld\n", (long long)better);
    }
    json_decref(exports);
    snrq_model_close(&facts.model);
    return status;
}

snrq_status snrq_inspect(const snrq_context *context, const snrq_options *o)
{
    snrq_status status = SNRQ_OK;
    if (context->rank == 0)
        status = snrq_output_is(o->path) ? inspect_output(o->path, o->json)
                                         : inspect_model(o->path, o->json);
    if (context->rank == 0 && status == SNRQ_OK) status = snrq_print_end(stdout);
    return snrq_agree(context, status);
}

/* Verdicts of a verification. */
typedef struct verdicts {
    bool json;
    json_t *files;
    int good, bad;
} verdicts;

static void report_file(void *user, const char *file, const char *problem)
{
    verdicts *v = user;
    problem ? v->bad++ : v->good++;
    if (v->json)
        json_array_append_new(v->files,
                              json_pack("{s:o, s:b, s:o}", "file", snrq_json_text(file), "ok",
                                        problem == NULL, "problem", snrq_json_text(problem)));
    else
        printf("%-24s %s\n", file, problem ? problem : "ok");
}

static snrq_status verify(const snrq_options *o)
{
    verdicts v = {.json = o->json, .files = json_array()};
    snrq_output_facts output = {0};
    if (!snrq_output_is(o->path)) {
        json_decref(v.files);
        return snrq_fail(SNRQ_NO_INPUT,
                         "%s: no snrq.json there; expected an output directory of `snrq quantize`",
                         o->path);
    }
    snrq_status status = snrq_output_verify(o->path, report_file, &v);
    if (status == SNRQ_OK) status = snrq_output_read(o->path, &output);
    bool complete = output.complete;
    snrq_output_facts_free(&output);
    snrq_status printed = SNRQ_OK;
    if (o->json)
        printed = snrq_json_print(json_pack("{s:b, s:b, s:O}", "ok", status == SNRQ_OK, "complete",
                                            complete, "files", v.files));
    else
        printf("%d good, %d bad, %s\n", v.good, v.bad, complete ? "complete" : "not complete");
    json_decref(v.files);
    return status == SNRQ_OK ? printed : status;
}

snrq_status snrq_verify(const snrq_context *context, const snrq_options *o)
{
    if (o->export_path != NULL) return snrq_export_check(context, o);
    snrq_status status = context->rank == 0 ? verify(o) : SNRQ_OK;
    if (context->rank == 0 && status == SNRQ_OK) status = snrq_print_end(stdout);
    return snrq_agree(context, status);
}
