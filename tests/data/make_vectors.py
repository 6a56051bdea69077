#!/usr/bin/env python3
"""A plain tokenizer for SentencePiece-BPE tokenizer.json files, and the test
vectors made with it.

    make_vectors.py model/tokenizer.json --write vectors.jsonl
    make_vectors.py some/tokenizer.json --check some/vectors.jsonl

Each vector is one line {"text": ..., "ids": [...]} with special tokens on.
The encoder works by the definition: put the U+2581 in front, write spaces as
U+2581, split into characters (bytes for characters outside the vocabulary),
then again and again apply the merge of lowest rank, the leftmost one first,
looking at all pairs every time.
"""
import argparse
import json
import re
import sys

SPACE = "\u2581"


class Tokenizer:
    def __init__(self, path):
        with open(path, encoding="utf-8") as f:
            self.data = json.load(f)
        model = self.data["model"]
        self.vocab = model["vocab"]
        self.rank = {}
        for i, merge in enumerate(model["merges"]):
            a, b = merge.split(" ") if isinstance(merge, str) else merge
            self.rank.setdefault((a, b), i)
        self.special = {t["content"]: t["id"] for t in self.data["added_tokens"]}
        self.pieces = {i: p for p, i in self.vocab.items()}
        self.cache = {}

    def merge(self, text):
        """Ids of normalized text, by the definition; O(n^2)."""
        symbols = []
        for ch in text:
            if ch in self.vocab:
                symbols.append(ch)
            else:
                symbols += ["<0x%02X>" % b for b in ch.encode("utf-8")]
        while True:
            best, where = None, -1
            for i in range(len(symbols) - 1):
                rank = self.rank.get((symbols[i], symbols[i + 1]))
                if rank is not None and (best is None or rank < best):
                    best, where = rank, i
            if best is None:
                return [self.vocab[s] for s in symbols]
            symbols[where:where + 2] = [symbols[where] + symbols[where + 1]]

    def encode(self, text):
        """Ids of a text with <s> first."""
        ids = [self.special["<s>"]]
        pattern = "(" + "|".join(re.escape(t) for t in sorted(self.special, key=len, reverse=True)) + ")"
        for part in re.split(pattern, text):
            if part in self.special:
                ids.append(self.special[part])
            elif part:
                ids += self.merge(SPACE + part.replace(" ", SPACE))
        return ids

    def encode_fast(self, text, front=True):
        """The same for plain text, word by word; right for vocabularies whose
        pieces have U+2581 only in front.  No <s>; front: put U+2581 first."""
        text = (SPACE if front else "") + text.replace(" ", SPACE)
        ids = []
        for word in re.findall("\n|" + SPACE + "?[^\n" + SPACE + "]+|" + SPACE, text):
            if word not in self.cache:
                self.cache[word] = self.merge(word)
            ids += self.cache[word]
        return ids

    def decode(self, ids):
        """Text of ids, special tokens left out."""
        raw = b""
        for i in ids:
            piece = self.pieces[i]
            if piece in self.special:
                continue
            match = re.fullmatch("<0x([0-9A-F]{2})>", piece)
            raw += bytes([int(match.group(1), 16)]) if match else piece.replace(SPACE, " ").encode("utf-8")
        text = raw.decode("utf-8", "replace")
        return text[1:] if text.startswith(" ") else text


TEXTS = [
    "", " ", "  ", "   ", "     ", "\n", "\n\n", " \n", "\n ", "\t", "\t\tTab", "a\tb", "\r\n", "a", "A", ".", "0",
    "1234567890", "3.14 and 2,718", " leading", "trailing ", " both ", "two  spaces", "three   spaces here",
    "    four in front\n    and again", "line one\nline two\n\nline four", "Hello", "hello", "Hello, world!",
    "Once upon a time", "Once upon a time, there was a brave girl named Mia.",
    "\"Where is my red kite?\" asked Tom.", "\u201cOh no!\u201d cried Anna \u2014 and ran\u2026", "Anna\u2019s hat", "Anna's hat",
    "He gave the goat the silver bell, and the goat bleated gladly.",
    "The fox yelped.\nThe owl hooted.\n\nThe end.", "grandmother", "grandmothersgrandmothersgrandmothers",
    "Donaudampfschifffahrtsgesellschaft", "antidisestablishmentarianism is a long word",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "caf\u00e9 na\u00efve fa\u00e7ade", "cafe\u0301", "Gr\u00fc\u00dfe aus K\u00f6ln", "\u0437\u0434\u0440\u0430\u0432\u0441\u0442\u0432\u0443\u0439 \u043c\u0438\u0440",
    "\u4f60\u597d\uff0c\u4e16\u754c", "\u3053\u3093\u306b\u3061\u306f", "\u0645\u0631\u062d\u0628\u0627", "\U0001F600", "smile \U0001F600\U0001F680 rocket",
    "\U0001F468\u200D\U0001F469\u200D\U0001F467", "\u00a0\u2003\u3000", "\u2581", "a\u2581b", "\u2581\u2581 x", "\ufeffmark", "zero\u200bwidth",
    "<s>", "</s>", "a<s>b", "a <s> b", "<s> Once", "one</s><s>two", "<unk> <un> <S>", "<0x0A>", "< s >", "\u0000\u0001\u007f",
    "x = {\"key\": [1, 2]}; // code", "e^(i*pi) + 1 = 0 & 50% | ~#@$", "BIG LETTERS AND MiXeD", "the the the  the",
    "He said 'bazin fizu' twice: 'bazin fizu', 'bazin fizu'.",
    "There was a girl called Zoe who had four dogs. For her birthday Zoe got a tiny orange drum from her uncle. "
    "She beat it in the orchard early one Sunday. But suddenly the drum was gone. \"Hello, Zoe! Why are you so sad?\" "
    "chattered the squirrel.\nAnd there, behind the beehive, was the orange drum! Zoe gave the squirrel a few nuts.",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer")
    parser.add_argument("--write", metavar="FILE", help="write the vectors")
    parser.add_argument("--check", metavar="FILE", help="compare with vectors of a file")
    args = parser.parse_args()
    tokenizer = Tokenizer(args.tokenizer)
    if args.write:
        with open(args.write, "w", encoding="utf-8", newline="\n") as f:
            for text in TEXTS:
                f.write(json.dumps({"text": text, "ids": tokenizer.encode(text)}) + "\n")
        print("%d vectors" % len(TEXTS))
    if args.check:
        bad = count = 0
        with open(args.check, encoding="utf-8", newline="\n") as f:
            for line in f:
                vector = json.loads(line)
                count += 1
                if tokenizer.encode(vector["text"]) != vector["ids"]:
                    bad += 1
                    print("differs: %r" % vector["text"][:60])
        print("%d of %d vectors differ" % (bad, count))
        sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
