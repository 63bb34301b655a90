package events

import "time"

// Target is a function as an event asks for it.
type Target struct {
	Region    string `json:"region"`
	Function  string `json:"function"`            // name
	Qualifier string `json:"qualifier,omitempty"` // version or alias, as the caller named it; may be empty
	// FunctionID tells the function from a later one of the same name. Where it
	// is empty any will do.
	FunctionID string `json:"functionId,omitempty"`
}

func (t Target) String() string {
	s := t.Region + "/" + t.Function
	if t.Qualifier != "" {
		s += ":" + t.Qualifier
	}
	return s
}

// Observer is told what CloudWatch has metrics for (Lambda developer guide,
// Types of metrics, asynchronous invocation). Its methods are called from many
// goroutines and must not block.
type Observer interface {
	// EventReceived: an event is durably queued (AsyncEventsReceived).
	EventReceived(Target)
	// EventAge: an event is about to be run, so long after it was queued
	// (AsyncEventAge).
	EventAge(Target, time.Duration)
	// EventDropped: an event leaves the queue without its function having
	// succeeded, whether or not it goes on to a destination
	// (AsyncEventsDropped).
	EventDropped(Target)
	// RecursionStopped: an event was part of a recursive loop
	// (RecursiveInvocationsDropped).
	RecursionStopped(Target)
	// DeadLetterFailed: an event could not be handed to its dead-letter target
	// (DeadLetterErrors).
	DeadLetterFailed(Target)
	// DestinationFailed: an invocation record could not be handed to its
	// destination (DestinationDeliveryFailures).
	DestinationFailed(Target)
}

// unobserved is the Observer where none was given.
type unobserved struct{}

func (unobserved) EventReceived(Target)           {}
func (unobserved) EventAge(Target, time.Duration) {}
func (unobserved) EventDropped(Target)            {}
func (unobserved) RecursionStopped(Target)        {}
func (unobserved) DeadLetterFailed(Target)        {}
func (unobserved) DestinationFailed(Target)       {}
