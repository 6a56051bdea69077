/* tokenizer.json: the public functions, and the order of the parts; see tokenizer.h,
 * internal.h.
 *
 * The keys truncation and padding are not obeyed: they are settings of a caller, kept in the file
 * by accident, and a whole text must not be cut by them.
 */
#include "io/tokenizer/tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/tokenizer/internal.h"
#include "io/tokenizer/nul.h"

enum {
    MAX_FILE = 256 << 20,
    WORTH_A_CACHE = 4096 /* bytes of text */
};

static snrq_status parts_read(const char *path, const json_t *root, snrq_tokenizer *out)
{
    snrq_byte_alphabet_create(&out->alphabet);
    SNRQ_TRY(snrq_normalizer_read(path, root, &out->normalizer));
    SNRQ_TRY(snrq_pre_tokenizer_read(path, root, &out->pre_tokenizer));
    SNRQ_TRY(snrq_vocabulary_read(path, root, &out->vocabulary));
    SNRQ_TRY(snrq_added_read(path, root, &out->normalizer, &out->vocabulary, &out->raw,
                             &out->normalized));
    SNRQ_TRY(snrq_template_read(path, root, &out->vocabulary, &out->post));
    return snrq_token_decoder_read(path, root, &out->decoder);
}

snrq_status snrq_tokenizer_parse(const char *path, const char *data, size_t bytes,
                                 snrq_tokenizer **out)
{
    json_t *root;
    snrq_tokenizer *tokenizer;
    bool nul;
    *out = NULL;
    SNRQ_TRY(snrq_tokenizer_json_parse(path, data, bytes, &root, &nul));
    snrq_status status = snrq_allocate(1, sizeof *tokenizer, "tokenizer", &tokenizer);
    if (status == SNRQ_OK) tokenizer->nul = nul;
    if (status == SNRQ_OK) tokenizer->start = -1;
    if (status == SNRQ_OK) status = parts_read(path, root, tokenizer);
    json_decref(root);
    if (status != SNRQ_OK) snrq_tokenizer_destroy(&tokenizer);
    *out = tokenizer;
    return status;
}

snrq_status snrq_tokenizer_read(const char *directory, snrq_tokenizer **out)
{
    char path[PATH_MAX], *data;
    size_t bytes;
    *out = NULL;
    SNRQ_TRY(snrq_path_join(directory, "tokenizer.json", path, sizeof path));
    SNRQ_TRY(snrq_file_read(path, MAX_FILE, &data, &bytes));
    snrq_tokenizer_settings settings = {.root = NULL};
    snrq_status status = snrq_tokenizer_parse(path, data, bytes, out);
    free(data);
    if (status == SNRQ_OK) status = snrq_tokenizer_settings_read(directory, &settings);
    if (status == SNRQ_OK) status = snrq_template_overrule(&settings, *out, &(*out)->post);
    if (status == SNRQ_OK && settings.bos != NULL)
        (*out)->start = snrq_vocabulary_named(&(*out)->vocabulary, settings.bos);
    if (status == SNRQ_OK && (*out)->start < 0 && settings.eos != NULL)
        (*out)->start = snrq_vocabulary_named(&(*out)->vocabulary, settings.eos);
    snrq_tokenizer_settings_free(&settings);
    if (status != SNRQ_OK) snrq_tokenizer_destroy(out);
    return status;
}

void snrq_tokenizer_destroy(snrq_tokenizer **tokenizer)
{
    if (*tokenizer == NULL) return;
    snrq_normalizer_free(&(*tokenizer)->normalizer);
    snrq_pre_tokenizer_free(&(*tokenizer)->pre_tokenizer);
    snrq_vocabulary_free(&(*tokenizer)->vocabulary);
    snrq_added_free(&(*tokenizer)->raw);
    snrq_added_free(&(*tokenizer)->normalized);
    snrq_template_free(&(*tokenizer)->post);
    snrq_token_decoder_free(&(*tokenizer)->decoder);
    free(*tokenizer);
    *tokenizer = NULL;
}

int32_t snrq_tokenizer_start(const snrq_tokenizer *tokenizer)
{
    return tokenizer->start;
}

int64_t snrq_tokenizer_size(const snrq_tokenizer *tokenizer)
{
    return tokenizer->vocabulary.size;
}

/* Buffers of one encoding, reused from piece to piece. */
typedef struct encoding {
    const snrq_tokenizer *tokenizer;
    snrq_text_pieces raw, normalized;
    snrq_buffer text, scratch, spelled;
    snrq_words words;
    snrq_cache cache; /* of byte-level words */
    snrq_bpe bpe;
    snrq_ids ids;
} encoding;

/* A word with U+0000 as the vocabulary spells it (nul.h). */
static snrq_status encode_with_nul(encoding *work, const char *word, size_t bytes)
{
    work->spelled.used = 0;
    for (size_t i = 0; i < bytes; i++)
        SNRQ_TRY(word[i] == '\0' ? snrq_buffer_append(&work->spelled, SNRQ_NUL_TEXT, SNRQ_NUL_BYTES)
                                 : snrq_buffer_append(&work->spelled, word + i, 1));
    return snrq_bpe_encode(&work->tokenizer->vocabulary, &work->bpe, work->spelled.data,
                           work->spelled.used, &work->ids);
}

/* One word: byte pair encoding, after byte-level spelling where that is asked for. */
static snrq_status encode_word(void *user, const char *word, size_t bytes)
{
    encoding *work = user;
    const snrq_tokenizer *tokenizer = work->tokenizer;
    const snrq_vocabulary *vocabulary = &tokenizer->vocabulary;
    bool known;
    if (tokenizer->pre_tokenizer.kind != SNRQ_BYTE_LEVEL)
        return tokenizer->nul && memchr(word, '\0', bytes) != NULL
                   ? encode_with_nul(work, word, bytes)
                   : snrq_bpe_encode(vocabulary, &work->bpe, word, bytes, &work->ids);
    SNRQ_TRY(snrq_cache_find(&work->cache, word, bytes, &work->ids, &known));
    if (known) return SNRQ_OK;
    int64_t before = work->ids.used;
    work->spelled.used = 0;
    SNRQ_TRY(snrq_bytes_spell(&tokenizer->alphabet, word, bytes, &work->spelled));
    SNRQ_TRY(snrq_bpe_encode(vocabulary, &work->bpe, work->spelled.data, work->spelled.used,
                             &work->ids));
    snrq_cache_put(&work->cache, word, bytes, &work->ids, before);
    return SNRQ_OK;
}

/* A stretch without added tokens of the raw kind: normalization, and the added tokens of the other
 * kind. */
static snrq_status encode_stretch(encoding *work, const char *text, size_t bytes, bool first)
{
    const snrq_tokenizer *tokenizer = work->tokenizer;
    if (tokenizer->normalizer.count > 0) {
        SNRQ_TRY(snrq_normalize(&tokenizer->normalizer, text, bytes, &work->text, &work->scratch));
        text = work->text.data;
        bytes = work->text.used;
    }
    work->normalized.used = 0;
    SNRQ_TRY(snrq_added_cut(&tokenizer->normalized, text, bytes, &work->normalized));
    for (size_t i = 0; i < work->normalized.used; i++) {
        snrq_text_piece piece = work->normalized.data[i];
        if (piece.id >= 0)
            SNRQ_TRY(snrq_ids_append(&work->ids, piece.id));
        else
            SNRQ_TRY(snrq_words_of(&tokenizer->pre_tokenizer, &work->words, text + piece.begin,
                                   piece.end - piece.begin, first && piece.begin == 0));
    }
    return SNRQ_OK;
}

static snrq_status encode_all(encoding *work, const char *text, size_t bytes, bool special)
{
    const snrq_template *post = &work->tokenizer->post;
    for (int64_t i = 0; special && i < post->before.used; i++)
        SNRQ_TRY(snrq_ids_append(&work->ids, post->before.data[i]));
    SNRQ_TRY(snrq_added_cut(&work->tokenizer->raw, text, bytes, &work->raw));
    for (size_t i = 0; i < work->raw.used; i++) {
        snrq_text_piece piece = work->raw.data[i];
        if (piece.id >= 0)
            SNRQ_TRY(snrq_ids_append(&work->ids, piece.id));
        else
            SNRQ_TRY(encode_stretch(work, text + piece.begin, piece.end - piece.begin,
                                    piece.begin == 0));
    }
    for (int64_t i = 0; special && i < post->after.used; i++)
        SNRQ_TRY(snrq_ids_append(&work->ids, post->after.data[i]));
    return SNRQ_OK;
}

snrq_status snrq_tokenizer_encode(const snrq_tokenizer *tokenizer, const char *text, size_t bytes,
                                  bool special, int32_t **ids, int64_t *count)
{
    *ids = NULL;
    *count = 0;
    size_t valid = snrq_utf8_check(text, bytes);
    if (valid < bytes)
        return snrq_fail(SNRQ_BAD_DATA,
                         "byte %zu of the text is not valid UTF-8 (0x%02x): convert the text first",
                         valid, (unsigned)(unsigned char)text[valid]);
    if (tokenizer->nul && snrq_nul_stands_in(text, bytes))
        return snrq_fail(SNRQ_BAD_DATA,
                         "the text has U+FFFF, which stands for U+0000 in this tokenizer");
    encoding work = {.tokenizer = tokenizer};
    work.words = (snrq_words){.put = encode_word, .user = &work};
    snrq_status status = SNRQ_OK;
    if (bytes >= WORTH_A_CACHE)
        status = snrq_cache_create(
            tokenizer->pre_tokenizer.kind == SNRQ_BYTE_LEVEL ? &work.cache : &work.bpe.stretches);
    if (status == SNRQ_OK) status = encode_all(&work, text, bytes, special);
    /* An empty result is a pointer that can be freed, too. */
    if (status == SNRQ_OK && work.ids.data == NULL)
        status = snrq_allocate(1, sizeof **ids, "token ids", &work.ids.data);
    free(work.raw.data);
    free(work.normalized.data);
    free(work.text.data);
    free(work.scratch.data);
    free(work.spelled.data);
    snrq_words_free(&work.words);
    snrq_cache_free(&work.cache);
    snrq_bpe_free(&work.bpe);
    if (status != SNRQ_OK) {
        free(work.ids.data);
        return status;
    }
    *ids = work.ids.data;
    *count = work.ids.used;
    return SNRQ_OK;
}

snrq_status snrq_tokenizer_decode(const snrq_tokenizer *tokenizer, const int32_t *ids,
                                  int64_t count, bool skip_special, char **text, size_t *bytes)
{
    const snrq_vocabulary *vocabulary = &tokenizer->vocabulary;
    *text = NULL;
    *bytes = 0;
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= vocabulary->size || !vocabulary->tokens[ids[i]].present)
            return snrq_fail(SNRQ_BAD_DATA,
                             "token %" PRId64 " is id %" PRId32
                             ", which the tokenizer does not have (it has %" PRId64 " ids)",
                             i, ids[i], vocabulary->size);
    snrq_buffer out = {0};
    snrq_status status = snrq_decode(tokenizer, ids, count, skip_special, &out);
    if (status == SNRQ_OK) status = snrq_buffer_append(&out, "", 1);
    if (status != SNRQ_OK) {
        free(out.data);
        return status;
    }
    *text = out.data;
    *bytes = out.used - 1;
    return SNRQ_OK;
}

void snrq_tokenizer_trim(const snrq_tokenizer *tokenizer, const int32_t **ids, int64_t *count)
{
    const snrq_ids *before = &tokenizer->post.before, *after = &tokenizer->post.after;
    int64_t left = *count - before->used - after->used;
    if (left < 0) return;
    for (int64_t i = 0; i < before->used; i++)
        if ((*ids)[i] != before->data[i]) return;
    for (int64_t i = 0; i < after->used; i++)
        if ((*ids)[before->used + left + i] != after->data[i]) return;
    *ids += before->used;
    *count = left;
}
