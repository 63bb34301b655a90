package location

import (
	"time"

	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/tier"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/state"
)

// Paths of the calls between nodes. Bodies are JSON but for packages.
const (
	pathJoin        = "/v1/join"
	pathRenew       = "/v1/renew"
	pathReport      = "/v1/report"
	pathPackage     = "/v1/package/" // and the SHA-256
	pathCredentials = "/v1/credentials"
	pathLogs        = "/v1/logs"
	pathCounts      = "/v1/metrics"
	pathTokens      = "/v1/tokens"    // operators
	pathLocations   = "/v1/locations" // operators; and a location's name
)

// awsHeader marks a request to the core that is for its AWS endpoint: as a
// function made it, path and signature and all.
const awsHeader = "Lapwing-Node-Aws"

// maxBody bounds the JSON bodies of calls, in bytes, but for logs.
const maxBody = 1 << 20

// maxLogs bounds a batch of log events, in bytes: a file of a spool.
const maxLogs = spoolSegment + maxSpooled + 1<<20

// joinRequest is how a location joins.
type joinRequest struct {
	Secret    string // the token's
	PublicKey []byte // PKIX
	Region    string
}

// joined is what it gets.
type joined struct {
	Certificate, CA []byte // DER
	AccountID       string
	CoreRegion      string
	LeafPort        int // of the core, for the leaf node
}

type renewed struct{ Certificate []byte }

// report is what a location says of itself.
type report struct {
	Version string // of the program
	Region  string
	Started time.Time
	// Address is the HOST:PORT at which other locations reach it; empty: nowhere.
	Address string
	// Regional tells that it is a regional edge cache.
	Regional bool
	Applied  distribution.Revisions
	// Marks are of its mirrors.
	Marks map[string]state.Mark
	// Spooled is how many bytes of logs it has yet to hand on.
	Spooled int64
}

// answer is what the core replies.
type answer struct {
	LeafPort int
	// Marks are of the core's records.
	Marks map[string]state.Mark
	Peers []peer
}

// peer is a location of the installation, as the others are told. The core's own has
// no address: it is where the core is.
type peer struct {
	tier.Place
	Key string // the fingerprint of its public key; empty: the core's own
}

// credentialsRequest asks for credentials of a role.
type credentialsRequest struct {
	Role, Session string
	Seconds       int
}

type credentialsAnswer struct{ Session credentials.Session }

// logBatch is log events of one stream.
type logBatch struct {
	Group, Stream string
	Events        []logstore.Event
}

// tokenRequest asks for a token.
type tokenRequest struct {
	Name string
	TTL  time.Duration
}

type tokenAnswer struct{ Token string }

// Status is what the core knows of a location.
type Status struct {
	Name   string `json:"name"`
	Region string `json:"region"`
	// State is one of the states below.
	State   string `json:"state"`
	Version string `json:"version,omitempty"`
	Address string `json:"address,omitempty"`
	// Regional tells that it is a regional edge cache.
	Regional bool `json:"regional,omitempty"`
	// LastSeen is when it last reported; zero: not since the core started.
	LastSeen time.Time `json:"lastSeen,omitzero"`
	// LagSeconds is how long it has not had all that the core has; Behind how many
	// revisions it has yet to get, of all collections.
	LagSeconds float64                `json:"lagSeconds"`
	Behind     uint64                 `json:"behind"`
	Spooled    int64                  `json:"spooledLogBytes"`
	Applied    distribution.Revisions `json:"applied"`
	Joined     time.Time              `json:"joined"`
}

// States of locations.
const (
	StateCurrent = "current" // has all that the core has
	StateBehind  = "behind"  // reports, and has not
	StateSilent  = "silent"  // has not reported for a moment
	// StateAway locations have not reported for so long that nobody waits for them.
	StateAway = "away"
)
