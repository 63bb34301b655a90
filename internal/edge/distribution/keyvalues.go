package distribution

import "time"

// KeyValues is one record of a key value store: its head, or a part of its pairs.
// A store may have 5 MB, more than a record can, and changes at once: parts never
// change, and what the head names is the store (package keyvalue).
type KeyValues struct {
	Format int
	Head   *KeyValueHead `json:",omitempty"`
	Part   []KeyValue    `json:",omitempty"` // in the order of keys
}

// KeyValueHead is a key value store without its pairs.
type KeyValueHead struct {
	ARN               string
	ETag              string // of the pairs; new with every change
	Created, Modified time.Time
	State             KeyValueState
	Reason            string // why the import failed
	Count             int    // of the pairs
	Bytes             int64  // of their keys and values
	Parts             []KeyValuePart
}

// KeyValueState is how far a key value store is.
type KeyValueState string

// The states of a key value store.
const (
	KeyValuesProvisioning KeyValueState = "PROVISIONING"
	KeyValuesReady        KeyValueState = "READY"
	KeyValuesImportFailed KeyValueState = "IMPORT_FAILED"
)

// KeyValuePart names a part of a store's pairs.
type KeyValuePart struct {
	ID    string
	First string // its first key
}

// KeyValue is one pair.
type KeyValue struct {
	Key   string `json:"K"`
	Value string `json:"V"`
}
