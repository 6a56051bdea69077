/* The bytes of a text file; see text_file.h. gzip: RFC 1952, unpacked by zlib. */
#include "io/text_file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "io/file.h"

enum {
    PACKED_BUFFER = 256 << 10,
    GZIP_WINDOW = 15 + 16,    /* the largest window, and gzip around it */
    UNPACK_AT_ONCE = 1 << 30, /* zlib counts in unsigned int */
    MOST_TIGHTLY = 200        /* text of gzip's best is a tenth of this, the format's limit 1032 */
};
/* How tightly it is packed is looked at from here on. */
static const uint64_t tight_from = (uint64_t)64 << 20;

struct snrq_text_file {
    const char *path; /* borrowed */
    int fd;
    uint64_t bytes, at;   /* of the file: all, read */
    uint64_t limit, text; /* of the text: at most, delivered */
    bool packed, ended;   /* ended: no member is open */
    z_stream stream;
    unsigned char *buffer; /* [room] owned; NULL if it is not packed */
    size_t room;
};

snrq_status snrq_text_file_open(const char *path, uint64_t limit, snrq_text_file **out)
{
    snrq_text_file *f;
    unsigned char magic[2] = {0};
    *out = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *f, "text file", &f));
    f->path = path;
    f->fd = -1;
    f->limit = limit;
    snrq_status status = snrq_file_open(path, &f->fd, &f->bytes);
    if (status == SNRQ_OK && f->bytes >= sizeof magic)
        status = snrq_file_read_at(f->fd, path, 0, magic, sizeof magic);
    f->packed = magic[0] == 0x1f && magic[1] == 0x8b;
    if (status == SNRQ_OK && f->bytes > limit)
        status = snrq_fail(SNRQ_BAD_DATA, "%s: %" PRIu64 " bytes, expected at most %" PRIu64, path,
                           f->bytes, limit);
    f->room = f->bytes < PACKED_BUFFER ? (size_t)f->bytes : PACKED_BUFFER;
    if (status == SNRQ_OK && f->packed)
        status = snrq_allocate(f->room, 1, "buffer to unpack from", &f->buffer);
    if (status == SNRQ_OK && f->packed && inflateInit2(&f->stream, GZIP_WINDOW) != Z_OK) {
        status = snrq_fail(SNRQ_INTERNAL, "%s: no memory to unpack it", path);
        free(f->buffer);
        f->buffer = NULL;
    }
    if (status != SNRQ_OK) snrq_text_file_close(&f);
    *out = f;
    return status;
}

void snrq_text_file_close(snrq_text_file **file)
{
    snrq_text_file *f = *file;
    if (f == NULL) return;
    if (f->buffer != NULL) inflateEnd(&f->stream);
    if (f->fd >= 0) close(f->fd);
    free(f->buffer);
    free(f);
    *file = NULL;
}

bool snrq_text_file_packed(const snrq_text_file *f)
{
    return f->packed;
}

uint64_t snrq_text_file_bytes(const snrq_text_file *f)
{
    return f->bytes;
}

static snrq_status read_as_it_is(snrq_text_file *f, void *out, size_t room, size_t *got)
{
    uint64_t left = f->bytes - f->at;
    *got = left < room ? (size_t)left : room;
    SNRQ_TRY(snrq_file_read_at(f->fd, f->path, f->at, out, *got));
    f->at += *got;
    return SNRQ_OK;
}

/* The next packed bytes, once there are none left. */
static snrq_status refill(snrq_text_file *f)
{
    size_t got;
    if (f->stream.avail_in > 0) return SNRQ_OK;
    SNRQ_TRY(read_as_it_is(f, f->buffer, f->room, &got));
    f->stream.next_in = f->buffer;
    f->stream.avail_in = (uInt)got;
    return SNRQ_OK;
}

/* Byte of the file that is unpacked next. */
static uint64_t position(const snrq_text_file *f)
{
    return f->at - f->stream.avail_in;
}

/* After a member: the next one, or the end of the file. */
static snrq_status begin_member(snrq_text_file *f, bool *more)
{
    *more = false;
    for (;;) {
        SNRQ_TRY(refill(f));
        if (f->stream.avail_in == 0) return SNRQ_OK;
        if (*f->stream.next_in != 0) break;
        f->stream.next_in++;
        f->stream.avail_in--;
    }
    if (*f->stream.next_in != 0x1f)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: byte %" PRIu64
                         " is after the end of the gzip data and begins no more of it: expected "
                         "the end of the file; is it complete and the right one?",
                         f->path, position(f));
    inflateReset(&f->stream);
    f->ended = false;
    *more = true;
    return SNRQ_OK;
}

/* What zlib's answer means that is neither progress nor the end of a member. */
static snrq_status refuse(const snrq_text_file *f, int answer)
{
    if (answer == Z_MEM_ERROR)
        return snrq_fail(SNRQ_INTERNAL, "%s: no memory to unpack it", f->path);
    if (answer == Z_BUF_ERROR && f->at == f->bytes)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: the gzip data ends too early, after %" PRIu64
                         " bytes: the file was cut; copy it again",
                         f->path, f->bytes);
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: the gzip data is damaged before byte %" PRIu64
                     " (%s): copy the file again; `gzip -t` tests it",
                     f->path, position(f), f->stream.msg != NULL ? f->stream.msg : "zlib says no");
}

static snrq_status check_size(const snrq_text_file *f)
{
    if (f->text > f->limit)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: %" PRIu64 " bytes of gzip become more than %" PRIu64
                         " bytes of text: expected at most that; use a part of it",
                         f->path, position(f), f->limit);
    if (f->text > tight_from && f->text / MOST_TIGHTLY > position(f))
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: %" PRIu64 " bytes of gzip become %" PRIu64
                         " bytes and more: expected at most %d times as many, as no text is "
                         "packed so tightly; if it is one all the same, unpack it with gunzip",
                         f->path, position(f), f->text, MOST_TIGHTLY);
    return SNRQ_OK;
}

static snrq_status unpack(snrq_text_file *f, unsigned char *out, size_t room, size_t *got)
{
    bool more = true;
    while (*got < room) {
        if (f->ended) {
            SNRQ_TRY(begin_member(f, &more));
            if (!more) return SNRQ_OK;
        }
        SNRQ_TRY(refill(f));
        size_t piece = room - *got < UNPACK_AT_ONCE ? room - *got : UNPACK_AT_ONCE;
        f->stream.next_out = out + *got;
        f->stream.avail_out = (uInt)piece;
        int answer = inflate(&f->stream, Z_NO_FLUSH);
        *got += piece - f->stream.avail_out;
        f->text += piece - f->stream.avail_out;
        if (answer != Z_OK && answer != Z_STREAM_END) return refuse(f, answer);
        f->ended = answer == Z_STREAM_END;
        SNRQ_TRY(check_size(f));
    }
    return SNRQ_OK;
}

snrq_status snrq_text_file_read(snrq_text_file *f, void *out, size_t room, size_t *got)
{
    *got = 0;
    if (!f->packed) return read_as_it_is(f, out, room, got);
    snrq_status status = unpack(f, out, room, got);
    if (status != SNRQ_OK) *got = 0;
    return status;
}
