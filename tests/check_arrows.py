#!/usr/bin/env python3
"""Who may include and call whom: the arrows between the folders of the source.

    check_arrows.py [ROOT]       checks pipeline/, mpi/ and io/ below ROOT
    check_arrows.py --self-test  breaks every rule once in a small tree and expects to be told

A finding names file, line and rule. Exit code 1 if there is one.
"""

import re
import sys
import tempfile
from pathlib import Path

TOP = ("pipeline", "mpi", "io")

# (where, what may not be included, what may be included all the same, why)
ARROWS = [
    ("pipeline/rounding/", "pipeline/", "pipeline/rounding/",
     "rounding/ knows matrices and rules, nothing of models, exports or the command line"),
    ("pipeline/rounding/", "io/", None, "rounding/ knows nothing of files"),
    ("pipeline/results/", "pipeline/", "pipeline/results/",
     "results/ knows what runs have written, not how they do their work"),
    ("pipeline/export/", "pipeline/rounding/", None, "export/ takes what is stored and rounds nothing"),
    ("io/", "pipeline/", None, "io/ knows bytes on disk, nothing of what they are for"),
    ("mpi/", "pipeline/", None, "mpi/ knows ranks, nothing of layers"),
    ("mpi/", "io/", None, "mpi/ knows ranks, nothing of files"),
]

# (what, as a word of the code, where it may stand, files that may as well and why, why)
CALLS = [
    (r"MPI_\w+|mpi\.h", "mpi/",
     {"pipeline/main.c": "starts and ends MPI",
      "io/hdf5/writer.c": "HDF5 opens files through MPI-IO, on a communicator of one rank"},
     "ranks are seen through mpi/ alone"),
    (r"H5[A-Z]\w*|hid_t|hsize_t|herr_t|hdf5\.h", "io/hdf5/", {}, "HDF5 is called in io/hdf5/ alone"),
    (r"C?blacs_\w+|C(?:sys2|free_)blacs_\w+|p[sd][a-z0-9]+_|mpi/algebra/scalapack\.h", "mpi/algebra/", {},
     "ScaLAPACK and BLACS are called in mpi/algebra/ alone"),
]


def without(text, *, comments=True, strings=True):
    """The text with comments (and strings) as blanks, lines kept."""
    pattern = r"/\*.*?\*/" + r'|"(?:\\.|[^"\\\n])*"' + r"|'(?:\\.|[^'\\\n])*'"

    def blank(match):
        found = match.group(0)
        if found.startswith("/*") and not comments or not found.startswith("/*") and not strings:
            return found
        return re.sub(r"[^\n]", " ", found)

    return re.sub(pattern, blank, text, flags=re.DOTALL)


class Tree:
    def __init__(self, root):
        self.root = Path(root)
        paths = (path for top in TOP for path in (self.root / top).rglob("*.[ch]"))
        self.text = {path.relative_to(self.root).as_posix(): path.read_text() for path in sorted(paths)}
        self.includes = {name: list(self.included(text)) for name, text in self.text.items()}
        self.findings = []

    @staticmethod
    def included(text):
        for number, line in enumerate(without(text, strings=False).split("\n"), 1):
            match = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
            if match:
                yield number, match.group(1)

    def found(self, name, line, what, rule):
        self.findings.append(f"{name}:{line}: {what}: {rule}")

    def check_arrows(self):
        for name, includes in self.includes.items():
            for line, included in includes:
                if included not in self.text:
                    self.found(name, line, f'includes "{included}"', "includes name a file from the top of the source")
                for where, target, but, why in ARROWS:
                    if name.startswith(where) and included.startswith(target):
                        if but is None or not included.startswith(but):
                            self.found(name, line, f'includes "{included}"', why)

    def check_calls(self):
        for name, text in self.text.items():
            for number, line in enumerate(without(text, strings=False).split("\n"), 1):
                if not re.match(r"\s*#\s*include", line):
                    line = without(line)
                for what, where, exceptions, why in CALLS:
                    match = re.search(rf"(?<![\w/])(?:{what})(?!\w)", line)
                    if match and not name.startswith(where) and name not in exceptions:
                        self.found(name, number, f"uses {match.group(0)}", why)
        for what, where, exceptions, _ in CALLS:
            for name in exceptions:
                if self.text and not re.search(what, self.text.get(name, "")):
                    self.found(name, 1, "has no need of its exception any more", "exceptions are as few as may be")

    def check_circles(self, kind, node_of):
        """A circle in the graph of nodes, named with one include per arrow."""
        arrows = {}
        for name, includes in self.includes.items():
            for line, included in includes:
                a, b = node_of(name), node_of(included)
                if a != b and a is not None and b is not None:
                    arrows.setdefault(a, {}).setdefault(b, f'{name}:{line} includes "{included}"')
        done, way = set(), []

        def visit(node):
            way.append(node)
            for to in sorted(arrows.get(node, {})):
                if to in way:
                    circle = way[way.index(to):] + [to]
                    steps = [arrows[a][b] for a, b in zip(circle, circle[1:])]
                    name, line = steps[0].split(" ")[0].split(":")
                    self.found(name, line, f"closes a circle of {kind} ({'; '.join(steps)})",
                               "nothing depends on itself by way of others")
                elif to not in done:
                    visit(to)
            way.pop()
            done.add(node)

        for node in sorted(arrows):
            if node not in done:
                visit(node)

    def check_one_meaning(self):
        """A structure, union or enumeration is defined once, be it in two files that never meet."""
        first = {}
        for name, text in self.text.items():
            for match in re.finditer(r"\b(?:struct|union|enum)\s+(snrq_\w+)\s*\{", without(text)):
                line = text.count("\n", 0, match.start()) + 1
                if match.group(1) in first:
                    self.found(name, line, f"defines {match.group(1)}, as {first[match.group(1)]} does",
                               "one word has one meaning")
                first.setdefault(match.group(1), f"{name}:{line}")

    def check(self):
        self.check_arrows()
        self.check_calls()
        self.check_circles("headers", lambda name: name if name.endswith(".h") else None)
        self.check_circles("folders", lambda name: Path(name).parent.as_posix())
        self.check_one_meaning()
        return self.findings


GOOD = {
    "pipeline/main.c": '#include "pipeline/a.h"\nint main(void) { return MPI_Init(0, 0); }\n',
    "pipeline/a.h": '/* A; see io/b.h. "MPI_Send" */\n#include "io/b.h"\n',
    "io/b.h": "struct snrq_b { int x; };\n",
    "io/hdf5/writer.c": "void f(void) { H5Fopen(MPI_COMM_SELF); }\n",
    "mpi/c.h": "struct snrq_c;\n",
    "mpi/algebra/d.c": "void f(void) { pdpotrf_(); }\n",
    "pipeline/rounding/e.h": '#include "mpi/c.h"\n',
    "pipeline/export/f.h": '#include "io/b.h"\n',
}

# (file, its text, what the finding must name)
BAD = [
    ("pipeline/rounding/e.h", '#include "pipeline/a.h"\n', 'e.h:1: includes "pipeline/a.h": rounding/'),
    ("pipeline/rounding/e.h", '\n#include "io/b.h"\n', 'e.h:2: includes "io/b.h": rounding/'),
    ("pipeline/export/f.h", '#include "pipeline/rounding/e.h"\n', "f.h:1: includes"),
    ("pipeline/results/i.h", '#include "pipeline/a.h"\n', "i.h:1: includes"),
    ("io/b.h", '#include "pipeline/a.h"\n', "io/b.h:1: includes"),
    ("mpi/c.h", '#include "pipeline/a.h"\n', "mpi/c.h:1: includes"),
    ("mpi/c.h", '/* */ \n\n#include "io/b.h"\n', "mpi/c.h:3: includes"),
    ("pipeline/a.h", '#include "b.h"\n', "includes name a file from the top"),
    ("pipeline/a.h", "#include <mpi.h>\n", "a.h:1: uses mpi.h: ranks"),
    ("io/b.h", "int f(void) { return MPI_Barrier(0); }\n", "b.h:1: uses MPI_Barrier"),
    ("io/b.h", "hid_t f(void);\n", "b.h:1: uses hid_t"),
    ("mpi/c.h", "void pdgemm_(void);\n", "c.h:1: uses pdgemm_"),
    ("mpi/c.h", "int Csys2blacs_handle(int);\n", "c.h:1: uses Csys2blacs_handle"),
    ("io/hdf5/writer.c", "\n", "has no need of its exception"),
    ("mpi/c.h", '#include "mpi/g.h"\n', "circle of headers"),
    ("mpi/c.h", '#include "mpi/algebra/h.h"\n', "circle of folders"),
    ("mpi/c.h", "struct snrq_b {\n int y; };\n", "mpi/c.h:1: defines snrq_b, as io/b.h:1 does"),
]
SIDE = {"mpi/g.h": '#include "mpi/c.h"\n', "mpi/algebra/h.h": '#include "mpi/g.h"\n'}


def findings_of(files):
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            path = Path(root) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Tree(root).check()


def self_test():
    assert findings_of({**GOOD, **SIDE}) == [], findings_of({**GOOD, **SIDE})
    for name, text, expected in BAD:
        findings = findings_of({**GOOD, **SIDE, name: text})
        assert any(expected in finding for finding in findings), (name, text, expected, findings)


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        return 0
    root = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    tree = Tree(root)
    findings = tree.check() if tree.text else [f"{root}: holds no source"]
    print("\n".join(findings))
    return 1 if findings else 0


sys.exit(main())
