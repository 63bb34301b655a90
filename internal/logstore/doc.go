// Package logstore stores log events: groups hold streams, streams hold events,
// as in CloudWatch Logs. The worker appends what functions print (Append); the
// logs service puts, reads and tails on behalf of API callers (Put, Read,
// Subscribe). It knows nothing of the wire.
//
// # How it works
//
// A group is a directory: group.json (name, retention, tags), streams (the
// catalogue of its streams) and segments (see segment.go). What is appended
// collects in a batch per group, which is written after 200 ms, or when it is
// read, as one or more compressed and checksummed blocks at the end of the
// group's log. Blocks hold events of several streams in the order of event time
// and tell in their meta what they hold, so that readers pass over the others.
// A log of 8 MiB is sealed in the background: rewritten as large blocks in the
// order of time, without what has expired or been deleted. Small segments are
// merged, so that a quiet group does not become a thousand files. Every read is
// a merge of the blocks that can hold what is wanted (see read.go); a position
// (time, sequence number) names an event for good, across restarts and sealing.
//
// # What is safe when
//
// Put returns when its events are on the disk (fsync; concurrent Puts to a group
// share it), and so do all changes of groups and streams. Append returns at
// once: kill -9 loses at most the last 200 ms, a power failure the last second.
// Open cuts the torn tail of a log and passes over damaged blocks, each of which
// is logged.
//
// # Limits
//
// Memory: the queue of Append holds 16 MiB for all groups and 4 MiB for one; a
// function that logs faster than the disk takes it is first slowed down (100 ms)
// and then loses lines, and a line in the stream says how many. Disk: when all
// segments exceed the budget, the oldest segment of the group that uses the most
// space is dropped, and so on, so that a chatty function shortens its own
// history and nobody else's. CloudWatch Logs has no such limit; a retention time
// that fits the disk avoids it. Streams: a stream that Append made goes with its
// last event (CloudWatch Logs keeps empty streams), one made by CreateStream
// stays until DeleteStream.
//
// # Why not VictoriaLogs
//
// Its storage library (github.com/VictoriaMetrics/VictoriaLogs/lib/logstorage,
// Apache-2.0, pure Go) was measured against this package in November 2026, at
// v1.51.1-0.20260624 with VictoriaMetrics v1.148.8, on a machine of two cores:
// 10^6 lines of 120 bytes in 10 groups and 50 streams.
//
//	                                     VictoriaLogs    logstore
//	binary size added, beyond zstd       2.6 MB          0.5 MB
//	RSS of an idle, empty store, more    3.3 MB          0.1 MB
//	RSS after the ingestion              141-163 MB      60-74 MB, 12 MB when returned
//	ingestion, lines/s                   216,000         880,000
//	size on disk                         34 MB           29 MB
//	one group of 100,000 lines:
//	  count the lines with a word        14 ms           37 ms
//	  a word that is not there           0.5 ms          29 ms
//	  first 100 lines with a word        3.8 ms          0.4 ms
//	  last 100 lines of a stream         17 ms           0.2 ms
//	adding three lines                   7.6 µs          0.6 µs
//	20,000 streams of three lines        310 ms          76 ms
//	acknowledged events lost by kill -9  2.4 s' worth    0 (Put), 0.2 s' worth (Append)
//
// It is the better engine for searching terabytes. What decided: it cannot say
// when an event is durable, which PutLogEvents must (in-memory parts are flushed
// on a timer, 1 s here, and 474 of 666 events written in 3.5 s were gone after
// kill -9); it keeps one retention for the whole store, and removes a group only
// by a background rewrite; it does not keep the order of events of one
// millisecond; it panics on I/O errors, so that a full disk would end the server
// and not just logging; and its memory is sized for a dedicated machine. It has
// no tagged Go module, and the VictoriaMetrics revision that it pins is not
// served by the module proxy. Filter patterns would be evaluated line by line
// over either.
package logstore
