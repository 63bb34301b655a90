package lambda

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/image/container"
)

// logGroupPrefix begins the name of the log group that a function has unless its
// configuration names another one.
const logGroupPrefix = "/aws/lambda/"

// functionRecord is a function and its $LATEST version.
type functionRecord struct {
	// ID is the function's incarnation: versions and aliases of a deleted
	// function of the same name carry another one.
	ID     string        `json:"id"`
	Config configuration `json:"config"`
	// Serving is what invocations use while Config is not in force: during an
	// update and after one that failed.
	Serving *configuration `json:"serving,omitempty"`
	status

	// NextVersion is the number of the next version to be published. Version
	// records from that number on do not count: their publication was not
	// completed. Numbers are never used twice.
	NextVersion int `json:"nextVersion"`

	attachments
	RecursiveLoop       api.RecursiveLoop `json:"recursiveLoop,omitempty"` // empty: Terminate
	Tags                map[string]string `json:"tags,omitempty"`
	ReservedConcurrency *int              `json:"reservedConcurrency,omitempty"`
	SigningARN          string            `json:"signingArn,omitempty"` // of the code signing configuration
}

// versionRecord is a published version.
type versionRecord struct {
	FunctionID string        `json:"functionId"`
	Number     int           `json:"number"`
	Config     configuration `json:"config"`
	// Source is the fingerprint of the $LATEST that was published, whose
	// description can differ.
	Source string `json:"source"`
	status
	attachments
}

// aliasRecord is an alias.
type aliasRecord struct {
	FunctionID  string             `json:"functionId"`
	Name        string             `json:"name"`
	Version     string             `json:"version"`
	Description string             `json:"description,omitempty"`
	Weights     map[string]float64 `json:"weights,omitempty"` // additional version -> share, at most one
	Revision    string             `json:"revision"`
	attachments
}

// status is the life cycle of $LATEST or of a version.
type status struct {
	Revision string    `json:"revision"` // RevisionId, new with every write
	Modified time.Time `json:"modified"`

	State       api.State           `json:"state"`
	StateReason string              `json:"stateReason,omitempty"`
	StateCode   api.StateReasonCode `json:"stateCode,omitempty"`

	Update       api.LastUpdateStatus           `json:"update,omitempty"`
	UpdateReason string                         `json:"updateReason,omitempty"`
	UpdateCode   api.LastUpdateStatusReasonCode `json:"updateCode,omitempty"`

	// Detail is what there is to say of a failure beyond the API's reason.
	Detail string `json:"detail,omitempty"`
}

// creating is the reason that Lambda shows while a function or an update is on
// its way.
const creating = "The function is being created."

func pending(now time.Time) status {
	return status{Revision: newID(), Modified: now,
		State: api.StatePending, StateReason: creating, StateCode: api.StateReasonCodeCreating}
}

// restore marks a version as one that cannot run until it is made ready again.
func (s *status) restore() {
	s.Revision = newID()
	s.State, s.StateReason, s.StateCode = api.StatePending, "The function is being restored.", api.StateReasonCodeRestoring
}

// startUpdate marks an update as under way.
func (s *status) startUpdate(now time.Time) {
	s.Revision, s.Modified = newID(), now
	s.Update, s.UpdateReason, s.UpdateCode = api.LastUpdateStatusInProgress, creating, "Creating"
}

// succeed ends creation or update.
func (s *status) succeed() {
	s.Revision = newID()
	s.State, s.StateReason, s.StateCode = api.StateActive, "", ""
	s.Update, s.UpdateReason, s.UpdateCode = api.LastUpdateStatusSuccessful, "", ""
	s.Detail = ""
}

// fail ends creation or update with an error.
func (s *status) fail(code, reason string) {
	s.Revision = newID()
	if s.State == api.StatePending {
		s.State, s.StateReason, s.StateCode = api.StateFailed, reason, api.StateReasonCode(code)
		if s.Update != api.LastUpdateStatusInProgress {
			return
		}
	}
	s.Update, s.UpdateReason, s.UpdateCode = api.LastUpdateStatusFailed, reason, api.LastUpdateStatusReasonCode(code)
}

// inProgress tells whether the life cycle has a next step.
func (s *status) inProgress() bool {
	return s.State == api.StatePending || s.Update == api.LastUpdateStatusInProgress
}

// configuration is what a version freezes.
type configuration struct {
	// Deployment is new with each creation and update, even one that changes
	// nothing: environments of another deployment are not used any more.
	Deployment string `json:"deployment"`

	Description string      `json:"description,omitempty"`
	Role        string      `json:"role"`
	Runtime     api.Runtime `json:"runtime"`
	// RuntimeUpdate says whether the runtime version may change from RuntimeARN,
	// the one at the last update; empty means Auto.
	RuntimeUpdate api.UpdateRuntimeOn `json:"runtimeUpdate,omitempty"`
	RuntimeARN    string              `json:"runtimeArn,omitempty"`

	Handler      string           `json:"handler"`
	Architecture api.Architecture `json:"architecture"`
	TimeoutSec   int              `json:"timeoutSec"`
	MemoryMB     int              `json:"memoryMb"`
	EphemeralMB  int              `json:"ephemeralMb"`
	Environment  *environment     `json:"environment,omitempty"` // nil: never given
	Logging      logging          `json:"logging"`
	Tracing      api.TracingMode  `json:"tracing,omitempty"` // empty: PassThrough
	// Package is the package type, empty for Zip. It never changes. Code is the
	// package of a Zip; an Image has neither Code nor Runtime, Handler and Layers.
	Package     api.PackageType  `json:"packageType,omitempty"`
	Code        codePackage      `json:"code"`
	Image       *container.Image `json:"image,omitempty"`
	ImageConfig *imageConfig     `json:"imageConfig,omitempty"`
	Layers      []layerUse       `json:"layers,omitempty"`     // lowest first
	DeadLetter  string           `json:"deadLetter,omitempty"` // ARN
	// Tenancy is how the function's tenants are isolated, if at all. It never
	// changes.
	Tenancy api.TenantIsolationMode `json:"tenancy,omitempty"`
	// SnapStart is for published versions; empty means None.
	SnapStart api.SnapStartApplyOn `json:"snapStart,omitempty"`
}

type environment struct {
	Variables map[string]string `json:"variables,omitempty"`
}

type logging struct {
	Format           api.LogFormat           `json:"format"`
	ApplicationLevel api.ApplicationLogLevel `json:"applicationLevel,omitempty"`
	SystemLevel      api.SystemLogLevel      `json:"systemLevel,omitempty"`
	Group            string                  `json:"group"`
}

// codePackage is a deployment package, or the content of a layer.
type codePackage struct {
	Digest   string `json:"digest"`             // SHA-256 of the zip archive, lower-case hex
	Size     int64  `json:"size"`               // of the archive, in bytes
	Unpacked int64  `json:"unpacked,omitempty"` // size of all files, in bytes; 0 in records from before layers
}

// sha256Base64 is the digest as the API shows it.
func (c codePackage) sha256Base64() string {
	b, _ := hex.DecodeString(c.Digest) // our own writing
	return base64.StdEncoding.EncodeToString(b)
}

// sha256 is CodeSha256: of an image, the digest of its manifest.
func (c *configuration) sha256() string {
	if c.Image != nil {
		return strings.TrimPrefix(c.Image.Digest, "sha256:")
	}
	return c.Code.sha256Base64()
}

// fingerprint tells configurations apart, whenever they were deployed.
func (c configuration) fingerprint() string {
	c.Deployment = ""
	b, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("lambda: configuration: %v", err)) // it holds nothing that could fail
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// functionVersion makes what the data plane needs to know of a version.
func (s *Service) functionVersion(key functionKey, number string, c *configuration) *function.Version {
	v := &function.Version{
		Account: s.opts.AccountID, Region: key.region, Name: key.name, Version: number,
		Revision: c.Deployment,
		Runtime:  string(c.Runtime), RuntimeVersionARN: c.pinnedRuntime(), Handler: c.Handler, Architecture: string(c.Architecture), Role: c.Role,
		MemoryMB: c.MemoryMB, Timeout: time.Duration(c.TimeoutSec) * time.Second, EphemeralMB: c.EphemeralMB,
		Logging: function.Logging{
			Format: string(c.Logging.Format), ApplicationLevel: string(c.Logging.ApplicationLevel),
			SystemLevel: string(c.Logging.SystemLevel), Group: c.Logging.Group,
		},
		ActiveTracing: c.Tracing == api.TracingModeActive,
		SnapStart:     c.snapStart() && number != function.Latest,
	}
	if c.Image != nil {
		v.Image = s.functionImage(c)
	} else {
		v.Code = s.opts.Images.Path(c.Code.Digest)
	}
	if c.Environment != nil {
		v.Env = maps.Clone(c.Environment.Variables)
	}
	if len(c.Layers) > 0 {
		v.Layers = s.opts.Images.Path(image.MergedDigest(c.layerDigests()))
	}
	return v
}
