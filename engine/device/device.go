// Package device says what the engine needs of a device. Memory and functions travel as addresses: what lies behind them
// is C's.
package device

// Info describes a device.
type Info struct {
	Name        string // "host"
	Description string // for people
	Type, ID    int32  // DLPack's device type and number
	Threads     int32  // of the host device's kernels; 0 on others
	MemoryBytes int64
}

// Impl is how a device runs one built-in op.
type Impl struct {
	Launch    uintptr // adcg_op_launch_fn; 0 where every output is a view
	Workspace uintptr // adcg_op_workspace_fn; 0: none
	Prepare   uintptr // makes a node's state from its attributes, once; 0: none
	Context   uintptr // what every launch is given beside the node's state
}

// Device is a place where ops run and memory lives.
type Device interface {
	Info() Info
	// Alloc gives `bytes` of the device's memory, aligned to 64 bytes; ErrOutOfMemory of package tape if there is none.
	Alloc(bytes int64) (uintptr, error)
	Free(address uintptr)
	// Op is the device's implementation of a built-in op.
	Op(name string) (Impl, bool)
	Close()
}
