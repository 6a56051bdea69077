/* The parts of a tokenizer, shared by the files of this folder; not for others.
 *
 * Text passes through them in this order:
 *
 *     added tokens, normalized = false   added.c                 cut out of the text as it is
 *     normalizer                         normalize.c             each piece between them
 *       Unicode normalization forms      unicode.c
 *     added tokens, normalized = true    added.c                 cut out of the normalized piece
 *     pre-tokenizer                      words.c                 pieces into words
 *       cuts at a pattern                split.c                 its spelling: regex.c
 *       byte-level text                  bytes.c
 *     model: vocabulary                  vocabulary.c            tokens, characters, merges
 *     model: byte pair encoding          bpe.c                   words into ids
 *       words seen before                cache.c
 *     post-processor                     template.c              ids before and after the text
 *     decoder                            decode.c                ids back into text
 *
 * Strings from the file are UTF-8 without NUL. Limits on them keep a hostile file from making work
 * or memory grow out of proportion; real files are far below.
 */
#ifndef SNRQ_TOKENIZER_INTERNAL_H
#define SNRQ_TOKENIZER_INTERNAL_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "io/json.h"
#include "io/tokenizer/settings.h"
#include "io/tokenizer/tokenizer.h"
#include "mpi/status.h"

enum {
    SNRQ_MAX_TOKEN_ID = (1 << 22) - 1, /* the largest vocabularies have 2^18 tokens */
    SNRQ_MAX_ADDED_BYTES = 512,        /* of one added token: bounds the work per byte of text */
    SNRQ_MAX_STEPS = 16,               /* of normalizer or decoder, Sequences taken apart */
    SNRQ_MAX_DEPTH = 8,                /* of Sequences in Sequences */
    SNRQ_MAX_AFFIX = 256,              /* bytes of a prefix or replacement; ids around the text */
    SNRQ_MAX_GROWTH = 16,              /* times a text may become longer by normalizing */
    SNRQ_WHERE = PATH_MAX + 64         /* room for the `where` of json.h */
};

/* Bytes and ids that grow; zero-initialized is empty. Release with free(data). (text.c)
 */
typedef struct snrq_buffer {
    char *data;
    size_t used, capacity;
} snrq_buffer;

typedef struct snrq_ids {
    int32_t *data; /* [used] */
    int64_t used;
    size_t capacity;
} snrq_ids;

snrq_status snrq_buffer_append(snrq_buffer *buffer, const char *data, size_t bytes);
snrq_status snrq_ids_append(snrq_ids *ids, int32_t id);
/* Makes room for `bytes` more bytes. */
snrq_status snrq_buffer_reserve(snrq_buffer *buffer, size_t bytes);

/* Position of the first byte that is not valid UTF-8, or `bytes`. */
size_t snrq_utf8_check(const char *text, size_t bytes);
/* Appends `text` with what is not valid UTF-8 replaced by U+FFFD, one for each longest beginning of
 * a character (Unicode standard, 3.9, "substitution of maximal subparts"). */
snrq_status snrq_utf8_repair(const char *text, size_t bytes, snrq_buffer *out);
/* The character at *position of valid UTF-8; moves *position behind it. */
uint32_t snrq_utf8_next(const char *text, size_t *position);
/* The start of the character that ends at `end` > 0. */
size_t snrq_utf8_before(const char *text, size_t end);
/* Unicode White_Space; what a regular expression calls \w. */
bool snrq_is_space(uint32_t character);
bool snrq_is_word(uint32_t character);

/* A hash map of integers, its capacity fixed at creation. Keys below UINT64_MAX. (map.c)
 */
typedef struct snrq_map_entry {
    uint64_t key, value;
} snrq_map_entry;

typedef struct snrq_map {
    snrq_map_entry *entries; /* [mask + 1]; unused: key UINT64_MAX */
    size_t mask;
} snrq_map;

/* `count`: most keys that will be put in. Release with free(entries). */
snrq_status snrq_map_create(size_t count, const char *what, snrq_map *map);
/* Adds or replaces. */
void snrq_map_put(snrq_map *map, uint64_t key, uint64_t value);
/* The value, or UINT64_MAX if the key is absent. */
uint64_t snrq_map_get(const snrq_map *map, uint64_t key);

typedef struct snrq_token_text {
    size_t offset; /* in vocabulary.texts */
    uint32_t bytes;
    bool present, special,
        in_model; /* in_model: of the model's vocabulary, not only an added token */
} snrq_token_text;

typedef struct snrq_vocabulary {
    int64_t size;            /* highest id + 1, added tokens included */
    snrq_token_text *tokens; /* [size] */
    snrq_buffer texts;
    int32_t *slots; /* [slot_mask + 1] hash table: text -> id of the model's tokens; -1: unused */
    size_t slot_mask;
    snrq_map characters;   /* code point -> id, for tokens of one character */
    int32_t byte_ids[256]; /* of <0x00>..<0xFF> */
    int32_t unknown;       /* -1: none, characters without a token vanish */
    bool byte_fallback, fuse_unknown, ignore_merges;
    snrq_map merges; /* left id << 32 | right id -> rank << 32 | id of the result */
    snrq_map joins;  /* pairs of one-character tokens that meet inside some merge (see bpe.c) */
    bool cuttable;   /* joins may be relied upon */
} snrq_vocabulary;

snrq_status snrq_vocabulary_read(const char *file, const json_t *root, snrq_vocabulary *out);
void snrq_vocabulary_free(snrq_vocabulary *vocabulary);
/* Id of a token of the model, or -1. */
int32_t snrq_vocabulary_find(const snrq_vocabulary *vocabulary, const char *text, size_t bytes);
/* Id of a token, added ones included, by its text, or -1. Looks at all of them. */
int32_t snrq_vocabulary_named(const snrq_vocabulary *vocabulary, const char *text);
/* Enters an added token: a new one, or one that the model has under the same id. */
snrq_status snrq_vocabulary_add(const char *where, snrq_vocabulary *vocabulary, const char *text,
                                int32_t id, bool special);

/* Words and their ids, of a bounded number of words; zero-initialized keeps nothing. Keys are up to
 * SNRQ_CACHE_KEY bytes; those of one cache are of one kind. (cache.c) */
enum { SNRQ_CACHE_KEY = 64 };

typedef struct snrq_cache {
    struct snrq_cache_entry *entries;
} snrq_cache;

snrq_status snrq_cache_create(snrq_cache *out);
void snrq_cache_free(snrq_cache *cache);
/* Appends the ids of `key` to `out` if it is known. */
snrq_status snrq_cache_find(snrq_cache *cache, const void *key, size_t bytes, snrq_ids *out,
                            bool *found);
/* Notes the ids from `first` to the end. */
void snrq_cache_put(snrq_cache *cache, const void *key, size_t bytes, const snrq_ids *ids,
                    int64_t first);

/* Working memory of the byte pair encoding, kept from word to word. */
typedef struct snrq_bpe {
    struct snrq_symbol *symbols; /* [count] of the stretch being merged */
    size_t count, symbol_capacity;
    uint64_t *heap; /* [heap_count] rank << 32 | position */
    size_t heap_count, heap_capacity;
    snrq_cache stretches; /* by the ids of their symbols */
} snrq_bpe;

/* Appends the ids of one word to `out`. */
snrq_status snrq_bpe_encode(const snrq_vocabulary *vocabulary, snrq_bpe *work, const char *word,
                            size_t bytes, snrq_ids *out);
void snrq_bpe_free(snrq_bpe *work);

typedef struct snrq_replacement {
    char *from, *to; /* owned; from NULL: `to` is put before the text */
    size_t from_bytes, to_bytes;
} snrq_replacement;

typedef enum snrq_unicode_form { SNRQ_NFC, SNRQ_NFD, SNRQ_NFKC, SNRQ_NFKD } snrq_unicode_form;

/* Appends the normal form of `text`. */
snrq_status snrq_unicode_normalize(snrq_unicode_form form, const char *text, size_t bytes,
                                   snrq_buffer *out);

typedef struct snrq_normalizer_step {
    enum { SNRQ_REPLACE, SNRQ_PREPEND, SNRQ_UNICODE } kind;
    snrq_replacement replacement; /* PREPEND: `to` only */
    snrq_unicode_form form;       /* UNICODE */
} snrq_normalizer_step;

typedef struct snrq_normalizer {
    snrq_normalizer_step steps[SNRQ_MAX_STEPS];
    int count;
} snrq_normalizer;

/* A pattern at whose matches text is cut. */
typedef struct snrq_split snrq_split;

/* literal: the pattern is a string, not a regular expression. */
snrq_status snrq_split_create(const char *where, const char *pattern, bool literal,
                              snrq_split **out);
void snrq_split_destroy(snrq_split **split);

/* Memory for matching, and the amount of work that may still be spent on it. */
typedef struct snrq_split_work snrq_split_work;
snrq_status snrq_split_work_create(snrq_split_work **out);
/* Allows the work of `bytes` more bytes of text. */
void snrq_split_work_add(snrq_split_work *work, size_t bytes);
void snrq_split_work_destroy(snrq_split_work **work);

/* A text being cut: {.split, .text, .bytes} and the rest zero at first. */
typedef struct snrq_cutting {
    const snrq_split *split; /* borrowed */
    const char *text;        /* [bytes] borrowed, valid UTF-8 */
    size_t bytes;
    size_t done; /* end of the last piece; `bytes`: all are told */
    size_t match_end, search;
    bool is_match; /* the last piece told; an empty match is none */
} snrq_cutting;

/* The next piece: a match, or what lies before the next one. Never empty while done < bytes. */
snrq_status snrq_split_next(snrq_cutting *cutting, snrq_split_work *work, size_t *begin,
                            size_t *end);

/* The characters that stand for bytes in byte-level text. */
typedef struct snrq_byte_alphabet {
    char text[256][2]; /* UTF-8 of the character of each byte */
    uint8_t length[256];
    int16_t bytes[324]; /* of each character; -1: it stands for none */
} snrq_byte_alphabet;

void snrq_byte_alphabet_create(snrq_byte_alphabet *out);
/* Appends the characters of all bytes. */
snrq_status snrq_bytes_spell(const snrq_byte_alphabet *alphabet, const char *text, size_t bytes,
                             snrq_buffer *out);
/* Appends the bytes that `text` stands for; text with any other character is appended as it is. */
snrq_status snrq_bytes_read(const snrq_byte_alphabet *alphabet, const char *text, size_t bytes,
                            snrq_buffer *out);

/* Cuts one inside the other, then what becomes of the pieces. */
typedef struct snrq_pre_tokenizer {
    snrq_split *splits[SNRQ_MAX_STEPS];
    enum { SNRQ_ALL_PIECES, SNRQ_MATCHES, SNRQ_GAPS } kept[SNRQ_MAX_STEPS]; /* others vanish */
    int count;
    int spaced; /* in front of which cut a piece gets a space if it begins with none; -1: nowhere */
    enum { SNRQ_PLAIN, SNRQ_METASPACE, SNRQ_BYTE_LEVEL } kind;
    enum { SNRQ_PREPEND_NEVER, SNRQ_PREPEND_FIRST, SNRQ_PREPEND_ALWAYS } prepend; /* METASPACE */
    snrq_replacement space; /* " " to the replacement character */
    bool cut_at_spaces;     /* a word begins at every replacement character */
} snrq_pre_tokenizer;

snrq_status snrq_normalizer_read(const char *file, const json_t *root, snrq_normalizer *out);
void snrq_normalizer_free(snrq_normalizer *normalizer);
void snrq_replacement_free(snrq_replacement *replacement);
/* Reads {"pattern": {"String": ...}, "content": ...}. */
snrq_status snrq_replacement_read(const char *where, const json_t *object, snrq_replacement *out);
/* Appends `text` with every occurrence replaced. */
snrq_status snrq_replace(const snrq_replacement *replacement, const char *text, size_t bytes,
                         snrq_buffer *out);
/* Normalizes `text` into `out` (overwritten), with `scratch` as a second buffer. */
snrq_status snrq_normalize(const snrq_normalizer *normalizer, const char *text, size_t bytes,
                           snrq_buffer *out, snrq_buffer *scratch);
/* Fills an empty replacement. Limits apply; `key` is what they are for. */
snrq_status snrq_replacement_set(const char *where, const char *key, const char *from,
                                 const char *to, snrq_replacement *out);
/* A key that holds just one character, as UTF-8 of *bytes bytes (borrowed). */
snrq_status snrq_json_character(const char *where, const json_t *object, const char *key,
                                const char **text, size_t *bytes);

snrq_status snrq_pre_tokenizer_read(const char *file, const json_t *root, snrq_pre_tokenizer *out);
void snrq_pre_tokenizer_free(snrq_pre_tokenizer *pre_tokenizer);

/* What receives the words of a piece, one after the other. */
typedef snrq_status (*snrq_word_function)(void *user, const char *word, size_t bytes);

/* Working memory of the pre-tokenizer; {.put, .user} and the rest zero is empty. */
typedef struct snrq_words {
    snrq_split_work *split;
    snrq_buffer spaced, replaced;
    snrq_word_function put;
    void *user;
} snrq_words;

/* Hands the words of a piece to work->put. `first`: the piece begins where the whole text does.
 * Words of a byte-level tokenizer are still plain bytes. */
snrq_status snrq_words_of(const snrq_pre_tokenizer *pre_tokenizer, snrq_words *work,
                          const char *text, size_t bytes, bool first);
void snrq_words_free(snrq_words *work);

typedef struct snrq_added_token {
    int32_t id;
    bool single_word, left_strip, right_strip;
} snrq_added_token;

/* A set of added tokens as a trie of their bytes. */
typedef struct snrq_added_set {
    snrq_added_token *tokens; /* [count] */
    size_t count;
    snrq_map edges;  /* node << 8 | byte -> node; the root is 0 */
    int32_t *ends;   /* [nodes] index of the token that ends here, or -1 */
    bool first[256]; /* bytes some token begins with */
} snrq_added_set;

typedef struct snrq_text_piece {
    size_t begin, end;
    int32_t id; /* of an added token; -1: text */
} snrq_text_piece;

typedef struct snrq_text_pieces {
    snrq_text_piece *data; /* [used] */
    size_t used, capacity;
} snrq_text_pieces;

/* Reads added_tokens into two sets, entering each in the vocabulary; those with normalized = true
 * are looked for in their normalized spelling. */
snrq_status snrq_added_read(const char *file, const json_t *root, const snrq_normalizer *normalizer,
                            snrq_vocabulary *vocabulary, snrq_added_set *raw,
                            snrq_added_set *normalized);
void snrq_added_free(snrq_added_set *set);
/* Cuts `text` at the added tokens, leftmost first, longest first; appends no empty piece. */
snrq_status snrq_added_cut(const snrq_added_set *set, const char *text, size_t bytes,
                           snrq_text_pieces *out);

typedef struct snrq_template {
    snrq_ids before, after;
} snrq_template;

snrq_status snrq_template_read(const char *file, const json_t *root,
                               const snrq_vocabulary *vocabulary, snrq_template *out);
/* Where tokenizer_config.json says whether its tokens are added, it decides (settings.h); a flag
 * without a token that the vocabulary has changes nothing. */
snrq_status snrq_template_overrule(const snrq_tokenizer_settings *settings,
                                   const snrq_tokenizer *tokenizer, snrq_template *out);
void snrq_template_free(snrq_template *post);

typedef struct snrq_token_decoder_step {
    enum {
        SNRQ_DECODE_REPLACE,
        SNRQ_DECODE_BYTES,
        SNRQ_DECODE_FUSE,
        SNRQ_DECODE_STRIP,
        SNRQ_DECODE_METASPACE,
        SNRQ_DECODE_BYTE_LEVEL
    } kind;
    snrq_replacement replacement; /* REPLACE; STRIP and METASPACE: from is the character */
    int64_t start, stop;          /* STRIP: most characters at either end */
    bool drop_first;              /* METASPACE: the first token's replacement characters vanish */
} snrq_token_decoder_step;

typedef struct snrq_token_decoder {
    snrq_token_decoder_step steps[SNRQ_MAX_STEPS];
    int count;
    bool present; /* without a decoder, tokens are joined by spaces */
} snrq_token_decoder;

snrq_status snrq_token_decoder_read(const char *file, const json_t *root, snrq_token_decoder *out);
void snrq_token_decoder_free(snrq_token_decoder *decoder);
/* Appends the text of the tokens; every id must be present in the vocabulary. */
snrq_status snrq_decode(const snrq_tokenizer *tokenizer, const int32_t *ids, int64_t count,
                        bool skip_special, snrq_buffer *out);

struct snrq_tokenizer {
    bool nul;      /* U+FFFF in the text of a token stands for U+0000 */
    int32_t start; /* -1: none */
    snrq_vocabulary vocabulary;
    snrq_added_set raw, normalized;
    snrq_normalizer normalizer;
    snrq_pre_tokenizer pre_tokenizer;
    snrq_byte_alphabet alphabet;
    snrq_template post;
    snrq_token_decoder decoder;
};

#endif
