package lambda

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"lapwing.dev/lapwing/internal/aws"
)

// DetailsHeader is a header with which a request for the configuration of a
// version asks for what AWS has no field for: the answer has it in a header of
// the same name, as JSON (Details). Clients that do not ask see AWS's answer and
// nothing else.
const DetailsHeader = "X-Lapwing-Details"

// maxFailureDetail bounds the text of a failure, which is the function's, in
// bytes: it is in a header.
const maxFailureDetail = 1024

// Details is what Lapwing tells of a version beside what AWS does.
type Details struct {
	Snapshot SnapshotDetails `json:"snapshot"`
	// Failure is why the version could not be initialised, in its own words.
	Failure string `json:"failure,omitempty"`
}

// SnapshotDetails tells about the snapshot of a version.
type SnapshotDetails struct {
	Ready   bool       `json:"ready"`
	Created *time.Time `json:"created,omitempty"`
	Size    int64      `json:"size,omitempty"` // on the disk, in bytes
	// Uses is how many environments were started from it.
	Uses int64 `json:"uses,omitempty"`
	// Reason is why there is none.
	Reason string `json:"reason,omitempty"`
	// Runtime tells that environments start from a snapshot of the runtime alone
	// meanwhile.
	Runtime bool `json:"runtime,omitempty"`
}

// tellDetails answers a request for details.
func (s *Service) tellDetails(ctx context.Context, key functionKey, v resolvedVersion) error {
	r := aws.RequestFrom(ctx)
	if r.Response == nil || r.Header.Get(DetailsHeader) == "" {
		return nil
	}
	d := Details{Failure: v.status.Detail[:min(len(v.status.Detail), maxFailureDetail)]}
	st := s.snapshotStatus(key, v.number)
	d.Snapshot = SnapshotDetails{Ready: st.Ready, Size: st.Size, Uses: st.Uses, Reason: st.Reason, Runtime: st.Runtime}
	if st.Ready {
		d.Snapshot.Created = &st.Created
	}
	b, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("lambda: details: %w", err)
	}
	r.Response.Set(DetailsHeader, string(b))
	return nil
}
