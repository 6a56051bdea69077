/* Decoder: from tokens back to text.
 *
 * The tokens' texts are a list of parts; each step makes a new list of it, and the text is what the
 * last list reads like as a whole.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/internal.h"
#include "io/tokenizer/nul.h"

typedef struct parts {
    snrq_buffer text;
    size_t *ends; /* [count] end of each part in text; room for one part per token */
    int64_t count;
} parts;

static void part_end(parts *list)
{
    list->ends[list->count++] = list->text.used;
}

/* Part i: its first byte and length. */
static const char *part_at(const parts *list, int64_t i, size_t *bytes)
{
    size_t begin = i > 0 ? list->ends[i - 1] : 0;
    *bytes = list->ends[i] - begin;
    return *bytes > 0 ? list->text.data + begin : "";
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that a part such as <0x0A> stands for, or -1. */
static int byte_value(const char *text, size_t bytes)
{
    if (bytes != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

/* Ends a run of bytes that began at `run`: one part if they are UTF-8, one replacement character
 * each if not. */
static snrq_status run_end(parts *out, size_t run)
{
    size_t bytes = out->text.used - run;
    if (bytes == 0) return SNRQ_OK;
    if (snrq_utf8_check(out->text.data + run, bytes) == bytes) {
        part_end(out);
        return SNRQ_OK;
    }
    out->text.used = run;
    for (size_t i = 0; i < bytes; i++) {
        SNRQ_TRY(snrq_buffer_append(&out->text, "\xef\xbf\xbd", 3));
        part_end(out);
    }
    return SNRQ_OK;
}

static snrq_status decode_bytes(const parts *in, parts *out)
{
    size_t bytes, run = 0;
    for (int64_t i = 0; i < in->count; i++) {
        const char *text = part_at(in, i, &bytes);
        int value = byte_value(text, bytes);
        if (value >= 0) {
            char byte = (char)value;
            SNRQ_TRY(snrq_buffer_append(&out->text, &byte, 1));
            continue;
        }
        SNRQ_TRY(run_end(out, run));
        SNRQ_TRY(snrq_buffer_append(&out->text, text, bytes));
        part_end(out);
        run = out->text.used;
    }
    return run_end(out, run);
}

/* All tokens as bytes, as one part. */
static snrq_status decode_byte_level(const snrq_byte_alphabet *alphabet, const parts *in,
                                     parts *out)
{
    snrq_buffer raw = {0};
    snrq_status status = SNRQ_OK;
    for (int64_t i = 0; status == SNRQ_OK && i < in->count; i++) {
        size_t bytes;
        const char *text = part_at(in, i, &bytes);
        status = snrq_bytes_read(alphabet, text, bytes, &raw);
    }
    if (status == SNRQ_OK) status = snrq_utf8_repair(raw.data, raw.used, &out->text);
    if (status == SNRQ_OK && in->count > 0) part_end(out);
    free(raw.data);
    return status;
}

static snrq_status decode_strip(const snrq_token_decoder_step *step, const char *text, size_t bytes,
                                snrq_buffer *out)
{
    const char *strip = step->replacement.from;
    size_t length = step->replacement.from_bytes;
    for (int64_t i = 0; i < step->start && bytes >= length; i++) {
        if (memcmp(text, strip, length) != 0) break;
        text += length;
        bytes -= length;
    }
    for (int64_t i = 0; i < step->stop && bytes >= length; i++) {
        if (memcmp(text + bytes - length, strip, length) != 0) break;
        bytes -= length;
    }
    return snrq_buffer_append(out, text, bytes);
}

static snrq_status decode_step(const snrq_tokenizer *tokenizer, const snrq_token_decoder_step *step,
                               const parts *in, parts *out)
{
    static const char nothing[] = "";
    if (step->kind == SNRQ_DECODE_BYTE_LEVEL)
        return decode_byte_level(&tokenizer->alphabet, in, out);
    if (step->kind == SNRQ_DECODE_BYTES) return decode_bytes(in, out);
    if (step->kind == SNRQ_DECODE_FUSE) {
        SNRQ_TRY(snrq_buffer_append(&out->text, in->text.data, in->text.used));
        if (in->count > 0) part_end(out);
        return SNRQ_OK;
    }
    for (int64_t i = 0; i < in->count; i++) {
        size_t bytes;
        const char *text = part_at(in, i, &bytes);
        if (step->kind == SNRQ_DECODE_STRIP) {
            SNRQ_TRY(decode_strip(step, text, bytes, &out->text));
        } else {
            snrq_replacement replacement = step->replacement;
            if (step->kind == SNRQ_DECODE_METASPACE && step->drop_first && i == 0) {
                replacement.to = (char *)nothing;
                replacement.to_bytes = 0;
            }
            SNRQ_TRY(snrq_replace(&replacement, text, bytes, &out->text));
        }
        part_end(out);
    }
    return SNRQ_OK;
}

/* The tokens' own texts; without a decoder, with spaces between. */
static snrq_status parts_gather(const snrq_tokenizer *tokenizer, const int32_t *ids, int64_t count,
                                bool skip_special, parts *out)
{
    const snrq_vocabulary *vocabulary = &tokenizer->vocabulary;
    bool joined = tokenizer->decoder.present;
    for (int64_t i = 0; i < count; i++) {
        const snrq_token_text *token = &vocabulary->tokens[ids[i]];
        if (skip_special && token->special) continue;
        if (!joined && out->count > 0) SNRQ_TRY(snrq_buffer_append(&out->text, " ", 1));
        size_t before = out->text.used;
        SNRQ_TRY(
            snrq_buffer_append(&out->text, vocabulary->texts.data + token->offset, token->bytes));
        if (tokenizer->nul && token->bytes > 0)
            out->text.used = before + snrq_nul_restore(out->text.data + before, token->bytes,
                                                       out->text.data + before);
        part_end(out);
    }
    return SNRQ_OK;
}

snrq_status snrq_decode(const snrq_tokenizer *tokenizer, const int32_t *ids, int64_t count,
                        bool skip_special, snrq_buffer *out)
{
    const snrq_token_decoder *decoder = &tokenizer->decoder;
    parts now = {{0}, NULL, 0}, next = {{0}, NULL, 0};
    snrq_status status = snrq_allocate((size_t)count, sizeof *now.ends, "parts of text", &now.ends);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)count, sizeof *next.ends, "parts of text", &next.ends);
    if (status == SNRQ_OK) status = parts_gather(tokenizer, ids, count, skip_special, &now);
    size_t limit = SNRQ_MAX_GROWTH * (now.text.used + SNRQ_MAX_AFFIX);
    for (int i = 0; status == SNRQ_OK && i < decoder->count; i++) {
        next.text.used = 0;
        next.count = 0;
        status = decode_step(tokenizer, &decoder->steps[i], &now, &next);
        if (status == SNRQ_OK && next.text.used > limit)
            status = snrq_fail(SNRQ_BAD_DATA,
                               "the tokenizer's decoder makes the text more than %d times longer",
                               SNRQ_MAX_GROWTH);
        parts swapped = now;
        now = next;
        next = swapped;
    }
    if (status == SNRQ_OK) status = snrq_buffer_append(out, now.text.data, now.text.used);
    free(now.text.data);
    free(now.ends);
    free(next.text.data);
    free(next.ends);
    return status;
}

/* A key that holds one character, as the pattern of a replacement. */
static snrq_status read_character(const char *where, const json_t *object, const char *key,
                                  const char *to, snrq_replacement *out)
{
    const char *text;
    size_t bytes;
    SNRQ_TRY(snrq_json_character(where, object, key, &text, &bytes));
    return snrq_replacement_set(where, key, text, to, out);
}

static snrq_status step_read(const char *where, const json_t *object, const char *type,
                             snrq_token_decoder_step *step)
{
    char shown[SNRQ_SHOWN];
    const int64_t most = INT32_MAX;
    if (strcmp(type, "Replace") == 0) {
        step->kind = SNRQ_DECODE_REPLACE;
        return snrq_replacement_read(where, object, &step->replacement);
    }
    if (strcmp(type, "ByteFallback") == 0) {
        step->kind = SNRQ_DECODE_BYTES;
        return SNRQ_OK;
    }
    if (strcmp(type, "ByteLevel") == 0) { /* its keys say nothing about decoding */
        step->kind = SNRQ_DECODE_BYTE_LEVEL;
        return SNRQ_OK;
    }
    if (strcmp(type, "Fuse") == 0) {
        step->kind = SNRQ_DECODE_FUSE;
        return SNRQ_OK;
    }
    if (strcmp(type, "Strip") == 0) {
        step->kind = SNRQ_DECODE_STRIP;
        SNRQ_TRY(snrq_json_integer(where, object, "start", 0, most, NULL, &step->start));
        SNRQ_TRY(snrq_json_integer(where, object, "stop", 0, most, NULL, &step->stop));
        return read_character(where, object, "content", "", &step->replacement);
    }
    if (strcmp(type, "Metaspace") == 0) {
        bool prefix;
        const char *scheme;
        step->kind = SNRQ_DECODE_METASPACE;
        SNRQ_TRY(snrq_json_boolean(where, object, "add_prefix_space", true, &prefix));
        SNRQ_TRY(snrq_json_string(where, object, "prepend_scheme", prefix ? "always" : "never",
                                  &scheme));
        step->drop_first = strcmp(scheme, "never") != 0;
        return read_character(where, object, "replacement", " ", &step->replacement);
    }
    return snrq_fail(
        SNRQ_BAD_DATA,
        "%s: type \"%s\" is not supported (supported: Sequence, Replace, ByteFallback, "
        "ByteLevel, Fuse, Strip, Metaspace)",
        where, snrq_shown(type, shown));
}

static snrq_status decoder_add(const char *where, const json_t *object, int depth,
                               snrq_token_decoder *out)
{
    const char *type;
    SNRQ_TRY(snrq_json_string(where, object, "type", NULL, &type));
    if (strcmp(type, "Sequence") != 0) {
        if (out->count == SNRQ_MAX_STEPS)
            return snrq_fail(SNRQ_BAD_DATA, "%s: more than %d steps", where, SNRQ_MAX_STEPS);
        return step_read(where, object, type, &out->steps[out->count++]);
    }
    json_t *list, *step;
    size_t i;
    SNRQ_TRY(snrq_json_array(where, object, "decoders", &list));
    if (depth == SNRQ_MAX_DEPTH)
        return snrq_fail(SNRQ_BAD_DATA, "%s: Sequences nested deeper than %d", where,
                         SNRQ_MAX_DEPTH);
    json_array_foreach(list, i, step)
    {
        SNRQ_TRY(decoder_add(where, step, depth + 1, out));
    }
    return SNRQ_OK;
}

snrq_status snrq_token_decoder_read(const char *file, const json_t *root, snrq_token_decoder *out)
{
    char where[SNRQ_WHERE];
    const json_t *object = json_object_get(root, "decoder");
    out->present = object != NULL && !json_is_null(object);
    if (!out->present) return SNRQ_OK;
    snprintf(where, sizeof where, "%s: decoder", file);
    return decoder_add(where, object, 0, out);
}

void snrq_token_decoder_free(snrq_token_decoder *decoder)
{
    for (int i = 0; i < decoder->count; i++) snrq_replacement_free(&decoder->steps[i].replacement);
    *decoder = (snrq_token_decoder){0};
}
