/* The pieces of a SentencePiece model; see sentencepiece.h.
 *
 * The file is one protocol buffer: a sequence of fields, each a tag (varint: number * 8 +
 * wire type) and a value (0: varint, 1: 8 bytes, 2: length as varint and so many bytes, 5: 4
 * bytes). Field 1 of the model is a piece, a message of its own: 1 text, 2 score (float), 3
 * kind. Source: protobuf's encoding page and sentencepiece_model.proto. */
#include "io/tokenizer/sentencepiece.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"

enum { MAX_FILE = 1 << 28, MAX_PIECES = 1 << 22 };

typedef struct message {
    const char *data;
    size_t bytes, at;
} message;

typedef struct field {
    uint64_t number, value; /* value of a varint */
    int wire;
    message content; /* of the other wire types */
} field;

static bool take_varint(message *m, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && m->at < m->bytes; shift += 7) {
        unsigned char byte = (unsigned char)m->data[m->at++];
        *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return true;
    }
    return false;
}

static bool take_field(message *m, field *f)
{
    uint64_t tag, length;
    if (!take_varint(m, &tag)) return false;
    *f = (field){.number = tag >> 3, .wire = (int)(tag & 7)};
    switch (f->wire) {
    case 0:
        return take_varint(m, &f->value);
    case 1:
        length = 8;
        break;
    case 2:
        if (!take_varint(m, &length)) return false;
        break;
    case 5:
        length = 4;
        break;
    default:
        return false;
    }
    if (length > m->bytes - m->at) return false;
    f->content = (message){.data = m->data + m->at, .bytes = (size_t)length};
    m->at += (size_t)length;
    return true;
}

static bool read_piece(message m, snrq_sentencepiece *out)
{
    *out = (snrq_sentencepiece){.text = "", .kind = 1};
    while (m.at < m.bytes) {
        field f;
        if (!take_field(&m, &f)) return false;
        if (f.number == 1 && f.wire == 2) {
            out->text = f.content.data;
            out->bytes = f.content.bytes;
        } else if (f.number == 2 && f.wire == 5) {
            memcpy(&out->score, f.content.data, sizeof out->score);
        } else if (f.number == 3 && f.wire == 0) {
            out->kind = f.value <= 6 ? (int)f.value : 0;
        }
    }
    return isfinite(out->score) && out->kind > 0 && memchr(out->text, 0, out->bytes) == NULL;
}

/* Goes through the pieces; out NULL: only counts them. */
static snrq_status read_pieces(const char *path, message m, snrq_sentencepiece *out, int64_t *count)
{
    *count = 0;
    while (m.at < m.bytes) {
        size_t begin = m.at;
        snrq_sentencepiece ignored;
        field f;
        bool good = take_field(&m, &f), piece = good && f.number == 1 && f.wire == 2;
        if (piece) good = read_piece(f.content, out != NULL ? &out[*count] : &ignored);
        if (!good || (piece && *count == MAX_PIECES))
            return snrq_fail(
                SNRQ_BAD_DATA,
                "%s: byte %zu (piece %lld): expected a field of a SentencePiece model, "
                "found something else (is the file cut off or damaged?)",
                path, begin, (long long)*count);
        *count += piece;
    }
    return SNRQ_OK;
}

snrq_status snrq_sentencepieces_read(const char *path, snrq_sentencepieces *out)
{
    size_t bytes = 0;
    *out = (snrq_sentencepieces){0};
    SNRQ_TRY(snrq_file_read(path, MAX_FILE, &out->file, &bytes));
    const message all = {.data = out->file, .bytes = bytes};
    snrq_status status = read_pieces(path, all, NULL, &out->count);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)out->count, sizeof *out->pieces, "pieces", &out->pieces);
    if (status == SNRQ_OK) status = read_pieces(path, all, out->pieces, &out->count);
    if (status != SNRQ_OK) snrq_sentencepieces_free(out);
    return status;
}

void snrq_sentencepieces_free(snrq_sentencepieces *pieces)
{
    free(pieces->pieces);
    free(pieces->file);
    *pieces = (snrq_sentencepieces){0};
}
