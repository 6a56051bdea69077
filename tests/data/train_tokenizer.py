#!/usr/bin/env python3
"""Train the byte-pair tokenizer of the bundled model and write it as
Hugging Face tokenizer.json of the SentencePiece-BPE (Llama 2) kind.

    train_tokenizer.py --text stories.txt --vocab 1024 --out model

Ids: 0 <unk>, 1 <s>, 2 </s>, 3..258 the bytes <0x00>..<0xFF>, then the merged
pieces in the order they were found, then the single characters by frequency.
Merging never crosses the start of a word (a piece holds U+2581 only in front)
and never joins letters with other characters, so encoding a whole text as one
word gives the same pieces as encoding word by word.  Newlines and everything
outside the alphabet go by bytes.  The merges list holds every way of splitting
every piece into two known pieces, in the order of the pieces, as files
converted from SentencePiece do.

Pure Python; takes well under a minute for a few megabytes of text.
"""
import argparse
import collections
import json
import os
import re

SPACE = "\u2581"
FIRST_PIECE = 259


def word_counts(text):
    """Units that merges stay inside: a run of letters or of other characters,
    with the U+2581 in front if there is one."""
    counts = collections.Counter()
    for line in text.split("\n"):
        for unit in re.findall(SPACE + r"?[A-Za-z]+|" + SPACE + r"?[^A-Za-z" + SPACE + r"]|" + SPACE,
                               line.replace(" ", SPACE)):
            counts[unit] += 1
        # the first word of a text has U+2581 in front of it, other lines have not
        first = re.match(r"[A-Za-z]+", line)
        if first:
            counts[SPACE + first.group(0)] += 1
    return counts


def learn(counts, n_pieces):
    """Greedy byte-pair merging; returns the new pieces in order."""
    words = [(list(w), c) for w, c in sorted(counts.items())]
    pair_count = collections.Counter()
    pair_words = collections.defaultdict(set)
    for i, (symbols, c) in enumerate(words):
        for pair in zip(symbols, symbols[1:]):
            pair_count[pair] += c
            pair_words[pair].add(i)
    pieces, seen = [], set()
    while len(pieces) < n_pieces:
        best = max(pair_count.items(), key=lambda kv: (kv[1], kv[0]))
        (a, b), count = best
        if count < 2:
            break
        merged = a + b
        if merged not in seen:
            seen.add(merged)
            pieces.append(merged)
        for i in sorted(pair_words[(a, b)]):
            symbols, c = words[i]
            for pair in zip(symbols, symbols[1:]):
                pair_count[pair] -= c
                if pair_count[pair] <= 0:
                    del pair_count[pair]
            out, k = [], 0
            while k < len(symbols):
                if k + 1 < len(symbols) and symbols[k] == a and symbols[k + 1] == b:
                    out.append(merged)
                    k += 2
                else:
                    out.append(symbols[k])
                    k += 1
            words[i] = (out, c)
            for pair in zip(out, out[1:]):
                pair_count[pair] += c
                pair_words[pair].add(i)
        pair_words.pop((a, b), None)
        pair_count.pop((a, b), None)
    return pieces


def alphabet(counts):
    """Single characters by falling frequency; all of printable ASCII is in."""
    freq = collections.Counter()
    for unit, c in counts.items():
        for ch in unit:
            freq[ch] += c
    for code in range(0x21, 0x7f):
        freq[chr(code)] += 0
    return [ch for ch, _ in sorted(freq.items(), key=lambda kv: (-kv[1], kv[0]))]


def all_merges(pieces, vocab):
    """Every split of every piece into two entries of the vocabulary."""
    merges = []
    for piece in pieces:
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))
                  if piece[:i] in vocab and piece[i:] in vocab]
        splits.sort(key=lambda ab: (vocab[ab[0]], vocab[ab[1]]))
        merges += [a + " " + b for a, b in splits]
    return merges


def tokenizer_json(vocab, merges):
    special = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for i, t in enumerate(("<unk>", "<s>", "</s>"))]
    bos0 = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    bos1 = {"SpecialToken": {"id": "<s>", "type_id": 1}}
    seq_a = {"Sequence": {"id": "A", "type_id": 0}}
    seq_b = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": [bos0, seq_a],
                           "pair": [bos0, seq_a, bos1, seq_b],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": merges},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True)
    parser.add_argument("--vocab", type=int, default=1024)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    with open(args.text, encoding="utf-8", newline="") as f:
        counts = word_counts(f.read())
    chars = alphabet(counts)
    pieces = learn(counts, args.vocab - FIRST_PIECE - len(chars))
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in range(256):
        vocab["<0x%02X>" % byte] = 3 + byte
    for piece in pieces + chars:
        vocab[piece] = len(vocab)
    assert len(vocab) == args.vocab, len(vocab)
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(tokenizer_json(vocab, all_merges(pieces, vocab)), f, ensure_ascii=False, indent=1)
        f.write("\n")
    with open(os.path.join(args.out, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>",
                   "unk_token": "<unk>", "clean_up_tokenization_spaces": False, "model_max_length": 512,
                   "tokenizer_class": "LlamaTokenizer"}, f, indent=2)
        f.write("\n")
    print("%d pieces, %d characters, last pieces: %s" % (len(pieces), len(chars), " ".join(pieces[-20:])))


if __name__ == "__main__":
    main()
