package main

import (
	"sync"

	"github.com/libadcg/libadcg/engine"
)

// handles maps the numbers behind handles to objects. A handle of an engine or a graph is its number shifted over its kind
// (handle.h); an exec's slot holds its number.
var handles = struct {
	sync.RWMutex
	objects map[uintptr]any
	next    uintptr
}{objects: make(map[uintptr]any), next: 1}

const kindBits = 3

// The kinds of handle.h.
const (
	kindEngine uintptr = 1
	kindGraph  uintptr = 2
)

var kindNames = map[uintptr]string{kindEngine: "engine", kindGraph: "graph", 3: "exec"}

func addObject(object any) uintptr {
	handles.Lock()
	defer handles.Unlock()
	number := handles.next
	handles.next++
	handles.objects[number] = object
	return number
}

func takeObject(number uintptr) any {
	handles.Lock()
	defer handles.Unlock()
	object := handles.objects[number]
	delete(handles.objects, number)
	return object
}

func object[T any](number uintptr) (T, bool) {
	handles.RLock()
	defer handles.RUnlock()
	o, ok := handles.objects[number].(T)
	return o, ok
}

// lookUp finds the object of a handle that should be of some kind.
func lookUp[T any](handle, kind uintptr) (T, error) {
	if handle&(1<<kindBits-1) == kind {
		if o, ok := object[T](handle >> kindBits); ok {
			return o, nil
		}
	}
	var none T
	what := "is destroyed, or no " + kindNames[kind]
	if other, ok := kindNames[handle&(1<<kindBits-1)]; ok && handle&(1<<kindBits-1) != kind {
		what = "is no " + kindNames[kind] + " but of the kind " + other
	}
	return none, &engine.Error{Status: engine.ErrHandle, Message: kindNames[kind] + ": handle " + hex(handle) + " " + what}
}
