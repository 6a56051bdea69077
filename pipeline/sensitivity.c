/* The command `sensitivity`; see sensitivity.h. */
#include "pipeline/sensitivity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/standard_streams.h"
#include "io/user_output.h"
#include "mpi/collective.h"
#include "mpi/log.h"
#include "mpi/timers.h"
#include "pipeline/model/findings.h"
#include "pipeline/options/text_options.h"
#include "pipeline/sensitivity_cost.h"
#include "pipeline/sensitivity_pass.h"

enum { SECONDS_BETWEEN_LINES = 5 };

typedef struct run {
    const snrq_context *context;
    const snrq_options *options;
    snrq_model *model;
    snrq_windows windows;
    snrq_user_output *output; /* of rank 0 */
    char path[PATH_MAX];      /* of the file until it is complete */
    double started, told, done;
} run;

/* Rank 0 tries the file before anything is computed. */
static snrq_status open_output(run *r)
{
    const char *inputs[SNRQ_MOST_INPUTS];
    int count = snrq_options_inputs(r->options, inputs);
    snrq_status status = SNRQ_OK;
    if (r->context->rank == 0) {
        status = snrq_user_output_open(r->options->output, inputs, count, &r->output);
        if (status == SNRQ_OK) status = snrq_user_output_stage(r->output, r->path);
    }
    return snrq_agree(r->context, status);
}

static snrq_status open_model(run *r)
{
    const snrq_options *o = r->options;
    SNRQ_TRY(snrq_model_open(r->context, o->path, &r->model));
    if (r->model->quantized)
        return snrq_fail(SNRQ_USAGE,
                         "sensitivity: expected a Hugging Face checkpoint, found the output of "
                         "`snrq quantize` in %s",
                         o->path);
    return snrq_model_check(r->context, r->model, o->ignore_unused_layers, o->strict);
}

static snrq_status make_windows(run *r)
{
    snrq_window_order order = snrq_calibration_windows(r->options);
    order.held_out = order.first_tokens = 0;
    return snrq_windows_make(r->context, &order, r->model, &r->windows);
}

static void tell_memory(const run *r)
{
    double bytes = snrq_sensitivity_rank_bytes(r->model, &r->windows, r->context->size,
                                               r->options->pass_memory);
    if (!r->options->json)
        snrq_note(r->context, "memory: %.0f MB per rank, beside the weights of a block",
                  bytes / 1e6);
}

static snrq_status tell(void *user, const snrq_sensitivity_step *s)
{
    run *r = user;
    char left[32];
    const int forward = SNRQ_SENSITIVITY_FORWARD_PARTS, back = SNRQ_SENSITIVITY_BACK_PARTS;
    const int64_t layers = r->model->config.layers;
    const double work = (double)(s->passes * layers * (forward + back)), now = snrq_now();
    r->done += s->back ? back : forward;
    bool last = r->done == work;
    if (r->options->json || (now - r->told < SECONDS_BETWEEN_LINES && !last)) return SNRQ_OK;
    r->told = now;
    snrq_clock_text((now - r->started) * (work - r->done) / r->done, left, sizeof left);
    snrq_note(r->context, "%s through block %lld of %lld%s%.0d done, left %s",
              s->back ? "back" : "forward", (long long)s->block + 1, (long long)layers,
              s->passes > 1 ? ", pass " : "", s->passes > 1 ? (int)s->pass + 1 : 0, left);
    return SNRQ_OK;
}

static snrq_status print_answer(const run *r, const snrq_sensitivity_outcome *found)
{
    if (r->context->rank != 0) return SNRQ_OK;
    if (r->options->json)
        return snrq_json_write(
            stdout, json_pack("{s:o, s:i, s:I, s:I, s:I, s:f, s:f}", "file",
                              snrq_json_text(r->options->output), "modules", found->modules,
                              "windows", (json_int_t)r->windows.count, "length",
                              (json_int_t)r->windows.length, "tokens", (json_int_t)found->tokens,
                              "label_loss", found->loss, "seconds", snrq_now() - r->started));
    printf("%s: %d modules, %.1f MB; %lld tokens in %lld windows; loss of the drawn labels %.4f\n",
           r->options->output, found->modules, (double)found->bytes / 1e6, (long long)found->tokens,
           (long long)r->windows.count, found->loss);
    return snrq_print_end(stdout);
}

static snrq_status write_file(run *r)
{
    const snrq_sensitivity_order order = {.path = r->path,
                                          .seed = (uint64_t)r->options->seed,
                                          .pass_memory = r->options->pass_memory,
                                          .listen = tell,
                                          .user = r};
    snrq_sensitivity_outcome found;
    SNRQ_TRY(snrq_sensitivity_pass(r->context, &order, r->model, &r->windows, &found));
    snrq_status status = SNRQ_OK;
    if (r->context->rank == 0) {
        status = snrq_user_output_publish(r->output, r->path);
        r->path[0] = '\0';
    }
    SNRQ_TRY(snrq_agree(r->context, status));
    return snrq_agree(r->context, print_answer(r, &found));
}

static snrq_status compute(run *r)
{
    SNRQ_TRY(open_output(r));
    SNRQ_TRY(snrq_broadcast(r->context, r->path, sizeof r->path));
    SNRQ_TRY(open_model(r));
    SNRQ_TRY(make_windows(r));
    tell_memory(r);
    return write_file(r);
}

snrq_status snrq_sensitivity(const snrq_context *context, const snrq_options *options)
{
    run *r = NULL;
    SNRQ_TRY(snrq_agree(context, snrq_allocate(1, sizeof *r, "sensitivity", &r)));
    r->context = context;
    r->options = options;
    r->started = r->told = snrq_now();
    snrq_status status = compute(r);
    if (context->rank == 0 && r->path[0] != '\0') snrq_user_output_discard(r->path);
    snrq_windows_free(&r->windows);
    snrq_model_close(&r->model);
    snrq_user_output_close(&r->output);
    free(r);
    return status;
}
