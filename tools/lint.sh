#!/usr/bin/env bash
# Every linter, to the end, whichever fails: tools/lint.sh VENV STATICCHECK YYJSON_FOLDER (called by `make lint`).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
venv=$1 staticcheck=$2 yyjson=$3 go=${GO:-go}
failed=()

run() { # name, command ...
  local name=$1
  shift
  if "$@"; then echo "ok    $name"; else echo "FAIL  $name"; failed+=("$name"); fi
}

gofmt_clean() {
  local files
  files=$(git ls-files -co --exclude-standard -- '*.go' | while read -r f; do [ -e "$f" ] && echo "$f"; done | xargs gofmt -l)
  [ -z "$files" ] || { echo "gofmt -l:"; echo "$files"; return 1; }
}

python=()
for folder in bindings/python examples/python tests tools; do [ -d "$folder" ] && python+=("$folder"); done
typed=()
for path in bindings/python/adcg examples/python/*.py; do [ -e "$path" ] && typed+=("$path"); done

run gofmt gofmt_clean
run "go vet" "$go" vet ./...
run staticcheck "$go" run "$staticcheck" ./...
# What is behind the tag needs the CUDA headers, which are fetched.
if make --silent headers; then run "cuhost: vet, staticcheck" make --silent lint-cuhost; else echo "skip  cuhost: no CUDA headers (make headers)"; fi
run "import directions" "$go" test ./tools/...
run "C: format, warnings" tools/lint_c.sh "$venv/bin/clang-format" "$yyjson"
run ruff "$venv/bin/ruff" check --quiet --config bindings/python/pyproject.toml "${python[@]}"
run "mypy --strict" "$venv/bin/mypy" --strict --config-file bindings/python/pyproject.toml "${typed[@]}"
[ ${#failed[@]} -eq 0 ] || { printf 'make lint: failed: %s\n' "$(IFS=,; echo "${failed[*]}")"; exit 1; }
