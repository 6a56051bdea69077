"""Where llama.cpp cuts words: are its ids those of the tokenizer's own library, for every pattern that an export takes?

    PYTHON word_patterns.py SNRQ READER [PYTHON]     READER: readers/llama_cpp.py, run by the second PYTHON

PYTHON has the package tokenizers, the second one xllamacpp. The vocabulary has a token for every pair of bytes, merged
in a random order: nearly every cut at another place gives other ids, where a trained vocabulary hides most of them. For
each row of the table in io/gguf/tokenizer_rules.c without a difference, the ids must be equal; for each row with one,
export must refuse the tokenizer by that name.
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(TESTS, "end_to_end"))
import small_models  # noqa: E402

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES
QWEN_2 = LLAMA_3.replace("{1,3}", "")
QWEN_35 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + SPACES
JAIS_2 = LLAMA_3.replace(r"\s+(?!\S)|\s+", "|".join(r"\s{%d}(?!\S)" % n for n in (512, 256, 128, 64, 32, 16, 8, 4)) +
                         r"|\s{1,2}(?!\S)|\s{1}")
HAN = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
HAN_AND_OTHERS = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
DEEPSEEK = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
            " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
SPARK = DEEPSEEK.replace("[\r\n]*|\\s*[\r\n]+", "|[\r\n]")
SEED = CONTRACTIONS + ("|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\r\n]+|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
BAILING = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
EXAONE = CONTRACTIONS + (r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|"
                         r"\s*[\r\n]|\s+(?!\S)|\s+")
HORIZON = CONTRACTIONS + (r"|[^\r\n\p{L}\p{N}]?(?:\p{L}|\p{M}|\u200C|\u200D)+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" +
                          SPACES)
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def cased(end, digits):
    before = r"[^\r\n\p{L}\p{N}]?"
    return (before + UPPER + "*" + LOWER + "+" + end + "|" + before + UPPER + "+" + LOWER + "*" + end + "|" + digits +
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + SPACES)


YOUTU = ("[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
         "\ufe30-\ufe4f]+|[\u3105-\u312f]+|" + HAN)
GPT_4O = cased(CONTRACTIONS + "?", r"\p{N}{1,3}")
DIGITS, GPT_2 = {"type": "Digits", "individual_digits": True}, None

# (name, ignore_merges, cuts): a string is a Split, GPT_2 the pattern of ByteLevel. Spelled as published files have them.
EQUAL = [
    ("gpt-2", False, [GPT_2]), ("smollm", False, [DIGITS, GPT_2]), ("llama-bpe", True, [LLAMA_3]),
    ("dbrx", False, [LLAMA_3]), ("qwen2", False, [QWEN_2]), ("qwen35", False, [QWEN_35]),
    ("deepseek-v3", False, [r"\p{N}{1,3}", HAN, DEEPSEEK]), ("spark2_5", False, [r"\p{N}{1,3}", HAN, SPARK, DIGITS]),
    ("jais-2", False, [JAIS_2]), ("minicpm5", True, [r"\p{N}{1,3}", LLAMA_3.replace("{1,3}", "+")]),
    ("seed-coder", False, [SEED]), ("bailingmoe", False, [BAILING]), ("exaone-moe", False, [EXAONE]),
    ("k2-horizon", False, [HORIZON]), ("ufakzeka", False, [QWEN_2[len(CONTRACTIONS) + 1:]]), ("bloom", False, [BLOOM]),
    ("viking", False, [BLOOM, DIGITS])]
DIFFERENT = [
    ("deepseek-coder", False, ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN_AND_OTHERS, DIGITS]),
    ("superbpe", False, [r"\p{N}+", r"(?=(\d{3})+(?!\d))"]), ("tekken", True, [cased("", r"\p{N}")]),
    ("gpt-4o", False, [GPT_4O]),
    ("tiny_aya", False, [r"\d{1,3}(?=(?:\d{3})*\b)", GPT_4O]),
    ("youtu", True, [YOUTU, cased(CONTRACTIONS + "?", r"\p{N}")])]

PIECES = [" ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", " \n", "\u00a0", "\u3000", "\u2028", "\u0085", "'s", "'S", "'re",
          "'LL", "'d", "'tis", "1", "12", "123", "1234", "12345", "1234567", "3.14", "-7", "a", "B", "the", "The", "THE",
          "camelCase", "HTTPServer", "e\u0301", "\u0905\u093f", "\u200d", "\u200c", "\ufe0f", "!", "...", "!?", '"', "(",
          ")", "/", "//", "\n/", "_", "$", "+", "<=", "|", "~", "^", "`", "\u00b2", "\u00bd", "\u2167", "\u0663\u0664\u0665",
          "\u4e00\u4e8c", "\u3042\u30ab", "\ud55c\uae00", "\u0e01\u0e33", "\u041f\u0440\u0438\u0412", "\u00c9cole", "\u01c5",
          "\u02b0", "\u0345", "\U0001f600", "\u20ac", "\u3002", "\uff0c"]
SCRIPTS = [(0x20, 0x7f), (0xa0, 0x250), (0x370, 0x400), (0x400, 0x590), (0x590, 0x700), (0x900, 0xd80), (0xe00, 0xf00),
           (0x10a0, 0x1200), (0x1e00, 0x2000), (0x2000, 0x2c00), (0x3000, 0x3400), (0x4e00, 0x5000), (0xac00, 0xae00),
           (0xff00, 0xfff0), (0x1f300, 0x1f700), (0x10400, 0x10450)]


def random_texts(count):
    """Of characters that Unicode has assigned for years: newer ones differ between tables."""
    generator, kinds = random.Random(3), {}
    for code in range(1, 0x110000):
        kind = unicodedata.category(chr(code))
        if kind not in ("Cn", "Cs", "Co"):
            kinds.setdefault(kind, []).append(code)
    assigned, texts = {code for codes in kinds.values() for code in codes}, []
    for _ in range(count):
        parts = []
        for _ in range(generator.randint(1, 24)):
            choice = generator.random()
            if choice < 0.5:
                parts.append(generator.choice(PIECES))
            elif choice < 0.8:
                first, end = generator.choice(SCRIPTS)
                codes = [generator.randrange(first, end) for _ in range(generator.randint(1, 4))]
                parts.append("".join(chr(code) for code in codes if code in assigned))
            else:
                parts.append(chr(generator.choice(kinds[generator.choice(sorted(kinds))])))
        texts.append("".join(parts))
    return [text for text in dict.fromkeys(texts) if text]


def byte_alphabet():
    kept = set(range(33, 127)) | set(range(161, 173)) | set(range(174, 256))
    others = iter(range(256, 512))
    return [chr(byte) if byte in kept else chr(next(others)) for byte in range(256)]


def pair_tokenizer():
    alphabet = byte_alphabet()
    pairs = [(a, b) for a in alphabet for b in alphabet]
    random.Random(1).shuffle(pairs)
    tokens = alphabet + [a + b for a, b in pairs]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": {token: i for i, token in enumerate(tokens)}, "merges": [a + " " + b for a, b in pairs]}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": model}


def with_cuts(tokenizer, ignore_merges, cuts):
    steps = [cut if isinstance(cut, dict) else
             {"type": "Split", "pattern": {"Regex": cut}, "behavior": "Isolated", "invert": False}
             for cut in cuts if cut is not GPT_2]
    steps.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": GPT_2 in cuts})
    return dict(tokenizer, pre_tokenizer={"type": "Sequence", "pretokenizers": steps},
                model=dict(tokenizer["model"], ignore_merges=ignore_merges))


def export(snrq, model, tokenizer, directory):
    with open(os.path.join(model, "tokenizer.json"), "w") as f:
        json.dump(tokenizer, f)
    return subprocess.run([snrq, "export", model, "--format", "gguf", "-o", directory], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)


def ask(python, reader, jobs, folder):
    path, results = os.path.join(folder, "jobs"), os.path.join(folder, "results")
    with open(path, "w") as f:
        f.writelines(json.dumps(job) + "\n" for job in jobs)
    subprocess.run([python, reader, path, results], check=True)
    with open(results) as f:
        return [json.loads(line) for line in f][1:]


def main(snrq, reader, python=sys.executable, count="3000"):
    folder, texts, failed, jobs = tempfile.mkdtemp(prefix="word_patterns-"), random_texts(int(count)), 0, []
    plain = pair_tokenizer()
    config = dict(small_models.MISTRAL_WITH_WINDOW, vocab_size=len(plain["model"]["vocab"]), num_hidden_layers=1,
                  hidden_size=32, intermediate_size=32, sliding_window=None)
    model = small_models.write(os.path.join(folder, "model"), config)
    for name, ignore_merges, cuts in DIFFERENT:
        done = export(snrq, model, with_cuts(plain, ignore_merges, cuts), os.path.join(folder, "refused"))
        refused = done.returncode != 0 and ("name %s," % name).encode() in done.stdout
        failed += not refused
        print("%-24s %s" % (name, "refused" if refused else "NOT REFUSED: %r" % done.stdout[-300:]), flush=True)
    for name, ignore_merges, cuts in EQUAL:
        directory = os.path.join(folder, name)
        done = export(snrq, model, with_cuts(plain, ignore_merges, cuts), directory)
        if done.returncode != 0:
            raise SystemExit("%s: %s" % (name, done.stdout.decode()))
        path = os.path.join(directory, "model.gguf")
        with open(path, "rb") as f:
            if b"tokenizer.ggml.pre" + bytes([8, 0, 0, 0, len(name)] + 7 * [0]) + name.encode() not in f.read(1 << 24):
                raise SystemExit("%s: exported under another name" % name)
        jobs.append({"path": path, "texts": texts})
    for (name, ignore_merges, cuts), answer in zip(EQUAL, ask(python, reader, jobs, folder)):
        if "error" in answer:
            raise SystemExit("%s: %s" % (name, answer["error"]))
        expected = Tokenizer.from_str(json.dumps(with_cuts(plain, ignore_merges, cuts))).encode_batch(texts)
        wrong = [text for text, encoding, ids in zip(texts, expected, answer["ids"]) if encoding.ids != ids[-len(encoding.ids):]]
        failed += bool(wrong)
        print("%-24s %d of %d texts have the same ids %s" % (name, len(texts) - len(wrong), len(texts), wrong[:3]), flush=True)
    shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
