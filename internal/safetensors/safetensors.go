// Package safetensors reads the files that tests take their tensors from: a length, a JSON header, the data
// (https://huggingface.co/docs/safetensors). It checks what it reads and holds the whole file in memory.
package safetensors

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
)

// Tensor is one tensor of a file: compact, row-major, little-endian.
type Tensor struct {
	DType string // "F32", "BF16", "I32", ...
	Shape []int64
	Data  []byte
}

var sizes = map[string]int64{"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "I8": 1, "BOOL": 1}

// Read gives all tensors of a file by name.
func Read(path string) (map[string]Tensor, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(file) < 8 {
		return nil, fmt.Errorf("%s: %d bytes are no safetensors file", path, len(file))
	}
	length := binary.LittleEndian.Uint64(file)
	if length > uint64(len(file)-8) {
		return nil, fmt.Errorf("%s: header of %d bytes in a file of %d", path, length, len(file))
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(file[8:8+length], &header); err != nil {
		return nil, fmt.Errorf("%s: header: %w", path, err)
	}
	data, tensors := file[8+length:], map[string]Tensor{}
	for name, raw := range header {
		if name == "__metadata__" {
			continue
		}
		var entry struct {
			DType   string    `json:"dtype"`
			Shape   []int64   `json:"shape"`
			Offsets [2]uint64 `json:"data_offsets"`
		}
		if err := json.Unmarshal(raw, &entry); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, name, err)
		}
		begin, end := entry.Offsets[0], entry.Offsets[1]
		if begin > end || end > uint64(len(data)) {
			return nil, fmt.Errorf("%s: %s: bytes %d to %d of %d", path, name, begin, end, len(data))
		}
		bytes, ok := sizes[entry.DType]
		if !ok {
			return nil, fmt.Errorf("%s: %s: element type %q", path, name, entry.DType)
		}
		for _, n := range entry.Shape {
			if n < 0 || n > 0 && bytes > math.MaxInt64/n {
				return nil, fmt.Errorf("%s: %s: shape %v", path, name, entry.Shape)
			}
			bytes *= n
		}
		if uint64(bytes) != end-begin {
			return nil, fmt.Errorf("%s: %s: %s%v needs %d bytes, has %d", path, name, entry.DType, entry.Shape, bytes, end-begin)
		}
		tensors[name] = Tensor{entry.DType, entry.Shape, data[begin:end:end]}
	}
	return tensors, nil
}
