// Package device says what the engine needs of a device. Memory and functions travel as addresses: what lies behind them
// is C's.
package device

// Info describes a device.
type Info struct {
	Name        string // "host", "cuda:0"
	Description string // for people
	Type, ID    int32  // DLPack's device type and number
	Threads     int32  // of the host device's kernels; 0 on others
	MemoryBytes int64
}

// Impl is how a device runs one built-in op.
type Impl struct {
	Launch     uintptr // adcg_op_launch_fn; 0 where every output is a view
	Workspace  uintptr // adcg_op_workspace_fn; 0: none
	Prepare    uintptr // makes a node's state from its attributes, once; 0: none
	Context    uintptr // what every launch is given beside the node's state
	Invariant  uintptr // the same for execs that are batch-invariant
	UserData   uintptr // what Workspace is given while nothing is prepared: a context without a state
	ZeroesTail bool    // its kernels zero rows [real, bucket) of its outputs, also where the schema does not promise it
	Parametric bool    // Launch goes through the launcher alone, with the same kernels at every step of a size
}

// Error is a device's failure; Status is an adcg_status.
type Error struct {
	Status  int32
	Message string
}

func (e *Error) Error() string { return e.Message }

// Arena is one range of the device's memory, in part with memory behind it.
type Arena interface {
	Address() uintptr // aligned to 64 bytes
	Batch() uintptr   // room for an adcg_batch in the device's memory; 0 on the host
	Held() int64      // bytes from Address on that have memory behind them
	Grow(bytes int64) error
	// Release gives the memory back, while nothing is under way that touches it, and keeps the addresses; Restore has as much behind
	// them as there was, of any content. By turns; all or nothing.
	Release() error
	Restore() error
	Free()
}

// Device is a place where ops run and memory lives. Errors are *Error, or ErrOutOfMemory of package tape.
type Device interface {
	Info() Info
	// Tape is the device's tape_device; 0: the host's.
	Tape() uintptr
	// NewArena reserves `bytes`. On a device that captures nothing all of them are held from the start.
	NewArena(bytes int64) (Arena, error)
	// ArenaBytes is what an arena of `bytes` takes of the device's memory, all held, and GraphBytes what a captured graph of some
	// kernels does.
	ArenaBytes(bytes int64) int64
	GraphBytes(kernels int) int64
	// Alloc gives memory of the device's to the caller, aligned to 64 bytes; Copy copies between any two of the host and the device,
	// and waits for it.
	Alloc(bytes int64) (uintptr, error)
	Free(address uintptr) error
	Copy(to, from uintptr, bytes int64) error
	// Op is the device's implementation of a built-in op.
	Op(name string) (Impl, bool)
	// Capture runs what captures, Destroy what gives memory, streams or graphs back: never both at once. Destroy may leave it for
	// later, when the captures are over: its caller may be an op in one.
	Capture(capture func())
	Destroy(destroy func())
	Close()
}
