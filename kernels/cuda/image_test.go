package cuda

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func digest(t *testing.T, path string) string {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// The image was compiled from these sources: `make kernels` after every change of them, `make kernels-check` compiles again.
func TestImageMatchesSources(t *testing.T) {
	var manifest struct {
		Image   string
		Sources map[string]string
	}
	text, err := os.ReadFile("images/manifest.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &manifest))
	require.Equal(t, manifest.Image, digest(t, "images/kernels.fatbin"), "images/kernels.fatbin is not the one of the manifest")
	require.Equal(t, manifest.Image, func() string { sum := sha256.Sum256(Image()); return hex.EncodeToString(sum[:]) }())
	for path, sum := range manifest.Sources {
		require.Equal(t, sum, digest(t, filepath.Join("../..", path)), "%s: changed since `make kernels`", path)
	}
	sources, err := filepath.Glob("*.cu")
	require.NoError(t, err)
	require.NotEmpty(t, sources)
	for _, path := range sources {
		require.Contains(t, manifest.Sources, "kernels/cuda/"+path, "new since `make kernels`")
	}
	for _, path := range []string{"kernels/cuda/args.h", "kernels/cuda/device.h", "include/adcg/adcg.h", "tools/kernels.py"} {
		require.Contains(t, manifest.Sources, path)
	}
}

func TestFind(t *testing.T) {
	launch, _, prepare, zeroes, ok := Find("adcg.rope")
	require.True(t, ok)
	require.NotZero(t, launch)
	require.NotZero(t, prepare)
	require.False(t, zeroes)
	launch, _, _, _, ok = Find("adcg.reshape")
	require.True(t, ok)
	require.Zero(t, launch, "a view")
	_, _, _, zeroes, ok = Find("adcg.gather_tokens")
	require.True(t, ok && zeroes)
	_, _, _, _, ok = Find("adcg.no_such")
	require.False(t, ok)
}

func TestNewDevice(t *testing.T) {
	require.Zero(t, NewDevice([]uintptr{1}, 0, 132, 90), "not a function for every kernel")
	device := NewDevice(make([]uintptr, len(KernelNames())), 0, 132, 90)
	require.NotZero(t, device)
	FreeDevice(device)
	FreeDevice(0)
}
