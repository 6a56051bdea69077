/* Names of the phases; see phase.h. */
#include "pipeline/phase.h"

const char *snrq_phase_name(int phase)
{
    static const char *const names[] = {"read", "backward", "forward", "gram", "factor",
                                        "grid", "search",   "tune",    "write"};
    _Static_assert(sizeof names / sizeof names[0] == SNRQ_PHASES, "a name for every phase");
    return phase < SNRQ_PHASES ? names[phase] : "rest";
}
