/* A text file in memory; see text_lines.h. */
#include "io/text_lines.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io/json_lines.h"
#include "io/text_file.h"

/* Far above any text of a data set, far below what would be mistaken for one. */
static const uint64_t max_text = (uint64_t)16 << 30;
enum { HEAD = 1 << 20, /* what a file is, is seen in so many bytes */ MAX_LINE = 1 << 30 };

struct snrq_text_lines {
    const char *path; /* borrowed */
    snrq_text_file *file;
    char *data;              /* [room] owned: the part of the file that is in memory */
    size_t begin, end, room; /* bytes [begin, end) are still to be used */
    bool complete;           /* the file has no others */
    bool mark;               /* it began with a byte order mark */
    int64_t number;          /* of the last line */
};

static snrq_status reserve(snrq_text_lines *l, size_t room)
{
    return snrq_grow(room, 1, "text", &l->data, &l->room);
}

/* Reads on behind what is there, at least a byte if there is one. */
static snrq_status read_more(snrq_text_lines *l)
{
    size_t got;
    if (l->begin > 0) memmove(l->data, l->data + l->begin, l->end - l->begin);
    l->end -= l->begin;
    l->begin = 0;
    if (l->end == l->room) SNRQ_TRY(reserve(l, 2 * l->room));
    SNRQ_TRY(snrq_text_file_read(l->file, l->data + l->end, l->room - l->end, &got));
    l->complete = got < l->room - l->end;
    l->end += got;
    return SNRQ_OK;
}

/* Files that are no text, or not yet, and are given as one all the same. */
static snrq_status refuse_others(const char *path, const char *head, size_t bytes)
{
    static const struct {
        const char *magic;
        size_t at, bytes;
        const char *what;
    } others[] = {
        {"\xff\xfe", 0, 2, "is UTF-16, expected UTF-8: `iconv -f UTF-16 -t UTF-8` converts it"},
        {"\xfe\xff", 0, 2, "is UTF-16, expected UTF-8: `iconv -f UTF-16 -t UTF-8` converts it"},
        {"\x1f\x8b", 0, 2, "is gzip in gzip: unpack it once"},
        {"\x28\xb5\x2f\xfd", 0, 4, "is packed with Zstandard: `zstd -d` unpacks it"},
        {"BZh91AY&SY", 0, 10, "is packed with bzip2: `bunzip2` unpacks it"},
        {"\xfd"
         "7zXZ",
         0, 5, "is packed with xz: `unxz` unpacks it"},
        {"PK\x03\x04", 0, 4, "is a zip archive: `unzip` unpacks it"},
        {"ustar", 257, 5, "is a tar archive: `tar -xf` unpacks it"},
        {"PAR1", 0, 4,
         "is a Parquet file: write its texts as JSON lines (pandas: to_json with "
         "orient=\"records\", lines=True)"},
        {"ARROW1", 0, 6, "is an Arrow file: write its texts as JSON lines"},
        {"%PDF-", 0, 5, "is a PDF file: `pdftotext` extracts its text"},
        {"\x93NUMPY", 0, 6, "is a .npy file: token ids belong to --token-file"},
        {"version https://git-lfs.github.com/", 0, 35,
         "is a git-lfs pointer, not the file itself: `git lfs pull` fetches it"},
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (bytes >= others[i].at + others[i].bytes &&
            memcmp(head + others[i].at, others[i].magic, others[i].bytes) == 0)
            return snrq_fail(SNRQ_BAD_DATA, "%s: %s", path, others[i].what);
    return SNRQ_OK;
}

static snrq_status begin(snrq_text_lines *l)
{
    static const char mark[] = "\xef\xbb\xbf";
    uint64_t bytes = snrq_text_file_bytes(l->file);
    SNRQ_TRY(reserve(l, bytes < HEAD ? (size_t)bytes + 1 : HEAD));
    while (!l->complete && l->end < HEAD) SNRQ_TRY(read_more(l));
    SNRQ_TRY(refuse_others(l->path, l->data, l->end));
    l->mark = l->end >= 3 && memcmp(l->data, mark, 3) == 0;
    if (l->mark) l->begin = 3;
    return SNRQ_OK;
}

snrq_status snrq_text_lines_open(const char *path, snrq_text_lines **out)
{
    snrq_text_lines *l;
    *out = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *l, "text", &l));
    l->path = path;
    snrq_status status = snrq_text_file_open(path, max_text, &l->file);
    if (status == SNRQ_OK) status = begin(l);
    if (status != SNRQ_OK) snrq_text_lines_close(&l);
    *out = l;
    return status;
}

void snrq_text_lines_close(snrq_text_lines **lines)
{
    if (*lines == NULL) return;
    snrq_text_file_close(&(*lines)->file);
    free((*lines)->data);
    free(*lines);
    *lines = NULL;
}

bool snrq_text_lines_have_mark(const snrq_text_lines *l)
{
    return l->mark;
}

snrq_status snrq_text_lines_detect_json(const snrq_text_lines *l, bool *json)
{
    return snrq_json_lines_detect(l->path, l->data + l->begin, l->end - l->begin, l->complete,
                                  json);
}

snrq_status snrq_text_lines_next(snrq_text_lines *l, char **line, size_t *bytes, int64_t *number)
{
    char *newline;
    *line = NULL;
    if (l->begin == l->end && l->complete) return SNRQ_OK;
    l->number++;
    while ((newline = memchr(l->data + l->begin, '\n', l->end - l->begin)) == NULL &&
           !l->complete) {
        if (l->end - l->begin >= MAX_LINE)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: line %" PRId64 " is longer than %d bytes: cut the document",
                             l->path, l->number, (int)MAX_LINE);
        SNRQ_TRY(read_more(l));
    }
    if (l->begin == l->end) return SNRQ_OK;
    *line = l->data + l->begin;
    *bytes = newline != NULL ? (size_t)(newline - *line) : l->end - l->begin;
    *number = l->number;
    l->begin += *bytes + (newline != NULL);
    return SNRQ_OK;
}

snrq_status snrq_text_lines_all(snrq_text_lines *l, const char **text, size_t *bytes)
{
    if (!l->complete && !snrq_text_file_packed(l->file))
        SNRQ_TRY(reserve(l, (size_t)snrq_text_file_bytes(l->file) + 1));
    while (!l->complete) SNRQ_TRY(read_more(l));
    *text = l->data + l->begin;
    *bytes = l->end - l->begin;
    return SNRQ_OK;
}
