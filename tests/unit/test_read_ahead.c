/* Reading a block ahead: that its bytes are in the system's cache after a while, and others not. */
#define _DEFAULT_SOURCE /* mincore */
#include "pipeline/model/read_ahead.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "pipeline/model/tensors.h"
#include "tests/unit/test_files.h"

enum { LAYER = 3, MOST_PAGES = 4096 };

static snrq_context *alone;
static snrq_model *model;

/* How much of the tensor is in the cache: 0 to 1. */
static double cached(const char *name)
{
    unsigned char there[MOST_PAGES];
    const snrq_tensor *t = snrq_model_tensor(model, name);
    int fd = open(snrq_safetensors_file(model->tensors, t), O_RDONLY);
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), first = t->offset / page * page, found = 0;
    uint64_t pages = (t->offset + t->bytes - first + page - 1) / page;
    void *map = mmap(NULL, (size_t)(pages * page), PROT_READ, MAP_SHARED, fd, (off_t)first);
    close(fd);
    if (map == MAP_FAILED || pages > MOST_PAGES) return -1.0;
    bool told = mincore(map, (size_t)(pages * page), there) == 0;
    for (uint64_t i = 0; told && i < pages; i++) found += there[i] & 1;
    munmap(map, (size_t)(pages * page));
    return told ? (double)found / (double)pages : -1.0;
}

static void forget(void)
{
    const snrq_tensor *t = snrq_model_tensor(model, "model.norm.weight");
    int fd = open(snrq_safetensors_file(model->tensors, t), O_RDONLY);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

/* The first and the last module of the block, which are not side by side in the file. */
static const char *const names[] = {"model.layers.3.self_attn.q_proj.weight",
                                    "model.layers.3.mlp.down_proj.weight"};

static void a_block_is_in_the_cache_after_a_while(void)
{
    snrq_read_ahead *ahead = NULL;
    forget();
    /* A file system in memory has no cache, and some systems do not tell. */
    if (cached(names[0]) != 0.0 || cached(names[1]) != 0.0) return;
    snrq_read_ahead_start(alone, model, LAYER, &ahead);
    CU_ASSERT_PTR_NOT_NULL_FATAL(ahead);
    for (int i = 0; i < 500 && (cached(names[0]) < 1.0 || cached(names[1]) < 1.0); i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    CU_ASSERT_EQUAL(cached(names[0]), 1.0);
    CU_ASSERT_EQUAL(cached(names[1]), 1.0);
    snrq_read_ahead_stop(&ahead);
    CU_ASSERT_PTR_NULL(ahead);
}

static void it_may_end_at_any_time(void)
{
    for (int i = 0; i < 50; i++) {
        snrq_read_ahead *ahead = NULL;
        snrq_read_ahead_start(alone, model, i % 6, &ahead);
        snrq_read_ahead_stop(&ahead);
        snrq_read_ahead_stop(&ahead);
        CU_ASSERT_PTR_NULL(ahead);
    }
}

/* Errors are for who reads the block: here, nothing but time is lost. */
static void a_block_that_is_not_there_does_no_harm(void)
{
    snrq_read_ahead *ahead = NULL;
    snrq_read_ahead_start(alone, model, 77, &ahead);
    snrq_read_ahead_stop(&ahead);
    CU_ASSERT_PTR_NULL(ahead);
}

int main(void)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(a_block_is_in_the_cache_after_a_while),
        SNRQ_TEST(it_may_end_at_any_time),
        SNRQ_TEST(a_block_that_is_not_there_does_no_harm),
    };
    if (snrq_context_create_alone(&alone) != SNRQ_OK) return 1;
    if (snrq_model_look(test_data("SNRQ_TEST_DATA", "model"), &model) != SNRQ_OK) return 1;
    int result = snrq_run_tests("read_ahead", tests, sizeof tests / sizeof *tests, 1);
    snrq_model_close(&model);
    snrq_context_destroy(&alone);
    return result;
}
