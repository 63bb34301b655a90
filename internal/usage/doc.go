// Package usage keeps what invocations used, so that it adds up to what their
// REPORT lines say: to the millisecond, across kill -9 and power loss, and never
// twice.
//
// # How it works
//
// A record of the journal holds the usage of an invocation and its REPORT line.
// Records collect for some milliseconds and are then written and synced
// together; only after that the line goes into the log (meter.Receipt), so the
// log never tells of time that the journal lacks. The reverse is made good: the
// journal remembers which lines the log store has had yet to make durable, looks
// after a crash (or a dropped line) whether they are there, and appends those
// that are not. A line is settled when the log store has synced it.
//
// Segments of the journal whose lines are settled are folded: their usage is
// added to the file of its month, a row for each day, function, version and
// architecture, and the segment goes. Every record has a sequence number, and
// the file of a month says up to which one it has them: a record counts if it
// is beyond that. So it does not matter where a crash interrupts folding, or at
// which moment someone reads (Read needs no server and no lock).
//
//	usage/lock             held by the process that writes
//	usage/00000012.journal segments
//	usage/2026-11.json     months
//
// # When the disk is full
//
// Records wait in memory and are written when there is room again; until then
// their lines are not in the log. Beyond maxBacklog they are lost, which is
// logged: functions go on.
package usage
