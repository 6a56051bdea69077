/* Values of options; see option_text.h. */
#include "pipeline/results/option_text.h"

#include <stdio.h>

const char *snrq_option_text(const json_t *value, char out[SNRQ_OPTION_TEXT])
{
    if (json_is_string(value))
        snprintf(out, SNRQ_OPTION_TEXT, "%s", json_string_value(value));
    else if (json_is_integer(value))
        snprintf(out, SNRQ_OPTION_TEXT, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(out, SNRQ_OPTION_TEXT, "%.12g", json_real_value(value));
    else if (json_is_boolean(value))
        snprintf(out, SNRQ_OPTION_TEXT, "%s", json_is_true(value) ? "yes" : "no");
    else
        snprintf(out, SNRQ_OPTION_TEXT, "-");
    return out;
}
