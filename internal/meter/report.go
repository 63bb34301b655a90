package meter

import "time"

// Report is the REPORT line of an invocation and its place in the log.
type Report struct {
	Group, Stream string
	Time          time.Time
	Message       string // empty where the function's log level leaves it out
}

// Receipt is for usage that was handed over to be kept. It orders the REPORT
// line after its usage, so that the log never tells of time that the usage
// records do not have.
type Receipt interface {
	// Written waits until the usage is on the disk. Only then, and once, may
	// the line be appended to the log, after which the caller must call Logged.
	// After an error it must do neither: the keeper of the usage brings the
	// line to the log when it can.
	Written() error
	// Logged tells what became of appending the line to the log; nil is success.
	Logged(err error)
}
