package s3

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/state"
)

// bucket is a record of the buckets collection; its key is the name.
type bucket struct {
	Created    time.Time `json:"created"`
	Region     string    `json:"region"`
	Versioning string    `json:"versioning,omitempty"` // "", versioningEnabled or versioningSuspended
	// Tags are nil where there is no tag set.
	Tags   map[string]string `json:"tags,omitempty"`
	Policy string            `json:"policy,omitempty"` // JSON, as it was put
	// PublicAccess is nil where nobody changed it, and where NoPublicAccessBlock
	// says that it was removed.
	PublicAccess        *publicAccess `json:"publicAccess,omitempty"`
	NoPublicAccessBlock bool          `json:"noPublicAccessBlock,omitempty"`
	Ownership           string        `json:"ownership,omitempty"` // "" is enforced
}

const (
	versioningEnabled   = "Enabled"
	versioningSuspended = "Suspended"
)

// version is a record of the versions collection: one version of an object, or
// a delete marker.
type version struct {
	// Sequence orders the versions of a key: nanoseconds since 1970, moved on
	// where the clock does not.
	Sequence     int64     `json:"seq"`
	Modified     time.Time `json:"modified"` // to the second, as HTTP shows it
	DeleteMarker bool      `json:"deleteMarker,omitempty"`
	content
	description
	Tags map[string]string `json:"tags,omitempty"`
	// Upload is the multipart upload that made the object: to complete it
	// again gives the same answer again.
	Upload string `json:"upload,omitempty"`
}

// content is the body of an object or of a part.
type content struct {
	ETag     string    `json:"etag,omitempty"` // with its quotes
	Size     int64     `json:"size,omitempty"`
	Blobs    []extent  `json:"blobs,omitempty"` // whose contents one after the other are the body
	Checksum *checksum `json:"checksum,omitempty"`
	// Multipart says that Blobs are the parts of a multipart upload.
	Multipart bool `json:"multipart,omitempty"`
}

type extent struct {
	Digest state.Digest `json:"d"`
	Size   int64        `json:"n"`
	Sum    string       `json:"s,omitempty"` // of a part of a multipart upload, in the object's algorithm
}

// digests returns the blobs that the body needs, as often as it needs them.
func (c *content) digests() []state.Digest {
	ds := make([]state.Digest, len(c.Blobs))
	for i, b := range c.Blobs {
		ds[i] = b.Digest
	}
	return ds
}

// description is what a client says about an object and gets back with it.
type description struct {
	ContentType        string            `json:"contentType,omitempty"`
	CacheControl       string            `json:"cacheControl,omitempty"`
	ContentDisposition string            `json:"contentDisposition,omitempty"`
	ContentEncoding    string            `json:"contentEncoding,omitempty"`
	ContentLanguage    string            `json:"contentLanguage,omitempty"`
	Expires            *time.Time        `json:"expires,omitempty"`
	Redirect           string            `json:"redirect,omitempty"` // x-amz-website-redirect-location
	Metadata           map[string]string `json:"metadata,omitempty"`
}

// upload is a record of the uploads collection: a multipart upload that is
// under way.
type upload struct {
	Initiated time.Time `json:"initiated"`
	description
	Tags map[string]string `json:"tags,omitempty"`
	// Algorithm and ChecksumType are those of the object to be. Declared says
	// that the client chose the algorithm.
	Algorithm    string `json:"algorithm"`
	ChecksumType string `json:"checksumType"`
	Declared     bool   `json:"declared,omitempty"`
}

// part is a record of the parts collection.
type part struct {
	Modified time.Time `json:"modified"`
	content
}

// nullVersion is the version id of objects that were written while the bucket
// had no versioning.
const nullVersion = "null"

// separator ends the object key in a record's key. It sorts before everything
// that an object key may hold, so that records are in the order of object keys.
const separator = "\x00"

// above sorts after every string that begins with what is before it: it is no
// part of UTF-8.
const above = "\xff"

// versionKey is the key of a version's record. Versions of a key sort the
// newest first, and the null version last.
func versionKey(bucket, key, versionID string) string {
	return bucket + "/" + key + separator + versionID
}

// newVersionID makes an id that sorts before those made earlier.
func newVersionID(sequence int64) string {
	var random [8]byte
	rand.Read(random[:]) // never fails
	return fmt.Sprintf("%016x", ^uint64(sequence)) + hex.EncodeToString(random[:])
}

// splitVersionKey undoes versionKey, for keys within the bucket.
func splitVersionKey(bucket, recordKey string) (key, versionID string) {
	recordKey = strings.TrimPrefix(recordKey, bucket+"/")
	i := strings.LastIndex(recordKey, separator)
	return recordKey[:i], recordKey[i+1:]
}

// uploadKey is the key of an upload's record.
func uploadKey(bucket, key, uploadID string) string {
	return bucket + "/" + key + separator + uploadID
}

// partKey is the key of a part's record; parts sort by number.
func partKey(uploadID string, number int) string {
	return fmt.Sprintf("%s/%05d", uploadID, number)
}
