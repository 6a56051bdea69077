/* An assessment on its way: what its parts share.
 */
#ifndef SNRQ_ASSESSMENT_H
#define SNRQ_ASSESSMENT_H

#include "pipeline/assess/choices.h"
#include "pipeline/assess/divergence.h"
#include "pipeline/options/options.h"

typedef struct snrq_assessment {
    const snrq_context *context;
    const snrq_options *options;
    const snrq_watch *watch; /* of the run that it is made for, or NULL */
    snrq_choices choices;
    snrq_rule rule;              /* of the options, with the usual width */
    snrq_rule alone;             /* the same without strengths: nothing is rounded before */
    snrq_model *model;           /* owned, as the following */
    json_t *configuration;       /* what decides the figures */
    snrq_windows windows;        /* those that H is of; then those that divergences are of, if they
                                    are of the same text */
    snrq_windows others;         /* else those, or none */
    snrq_windows fitted, judged; /* views of them */
    snrq_ropes ropes;
    snrq_stream full, twin; /* of the fitted windows; both the same where a block begins */
    double *alphas;         /* [local sequences] of alpha sampled, or NULL */
    snrq_stream before;     /* of the judged ones, as they enter the block */
    float *after;           /* their h behind the last block */
    json_t *uniform;        /* [{"bits", "kl"}]: all modules rounded with one width */
    char *rounded_path;     /* of the model with the usual width, or NULL: there is none */
    snrq_stream rounded, judged_rounded; /* both kinds of windows on their way through it */
} snrq_assessment;

/* What divergences are measured on. Not collective. */
snrq_divergence snrq_assessment_divergence(const snrq_assessment *assessment);

/* Bytes of a stream's h on this rank. */
size_t snrq_stream_bytes(const snrq_stream *stream);

#endif
