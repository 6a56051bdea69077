#!/usr/bin/env bash
# What cpack makes of a build: two Debian packages with the program, its pages and the right dependencies, and an archive
# of the source from which it could be built again.
set -euo pipefail

for tool in dpkg-deb dpkg-shlibdeps file cpack; do
    command -v "$tool" >/dev/null || {
        echo "there is no $tool"
        exit 77
    }
done
setting() { sed -n "s/^$1:[A-Z]*=//p" "$SNRQ_BUILD/CMakeCache.txt"; }
case $(setting SNRQ_SANITIZE) in
ON | 1) exit 77 ;; # nobody packs such a build
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "$*"
    exit 1
}
pack() {
    cpack --config "$SNRQ_BUILD/$1" -B "$work/packages" >"$work/log" 2>&1 || {
        cat "$work/log"
        fail "cpack failed with $1"
    }
}
pack CPackConfig.cmake
pack CPackSourceConfig.cmake

version=$("$SNRQ" --version | sed -n '1s/^snrq //p')
architecture=$(dpkg --print-architecture)
program=$work/packages/snrq_$version-1_$architecture.deb
development=$work/packages/libsnrq-dev_$version-1_$architecture.deb
source=$work/packages/snrq-$version.tar.gz
for file in "$program" "$development" "$source"; do
    [ -s "$file" ] || fail "$file was not made: $(ls "$work/packages")"
done

# mpirun is no library, so that nobody finds this dependency but those who know; the others come from the program.
depends=$(dpkg-deb -f "$program" Depends)
for name in openmpi-bin libopenblas0 libc6 libjansson4; do
    [[ $depends == *$name* ]] || fail "snrq does not depend on $name: $depends"
done
[[ $(dpkg-deb -f "$development" Depends) == *libopenmpi-dev* ]] || fail "libsnrq-dev does not depend on MPI's headers"

dpkg-deb -x "$program" "$work/root"
[ "$(ls "$work/root")" = usr ] || fail "the package has files that are not below /usr: $(ls "$work/root")"
"$work/root/usr/bin/snrq" --version | grep -qx "snrq $version" || fail "the packed program is of another version"
for command in "" -quantize -plan -evaluate -inspect -export -verify -status -report; do
    gzip -t "$work/root/usr/share/man/man1/snrq$command.1.gz" || fail "there is no compressed page snrq$command.1"
done
documents=$work/root/usr/share/doc/snrq
for file in copyright changelog.gz changelog.Debian.gz README.md docs/README.md; do
    [ -s "$documents/$file" ] || fail "there is no $documents/$file"
done
zcat "$documents/changelog.Debian.gz" | grep -q "^snrq ($version-1) " || fail "changelog.Debian tells of another version"
[ -z "$(find "$work/root" -name '*.a' -o -name '*.h')" ] || fail "the program's package has files of libsnrq-dev"

dpkg-deb -x "$development" "$work/other"
for pattern in '*/libsnrq.a' '*/snrq.pc' '*/snrqConfig.cmake' '*/include/snrq/mpi/context.h'; do
    [ -n "$(find "$work/other" -path "$pattern")" ] || fail "libsnrq-dev has no $pattern"
done
[ ! -e "$work/other/usr/bin" ] || fail "libsnrq-dev has programs"

tar -tzf "$source" >"$work/list"
for file in CMakeLists.txt bootstrap.sh pipeline/main.c tests/data/model/model.safetensors docs/packaging/debian/build; do
    grep -qxF "snrq-$version/$file" "$work/list" || fail "the archive of the source has no $file"
done
if grep -E "^snrq-$version/(build[^/]*|\.git)/" "$work/list"; then
    fail "the archive of the source has what was built, or git's files"
fi
