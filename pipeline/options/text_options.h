/* What the options say about texts and windows. */
#ifndef SNRQ_TEXT_OPTIONS_H
#define SNRQ_TEXT_OPTIONS_H

#include "pipeline/options/options.h"
#include "pipeline/texts/windows.h"

/* All of --calibration or --text. Borrowed. */
snrq_texts snrq_options_texts(const snrq_options *options);

/* The windows of `quantize`. */
snrq_window_order snrq_calibration_windows(const snrq_options *options);

/* The windows of `evaluate`, as far as the options say it: the rule and its numbers are those of a
 * protocol. */
snrq_window_order snrq_evaluation_windows(const snrq_options *options);

/* Options of a run that another one makes: what decides the result, with the same model and texts;
 * no output, and nothing of how it is run but what memory depends on. Borrows from `from`.
 * SNRQ_INTERNAL without memory. Not collective. */
snrq_status snrq_options_copy(const snrq_options *from, snrq_options *out);

#endif
