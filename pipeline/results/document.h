/* A report as files: its tables and pictures in every format, and one page of HTML that needs no
 * other file. Not collective. */
#ifndef SNRQ_DOCUMENT_H
#define SNRQ_DOCUMENT_H

#include "pipeline/results/picture.h"
#include "pipeline/results/sheet.h"

/* A table, or a picture with its table. */
typedef struct snrq_document_part {
    snrq_sheet sheet;
    bool has_picture, detail; /* detail: long, not for a terminal */
    snrq_picture picture;
} snrq_document_part;

typedef struct snrq_document {
    char *title; /* owned */
    char **line; /* [lines] what is said before the first table; owned */
    int lines;
    snrq_document_part *part; /* [parts] owned */
    int parts;
    bool failed;
} snrq_document;

/* The title is copied. */
void snrq_document_create(const char *title, snrq_document *out);
void snrq_document_free(snrq_document *document);

__attribute__((format(printf, 2, 3))) void snrq_document_say(snrq_document *document,
                                                             const char *format, ...);

/* Adds a table without columns, or a picture without series; the caller fills it before the next
 * one is added. NULL without memory, which is told when the document is written. Borrowed. */
snrq_sheet *snrq_document_sheet(snrq_document *document, const char *name, const char *title);
snrq_picture *snrq_document_picture(snrq_document *document, const char *name, const char *title,
                                    const char *x, const char *y);

/* What was added last is long: it is in the files, folded on the page, and not printed. */
void snrq_document_detail(snrq_document *document);

/* Makes the tables of the pictures; pictures without a point go. After it nothing is added. */
void snrq_document_close(snrq_document *document);

/* Prints it as text, without details and the tables of pictures. */
snrq_status snrq_document_print(const snrq_document *document, FILE *file);

/* Writes report.* in every format, NAME.tsv of every table, and NAME.gp and NAME.svg of every
 * picture into `directory`, which is made. Without gnuplot there are no pictures,
 * and *drawn is false; `why` then says what is missing. Each file is replaced at once.
 * SNRQ_CANNOT_WRITE or SNRQ_IO_ERROR. */
snrq_status snrq_document_write(const snrq_document *document, const char *directory, bool *drawn,
                                char why[160]);

#endif
