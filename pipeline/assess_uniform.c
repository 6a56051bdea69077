/* Models with one width; see assess_uniform.h. */
#include "pipeline/assess_uniform.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "io/file.h"
#include "mpi/collective.h"
#include "pipeline/options/text_options.h"
#include "pipeline/quantize.h"

/* The options of such a run: those of the assessment, and what is its own. */
static snrq_status uniform_options(const snrq_assessment *a, int bits, const char *output,
                                   snrq_options *out)
{
    SNRQ_TRY(snrq_options_copy(a->options, out));
    out->output = output;
    out->bits = bits;
    out->sequences = a->fitted.count;
    out->first_tokens = bits == 2 && snrq_method_has_strength((snrq_method)a->options->method);
    out->held_out = 0;
    return SNRQ_OK;
}

static snrq_status try_width(snrq_assessment *a, int bits)
{
    const snrq_divergence of = snrq_assessment_divergence(a);
    char name[32], path[PATH_MAX];
    double kl = 0.0;
    snrq_options o;
    snprintf(name, sizeof name, "uniform-%d", bits);
    SNRQ_TRY(snrq_path_join(a->options->output, name, path, sizeof path));
    SNRQ_TRY(uniform_options(a, bits, path, &o));
    SNRQ_TRY(snrq_quantize(a->context, &o));
    SNRQ_TRY(snrq_divergence_of_output(&of, path, &kl));
    json_array_append_new(a->uniform, json_pack("{s:i, s:f}", "bits", bits, "kl", kl));
    if (bits != a->choices.bits[a->choices.usual]) return SNRQ_OK;
    a->rounded_path = strdup(path);
    return snrq_agree(a->context,
                      a->rounded_path != NULL ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "no memory"));
}

snrq_status snrq_assess_uniform(snrq_assessment *a)
{
    a->uniform = json_array();
    for (int w = 0; w < a->choices.widths && !a->options->no_uniform; w++)
        if (a->choices.bits[w] <= SNRQ_WIDEST_UNIFORM) SNRQ_TRY(try_width(a, a->choices.bits[w]));
    return SNRQ_OK;
}
