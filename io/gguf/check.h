/* Reading a GGUF file to check it: its own parser and its own reading of the GGUF blocks, written
 * from the description of the format. It shares no code with writer.c and
 * blocks.c, so that a mistake there cannot hide here.
 *
 * A file is not trusted: every length is compared with what is left of the file before it is
 * used, and the places of tensors must be exactly what the format says. Types that snrq does
 * not write are refused. Nothing is collective. */
#ifndef SNRQ_GGUF_CHECK_H
#define SNRQ_GGUF_CHECK_H

#include <stdint.h>

#include "mpi/status.h"

typedef struct snrq_gguf_tensor {
    char name[64];
    const char *type;      /* "Q4_0", ... */
    int kind;              /* place of the type in the reader's table */
    int64_t rows, columns; /* of a vector: 1 and its elements */
    int dimensions;
    uint64_t offset, row_bytes; /* offset in the file */
} snrq_gguf_tensor;

typedef struct snrq_gguf_file snrq_gguf_file;

/* SNRQ_NO_INPUT if there is no such file, SNRQ_BAD_DATA if a rule is violated (message: file,
 * place, expected, found). */
snrq_status snrq_gguf_file_open(const char *path, snrq_gguf_file **out);
void snrq_gguf_file_close(snrq_gguf_file **file);

/* The tensors in the order of the file; one by name, or NULL. Borrowed. */
int64_t snrq_gguf_file_count(const snrq_gguf_file *file);
const snrq_gguf_tensor *snrq_gguf_file_at(const snrq_gguf_file *file, int64_t index);
const snrq_gguf_tensor *snrq_gguf_file_find(const snrq_gguf_file *file, const char *name);

/* The value of a key that must be there: a number or boolean, a text (cut off at `size`), the
 * number of elements of an array. SNRQ_BAD_DATA if it is missing or of another kind. */
snrq_status snrq_gguf_file_number(const snrq_gguf_file *file, const char *key, double *out);
snrq_status snrq_gguf_file_text(const snrq_gguf_file *file, const char *key, char *out,
                                size_t size);
snrq_status snrq_gguf_file_elements(const snrq_gguf_file *file, const char *key, int64_t *out);

/* Compares the file's bytes from `at` on with `expected` [bytes]; *same tells the number of equal
 * bytes before the first that differs, `bytes` if none does. */
snrq_status snrq_gguf_file_compare(const snrq_gguf_file *file, uint64_t at,
                                   const unsigned char *expected, size_t bytes, size_t *same);

/* What byte `at` of the file belongs to: "key tokenizer.ggml.tokens", "tensor NAME", ... */
void snrq_gguf_file_place(const snrq_gguf_file *file, uint64_t at, char *out, size_t size);

/* All bytes between the tensors' data and behind them must be 0. SNRQ_BAD_DATA names the first that
 * is not. */
snrq_status snrq_gguf_file_check_padding(const snrq_gguf_file *file);

/* Rows [first, first + rows) as floats [rows, columns], computed as the format defines. */
snrq_status snrq_gguf_file_read(const snrq_gguf_file *file, const snrq_gguf_tensor *tensor,
                                int64_t first, int64_t rows, float *out);

#endif
