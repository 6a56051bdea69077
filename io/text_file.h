/* The bytes of a text file, one piece after the other. A gzip file is known by its first bytes,
 * whatever its name is, and unpacked on the way: several members follow each other, zeros after the
 * last one are padding.
 *
 * Nothing in a file is trusted: one that is cut, damaged, followed by something else, larger than a
 * limit or packed more tightly than any text is refused. Memory: buffers of fixed size.
 */
#ifndef SNRQ_TEXT_FILE_H
#define SNRQ_TEXT_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "mpi/status.h"

typedef struct snrq_text_file snrq_text_file;

/* Opens a regular file for a text of at most `limit` bytes (unpacked). `path` is borrowed until it
 * is closed. Not collective. As snrq_file_open(); SNRQ_BAD_DATA if it is larger than `limit`. */
snrq_status snrq_text_file_open(const char *path, uint64_t limit, snrq_text_file **out);
void snrq_text_file_close(snrq_text_file **file);

/* Is it gzip? And how many bytes does the file have as it is stored? */
bool snrq_text_file_packed(const snrq_text_file *file);
uint64_t snrq_text_file_bytes(const snrq_text_file *file);

/* Reads the next bytes of the text: `room` of them, fewer only at its end, 0 after it.
 * SNRQ_BAD_DATA names the file and the byte of it where it went wrong. */
snrq_status snrq_text_file_read(snrq_text_file *file, void *out, size_t room, size_t *got);

#endif
