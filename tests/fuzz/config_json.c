/* Fuzz target: the bytes are a model's config.json. An accepted one must describe shapes that may
 * be multiplied, and angles that are numbers. */
#include <math.h>

#include "pipeline/family.h"
#include "pipeline/rope.h"
#include "tests/fuzz/model_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_family(const snrq_config *c)
{
    const int64_t most = INT64_C(1) << 59;
    snrq_family family;
    snrq_family_describe(c, &family);
    must(family.modules == (c->fused ? 4 : 7), "every stage has its modules");
    for (int s = 0; s < SNRQ_STAGES; s++) {
        int64_t rows = family.stage_rows[s], columns = family.stage_columns[s];
        must(rows > 0 && columns > 0, "a stage has rows and columns");
        must(rows <= INT32_MAX && columns <= INT32_MAX, "they fit an int");
        must(rows <= most / columns, "a stage's size fits");
    }
}

static void check_rope(const snrq_config *c)
{
    enum { TOKENS = 4, LARGE = 1 << 16 };
    snrq_rope rope;
    must(c->rope.dimensions >= 2 && c->rope.dimensions <= c->head_dim, "a part of a head turns");
    if (c->rope.dimensions > LARGE) return;
    must(snrq_rope_create(c, TOKENS, &rope) == SNRQ_OK, "angles are made");
    for (int64_t i = 0; i < TOKENS * rope.half; i++)
        must(isfinite(rope.cosine[i]) && isfinite(rope.sine[i]), "angles are numbers");
    snrq_rope_free(&rope);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    snrq_config c;
    model_file_write("config.json", data, size);
    if (snrq_config_read(model_directory(), &c) != SNRQ_OK) return 0;
    must(c.heads % c.kv_heads == 0, "query heads share key heads evenly");
    must(c.bos_id < c.vocabulary && c.eos_id < c.vocabulary, "token ids are in the vocabulary");
    must(snrq_config_window(&c, 0) >= 0 && c.max_positions > 0, "windows and contexts are sizes");
    check_family(&c);
    check_rope(&c);
    return 0;
}
