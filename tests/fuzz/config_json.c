/* Fuzz target: the bytes are a model's config.json. An accepted one must describe shapes that may
 * be multiplied, and angles that are numbers. */
#include <math.h>

#include "pipeline/model/family.h"
#include "pipeline/model/rope.h"
#include "tests/fuzz/fuzz.h"

static void check_family(const snrq_config *c, bool experts)
{
    const int64_t most = INT64_C(1) << 59;
    snrq_family family;
    FUZZ_CHECK(snrq_family_create(c, experts, &family) == SNRQ_OK);
    FUZZ_CHECK(experts || c->latent.keys > 0 || family.modules == (c->fused ? 4 : 7));
    for (int u = 0; u < family.units; u++) {
        int64_t rows = family.unit[u].rows, columns = family.unit[u].columns;
        FUZZ_CHECK(rows > 0 && columns > 0);
        FUZZ_CHECK(rows <= INT32_MAX && columns <= INT32_MAX);
        FUZZ_CHECK(rows <= most / columns);
    }
    snrq_family_free(&family);
}

static void check_rope(const snrq_config *c)
{
    enum { TOKENS = 4, LARGE = 1 << 16 };
    snrq_ropes ropes;
    FUZZ_CHECK(c->rope.dimensions >= 2 && c->rope.dimensions <= c->head_dim);
    if (c->rope.dimensions > LARGE) return;
    FUZZ_CHECK(snrq_ropes_create(c, TOKENS, &ropes) == SNRQ_OK);
    for (int64_t i = 0; i < TOKENS * ropes.whole.half; i++)
        FUZZ_CHECK(isfinite(ropes.whole.cosine[i]) && isfinite(ropes.whole.sine[i]));
    snrq_ropes_free(&ropes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    snrq_config c;
    fuzz_file("config.json", data, size);
    if (snrq_config_read(fuzz_folder(), &c) != SNRQ_OK) return 0;
    FUZZ_CHECK(c.heads % c.kv_heads == 0);
    FUZZ_CHECK(c.bos_id < c.vocabulary && c.eos_id < c.vocabulary);
    FUZZ_CHECK(snrq_config_window(&c, 0) >= 0 && c.max_positions > 0);
    check_family(&c, false);
    if (c.experts.count > 0) check_family(&c, true);
    check_rope(&c);
    return 0;
}
