// Package imports holds one test: which package of this module may import which. Walls that nothing checks fall.
package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/libadcg/libadcg/"

// allowed maps a package, or a folder of packages ("kernels/..."), to what of this module it may import. The first match counts.
var allowed = []struct {
	importer string
	imports  []string
}{
	{"capi", []string{"engine", "engine/tape", "piecewise"}},
	{"cuhost", []string{"engine", "piecewise"}}, // a host; behind the tag of its name
	{"engine", []string{"engine/device/...", "engine/tape", "kernels/...", "piecewise"}},
	{"engine/device", []string{"engine/tape", "piecewise"}},
	{"engine/device/...", []string{"engine/device", "engine/tape", "kernels/...", "piecewise"}},
	{"engine/tape", []string{"piecewise"}},
	{"kernels/...", []string{"kernels/...", "piecewise"}},
	{"internal/...", nil},
	{"piecewise", nil},
	{"piecewise/...", []string{"piecewise"}},
	{"tests/...", []string{"engine/...", "internal/...", "kernels/...", "piecewise/..."}}, // hosts, like any other program
	{"tools/...", []string{"piecewise/..."}},
	{"examples/...", []string{"engine"}},
}

// pure packages import the standard library alone.
var pure = []string{"piecewise/..."}

func matches(pattern, path string) bool {
	folder, all := strings.CutSuffix(pattern, "/...")
	return path == folder || all && strings.HasPrefix(path, folder+"/")
}

func anyMatches(patterns []string, path string) bool {
	for _, pattern := range patterns {
		if matches(pattern, path) {
			return true
		}
	}
	return false
}

type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

func list(t *testing.T, args ...string) []listed {
	t.Helper()
	command := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,Imports"}, args...)...)
	command.Dir = "../.."
	out, err := command.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%v: %v\n%s", command, err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var packages []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestDirections(t *testing.T) {
	seen := 0
	for _, p := range list(t, "-tags", "cuhost", "./...") {
		path := strings.TrimPrefix(p.ImportPath, module)
		rule := -1
		for i := range allowed {
			if matches(allowed[i].importer, path) {
				rule = i
				break
			}
		}
		if rule < 0 {
			t.Errorf("%s: no rule in this test says what it may import", path)
			continue
		}
		for _, imported := range p.Imports {
			inside, own := strings.CutPrefix(imported, module)
			if !own {
				continue
			}
			seen++
			if !anyMatches(allowed[rule].imports, inside) {
				t.Errorf("%s imports %s: it may import %q of this module", path, inside, allowed[rule].imports)
			}
		}
	}
	if seen == 0 {
		t.Error("no import of this module was found: the test looks in the wrong place")
	}
}

func TestPure(t *testing.T) {
	standard := map[string]bool{}
	for _, p := range list(t, "-deps", "./...") {
		standard[p.ImportPath] = p.Standard
	}
	for _, p := range list(t, "./...") {
		path := strings.TrimPrefix(p.ImportPath, module)
		if !anyMatches(pure, path) {
			continue
		}
		for _, imported := range p.Imports {
			if imported == "C" || imported == "unsafe" {
				t.Errorf("%s imports %q: it is pure Go", path, imported)
			}
			if inside, own := strings.CutPrefix(imported, module); own && anyMatches(pure, inside) {
				continue
			}
			if !standard[imported] && imported != "C" {
				t.Errorf("%s imports %s: the standard library alone", path, imported)
			}
		}
	}
}

// The library that C hosts link has libcuda neither at build time nor in its list of needed libraries, with the tag or without: cu
// serves Go hosts that ask for it.
func TestCuStaysOutOfTheLibrary(t *testing.T) {
	closure := func(args ...string) (cu bool) {
		for _, p := range list(t, append([]string{"-deps"}, args...)...) {
			cu = cu || matches("gorgonia.org/cu/...", p.ImportPath) || matches(module+"cuhost/...", p.ImportPath)
		}
		return cu
	}
	if !closure("-tags", "cuhost", "./cuhost") {
		t.Error("the package behind the tag does not reach gorgonia.org/cu: the test looks for the wrong names")
	}
	for _, args := range [][]string{{"./capi"}, {"-tags", "cuhost", "./capi"}, {"./..."}} {
		if closure(args...) {
			t.Errorf("go list -deps %s: reaches gorgonia.org/cu", strings.Join(args, " "))
		}
	}
}
