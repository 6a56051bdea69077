/* How fast tokenizers are: loading, English text, one word as long as a text, decoding.
 *
 * Every figure is the best of some runs in CPU time of one thread. The huge word is random letters,
 * which merges join almost everywhere: the worst case of byte pair encoding.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io/file.h"
#include "io/tokenizer/tokenizer.h"
#include "mpi/timers.h"

enum { MOST = 16, MAX_TEXT = 1 << 30 };

typedef struct bench {
    const char *models[MOST], *texts[MOST];
    int model_count, text_count;
    int runs;
    double word_megabytes; /* of the huge word; 0: none */
    bool json;
} bench;

static const char usage[] =
    "usage: bench_tokenizer --model DIRECTORY [--model ...] [--text FILE ...] [--word MB]\n"
    "                       [--runs R] [--json]\n"
    "Times reading DIRECTORY/tokenizer.json, encoding each text and one word of MB megabytes of\n"
    "random letters, and decoding; CPU time, the best of R runs.\n";

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct figures {
    double encode, decode; /* seconds */
    int64_t tokens;
} figures;

static snrq_status measure_once(const snrq_tokenizer *tokenizer, const char *text, size_t bytes,
                                figures *best)
{
    int32_t *ids;
    char *back;
    size_t back_bytes;
    double begin = now();
    SNRQ_TRY(snrq_tokenizer_encode(tokenizer, text, bytes, true, &ids, &best->tokens));
    double middle = now();
    snrq_status status =
        snrq_tokenizer_decode(tokenizer, ids, best->tokens, true, &back, &back_bytes);
    best->encode = fmin(best->encode, middle - begin);
    best->decode = fmin(best->decode, now() - middle);
    free(ids);
    free(back);
    return status;
}

static snrq_status measure_text(const bench *b, const snrq_tokenizer *tokenizer, const char *model,
                                const char *name, const char *text, size_t bytes)
{
    figures best = {.encode = INFINITY, .decode = INFINITY};
    double megabytes = (double)bytes * 1e-6;
    for (int run = 0; run < b->runs; run++) SNRQ_TRY(measure_once(tokenizer, text, bytes, &best));
    if (b->json)
        printf("{\"model\": \"%s\", \"text\": \"%s\", \"bytes\": %zu, \"tokens\": %lld, "
               "\"encode_mb_per_s\": %.2f, \"decode_mb_per_s\": %.2f, \"peak_mb\": %.0f}\n",
               model, name, bytes, (long long)best.tokens, megabytes / best.encode,
               megabytes / best.decode, snrq_peak_memory() * 1e-6);
    else
        printf(
            "  %-28s %9.3f MB %9lld tokens  encode %7.2f MB/s  decode %7.2f MB/s  peak %.0f MB\n",
            name, megabytes, (long long)best.tokens, megabytes / best.encode,
            megabytes / best.decode, snrq_peak_memory() * 1e-6);
    fflush(stdout);
    return SNRQ_OK;
}

static snrq_status measure_file(const bench *b, const snrq_tokenizer *tokenizer, const char *model,
                                const char *path)
{
    char *text;
    size_t bytes;
    const char *name = strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path;
    SNRQ_TRY(snrq_file_read(path, MAX_TEXT, &text, &bytes));
    snrq_status status = measure_text(b, tokenizer, model, name, text, bytes);
    free(text);
    return status;
}

static snrq_status measure_word(const bench *b, const snrq_tokenizer *tokenizer, const char *model)
{
    char *word;
    size_t bytes = (size_t)(b->word_megabytes * 1e6);
    uint64_t state = 1;
    SNRQ_TRY(snrq_allocate(bytes, 1, "word", &word));
    for (size_t i = 0; i < bytes; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        word[i] = (char)('a' + (int)((state >> 33) % 26));
    }
    snrq_status status = measure_text(b, tokenizer, model, "one word", word, bytes);
    free(word);
    return status;
}

static snrq_status measure_model(const bench *b, const char *model)
{
    snrq_tokenizer *tokenizer = NULL;
    double best = INFINITY;
    for (int run = 0; run < b->runs; run++) {
        snrq_tokenizer_destroy(&tokenizer);
        double begin = now();
        SNRQ_TRY(snrq_tokenizer_read(model, &tokenizer));
        best = fmin(best, now() - begin);
    }
    if (b->json)
        printf("{\"model\": \"%s\", \"ids\": %lld, \"load_seconds\": %.4f, \"peak_mb\": %.0f}\n",
               model, (long long)snrq_tokenizer_size(tokenizer), best, snrq_peak_memory() * 1e-6);
    else
        printf("%s: %lld ids, loaded in %.3f s, peak %.0f MB\n", model,
               (long long)snrq_tokenizer_size(tokenizer), best, snrq_peak_memory() * 1e-6);
    snrq_status status = SNRQ_OK;
    for (int i = 0; status == SNRQ_OK && i < b->text_count; i++)
        status = measure_file(b, tokenizer, model, b->texts[i]);
    if (status == SNRQ_OK && b->word_megabytes > 0.0) status = measure_word(b, tokenizer, model);
    snrq_tokenizer_destroy(&tokenizer);
    return status;
}

static bool read_arguments(int argc, char **argv, bench *b)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--json") == 0) {
            b->json = true;
            continue;
        }
        if (value == NULL) return false;
        if (strcmp(argv[i], "--model") == 0 && b->model_count < MOST)
            b->models[b->model_count++] = value;
        else if (strcmp(argv[i], "--text") == 0 && b->text_count < MOST)
            b->texts[b->text_count++] = value;
        else if (strcmp(argv[i], "--word") == 0)
            b->word_megabytes = atof(value);
        else if (strcmp(argv[i], "--runs") == 0)
            b->runs = atoi(value);
        else
            return false;
        i++;
    }
    return b->model_count > 0 && b->runs > 0 && b->word_megabytes >= 0.0 &&
           b->word_megabytes <= 1000.0;
}

int main(int argc, char **argv)
{
    bench b = {.runs = 3};
    snrq_status status = SNRQ_OK;
    if (!read_arguments(argc, argv, &b)) {
        fputs(usage, stderr);
        return SNRQ_USAGE;
    }
    for (int i = 0; status == SNRQ_OK && i < b.model_count; i++)
        status = measure_model(&b, b.models[i]);
    if (status != SNRQ_OK) fprintf(stderr, "bench_tokenizer: %s\n", snrq_error_message());
    return (int)status;
}
