/* Letters between ranks: every one arrives once, in order, and nobody waits but at the end. */
#include "mpi/mail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/collective.h"
#include "tests/ranks/rank_test.h"

enum { LETTERS = 50, LARGEST = 200000 };

/* What came: the next number expected of every rank, and what was wrong. */
typedef struct inbox {
    int next[64];
    int letters, wrong;
} inbox;

static size_t padding(int number)
{
    return number == LETTERS / 2 ? LARGEST : (size_t)(number % 7);
}

static void handle(void *user, const snrq_letter *letter)
{
    inbox *box = user;
    int from = 0, number = 0, length = 0;
    if (letter == NULL) return;
    bool read = sscanf(letter->text, "%d %d%n", &from, &number, &length) == 2;
    if (!read || from != letter->from || number != box->next[from]++ ||
        letter->kind != number % 3 || strlen(letter->text) != (size_t)length + padding(number))
        box->wrong++;
    box->letters++;
}

static void send_numbered(snrq_mail *mail, int to, int number)
{
    char head[64];
    char *text = malloc(sizeof head + LARGEST);
    int length = sprintf(text, "%d %d", rank_test_world->rank, number);
    memset(text + length, ' ', padding(number));
    text[(size_t)length + padding(number)] = '\0';
    CU_ASSERT_EQUAL(snrq_mail_send(mail, to, number % 3, text), SNRQ_OK);
    free(text);
}

static void every_letter_arrives_once_and_in_order(void)
{
    const snrq_context *w = rank_test_world;
    snrq_mail *mail = NULL;
    inbox box = {.letters = 0};
    CU_ASSERT_EQUAL(snrq_mail_create(w, &mail), SNRQ_OK);
    for (int number = 0; number < LETTERS; number++)
        for (int to = 0; to < w->size; to++) send_numbered(mail, to, number);
    CU_ASSERT_EQUAL(snrq_mail_finish(mail, handle, &box), SNRQ_OK);
    CU_ASSERT_EQUAL(box.letters, LETTERS * w->size);
    CU_ASSERT_EQUAL(box.wrong, 0);
    snrq_mail_free(&mail);
    CU_ASSERT_PTR_NULL(mail);
}

static void sending_and_looking_wait_for_nobody(void)
{
    const snrq_context *w = rank_test_world;
    snrq_mail *mail = NULL;
    snrq_letter letter;
    inbox box = {.letters = 0};
    bool found = true;
    CU_ASSERT_EQUAL(snrq_mail_create(w, &mail), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_mail_take(mail, &letter, &found), SNRQ_OK);
    CU_ASSERT_FALSE(found);
    CU_ASSERT_EQUAL(snrq_barrier(w), SNRQ_OK); /* all have looked, and nothing was sent */
    send_numbered(mail, (w->rank + 1) % w->size, 0);
    CU_ASSERT_EQUAL(snrq_barrier(w), SNRQ_OK); /* all are sent, and none was taken */
    CU_ASSERT_EQUAL(snrq_mail_finish(mail, handle, &box), SNRQ_OK);
    CU_ASSERT_EQUAL(box.letters, 1);
    snrq_mail_free(&mail);
}

/* Sends a letter to the last rank as soon as it has nothing to do. */
static void answer_when_idle(void *user, const snrq_letter *letter)
{
    snrq_mail **mail = user;
    if (letter == NULL && *mail != NULL && rank_test_world->rank == 0) {
        send_numbered(*mail, rank_test_world->size - 1, 0);
        *mail = NULL;
    }
}

/* The last rank comes only when it has heard of rank 0, which waits already. */
static void who_waits_can_do_something_else(void)
{
    const snrq_context *w = rank_test_world;
    snrq_mail *mail = NULL;
    snrq_letter letter;
    bool found = w->size == 1 || w->rank < w->size - 1;
    CU_ASSERT_EQUAL(snrq_mail_create(w, &mail), SNRQ_OK);
    snrq_mail *once = mail;
    if (!found) {
        while (!found) CU_ASSERT_EQUAL_FATAL(snrq_mail_take(mail, &letter, &found), SNRQ_OK);
        CU_ASSERT_EQUAL(letter.from, 0);
        free(letter.text);
    }
    CU_ASSERT_EQUAL(snrq_mail_finish(mail, answer_when_idle, &once), SNRQ_OK);
    snrq_mail_free(&mail);
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {SNRQ_TEST(every_letter_arrives_once_and_in_order),
                               SNRQ_TEST(sending_and_looking_wait_for_nobody),
                               SNRQ_TEST(who_waits_can_do_something_else)};
    return rank_test_main(argc, argv, "mail", tests, sizeof tests / sizeof *tests);
}
