/* tokenizer.json: text to token ids and back (byte pair encoding: SentencePiece-style with byte
 * fallback, and byte-level).
 *
 * Algorithm: added tokens are cut out (leftmost, longest), the rest is normalized and cut into
 * words, and each word is merged, a long one with a heap of (rank, position), so that a text of n
 * bytes as one word takes O(n log n). Source: the tokenizer.json of Hugging Face tokenizers.
 *
 * Memory: a tokenizer of 150 000 ids takes 30 MB, and about 60 MB more while its file is read.
 * Encoding takes 3 MB, the ids, two copies of the longest piece without added tokens if it is
 * normalized, and about 30 bytes for each byte of the longest stretch whose characters merges can
 * join, which is a word in common text.
 */
#ifndef SNRQ_TOKENIZER_H
#define SNRQ_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "mpi/status.h"

typedef struct snrq_tokenizer snrq_tokenizer;

/* Reads DIRECTORY/tokenizer.json, and what tokenizer_config.json says about tokens around a text
 * (settings.h). Not collective. What the file asks for and this reader does not
 * know is refused by name. The caller destroys it. */
snrq_status snrq_tokenizer_read(const char *directory, snrq_tokenizer **out);
/* The same of the file's content `data` [bytes]; `path` is what messages call it. */
snrq_status snrq_tokenizer_parse(const char *path, const char *data, size_t bytes,
                                 snrq_tokenizer **out);
void snrq_tokenizer_destroy(snrq_tokenizer **tokenizer);

/* Encodes `bytes` bytes of UTF-8 text. special: add what the post-processor adds (BOS). *ids
 * [*count] is allocated; the caller frees it. Invalid UTF-8 is SNRQ_BAD_DATA with the byte
 * position. */
snrq_status snrq_tokenizer_encode(const snrq_tokenizer *tokenizer, const char *text, size_t bytes,
                                  bool special, int32_t **ids, int64_t *count);

/* Decodes ids to text (special tokens are skipped if skip_special). *text is allocated,
 * NUL-terminated, *bytes long. An id outside the vocabulary is SNRQ_BAD_DATA with its position. */
snrq_status snrq_tokenizer_decode(const snrq_tokenizer *tokenizer, const int32_t *ids,
                                  int64_t count, bool skip_special, char **text, size_t *bytes);

/* Leaves out what the post-processor puts around a text, where `ids` have just that at their
 * beginning and end: moves *ids and lowers *count. */
void snrq_tokenizer_trim(const snrq_tokenizer *tokenizer, const int32_t **ids, int64_t *count);

/* What stands for an empty text where a model must be given something: the token that
 * tokenizer_config.json calls bos_token, or else eos_token. -1: it names none that the vocabulary
 * has. */
int32_t snrq_tokenizer_start(const snrq_tokenizer *tokenizer);

/* Highest id + 1 over vocabulary and added tokens. */
int64_t snrq_tokenizer_size(const snrq_tokenizer *tokenizer);

#endif
