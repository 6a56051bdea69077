/* tokenizer.model: pieces made by hand, unknown fields passed over, damage refused. */
#include "io/tokenizer/sentencepiece.h"

#include <string.h>

#include "tests/unit/test_files.h"

/* A model of two pieces, "ab" of score -1 and kind 1, "<s>" of kind 3, with other fields
 * between. */
static const unsigned char model[] = {
    0x0a, 0x09, 0x0a, 0x02, 'a',  'b',  0x15, 0x00, 0x00, 0x80, 0xbf, /* piece: text, score */
    0x12, 0x03, 0x28, 0xac, 0x02,                                     /* trainer settings */
    0x0a, 0x07, 0x0a, 0x03, '<',  's',  '>',  0x18, 0x03,             /* piece: text, kind */
    0x79, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,             /* 8 bytes of field 15 */
};

static snrq_status read_bytes(const void *data, size_t size, snrq_sentencepieces *out)
{
    scratch_write("tokenizer.model", data, size);
    return snrq_sentencepieces_read(scratch_path("tokenizer.model"), out);
}

static void pieces_are_read(void)
{
    snrq_sentencepieces p;
    if (!assert_ok(read_bytes(model, sizeof model, &p))) return;
    CU_ASSERT_EQUAL_FATAL(p.count, 2);
    CU_ASSERT_TRUE(p.pieces[0].bytes == 2 && memcmp(p.pieces[0].text, "ab", 2) == 0);
    CU_ASSERT_EQUAL(p.pieces[0].score, -1);
    CU_ASSERT_EQUAL(p.pieces[0].kind, 1);
    CU_ASSERT_TRUE(p.pieces[1].bytes == 3 && memcmp(p.pieces[1].text, "<s>", 3) == 0);
    CU_ASSERT_EQUAL(p.pieces[1].kind, 3);
    snrq_sentencepieces_free(&p);
}

static void damage_is_refused_or_harmless(void)
{
    snrq_sentencepieces p;
    for (size_t bit = 0; bit < 8 * sizeof model; bit++) {
        unsigned char damaged[sizeof model];
        memcpy(damaged, model, sizeof model);
        damaged[bit / 8] ^= (unsigned char)(1 << bit % 8);
        snrq_status status = read_bytes(damaged, sizeof damaged, &p);
        CU_ASSERT_TRUE(status == SNRQ_OK || status == SNRQ_BAD_DATA);
        if (status == SNRQ_OK) snrq_sentencepieces_free(&p);
    }
    for (size_t size = 1; size < 11; size++)
        assert_failed(read_bytes(model, size, &p), SNRQ_BAD_DATA, "piece 0");
    remove(scratch_path("tokenizer.model"));
    CU_ASSERT_EQUAL(snrq_sentencepieces_read(scratch_path("tokenizer.model"), &p), SNRQ_NO_INPUT);
}

static void a_text_with_nul_is_refused(void)
{
    const unsigned char nul[] = {0x0a, 0x04, 0x0a, 0x02, 'a', 0};
    snrq_sentencepieces p;
    assert_failed(read_bytes(nul, sizeof nul, &p), SNRQ_BAD_DATA, "byte 0");
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(pieces_are_read),
        SNRQ_TEST(damage_is_refused_or_harmless),
        SNRQ_TEST(a_text_with_nul_is_refused),
    };
    int failed = snrq_run_tests("sentencepiece", tests, sizeof tests / sizeof *tests, 1);
    scratch_remove();
    return failed;
}
