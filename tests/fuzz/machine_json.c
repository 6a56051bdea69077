/* Input: the file of --machine. An accepted one has figures that times can be computed from, and is
 * the same when it is written and read again. */
#include <math.h>

#include "pipeline/machine.h"
#include "tests/fuzz/fuzz.h"

static void check(const snrq_machine *m)
{
    for (int k = 0; k < SNRQ_RATES; k++)
        FUZZ_CHECK(isfinite(m->seconds[k]) && m->seconds[k] >= 0.0);
    FUZZ_CHECK(m->ranks > 0 && m->nodes > 0 && m->threads > 0 && m->cores > 0);
    FUZZ_CHECK(isfinite(m->latency) && m->latency >= 0.0 && m->bandwidth >= 1.0);
    FUZZ_CHECK(isfinite(m->bandwidth) && m->read >= 0.0 && m->write >= 0.0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    snrq_machine first, second;
    const char *path = fuzz_file("machine.json", data, size);
    if (snrq_machine_read(path, &first) != SNRQ_OK) {
        FUZZ_CHECK(strstr(snrq_error_message(), path) != NULL);
        return 0;
    }
    check(&first);
    json_t *object = snrq_machine_json(&first);
    char *text = json_dumps(object, JSON_REAL_PRECISION(17));
    FUZZ_CHECK(text != NULL);
    path = fuzz_file("again.json", text, strlen(text));
    FUZZ_CHECK(snrq_machine_read(path, &second) == SNRQ_OK);
    FUZZ_CHECK(memcmp(first.seconds, second.seconds, sizeof first.seconds) == 0);
    FUZZ_CHECK(first.ranks == second.ranks && first.nodes == second.nodes);
    FUZZ_CHECK(first.latency == second.latency && first.bandwidth == second.bandwidth);
    FUZZ_CHECK(first.network_measured == second.network_measured);
    free(text);
    json_decref(object);
    return 0;
}
