#!/usr/bin/env bash
# C and C++: the format, and warnings as errors.
#   tools/lint_c.sh CLANG_FORMAT YYJSON_FOLDER
#   tools/lint_c.sh --list                         prints the files that have a format
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

# tests/data holds unchanged copies.
sources() { git ls-files -co --exclude-standard -- '*.c' '*.h' '*.cc' ':!tests/data' | while read -r f; do [ -e "$f" ] && echo "$f"; done; }
if [ "${1:-}" = --list ]; then
  sources
  exit
fi
clang_format=$1 yyjson=$2 failed=0
while read -r f; do
  "$clang_format" "$f" | cmp -s - "$f" || { echo "lint_c: $f: not in the format of .clang-format (make format)"; failed=1; }
done < <(sources)

warn="-Wall -Wextra -Wpedantic -Wconversion -Werror -Iinclude"
cc=${CC:-cc} cxx=${CXX:-c++}
generated=build/.lint # a name that Go tools pass over
mkdir -p "$generated"
rm -f "$generated/failed"
check() { # label, command ...: as many at once as there are processors
  local label=$1
  shift
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
  { "$@" || { echo "lint_c: $label: warnings"; touch "$generated/failed"; }; } &
}

for f in include/adcg/*.h; do
  check "$f (C11)" $cc -std=c11 $warn -fsyntax-only -x c -include "./$f" /dev/null
  if command -v "$cxx" >/dev/null; then check "$f (C++17)" $cxx -std=c++17 $warn -fsyntax-only -x c++ -include "./$f" /dev/null; fi
done

# C in Go packages: cgo writes the header through which C calls Go.
for package in capi engine/tape kernels/host kernels/cuda; do
  ls "$package"/*.c >/dev/null 2>&1 || continue
  mkdir -p "$generated/$package"
  exporting=$(grep -l '^//export ' "$package"/*.go 2>/dev/null)
  if [ -n "$exporting" ]; then
    (cd "$package" && go tool cgo -objdir "$OLDPWD/$generated/$package" -importpath "$package" -- "-I$OLDPWD/include" \
      $(for f in $exporting; do basename "$f"; done) >/dev/null) || failed=1
  fi
  for f in "$package"/*.c; do
    check "$f" $cc -std=gnu11 $warn -O2 -c -o /dev/null -Iengine/tape -Ikernels/host -I"$package" -I"$generated/$package" "$f"
  done
done

while read -r f; do
  case "$f" in
    tests/*.c | examples/*.c) check "$f" $cc -std=c11 $warn -O2 -c -o /dev/null -isystem "$yyjson" "$f" ;;
    tests/*.cc | examples/*.cc)
      if command -v "$cxx" >/dev/null; then check "$f" $cxx -std=c++17 $warn -O2 -c -o /dev/null "$f"; fi ;;
  esac
done < <(sources)
wait
[ "$failed" -eq 0 ] && [ ! -e "$generated/failed" ]
