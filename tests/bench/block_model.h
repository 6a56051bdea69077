/* A model of one block of a named shape, on disk, with random weights: what bench_block reads. */
#ifndef SNRQ_BENCH_BLOCK_MODEL_H
#define SNRQ_BENCH_BLOCK_MODEL_H

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipeline/model/family.h"
#include "tests/bench/bench.h"

/* A block as its checkpoint describes it. */
typedef struct block_shape {
    const char *name;
    int64_t hidden, intermediate, heads, kv_heads, head_dim;
    int64_t tokens, length; /* that go through it by default, and in a sequence */
} block_shape;

static const block_shape block_shapes[] = {
    {"tiny", 128, 384, 4, 2, 32, 256, 32},       {"1B", 2048, 8192, 32, 8, 64, 4096, 512},
    {"3B", 3072, 8192, 24, 8, 128, 4096, 512},   {"8B", 4096, 14336, 32, 8, 128, 4096, 512},
    {"70B", 8192, 28672, 64, 8, 128, 4096, 512},
};
enum { BLOCK_SHAPES = sizeof block_shapes / sizeof *block_shapes, BLOCK_VOCABULARY = 64 };

static inline snrq_config block_config(const block_shape *p)
{
    return (snrq_config){
        .vocabulary = BLOCK_VOCABULARY,
        .hidden = p->hidden,
        .intermediate = p->intermediate,
        .layers = 1,
        .heads = p->heads,
        .kv_heads = p->kv_heads,
        .head_dim = p->head_dim,
        .value_dim = p->head_dim,
        .residual_scale = 1.0,
        .attention_scale = 1.0 / sqrt((double)p->head_dim),
        .max_positions = 2048,
        .tied_embeddings = true,
        .rms_norm_eps = 1e-5,
        .dtype = SNRQ_BF16,
        .rope = {.theta = 500000.0, .dimensions = p->head_dim, .attention_factor = 1.0}};
}

static inline void write_block_config(FILE *f, const block_shape *p)
{
    fprintf(f,
            "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
            "\"vocab_size\": %d, \"hidden_size\": %lld, \"intermediate_size\": %lld, "
            "\"num_hidden_layers\": 1, \"num_attention_heads\": %lld, "
            "\"num_key_value_heads\": %lld, \"head_dim\": %lld, \"hidden_act\": \"silu\", "
            "\"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-05, "
            "\"rope_theta\": 500000.0, \"tie_word_embeddings\": true, "
            "\"torch_dtype\": \"bfloat16\"}\n",
            BLOCK_VOCABULARY, (long long)p->hidden, (long long)p->intermediate, (long long)p->heads,
            (long long)p->kv_heads, (long long)p->head_dim);
}

/* One tensor of the header; *at is where its bytes begin. */
static inline void write_block_entry(FILE *f, const char *name, int64_t rows, int64_t columns,
                                     int64_t *at)
{
    long long bytes = 2 * (long long)(rows * (columns > 0 ? columns : 1));
    fprintf(f, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%lld", *at > 0 ? "," : "{", name,
            (long long)rows);
    if (columns > 0) fprintf(f, ",%lld", (long long)columns);
    fprintf(f, "],\"data_offsets\":[%lld,%lld]}", (long long)*at, (long long)*at + bytes);
    *at += bytes;
}

/* A random matrix; columns 0: a vector of ones. */
static inline void write_block_tensor(FILE *f, int64_t rows, int64_t columns, uint64_t *state)
{
    enum { PIECE = 4096 };
    uint16_t piece[PIECE];
    int64_t count = rows * (columns > 0 ? columns : 1);
    double size = columns > 0 ? 1.0 / sqrt((double)columns) : 0.0;
    for (int64_t done = 0; done < count; done += PIECE) {
        int64_t part = count - done < PIECE ? count - done : PIECE;
        for (int64_t i = 0; i < part; i++) {
            double x = bench_number(state) + bench_number(state) + bench_number(state);
            piece[i] = snrq_float_to_bf16(columns > 0 ? (float)(size * x) : 1.0f);
        }
        fwrite(piece, sizeof *piece, (size_t)part, f);
    }
}

static inline void write_block_weights(FILE *f, const block_shape *p, const snrq_family *family)
{
    char *header = NULL, name[160];
    size_t bytes = 0;
    int64_t at = 0;
    uint64_t state = 1;
    FILE *text = open_memstream(&header, &bytes);
    write_block_entry(text, "model.embed_tokens.weight", BLOCK_VOCABULARY, p->hidden, &at);
    write_block_entry(text, "model.norm.weight", p->hidden, 0, &at);
    for (int v = 0; v < family->vectors; v++) {
        snprintf(name, sizeof name, "model.layers.0.%s", family->vector[v].name);
        if (family->vector[v].count > 0)
            write_block_entry(text, name, family->vector[v].count, 0, &at);
    }
    for (int m = 0; m < family->modules; m++) {
        snprintf(name, sizeof name, "model.layers.0.%s.weight", family->module[m].name);
        write_block_entry(text, name, family->module[m].rows, family->module[m].columns, &at);
    }
    fputc('}', text);
    while (ftell(text) % 8 != 0) fputc(' ', text);
    fclose(text);
    for (int b = 0; b < 8; b++) fputc((int)(bytes >> (8 * b)) & 255, f);
    fwrite(header, 1, bytes, f);
    free(header);
    write_block_tensor(f, BLOCK_VOCABULARY, p->hidden, &state);
    write_block_tensor(f, p->hidden, 0, &state);
    for (int v = 0; v < family->vectors; v++)
        if (family->vector[v].count > 0) write_block_tensor(f, family->vector[v].count, 0, &state);
    for (int m = 0; m < family->modules; m++)
        write_block_tensor(f, family->module[m].rows, family->module[m].columns, &state);
}

/* Writes a file of the model with `write_block_config` or `write_block_weights`. */
static inline snrq_status write_block_model(const char *folder, const block_shape *p,
                                            const snrq_family *family)
{
    char path[4200];
    for (int weights = 0; weights < 2; weights++) {
        snprintf(path, sizeof path, "%s/%s", folder, weights ? "model.safetensors" : "config.json");
        FILE *f = fopen(path, "wb");
        if (f == NULL) return snrq_fail(SNRQ_CANNOT_WRITE, "%s cannot be written", path);
        if (weights)
            write_block_weights(f, p, family);
        else
            write_block_config(f, p);
        bool failed = ferror(f) != 0;
        failed = fclose(f) != 0 || failed;
        if (failed) return snrq_fail(SNRQ_CANNOT_WRITE, "%s cannot be written", path);
    }
    return SNRQ_OK;
}

/* Takes the model's bytes from the system's cache, so that they come from the disk again. Memory
 * that is a disk has no other place for them. */
static inline void forget_block_model(const char *folder)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    int file = open(path, O_RDONLY);
    if (file < 0) return;
    fsync(file);
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    close(file);
}

/* Removes all that is in a folder; takes `fd` over. */
static inline void empty_folder(int fd)
{
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (unlinkat(fd, e->d_name, 0) == 0) continue;
        empty_folder(openat(fd, e->d_name, O_RDONLY | O_DIRECTORY));
        unlinkat(fd, e->d_name, AT_REMOVEDIR);
    }
    if (d != NULL) closedir(d);
}

/* Removes a folder with all that is in it. */
static inline void remove_folder(const char *folder)
{
    empty_folder(open(folder, O_RDONLY | O_DIRECTORY));
    rmdir(folder);
}

#endif
