/* The output directory: commit, resume, locks, and damage that is found and named. */
#include "io/checkpoint/output.h"

#include <signal.h>
#include <time.h>

#include "io/checkpoint/manifest.h"
#include "io/checkpoint/reader.h"
#include "tests/ranks/rank_files.h"

static char directory[PATH_MAX];

static const char *inside(const char *name)
{
    static char path[PATH_MAX];
    CU_ASSERT_EQUAL(snrq_path_join(directory, name, path, sizeof path), SNRQ_OK);
    return path;
}

static void begin(void)
{
    rank_files_begin();
    snprintf(directory, sizeof directory, "%s", scratch_path("OUT"));
}

static json_t *make_configuration(int bits, double damping)
{
    return json_pack("{s:s, s:s, s:{s:i, s:f, s:[i, i]}, s:{s:s}, s:{}}", "format", "snrq",
                     "version", "0.1.0", "options", "bits", bits, "damp", damping, "list", 1, 2,
                     "model", "name", "tiny", "calibration");
}

static snrq_status open_output(int bits, snrq_output **output)
{
    json_t *configuration = make_configuration(bits, 0.1);
    snrq_status status = snrq_output_open(rank_test_world, directory, configuration, output);
    json_decref(configuration);
    return status;
}

/* Writes NAME.tmp on rank 0 and commits it. */
static snrq_status commit(snrq_output *output, const char *name, const char *text)
{
    json_t *details = json_pack("{s:f, s:i}", "quality", 0.1, "block", 3);
    if (rank_test_world->rank == 0) {
        FILE *file = fopen(snrq_output_temporary(output, name), "w");
        CU_ASSERT_FALSE(file == NULL || fputs(text, file) < 0 || fclose(file) != 0);
    }
    snrq_status status = snrq_output_commit(output, rank_test_world, name, details);
    json_decref(details);
    return status;
}

static void committed_files_are_there_after_reopening(void)
{
    snrq_output *output = NULL;
    snrq_output_facts facts;
    begin();
    if (assert_ok(open_output(3, &output))) {
        CU_ASSERT_PTR_NULL(snrq_output_record(output, "a.h5"));
        assert_ok(commit(output, "a.h5", "hello"));
        assert_ok(commit(output, "b.h5", ""));
        CU_ASSERT_EQUAL(snrq_output_commit(output, rank_test_world, "a.h5", NULL), SNRQ_INTERNAL);
        CU_ASSERT_EQUAL(snrq_output_commit(output, rank_test_world, "../c.h5", NULL),
                        SNRQ_INTERNAL);
        CU_ASSERT_EQUAL(snrq_output_commit(output, rank_test_world, "snrq.json", NULL),
                        SNRQ_INTERNAL);
        assert_failed(snrq_output_commit(output, rank_test_world, "none.h5", NULL), SNRQ_NO_INPUT,
                      "none.h5.tmp");
        CU_ASSERT_FALSE(snrq_output_complete(output));
    }
    snrq_output_close(&output);
    CU_ASSERT_PTR_NULL(output);
    CU_ASSERT_FALSE(file_exists(inside("snrq.lock")));
    if (assert_ok(open_output(3, &output))) {
        const json_t *record = snrq_output_record(output, "a.h5");
        CU_ASSERT_EQUAL(json_integer_value(json_object_get(record, "bytes")), 5);
        CU_ASSERT_EQUAL(json_real_value(json_object_get(record, "quality")), 0.1);
        CU_ASSERT_PTR_NOT_NULL(snrq_output_record(output, "b.h5"));
        CU_ASSERT_PTR_NULL(snrq_output_record(output, "c.h5"));
        CU_ASSERT_FALSE(snrq_output_complete(output));
    }
    snrq_output_close(&output);
    CU_ASSERT_TRUE(snrq_output_is(directory));
    CU_ASSERT_FALSE(snrq_output_is(scratch()));
    assert_ok(snrq_output_read(directory, &facts));
    CU_ASSERT_EQUAL(json_array_size(facts.records), 2);
    CU_ASSERT_FALSE(facts.complete);
    snrq_output_facts_free(&facts);
    rank_files_end();
}

static void a_finished_run_is_complete(void)
{
    snrq_output *output = NULL;
    snrq_output_facts facts;
    json_t *details = json_pack("{s:i}", "seconds", 5);
    begin();
    if (assert_ok(open_output(3, &output))) {
        assert_ok(commit(output, "a.h5", "hello"));
        assert_ok(snrq_output_finish(output, details));
        CU_ASSERT_TRUE(snrq_output_complete(output));
        CU_ASSERT_EQUAL(snrq_output_finish(output, NULL), SNRQ_INTERNAL);
        CU_ASSERT_EQUAL(commit(output, "b.h5", ""), SNRQ_INTERNAL);
    }
    snrq_output_close(&output);
    if (assert_ok(open_output(3, &output))) CU_ASSERT_TRUE(snrq_output_complete(output));
    snrq_output_close(&output);
    assert_failed(open_output(4, &output), SNRQ_USAGE, "the finished run has 3, this one 4");
    assert_ok(snrq_output_read(directory, &facts));
    CU_ASSERT_TRUE(facts.complete);
    snrq_output_facts_free(&facts);
    json_decref(details);
    rank_files_end();
}

/* The record cannot be written: the file must not keep the name that says it is there. */
static void a_file_without_record_gets_no_name(void)
{
    snrq_output *output = NULL;
    begin();
    if (assert_ok(open_output(3, &output))) {
        if (rank_test_world->rank == 0) CU_ASSERT_EQUAL(mkdir(inside("manifest.jsonl"), 0700), 0);
        assert_failed(commit(output, "a.h5", "hello"), SNRQ_CANNOT_WRITE, "manifest.jsonl");
        CU_ASSERT_PTR_NULL(snrq_output_record(output, "a.h5"));
        CU_ASSERT_FALSE(file_exists(inside("a.h5")));
        snrq_barrier(rank_test_world);
        if (rank_test_world->rank == 0) CU_ASSERT_EQUAL(rmdir(inside("manifest.jsonl")), 0);
        snrq_barrier(rank_test_world);
        assert_ok(commit(output, "a.h5", "hello"));
        CU_ASSERT_TRUE(file_exists(inside("a.h5")));
    }
    snrq_output_close(&output);
    rank_files_end();
}

static void leftovers_are_removed_and_strangers_kept(void)
{
    static const char *const leftovers[] = {"block-00001.h5", "block-00002.h5.tmp",
                                            "status.json.tmp", "rest.h5.tmp.locktest.0",
                                            "snrq.lock.node7.12.tmp"};
    const int count = sizeof leftovers / sizeof *leftovers;
    static const char *const strangers[] = {"notes.txt", "slurm-12.out"};
    snrq_output *output = NULL;
    begin();
    assert_ok(open_output(3, &output));
    assert_ok(commit(output, "block-00000.h5", "kept"));
    snrq_output_close(&output);
    if (rank_test_world->rank == 0) {
        for (int i = 0; i < count; i++) assert_ok(snrq_file_append(inside(leftovers[i]), "x", 1));
        for (int i = 0; i < 2; i++) assert_ok(snrq_file_append(inside(strangers[i]), "x", 1));
    }
    assert_ok(open_output(3, &output));
    for (int i = 0; i < count; i++) CU_ASSERT_FALSE(file_exists(inside(leftovers[i])));
    for (int i = 0; i < 2; i++) CU_ASSERT_TRUE(file_exists(inside(strangers[i])));
    CU_ASSERT_TRUE(file_exists(inside("block-00000.h5")));
    snrq_output_close(&output);
    rank_files_end();
}

static void a_torn_last_line_is_dropped(void)
{
    snrq_output *output = NULL;
    char *line = NULL;
    size_t bytes = 0;
    begin();
    assert_ok(open_output(3, &output));
    assert_ok(commit(output, "a.h5", "a"));
    assert_ok(commit(output, "b.h5", "b"));
    snrq_output_close(&output);
    long whole = file_size(inside("manifest.jsonl"));
    long half = whole / 2; /* both lines have the same length */
    for (long cut = whole - 1; cut >= half; cut -= 37) {
        MPI_Barrier(rank_test_world->comm);
        if (rank_test_world->rank == 0) CU_ASSERT_EQUAL(truncate(inside("manifest.jsonl"), cut), 0);
        MPI_Barrier(rank_test_world->comm);
        if (assert_ok(open_output(3, &output))) {
            CU_ASSERT_PTR_NOT_NULL(snrq_output_record(output, "a.h5"));
            CU_ASSERT_PTR_NULL(snrq_output_record(output, "b.h5"));
            CU_ASSERT_FALSE(file_exists(inside("b.h5")));
            CU_ASSERT_EQUAL(file_size(inside("manifest.jsonl")), half);
            assert_ok(commit(output, "b.h5", "b"));
        }
        snrq_output_close(&output);
        CU_ASSERT_EQUAL(file_size(inside("manifest.jsonl")), whole);
    }
    /* A whole line that is wrong is no torn line. */
    if (rank_test_world->rank == 0) flip_bit(inside("manifest.jsonl"), half + 20, 1);
    MPI_Barrier(rank_test_world->comm);
    assert_failed(open_output(3, &output), SNRQ_BAD_DATA, "manifest.jsonl: line 2: damaged");
    /* Nor are lines in another order, twice, or from another run. */
    MPI_Barrier(rank_test_world->comm);
    if (rank_test_world->rank == 0) {
        flip_bit(inside("manifest.jsonl"), half + 20, 1);
        assert_ok(snrq_file_read(inside("manifest.jsonl"), 1 << 20, &line, &bytes));
        assert_ok(snrq_file_replace(inside("manifest.jsonl"), line + half, (size_t)half));
    }
    MPI_Barrier(rank_test_world->comm);
    assert_failed(open_output(3, &output), SNRQ_BAD_DATA, "is record 1, expected 0");
    free(line);
    rank_files_end();
}

static void another_configuration_is_refused_by_key(void)
{
    snrq_output *output = NULL;
    begin();
    assert_ok(open_output(3, &output));
    snrq_output_close(&output);
    assert_failed(open_output(4, &output), SNRQ_USAGE,
                  "options.bits: the unfinished run has 3, this one 4");
    CU_ASSERT_PTR_NULL(output);
    json_t *other = json_pack("{s:s, s:s, s:{s:i, s:f, s:s}, s:{s:s}, s:{}}", "format", "snrq",
                              "version", "0.2.0", "options", "bits", 3, "damp", 0.2, "new", "x",
                              "model", "name", "large", "calibration");
    assert_failed(snrq_output_open(rank_test_world, directory, other, &output), SNRQ_USAGE,
                  "and 2 more");
    json_decref(other);
    /* The lock was released each time. */
    assert_ok(open_output(3, &output));
    snrq_output_close(&output);
    rank_files_end();
}

static void unusable_directories_say_why(void)
{
    snrq_output *output = NULL;
    begin();
    if (rank_test_world->rank == 0) scratch_write_text("OUT", "a file");
    MPI_Barrier(rank_test_world->comm);
    assert_failed(open_output(3, &output), SNRQ_CANNOT_WRITE, "is a file");
    MPI_Barrier(rank_test_world->comm);
    if (rank_test_world->rank == 0) unlink(directory);
    snprintf(directory, sizeof directory, "%s", scratch_path("no/OUT"));
    assert_failed(open_output(3, &output), SNRQ_CANNOT_WRITE, "directory above it");
    if (rank_test_world->rank == 0) {
        CU_ASSERT_EQUAL(mkdir(scratch_path("other"), 0700), 0);
        scratch_write_text("other/thesis.tex", "precious");
    }
    snprintf(directory, sizeof directory, "%s", scratch_path("other"));
    assert_failed(open_output(3, &output), SNRQ_CANNOT_WRITE, "is not empty (thesis.tex)");
    CU_ASSERT_FALSE(file_exists(inside("snrq.lock")));
    MPI_Barrier(rank_test_world->comm);
    if (rank_test_world->rank == 0 && geteuid() != 0) {
        unlink(scratch_path("other/thesis.tex"));
        chmod(directory, 0500);
    }
    if (geteuid() != 0)
        assert_failed(open_output(3, &output), SNRQ_CANNOT_WRITE, "cannot be written to");
    rank_files_end();
}

/* Writes a lock of somebody else. */
static void write_lock_of(const char *host, long long pid, long long process, long long heartbeat)
{
    char text[400];
    snprintf(text, sizeof text,
             "{\"heartbeat\":%lld,\"host\":\"%s\",\"job\":\"42\",\"pid\":%lld,\"process\":%lld,"
             "\"started\":1}",
             heartbeat, host, pid, process);
    if (rank_test_world->rank == 0)
        assert_ok(snrq_file_replace(inside("snrq.lock"), text, strlen(text)));
    MPI_Barrier(rank_test_world->comm);
}

static void write_lock(const char *host, long long pid, long long heartbeat)
{
    write_lock_of(host, pid, 0, heartbeat);
}

static void locks_keep_others_out_while_they_live(void)
{
    snrq_output *output = NULL, *second = NULL;
    char host[256] = "";
    long long now = (long long)time(NULL);
    pid_t gone = 0;
    begin();
    gethostname(host, sizeof host - 1);
    if (rank_test_world->rank == 0) {
        fflush(NULL);
        gone = fork();
        if (gone == 0) _exit(0);
    }
    assert_ok(open_output(3, &output));
    assert_failed(open_output(3, &second), SNRQ_CANNOT_WRITE, "in use by process");
    CU_ASSERT_PTR_NULL(second);
    snrq_output_close(&output);
    /* A process of this host: alive; ended, but not waited for yet; gone. */
    write_lock(host, 1, 0);
    assert_failed(open_output(3, &output), SNRQ_CANNOT_WRITE, "process 1 on");
    for (int waited_for = 0; waited_for < 2; waited_for++) {
        siginfo_t ended;
        if (rank_test_world->rank == 0)
            CU_ASSERT_EQUAL(waitid(P_PID, (id_t)gone, &ended, WEXITED | (waited_for ? 0 : WNOWAIT)),
                            0);
        write_lock(host, gone, now);
        assert_ok(open_output(3, &output));
        snrq_output_close(&output);
    }
    /* The number was given to another process since. */
    write_lock_of(host, 1, 7, now);
    assert_ok(open_output(3, &output));
    snrq_output_close(&output);
    /* Another host: heard of a minute ago, an hour ago. */
    write_lock("elsewhere", 1, now - 60);
    assert_failed(open_output(3, &output), SNRQ_CANNOT_WRITE, "elsewhere, job 42");
    write_lock("elsewhere", 1, now - 3600);
    assert_ok(open_output(3, &output));
    /* A lock that was taken over is not removed by the one who lost it. */
    write_lock("elsewhere", 2, now);
    assert_failed(commit(output, "block-00000.h5", "x"), SNRQ_CANNOT_WRITE, "somebody else's");
    CU_ASSERT_FALSE(file_exists(inside("block-00000.h5")));
    snrq_output_close(&output);
    CU_ASSERT_TRUE(file_exists(inside("snrq.lock")));
    MPI_Barrier(rank_test_world->comm);
    if (rank_test_world->rank == 0) assert_ok(snrq_file_replace(inside("snrq.lock"), "{", 1));
    MPI_Barrier(rank_test_world->comm);
    assert_failed(open_output(3, &output), SNRQ_CANNOT_WRITE, "half-written");
    rank_files_end();
}

static void model_files_are_copied_once(void)
{
    snrq_output *output = NULL;
    begin();
    if (rank_test_world->rank == 0) {
        scratch_write_text("config.json", "{}");
        scratch_write_text("tokenizer.json", "{\"version\":1}");
        scratch_write_text("model.safetensors", "not copied");
    }
    for (int i = 0; i < 2; i++) {
        assert_ok(open_output(3, &output));
        assert_ok(snrq_output_copy_model_files(output, scratch()));
        CU_ASSERT_PTR_NOT_NULL(snrq_output_record(output, "config.json"));
        CU_ASSERT_PTR_NOT_NULL(snrq_output_record(output, "tokenizer.json"));
        snrq_output_close(&output);
    }
    CU_ASSERT_EQUAL(file_size(inside("tokenizer.json")), 13);
    CU_ASSERT_FALSE(file_exists(inside("model.safetensors")));
    CU_ASSERT_FALSE(file_exists(inside("generation_config.json")));
    rank_files_end();
}

static void logs_are_written_by_one_rank(void)
{
    snrq_output *output = NULL;
    char *data = NULL;
    size_t bytes = 0;
    json_t *event = json_pack("{s:s, s:f}", "event", "stage", "share", 0.1);
    begin();
    assert_ok(open_output(3, &output));
    for (int i = 0; i < 3; i++) snrq_output_event(output, event);
    for (int i = 0; i < 3; i++) snrq_output_status(output, event);
    snrq_output_close(&output);
    if (rank_test_world->rank == 0) {
        int lines = 0;
        if (assert_ok(snrq_file_read(inside("run.jsonl"), 1 << 20, &data, &bytes)))
            for (size_t i = 0; i < bytes; i++) lines += data[i] == '\n';
        CU_ASSERT_EQUAL(lines, 3);
        CU_ASSERT_EQUAL(strncmp(data, "{\"time\":", 8), 0);
        CU_ASSERT_PTR_NOT_NULL(strstr(data, "\"event\":\"stage\",\"share\":0.10000000000000001}"));
        free(data);
        CU_ASSERT_TRUE(file_exists(inside("status.json")));
    }
    json_decref(event);
    rank_files_end();
}

/* What verify says: the first file with a problem, and how many files it looked at. */
struct verdict {
    char bad[64];
    int good;
};

static void collect(void *user, const char *file, const char *problem)
{
    struct verdict *v = user;
    if (problem == NULL) v->good++;
    if (problem != NULL && v->bad[0] == '\0') snprintf(v->bad, sizeof v->bad, "%s", file);
}

/* Verify must fail and name `file` first. */
static void assert_found(const char *file, long at)
{
    struct verdict v = {.good = 0};
    bool found = snrq_output_verify(directory, collect, &v) != SNRQ_OK && strcmp(v.bad, file) == 0;
    if (!found) fprintf(stderr, "%s, byte %ld: verify names \"%s\"\n", file, at, v.bad);
    CU_ASSERT_TRUE(found);
}

static void any_flipped_bit_is_found_and_named(void)
{
    static const char *const files[] = {"snrq.json", "manifest.jsonl", "a.h5"};
    snrq_output *output = NULL;
    struct verdict v = {.good = 0};
    begin();
    assert_ok(open_output(3, &output));
    assert_ok(commit(output, "a.h5", "a few bytes of data"));
    assert_ok(snrq_output_finish(output, NULL));
    snrq_output_close(&output);
    if (rank_test_world->rank == 0) {
        assert_ok(snrq_output_verify(directory, collect, &v));
        CU_ASSERT_EQUAL(v.good, 3);
        for (int f = 0; f < 3; f++)
            for (long at = 0, end = file_size(inside(files[f])); at < end; at++)
                for (int bit = 0; bit < 8; bit++) {
                    flip_bit(inside(files[f]), at, bit);
                    assert_found(files[f], at);
                    flip_bit(inside(files[f]), at, bit);
                }
        assert_ok(snrq_output_verify(directory, NULL, NULL));
    }
    MPI_Barrier(rank_test_world->comm);
    /* A run does not start on damaged files either. */
    if (rank_test_world->rank == 0) flip_bit(inside("a.h5"), 3, 3);
    MPI_Barrier(rank_test_world->comm);
    assert_failed(open_output(3, &output), SNRQ_BAD_DATA, "a.h5: has changed");
    rank_files_end();
}

static void missing_and_extra_files_are_found(void)
{
    snrq_output *output = NULL;
    begin();
    assert_ok(open_output(3, &output));
    assert_ok(commit(output, "a.h5", "a"));
    assert_ok(commit(output, "b.h5", "b"));
    assert_ok(snrq_output_finish(output, NULL));
    snrq_output_close(&output);
    if (rank_test_world->rank == 0) {
        assert_ok(snrq_file_append(inside("c.h5"), "x", 1));
        assert_found("c.h5", 0);
        unlink(inside("c.h5"));
        assert_ok(snrq_file_append(inside("c.h5.tmp"), "x", 1));
        assert_found("c.h5.tmp", 0);
        unlink(inside("c.h5.tmp"));
        assert_ok(snrq_file_append(inside("a.h5"), "x", 1));
        assert_found("a.h5", 0);
        unlink(inside("b.h5"));
        CU_ASSERT_EQUAL(truncate(inside("a.h5"), 1), 0);
        assert_found("b.h5", 0);
        CU_ASSERT_EQUAL(symlink("a.h5", inside("b.h5")), 0);
        assert_found("b.h5", 0);
        unlink(inside("manifest.jsonl"));
        assert_found("a.h5", 0);
        assert_failed(snrq_output_verify(scratch(), NULL, NULL), SNRQ_NO_INPUT, "no snrq.json");
    }
    rank_files_end();
}

/* Two groups of ranks. */

enum { BLOCKS = 6 };

static void name_block(int block, char name[32])
{
    snprintf(name, 32, "block-%05d.h5", block);
}

/* `context` commits the file of a block, which its last rank writes. */
static snrq_status commit_block(snrq_output *output, const snrq_context *context, int block)
{
    char name[32];
    json_t *details = json_pack("{s:i, s:[s]}", "block", block, "modules", "q");
    name_block(block, name);
    if (context->rank == context->size - 1) {
        FILE *file = fopen(snrq_output_temporary(output, name), "w");
        CU_ASSERT_FALSE(file == NULL || fprintf(file, "%d", block * 1001) < 0 || fclose(file) != 0);
    }
    snrq_barrier(context);
    snrq_status status = snrq_output_commit(output, context, name, details);
    json_decref(details);
    return status;
}

/* The last rank is a group of its own; with one rank, both groups are the job. */
static int my_group(void)
{
    return rank_test_world->size > 1 && rank_test_world->rank == rank_test_world->size - 1;
}

static snrq_context *make_groups(void)
{
    snrq_context *group = NULL;
    assert_ok(snrq_context_split(rank_test_world, my_group(), &group));
    return group;
}

/* Group A commits blocks 0, 1, 2 in turn and group B 3, 4, 5, as far as `turns` goes on: "ABA" is a
 * block of A, one of B, another one of A, each after the one before has ended. done: of A and B. */
static void commit_in_turns(snrq_output *output, const snrq_context *group, const char *turns,
                            int done[2])
{
    for (const char *turn = turns; *turn != '\0'; turn++) {
        int who = *turn - 'A', block = 3 * who + done[who]++;
        if (rank_test_world->size == 1 || who == my_group())
            assert_ok(commit_block(output, group, block));
        snrq_barrier(rank_test_world);
    }
}

static void read_whole_manifest(char **text, size_t *bytes)
{
    *text = NULL;
    assert_ok(snrq_file_read(inside("manifest.jsonl"), 1 << 20, text, bytes));
}

/* The manifest of a job that commits its blocks one by one. The caller frees it. */
static char *manifest_of_the_job(size_t *bytes)
{
    snrq_output *output = NULL;
    char *text = NULL;
    begin();
    assert_ok(open_output(3, &output));
    for (int block = 0; block < BLOCKS; block++)
        assert_ok(commit_block(output, rank_test_world, block));
    assert_ok(snrq_output_finish(output, NULL));
    snrq_output_close(&output);
    read_whole_manifest(&text, bytes);
    rank_files_end();
    return text;
}

/* OUT is finished as the job alone would have done it. */
static void check_finished(const char *expected, size_t bytes)
{
    char *text = NULL, name[48];
    size_t found = 0;
    read_whole_manifest(&text, &found);
    CU_ASSERT_EQUAL(found, bytes);
    CU_ASSERT_TRUE(found == bytes && memcmp(text, expected, bytes) == 0);
    free(text);
    for (int block = 0; block < BLOCKS; block++) {
        snprintf(name, sizeof name, "block-%05d.h5.record", block);
        CU_ASSERT_FALSE(file_exists(inside(name)));
    }
    if (rank_test_world->rank == 0) assert_ok(snrq_output_verify(directory, NULL, NULL));
}

/* What a reader sees of an unfinished run: the blocks that are committed, those of groups in order.
 */
static void check_unfinished(const int done[2])
{
    snrq_output_facts facts;
    assert_ok(snrq_output_read(directory, &facts));
    CU_ASSERT_FALSE(facts.complete);
    CU_ASSERT_EQUAL(json_array_size(facts.records), done[0] + done[1]);
    for (int i = 0; i < done[0] + done[1]; i++) {
        const json_t *record = json_array_get(facts.records, (size_t)i);
        if (rank_test_world->size > 1)
            CU_ASSERT_EQUAL(snrq_manifest_block(record), i < done[0] ? i : 3 + i - done[0]);
        CU_ASSERT_EQUAL(json_integer_value(json_object_get(record, "record")), i);
    }
    snrq_output_facts_free(&facts);
    if (rank_test_world->rank == 0) assert_ok(snrq_output_verify(directory, NULL, NULL));
}

static const char *const timings[] = {"AAABBB", "BBBAAA", "ABABAB", "BABABA", "BAABBA"};
enum { TIMINGS = sizeof timings / sizeof *timings };

static void no_timing_of_groups_changes_the_manifest(void)
{
    size_t bytes = 0;
    char *expected = manifest_of_the_job(&bytes);
    snrq_context *group = make_groups();
    for (int k = 0; k < TIMINGS; k++) {
        snrq_output *output = NULL;
        int done[2] = {0, 0};
        begin();
        if (assert_ok(open_output(3, &output))) {
            commit_in_turns(output, group, timings[k], done);
            check_unfinished(done);
            snrq_barrier(rank_test_world);
            if (k % 2 == 0) {
                assert_ok(snrq_output_merge(output));
                CU_ASSERT_PTR_NOT_NULL(snrq_output_record(output, "block-00000.h5"));
                CU_ASSERT_PTR_NOT_NULL(snrq_output_record(output, "block-00005.h5"));
            }
            assert_ok(snrq_output_finish(output, NULL));
            CU_ASSERT_TRUE(snrq_output_complete(output));
        }
        snrq_output_close(&output);
        check_finished(expected, bytes);
        rank_files_end();
    }
    snrq_context_destroy(&group);
    free(expected);
}

/* All at once: nothing but the file system is between the groups. */
static void groups_commit_without_waiting(void)
{
    size_t bytes = 0;
    char *expected = manifest_of_the_job(&bytes);
    snrq_context *group = make_groups();
    snrq_output *output = NULL;
    begin();
    if (assert_ok(open_output(3, &output))) {
        for (int block = 0; block < BLOCKS; block++)
            if (rank_test_world->size == 1 || block / 3 == my_group())
                assert_ok(commit_block(output, group, block));
        assert_ok(snrq_output_finish(output, NULL));
    }
    snrq_output_close(&output);
    check_finished(expected, bytes);
    rank_files_end();
    snrq_context_destroy(&group);
    free(expected);
}

/* A run ends after each of its commits, and goes on. */
static void killed_groups_go_on_where_they_were(void)
{
    size_t bytes = 0;
    char *expected = manifest_of_the_job(&bytes);
    snrq_context *group = make_groups();
    for (int k = 0; k < TIMINGS; k++)
        for (int until = 1; until <= BLOCKS; until++) {
            snrq_output *output = NULL;
            char turns[BLOCKS + 1] = "";
            int done[2] = {0, 0};
            memcpy(turns, timings[k], (size_t)until);
            begin();
            assert_ok(open_output(3, &output));
            commit_in_turns(output, group, turns, done);
            snrq_output_close(&output);
            check_unfinished(done);
            snrq_barrier(rank_test_world);
            assert_ok(open_output(3, &output));
            for (int block = 0; block < BLOCKS; block++) {
                char name[32];
                name_block(block, name);
                CU_ASSERT_EQUAL(snrq_output_record(output, name) != NULL,
                                block % 3 < done[block / 3]);
            }
            commit_in_turns(output, group, timings[k] + until, done);
            assert_ok(snrq_output_finish(output, NULL));
            snrq_output_close(&output);
            check_finished(expected, bytes);
            rank_files_end();
        }
    snrq_context_destroy(&group);
    free(expected);
}

/* The moments of a group's commit and of a merge at which a kill leaves something. */
static void what_a_kill_leaves_of_a_groups_commit_is_sorted_out(void)
{
    size_t bytes = 0;
    char *expected = manifest_of_the_job(&bytes);
    snrq_context *group = make_groups();
    snrq_output *output = NULL;
    int done[2] = {0, 0};
    begin();
    assert_ok(open_output(3, &output));
    commit_in_turns(output, group, "AAABB", done);
    snrq_output_close(&output);
    if (rank_test_world->rank == 0) {
        const char *record = "block-00003.h5.record";
        bool apart = file_exists(inside(record));
        CU_ASSERT_EQUAL(apart, rank_test_world->size > 1);
        if (apart) { /* the manifest was replaced, but this one not yet removed */
            char from[PATH_MAX];
            snprintf(from, sizeof from, "%s", inside(record));
            copy_whole_file(from, scratch_path("record"));
        }
        assert_ok(snrq_file_append(inside("block-00005.h5"), "x", 1)); /* renamed, no record */
        assert_ok(snrq_file_append(inside("block-00005.h5.record.tmp"), "x", 1));
    }
    assert_ok(open_output(3, &output));
    CU_ASSERT_FALSE(file_exists(inside("block-00005.h5")));
    CU_ASSERT_FALSE(file_exists(inside("block-00005.h5.record.tmp")));
    CU_ASSERT_PTR_NOT_NULL(snrq_output_record(output, "block-00003.h5"));
    snrq_output_close(&output);
    if (rank_test_world->rank == 0 && rank_test_world->size > 1)
        copy_whole_file(scratch_path("record"), inside("block-00003.h5.record"));
    snrq_barrier(rank_test_world);
    check_unfinished(done);
    snrq_barrier(rank_test_world);
    assert_ok(open_output(3, &output));
    CU_ASSERT_FALSE(file_exists(inside("block-00003.h5.record")));
    commit_in_turns(output, group, "B", done);
    assert_ok(snrq_output_finish(output, NULL));
    snrq_output_close(&output);
    check_finished(expected, bytes);
    rank_files_end();
    snrq_context_destroy(&group);
    free(expected);
}

/* Group B commits block 4 and ends; OUT is left with its record apart. */
static void leave_a_record_apart(const snrq_context *group)
{
    snrq_output *output = NULL;
    begin();
    assert_ok(open_output(3, &output));
    if (my_group()) assert_ok(commit_block(output, group, 4));
    snrq_output_close(&output);
}

static void records_apart_are_checked_like_the_manifest(void)
{
    snrq_context *group = make_groups();
    snrq_output *output = NULL;
    const char *record = "block-00004.h5.record";
    char other[PATH_MAX];
    if (rank_test_world->size > 1) {
        leave_a_record_apart(group);
        if (rank_test_world->rank == 0) {
            long size = file_size(inside(record));
            for (long at = 0; at < size; at += 7) {
                flip_bit(inside(record), at, (int)(at % 8));
                assert_failed(snrq_output_verify(directory, NULL, NULL), SNRQ_BAD_DATA,
                              at == size - 1 ? record : "block-00004.h5.record: line 1");
                flip_bit(inside(record), at, (int)(at % 8));
            }
            for (long cut = size - 1; cut >= 0; cut -= 7) {
                char from[PATH_MAX];
                snprintf(from, sizeof from, "%s", inside(record));
                copy_whole_file(from, scratch_path("record"));
                CU_ASSERT_EQUAL(truncate(inside(record), cut), 0);
                assert_failed(snrq_output_verify(directory, NULL, NULL), SNRQ_BAD_DATA, record);
                copy_whole_file(scratch_path("record"), inside(record));
            }
            assert_ok(snrq_output_verify(directory, NULL, NULL));
            /* Beside a file that it is not of. */
            snprintf(other, sizeof other, "%s", inside("block-00001.h5.record"));
            CU_ASSERT_EQUAL(rename(inside(record), other), 0);
            assert_failed(snrq_output_verify(directory, NULL, NULL), SNRQ_BAD_DATA,
                          "expected one line, the record of a block's file block-00001.h5");
            CU_ASSERT_EQUAL(rename(other, inside(record)), 0);
        }
        snrq_barrier(rank_test_world);
        /* Of another run. */
        if (rank_test_world->rank == 0) copy_whole_file(inside(record), scratch_path("record"));
        if (rank_test_world->rank == 0) unlink(inside(record));
        if (rank_test_world->rank == 0) unlink(inside("snrq.json"));
        if (rank_test_world->rank == 0) unlink(inside("block-00004.h5"));
        snrq_barrier(rank_test_world);
        assert_ok(open_output(4, &output));
        assert_ok(commit_block(output, rank_test_world, 0));
        snrq_output_close(&output);
        if (rank_test_world->rank == 0) copy_whole_file(scratch_path("record"), inside(record));
        snrq_barrier(rank_test_world);
        assert_failed(open_output(4, &output), SNRQ_BAD_DATA,
                      "block-00004.h5.record: made with another configuration");
        rank_files_end();
    }
    snrq_context_destroy(&group);
}

static void groups_commit_blocks_and_nothing_else(void)
{
    snrq_context *group = make_groups();
    snrq_output *output = NULL;
    json_t *block = json_pack("{s:i}", "block", 4);
    begin();
    assert_ok(open_output(3, &output));
    if (group->size < rank_test_world->size) {
        assert_failed(snrq_output_commit(output, group, "rest.h5", NULL), SNRQ_INTERNAL,
                      "a group of ranks commits files of blocks only");
        assert_failed(snrq_output_commit(output, group, "notes.txt", block), SNRQ_INTERNAL,
                      "a group of ranks commits files of blocks only");
    }
    if (rank_test_world->size > 1) {
        /* The record cannot be written: the file must not keep its name. */
        snrq_barrier(rank_test_world);
        if (rank_test_world->rank == 0)
            CU_ASSERT_EQUAL(mkdir(inside("block-00004.h5.record"), 0700), 0);
        snrq_barrier(rank_test_world);
        if (my_group()) {
            CU_ASSERT_NOT_EQUAL(commit_block(output, group, 4), SNRQ_OK);
            CU_ASSERT_FALSE(file_exists(inside("block-00004.h5")));
            CU_ASSERT_EQUAL(rmdir(inside("block-00004.h5.record")), 0);
            assert_ok(commit_block(output, group, 4));
            assert_failed(commit_block(output, group, 4), SNRQ_INTERNAL, "committed before");
        }
        /* The job has lost its lock: its groups stop, too. */
        snrq_barrier(rank_test_world);
        write_lock("elsewhere", 2, (long long)time(NULL));
        int own = my_group() ? 5 : 0;
        assert_failed(commit_block(output, group, own), SNRQ_CANNOT_WRITE, "somebody else's");
        snrq_barrier(rank_test_world);
        CU_ASSERT_FALSE(file_exists(inside("block-00000.h5")));
        assert_failed(snrq_output_merge(output), SNRQ_CANNOT_WRITE, "somebody else's");
    }
    snrq_output_close(&output);
    rank_files_end();
    json_decref(block);
    snrq_context_destroy(&group);
}

/* Keeps what stands for activations after a block. */
static void keep(snrq_output *output, const snrq_context *context, snrq_range blocks, int64_t block)
{
    char name[40];
    snrq_output_kept_name(block, name);
    if (context->rank == 0) {
        FILE *file = fopen(snrq_output_temporary(output, name), "w");
        CU_ASSERT_FALSE(file == NULL || fclose(file) != 0);
    }
    snrq_barrier(context);
    assert_ok(snrq_output_keep(output, context, blocks, block));
}

static void groups_keep_activations_of_their_own_blocks(void)
{
    snrq_context *group = make_groups();
    snrq_output *output = NULL;
    int64_t last = 0;
    bool alone = rank_test_world->size == 1;
    snrq_range mine = my_group() ? (snrq_range){3, 6} : (snrq_range){0, 3}, second = {3, 6};
    begin();
    assert_ok(open_output(3, &output));
    for (int64_t i = 0; i < 2; i++) {
        keep(output, group, mine, mine.begin + i);
        if (alone) keep(output, group, second, second.begin + i);
        snrq_barrier(rank_test_world);
    }
    CU_ASSERT_FALSE(file_exists(inside("activations-00000.h5")));
    CU_ASSERT_TRUE(file_exists(inside("activations-00001.h5")));
    CU_ASSERT_FALSE(file_exists(inside("activations-00003.h5")));
    CU_ASSERT_TRUE(file_exists(inside("activations-00004.h5")));
    snrq_barrier(rank_test_world);
    assert_ok(snrq_output_kept(output, group, mine, &last));
    CU_ASSERT_EQUAL(last, mine.begin + 1);
    assert_ok(snrq_output_kept(output, group, (snrq_range){0, 1}, &last));
    CU_ASSERT_EQUAL(last, -1);
    snrq_barrier(rank_test_world);
    assert_ok(snrq_output_drop_kept(output, rank_test_world, second));
    CU_ASSERT_TRUE(file_exists(inside("activations-00001.h5")));
    CU_ASSERT_FALSE(file_exists(inside("activations-00004.h5")));
    snrq_output_close(&output);
    rank_files_end();
    snrq_context_destroy(&group);
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(committed_files_are_there_after_reopening),
        SNRQ_TEST(a_finished_run_is_complete),
        SNRQ_TEST(a_file_without_record_gets_no_name),
        SNRQ_TEST(leftovers_are_removed_and_strangers_kept),
        SNRQ_TEST(a_torn_last_line_is_dropped),
        SNRQ_TEST(another_configuration_is_refused_by_key),
        SNRQ_TEST(unusable_directories_say_why),
        SNRQ_TEST(locks_keep_others_out_while_they_live),
        SNRQ_TEST(model_files_are_copied_once),
        SNRQ_TEST(logs_are_written_by_one_rank),
        SNRQ_TEST(any_flipped_bit_is_found_and_named),
        SNRQ_TEST(missing_and_extra_files_are_found),
        SNRQ_TEST(no_timing_of_groups_changes_the_manifest),
        SNRQ_TEST(groups_commit_without_waiting),
        SNRQ_TEST(killed_groups_go_on_where_they_were),
        SNRQ_TEST(what_a_kill_leaves_of_a_groups_commit_is_sorted_out),
        SNRQ_TEST(records_apart_are_checked_like_the_manifest),
        SNRQ_TEST(groups_commit_blocks_and_nothing_else),
        SNRQ_TEST(groups_keep_activations_of_their_own_blocks),
    };
    return rank_test_main(argc, argv, "output", tests, sizeof tests / sizeof *tests);
}
