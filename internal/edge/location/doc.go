// Package location joins edge locations to the core of an installation.
//
// A location is a process with a data directory of its own. It holds everything
// that it serves from:
//
//	core                                       location
//	  records  ── NATS leaf node, mirrored ──▶   records      (package state)
//	  packages ── HTTP/2, by SHA-256 ────────▶   packages     (functions' code)
//	  roles    ── HTTP/2, ahead of time ─────▶   credentials  (of functions' roles)
//	  logs     ◀─ HTTP/2, from a spool ───────   logs         (of functions)
//	  metrics  ◀─ HTTP/2, each once ──────────   metrics      (of distributions)
//	  status   ◀─ HTTP/2, every second ───────   reports      (how far it is)
//
// so that it serves on when the core cannot be reached, also after a restart, and
// for as long as its functions' credentials last at least: they are for twelve
// hours, and renewed after one.
//
// Core is the core's side: it knows the locations, lets new ones join, answers
// them, and tells how far all of them are. Node is a location's side. Between them
// is mutual TLS (package cluster): a location may mirror the records of edge
// locations, fetch the packages and act as the roles that these name, and nothing
// else.
package location
