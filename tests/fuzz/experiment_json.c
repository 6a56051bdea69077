/* Input: a table of runs. What is read has runs with names of their own that are good for files. */
#include "pipeline/results/experiment.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    snrq_experiment experiment;
    snrq_status status = snrq_experiment_parse("input", (const char *)data, size, &experiment);
    FUZZ_CHECK(status == SNRQ_OK || snrq_error_message()[0] != '\0');
    for (int r = 0; r < experiment.runs && status == SNRQ_OK; r++) {
        const snrq_experiment_run *run = &experiment.run[r];
        FUZZ_CHECK(run->name[0] != '\0' && run->name[0] != '.' && strchr(run->name, '/') == NULL);
        FUZZ_CHECK(strlen(run->name) < SNRQ_RUN_NAME && run->model != NULL && run->path != NULL);
        FUZZ_CHECK(json_is_object(run->key) && json_is_object(run->options));
        FUZZ_CHECK(r == 0 || strcmp(run->name, experiment.run[r - 1].name) != 0);
    }
    FUZZ_CHECK(status != SNRQ_OK || (experiment.runs > 0 && experiment.title != NULL));
    snrq_experiment_free(&experiment);
    return 0;
}
