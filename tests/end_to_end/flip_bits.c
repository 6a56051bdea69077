/* Inverts every bit of every committed file of an output directory, and cuts every file to every
 * shorter length, one after the other: what `snrq verify` and a resumed run look at must name that
 * file each time.   flip_bits OUT STRIDE
 *
 *   data files       every bit and length: the check of a file against its record, which both use;
 *                    every STRIDE-th bit and length: all of verify, and opening the directory as a
 *                    resumed run does
 *   snrq.json,       every bit and length: both in full
 *   manifest.jsonl
 *
 * One damage is not an error when a run resumes: a last line without its newline is what a crash
 * leaves behind, and whole lines that are missing are what it leaves before they are written. The
 * run must then know exactly the files of the lines that are left, and remove the others.
 *
 * Prints a JSON object with the number of damages per file; 0 if each was found and named. OUT is
 * as it was at the end.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/checkpoint/manifest.h"
#include "io/checkpoint/output_internal.h"
#include "io/checkpoint/reader.h"
#include "io/file.h"
#include "mpi/context.h"

enum { MAX_FILES = 32, MAX_COMPLAINTS = 20 };

/* What was there before anything was damaged. */
struct file {
    const char *name;     /* borrowed */
    const json_t *record; /* NULL: one of the directory's own files */
    char path[PATH_MAX];
    char *data;
    size_t bytes;
};

static snrq_context *context;
static const char *directory;
static snrq_output_facts output_facts;
static struct file files[MAX_FILES];
static int count, complaints;
static long long stride, verified, resumed;

/* The damage under test. */
static const struct file *damaged;
static size_t place; /* of the byte, or the length that is left */
static int bit;      /* -1: cut */

static void must(bool holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "flip_bits: %s: %s\n", what, snrq_error_message());
    exit(1);
}

static void complain(const char *who, const char *found)
{
    fprintf(stderr, "%s, byte %zu, bit %d: %s: %s\n", damaged->name, place, bit, who, found);
    if (++complaints == MAX_COMPLAINTS) exit(1);
}

static void remember(const char *name, const json_t *record)
{
    struct file *f = &files[count++];
    must(count < MAX_FILES, "too many files");
    *f = (struct file){.name = name, .record = record};
    must(snrq_path_join(directory, name, f->path, sizeof f->path) == SNRQ_OK &&
             snrq_file_read(f->path, 1 << 24, &f->data, &f->bytes) == SNRQ_OK,
         name);
}

static void put_back(const struct file *f)
{
    FILE *stream = fopen(f->path, "wb");
    must(stream != NULL && fwrite(f->data, 1, f->bytes, stream) == f->bytes && fclose(stream) == 0,
         f->path);
}

static void put_all_back(void)
{
    for (int i = 0; i < count; i++) put_back(&files[i]);
}

/* One byte of the damaged file. */
static void poke(char byte)
{
    FILE *stream = fopen(damaged->path, "r+b");
    must(stream != NULL && fseek(stream, (long)place, SEEK_SET) == 0 &&
             fputc((unsigned char)byte, stream) != EOF && fclose(stream) == 0,
         damaged->path);
}

/* The three checks. */

static void expect_named(const char *who, snrq_status status)
{
    if (status != SNRQ_BAD_DATA)
        complain(who, status == SNRQ_OK ? "found nothing" : snrq_error_message());
    else if (strstr(snrq_error_message(), damaged->name) == NULL)
        complain(who, snrq_error_message());
}

static void report(void *named, const char *file, const char *problem)
{
    if (problem != NULL && strcmp(file, damaged->name) == 0) *(bool *)named = true;
}

static void expect_verify_names_it(void)
{
    bool named = false;
    verified++;
    if (snrq_output_verify(directory, report, &named) != SNRQ_BAD_DATA || !named)
        complain("verify", named ? "names it, but succeeds" : "does not name it");
}

/* Lines that the damaged manifest still has in full. */
static size_t lines_left(void)
{
    size_t lines = 0, end = bit < 0 ? place : place == damaged->bytes - 1 ? place : 0;
    for (size_t i = 0; i < end; i++) lines += damaged->data[i] == '\n';
    return lines;
}

static void expect_resume_knows(const snrq_output *output, size_t lines)
{
    if (json_array_size(output->records) != lines) complain("resume", "has other records");
    for (int i = 0; i < count; i++) {
        const char *name = files[i].name;
        bool known = snrq_output_record(output, name) != NULL;
        if (strstr(name, ".h5") != NULL && known != (access(files[i].path, F_OK) == 0))
            complain("resume", known ? "lost a file" : "keeps a file without a record");
    }
}

static void expect_resume_names_it(void)
{
    snrq_output *output = NULL;
    bool last_lines =
        strcmp(damaged->name, "manifest.jsonl") == 0 && (bit < 0 || place == damaged->bytes - 1);
    snrq_status status = snrq_output_open(context, directory, output_facts.configuration, &output);
    resumed++;
    if (last_lines && status == SNRQ_OK)
        expect_resume_knows(output, lines_left());
    else
        expect_named("resume", status);
    snrq_output_close(&output);
    if (status == SNRQ_OK) put_all_back();
}

static void check_damage(long long number)
{
    bool own = damaged->record == NULL;
    if (!own) expect_named("check of a file", snrq_output_check_file(directory, damaged->record));
    if (!own && number % stride != 0) return;
    expect_verify_names_it();
    expect_resume_names_it();
}

static void flip_all(void)
{
    long long number = 0;
    for (place = 0; place < damaged->bytes; place++)
        for (bit = 0; bit < 8; bit++) {
            poke((char)(damaged->data[place] ^ (1 << bit)));
            check_damage(number++);
            poke(damaged->data[place]);
        }
}

static void cut_all(void)
{
    long long number = 0;
    bit = -1;
    for (place = damaged->bytes; place-- > 0;) {
        must(truncate(damaged->path, (off_t)place) == 0, damaged->path);
        check_damage(number++);
        if (access(damaged->path, F_OK) != 0) complain("resume", "removed it");
    }
    put_back(damaged);
}

static void sweep(void)
{
    json_t *facts = json_object();
    must(snrq_output_read(directory, &output_facts) == SNRQ_OK, directory);
    const json_t *records = output_facts.records;
    remember("snrq.json", NULL);
    remember("manifest.jsonl", NULL);
    for (size_t i = 0; i < json_array_size(records); i++) {
        const json_t *record = json_array_get(records, i);
        const char *name = json_string_value(json_object_get(record, "file"));
        if (name != NULL) remember(name, record);
    }
    must(snrq_output_verify(directory, NULL, NULL) == SNRQ_OK, "before anything is damaged");
    for (int i = 0; i < count; i++) {
        damaged = &files[i];
        flip_all();
        cut_all();
        json_object_set_new(facts, damaged->name,
                            json_pack("{s:I, s:I}", "bits", (json_int_t)damaged->bytes * 8,
                                      "lengths", (json_int_t)damaged->bytes));
    }
    must(snrq_output_verify(directory, NULL, NULL) == SNRQ_OK, "after everything was put back");
    json_t *all = json_pack("{s:o, s:I, s:I}", "files", facts, "verified", (json_int_t)verified,
                            "resumed", (json_int_t)resumed);
    json_dumpf(all, stdout, JSON_COMPACT);
    json_decref(all);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    must(argc == 3 && snrq_context_create(MPI_COMM_WORLD, &context) == SNRQ_OK, "OUT STRIDE");
    directory = argv[1];
    stride = strtoll(argv[2], NULL, 10);
    must(stride > 0, "STRIDE is not positive");
    sweep();
    for (int i = 0; i < count; i++) free(files[i].data);
    snrq_output_facts_free(&output_facts);
    snrq_context_destroy(&context);
    MPI_Finalize();
    return complaints > 0;
}
