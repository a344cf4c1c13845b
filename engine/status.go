package engine

import (
	"errors"
	"fmt"
	"strings"

	"github.com/libadcg/libadcg/engine/device"
	"github.com/libadcg/libadcg/engine/tape"
	"github.com/libadcg/libadcg/piecewise"
)

// Status sorts errors; the numbers are those of adcg_status.
type Status int32

// Statuses; adcg.h says what each means.
const (
	OK             Status = 0
	ErrArgument    Status = 10
	ErrHandle      Status = 11
	ErrState       Status = 12
	ErrBusy        Status = 13
	ErrNotFound    Status = 14
	ErrGraph       Status = 20
	ErrShape       Status = 21
	ErrDType       Status = 22
	ErrAttribute   Status = 23
	ErrAddress     Status = 24
	ErrBatch       Status = 30
	ErrDevice      Status = 40
	ErrUnsupported Status = 41
	ErrOutOfMemory Status = 42
	ErrOp          Status = 50
	ErrCancelled   Status = 51
	ErrForked      Status = 60
	ErrPoisoned    Status = 61
	ErrInternal    Status = 62
)

func (s Status) String() string { return tape.StatusName(int32(s)) }

// Error is an error of this package.
type Error struct {
	Status   Status
	Function string // the function of the C API that found it, where the data plane did; else ""
	Message  string // "what: value"
}

func (e *Error) Error() string {
	if e.Function == "" {
		return e.Message
	}
	return e.Function + ": " + e.Message
}

func errorf(status Status, format string, args ...any) error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...)}
}

// tapeError is the failure that the data plane left on this thread.
func tapeError(status int32) error {
	if status == int32(OK) {
		return nil
	}
	function, message, _ := strings.Cut(tape.LastError(), ": ")
	return &Error{Status: Status(status), Function: function, Message: message}
}

var kinds = map[piecewise.ErrorKind]Status{
	piecewise.ErrGraph: ErrGraph, piecewise.ErrShape: ErrShape, piecewise.ErrDType: ErrDType, piecewise.ErrAttribute: ErrAttribute,
	piecewise.ErrState: ErrState, piecewise.ErrBatch: ErrBatch, piecewise.ErrArgument: ErrArgument, piecewise.ErrNotFound: ErrNotFound,
	piecewise.ErrInternal: ErrInternal, piecewise.ErrOp: ErrOp,
}

// StatusOf maps any error to its status: the one place where that is decided.
func StatusOf(err error) Status {
	var own *Error
	var callback *tape.CallbackError
	var graph *piecewise.Error
	var failed *device.Error
	switch {
	case err == nil:
		return OK
	case errors.As(err, &own):
		return own.Status
	case errors.As(err, &failed):
		return Status(failed.Status)
	case errors.Is(err, tape.ErrOutOfMemory):
		return ErrOutOfMemory
	case errors.As(err, &callback):
		return ErrOp
	case errors.As(err, &graph):
		if status, known := kinds[graph.Kind]; known {
			return status
		}
	}
	return ErrInternal
}
