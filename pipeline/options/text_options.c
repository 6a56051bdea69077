/* Options about texts and windows; see text_options.h. */
#include "pipeline/options/text_options.h"

enum { DEFAULT_SEQUENCES = 128 };

snrq_texts snrq_options_texts(const snrq_options *o)
{
    return (snrq_texts){o->texts.count, o->texts.path, o->text_key};
}

snrq_window_order snrq_calibration_windows(const snrq_options *o)
{
    static const snrq_window_rule drawn[] = {[SNRQ_SAMPLING_NONE] = SNRQ_WINDOWS_RANDOM,
                                             [SNRQ_SAMPLING_C4] = SNRQ_WINDOWS_C4,
                                             [SNRQ_SAMPLING_C4_SNRQ] = SNRQ_WINDOWS_C4_SNRQ,
                                             [SNRQ_SAMPLING_WIKITEXT2] =
                                                 SNRQ_WINDOWS_WIKITEXT2_DRAWN};
    bool all = o->token_file != NULL && o->sequences == 0;
    return (snrq_window_order){.rule = o->sampling == SNRQ_SAMPLING_NONE && o->consecutive
                                           ? SNRQ_WINDOWS_CONSECUTIVE
                                           : drawn[o->sampling],
                               .texts = snrq_options_texts(o),
                               .token_file = o->token_file,
                               .count = o->sequences > 0 || all ? o->sequences : DEFAULT_SEQUENCES,
                               .length = o->length,
                               .held_out = o->held_out,
                               .first_tokens = o->first_tokens,
                               .seed = (uint64_t)o->seed};
}

snrq_window_order snrq_evaluation_windows(const snrq_options *o)
{
    return (snrq_window_order){.texts = snrq_options_texts(o),
                               .token_file = o->token_file,
                               .count = o->sequences,
                               .length = o->length,
                               .seed = (uint64_t)o->seed,
                               .beyond_context = true};
}

snrq_status snrq_options_copy(const snrq_options *from, snrq_options *out)
{
    json_t *stored = snrq_options_stored(from);
    if (stored == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for options");
    snrq_status status = snrq_options_restore(stored, out);
    json_decref(stored);
    out->path = from->path;
    out->token_file = from->token_file;
    out->calibration = from->calibration;
    out->texts = from->texts;
    out->text_key = from->text_key;
    out->strict = from->strict;
    out->ignore_unused_layers = from->ignore_unused_layers;
    out->factor_rows = from->factor_rows;
    out->factor_columns = from->factor_columns;
    return status;
}
