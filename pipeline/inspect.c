/* inspect and verify; see inspect.h. */
#include "pipeline/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/output.h"
#include "io/safetensors.h"
#include "pipeline/family.h"

static void print_json(json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER);
    printf("%s\n", text ? text : "{}");
    free(text);
    json_decref(object);
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "?";
}

static void print_module(const json_t *m)
{
    printf("%-40s %6.0f %6.0f %4.0f %6.0f  %-6s %6.3f %12.5g %8.3f %8.3f %7.3f\n",
           text_of(m, "name"), number(m, "rows"), number(m, "columns"), number(m, "bits"),
           number(m, "group_size"), text_of(m, "method"), number(m, "alpha"),
           number(m, "objective"), 100 * number(m, "output_error"), 100 * number(m, "model_error"),
           100 * number(m, "clipped"));
}

/* All module records of the manifest, in block order. New reference. */
static json_t *collect_modules(const json_t *records)
{
    json_t *all = json_array();
    size_t i;
    const json_t *record;
    json_array_foreach((json_t *)records, i, record)
        json_array_extend(all, json_object_get(record, "modules"));
    return all;
}

static snrq_status inspect_output(const char *path, bool json)
{
    json_t *configuration = NULL, *records = NULL;
    bool complete = false;
    size_t i;
    json_t *module;
    SNRQ_TRY(snrq_output_read_configuration(path, &configuration));
    snrq_status status = snrq_output_read_manifest(path, &records, &complete);
    if (status == SNRQ_OK) {
        json_t *modules = collect_modules(records);
        if (json) {
            print_json(json_pack("{s:s, s:b, s:O, s:o}", "path", path, "complete", complete,
                                 "configuration", configuration, "modules", modules));
        } else {
            char *options = json_dumps(json_object_get(configuration, "options"), JSON_INDENT(2));
            printf("%s: quantized checkpoint, %s\noptions %s\n\n", path,
                   complete ? "complete" : "UNFINISHED (run the same command again)",
                   options ? options : "");
            printf("%-40s %6s %6s %4s %6s  %-6s %6s %12s %8s %8s %7s\n", "module", "rows", "cols",
                   "bits", "group", "method", "alpha", "objective", "output%", "model%", "clip%");
            json_array_foreach(modules, i, module) print_module(module);
            free(options);
            json_decref(modules);
        }
    }
    json_decref(records);
    json_decref(configuration);
    return status;
}

static snrq_status inspect_model(const char *path, bool json)
{
    snrq_config c;
    snrq_family f;
    snrq_safetensors *tensors = NULL;
    uint64_t bytes = 0;
    double quantizable = 0;
    SNRQ_TRY(snrq_config_read(path, &c));
    SNRQ_TRY(snrq_safetensors_open(path, &tensors));
    snrq_family_describe(&c, &f);
    for (int64_t i = 0; i < snrq_safetensors_count(tensors); i++)
        bytes += snrq_safetensors_at(tensors, i)->bytes;
    for (int m = 0; m < f.modules; m++)
        quantizable += (double)c.layers * (double)f.module[m].rows * (double)f.module[m].columns;
    if (json) {
        print_json(json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I}", "path",
                             path, "architecture", c.architecture, "layers", (json_int_t)c.layers,
                             "hidden", (json_int_t)c.hidden, "intermediate",
                             (json_int_t)c.intermediate, "heads", (json_int_t)c.heads, "kv_heads",
                             (json_int_t)c.kv_heads, "head_dim", (json_int_t)c.head_dim,
                             "vocabulary", (json_int_t)c.vocabulary, "max_positions",
                             (json_int_t)c.max_positions, "quantizable_weights", quantizable,
                             "tensor_bytes", (json_int_t)bytes));
    } else {
        printf("%s: %s, %s embeddings\n", path, c.architecture,
               c.tied_embeddings ? "tied" : "untied");
        printf("%lld blocks, hidden %lld, intermediate %lld, heads %lld/%lld of %lld, vocabulary "
               "%lld, context "
               "%lld\n",
               (long long)c.layers, (long long)c.hidden, (long long)c.intermediate,
               (long long)c.heads, (long long)c.kv_heads, (long long)c.head_dim,
               (long long)c.vocabulary, (long long)c.max_positions);
        for (int m = 0; m < f.modules; m++)
            printf("  %-20s [%lld, %lld]  stage %s\n", f.module[m].name,
                   (long long)f.module[m].rows, (long long)f.module[m].columns,
                   f.stage_name[f.module[m].stage]);
        printf("%.3f M weights can be quantized; %lld tensors of %.1f MB in all\n",
               quantizable / 1e6, (long long)snrq_safetensors_count(tensors), (double)bytes / 1e6);
    }
    snrq_safetensors_close(&tensors);
    return SNRQ_OK;
}

snrq_status snrq_inspect(const snrq_context *context, const snrq_options *o)
{
    snrq_status status = SNRQ_OK;
    if (context->rank == 0)
        status = snrq_output_is(o->path) ? inspect_output(o->path, o->json)
                                         : inspect_model(o->path, o->json);
    fflush(stdout);
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
        json_array_append_new(v->files, json_pack("{s:s, s:b, s:s?}", "file", file, "ok",
                                                  problem == NULL, "problem", problem));
    else
        printf("%-24s %s\n", file, problem ? problem : "ok");
}

static snrq_status verify(const snrq_options *o)
{
    verdicts v = {.json = o->json, .files = json_array()};
    json_t *records = NULL;
    bool complete = false;
    if (!snrq_output_is(o->path)) {
        json_decref(v.files);
        return snrq_fail(SNRQ_NO_INPUT,
                         "%s: no snrq.json there; expected an output directory of `snrq quantize`",
                         o->path);
    }
    snrq_status status = snrq_output_verify(o->path, report_file, &v);
    if (status == SNRQ_OK) {
        status = snrq_output_read_manifest(o->path, &records, &complete);
        json_decref(records);
    }
    if (o->json)
        print_json(json_pack("{s:b, s:b, s:O}", "ok", status == SNRQ_OK, "complete", complete,
                             "files", v.files));
    else
        printf("%d good, %d bad, %s\n", v.good, v.bad, complete ? "complete" : "not complete");
    json_decref(v.files);
    return status;
}

snrq_status snrq_verify(const snrq_context *context, const snrq_options *o)
{
    snrq_status status = context->rank == 0 ? verify(o) : SNRQ_OK;
    fflush(stdout);
    return snrq_agree(context, status);
}
