/* Input: a letter that chooses the task, then its file of JSON lines, for a small byte-level
 * tokenizer and a model of 24 positions. */
#include "io/file.h"
#include "pipeline/evaluate/task_run.h"
#include "tests/fuzz/fuzz.h"

static const char names[] =
    "arc_easy,arc_challenge,boolq,hellaswag,piqa,winogrande,openbookqa,lambada_openai,wikitext";

static snrq_tokenizer *read_tokenizer(void)
{
    static const char settings[] = "{\"bos_token\": \"<b>\"}";
    char *data;
    size_t bytes;
    snrq_tokenizer *tokenizer = NULL;
    const char *path = FUZZ_SOURCE "/corpus/tokenizer_json/byte_level.json";
    FUZZ_CHECK(snrq_file_read(path, 1 << 24, &data, &bytes) == SNRQ_OK);
    fuzz_file("tokenizer.json", data, bytes);
    fuzz_file("tokenizer_config.json", settings, sizeof settings - 1);
    FUZZ_CHECK(snrq_tokenizer_read(fuzz_folder(), &tokenizer) == SNRQ_OK);
    FUZZ_CHECK(snrq_tokenizer_start(tokenizer) == 300);
    free(data);
    return tokenizer;
}

/* Every row of a passage is in one span, which sees rows before it; targets are rows. */
static void check(const snrq_passages *p, const snrq_config *config, int64_t questions)
{
    for (int64_t i = 0; i < p->count; i++) {
        const snrq_passage *passage = &p->passage[i];
        int64_t rows = 0;
        FUZZ_CHECK(passage->longest <= config->max_positions);
        for (int64_t s = passage->span; s < passage->span + passage->spans; s++) {
            const snrq_span *span = &p->span[s];
            FUZZ_CHECK(span->first == rows && span->tokens > 0 && span->prefix_first == 0);
            FUZZ_CHECK(span->prefix_tokens == 0 ||
                       span->prefix_tokens == p->span[passage->span].tokens);
            rows += span->tokens;
        }
        FUZZ_CHECK(rows == passage->ids);
        for (int64_t t = passage->target; t < passage->target + passage->targets; t++) {
            FUZZ_CHECK(p->target[t].row >= 0 && p->target[t].row < rows);
            FUZZ_CHECK(p->target[t].id >= 0 && p->target[t].id < config->vocabulary);
            FUZZ_CHECK(p->target[t].question >= 0 && p->target[t].question < questions);
        }
    }
}

static void ask(const snrq_task *task, const snrq_tokenizer *tokenizer)
{
    static snrq_context *context;
    const snrq_config config = {.vocabulary = snrq_tokenizer_size(tokenizer), .max_positions = 24};
    const snrq_request_rules rules = {tokenizer, &config, true};
    int64_t load = 0, questions = 0;
    snrq_passages passages = {0};
    snrq_task_run run = {.task = task};
    if (context == NULL) FUZZ_CHECK(snrq_context_create_alone(&context) == SNRQ_OK);
    if (snrq_task_ask(context, &rules, fuzz_folder(), 0, &load, &passages, &questions, &run) ==
        SNRQ_OK) {
        FUZZ_CHECK(run.rows.count > 0 && questions >= run.rows.count);
        check(&passages, &config, questions);
    } else {
        FUZZ_CHECK(strstr(snrq_error_message(), fuzz_folder()) != NULL);
    }
    snrq_task_run_free(&run);
    snrq_passages_free(&passages);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static snrq_tokenizer *tokenizer;
    const snrq_task *tasks[SNRQ_MOST_TASKS];
    char name[64];
    int count;
    if (size == 0) return 0;
    if (tokenizer == NULL) tokenizer = read_tokenizer();
    FUZZ_CHECK(snrq_tasks_parse(names, tasks, &count) == SNRQ_OK);
    const snrq_task *task = tasks[data[0] % count];
    snprintf(name, sizeof name, "%s.jsonl", task->name);
    fuzz_file(name, data + 1, size - 1);
    ask(task, tokenizer);
    return 0;
}
