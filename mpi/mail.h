/* Letters between ranks, which nobody waits for.
 *
 * Groups of ranks work on their own, but have things to tell each other now and then: what
 * happened, or that all should stop. A letter is sent without waiting for the rank that gets it;
 * that rank looks for letters when it has time. Letters of one rank to another arrive in the order
 * in which they were sent. For small things, some kilobytes.
 */
#ifndef SNRQ_MAIL_H
#define SNRQ_MAIL_H

#include <stdbool.h>

#include "mpi/context.h"

typedef struct snrq_mail snrq_mail;

typedef struct snrq_letter {
    int from, kind; /* rank in the mail's context; what the sender called it */
    char *text;     /* ends with a NUL; owned by who took the letter */
} snrq_letter;

/* Collective over the context, which must outlive the mail; agreed. The caller ends it. */
snrq_status snrq_mail_create(const snrq_context *context, snrq_mail **out);

/* Sends `text` (copied) to rank `to`. kind: 0 or larger. Does not wait. Not collective. */
snrq_status snrq_mail_send(snrq_mail *mail, int to, int kind, const char *text);

/* The next letter to this rank that has arrived: *found, and what the caller frees. Does not wait.
 * Not collective. */
snrq_status snrq_mail_take(snrq_mail *mail, snrq_letter *letter, bool *found);

/* What to do with a letter (its text is borrowed), and, letter NULL, every now and then while there
 * is none. */
typedef void snrq_mail_handler(void *user, const snrq_letter *letter);

/* Waits until all ranks have come here, and until this one has handled all letters to it. The
 * waiting costs hardly any computing time. Nothing can be sent afterwards. Collective. */
snrq_status snrq_mail_finish(snrq_mail *mail, snrq_mail_handler *handle, void *user);

/* Frees; *mail becomes NULL. What was sent and not taken is lost. Not collective, but only after
 * snrq_mail_finish(), or where the job ends anyway. */
void snrq_mail_free(snrq_mail **mail);

#endif
