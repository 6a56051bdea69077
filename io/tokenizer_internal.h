/* The parts of a tokenizer, shared by the tokenizer_*.c files; not for others.
 *
 * Text passes through them in this order (what the next kind of tokenizer adds goes to the same
 * places):
 *
 *     added tokens, normalized = false   tokenizer_added.c       cut out of the text as it is
 *     normalizer                         tokenizer_normalize.c   each piece between them
 *     added tokens, normalized = true    tokenizer_added.c       cut out of the normalized piece
 *     pre-tokenizer                      tokenizer_normalize.c   pieces into words
 *     model: vocabulary                  tokenizer_vocabulary.c  tokens, characters, merges
 *     model: byte pair encoding          tokenizer_bpe.c         words into ids
 *     post-processor                     tokenizer_template.c    ids before and after the text
 *     decoder                            tokenizer_decode.c      ids back into text
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
#include "io/tokenizer.h"
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

/* Bytes and ids that grow; zero-initialized is empty. Release with free(data). (tokenizer_text.c)
 */
typedef struct snrq_buffer {
    char *data;
    size_t used, capacity;
} snrq_buffer;

typedef struct snrq_ids {
    int32_t *data; /* [used] */
    int64_t used, capacity;
} snrq_ids;

snrq_status snrq_buffer_append(snrq_buffer *buffer, const char *data, size_t bytes);
snrq_status snrq_ids_append(snrq_ids *ids, int32_t id);

/* Position of the first byte that is not valid UTF-8, or `bytes`. */
size_t snrq_utf8_check(const char *text, size_t bytes);
/* The character at *position of valid UTF-8; moves *position behind it. */
uint32_t snrq_utf8_next(const char *text, size_t *position);
/* The start of the character that ends at `end` > 0. */
size_t snrq_utf8_before(const char *text, size_t end);
/* Unicode White_Space; what a regular expression calls \w. */
bool snrq_is_space(uint32_t character);
bool snrq_is_word(uint32_t character);

/* A hash map of integers, its capacity fixed at creation. Keys below UINT64_MAX. (tokenizer_map.c)
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
    snrq_map
        joins; /* pairs of one-character tokens that meet inside some merge (see tokenizer_bpe.c) */
    bool cuttable; /* joins may be relied upon */
} snrq_vocabulary;

snrq_status snrq_vocabulary_read(const char *file, const json_t *root, snrq_vocabulary *out);
void snrq_vocabulary_free(snrq_vocabulary *vocabulary);
/* Id of a token of the model, or -1. */
int32_t snrq_vocabulary_find(const snrq_vocabulary *vocabulary, const char *text, size_t bytes);
/* Enters an added token: a new one, or one that the model has under the same id. */
snrq_status snrq_vocabulary_add(const char *where, snrq_vocabulary *vocabulary, const char *text,
                                int32_t id, bool special);

/* Working memory of the byte pair encoding, kept from word to word. */
typedef struct snrq_bpe {
    struct snrq_symbol *symbols; /* [count] of the stretch being merged */
    size_t count, symbol_capacity;
    uint64_t *heap; /* [heap_count] rank << 32 | position */
    size_t heap_count, heap_capacity;
} snrq_bpe;

/* Appends the ids of one word to `out`. */
snrq_status snrq_bpe_encode(const snrq_vocabulary *vocabulary, snrq_bpe *work, const char *word,
                            size_t bytes, snrq_ids *out);
void snrq_bpe_free(snrq_bpe *work);

typedef struct snrq_replacement {
    char *from, *to; /* owned; from NULL: `to` is put before the text */
    size_t from_bytes, to_bytes;
} snrq_replacement;

typedef struct snrq_normalizer {
    snrq_replacement steps[SNRQ_MAX_STEPS];
    int count;
} snrq_normalizer;

typedef struct snrq_pre_tokenizer {
    enum { SNRQ_WHOLE, SNRQ_METASPACE } kind;
    enum { SNRQ_PREPEND_NEVER, SNRQ_PREPEND_FIRST, SNRQ_PREPEND_ALWAYS } prepend;
    snrq_replacement space; /* " " to the replacement character */
    bool split;             /* a word begins at every replacement character */
} snrq_pre_tokenizer;

snrq_status snrq_normalizer_read(const char *file, const json_t *root, snrq_normalizer *out);
void snrq_normalizer_free(snrq_normalizer *normalizer);
snrq_status snrq_pre_tokenizer_read(const char *file, const json_t *root, snrq_pre_tokenizer *out);
void snrq_replacement_free(snrq_replacement *replacement);
/* Reads {"pattern": {"String": ...}, "content": ...}. */
snrq_status snrq_replacement_read(const char *where, const json_t *object, snrq_replacement *out);
/* Appends `text` with every occurrence replaced. */
snrq_status snrq_replace(const snrq_replacement *replacement, const char *text, size_t bytes,
                         snrq_buffer *out);
/* Normalizes `text` into `out` (overwritten), with `scratch` as a second buffer. */
snrq_status snrq_normalize(const snrq_normalizer *normalizer, const char *text, size_t bytes,
                           snrq_buffer *out, snrq_buffer *scratch);
/* Prepares a piece for cutting into words; `first`: it begins where the whole text begins. */
snrq_status snrq_pre_tokenize(const snrq_pre_tokenizer *pre_tokenizer, const char *text,
                              size_t bytes, bool first, snrq_buffer *out);
/* End of the word that begins at `begin` < bytes. */
size_t snrq_word_end(const snrq_pre_tokenizer *pre_tokenizer, const char *text, size_t bytes,
                     size_t begin);

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

typedef struct snrq_piece {
    size_t begin, end;
    int32_t id; /* of an added token; -1: text */
} snrq_piece;

typedef struct snrq_pieces {
    snrq_piece *data; /* [used] */
    size_t used, capacity;
} snrq_pieces;

/* Reads added_tokens into two sets, entering each in the vocabulary; those with normalized = true
 * are looked for in their normalized spelling. */
snrq_status snrq_added_read(const char *file, const json_t *root, const snrq_normalizer *normalizer,
                            snrq_vocabulary *vocabulary, snrq_added_set *raw,
                            snrq_added_set *normalized);
void snrq_added_free(snrq_added_set *set);
/* Cuts `text` at the added tokens, leftmost first, longest first; appends no empty piece. */
snrq_status snrq_added_cut(const snrq_added_set *set, const char *text, size_t bytes,
                           snrq_pieces *out);

typedef struct snrq_template {
    snrq_ids before, after;
} snrq_template;

snrq_status snrq_template_read(const char *file, const json_t *root,
                               const snrq_vocabulary *vocabulary, snrq_template *out);
void snrq_template_free(snrq_template *post);

typedef struct snrq_decoder_step {
    enum {
        SNRQ_DECODE_REPLACE,
        SNRQ_DECODE_BYTES,
        SNRQ_DECODE_FUSE,
        SNRQ_DECODE_STRIP,
        SNRQ_DECODE_METASPACE
    } kind;
    snrq_replacement replacement; /* REPLACE; STRIP and METASPACE: from is the character */
    int64_t start, stop;          /* STRIP: most characters at either end */
    bool drop_first;              /* METASPACE: the first token's replacement characters vanish */
} snrq_decoder_step;

typedef struct snrq_decoder {
    snrq_decoder_step steps[SNRQ_MAX_STEPS];
    int count;
    bool present; /* without a decoder, tokens are joined by spaces */
} snrq_decoder;

snrq_status snrq_decoder_read(const char *file, const json_t *root, snrq_decoder *out);
void snrq_decoder_free(snrq_decoder *decoder);
/* Appends the text of the tokens; every id must be present in the vocabulary. */
snrq_status snrq_decode(const snrq_decoder *decoder, const snrq_vocabulary *vocabulary,
                        const int32_t *ids, int64_t count, bool skip_special, snrq_buffer *out);

struct snrq_tokenizer {
    snrq_vocabulary vocabulary;
    snrq_added_set raw, normalized;
    snrq_normalizer normalizer;
    snrq_pre_tokenizer pre_tokenizer;
    snrq_template post;
    snrq_decoder decoder;
};

#endif
