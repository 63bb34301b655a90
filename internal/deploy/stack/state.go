package stack

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/internal/deploy/template"
)

// stateVersion is the version of the format of a State.
const stateVersion = 1

// maxState limits what is read of a state, in bytes.
const maxState = 64 << 20

// State is what a stack is made of: what was deployed, as far as it was.
type State struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	ID      string `json:"id"` // AWS::StackId
	// Salt is what the hashes of secrets are made with.
	Salt string `json:"salt"`
	// Parameters are the values of the template's parameters but NoEcho ones.
	Parameters map[string]string `json:"parameters,omitempty"`
	// NoEcho are the names of NoEcho parameters that were given a value, which is
	// not kept.
	NoEcho []string `json:"noEcho,omitempty"`
	// Resources are in an order in which each comes after those it needs.
	Resources []*Record         `json:"resources"`
	Outputs   map[string]string `json:"outputs,omitempty"`
	Updated   time.Time         `json:"updated"`

	etag string // of the object, "" if there is none yet
}

// Record is a resource of a stack.
type Record struct {
	ID         string `json:"id"` // in the template
	Type       string `json:"type"`
	PhysicalID string `json:"physicalId"`
	// Generation counts replacements: each has a name of its own.
	Generation int `json:"generation,omitempty"`
	// Unfinished tells that it was being made, changed or removed, and that
	// nobody knows how far.
	Unfinished bool `json:"unfinished,omitempty"`
	// Replaced tells that another of the same ID has taken its place, and that
	// it is still to be removed.
	Replaced bool `json:"replaced,omitempty"`
	// Retain and RetainReplaced tell that it stays when it leaves the template,
	// or is replaced.
	Retain         bool `json:"retain,omitempty"`
	RetainReplaced bool `json:"retainReplaced,omitempty"`
	// Properties are what was deployed, with secrets as hashes.
	Properties map[string]any `json:"properties"`
	// Attributes are what Fn::GetAtt finds, and Ref under "".
	Attributes map[string]string `json:"attributes,omitempty"`
}

// NewState returns the state of a stack of which nothing is there.
func NewState(name, account, region string) *State {
	return &State{Version: stateVersion, Name: name, Salt: rand.Text(),
		ID: fmt.Sprintf("arn:aws:cloudformation:%s:%s:stack/%s/%s", region, account, name, strings.ToLower(rand.Text()))}
}

// find returns the current record of a resource, nil if there is none.
func (s *State) find(id string) *Record {
	i := slices.IndexFunc(s.Resources, func(r *Record) bool { return r.ID == id && !r.Replaced })
	if i < 0 {
		return nil
	}
	return s.Resources[i]
}

// nextGeneration is one that no record of a resource has: one that was replaced
// may still be there.
func (s *State) nextGeneration(id string) (next int) {
	for _, r := range s.Resources {
		if r.ID == id {
			next = max(next, r.Generation+1)
		}
	}
	return next
}

func (s *State) drop(r *Record) {
	s.Resources = slices.DeleteFunc(s.Resources, func(one *Record) bool { return one == r })
}

// physicalName makes a name for a resource that the template gives none. It is
// the same whenever it is made, so that what an interrupted deployment began is
// found again.
func (s *State) physicalName(id string, generation, limit int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%d", s.ID, id, generation))
	suffix := "-" + base32.StdEncoding.EncodeToString(sum[:])[:12]
	name := s.Name + "-" + id
	if len(name)+len(suffix) > limit {
		name = strings.TrimRight(name[:limit-len(suffix)], "-")
	}
	return name + suffix
}

// record is the form in which properties are kept and compared: JSON's types,
// secrets as hashes, and what is pending as it is.
func (s *State) record(v any) any {
	switch v := v.(type) {
	case template.Secret:
		mac := hmac.New(sha256.New, []byte(s.Salt))
		mac.Write([]byte(v))
		return secretPrefix + hex.EncodeToString(mac.Sum(nil)[:16])
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, one := range v {
			m[k] = s.record(one)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, one := range v {
			list[i] = s.record(one)
		}
		return list
	case int64:
		return float64(v)
	case template.Pending, nil, string, float64, bool:
		return v
	}
	// A package of code, by its own JSON form.
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	var plain any
	if json.Unmarshal(b, &plain) != nil {
		return string(b)
	}
	return plain
}

// secretPrefix begins what a secret is kept as.
const secretPrefix = "NoEcho:"

// Store keeps the states of stacks in a bucket of the account, so that whoever
// deploys next finds them.
type Store struct {
	client *s3.Client
	bucket string
	region string
}

// NewStore returns the store of an account and Region.
func NewStore(client *s3.Client, account, region string) *Store {
	return &Store{client: client, bucket: "lapwing-stacks-" + account + "-" + region, region: region}
}

func (s *Store) key(name string) *string { return aws.String("stacks/" + name + ".json") }

// Load returns the state of a stack, nil if there is no such stack.
func (s *Store) Load(ctx context.Context, name string) (*State, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: s.key(name)})
	if code(err) == "NoSuchKey" || code(err) == "NoSuchBucket" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	b, err := io.ReadAll(io.LimitReader(out.Body, maxState))
	if err != nil {
		return nil, err
	}
	st := &State{etag: aws.ToString(out.ETag)}
	if err := json.Unmarshal(b, st); err != nil {
		return nil, fmt.Errorf("the state of stack %s (s3://%s/%s): %w", name, s.bucket, *s.key(name), err)
	}
	if st.Version > stateVersion {
		return nil, fmt.Errorf("stack %s was deployed by a newer Lapwing: its state has version %d, and this program knows %d", name, st.Version, stateVersion)
	}
	return st, nil
}

// errMoved tells that another deployment wrote the state in the meantime.
var errMoved = errors.New("another deployment of this stack is under way, or has just been: look at the difference again")

// Save writes a state, if nobody else has since it was loaded.
func (s *Store) Save(ctx context.Context, st *State) error {
	st.Updated = time.Now().UTC()
	b, err := json.MarshalIndent(st, "", " ")
	if err != nil {
		return err
	}
	in := &s3.PutObjectInput{Bucket: &s.bucket, Key: s.key(st.Name), Body: bytes.NewReader(b), ContentType: aws.String("application/json")}
	if st.etag == "" {
		in.IfNoneMatch = aws.String("*")
	} else {
		in.IfMatch = &st.etag
	}
	out, err := s.client.PutObject(ctx, in)
	if code(err) == "NoSuchBucket" {
		if err := createBucket(ctx, s.client, s.bucket, s.region); err != nil && code(err) != "BucketAlreadyOwnedByYou" {
			return err
		}
		in.Body = bytes.NewReader(b)
		out, err = s.client.PutObject(ctx, in)
	}
	if code(err) == "PreconditionFailed" || code(err) == "ConditionalRequestConflict" {
		return errMoved
	}
	if err != nil {
		return fmt.Errorf("cannot write the state of stack %s: %w", st.Name, err)
	}
	st.etag = aws.ToString(out.ETag)
	return nil
}

// Delete removes the state of a stack.
func (s *Store) Delete(ctx context.Context, st *State) error {
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: s.key(st.Name)})
	return err
}

// List returns the names of the stacks.
func (s *Store) List(ctx context.Context) ([]string, error) {
	var names []string
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: aws.String("stacks/")})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if code(err) == "NoSuchBucket" {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for _, o := range page.Contents {
			names = append(names, strings.TrimSuffix(strings.TrimPrefix(aws.ToString(o.Key), "stacks/"), ".json"))
		}
	}
	return names, nil
}

func createBucket(ctx context.Context, client *s3.Client, name, region string) error {
	in := &s3.CreateBucketInput{Bucket: &name}
	if region != "us-east-1" { // S3's default, which it refuses to be told
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(region)}
	}
	_, err := client.CreateBucket(ctx, in)
	return err
}

// code is the code of an AWS error, "" if it is none.
func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}
