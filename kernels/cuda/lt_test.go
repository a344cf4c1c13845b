package cuda

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// library builds a shared object in C that stands for cuBLASLt; `left` is a function that it lacks, and `created` what
// cublasLtCreate says.
func library(t *testing.T, left string, created int) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler")
	}
	source := `
#include <stddef.h>
size_t cublasLtGetVersion(void) { return 130204; }
int cublasLtDestroy(void *handle) { (void)handle; return 0; }
const char *cublasLtGetStatusName(int status) { return status == 3 ? "CUBLAS_STATUS_ALLOC_FAILED" : "another"; }
`
	source += fmt.Sprintf("int cublasLtCreate(void **handle) { *handle = handle; return %d; }\n", created)
	for _, name := range []string{
		"MatmulDescInit_internal", "MatmulDescSetAttribute", "MatrixLayoutInit_internal", "MatmulPreferenceInit_internal",
		"MatmulPreferenceSetAttribute", "MatmulAlgoGetHeuristic", "MatmulAlgoConfigGetAttribute", "MatmulAlgoCheck", "Matmul",
	} {
		if "cublasLt"+name != left {
			source += fmt.Sprintf("int cublasLt%s(void) { return 15; }\n", name)
		}
	}
	folder := t.TempDir()
	path := filepath.Join(folder, "lt.so")
	require.NoError(t, os.WriteFile(filepath.Join(folder, "lt.c"), []byte(source), 0o600))
	out, err := exec.Command(cc, "-shared", "-fPIC", "-o", path, filepath.Join(folder, "lt.c")).CombinedOutput()
	require.NoError(t, err, string(out))
	return path
}

func TestLtIsNotThere(t *testing.T) {
	options := DefaultLtOptions()
	options.Path = filepath.Join(t.TempDir(), "nothing.so")
	handle, version, err := OpenLt(&options)
	require.ErrorContains(t, err, options.Path)
	require.Zero(t, handle)
	require.Empty(t, version)
	t.Setenv(LtPath, options.Path+".of.the.environment")
	_, _, err = OpenLt(nil)
	require.ErrorContains(t, err, ".of.the.environment")
	require.NotContains(t, err.Error(), "libcublasLt.so.13") // a path that is given is the only one
}

func TestLtLacksAFunction(t *testing.T) {
	options := DefaultLtOptions()
	options.Path = library(t, "cublasLtMatmulAlgoCheck", 0)
	handle, _, err := OpenLt(&options)
	require.ErrorContains(t, err, options.Path+": cublasLtMatmulAlgoCheck: not there")
	require.Zero(t, handle)
}

func TestLtDoesNotStart(t *testing.T) {
	options := DefaultLtOptions()
	options.Path = library(t, "", 3)
	handle, _, err := OpenLt(&options)
	require.EqualError(t, err, "cuBLASLt: cublasLtCreate: CUBLAS_STATUS_ALLOC_FAILED (cuBLASLt 130204)")
	require.Zero(t, handle)
}

func TestLtOptions(t *testing.T) {
	path := library(t, "", 0)
	t.Setenv(LtPath, path)
	handle, version, err := OpenLt(nil)
	require.NoError(t, err)
	require.NotZero(t, handle)
	require.Equal(t, "13.2.4", version)
	CloseLt(handle)
	CloseLt(0)
	for what, change := range map[string]func(*LtOptions){
		"plain_cost":  func(o *LtOptions) { o.PlainCost = -1 },
		"alignment":   func(o *LtOptions) { o.Alignment = 0 },
		"pinned_rows": func(o *LtOptions) { o.PinnedRows = -5 },
	} {
		options := DefaultLtOptions()
		change(&options)
		handle, _, err := OpenLt(&options)
		require.ErrorContains(t, err, what)
		require.Zero(t, handle)
	}
}

// Every name is one of cuBLASLt's, once, and the C table has as many places.
func TestLtNames(t *testing.T) {
	path := library(t, "", 0)
	source, err := os.ReadFile(strings.TrimSuffix(path, ".so") + ".c")
	require.NoError(t, err)
	library, _, err := loadLt([]string{path})
	require.NoError(t, err)
	functions, err := ltFunctions(library, path)
	require.NoError(t, err)
	require.Len(t, functions, strings.Count(string(source), " cublasLt")+strings.Count(string(source), "*cublasLt"))
}
