/* What a protocol gave; see perplexity.h. */
#include "pipeline/evaluate/perplexity.h"

#include <math.h>
#include <stdlib.h>

#include "io/json.h"
#include "pipeline/evaluate/figures.h"

snrq_status snrq_perplexity_create(snrq_perplexity *p)
{
    size_t windows = (size_t)p->windows.count;
    SNRQ_TRY(snrq_allocate(windows, sizeof *p->loss, "losses", &p->loss));
    SNRQ_TRY(snrq_allocate(windows, sizeof *p->kl, "divergences", &p->kl));
    return snrq_allocate(windows, sizeof *p->top1, "agreements", &p->top1);
}

void snrq_perplexity_free(snrq_perplexity *p)
{
    snrq_windows_free(&p->windows);
    free(p->loss);
    free(p->kl);
    free(p->top1);
    *p = (snrq_perplexity){0};
}

snrq_status snrq_perplexity_check(const snrq_perplexity *p, const char *model,
                                  const char *reference)
{
    for (int64_t w = 0; w < p->windows.count; w++) {
        if (!isfinite(p->loss[w]))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: the loss of window %lld is %g: the model's weights or "
                             "activations are not finite",
                             model, (long long)w, p->loss[w]);
        if (p->compared && !isfinite(p->kl[w]))
            return snrq_fail(
                SNRQ_BAD_DATA,
                "%s: the divergence from it in window %lld is %g: the reference's weights or "
                "activations are not finite",
                reference, (long long)w, p->kl[w]);
    }
    return SNRQ_OK;
}

/* " +- 0.012", or nothing for an error that is none. */
static void print_error(double error, FILE *out)
{
    if (isfinite(error)) fprintf(out, " +- %.2g", error);
}

void snrq_perplexity_print(const snrq_perplexity *p, FILE *out)
{
    int64_t count = p->windows.count, tokens = count * (p->windows.length - 1);
    snrq_figure loss = snrq_figure_of(p->loss, count), perplexity = snrq_figure_exp(loss);
    fprintf(out, "perplexity       %.6g", perplexity.mean);
    print_error(perplexity.error, out);
    fprintf(out, "\nmean token loss  %.6g", loss.mean);
    print_error(loss.error, out);
    fprintf(out, " nats over %lld tokens in %lld windows of %lld\n", (long long)tokens,
            (long long)count, (long long)p->windows.length);
    if (!p->compared) return;
    snrq_figure kl = snrq_figure_of(p->kl, count), top1 = snrq_figure_of(p->top1, count);
    fprintf(out, "KL to reference  %.6g", kl.mean);
    print_error(kl.error, out);
    fprintf(out, " nats per token\n");
    if (p->predicted > 0.0)
        fprintf(out, "predicted KL     %.6g nats per token, by the budget of the run\n",
                p->predicted);
    fprintf(out, "top-1 agreement  %.4f", top1.mean);
    print_error(top1.error, out);
    fputc('\n', out);
}

/* Adds a figure, and its error as "..._stderr" where there is one. */
static bool add_figure(json_t *object, const char *key, const char *error_key, snrq_figure f)
{
    if (json_object_set_new(object, key, json_real(f.mean)) != 0) return false;
    return !isfinite(f.error) || json_object_set_new(object, error_key, json_real(f.error)) == 0;
}

json_t *snrq_perplexity_json(const snrq_perplexity *p)
{
    int64_t count = p->windows.count, length = p->windows.length;
    snrq_figure loss = snrq_figure_of(p->loss, count);
    json_t *object =
        json_pack("{s:s, s:o, s:I, s:I, s:I}", "protocol", p->order->protocol->name, "text",
                  snrq_json_text(p->order->source), "tokens", (json_int_t)(count * (length - 1)),
                  "windows", (json_int_t)count, "length", (json_int_t)length);
    bool good = object != NULL &&
                add_figure(object, "perplexity", "perplexity_stderr", snrq_figure_exp(loss)) &&
                add_figure(object, "mean_token_loss", "mean_token_loss_stderr", loss);
    if (good && p->compared)
        good = add_figure(object, "kl", "kl_stderr", snrq_figure_of(p->kl, count)) &&
               add_figure(object, "top1_agreement", "top1_agreement_stderr",
                          snrq_figure_of(p->top1, count));
    if (good && p->compared && p->predicted > 0.0)
        good = json_object_set_new(object, "predicted_kl", json_real(p->predicted)) == 0;
    if (good) return object;
    json_decref(object);
    return NULL;
}

static json_t *sample(const snrq_perplexity *p, int64_t w)
{
    json_t *object =
        json_pack("{s:s, s:s, s:I, s:f}", "task", "perplexity", "protocol",
                  p->order->protocol->name, "window", (json_int_t)w, "loss", p->loss[w]);
    bool good = object != NULL;
    if (good && p->windows.place != NULL) {
        const snrq_window_place *place = &p->windows.place[w];
        json_t *at = json_pack("{s:I, s:I, s:I}", "doc", (json_int_t)place->document, "start",
                               (json_int_t)place->start, "rejected", (json_int_t)place->rejected);
        good = json_object_update(object, at) == 0;
        json_decref(at);
    }
    if (good && p->compared)
        good = json_object_set_new(object, "kl", json_real(p->kl[w])) == 0 &&
               json_object_set_new(object, "top1_agreement", json_real(p->top1[w])) == 0;
    if (good) return object;
    json_decref(object);
    return NULL;
}

snrq_status snrq_perplexity_samples(const snrq_perplexity *p, FILE *out)
{
    for (int64_t w = 0; w < p->windows.count; w++) {
        json_t *object = sample(p, w);
        if (object == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for the samples");
        json_dumpf(object, out, 0);
        fputc('\n', out);
        json_decref(object);
    }
    return SNRQ_OK;
}
