/* The table of tasks; see tasks.h. */
#include "pipeline/evaluate/tasks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "pipeline/evaluate/wikitext.h"

/* A row of a file. */
typedef struct row {
    const char *where;
    const json_t *object;
} row;

/* How a row becomes an item. */
typedef struct snrq_task_form {
    snrq_status (*read)(const struct snrq_task_form *form, const row *row, snrq_item *item);
    const char *context; /* "{key}" is the row's text, "{key|capitalize}" Python's capitalize() */
    const char *choices; /* the key of a list (in "a.b", of object a), or keys with commas */
    const char *fixed;   /* instead: the choices themselves, with commas */
    const char *gold;    /* the key of the right one's number, counted from `first_gold` ... */
    int first_gold;
    const char *labels; /* ... or, with these, of its label among the list under this key */
    bool cleaned;       /* as HellaSwag cleans its texts */
} snrq_task_form;

typedef snrq_task_form form;

static snrq_status read_choices(const form *f, const row *r, snrq_item *item);
static snrq_status read_boolq_query(const form *f, const row *r, snrq_item *item);
static snrq_status read_sentence(const form *f, const row *r, snrq_item *item);
static snrq_status read_contexts(const form *f, const row *r, snrq_item *item);
static snrq_status read_last_word(const form *f, const row *r, snrq_item *item);
static snrq_status read_page(const form *f, const row *r, snrq_item *item);

static const form arc = {.read = read_choices,
                         .context = "Question: {question}\nAnswer:",
                         .choices = "choices.text",
                         .gold = "answerKey",
                         .labels = "choices.label"},
                  arc_prepared = {.read = read_choices,
                                  .context = "{query}\nAnswer:",
                                  .choices = "choices",
                                  .gold = "gold"};
static const form boolq = {.read = read_choices,
                           .context = "{passage}\nQuestion: {question}?\nAnswer:",
                           .fixed = "no,yes",
                           .gold = "label"},
                  boolq_prepared = {.read = read_boolq_query, .fixed = "no,yes", .gold = "gold"};
static const form hellaswag = {.read = read_choices,
                               .context = "{activity_label}: {ctx_a} {ctx_b|capitalize}",
                               .choices = "endings",
                               .gold = "label",
                               .cleaned = true},
                  hellaswag_prepared = {.read = read_choices,
                                        .context = "{query}",
                                        .choices = "choices",
                                        .gold = "gold"};
static const form piqa = {.read = read_choices,
                          .context = "Question: {goal}\nAnswer:",
                          .choices = "sol1,sol2",
                          .gold = "label"},
                  piqa_prepared = {.read = read_choices,
                                   .context = "{query}Answer:",
                                   .choices = "choices",
                                   .gold = "gold"};
static const form openbookqa = {.read = read_choices,
                                .context = "{question_stem}",
                                .choices = "choices.text",
                                .gold = "answerKey",
                                .labels = "choices.label"};
static const form winogrande = {.read = read_sentence,
                                .choices = "option1,option2",
                                .gold = "answer",
                                .first_gold = 1},
                  winogrande_prepared = {
                      .read = read_contexts, .choices = "context_options", .gold = "gold"};
static const form lambada = {.read = read_last_word}, wikitext = {.read = read_page};

/* name, form of the data set, prepared form, kind, whether it has acc_norm, is of the six */
static const snrq_task table[] = {
    {"arc_easy", &arc, &arc_prepared, SNRQ_TASK_CHOICE, true, true},
    {"arc_challenge", &arc, &arc_prepared, SNRQ_TASK_CHOICE, true, true},
    {"boolq", &boolq, &boolq_prepared, SNRQ_TASK_CHOICE, false, true},
    {"hellaswag", &hellaswag, &hellaswag_prepared, SNRQ_TASK_CHOICE, true, true},
    {"piqa", &piqa, &piqa_prepared, SNRQ_TASK_CHOICE, true, true},
    {"winogrande", &winogrande, &winogrande_prepared, SNRQ_TASK_CHOICE, false, true},
    {"openbookqa", &openbookqa, NULL, SNRQ_TASK_CHOICE, true, false},
    {"lambada_openai", &lambada, NULL, SNRQ_TASK_LAST_WORD, false, false},
    {"wikitext", &wikitext, NULL, SNRQ_TASK_ROLLING, false, false},
};
enum { TASKS = sizeof table / sizeof *table };

/* ---- names ---- */

static snrq_status find(const char *name, size_t length, const snrq_task **out)
{
    char shown[SNRQ_SHOWN], names[512] = "";
    for (int i = 0; i < TASKS; i++) {
        size_t used = strlen(names);
        if (strlen(table[i].name) == length && memcmp(table[i].name, name, length) == 0) {
            *out = &table[i];
            return SNRQ_OK;
        }
        snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "", table[i].name);
    }
    return snrq_fail(SNRQ_USAGE, "--tasks: expected some of %s, separated by commas; found '%s'",
                     names, snrq_shown(name, shown));
}

snrq_status snrq_tasks_parse(const char *names, const snrq_task **tasks, int *count)
{
    *count = 0;
    for (const char *at = names;; at++) {
        size_t length = strcspn(at, ",");
        const snrq_task *task = NULL;
        SNRQ_TRY(find(at, length, &task));
        for (int i = 0; i < *count; i++)
            if (tasks[i] == task)
                return snrq_fail(SNRQ_USAGE, "--tasks: %s is there twice", task->name);
        tasks[(*count)++] = task;
        at += length;
        if (*at == '\0') return SNRQ_OK;
    }
}

/* ---- what a row holds ---- */

/* The value under "key", or under "key.key" of an object in it; `key` ends at `end`. */
static snrq_status find_value(const row *r, const char *key, size_t bytes, const json_t **out)
{
    char name[64];
    const char *point = memchr(key, '.', bytes);
    size_t first = point != NULL ? (size_t)(point - key) : bytes;
    snprintf(name, sizeof name, "%.*s", (int)first, key);
    *out = json_object_get(r->object, name);
    if (point != NULL) {
        snprintf(name, sizeof name, "%.*s", (int)(bytes - first - 1), point + 1);
        *out = json_object_get(*out, name);
    }
    if (*out != NULL) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s has no key \"%.*s\", which rows of this data set have: is it a file of "
                     "another one?",
                     r->where, (int)bytes, key);
}

static snrq_status text_of(const row *r, const char *key, size_t bytes, const json_t *value,
                           snrq_piece *out)
{
    *out = (snrq_piece){"", 0};
    if (!json_is_string(value))
        return snrq_fail(SNRQ_BAD_DATA, "%s: key \"%.*s\": expected a string, found %s", r->where,
                         (int)bytes, key, snrq_json_kind(value));
    *out = (snrq_piece){json_string_value(value), json_string_length(value)};
    return SNRQ_OK;
}

static snrq_status row_text(const row *r, const char *key, size_t bytes, snrq_piece *out)
{
    const json_t *value;
    *out = (snrq_piece){"", 0};
    SNRQ_TRY(find_value(r, key, bytes, &value));
    return text_of(r, key, bytes, value, out);
}

static snrq_status row_list(const row *r, const char *key, const json_t **out)
{
    SNRQ_TRY(find_value(r, key, strlen(key), out));
    if (json_is_array(*out) && json_array_size(*out) > 0 &&
        json_array_size(*out) <= SNRQ_MOST_CHOICES)
        return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: key \"%s\": expected a list of 1 to %d texts, found %s%s",
                     r->where, key, (int)SNRQ_MOST_CHOICES, snrq_json_kind(*out),
                     json_is_array(*out) ? " of another length" : "");
}

/* A number, or a text that is one: "3". */
static bool as_number(const json_t *value, double *out)
{
    char *end = NULL;
    if (json_is_string(value)) {
        *out = strtod(json_string_value(value), &end);
        return end != json_string_value(value) && *end == '\0';
    }
    *out = json_number_value(value);
    return json_is_number(value);
}

static snrq_status read_gold(const form *f, const row *r, snrq_item *item)
{
    const json_t *value, *labels;
    double number;
    SNRQ_TRY(find_value(r, f->gold, strlen(f->gold), &value));
    if (f->labels != NULL) {
        snrq_piece key, label;
        size_t i;
        json_t *entry;
        SNRQ_TRY(text_of(r, f->gold, strlen(f->gold), value, &key));
        SNRQ_TRY(row_list(r, f->labels, &labels));
        key = snrq_python_strip(key);
        json_array_foreach(labels, i, entry)
        {
            SNRQ_TRY(text_of(r, f->labels, strlen(f->labels), entry, &label));
            item->gold = (int64_t)i;
            if (i < (size_t)item->requests && label.bytes == key.bytes &&
                memcmp(label.data, key.data, key.bytes) == 0)
                return SNRQ_OK;
        }
        return snrq_fail(SNRQ_BAD_DATA, "%s: key \"%s\" is none of the labels of its choices",
                         r->where, f->gold);
    }
    if (as_number(value, &number) && number == floor(number) && number >= f->first_gold &&
        number < f->first_gold + item->requests) {
        item->gold = (int64_t)number - f->first_gold;
        return SNRQ_OK;
    }
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: key \"%s\": expected the number of the right choice, %d to %d (a split "
                     "without answers cannot be scored)",
                     r->where, f->gold, f->first_gold, f->first_gold + item->requests - 1);
}

/* ---- what is made of it ---- */

void snrq_item_free(snrq_item *item)
{
    for (int i = 0; i < SNRQ_MOST_CHOICES; i++) {
        free(item->request[i].context.data);
        free(item->request[i].continuation.data);
    }
    *item = (snrq_item){0};
}

/* An empty request, with the memory of an earlier one. */
static snrq_request *add_request(snrq_item *item)
{
    snrq_request *q = &item->request[item->requests++];
    q->context.bytes = q->continuation.bytes = 0;
    q->length = 0;
    return q;
}

/* strip; " [title]" becomes ". "; what is in brackets goes; two blanks become one, once. */
static snrq_status clean(snrq_string *text)
{
    snrq_piece inner = snrq_python_strip(snrq_string_piece(text));
    if (inner.bytes > 0) memmove(text->data, inner.data, inner.bytes);
    text->bytes = inner.bytes;
    SNRQ_TRY(snrq_python_replace(text, " [title]", ". "));
    SNRQ_TRY(snrq_python_substitute(text, "\\[.*?\\]", ""));
    return snrq_python_replace(text, "  ", " ");
}

static snrq_status fill_template(const form *f, const row *r, snrq_string *out)
{
    static const char capitalize[] = "|capitalize";
    for (const char *at = f->context; *at != '\0';) {
        size_t plain = strcspn(at, "{");
        SNRQ_TRY(snrq_string_add(out, (snrq_piece){at, plain}));
        at += plain;
        if (*at == '\0') break;
        size_t key = strcspn(at + 1, "|}");
        bool capital = strncmp(at + 1 + key, capitalize, sizeof capitalize - 1) == 0;
        snrq_piece text;
        SNRQ_TRY(row_text(r, at + 1, key, &text));
        SNRQ_TRY(capital ? snrq_python_capitalize(text, out) : snrq_string_add(out, text));
        at = strchr(at, '}') + 1;
    }
    return f->cleaned ? clean(out) : SNRQ_OK;
}

/* A request " choice" after the context of the first one, or after its own. */
static snrq_status add_choice(const form *f, snrq_piece choice, const snrq_string *context,
                              snrq_item *item)
{
    snrq_string cleaned = {0};
    snrq_request *q = add_request(item);
    snrq_status status = snrq_string_add(&q->context, snrq_string_piece(context));
    if (status == SNRQ_OK && f->cleaned) {
        status = snrq_string_add(&cleaned, choice);
        if (status == SNRQ_OK) status = clean(&cleaned);
        choice = snrq_string_piece(&cleaned);
    }
    if (status == SNRQ_OK) status = snrq_string_add(&q->continuation, snrq_piece_of(" "));
    if (status == SNRQ_OK) status = snrq_string_add(&q->continuation, choice);
    q->length = snrq_python_length(choice);
    free(cleaned.data);
    return status;
}

/* The choices, wherever they are. */
static snrq_status add_choices(const form *f, const row *r, const snrq_string *context,
                               snrq_item *item)
{
    const char *names = f->fixed != NULL ? f->fixed : f->choices;
    const json_t *list;
    json_t *entry;
    size_t i;
    snrq_piece text;
    if (f->fixed == NULL && strchr(names, ',') == NULL) {
        SNRQ_TRY(row_list(r, names, &list));
        json_array_foreach(list, i, entry)
        {
            SNRQ_TRY(text_of(r, names, strlen(names), entry, &text));
            SNRQ_TRY(add_choice(f, text, context, item));
        }
        return SNRQ_OK;
    }
    for (const char *at = names; *at != '\0'; at += *at == ',') {
        size_t length = strcspn(at, ",");
        text = (snrq_piece){at, length};
        if (f->fixed == NULL) SNRQ_TRY(row_text(r, at, length, &text));
        SNRQ_TRY(add_choice(f, text, context, item));
        at += length;
    }
    return SNRQ_OK;
}

/* One context, several choices. */
static snrq_status read_choices(const form *f, const row *r, snrq_item *item)
{
    snrq_string context = {0};
    snrq_status status = fill_template(f, r, &context);
    if (status == SNRQ_OK) status = add_choices(f, r, &context, item);
    if (status == SNRQ_OK) status = read_gold(f, r, item);
    free(context.data);
    return status;
}

/* Prepared queries of BoolQ begin with a word that the harness does not have. */
static snrq_status read_boolq_query(const form *f, const row *r, snrq_item *item)
{
    static const char word[] = "Passage: ";
    snrq_string context = {0};
    snrq_piece query;
    SNRQ_TRY(row_text(r, "query", strlen("query"), &query));
    size_t skipped = strlen(word);
    if (query.bytes >= skipped && memcmp(query.data, word, skipped) == 0) {
        query.data += skipped;
        query.bytes -= skipped;
    }
    snrq_status status = snrq_string_add(&context, query);
    if (status == SNRQ_OK) status = snrq_string_add(&context, snrq_piece_of("\nAnswer:"));
    if (status == SNRQ_OK) status = add_choices(f, r, &context, item);
    if (status == SNRQ_OK) status = read_gold(f, r, item);
    free(context.data);
    return status;
}

/* WinoGrande: an option takes the place of the first "_"; what follows it is scored after each. */
static snrq_status read_sentence(const form *f, const row *r, snrq_item *item)
{
    snrq_piece sentence, option;
    SNRQ_TRY(row_text(r, "sentence", strlen("sentence"), &sentence));
    const char *gap = memchr(sentence.data, '_', sentence.bytes);
    if (gap == NULL)
        return snrq_fail(SNRQ_BAD_DATA, "%s: key \"sentence\": expected a text with \"_\" in it",
                         r->where);
    snrq_piece before = {sentence.data, (size_t)(gap - sentence.data)};
    snrq_piece after = {gap + 1, sentence.bytes - before.bytes - 1};
    for (const char *at = f->choices; *at != '\0'; at += *at == ',') {
        size_t length = strcspn(at, ",");
        snrq_request *q = add_request(item);
        SNRQ_TRY(row_text(r, at, length, &option));
        SNRQ_TRY(snrq_string_add(&q->context, before));
        SNRQ_TRY(snrq_string_add(&q->context, option));
        SNRQ_TRY(snrq_string_add(&q->continuation, snrq_piece_of(" ")));
        SNRQ_TRY(snrq_string_add(&q->continuation, snrq_python_strip(after)));
        at += length;
    }
    return read_gold(f, r, item);
}

/* Prepared: the contexts are there as a list. */
static snrq_status read_contexts(const form *f, const row *r, snrq_item *item)
{
    const json_t *list;
    json_t *entry;
    size_t i;
    snrq_piece context, continuation;
    SNRQ_TRY(row_list(r, f->choices, &list));
    SNRQ_TRY(row_text(r, "continuation", strlen("continuation"), &continuation));
    json_array_foreach(list, i, entry)
    {
        snrq_request *q = add_request(item);
        SNRQ_TRY(text_of(r, f->choices, strlen(f->choices), entry, &context));
        SNRQ_TRY(snrq_string_add(&q->context, context));
        SNRQ_TRY(snrq_string_add(&q->continuation, snrq_piece_of(" ")));
        SNRQ_TRY(snrq_string_add(&q->continuation, snrq_python_strip(continuation)));
    }
    return read_gold(f, r, item);
}

/* LAMBADA: the last word, with the blank before it. */
static snrq_status read_last_word(const form *f, const row *r, snrq_item *item)
{
    snrq_piece text;
    (void)f;
    SNRQ_TRY(row_text(r, "text", strlen("text"), &text));
    size_t word = text.bytes;
    while (word > 0 && text.data[word - 1] != ' ') word--;
    snrq_request *q = add_request(item);
    if (word > 0) SNRQ_TRY(snrq_string_add(&q->context, (snrq_piece){text.data, word - 1}));
    SNRQ_TRY(snrq_string_add(&q->continuation, snrq_piece_of(" ")));
    return snrq_string_add(&q->continuation, (snrq_piece){text.data + word, text.bytes - word});
}

static snrq_status read_page(const form *f, const row *r, snrq_item *item)
{
    snrq_piece page;
    (void)f;
    SNRQ_TRY(row_text(r, "page", strlen("page"), &page));
    item->words = snrq_python_words(page);
    item->bytes = (int64_t)page.bytes;
    snrq_request *q = add_request(item);
    SNRQ_TRY(snrq_string_add(&q->continuation, page));
    snrq_status status = snrq_wikitext_detokenize(&q->continuation);
    return status == SNRQ_OK ? SNRQ_OK
                             : snrq_fail(status, "%s: %s", r->where, snrq_error_message());
}

snrq_status snrq_task_item(const snrq_task *task, const char *where, const json_t *object,
                           snrq_item *out)
{
    const row r = {where, object};
    bool prepared = json_object_get(object, "query") != NULL ||
                    json_object_get(object, "context_options") != NULL;
    const form *f = prepared && task->prepared != NULL ? task->prepared : task->raw;
    out->requests = 0;
    out->gold = out->words = out->bytes = 0;
    return f->read(f, &r, out);
}
