"""What the pages quote from the code is what the code says: numbers, options, files, links.

A row of QUOTES is a page and a pattern there, a source file and a pattern there. Both patterns have one group, both match
exactly once (blanks and line ends are one blank), and the groups are equal, or equal after `said` has turned the group of
the source into the words of the page. A page or a source that was reworded needs a new pattern here. Only Python's own
modules are needed.
"""
import re
import sys
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "tests/data/README.md"] + sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))
WORDS = "zero one two three four five six seven eight nine ten".split()

# Options of other programs that the pages name.
FOREIGN = set("""--version --workflow --preset --build --install --prefix --target --nodes --ntasks-per-node --cpus-per-task --mem --mpi
                 --signal --bind-to --map-by --shm-size --print --help --all --only --seed --bytes --vocab --out --train
                 --valid --heldout --batch --lr --minutes --steps --resume --write --check --report --test-dir
                  --output-on-failure --engine --model --local --ranks
                  --cpu-limit --table --completion --manual --local-dir --port --robot --sourcepath --check-style --validate
                  --config --bind --env --contain --setvar --dry-run --libs --time --max-model-len""".split())

Quote = namedtuple("Quote", "page said_there source defined_there said", defaults=[str])


def word(number):
    return WORDS[int(number)] if int(number) < len(WORDS) else str(number)


def minutes(seconds):
    return word(int(seconds) // 60) if int(seconds) % 60 == 0 else "%s seconds" % seconds


def option(name):
    """The default in the table of options."""
    return r'\{"%s", [^{}]*?FIELD\(\w+\), "([^"]*)"' % name


def baseline(name):
    """The default of the methods that are compared with."""
    return r'\{"%s", "(\w+)", "for ' % name


def bits_per_weight(weights):
    return lambda block_bytes: "%.16g" % (8 * int(block_bytes) / weights)


METHOD, OPERATIONS, EXPORTING = "docs/method.md", "docs/operations.md", "docs/exporting.md"
GGUF, FORMAT, DATA = "docs/gguf.md", "docs/format.md", "tests/data/README.md"
OPTIONS, GIVEN = "pipeline/options/table.c", "pipeline/options/options.c"
GRAM, FACTOR, GRIDS = "mpi/algebra/gram.c", "mpi/algebra/factor.c", "pipeline/rounding/quant_grid.c"
LAYOUT, CONFIG = "io/gguf/layout.h", "tests/data/model/config.json"

QUOTES = [Quote(*row) for row in [
    # Gram sums
    (METHOD, r"of (\d+) tokens up to n =", GRAM, r"SMALL_CHUNK = (\d+)"),
    (METHOD, r"tokens up to n = (\d+),", GRAM, r"SMALL_N = (\d+)"),
    (METHOD, r"of (\d+) tokens above", GRAM, r"LARGE_CHUNK = (\d+)"),
    (METHOD, r"unit is 2\^-(\d+) of", GRAM, r"UNIT_BITS = (\d+)"),
    # Half a unit for each of 2^14 chunks; two norms were rounded up, by less than 2 each.
    (METHOD, r"at most 2\^-(\d+) of sqrt\(H_ii H_jj\) for 16384 chunks", GRAM, r"UNIT_BITS = (\d+)",
     lambda bits: str(int(bits) + 1 - 14 - 2)),
    # Factorization and its process grid
    (METHOD, r"by default ([\d.]+) x mean", OPTIONS, option("damp")),
    (METHOD, r"residual is above (\S+),", FACTOR, r"MOST_RESIDUAL = (\S+);"),
    (METHOD, r"multiplies the damping by (\d+) ", FACTOR, r"fmax\((\d+) \* damp"),
    (METHOD, r"tries again, at most (\w+) times", FACTOR, r"ATTEMPTS = (\d+)", lambda n: word(int(n) - 1)),
    (METHOD, r"damping tenfold, at most (\w+) times", FACTOR, r"ATTEMPTS = (\d+)", lambda n: word(int(n) - 1)),
    (METHOD, r"block by block of (\d+)", "mpi/algebra/matrix.h", r"SNRQ_PANEL = (\d+)"),
    (METHOD, r"panels of (\d+) columns", "mpi/algebra/factor.c", r"WIDTH = (\d+) \* NB", lambda n: str(128 * int(n))),
    # Quantization grids
    (METHOD, r"try (\d+) ranges", GRIDS, r"SHRINK_STEPS = (\d+)"),
    (METHOD, r"factors 1, 0\.99, \.\.\. (\d\.\d+)", GRIDS, r"SHRINK_STEPS = (\d+)", lambda n: "%g" % (1 - 0.01 * (int(n) - 1))),
    (METHOD, r"\|R - Q\|\^([\d.]+)", GRIDS, r"pow\(e, ([\d.]+)\)"),
    # Search
    (METHOD, r": (\d+) rows in the search", "pipeline/rounding/search.h", r"SNRQ_TILE_ROWS = (\d+)"),
    (METHOD, r"beam search with `--beam` K, by default (\d+),", OPTIONS, option("beam")),
    (METHOD, r"beam search with `--beam` K, .*? at most (\d+) \|", "pipeline/rounding/beam_shape.h", r"SNRQ_MAX_BEAM = (\d+)"),
    (METHOD, r"beam search with `--beam` K, .*? at most (\d+) \|", OPTIONS, r'FIELD\(beam\), "\d+", 1, (\d+)'),
    # Defaults
    (METHOD, r"by default (\d+) windows", "pipeline/options/text_options.c", r"DEFAULT_SEQUENCES = (\d+)"),
    (METHOD, r"context, but at most (\d+) tokens", "pipeline/texts/windows.c", r"LONGEST_DEFAULT = (\d+)"),
    (METHOD, r"The others have `--grid (\w+)", OPTIONS, option("grid")),
    (METHOD, r"The others have .*?--refine (\d+)", OPTIONS, option("refine")),
    (METHOD, r"The others have .*?--regrid (\d+)", OPTIONS, option("regrid")),
    (METHOD, r"have the defaults `--grid (\w+)", OPTIONS, baseline("grid")),
    (METHOD, r"have the defaults .*?--refine (\d+)", OPTIONS, baseline("refine")),
    (METHOD, r"have the defaults .*?--regrid (\d+)", OPTIONS, r'\{"regrid", "(\d+)", "for these and other grids'),
    (METHOD, r"V for every module; the default of `round` and `--paper` is ([\d.]+),", GIVEN, r'is_fixed \? "fixed:([\d.]+)"'),
    (METHOD, r"V for every module; .*? and ([\d.]+) for gptaq", GIVEN, r'"fixed:([\d.]+)" : is_fixed'),
    (METHOD, r"0 in the first block, ([\d.]+) \(per channel", "pipeline/job.c", r"grouped \? ([\d.]+) :"),
    (METHOD, r"0 in the first block, .*?per channel ([\d.]+)\)", "pipeline/job.c", r"grouped \? [\d.]+ : ([\d.]+)"),
    ("README.md", r"settings are `--grid (\w+)", OPTIONS, baseline("grid")),
    ("README.md", r"settings are .*?--refine (\d+)", OPTIONS, baseline("refine")),
    ("README.md", r"linear layers in (\d to \d) bits", OPTIONS, r'FIELD\(bits\), "\d", (\d, \d),', lambda s: s.replace(",", " to")),
    ("README.md", r"CMake ([\d.]+),", "CMakeLists.txt", r"cmake_minimum_required\(VERSION ([\d.]+)\)"),
    # Exit codes
    (METHOD, r"ends the run with exit code (\d+)", "mpi/status.h", r"SNRQ_BAD_DATA = (\d+)"),
    ("README.md", r"next safe point \(exit code (\d+)\)", "mpi/status.h", r"SNRQ_STOPPED = (\d+)"),
    (OPERATIONS, r"step, with exit code (\d+)", "mpi/status.h", r"SNRQ_STOPPED = (\d+)"),
    (OPERATIONS, r"\| (\d+) \| complete \|", "mpi/status.h", r"SNRQ_OK = (\d+)"),
    (OPERATIONS, r"\| (\d+) \| the command line", "mpi/status.h", r"SNRQ_USAGE = (\d+)"),
    (OPERATIONS, r"\| (\d+) \| an input is damaged", "mpi/status.h", r"SNRQ_BAD_DATA = (\d+)"),
    (OPERATIONS, r"\| (\d+) \| an input is missing", "mpi/status.h", r"SNRQ_NO_INPUT = (\d+)"),
    (OPERATIONS, r"\| (\d+) \| internal error", "mpi/status.h", r"SNRQ_INTERNAL = (\d+)"),
    (OPERATIONS, r"\| (\d+) \| the output or a file of it", "mpi/status.h", r"SNRQ_CANNOT_WRITE = (\d+)"),
    (OPERATIONS, r"\| (\d+) \| reading or writing failed", "mpi/status.h", r"SNRQ_IO_ERROR = (\d+)"),
    (OPERATIONS, r"\| (\d+) \| stopped at a safe point", "mpi/status.h", r"SNRQ_STOPPED = (\d+)"),
    (OPERATIONS, r"\| (\d+) \| hung", "mpi/status.h", r"SNRQ_HUNG = (\d+)"),
    (OPERATIONS, r"after every code but ([\d, toand]+)\.", "slurm/job.sh", r"^.*?(0 \| 6\[0-9\] \| 73 \| 74)\)",
     lambda s: s.replace("6[0-9]", "60 to 69").replace(" | 74", " and 74").replace(" |", ",")),
    # Times and counts of a run
    (OPERATIONS, r"`--watchdog` \(default (\d+) min\)", OPTIONS, option("watchdog"), lambda s: s[:-1] if s[-1] == "m" else s),
    (OPERATIONS, r"renews it every (\d+) s;", "io/lock.c", r"BEAT_SECONDS = (\d+)"),
    (OPERATIONS, r"After (\w+) silent minutes", "io/lock.c", r"STALE_SECONDS = (\d+)", minutes),
    (OPERATIONS, r"or (\w+) silent minutes", "io/lock.c", r"STALE_SECONDS = (\d+)", minutes),
    (FORMAT, r"not renewed it for (\w+) minutes", "io/lock.c", r"STALE_SECONDS = (\d+)", minutes),
    (OPERATIONS, r"it ended the run after (\w+) seconds", "pipeline/main.c", r"LONE_SECONDS = (\d+)", word),
    (OPERATIONS, r"the (\w+) worst modules", "pipeline/summary.c", r"WORST = (\d+)", word),
    (OPERATIONS, r"give up after (\w+) restarts", "slurm/site.sh", r"SNRQ_MOST_RESTARTS:=(\d+)", word),
    (OPERATIONS, r"batch shell (\w+) minutes before", "slurm/quantize.sbatch", r"--signal=B:USR1@(\d+)", minutes),
    (OPERATIONS, r"Size: (\d+) bytes per window", "io/checkpoint/activation_file.c", r"STREAMS = (\d+)", lambda n: str(4 * int(n))),
    # Files
    (FORMAT, r'"snrq-block", `format_version` \((\d+), or', "io/checkpoint/block_file.c", r"INTEGERS = (\d+)"),
    (FORMAT, r"`format_version` \(1, or (\d+) if", "io/checkpoint/block_file.c", r"FORMATS_TOO = (\d+)"),
    (METHOD, r"`pipeline/rounding/format_grid.h`\): (\d+) ranges", "pipeline/rounding/format_grid.c", r"RANGES = (\d+)"),
    (METHOD, r"super-block shares. (\w+) such", "pipeline/rounding/format_grid.c", r"SHARED = (\d+)",
     lambda n: "Twelve" if n == "12" else n),
    (FORMAT, r'"snrq-rest" and `format_version` = (\d+)', "io/checkpoint/rest_file.c", r"FORMAT_VERSION = (\d+)"),
    (FORMAT, r'"snrq-activations", `format_version` = (\d+)', "io/checkpoint/activation_file.c", r"FORMAT_VERSION = (\d+)"),
    (FORMAT, r'"snrq-sensitivity", `format_version` = (\d+)', "io/checkpoint/sensitivity_file.c", r"FORMAT_VERSION = (\d+)"),
    (FORMAT, r"`tile_rows` = (\d+)", "io/checkpoint/sensitivity_file.h", r"SNRQ_SENSITIVITY_ROWS = (\d+)"),
    (METHOD, r"with (\d+) windows in a step", "pipeline/tuning_cost.h", r"SNRQ_TUNING_BATCH = (\d+)"),
    (OPERATIONS, r"A step takes (\d+) windows", "pipeline/tuning_cost.h", r"SNRQ_TUNING_BATCH = (\d+)"),
    (METHOD, r"windows in a step, b1 = ([\d.]+)", "pipeline/tuned_model.c", r"mean_decay = ([\d.]+)"),
    (METHOD, r"windows in a step, b1 = [\d.]+, b2 = ([\d.]+)", "pipeline/tuned_model.c", r"square_decay = ([\d.]+)"),
    (METHOD, r"The rate rises to ([\d.]+) in", "pipeline/tune.c", r"highest_rate = ([\d.]+)"),
    (METHOD, r"and after (\d+) epochs without a lower one", "pipeline/tune.c", r"PATIENCE = (\d+)"),
    (FORMAT, r'"snrq-tuning", `format_version` = (\d+)', "io/checkpoint/tuning_file.c", r"FORMAT_VERSION = (\d+)"),
    (FORMAT, r"`numbers` \(f32, \[rows, (\d+)\]", "io/checkpoint/tuning_file.h", r"SNRQ_TUNING_ROW = (\d+)"),
    (METHOD, r"blocks of (\d+) rows on the diagonal", "pipeline/model/gradient_gram.h", r"SNRQ_GRADIENT_ROWS = (\d+)"),
    (METHOD, r"128 bits with a unit of 2\^-(\d+)", "pipeline/model/fixed.h", r"UNIT_BITS = (\d+)"),
    (OPERATIONS, r"up to\s+(\d+) tokens, labels by", "pipeline/sensitivity_cost.h", r"SNRQ_SENSITIVITY_TOKENS = (\d+)"),
    (OPERATIONS, r"fit into `--pass-memory` \((\d+) GiB\)", OPTIONS, option("pass-memory"), lambda s: s.replace("GiB", "")),
    (FORMAT, r"width of a code, (\d to \d) \|", "io/checkpoint/block_record.c", r"bits must be (\d to \d)"),
    (FORMAT, r'`,"line":"`, (\d+) hex digits', "io/checkpoint/manifest.c", r"HASH_DIGITS = (\d+)"),
    (FORMAT, r"The last (\d+) characters of a line", "io/checkpoint/manifest.c", r"HASH_DIGITS = (\d+)",
     lambda digits: str(len(',"line":"') + int(digits) + len('"}'))),
    (FORMAT, r"\[windows, (\d+)\]", "io/checkpoint/activation_file.c", r"HASH_BYTES = (\d+)", lambda n: str(2 * int(n))),
    (FORMAT, r"for `full` plus 2\^(\d+)", "io/hdf5/helpers.c", r"table->index << (\d+)"),
    # Exports
    (EXPORTING, r"\| bits \| ([\d, ]+) \|", "pipeline/export/gptq.c", r"return (bits == [^;]*);",
     lambda s: ", ".join(re.findall(r"\d", s))),
    (EXPORTING, r"\| bits \| [\d, ]+ \| (\d to \d)", OPTIONS, r'FIELD\(bits\), "\d", (\d, \d),', lambda s: s.replace(",", " to")),
    (EXPORTING, r"\| sizes of a module \| multiples of (\d+)", "pipeline/export/gptq.c", r"PACK = (\d+)"),
    (GGUF, r"GGUF file of version (\d+)", LAYOUT, r"SNRQ_GGUF_VERSION = (\d+)"),
    (GGUF, r"must be a multiple of (\d+)\.", "io/gguf/blocks.c", r"possible = gguf_blocks_fit\(g, (\d+)\)"),
    (GGUF, r"multiple of (\d+) columns", "io/gguf/blocks.c", r"wide = gguf_blocks_fit\(g, (\d+)\)"),
    (GGUF, r"a multiple of (\d+) inputs", "io/gguf/blocks.c", r"wide = gguf_blocks_fit\(g, (\d+)\)"),
    (GGUF, r"Q2_K \|[^|]*\| ([\d.]+)", LAYOUT, r"sizeof\(snrq_q2_k\) == (\d+)", bits_per_weight(256)),
    (GGUF, r"Q3_K \|[^|]*\| ([\d.]+)", LAYOUT, r"sizeof\(snrq_q3_k\) == (\d+)", bits_per_weight(256)),
    (GGUF, r"Q4_K \|[^|]*\| ([\d.]+)", LAYOUT, r"sizeof\(snrq_q4_k\) == (\d+)", bits_per_weight(256)),
    (GGUF, r"Q4_0 \|[^|]*\| ([\d.]+)", LAYOUT, r"sizeof\(snrq_q4_0\) == (\d+)", bits_per_weight(32)),
    (GGUF, r"Q5_0 \|[^|]*\| ([\d.]+)", LAYOUT, r"sizeof\(snrq_q5_0\) == (\d+)", bits_per_weight(32)),
    (GGUF, r"Q8_0 \|[^|]*\| ([\d.]+)", LAYOUT, r"sizeof\(snrq_q8_0\) == (\d+)", bits_per_weight(32)),
    # The bundled model
    (DATA, r"vocabulary (\d+)", CONFIG, r'"vocab_size": (\d+)'),
    (DATA, r"hidden (\d+)", CONFIG, r'"hidden_size": (\d+)'),
    (DATA, r"intermediate (\d+)", CONFIG, r'"intermediate_size": (\d+)'),
    (DATA, r"(\d+) layers", CONFIG, r'"num_hidden_layers": (\d+)'),
    (DATA, r"(\d+) heads and", CONFIG, r'"num_attention_heads": (\d+)'),
    (DATA, r"(\d+) key/value heads", CONFIG, r'"num_key_value_heads": (\d+)'),
    (DATA, r"key/value heads of (\d+)", CONFIG, r'"head_dim": (\d+)'),
    (DATA, r"rope theta (\d+)", CONFIG, r'"rope_theta": (\d+)'),
    (DATA, r"bf16 as stored \| ([\d.]+)", "tests/end_to_end/test_quality.py", r"length=256\), ([\d.]+)"),
    # The version of the release
    ("tests/end_to_end/test_install.sh", r"find_package\(snrq (\d+\.\d+) REQUIRED", "CMakeLists.txt",
     r"project\(snrq VERSION (\d+\.\d+)"),
    *[(page, pattern, "CMakeLists.txt", r"project\(snrq VERSION ([\d.]+)") for page, pattern in [
        ("CHANGELOG.md", r"# Changelog (?:## Unreleased .*?)?## ([\d.]+)"),
        ("CITATION.cff", r" version: ([\d.]+)"),
        ("docs/tutorial.md", r"\$ snrq --version snrq ([\d.]+)"),
        ("docs/packaging/debian/changelog", r"^snrq \(([\d.]+)-1\)"),
        ("docs/packaging/spack/package.py", r' version\("([\d.]+)"\) variant'),
        ("docs/packaging/easybuild/snrq-0.2.0-foss-2024a.eb", r"name = 'snrq' version = '([\d.]+)'"),
        ("docs/packaging/apptainer/snrq.def", r"image\.version ([\d.]+)")]],
]]


def read(path):
    """A file with single blanks; "" if it is not there."""
    return " ".join((ROOT / path).read_text().split()) if (ROOT / path).is_file() else ""


def single(path, pattern, problems):
    """The group of the only match, or None and a problem."""
    found = re.findall(pattern, read(path))
    if len(found) == 1:
        return found[0]
    problems.append("%s: /%s/ matches %d times, expected once: mend the pattern, or its file, in QUOTES of %s"
                    % (path, pattern, len(found), Path(__file__).relative_to(ROOT)))
    return None


def check_quote(quote, problems):
    there = single(quote.page, quote.said_there, problems)
    defined = single(quote.source, quote.defined_there, problems)
    if there is None or defined is None:
        return
    expected = quote.said(defined)
    if there != expected:
        problems.append("%s: says %s in /%s/, but %s has %s (/%s/), so it should say %s: mend the page"
                        % (quote.page, there, quote.said_there, quote.source, defined, quote.defined_there, expected))


def headings(page):
    """Anchors of a page as they are made on the web."""
    lines = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in lines]


def check_links(page, problems):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", (ROOT / page).read_text()):
        path = (ROOT / page).parent / target if target else ROOT / page
        if not path.exists():
            problems.append("%s: links to %s, which does not exist" % (page, target))
        elif anchor and anchor not in headings(path.resolve().relative_to(ROOT)):
            problems.append("%s: links to the heading #%s, which %s does not have" % (page, anchor, target or page))
    for target, title in re.findall(r'\]\(([^):]*\.md)\),? "([^"]+)"', read(page)):
        path = (ROOT / page).parent / target
        if path.exists() and "# %s\n" % title not in path.read_text():
            problems.append('%s: names the section "%s", which %s does not have' % (page, title, target))


def check_paths(page, problems):
    for path in re.findall(r"(?<![\w/.-])((?:pipeline|io|mpi|slurm|tests|docs)/[\w./-]*\w)", (ROOT / page).read_text()):
        if not (ROOT / path).exists():
            problems.append("%s: names %s, which does not exist" % (page, path))


def check_options(page, problems):
    known = FOREIGN | {"--" + name for name in re.findall(r'^    \{"([a-z-]+)", ', (ROOT / OPTIONS).read_text(), re.MULTILINE)}
    for name in sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", (ROOT / page).read_text())) - known):
        problems.append("%s: names the option %s, which %s does not have: mend the page, or FOREIGN in %s"
                        % (page, name, OPTIONS, Path(__file__).relative_to(ROOT)))


def check_engines(problems):
    """The table of engines in the page is that of the code, row by row."""
    source = "pipeline/export/engines.c"
    text = re.sub(r'"\s*"', "", (ROOT / source).read_text())
    names = dict(re.findall(r'\[(SNRQ_ENGINE_\w+)\] = \{"([^"]+)"', text))
    rows = re.findall(r'\{(SNRQ_ENGINE_\w+), "([^"]*)", \w+, "([^"]*)", "([^"]*)", "([^"]*)", "([^"]*)", (true|false)\}',
                      re.sub(r"\s+", " ", text).replace("{ ", "{"))
    if len(rows) != text.count("{SNRQ_ENGINE_"):
        problems.append("%s: the rows of the table of troubles are spelled in a way that this test cannot read" % source)
    expected = ["| %s | %s | %s |" % (names[row[0]], " | ".join(row[1:6]), "yes" if row[6] == "true" else "no")
                for row in rows]
    found = [line for line in (ROOT / EXPORTING).read_text().split("\n") if line.count("|") == 8][2:]
    for line in sorted(set(expected) ^ set(found)):
        problems.append("%s: %s the row %s: mend the page or %s"
                        % (EXPORTING, "lacks" if line in expected else "has", line, source))
    if not expected or sorted(set(found)) != sorted(found):
        problems.append("%s: the table of engines is empty or has a row twice" % EXPORTING)


def main():
    problems = []
    for quote in QUOTES:
        check_quote(quote, problems)
    for page in PAGES:
        for check in (check_links, check_paths, check_options):
            check(page, problems)
    check_engines(problems)
    print("\n".join(problems) or "%d numbers, and options, files and links of %d pages" % (len(QUOTES), len(PAGES)))
    sys.exit(1 if problems else 0)


main()
