// Package tape is the data plane and its thin Go side: C executes replays (replay.c), Go writes the tables that it reads
// (program.go) and calls the control functions (this file).
package tape

// #include <stdlib.h>
// #include "callback.h"
import "C"

import (
	"unsafe"

	"github.com/libadcg/libadcg/piecewise"
)

// Exec is an exec's data plane.
type Exec struct {
	c       *C.tape_exec
	program unsafe.Pointer // the block that holds c and its tables
}

// Statuses beside ADCG_*: what a replay or a capture asks for before it can run.
const (
	WantBucket = int32(C.TAPE_WANT_BUCKET) // a bucket to be captured
	WantMemory = int32(C.TAPE_WANT_MEMORY) // Wanted bytes of the arena to be held
)

// Bucket states.
const (
	BucketEmpty    = int32(C.ADCG_BUCKET_EMPTY)
	BucketCaptured = int32(C.ADCG_BUCKET_CAPTURED)
	BucketFailed   = int32(C.ADCG_BUCKET_FAILED)
)

// Step is what a replay did; see adcg_step.
type Step struct {
	Mode, Reason             int32
	BucketTokens, BucketSeqs int64
	PaddedTokens             int64
	Repointed, StagedBytes   int64
}

// Address is the C object, for the C shims.
func (e *Exec) Address() uintptr { return uintptr(unsafe.Pointer(e.c)) }

// Acquire takes the exec for one call; false if another thread is in one.
func (e *Exec) Acquire() bool { return bool(C.tape_acquire(e.c)) }

// Release gives it up.
func (e *Exec) Release() { C.tape_release(e.c) }

// Replay runs one step; the caller holds the exec. With the status WantBucket, bucket must be captured first.
func (e *Exec) Replay(batch Batch, inputs, outputs []Tensor, stream uintptr) (step Step, status int32, bucket int, err error) {
	var cBatch *C.adcg_batch
	var cStep *C.adcg_step
	var want *C.int32_t
	var in, out []C.DLTensor
	free, err := scratch(func(b *block) {
		cBatch, cStep, want = &array[C.adcg_batch](b, 1)[0], &array[C.adcg_step](b, 1)[0], &array[C.int32_t](b, 1)[0]
		fillBatch(cBatch, batch)
		cStep.struct_size = C.sizeof_adcg_step
		in, out = e.tensors(b, inputs), e.tensors(b, outputs)
	})
	if err != nil {
		return Step{}, 0, 0, err
	}
	defer free()
	status = int32(C.tape_replay(e.c, cBatch, first(in), C.int32_t(len(in)), first(out), C.int32_t(len(out)),
		C.tape_pointer(C.uintptr_t(stream)), cStep, want))
	step = Step{
		Mode: int32(cStep.mode), Reason: int32(cStep.reason),
		BucketTokens: int64(cStep.bucket_tokens), BucketSeqs: int64(cStep.bucket_seqs), PaddedTokens: int64(cStep.padded_tokens),
		Repointed: int64(cStep.repointed), StagedBytes: int64(cStep.staged_bytes),
	}
	return step, status, int(*want), nil
}

func (e *Exec) tensors(b *block, tensors []Tensor) []C.DLTensor {
	out := array[C.DLTensor](b, len(tensors))
	for i, t := range tensors {
		device := e.c.device
		if t.DeviceType != 0 {
			device = C.DLDevice{device_type: C.DLDeviceType(t.DeviceType), device_id: C.int32_t(t.DeviceID)}
		}
		fillTensor(b, &out[i], t.Shape, device)
		out[i].data = t.Data
	}
	return out
}

// Capture captures bucket number i; the caller holds the exec. The message of a failure is LastError's.
func (e *Exec) Capture(i int) int32 {
	e.c.capture_called = 1
	return int32(C.tape_capture(e.c, C.int32_t(i)))
}

// Wanted is how many bytes of the arena must be held, after WantMemory.
func (e *Exec) Wanted() int64 { return int64(e.c.arena_wanted) }

// Hold says that so many bytes of the arena are held now; the caller holds the exec.
func (e *Exec) Hold(bytes int64) { C.tape_set_held(e.c, C.int64_t(bytes)) }

// CheckHeld fails for a released exec, with a message for a function of the C API. The message of a failure is LastError's.
func (e *Exec) CheckHeld(function string) int32 {
	return int32(C.tape_check_held(e.c, borrowed(function)))
}

// Released tells whether the arena's memory has been given back.
func (e *Exec) Released() bool { return bool(e.c.released) }

// SetReleased says that it has been, or that so many bytes are held again; the caller holds the exec.
func (e *Exec) SetReleased(released bool, held int64) {
	C.tape_set_released(e.c, C.bool(released), C.int64_t(held))
}

// Synchronize waits until every step is done, for a function of the C API; the caller holds the exec. The message of a failure is
// LastError's.
func (e *Exec) Synchronize(function string) int32 {
	return int32(C.tape_synchronize(e.c, borrowed(function)))
}

// WaitStream has the exec's next step wait for what is in a stream now, and StreamWait a stream for the exec's last step; the
// caller holds the exec. The message of a failure is LastError's.
func (e *Exec) WaitStream(stream uintptr) int32 {
	return int32(C.tape_order(e.c, borrowed("adcg_exec_wait_stream"), C.tape_pointer(C.uintptr_t(stream)), true))
}

// StreamWait is described at WaitStream.
func (e *Exec) StreamWait(stream uintptr) int32 {
	return int32(C.tape_order(e.c, borrowed("adcg_stream_wait_exec"), C.tape_pointer(C.uintptr_t(stream)), false))
}

// Unbound is the first bound value without memory, or -1.
func (e *Exec) Unbound() int {
	for i, b := range unsafe.Slice(e.c.bound, int(e.c.num_bound)) {
		if b.data == nil {
			return i
		}
	}
	return -1
}

// Bind binds weight or state number i (in order of addition) to a tensor; the caller holds the exec.
func (e *Exec) Bind(i int, t Tensor) (int32, error) {
	var in []C.DLTensor
	free, err := scratch(func(b *block) { in = e.tensors(b, []Tensor{t}) })
	if err != nil {
		return 0, err
	}
	defer free()
	return int32(C.tape_bind(e.c, C.int32_t(i), &in[0])), nil
}

// BindDLTensor is Bind with the address of a DLTensor.
func (e *Exec) BindDLTensor(i int, tensor unsafe.Pointer) int32 {
	return int32(C.tape_bind(e.c, C.int32_t(i), (*C.DLTensor)(tensor)))
}

// BucketInfo is a bucket's state and counters.
type BucketInfo struct {
	Unit      piecewise.Unit
	State     int32
	Steps     int
	TapeBytes int64
	Replays   int64
}

// Bucket tells of bucket number i.
func (e *Exec) Bucket(i int) BucketInfo {
	b := &unsafe.Slice(e.c.buckets, int(e.c.num_buckets))[i]
	var snapshot C.adcg_bucket_info
	C.tape_read_bucket(b, &snapshot)
	return BucketInfo{
		Unit:  piecewise.Unit{Mode: piecewise.Mode(b.size.mode), Tokens: int64(b.size.tokens), Seqs: int64(b.size.seqs)},
		State: int32(snapshot.state), Steps: int(snapshot.num_steps), TapeBytes: int64(snapshot.tape_bytes), Replays: int64(snapshot.replays),
	}
}

// NumReasons is how many reason codes there are.
const NumReasons = int(C.ADCG_NUM_REASONS)

// Stats are an exec's counters and the bytes it holds; see adcg_stats.
type Stats struct {
	Steps, FailedSteps, FullSteps, PiecewiseSteps, EagerSteps int64
	Reasons                                                   [NumReasons]int64
	RealTokens, PaddedTokens, Repointed                       int64
	StagedTensors, StagedBytes                                int64
	CapturedBuckets, FailedBuckets                            int64
	TotalBytes, ArenaBytes, MetadataBytes, TapeBytes          int64
	GraphBytes                                                int64
}

// Stats reads the counters; safe beside a replay.
func (e *Exec) Stats() Stats {
	var c C.adcg_stats
	c.struct_size = C.sizeof_adcg_stats
	C.tape_read_stats(e.c, &c)
	s := Stats{
		Steps: int64(c.steps), FailedSteps: int64(c.failed_steps), FullSteps: int64(c.full_steps), PiecewiseSteps: int64(c.piecewise_steps),
		EagerSteps: int64(c.eager_steps), RealTokens: int64(c.real_tokens), PaddedTokens: int64(c.padded_tokens), Repointed: int64(c.repointed),
		StagedTensors: int64(c.staged_tensors), StagedBytes: int64(c.staged_bytes),
		CapturedBuckets: int64(c.captured_buckets), FailedBuckets: int64(c.failed_buckets),
		TotalBytes: int64(c.total_bytes), ArenaBytes: int64(c.arena_bytes), MetadataBytes: int64(c.metadata_bytes),
		TapeBytes: int64(c.tape_bytes), GraphBytes: int64(c.graph_bytes),
	}
	for i := range s.Reasons {
		s.Reasons[i] = int64(c.reasons[i])
	}
	return s
}

// ReadStats fills an adcg_stats but for its struct_size.
func (e *Exec) ReadStats(out unsafe.Pointer) { C.tape_read_stats(e.c, (*C.adcg_stats)(out)) }

// Free frees the data plane; the caller holds the exec, and nobody else will call it. The arena is the device's to free.
func (e *Exec) Free() {
	C.tape_exec_clear(e.c)
	C.free(e.program)
	e.c, e.program = nil, nil
}

// LastError is this thread's message.
func LastError() string { return C.GoString(C.tape_last_error()) }

// TakeOpError is the message that a callback or a device left on this thread, which then has none.
func TakeOpError() string {
	message := C.GoString(C.tape_op_error())
	C.tape_clear_op_error()
	return message
}

// SetLastError sets this thread's message for a failure, "function: text".
func SetLastError(status int32, function, message string) {
	C.tape_set_message(C.adcg_status(status), borrowed(function), borrowed(message))
}

// borrowed is a C string in Go memory, for one call. C.CString would end the process when memory runs out.
func borrowed(s string) *C.char {
	bytes := append([]byte(s), 0)
	return (*C.char)(unsafe.Pointer(&bytes[0]))
}

// StatusName is the name of an adcg_status.
func StatusName(status int32) string { return C.GoString(C.tape_status_name(C.adcg_status(status))) }

// Poison makes every later call of the C API fail, after an internal fault.
func Poison() { C.tape_poison() }

// Log sends a line to the host's log callback, if it asked for lines of this level.
func Log(level int32, message string) {
	if level > int32(C.tape_log_level()) {
		return
	}
	C.tape_log(C.int32_t(level), borrowed(message))
}

// Poisoned tells whether Poison was called.
func Poisoned() bool { return C.tape_process_check(borrowed("poisoned")) == C.ADCG_ERR_POISONED }
