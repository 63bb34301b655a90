// Package logstore keeps log groups, streams and events.
package logstore
