// Package events runs asynchronous invocations: it accepts an event once it is
// durable, runs it when its function has room, retries it as Lambda does, and
// hands its outcome to destinations.
package events
