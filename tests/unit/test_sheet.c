/* Tables of results: figures over repeated runs, and text that means itself in every format. */
#include "pipeline/results/sheet.h"

#include <math.h>
#include <string.h>

#include "tests/snrq_test.h"

/* What a sheet is in a format; the caller frees it. */
static char *written(const snrq_sheet *sheet, snrq_sheet_format format)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    CU_ASSERT_EQUAL(snrq_sheet_write(sheet, format, f), SNRQ_OK);
    fclose(f);
    return text;
}

static void holds(const snrq_sheet *sheet, snrq_sheet_format format, const char *expected)
{
    char *text = written(sheet, format);
    if (strstr(text, expected) == NULL) {
        fprintf(stderr, "%s\nlacks %s\n", text, expected);
        CU_FAIL("the table lacks what it should hold");
    }
    free(text);
}

static void spread_is_mean_and_deviation_of_the_sample(void)
{
    snrq_spread s = {0}, one = {0}, none = {0};
    const double values[] = {2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) snrq_spread_add(&s, values[i]);
    snrq_spread_close(&s);
    CU_ASSERT_EQUAL(s.count, 8);
    CU_ASSERT_DOUBLE_EQUAL(s.mean, 5.0, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(s.sd, sqrt(32.0 / 7.0), 1e-12);
    snrq_spread_add(&one, 3.0);
    snrq_spread_close(&one);
    CU_ASSERT_EQUAL(one.mean, 3.0);
    CU_ASSERT_TRUE(isnan(one.sd));
    snrq_spread_close(&none);
    CU_ASSERT_EQUAL(none.count, 0);
}

/* A text column with everything that formats take for their own, and two kinds of figures. */
static snrq_sheet make(void)
{
    snrq_sheet s;
    const snrq_spread three = {1.25, 0.5, 3}, none = {0};
    snrq_sheet_create("name", "A & <b>", &s);
    snrq_sheet_column_add(&s, "what", SNRQ_SHEET_TEXT);
    snrq_sheet_column_add(&s, "n", SNRQ_SHEET_NUMBER);
    snrq_sheet_column_add(&s, "x", SNRQ_SHEET_SPREAD);
    snrq_sheet_text(&s, "a|b_c<d>&\"\t\\~%$");
    snrq_sheet_number(&s, 0.123456, 2);
    snrq_sheet_spread(&s, &three, 2, true);
    snrq_sheet_text(&s, "next");
    snrq_sheet_number(&s, NAN, 2);
    snrq_sheet_spread(&s, &none, 2, false);
    snrq_sheet_note(&s, "note %d", 7);
    return s;
}

static void text_means_itself_in_every_format(void)
{
    snrq_sheet s = make();
    CU_ASSERT_EQUAL(snrq_sheet_rows(&s), 2);
    holds(&s, SNRQ_SHEET_PLAIN, "a|b_c<d>&\" \\~%$");
    holds(&s, SNRQ_SHEET_MARKDOWN, "a\\|b\\_c\\<d\\>\\&\" \\\\~%$");
    holds(&s, SNRQ_SHEET_TSV, "a|b_c<d>&\" \\~%$\t");
    holds(&s, SNRQ_SHEET_LATEX, "a|b\\_c<d>\\&\" \\textbackslash{}\\~{}\\%\\$");
    holds(&s, SNRQ_SHEET_HTML, "<td>a|b_c&lt;d&gt;&amp;&quot; \\~%$</td>");
    holds(&s, SNRQ_SHEET_HTML, "<h2>A &amp; &lt;b&gt;</h2>");
    snrq_sheet_free(&s);
}

static void figures_are_short_for_people_and_whole_for_programs(void)
{
    snrq_sheet s = make();
    holds(&s, SNRQ_SHEET_PLAIN, "0.12  1.25 ± 0.50 *\n");
    holds(&s, SNRQ_SHEET_LATEX, "0.12 & 1.25 $\\pm$ 0.50 * \\\\");
    holds(&s, SNRQ_SHEET_TSV, "what\tn\tx\tx_sd\tx_n\n");
    holds(&s, SNRQ_SHEET_TSV, "\t0.123456\t1.25\t0.5\t3\n");
    holds(&s, SNRQ_SHEET_TSV, "next\t\t\t\t0\n");
    holds(&s, SNRQ_SHEET_MARKDOWN, "|---|---:|---:|\n");
    holds(&s, SNRQ_SHEET_MARKDOWN, "\nnote 7\n");
    snrq_sheet_free(&s);
}

static void columns_of_plain_text_are_aligned(void)
{
    snrq_sheet s = make();
    holds(&s, SNRQ_SHEET_PLAIN, "\nwhat                n            x  \n");
    holds(&s, SNRQ_SHEET_PLAIN, "\nnext                -            -  \n");
    snrq_sheet_free(&s);
}

static void a_row_that_is_not_full_is_an_error(void)
{
    snrq_sheet s = make();
    char text[16];
    FILE *f = fmemopen(text, sizeof text, "w");
    snrq_sheet_text(&s, "alone");
    CU_ASSERT_EQUAL(snrq_sheet_write(&s, SNRQ_SHEET_TSV, f), SNRQ_INTERNAL);
    fclose(f);
    snrq_sheet_free(&s);
}

int main(void)
{
    const snrq_test tests[] = {SNRQ_TEST(spread_is_mean_and_deviation_of_the_sample),
                               SNRQ_TEST(text_means_itself_in_every_format),
                               SNRQ_TEST(figures_are_short_for_people_and_whole_for_programs),
                               SNRQ_TEST(columns_of_plain_text_are_aligned),
                               SNRQ_TEST(a_row_that_is_not_full_is_an_error)};
    return snrq_run_tests("sheet", tests, sizeof tests / sizeof *tests, 1);
}
