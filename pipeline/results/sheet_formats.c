/* Writing a sheet; see sheet.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/results/sheet.h"

/* Characters of UTF-8: bytes that begin one. */
static int width_of(const char *text)
{
    int width = 0;
    for (const char *at = text; *at != '\0'; at++) width += ((unsigned char)*at & 0xC0) != 0x80;
    return width;
}

static bool is_control(char c)
{
    return (unsigned char)c < ' ' || c == 0x7f;
}

static const snrq_sheet_cell *cell_at(const snrq_sheet *s, int64_t row, int column)
{
    return &s->cell[row * s->columns + column];
}

/* ---- plain text ---- */

static void put_padded(const char *text, int width, bool left, FILE *f)
{
    int here = width_of(text), blanks = width > here ? width - here : 0;
    if (!left) fprintf(f, "%*s", blanks, "");
    for (const char *at = text; *at != '\0'; at++) fputc(is_control(*at) ? ' ' : *at, f);
    if (left) fprintf(f, "%*s", blanks, "");
}

static int widest(const snrq_sheet *s, int column)
{
    int width = width_of(s->column[column].name);
    for (int64_t r = 0; r < snrq_sheet_rows(s); r++) {
        int here = width_of(cell_at(s, r, column)->text);
        width = here > width ? here : width;
    }
    return width;
}

/* row -1: the names. */
static const char *text_at(const snrq_sheet *s, int64_t row, int column)
{
    return row < 0 ? s->column[column].name : cell_at(s, row, column)->text;
}

/* A star stands beside the figures, which stay below each other. */
static bool has_star(const snrq_sheet *s, int column)
{
    for (int64_t r = 0; r < snrq_sheet_rows(s); r++) {
        const char *text = cell_at(s, r, column)->text;
        size_t length = strlen(text);
        if (length > 2 && strcmp(text + length - 2, " *") == 0) return true;
    }
    return false;
}

static void put_aligned(const char *text, int width, bool left, bool starred, FILE *f)
{
    size_t length = strlen(text);
    bool star = length > 2 && strcmp(text + length - 2, " *") == 0;
    put_padded(text, starred && !star ? width - 2 : width, left, f);
    if (starred && !star) fputs("  ", f);
}

static void write_plain(const snrq_sheet *s, FILE *f)
{
    fprintf(f, "%s\n\n", s->title);
    for (int64_t r = -1; r < snrq_sheet_rows(s); r++) {
        for (int c = 0; c < s->columns; c++) {
            bool left = s->column[c].kind == SNRQ_SHEET_TEXT, last = c + 1 == s->columns;
            put_aligned(text_at(s, r, c), last && left ? 0 : widest(s, c), left,
                        !left && has_star(s, c), f);
            fputs(last ? "\n" : "  ", f);
        }
    }
    for (int n = 0; n < s->notes; n++) fprintf(f, "%s%s\n", n == 0 ? "\n" : "", s->note[n]);
}

/* ---- Markdown ---- */

/* What Markdown, or HTML within it, would take for its own. */
static void put_markdown(const char *text, FILE *f)
{
    for (const char *at = text; *at != '\0'; at++) {
        if (strchr("\\`*_[]<>|#&", *at) != NULL) fputc('\\', f);
        fputc(is_control(*at) ? ' ' : *at, f);
    }
}

static void write_markdown(const snrq_sheet *s, FILE *f)
{
    fputs("## ", f);
    put_markdown(s->title, f);
    fputs("\n\n", f);
    for (int64_t r = -1; r < snrq_sheet_rows(s); r++) {
        for (int c = 0; c < s->columns; c++) {
            fputs(c == 0 ? "| " : " | ", f);
            put_markdown(text_at(s, r, c), f);
        }
        fputs(" |\n", f);
        for (int c = 0; c < s->columns && r < 0; c++)
            fprintf(f, "|%s", s->column[c].kind == SNRQ_SHEET_TEXT ? "---" : "---:");
        if (r < 0) fputs("|\n", f);
    }
    for (int n = 0; n < s->notes; n++) {
        fputs("\n", f);
        put_markdown(s->note[n], f);
        fputs("\n", f);
    }
}

/* ---- TSV ---- */

static void put_tsv(const char *text, FILE *f)
{
    for (const char *at = text; *at != '\0'; at++) fputc(is_control(*at) ? ' ' : *at, f);
}

static void put_value(double value, bool there, FILE *f)
{
    if (there && !isnan(value)) fprintf(f, "%.10g", value);
}

static void write_tsv(const snrq_sheet *s, FILE *f)
{
    for (int64_t r = -1; r < snrq_sheet_rows(s); r++) {
        for (int c = 0; c < s->columns; c++) {
            snrq_sheet_kind kind = s->column[c].kind;
            if (c > 0) fputc('\t', f);
            if (r < 0 || kind == SNRQ_SHEET_TEXT) put_tsv(text_at(s, r, c), f);
            if (r < 0 && kind == SNRQ_SHEET_SPREAD) {
                const char *name = s->column[c].name;
                fprintf(f, "\t%s_sd\t%s_n", name, name);
            }
            if (r < 0 || kind == SNRQ_SHEET_TEXT) continue;
            const snrq_spread *value = &cell_at(s, r, c)->value;
            put_value(value->mean, value->count > 0, f);
            if (kind != SNRQ_SHEET_SPREAD) continue;
            fputc('\t', f);
            put_value(value->sd, value->count > 0, f);
            fprintf(f, "\t%d", value->count);
        }
        fputc('\n', f);
    }
}

/* ---- LaTeX ---- */

void snrq_latex_escape(const char *text, FILE *f)
{
    for (const char *at = text; *at != '\0'; at++) {
        if (strncmp(at, "±", strlen("±")) == 0) {
            fputs("$\\pm$", f);
            at += strlen("±") - 1;
        } else if (*at == '\\') {
            fputs("\\textbackslash{}", f);
        } else if (*at == '~' || *at == '^') {
            fprintf(f, "\\%c{}", *at);
        } else {
            if (strchr("#$%&_{}", *at) != NULL) fputc('\\', f);
            fputc(is_control(*at) ? ' ' : *at, f);
        }
    }
}

static void write_latex(const snrq_sheet *s, FILE *f)
{
    fputs("\\begin{table}\n\\centering\n\\caption{", f);
    snrq_latex_escape(s->title, f);
    fputs("}\n\\begin{tabular}{", f);
    for (int c = 0; c < s->columns; c++) fputc(s->column[c].kind == SNRQ_SHEET_TEXT ? 'l' : 'r', f);
    fputs("}\n\\hline\n", f);
    for (int64_t r = -1; r < snrq_sheet_rows(s); r++) {
        for (int c = 0; c < s->columns; c++) {
            if (c > 0) fputs(" & ", f);
            snrq_latex_escape(text_at(s, r, c), f);
        }
        fputs(" \\\\\n", f);
        if (r < 0) fputs("\\hline\n", f);
    }
    fputs("\\hline\n\\end{tabular}\n", f);
    for (int n = 0; n < s->notes; n++) {
        fputs("\\par\\footnotesize ", f);
        snrq_latex_escape(s->note[n], f);
        fputs("\n", f);
    }
    fputs("\\end{table}\n", f);
}

/* ---- HTML ---- */

void snrq_html_escape(const char *text, FILE *f)
{
    for (const char *at = text; *at != '\0'; at++) {
        const char *name = *at == '<'   ? "&lt;"
                           : *at == '>' ? "&gt;"
                           : *at == '&' ? "&amp;"
                           : *at == '"' ? "&quot;"
                                        : NULL;
        if (name != NULL)
            fputs(name, f);
        else
            fputc(is_control(*at) ? ' ' : *at, f);
    }
}

static void write_html(const snrq_sheet *s, FILE *f)
{
    fputs("<h2>", f);
    snrq_html_escape(s->title, f);
    fputs("</h2>\n<table>\n", f);
    for (int64_t r = -1; r < snrq_sheet_rows(s); r++) {
        const char *tag = r < 0 ? "th" : "td";
        fputs("<tr>", f);
        for (int c = 0; c < s->columns; c++) {
            fprintf(f, "<%s%s>", tag, s->column[c].kind == SNRQ_SHEET_TEXT ? "" : " class=\"n\"");
            snrq_html_escape(text_at(s, r, c), f);
            fprintf(f, "</%s>", tag);
        }
        fputs("</tr>\n", f);
    }
    fputs("</table>\n", f);
    for (int n = 0; n < s->notes; n++) {
        fputs("<p>", f);
        snrq_html_escape(s->note[n], f);
        fputs("</p>\n", f);
    }
}

snrq_status snrq_sheet_write(const snrq_sheet *s, snrq_sheet_format format, FILE *f)
{
    if (s->failed || (s->columns > 0 && s->cells % s->columns != 0))
        return snrq_fail(SNRQ_INTERNAL, "no memory for a table of the report");
    switch (format) {
    case SNRQ_SHEET_PLAIN:
        write_plain(s, f);
        break;
    case SNRQ_SHEET_MARKDOWN:
        write_markdown(s, f);
        break;
    case SNRQ_SHEET_TSV:
        write_tsv(s, f);
        break;
    case SNRQ_SHEET_LATEX:
        write_latex(s, f);
        break;
    case SNRQ_SHEET_HTML:
        write_html(s, f);
        break;
    }
    return SNRQ_OK;
}
