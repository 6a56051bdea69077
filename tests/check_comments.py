"""The files that comments name exist.

A comment of a C file may name a file of the source by its path from the top, by its path from its own folder, by the
end of its path, or by its bare name. A bare name means the file in the same folder; if there is none, it must be the
only one of its name. `*` stands for any letters. NAME.c, in capitals, is no file. Comments in Python, shell and CMake
files are read in the same way. Only Python's own modules are needed.
"""
import fnmatch
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("pipeline", "io", "mpi", "tests", "slurm", "docs")
C_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
HASH_COMMENT = re.compile(r"(?:^|(?<=\s))#[^\n!]*", re.MULTILINE)
# Not what is part of a longer name, of a placeholder, or of an included name of the system.
NAME = re.compile(r"(?<![\w./<{$\"-])((?:[\w*-]+/)*[\w*-]+\.(?:c|h|py|sh|md|mjs|sbatch))(?![\w.-]*\w)")


# Headers of libraries that the build asks for.
FOREIGN = {"mpi.h", "hdf5.h"}


def sources():
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    paths += [path for path in ROOT.iterdir() if path.is_file()]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def meant(name, folder, files):
    """The files that `name` can mean in a comment of a file of `folder`."""
    beside = fnmatch.filter(files, "%s/%s" % (folder, name))
    return beside or [file for file in files if fnmatch.fnmatch("/" + file, "*/" + name)]


def problem(name, folder, files):
    found = meant(name, folder, files)
    if not found:
        return "names %s, which does not exist" % name
    if len(found) > 1 and "*" not in name:
        return "names %s, which may be %s: give its folder" % (name, " or ".join(found))
    return None


def main():
    files, problems, count = sources(), [], 0
    for file in files:
        comment = C_COMMENT if file.endswith((".c", ".h")) else HASH_COMMENT
        if not file.endswith((".c", ".h", ".py", ".sh", "CMakeLists.txt", ".sbatch")):
            continue
        text = (ROOT / file).read_text()
        for match in comment.finditer(text):
            for name in NAME.finditer(match.group()):
                count += 1
                wrong = None
                if not Path(name.group(1)).stem.isupper() and name.group(1) not in FOREIGN:
                    wrong = problem(name.group(1), Path(file).parent.as_posix(), files)
                line = text.count("\n", 0, match.start() + name.start()) + 1
                if wrong:
                    problems.append("%s:%d: a comment %s" % (file, line, wrong))
    print("\n".join(problems) or "%d names of files in comments" % count)
    sys.exit(1 if problems or count == 0 else 0)


main()
