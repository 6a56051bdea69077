/* Reports as files; see document.h. */
#include "pipeline/results/document.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/directory.h"
#include "io/file.h"
#include "pipeline/results/gnuplot.h"

enum { MOST_SVG = 64 << 20, WHY = 160 };

void snrq_document_create(const char *title, snrq_document *d)
{
    *d = (snrq_document){.title = strdup(title)};
    d->failed = d->title == NULL;
}

void snrq_document_free(snrq_document *d)
{
    for (int p = 0; p < d->parts; p++) {
        snrq_sheet_free(&d->part[p].sheet);
        snrq_picture_free(&d->part[p].picture);
    }
    for (int l = 0; l < d->lines; l++) free(d->line[l]);
    free(d->line);
    free(d->part);
    free(d->title);
    *d = (snrq_document){0};
}

void snrq_document_say(snrq_document *d, const char *format, ...)
{
    char text[4096], **more = realloc(d->line, ((size_t)d->lines + 1) * sizeof *more);
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    if (more != NULL) d->line = more;
    char *copy = more != NULL ? strdup(text) : NULL;
    if (copy != NULL)
        d->line[d->lines++] = copy;
    else
        d->failed = true;
}

static snrq_document_part *add_part(snrq_document *d)
{
    snrq_document_part *more = realloc(d->part, ((size_t)d->parts + 1) * sizeof *more);
    if (more == NULL) {
        d->failed = true;
        return NULL;
    }
    d->part = more;
    d->part[d->parts] = (snrq_document_part){0};
    return &d->part[d->parts++];
}

snrq_sheet *snrq_document_sheet(snrq_document *d, const char *name, const char *title)
{
    snrq_document_part *part = add_part(d);
    if (part == NULL) return NULL;
    snrq_sheet_create(name, title, &part->sheet);
    return &part->sheet;
}

snrq_picture *snrq_document_picture(snrq_document *d, const char *name, const char *title,
                                    const char *x, const char *y)
{
    snrq_document_part *part = add_part(d);
    if (part == NULL) return NULL;
    part->has_picture = true;
    snrq_picture_create(name, title, x, y, &part->picture);
    return &part->picture;
}

void snrq_document_detail(snrq_document *d)
{
    if (d->parts > 0) d->part[d->parts - 1].detail = true;
}

void snrq_document_close(snrq_document *d)
{
    int kept = 0;
    for (int p = 0; p < d->parts; p++) {
        snrq_document_part *part = &d->part[p];
        if (part->has_picture && snrq_picture_is_empty(&part->picture)) {
            d->failed |= part->picture.failed;
            snrq_picture_free(&part->picture);
            continue;
        }
        if (part->has_picture) snrq_picture_sheet(&part->picture, &part->sheet);
        part->detail |= part->has_picture;
        d->part[kept++] = *part;
    }
    d->parts = kept;
}

static snrq_status write_text(const snrq_document *d, bool details, snrq_sheet_format format,
                              FILE *f)
{
    const char *mark = format == SNRQ_SHEET_MARKDOWN ? "# " : "";
    fprintf(f, "%s%s\n", mark, d->title);
    for (int l = 0; l < d->lines; l++) fprintf(f, "%s%s\n", l == 0 ? "\n" : "", d->line[l]);
    for (int p = 0; p < d->parts; p++) {
        if (d->part[p].detail && !details) continue;
        fputs("\n", f);
        SNRQ_TRY(snrq_sheet_write(&d->part[p].sheet, format, f));
    }
    return SNRQ_OK;
}

static snrq_status write_latex(const snrq_document *d, FILE *f)
{
    fputs("% Tables of a report, to be read with \\input.\n", f);
    for (int p = 0; p < d->parts; p++) {
        fputs("\n", f);
        SNRQ_TRY(snrq_sheet_write(&d->part[p].sheet, SNRQ_SHEET_LATEX, f));
    }
    return SNRQ_OK;
}

snrq_status snrq_document_print(const snrq_document *d, FILE *f)
{
    if (d->failed) return snrq_fail(SNRQ_INTERNAL, "no memory for the report");
    return write_text(d, false, SNRQ_SHEET_PLAIN, f);
}

/* ---- the page ---- */

static void put_base64(const char *data, size_t bytes, FILE *f)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < bytes; i += 3) {
        unsigned value = 0;
        for (size_t k = 0; k < 3; k++)
            value = value << 8 | (i + k < bytes ? (unsigned char)data[i + k] : 0u);
        for (size_t k = 0; k < 4; k++)
            fputc(i + k <= bytes ? digits[value >> (18 - 6 * k) & 63u] : '=', f);
    }
}

/* The picture as an image within the page, if it was drawn; `alt` says what it shows. */
static snrq_status put_image(const char *directory, const snrq_picture *picture, FILE *f)
{
    char path[PATH_MAX], name[160], *svg = NULL;
    size_t bytes = 0;
    snprintf(name, sizeof name, "%s.svg", picture->name);
    SNRQ_TRY(snrq_path_join(directory, name, path, sizeof path));
    SNRQ_TRY(snrq_file_read(path, MOST_SVG, &svg, &bytes));
    fputs("<p><img alt=\"", f);
    snrq_html_escape(picture->title, f);
    fputs("\" src=\"data:image/svg+xml;base64,", f);
    put_base64(svg, bytes, f);
    fputs("\"></p>\n", f);
    free(svg);
    return SNRQ_OK;
}

static const char head[] =
    "<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n"
    "<style>\nbody { font-family: sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; "
    "}\n"
    "table { border-collapse: collapse; } th, td { padding: 0.2em 0.7em; text-align: left; "
    "border-bottom: 1px solid #ccc; }\n"
    "th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; }\n"
    "tr:first-child th { border-bottom: 2px solid #000; } img { max-width: 100%; }\n"
    "</style>\n";

static snrq_status write_html(const snrq_document *d, const char *directory, bool drawn,
                              const char *why, FILE *f)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<title>", f);
    snrq_html_escape(d->title, f);
    fprintf(f, "</title>\n%s</head>\n<body>\n<h1>", head);
    snrq_html_escape(d->title, f);
    fputs("</h1>\n", f);
    for (int l = 0; l < d->lines + !drawn; l++) {
        fputs("<p>", f);
        snrq_html_escape(l < d->lines ? d->line[l] : why, f);
        fputs("</p>\n", f);
    }
    for (int p = 0; p < d->parts; p++) {
        const snrq_document_part *part = &d->part[p];
        if (part->has_picture && drawn) SNRQ_TRY(put_image(directory, &part->picture, f));
        if (part->detail)
            fprintf(f, "<details><summary>%s</summary>\n",
                    part->has_picture ? "the numbers" : "all of them");
        SNRQ_TRY(snrq_sheet_write(&part->sheet, SNRQ_SHEET_HTML, f));
        if (part->detail) fputs("</details>\n", f);
    }
    fputs("</body>\n</html>\n", f);
    return SNRQ_OK;
}

/* ---- the files ---- */

/* What a file of the report holds. */
typedef struct content {
    const snrq_document *document;
    const char *directory;
    int part; /* of .tsv and .gp */
    bool drawn;
    const char *why;
} content;

static snrq_status put_content(const content *c, const char *name, FILE *f)
{
    const snrq_document_part *part = &c->document->part[c->part];
    if (snrq_ends_with(name, ".tsv")) return snrq_sheet_write(&part->sheet, SNRQ_SHEET_TSV, f);
    if (snrq_ends_with(name, ".gp")) return snrq_picture_script(&part->picture, f);
    if (snrq_ends_with(name, ".txt")) return write_text(c->document, true, SNRQ_SHEET_PLAIN, f);
    if (snrq_ends_with(name, ".md")) return write_text(c->document, true, SNRQ_SHEET_MARKDOWN, f);
    if (snrq_ends_with(name, ".tex")) return write_latex(c->document, f);
    return write_html(c->document, c->directory, c->drawn, c->why, f);
}

static snrq_status write_file(const content *c, const char *name)
{
    char path[PATH_MAX], *text = NULL;
    size_t bytes = 0;
    SNRQ_TRY(snrq_path_join(c->directory, name, path, sizeof path));
    FILE *f = open_memstream(&text, &bytes);
    if (f == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for %s", path);
    snrq_status status = put_content(c, name, f);
    if (fclose(f) != 0 && status == SNRQ_OK)
        status = snrq_fail(SNRQ_INTERNAL, "no memory for %s", path);
    if (status == SNRQ_OK) status = snrq_file_replace(path, text, bytes);
    free(text);
    return status;
}

/* The files of a part; a picture of an earlier report must not stand for this one. */
static snrq_status write_part(const content *c)
{
    const snrq_document_part *part = &c->document->part[c->part];
    char name[160], path[PATH_MAX];
    snprintf(name, sizeof name, "%s.tsv", part->sheet.name);
    SNRQ_TRY(write_file(c, name));
    if (!part->has_picture) return SNRQ_OK;
    snprintf(name, sizeof name, "%s.svg", part->sheet.name);
    SNRQ_TRY(snrq_path_join(c->directory, name, path, sizeof path));
    if (unlink(path) != 0 && errno != ENOENT)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s cannot be replaced: %s", path, strerror(errno));
    snprintf(name, sizeof name, "%s.gp", part->sheet.name);
    return write_file(c, name);
}

static snrq_status draw(const content *c, bool *drawn, char why[WHY])
{
    char name[160];
    *drawn = true;
    for (int p = 0; p < c->document->parts && *drawn; p++) {
        if (!c->document->part[p].has_picture) continue;
        snprintf(name, sizeof name, "%s.gp", c->document->part[p].sheet.name);
        SNRQ_TRY(snrq_gnuplot_run(c->directory, name, drawn, why, WHY));
    }
    return SNRQ_OK;
}

snrq_status snrq_document_write(const snrq_document *d, const char *directory, bool *drawn,
                                char why[WHY])
{
    static const char *const whole[] = {"report.txt", "report.md", "report.tex", "report.html"};
    content c = {.document = d, .directory = directory, .why = why};
    if (d->failed) return snrq_fail(SNRQ_INTERNAL, "no memory for the report");
    SNRQ_TRY(snrq_directory_make(directory));
    for (c.part = 0; c.part < d->parts; c.part++) SNRQ_TRY(write_part(&c));
    SNRQ_TRY(draw(&c, drawn, why));
    c.part = 0;
    c.drawn = *drawn;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) SNRQ_TRY(write_file(&c, whole[i]));
    return SNRQ_OK;
}
