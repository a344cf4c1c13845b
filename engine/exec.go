package engine

import (
	"runtime"
	"sync"
	"time"
	"unsafe"

	"github.com/libadcg/libadcg/engine/device"
	"github.com/libadcg/libadcg/engine/tape"
	"github.com/libadcg/libadcg/piecewise"
)

// Mode is what an exec may do.
type Mode int32

// Modes; the zero value is the default.
const (
	FullAndPiecewise Mode = iota // one graph where every op's capture support covers the step, else piecewise
	Piecewise
	Full           // one graph where it is covered, else eager
	FullDecodeOnly // one graph for uniform decode, else eager
	Eager          // every step eager
)

var planModes = map[Mode]piecewise.Mode{
	FullAndPiecewise: piecewise.ModeFullAndPiecewise, Piecewise: piecewise.ModePiecewise, Full: piecewise.ModeFull,
	FullDecodeOnly: piecewise.ModeFullDecodeOnly, Eager: piecewise.ModeNone,
}

func (m Mode) plan() (piecewise.Mode, error) {
	if mode, ok := planModes[m]; ok {
		return mode, nil
	}
	return 0, errorf(ErrArgument, "options.mode: %d is no mode", int32(m))
}

// ModeOf is the Mode of an ADCG_MODE_*.
func ModeOf(c int32) (Mode, error) {
	for mode, planned := range planModes {
		if int32(planned) == c {
			return mode, nil
		}
	}
	return 0, errorf(ErrArgument, "options.mode: %d is no mode", c)
}

// ExecOptions of Compile; the zero value is the default. See adcg_exec_options.
type ExecOptions struct {
	Mode       Mode
	Explicit   bool    // only Capture captures; else a step that needs a bucket does
	Buckets    []int64 // token counts; nil: 64, 128, ... and MaxTokens
	SeqBuckets []int64 // sequence counts; nil: 1, 2, 4, ... and MaxSeqs
	QueryLen   int64   // full graphs of uniform batches with this many tokens a sequence
	Verify     bool    // every step runs eagerly with its contracts checked

	CaptureMode    CaptureMode
	BatchInvariant bool // a row's bits depend on its own sequence alone, whatever its bucket; on the host they always do

	Layout      piecewise.LayoutMode
	PlanNodes   int64         // of the search for a smaller arena; 0: 100,000, -1: no search
	PlanTimeout time.Duration // of that search; 0: none
}

// CaptureMode is what other threads may do while a CUDA device captures.
type CaptureMode int32

// Capture modes; the zero value is the default. The numbers are those of adcg.h.
const (
	CaptureThreadLocal CaptureMode = 0
	CaptureGlobal      CaptureMode = 1
	CaptureRelaxed     CaptureMode = 2
)

// Step is what a replay did, and Stats what an exec has done and holds.
type (
	Step  = tape.Step
	Stats = tape.Stats
	Unit  = piecewise.Unit
)

// Exec is a frozen graph with its plan, its arena and its captured buckets. One thread at a time; see Replay.
type Exec struct {
	graph *Graph
	plan  *piecewise.Plan
	arena device.Arena
	given int64 // bytes of it that Release gave back

	mu   sync.RWMutex // held for reading by calls, for writing by Close
	data *tape.Exec   // nil once closed
}

// Compile freezes the graph if it is not, plans, and allocates the arena.
func (g *Graph) Compile(o ExecOptions) (*Exec, error) {
	if !g.Frozen() {
		if err := g.Freeze(); err != nil {
			return nil, err
		}
	}
	plan, err := g.plan(o)
	if err != nil {
		return nil, err
	}
	arena, err := g.engine.device.NewArena(plan.ArenaBytes)
	if err != nil {
		return nil, errorf(StatusOf(err), "arena: %d bytes: %v", plan.ArenaBytes, err)
	}
	data, err := g.newTape(plan, o, arena)
	if err != nil {
		arena.Free()
		return nil, err
	}
	g.refs.Add(1)
	logf(LogInfo, "exec: arena %d bytes, lower bound %d, %d buckets", plan.ArenaBytes, plan.LowerBound, len(plan.Units))
	return &Exec{graph: g, plan: plan, arena: arena, data: data}, nil
}

// newTape writes an exec's tables and opens its streams.
func (g *Graph) newTape(plan *piecewise.Plan, o ExecOptions, arena device.Arena) (*tape.Exec, error) {
	data, err := tape.New(g.spec(plan, o, arena))
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread() // the message of a failure is the thread's
	defer runtime.UnlockOSThread()
	status, err := data.Open()
	if err == nil {
		err = tapeError(status)
	}
	if err != nil {
		data.Free()
		return nil, err
	}
	return data, nil
}

// Close frees the exec; waits for a call that another goroutine is in.
func (x *Exec) Close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.data == nil {
		return
	}
	data := x.data
	x.data = nil
	x.graph.engine.device.Destroy(func() {
		data.Free()
		x.arena.Free()
		x.graph.release()
	})
}

// Data is the data plane, for the C shims; valid until Close.
func (x *Exec) Data() *tape.Exec { return x.data }

// Plan is the exec's plan, not to be changed.
func (x *Exec) Plan() *piecewise.Plan { return x.plan }

// enter keeps the exec from being closed. It never waits: an op's callback may call while another thread waits in Close.
func (x *Exec) enter() error {
	if !x.mu.TryRLock() {
		return errorf(ErrBusy, "exec: another thread is closing it")
	}
	if x.data == nil {
		x.mu.RUnlock()
		return errorf(ErrHandle, "exec: closed")
	}
	return nil
}

// hold takes the exec for one call on this thread, whose error message is C's and per thread.
func (x *Exec) hold() (release func(), err error) {
	if err := x.enter(); err != nil {
		return nil, err
	}
	if !x.data.Acquire() {
		x.mu.RUnlock()
		return nil, errorf(ErrBusy, "exec: another thread is in a call on it")
	}
	runtime.LockOSThread()
	return func() {
		runtime.UnlockOSThread()
		x.data.Release()
		x.mu.RUnlock()
	}, nil
}

// Bind binds a weight or state to memory that stays valid and in place until the exec is closed or the value bound anew.
func (x *Exec) Bind(v Value, t Tensor) error {
	return x.bind(v, func(i int) (int32, error) { return x.data.Bind(i, t) })
}

// BindDLTensor is Bind with the address of a DLTensor, for the C shims.
func (x *Exec) BindDLTensor(v Value, tensor unsafe.Pointer) error {
	return x.bind(v, func(i int) (int32, error) { return x.data.BindDLTensor(i, tensor), nil })
}

func (x *Exec) bind(v Value, bind func(index int) (int32, error)) error {
	info, err := x.graph.Value(v)
	if err != nil {
		return err
	}
	if info.Role != piecewise.RoleWeight && info.Role != piecewise.RoleState {
		return errorf(ErrState, "value: `%s` is neither a weight nor a state", info.Name)
	}
	release, err := x.hold()
	if err != nil {
		return err
	}
	defer release()
	status, err := bind(info.Slot)
	if err != nil {
		return err
	}
	return tapeError(status)
}

// Progress is told after each bucket of a Capture; err is why it failed. True goes on.
type Progress func(index, count int, unit Unit, err error) bool

// Capture captures buckets in the order given, all of them (the largest first) if there are none. A bucket that fails runs
// eagerly; the others go on, and the first failure is returned.
func (x *Exec) Capture(units []Unit, progress Progress) error {
	release, err := x.hold()
	if err != nil {
		return err
	}
	defer release()
	if err := tapeError(x.data.CheckHeld("adcg_exec_capture")); err != nil {
		return err
	}
	if len(units) == 0 {
		units = x.plan.Units
	}
	indices := make([]int, len(units))
	for i, u := range units {
		if indices[i] = x.unitIndex(u); indices[i] < 0 {
			return errorf(ErrNotFound, "buckets[%d]: mode %d, %d tokens, %d sequences: not a size of this exec", i, u.Mode, u.Tokens, u.Seqs)
		}
	}
	if err := x.allBound(); err != nil {
		return err
	}
	var firstErr error
	for i, index := range indices {
		err := x.capture(index)
		if firstErr == nil {
			firstErr = err
		}
		if progress != nil && !progress(i, len(units), x.plan.Units[index], err) {
			return errorf(ErrCancelled, "progress: asked to stop after bucket %d of %d", i+1, len(units))
		}
	}
	return firstErr
}

func (x *Exec) unitIndex(u Unit) int {
	for i, known := range x.plan.Units {
		if known == u {
			return i
		}
	}
	return -1
}

func (x *Exec) allBound() error {
	if i := x.data.Unbound(); i >= 0 {
		return errorf(ErrState, "`%s`: not bound, call adcg_exec_bind first", x.graph.graph.Values[x.graph.graph.Bound[i]].Name)
	}
	return nil
}

func (x *Exec) capture(index int) error {
	var status int32
	for again := true; again; again = status == tape.WantMemory {
		if status == tape.WantMemory {
			if err := x.grow(); err != nil {
				return err
			}
		}
		x.graph.engine.device.Capture(func() { status = x.data.Capture(index) })
	}
	err := tapeError(status)
	unit := x.plan.Units[index]
	if err != nil {
		logf(LogWarning, "capture: mode %v, %d tokens, %d sequences: %v: it runs eagerly", unit.Mode, unit.Tokens, unit.Seqs, err)
	} else {
		logf(LogDebug, "capture: mode %v, %d tokens, %d sequences", unit.Mode, unit.Tokens, unit.Seqs)
	}
	return err
}

// grow has the arena hold what the data plane asked for.
func (x *Exec) grow() error {
	wanted := x.data.Wanted()
	if err := x.arena.Grow(wanted); err != nil {
		return errorf(StatusOf(err), "arena: %d bytes: %v", wanted, err)
	}
	x.data.Hold(x.arena.Held())
	return nil
}

// Provide does what a replay that holds the exec asks for with one of tape's statuses: it captures a bucket, or has the arena grow.
// A bucket that cannot be captured is no error, the step then runs eagerly; want of memory is one.
func (x *Exec) Provide(want int32, bucket int) error {
	if want == tape.WantMemory {
		return x.grow()
	}
	if err := x.capture(bucket); StatusOf(err) == ErrOutOfMemory {
		return err
	}
	return nil
}

// Replay runs one step. The first dim of a tensor that depends on a count is its capacity: see adcg_exec_replay. The stream is
// a CUstream, or 0 for the exec's own and on the host device.
func (x *Exec) Replay(batch Batch, inputs, outputs []Tensor, stream uintptr) (Step, error) {
	release, err := x.hold()
	if err != nil {
		return Step{}, err
	}
	defer release()
	for {
		step, status, bucket, err := x.data.Replay(batch, inputs, outputs, stream)
		if err != nil {
			return Step{}, err
		}
		if status != tape.WantBucket && status != tape.WantMemory {
			return step, tapeError(status)
		}
		if err := x.Provide(status, bucket); err != nil {
			return Step{}, err
		}
	}
}

// Synchronize waits until every step is done.
func (x *Exec) Synchronize() error {
	return x.order(func(d *tape.Exec) int32 { return d.Synchronize("adcg_exec_synchronize") })
}

// Release waits for the last step and gives the arena's memory back to the device. Addresses, captures and counters stay, and nothing
// runs until Restore. On failure the exec is as it was.
func (x *Exec) Release() error {
	release, err := x.hold()
	if err != nil {
		return err
	}
	defer release()
	if x.data.Released() {
		return errorf(ErrState, "exec: released already")
	}
	if err := tapeError(x.data.Synchronize("adcg_exec_release")); err != nil {
		return err
	}
	held := x.arena.Held()
	if err := x.arena.Release(); err != nil {
		return errorf(StatusOf(err), "arena: %d bytes: %v", held, err)
	}
	x.given = held
	x.data.SetReleased(true, 0)
	logf(LogDebug, "exec: released %d bytes", held)
	return nil
}

// Restore has as much memory behind the arena's addresses as Release gave back. On failure the exec stays released.
func (x *Exec) Restore() error {
	release, err := x.hold()
	if err != nil {
		return err
	}
	defer release()
	if !x.data.Released() {
		return errorf(ErrState, "exec: not released")
	}
	if err := x.arena.Restore(); err != nil {
		return errorf(StatusOf(err), "arena: %d bytes: %v", x.given, err)
	}
	x.data.SetReleased(false, x.arena.Held())
	logf(LogDebug, "exec: restored %d bytes", x.given)
	return nil
}

// WaitStream has the exec's next step wait for what a stream of the caller's holds now.
func (x *Exec) WaitStream(stream uintptr) error {
	return x.order(func(d *tape.Exec) int32 { return d.WaitStream(stream) })
}

// StreamWait has a stream of the caller's wait for the exec's last step.
func (x *Exec) StreamWait(stream uintptr) error {
	return x.order(func(d *tape.Exec) int32 { return d.StreamWait(stream) })
}

func (x *Exec) order(call func(d *tape.Exec) int32) error {
	release, err := x.hold()
	if err != nil {
		return err
	}
	defer release()
	return tapeError(call(x.data))
}

// Stats are the counters and the bytes held; safe beside a replay.
func (x *Exec) Stats() (Stats, error) {
	if err := x.enter(); err != nil {
		return Stats{}, err
	}
	defer x.mu.RUnlock()
	return x.data.Stats(), nil
}

// ReadStats fills an adcg_stats, for the C shims.
func (x *Exec) ReadStats(out unsafe.Pointer) error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.mu.RUnlock()
	x.data.ReadStats(out)
	return nil
}

// BucketInfo is a bucket's state and counters.
type BucketInfo = tape.BucketInfo

// Bucket tells of bucket number i; safe beside a replay.
func (x *Exec) Bucket(i int) (BucketInfo, error) {
	if err := x.enter(); err != nil {
		return BucketInfo{}, err
	}
	defer x.mu.RUnlock()
	if i < 0 || i >= len(x.plan.Units) {
		return BucketInfo{}, errorf(ErrNotFound, "index: %d: the exec has %d buckets", i, len(x.plan.Units))
	}
	return x.data.Bucket(i), nil
}
