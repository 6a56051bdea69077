/* Token windows of a command: from texts or a token file, as the options say. */
#ifndef SNRQ_COMMAND_WINDOWS_H
#define SNRQ_COMMAND_WINDOWS_H

#include "io/tokenizer/windows.h"
#include "pipeline/model/model.h"
#include "pipeline/options.h"

/* Reads the windows of `quantize` (--calibration; random or consecutive) or `evaluate` (--text;
 * consecutive), or of --token-file (consecutive). Every rank reads the same files; collective,
 * agreed. Free with snrq_windows_free(). */
snrq_status snrq_command_windows(const snrq_context *context, const snrq_options *options,
                                 const snrq_model *model, snrq_windows *out);

#endif
