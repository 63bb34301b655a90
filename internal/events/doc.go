// Package events runs asynchronous invocations: it accepts an event once it is
// durable, runs it when its function has room, retries it as Lambda does, and
// hands its outcome to destinations (Lambda developer guide, Invoking a
// function asynchronously).
//
// Events lie in a queue of package state, one fsync to accept one and one to
// remove it. In memory there is an index of some 40 bytes an event, rebuilt at
// the start: a payload is read when its event is due, so that a backlog costs
// disk, not memory.
//
// Each function has a lane of its own: a heap of its events by the time when
// they are due, and a bound on how many run at once that follows what the
// function has room for. So one function's backlog holds up no other.
//
// An event is removed after its function has succeeded or has failed for good
// and after its outcome is durably handed on. A crash before that runs it
// again: at least once, as on AWS, with the same request id. Attempts that
// ended in a function error are counted durably; an attempt that a crash cut
// short is not.
package events
