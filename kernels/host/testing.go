package host

// What tests and benchmarks need to run a kernel by itself; nothing of the engine uses this file.

/*
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "host.h"

// set_error has no user data, so the message goes to the calling thread's buffer.
static pthread_key_t message_key;
static pthread_once_t message_once = PTHREAD_ONCE_INIT;
static void make_key(void) { pthread_key_create(&message_key, NULL); }
static void set_error(const char *message) {
	char *buffer = pthread_getspecific(message_key);
	if (buffer) { strncpy(buffer, message, 511); buffer[511] = 0; }
}

static adcg_status run(const adcgk_op *op, uintptr_t node_pool, adcg_op_call *call, adcg_batch batch,
                       const adcg_type *types, uintptr_t state_in, uintptr_t *state_out, char *message) {
	adcgk_node node = {(adcgk_pool *)node_pool, (void *)state_in};
	adcg_status status = ADCG_OK;
	pthread_once(&message_once, make_key);
	pthread_setspecific(message_key, message);
	call->batch = &batch;
	call->set_error = set_error;
	if (op->prepare && !node.state) {
		status = op->prepare(call->attrs, call->num_attrs, types, call->num_inputs, &node.state, set_error);
		*state_out = (uintptr_t)node.state;
	}
	if (status == ADCG_OK && op->launch) status = op->launch(call, &node);
	pthread_setspecific(message_key, NULL);
	return status;
}
static void *at(uintptr_t address) { return (void *)address; }
static adcg_status workspace_bytes(const adcgk_op *op, adcg_op_call *call, size_t *bytes) {
	*bytes = 0;
	return op->workspace ? op->workspace(call, bytes, NULL) : ADCG_OK;
}
static void *allocate(size_t size) {
	return aligned_alloc(64, (size + 64) / 64 * 64);
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/libadcg/libadcg/piecewise"
)

// Tensor is a tensor in C memory.
type Tensor struct {
	DType   piecewise.DType
	Dims    []int64
	Strides []int64 // in elements; nil: compact
	Address uintptr
}

// Batch is a step's real counts, as adcg_batch.
type Batch struct {
	PrefillSeqs, PrefillTokens, ExtendSeqs, ExtendTokens, DecodeSeqs int64
}

// Error is the failure of a launch: its status and message.
type Error struct {
	Status  int32
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("status %d: %s", e.Status, e.Message) }

// Alloc gives n bytes of C memory, 64-byte aligned and not zeroed, which the caller frees.
func Alloc(n int) []byte { return unsafe.Slice((*byte)(C.allocate(C.size_t(n))), n) }

// Free frees what Alloc gave.
func Free(b []byte) { C.free(unsafe.Pointer(unsafe.SliceData(b))) }

// Address is the address of memory that Alloc gave.
func Address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// Launch runs one op by name, prepared anew, on a pool (0: on the caller alone). Attributes stand in the schema's
// order, complete.
func Launch(name string, pool uintptr, attrs []piecewise.Attr, inputs, outputs []Tensor, batch Batch) error {
	run := NewLaunch(name, attrs, inputs, outputs, batch)
	defer run.Close()
	return run.Run(pool)
}

// Prepared is a launch that can run many times: what a benchmark measures.
type Prepared struct {
	op    *C.adcgk_op
	call  *C.adcg_op_call
	types *C.adcg_type
	batch C.adcg_batch
	state C.uintptr_t
	out   *C.uintptr_t
	text  *C.char
	owned []unsafe.Pointer
}

func allocate[T any](p *Prepared, n int) []T {
	var zero T
	size := C.size_t(max(n, 1)) * C.size_t(unsafe.Sizeof(zero))
	m := C.allocate(size)
	C.memset(m, 0, size)
	p.owned = append(p.owned, m)
	return unsafe.Slice((*T)(m), max(n, 1))
}

// NewLaunch builds the call of an op in C memory, its workspace too. Close frees it.
func NewLaunch(name string, attrs []piecewise.Attr, inputs, outputs []Tensor, batch Batch) *Prepared {
	p := &Prepared{}
	text := func(s string) *C.char {
		c := C.CString(s)
		p.owned = append(p.owned, unsafe.Pointer(c))
		return c
	}
	p.op = C.adcgk_find(text(name))
	if p.op == nil {
		panic("no op " + name)
	}
	p.text = &allocate[C.char](p, 512)[0]
	p.out = &allocate[C.uintptr_t](p, 1)[0]
	p.types = &allocate[C.adcg_type](p, len(inputs))[0]
	tensors := func(list []Tensor) *C.DLTensor {
		c := allocate[C.DLTensor](p, len(list))
		for i, t := range list {
			shape := allocate[C.int64_t](p, len(t.Dims))
			for d, extent := range t.Dims {
				shape[d] = C.int64_t(extent)
			}
			c[i].data = C.at(C.uintptr_t(t.Address))
			c[i].device.device_type = C.kDLCPU
			c[i].ndim = C.int32_t(len(t.Dims))
			c[i].dtype = C.adcg_dtype_to_dlpack(C.adcg_dtype(t.DType))
			c[i].shape = &shape[0]
			if t.Strides != nil {
				strides := allocate[C.int64_t](p, len(t.Strides))
				for d, stride := range t.Strides {
					strides[d] = C.int64_t(stride)
				}
				c[i].strides = &strides[0]
			}
		}
		return &c[0]
	}
	types := unsafe.Slice(p.types, max(len(inputs), 1))
	for i, t := range inputs {
		types[i].dtype, types[i].ndim = C.adcg_dtype(t.DType), C.int32_t(len(t.Dims))
		for d, extent := range t.Dims {
			types[i].dims[d].constant = C.int64_t(extent)
		}
	}
	list := allocate[C.adcg_attr](p, len(attrs))
	for i, a := range attrs {
		list[i].name, list[i]._type = text(a.Name), C.int32_t(a.Type)
		list[i].i, list[i].f, list[i].s = C.int64_t(a.Int), C.double(a.Float), text(a.String)
		if len(a.Ints) > 0 {
			ints := allocate[C.int64_t](p, len(a.Ints))
			for j, v := range a.Ints {
				ints[j] = C.int64_t(v)
			}
			list[i].count, list[i].ints = C.int32_t(len(a.Ints)), &ints[0]
		}
	}
	p.batch = C.adcg_batch{struct_size: C.sizeof_adcg_batch, prefill_seqs: C.int64_t(batch.PrefillSeqs), prefill_tokens: C.int64_t(batch.PrefillTokens),
		extend_seqs: C.int64_t(batch.ExtendSeqs), extend_tokens: C.int64_t(batch.ExtendTokens), decode_seqs: C.int64_t(batch.DecodeSeqs)}
	p.call = &allocate[C.adcg_op_call](p, 1)[0]
	p.call.struct_size = C.sizeof_adcg_op_call
	p.call.phase = C.ADCG_PHASE_REPLAY
	p.call.num_inputs, p.call.num_outputs, p.call.num_attrs = C.int32_t(len(inputs)), C.int32_t(len(outputs)), C.int32_t(len(attrs))
	p.call.inputs, p.call.outputs, p.call.attrs = tensors(inputs), tensors(outputs), &list[0]
	size := &allocate[C.size_t](p, 1)[0]
	if status := C.workspace_bytes(p.op, p.call, size); status != C.ADCG_OK {
		panic(fmt.Sprintf("workspace of %s: status %d", name, status))
	}
	if *size > 0 { // of bytes that make NaN, as an arena may hold anything
		scratch := allocate[byte](p, int(*size))
		C.memset(unsafe.Pointer(&scratch[0]), 0xff, *size)
		p.call.workspace, p.call.workspace_bytes = unsafe.Pointer(&scratch[0]), *size
	}
	return p
}

// Run launches the op once.
func (p *Prepared) Run(pool uintptr) error {
	status := C.run(p.op, C.uintptr_t(pool), p.call, p.batch, p.types, p.state, p.out, p.text)
	p.state = *p.out
	if status != C.ADCG_OK {
		return &Error{int32(status), C.GoString(p.text)}
	}
	return nil
}

// Close frees the call and the op's state.
func (p *Prepared) Close() {
	C.free(C.at(p.state))
	for _, m := range p.owned {
		C.free(m)
	}
}

// FreeAddress frees what Alloc gave, by its address.
func FreeAddress(address uintptr) { C.free(C.at(C.uintptr_t(address))) }

// Bytes is C memory as a slice.
func Bytes(address uintptr, n int) []byte {
	return unsafe.Slice((*byte)(C.at(C.uintptr_t(address))), n)
}
