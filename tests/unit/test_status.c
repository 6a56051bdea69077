/* Messages, growing lists, copies of texts. */
#include "mpi/status.h"

#include <stdint.h>
#include <string.h>

#include "tests/snrq_test.h"

static void a_message_may_quote_the_one_before(void)
{
    CU_ASSERT_EQUAL(snrq_fail(SNRQ_BAD_DATA, "row %d", 7), SNRQ_BAD_DATA);
    CU_ASSERT_EQUAL(snrq_fail(SNRQ_IO_ERROR, "file: %s", snrq_error_message()), SNRQ_IO_ERROR);
    CU_ASSERT_STRING_EQUAL(snrq_error_message(), "file: row 7");
}

static void a_list_keeps_its_items_as_it_grows(void)
{
    int *list = NULL;
    size_t capacity = 0, moves = 0;
    for (int i = 0; i < 10000; i++) {
        const size_t before = capacity;
        CU_ASSERT_EQUAL(snrq_grow((size_t)i + 1, sizeof *list, "numbers", &list, &capacity),
                        SNRQ_OK);
        CU_ASSERT_TRUE(capacity > (size_t)i);
        moves += capacity != before;
        list[i] = i;
    }
    for (int i = 0; i < 10000; i++) CU_ASSERT_EQUAL(list[i], i);
    CU_ASSERT_TRUE(moves < 20);
    free(list);
}

static void a_list_that_cannot_grow_stays(void)
{
    int *list = NULL, *before;
    size_t capacity = 0, kept;
    CU_ASSERT_EQUAL(snrq_grow(3, sizeof *list, "numbers", &list, &capacity), SNRQ_OK);
    before = list;
    kept = capacity;
    list[2] = 5;
    CU_ASSERT_EQUAL(snrq_grow(SIZE_MAX, sizeof *list, "numbers", &list, &capacity), SNRQ_INTERNAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "numbers"));
    CU_ASSERT_PTR_EQUAL(list, before);
    CU_ASSERT_EQUAL(capacity, kept);
    CU_ASSERT_EQUAL(list[2], 5);
    free(list);
}

static void a_copy_is_another_text(void)
{
    char text[] = "a path", *copy = NULL;
    CU_ASSERT_EQUAL(snrq_copy_text(text, "path", &copy), SNRQ_OK);
    text[0] = 'b';
    CU_ASSERT_STRING_EQUAL(copy, "a path");
    free(copy);
}

int main(void)
{
    const snrq_test tests[] = {SNRQ_TEST(a_message_may_quote_the_one_before),
                               SNRQ_TEST(a_list_keeps_its_items_as_it_grows),
                               SNRQ_TEST(a_list_that_cannot_grow_stays),
                               SNRQ_TEST(a_copy_is_another_text)};
    return snrq_run_tests("status", tests, sizeof tests / sizeof *tests, 1);
}
