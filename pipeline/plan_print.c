/* What a plan says; see plan.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "mpi/log.h"
#include "pipeline/export.h"
#include "pipeline/plan.h"
#include "pipeline/rounding/rounding.h"

/* What would become of the output directory. */
static void print_output(const snrq_context *c, const snrq_options *o, const snrq_plan *p,
                         int64_t layers)
{
    const snrq_plan_output *out = &p->output;
    if (!out->known) return;
    if (out->complete)
        snrq_note(c, "OUT          %s is complete already: there would be nothing to do",
                  o->output);
    else if (!out->started)
        snrq_note(c, "OUT          %s would be made, or is empty: the run would start", o->output);
    else if (out->committed == 0)
        snrq_note(c, "OUT          %s holds a run without a block: it would go on at the first",
                  o->output);
    else
        snrq_note(c, "OUT          %s holds a run: it would resume after block %lld of %lld",
                  o->output, (long long)out->committed, (long long)layers);
}

static json_t *output_json(const snrq_plan_output *out)
{
    if (!out->known) return NULL;
    const char *state = out->complete ? "complete" : out->started ? "unfinished" : "new";
    return json_pack("{s:s, s:I}", "state", state, "committed", (json_int_t)out->committed);
}
static void print_exports(const snrq_context *c, const json_t *rows, int64_t better)
{
    size_t i;
    const json_t *row;
    json_array_foreach((json_t *)rows, i, row)
    {
        const char *why = json_string_value(json_object_get(row, "why"));
        const char *answer = json_is_true(json_object_get(row, "possible")) ? "yes" : "no: ";
        snrq_note(c, "export to    %-18s  %s%s%s",
                  json_string_value(json_object_get(row, "format")), answer,
                  why[0] != '\0' && answer[0] == 'y' ? ", " : "", why);
    }
    if (better > 0)
        snrq_note(c, "export to    more formats are possible with --group-size %lld",
                  (long long)better);
}

/* Share of P times as fast that P ranks are. */
static double efficiency_of(const snrq_plan *p)
{
    return p->alone.total / (p->cost.total * p->ranks);
}

static void print_cost(const snrq_context *c, const snrq_options *o, const snrq_plan *p,
                       const snrq_windows *w)
{
    const snrq_layout_of_run layout = {p->ranks, p->nodes, p->cost_threads, p->groups};
    char time[32], best[32], before[32], limit[160];
    snrq_clock_text(p->seconds, time, sizeof time);
    snrq_note(c, "time         about %s on %d rank%s, by the speed of %s", time, p->ranks,
              p->ranks == 1 ? "" : "s", o->machine != NULL ? o->machine : "this machine");
    if (!o->plan) return;
    snrq_note(c, "\n%-10s %10s %7s %14s %10s", "phase", "seconds", "share", "MB per rank",
              "messages");
    for (int k = 0; k < SNRQ_PHASES; k++)
        snrq_note(c, "%-10s %10.1f %5.1f %% %14.1f %10.0f", snrq_phase_name(k), p->cost.seconds[k],
                  100.0 * p->cost.seconds[k] / p->cost.total, 1e-6 * p->cost.bytes[k],
                  p->cost.messages[k]);
    snrq_cost_limit(&p->cost, w, &layout, limit, sizeof limit);
    snrq_note(c, "\nefficiency   %.0f %% of %d times one rank's speed", 100.0 * efficiency_of(p),
              p->ranks);
    snrq_note(c, "limit        %s", limit);
    snrq_clock_text(p->sensitivity_seconds, before, sizeof before);
    snrq_note(c, "sensitivity  about %s, %.0f MB per rank, for %s of these windows", before,
              p->sensitivity_bytes / 1e6,
              snrq_options_make_sensitivity(o) ? "the backward pass" : "`snrq sensitivity`");
    snrq_clock_text(p->assess_seconds, before, sizeof before);
    snrq_note(c, "assess       about %s, %.0f MB per rank, for `snrq assess%s`", before,
              p->assess_bytes / 1e6, o->no_uniform ? " --no-uniform" : "");
    snrq_note(c, "network      %.1f us, %.2f GB/s%s", 1e6 * p->machine.latency,
              1e-9 * p->machine.bandwidth,
              p->machine.network_measured ? ""
                                          : ", not measured between nodes (--network, --machine)");
    if (p->best.ranks == 0) {
        snrq_note(c, "best         no layout of %d node%s fits into the memory of this one",
                  p->nodes, p->nodes == 1 ? "" : "s");
        return;
    }
    snrq_clock_text(p->best_seconds, best, sizeof best);
    snrq_note(c,
              "best         %d rank%s of %d thread%s per node, %d layer group%s: %s, %.0f MB per "
              "node",
              p->best.ranks / p->nodes, p->best.ranks == p->nodes ? "" : "s", p->best.threads,
              p->best.threads == 1 ? "" : "s", p->best.groups, p->best.groups == 1 ? "" : "s", best,
              p->best_node_bytes / 1e6);
}

static json_t *cost_json(const snrq_plan *p, const snrq_windows *w)
{
    const snrq_layout_of_run layout = {p->ranks, p->nodes, p->cost_threads, p->groups};
    char limit[160];
    json_t *phases = json_object();
    if (!p->costed) return NULL;
    for (int k = 0; k < SNRQ_PHASES; k++)
        json_object_set_new(phases, snrq_phase_name(k),
                            json_pack("{s:f, s:f, s:f}", "seconds", p->cost.seconds[k],
                                      "bytes_per_rank", p->cost.bytes[k], "messages",
                                      p->cost.messages[k]));
    snrq_cost_limit(&p->cost, w, &layout, limit, sizeof limit);
    json_t *best =
        p->best.ranks > 0
            ? json_pack("{s:i, s:i, s:i, s:f, s:f}", "ranks_per_node", p->best.ranks / p->nodes,
                        "threads", p->best.threads, "layer_groups", p->best.groups, "seconds",
                        p->best_seconds, "node_bytes", p->best_node_bytes)
            : NULL;
    return json_pack("{s:o, s:f, s:s, s:{s:f, s:f}, s:{s:f, s:f}, s:o*, s:o}", "phases", phases,
                     "efficiency", efficiency_of(p), "limit", limit, "sensitivity", "seconds",
                     p->sensitivity_seconds, "rank_bytes", p->sensitivity_bytes, "assess",
                     "seconds", p->assess_seconds, "rank_bytes", p->assess_bytes, "best", best,
                     "machine", snrq_machine_json(&p->machine));
}

static snrq_status print_json(const snrq_plan *p, const snrq_windows *w, json_t *exports,
                              int64_t better)
{
    json_t *object = json_pack(
        "{s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o*, s:o*, s:O, s:I}",
        "ranks", p->ranks, "nodes", p->nodes, "ranks_per_node", p->ranks_per_node, "layer_groups",
        p->groups, "best_layer_groups", p->best_groups, "rank_bytes", p->rank_bytes, "shared_bytes",
        p->shared_bytes, "node_bytes", p->node_bytes, "output_bytes", p->output_bytes,
        "activation_bytes", p->activation_bytes, "seconds", p->seconds, "bits_per_weight",
        p->bits_per_weight, "cost", cost_json(p, w), "output", output_json(&p->output), "exports",
        exports, "better_group_size", (json_int_t)better);
    return snrq_json_print(object);
}

/* "[q,k,v] [o] [gate,up] [down]" */
static void step_names(const snrq_family *f, char *out, size_t size)
{
    out[0] = '\0';
    for (int s = 0; s < f->steps; s++) {
        size_t length = strlen(out);
        snprintf(out + length, size - length, "%s[%s]", s > 0 ? " " : "", f->step[s].name);
    }
}

/* columns: the most that a module has. */
static void print_rule(const snrq_context *c, const snrq_rule *r, int64_t columns)
{
    char groups[64] = "per channel", strength[48] = "", alpha[32], beam[32] = "", passes[64] = "";
    snrq_rule_alpha_text(r, alpha, sizeof alpha);
    if (r->method == SNRQ_KSNRQ) snprintf(beam, sizeof beam, ", beam %d", r->beam);
    if (snrq_method_has_strength(r->method))
        snprintf(strength, sizeof strength, ", alpha %s", alpha);
    if (r->method != SNRQ_RTN)
        snprintf(passes, sizeof passes, ", refine %d, regrid %d%s", r->refine, r->regrid,
                 snrq_rule_couples_rows(r) ? ", row feedback" : "");
    if (snrq_rule_groups(r, columns) > 1)
        snprintf(groups, sizeof groups, "groups of %lld %s columns", (long long)r->group_size,
                 r->permuted_groups ? "permuted" : "original");
    const char *kind = r->format != NULL ? r->format->name
                       : r->symmetric    ? "symmetric"
                                         : "asymmetric";
    snrq_note(c, "method       %s%s, %d bits %s, %s%s, grid %s%s", snrq_method_name(r->method),
              beam, r->bits, kind, groups, strength, snrq_quant_grid_name(r->grid), passes);
}

/* Modules that get another format than --format says. */
static void print_narrow(const snrq_context *c, const snrq_options *o, const snrq_model *m,
                         const snrq_rules *rules)
{
    const snrq_weight_format *asked =
        o->weight_format >= 0 ? &snrq_weight_formats[o->weight_format] : NULL;
    int64_t count = 0, all = 0;
    for (int64_t layer = 0; layer < rules->layers && asked != NULL; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++, all++)
            count += snrq_rules_at(rules, layer, i)->format ==
                         snrq_weight_format_for(asked, f->module[i].columns) &&
                     f->module[i].columns % asked->super_block != 0;
    }
    if (count > 0)
        snrq_note(
            c,
            "format       %lld of %lld modules become %s: their inputs are no multiple of the "
            "%lld that a block of %s has",
            (long long)count, (long long)all, asked->narrow, (long long)asked->super_block,
            asked->name);
}

snrq_status snrq_plan_print(const snrq_context *c, const snrq_options *o, const snrq_model *m,
                            const snrq_rules *rules, const snrq_windows *w, const snrq_plan *p)
{
    const snrq_config *k = &m->config;
    char steps[128];
    const snrq_family *last = snrq_model_family(m, k->layers - 1);
    step_names(last, steps, sizeof steps);
    snrq_note(c,
              "model        %s: %s, %lld blocks of %lld modules %s, hidden %lld, "
              "intermediate %lld",
              m->path, k->architecture, (long long)k->layers, (long long)last->modules, steps,
              (long long)k->hidden, (long long)k->intermediate);
    char distinct[64] = "", first[64] = "", held_out[64] = "";
    int64_t fitted = w->count - w->held_out - w->first_tokens;
    if (w->distinct < fitted * w->length)
        snprintf(distinct, sizeof distinct, ", which cover %lld of the text",
                 (long long)w->distinct);
    if (w->held_out > 0)
        snprintf(held_out, sizeof held_out, "; %lld more, held out, only tell of errors",
                 (long long)w->held_out);
    if (w->first_tokens > 0)
        snprintf(first, sizeof first, "; %lld tokens more, each the first of a text",
                 (long long)(w->first_tokens * w->length));
    snrq_note(c, "calibration  %lld windows of %lld tokens%s%s%s", (long long)fitted,
              (long long)w->length, distinct, first, held_out);
    print_rule(c, snrq_rules_first(rules, m), snrq_model_max_columns(m));
    print_narrow(c, o, m, rules);
    if (rules->recipe != NULL)
        snrq_note(c,
                  "recipe       %s: the first module's rule is above; %.3f bits per weight in "
                  "all, scales and zeros counted",
                  o->recipe != NULL       ? o->recipe
                  : o->assessment != NULL ? o->assessment
                                          : "of the preset",
                  p->bits_per_weight);
    if (rules->budget.bits_per_weight > 0.0)
        snrq_note(c,
                  "budget       %.4f bits per weight; predicted divergence from the model: KL %.4g "
                  "nats per token",
                  rules->budget.bits_per_weight, rules->budget.kl);
    if (p->groups > 1 || p->best_groups > 1)
        snrq_note(c, "groups       %d group%s of ranks, each with blocks of its own%s", p->groups,
                  p->groups == 1 ? "" : "s",
                  p->best_groups > p->groups
                      ? "; more would be faster, and cost some quality (--layer-groups auto)"
                      : "");
    snrq_note(c,
              "memory       about %.0f MB per rank, and %.0f MB per node for weights: %.0f MB per "
              "node of %d rank%s",
              p->rank_bytes / 1e6, p->shared_bytes / 1e6, p->node_bytes / 1e6, p->ranks_per_node,
              p->ranks_per_node == 1 ? "" : "s");
    snrq_note(c, "output       %.1f MB in %lld files", p->output_bytes / 1e6,
              (long long)k->layers + (snrq_options_make_sensitivity(o) ? 2 : 1));
    if (p->activation_bytes > 0)
        snrq_note(c,
                  "activations  %.1f MB are kept until the run is complete, twice that while a "
                  "block's are written",
                  p->activation_bytes / 1e6);
    if (p->costed) print_cost(c, o, p, w);
    print_output(c, o, p, k->layers);
    json_t *exports = NULL;
    int64_t better = 0;
    snrq_status status = snrq_plan_forecast(m, rules, &exports, &better);
    if (status == SNRQ_OK) print_exports(c, exports, better);
    if (status == SNRQ_OK && o->json && c->rank == 0) status = print_json(p, w, exports, better);
    json_decref(exports);
    return snrq_agree(c, status);
}
