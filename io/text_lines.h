/* A text file in memory: as a whole, or line by line. Not collective.
 *
 * It may be gzip (text_file.h). A byte order mark at its beginning is no text and is left out.
 * Files of other kinds (UTF-16, Parquet, archives, ...) are refused, with what to do.
 *
 * Memory: a whole text is held; of lines, the longest one and a MiB.
 */
#ifndef SNRQ_TEXT_LINES_H
#define SNRQ_TEXT_LINES_H

#include <stdbool.h>
#include <stdint.h>

#include "mpi/status.h"

typedef struct snrq_text_lines snrq_text_lines;

/* Opens a file and looks at its beginning. `path` is borrowed until it is closed. SNRQ_BAD_DATA
 * names the file and what it is instead of a text; else as snrq_text_file_open(). */
snrq_status snrq_text_lines_open(const char *path, snrq_text_lines **out);
void snrq_text_lines_close(snrq_text_lines **lines);

bool snrq_text_lines_have_mark(const snrq_text_lines *lines);
/* Is its first line that is not empty a JSON object? As snrq_json_lines_detect(). */
snrq_status snrq_text_lines_detect_json(const snrq_text_lines *lines, bool *json);

/* The next line, without its line feed, and its number from 1 on; *line is NULL after the last. Its
 * bytes may be changed and are there until the next call. A text that ends with a line feed has no
 * line after it. */
snrq_status snrq_text_lines_next(snrq_text_lines *lines, char **line, size_t *bytes,
                                 int64_t *number);

/* All of it, instead of lines. Borrowed. */
snrq_status snrq_text_lines_all(snrq_text_lines *lines, const char **text, size_t *bytes);

#endif
