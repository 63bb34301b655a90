// Package meter says what an invocation used, how AWS would bill that, and at
// what price. It keeps nothing: package usage does.
//
// Quantities are integers in the smallest unit that AWS bills (ms, MB·ms,
// bytes), so that sums are exact in whatever order they are made; only a price
// makes a fraction of them.
package meter

import (
	"strings"
	"time"
)

const (
	// IncludedEphemeralMB is the size of /tmp that costs nothing (Lambda
	// pricing, "Ephemeral storage").
	IncludedEphemeralMB = 512
	// IncludedStreamBytes is what a streamed response may have before its bytes
	// are billed (Lambda pricing, "HTTP response stream": the first 6 MB of a
	// request are free).
	IncludedStreamBytes = 6 << 20
	// provisionedGrain is what the time of provisioned concurrency is rounded
	// up to (Lambda pricing, "Provisioned Concurrency").
	provisionedGrain = 5 * time.Minute
)

// Usage is what one invocation used. Every invocation that reached the function
// has one, whatever became of it: AWS bills those that end in a function error,
// a crash or a timeout as well, and neither throttles nor refusals.
type Usage struct {
	RequestID string
	Function  string // name
	Version   string // that ran: $LATEST or a number
	Qualifier string // that the caller named: an alias or a version; may be empty

	Architecture string // x86_64 or arm64
	MemoryMB     int    // configured
	EphemeralMB  int    // configured

	Began time.Time
	// Duration is the time of the Invoke phase, a repeated Init that ran within
	// it included: AWS bills that as part of the duration.
	Duration time.Duration
	// Init is the time of the Init phase that the environment of the invocation
	// ran for it; 0 for a warm one. AWS bills it for all functions since August
	// 2025 ("AWS Lambda standardizes billing for INIT Phase"), in the invocation
	// that reports it.
	//
	// An Init phase that failed is not in it: it has no Init Duration in the
	// REPORT line, and AWS does not say whether its time is billed. The repeated
	// Init (Duration) is.
	Init time.Duration
	// Restore is the time that it took to restore the environment from a snapshot,
	// with SnapStart, and BilledRestore the part of it that AWS bills: for loading
	// the runtime and running the hooks after it (Lambda developer guide,
	// "SnapStart pricing"). Both are 0 for a warm one.
	Restore, BilledRestore time.Duration
	// Provisioned tells that it ran in an environment of provisioned
	// concurrency: its duration has a price of its own. Its Init is reported and
	// not billed: it ran ahead, while the environment was paid for as allocated.
	// (AWS bills such an Init once more as duration, whenever it renews an
	// environment; it does not say in which record.)
	Provisioned bool

	MaxMemoryMB int
	// StreamedBytes is the length of a streamed response; 0 for a buffered one.
	StreamedBytes int64
	// PostRuntime is the time that extensions took after the runtime was done;
	// it is part of Duration.
	PostRuntime time.Duration
	// Status is success, error or timeout, as in the REPORT line.
	Status    string
	ErrorType string // empty on success
}

// BilledMs is the duration that AWS bills: Duration, Init and BilledRestore
// together, rounded up to the next millisecond.
func (u *Usage) BilledMs() int64 {
	d := u.Duration + u.BilledRestore
	if !u.Provisioned {
		d += u.Init
	}
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// Failed tells whether CloudWatch counts the invocation in Errors.
func (u *Usage) Failed() bool { return u.Status != "" && u.Status != "success" }

// Quantities returns what AWS bills for the invocation.
func (u *Usage) Quantities() Quantities {
	billed := u.BilledMs()
	q := Quantities{
		Requests:       1,
		BilledMs:       billed,
		EphemeralMBMs:  int64(max(0, u.EphemeralMB-IncludedEphemeralMB)) * billed,
		StreamedBytes:  max(0, u.StreamedBytes-IncludedStreamBytes),
		OnDemandMBMs:   int64(u.MemoryMB) * billed,
		ColdStarts:     0,
		DurationMicros: u.Duration.Microseconds(),
	}
	if u.Init > 0 || u.Restore > 0 {
		q.ColdStarts = 1
	}
	if u.Failed() {
		q.Errors = 1
	}
	if u.Provisioned {
		q.ProvisionedMBMs, q.OnDemandMBMs = q.OnDemandMBMs, 0
	}
	return q
}

// Allocation is provisioned concurrency that was kept ready for some time.
type Allocation struct {
	Function     string
	Version      string // that the environments are of
	Architecture string
	MemoryMB     int
	Environments int
	From, To     time.Time
}

// Quantities returns what AWS bills for the allocation. Where it is the last of
// its configuration, which has been there since began, it has the time by which
// AWS rounds the whole up to five minutes.
func (a *Allocation) Quantities(began time.Time, last bool) Quantities {
	ms := a.To.Sub(a.From).Milliseconds()
	if last {
		if over := a.To.Sub(began) % provisionedGrain; over > 0 {
			ms += (provisionedGrain - over).Milliseconds()
		}
	}
	return Quantities{AllocatedMBMs: int64(a.MemoryMB) * int64(a.Environments) * max(0, ms)}
}

// Quantities are amounts that add up.
type Quantities struct {
	Requests        int64 `json:"requests,omitempty"`
	BilledMs        int64 `json:"billed_ms,omitempty"`
	OnDemandMBMs    int64 `json:"on_demand_mb_ms,omitempty"`   // memory by billed time
	ProvisionedMBMs int64 `json:"provisioned_mb_ms,omitempty"` // the same, of invocations in provisioned environments
	AllocatedMBMs   int64 `json:"allocated_mb_ms,omitempty"`   // memory of provisioned environments by the time they were kept
	EphemeralMBMs   int64 `json:"ephemeral_mb_ms,omitempty"`   // /tmp beyond IncludedEphemeralMB by billed time
	StreamedBytes   int64 `json:"streamed_bytes,omitempty"`    // beyond IncludedStreamBytes
	// What follows costs nothing.
	ColdStarts     int64 `json:"cold_starts,omitempty"`
	Errors         int64 `json:"errors,omitempty"`
	DurationMicros int64 `json:"duration_us,omitempty"`
}

// Add adds o.
func (q *Quantities) Add(o Quantities) {
	q.Requests += o.Requests
	q.BilledMs += o.BilledMs
	q.OnDemandMBMs += o.OnDemandMBMs
	q.ProvisionedMBMs += o.ProvisionedMBMs
	q.AllocatedMBMs += o.AllocatedMBMs
	q.EphemeralMBMs += o.EphemeralMBMs
	q.StreamedBytes += o.StreamedBytes
	q.ColdStarts += o.ColdStarts
	q.Errors += o.Errors
	q.DurationMicros += o.DurationMicros
}

// gbSeconds turns MB·ms into AWS's GB-seconds, of 1,024 MB.
func gbSeconds(mbMs int64) float64 { return float64(mbMs) / 1024 / 1000 }

// GBSeconds is the compute of invocations, on demand and provisioned.
func (q Quantities) GBSeconds() float64 { return gbSeconds(q.OnDemandMBMs + q.ProvisionedMBMs) }

// Qualifier returns what follows the function's name in an ARN, or "".
func Qualifier(functionARN string) string {
	for range 7 {
		_, after, found := strings.Cut(functionARN, ":")
		if !found {
			return ""
		}
		functionARN = after
	}
	return functionARN
}
