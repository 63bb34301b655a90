package s3

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/s3"
	"lapwing.dev/lapwing/internal/aws/sigv4"
	"lapwing.dev/lapwing/internal/aws/wire"
)

const secret = "secret"

// serve answers as the gateway does: it verifies the signature, which takes the
// chunks off a streamed body, and lets the codecs do the rest.
func serve(s *Service) http.Handler {
	svc := api.NewService(s)
	verifier := sigv4.NewVerifier(time.Now)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call *wire.Call
		err := func() error {
			auth, err := sigv4.Parse(r)
			if err == nil {
				err = verifier.Verify(r, auth, secret, &sigv4.Rules{Dialect: sigv4.S3, Service: "s3", Regions: []string{auth.Region}})
			}
			if err != nil {
				return err
			}
			if call, err = wire.Find(svc, r); err != nil {
				return err
			}
			request := &aws.Request{ID: "id", Region: auth.Region, BaseURL: "http://" + r.Host, Header: r.Header, Trailer: r.Trailer}
			return call.Serve(aws.WithRequest(r.Context(), request), w, r)
		}()
		if f, ok := errors.AsType[*sigv4.Failure](err); ok {
			err = f.In(sigv4.S3)
		}
		if err != nil {
			e, ok := errors.AsType[*aws.Error](err)
			if !ok {
				e = &aws.Error{Code: "InternalError", Status: 500, Message: err.Error()}
			}
			wire.WriteError(w, r, svc, call, e, "id")
		}
	})
}

// client is the AWS SDK's client of a new service. With TLS it sends checksums
// behind the body.
func client(t testing.TB, withTLS bool) (*s3.Client, *Service) {
	t.Helper()
	s, _ := openService(t, t.TempDir())
	server := httptest.NewUnstartedServer(serve(s))
	if withTLS {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: &server.URL, UsePathStyle: true, RetryMaxAttempts: 1, RequestChecksumCalculation: awssdk.RequestChecksumCalculationWhenSupported, ResponseChecksumValidation: awssdk.ResponseChecksumValidationWhenSupported,
		Credentials: credentials.NewStaticCredentialsProvider("AKID", secret, ""),
		HTTPClient:  &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: rootsOf(server)}}},
	}), s
}

func must[T any](out T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// wantAPIError checks an error that the SDK returned.
func wantAPIError(t testing.TB, what string, err error, code string, status int) {
	t.Helper()
	var e smithy.APIError
	var response interface{ HTTPStatusCode() int }
	if !errors.As(err, &e) || e.ErrorCode() != code || !errors.As(err, &response) || response.HTTPStatusCode() != status {
		t.Errorf("%s: error %v, want %s with status %d", what, err, code, status)
	}
}

func TestSDKObjects(t *testing.T) {
	for _, withTLS := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", withTLS), func(t *testing.T) {
			c, _ := client(t, withTLS)
			ctx := t.Context()
			must(c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: awssdk.String("bucket")}))(t)
			key := awssdk.String("dir/é +&?%.txt")
			expires := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
			put := must(c.PutObject(ctx, &s3.PutObjectInput{
				Bucket: awssdk.String("bucket"), Key: key, Body: strings.NewReader("hello"),
				ContentType: awssdk.String("text/plain"), CacheControl: awssdk.String("no-cache"), ContentDisposition: awssdk.String("inline"),
				ContentLanguage: awssdk.String("en"), ContentEncoding: awssdk.String("identity"), Expires: &expires,
				Metadata: map[string]string{"Name": "value"}, Tagging: awssdk.String("a=b%20c&d=e"),
			}))(t)
			if *put.ETag != `"5d41402abc4b2a76b9719d911017c592"` || put.ChecksumCRC32 == nil || put.ChecksumType != types.ChecksumTypeFullObject {
				t.Errorf("PutObject = %+v", put)
			}
			got := must(c.GetObject(ctx, &s3.GetObjectInput{Bucket: awssdk.String("bucket"), Key: key, ChecksumMode: types.ChecksumModeEnabled}))(t)
			body := must(io.ReadAll(got.Body))(t)
			if string(body) != "hello" || *got.ContentType != "text/plain" || *got.CacheControl != "no-cache" || *got.ContentDisposition != "inline" ||
				*got.ContentLanguage != "en" || awssdk.ToString(got.ContentEncoding) != "identity" || awssdk.ToString(got.ExpiresString) != expires.Format(http.TimeFormat) ||
				got.Metadata["name"] != "value" || *got.ContentLength != 5 || *got.ETag != *put.ETag || *got.TagCount != 2 || awssdk.ToString(got.ChecksumCRC32) != *put.ChecksumCRC32 {
				t.Errorf("GetObject = %+v %q", got, body)
			}
			head := must(c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: awssdk.String("bucket"), Key: key}))(t)
			if *head.ContentLength != 5 || head.Metadata["name"] != "value" || head.LastModified.IsZero() {
				t.Errorf("HeadObject = %+v", head)
			}
			tags := must(c.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: awssdk.String("bucket"), Key: key}))(t)
			if len(tags.TagSet) != 2 || *tags.TagSet[0].Value != "b c" {
				t.Errorf("tags %+v", tags.TagSet)
			}
			must(c.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{Bucket: awssdk.String("bucket"), Key: key, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: awssdk.String("x"), Value: awssdk.String("y")}}}}))(t)
			must(c.DeleteObjectTagging(ctx, &s3.DeleteObjectTaggingInput{Bucket: awssdk.String("bucket"), Key: key}))(t)
			must(c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: awssdk.String("bucket"), Key: awssdk.String("copy"), CopySource: awssdk.String("bucket/dir/%C3%A9%20%2B%26%3F%25.txt"),
				MetadataDirective: types.MetadataDirectiveReplace, Metadata: map[string]string{"new": "1"}, ChecksumAlgorithm: types.ChecksumAlgorithmSha256}))(t)
			copied := must(c.GetObject(ctx, &s3.GetObjectInput{Bucket: awssdk.String("bucket"), Key: awssdk.String("copy"), ChecksumMode: types.ChecksumModeEnabled}))(t)
			if body := must(io.ReadAll(copied.Body))(t); string(body) != "hello" || copied.Metadata["new"] != "1" || len(copied.Metadata) != 1 || copied.ChecksumSHA256 == nil {
				t.Errorf("the copy is %+v %q", copied, body)
			}
			attributes := must(c.GetObjectAttributes(ctx, &s3.GetObjectAttributesInput{Bucket: awssdk.String("bucket"), Key: key,
				ObjectAttributes: []types.ObjectAttributes{types.ObjectAttributesEtag, types.ObjectAttributesObjectSize, types.ObjectAttributesChecksum}}))(t)
			if *attributes.ObjectSize != 5 || attributes.Checksum.ChecksumCRC32 == nil || strings.Contains(*attributes.ETag, `"`) {
				t.Errorf("GetObjectAttributes = %+v", attributes)
			}
			empty := must(c.PutObject(ctx, &s3.PutObjectInput{Bucket: awssdk.String("bucket"), Key: awssdk.String("empty")}))(t)
			if *empty.ETag != `"d41d8cd98f00b204e9800998ecf8427e"` {
				t.Errorf("an empty object has ETag %s", *empty.ETag)
			}
		})
	}
}

func TestSDKStreamsWithTrailingChecksums(t *testing.T) {
	c, _ := client(t, true)
	ctx := t.Context()
	must(c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: awssdk.String("bucket")}))(t)
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	for _, algorithm := range []types.ChecksumAlgorithm{"", types.ChecksumAlgorithmCrc32, types.ChecksumAlgorithmCrc32c, types.ChecksumAlgorithmCrc64nvme, types.ChecksumAlgorithmSha1, types.ChecksumAlgorithmSha256} {
		must(c.PutObject(ctx, &s3.PutObjectInput{
			Bucket: awssdk.String("bucket"), Key: awssdk.String("k"), Body: io.LimitReader(bytes.NewReader(large), int64(len(large))), // cannot seek
			ContentLength: awssdk.Int64(int64(len(large))), ChecksumAlgorithm: algorithm,
		}))(t)
		got := must(c.GetObject(ctx, &s3.GetObjectInput{Bucket: awssdk.String("bucket"), Key: awssdk.String("k"), ChecksumMode: types.ChecksumModeEnabled}))(t)
		if body := must(io.ReadAll(got.Body))(t); !bytes.Equal(body, large) {
			t.Errorf("%s: read %d bytes that differ", algorithm, len(body))
		}
	}
}

func TestSDKErrors(t *testing.T) {
	c, _ := client(t, false)
	ctx := t.Context()
	bucket, key := awssdk.String("bucket"), awssdk.String("key")
	must(c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}))(t)
	put := must(c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("0123456789")}))(t)
	none, other := awssdk.String("no-such-bucket"), awssdk.String(`"other"`)
	for name, test := range map[string]struct {
		call   func() error
		code   string
		status int
	}{
		"get from no bucket":   {func() error { _, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: none, Key: key}); return err }, "NoSuchBucket", 404},
		"put to no bucket":     {func() error { _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: none, Key: key}); return err }, "NoSuchBucket", 404},
		"list no bucket":       {func() error { _, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: none}); return err }, "NoSuchBucket", 404},
		"delete no bucket":     {func() error { _, err := c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: none}); return err }, "NoSuchBucket", 404},
		"head no bucket":       {func() error { _, err := c.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: none}); return err }, "NotFound", 404},
		"get no key":           {func() error { _, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: none}); return err }, "NoSuchKey", 404},
		"head no key":          {func() error { _, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: none}); return err }, "NotFound", 404},
		"delete a full bucket": {func() error { _, err := c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: bucket}); return err }, "BucketNotEmpty", 409},
		"bad bucket name": {func() error {
			_, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: awssdk.String("Bad_Name")})
			return err
		}, "InvalidBucketName", 400},
		"bad location": {func() error {
			_, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: none, CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: "us-east-1"}})
			return err
		}, "InvalidLocationConstraint", 400},
		"range past the end": {func() error {
			_, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key, Range: awssdk.String("bytes=10-")})
			return err
		}, "InvalidRange", 416},
		"if-match": {func() error {
			_, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key, IfMatch: other})
			return err
		}, "PreconditionFailed", 412},
		"put if-none-match": {func() error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, IfNoneMatch: awssdk.String("*")})
			return err
		}, "PreconditionFailed", 412},
		"put if-match": {func() error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, IfMatch: other})
			return err
		}, "PreconditionFailed", 412},
		"wrong Content-MD5": {func() error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, ContentMD5: awssdk.String("AAAAAAAAAAAAAAAAAAAAAA==")})
			return err
		}, "BadDigest", 400},
		"wrong checksum": {func() error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, ChecksumCRC32: awssdk.String("AAAAAQ==")})
			return err
		}, "BadDigest", 400},
		"long key": {func() error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: awssdk.String(strings.Repeat("k", 1025))})
			return err
		}, "KeyTooLongError", 400},
		"no upload": {func() error {
			_, err := c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: none})
			return err
		}, "NoSuchUpload", 404},
		"copy to itself": {func() error {
			_, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: key, CopySource: awssdk.String("bucket/key")})
			return err
		}, "InvalidRequest", 400},
		"copy if-match": {func() error {
			_, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: none, CopySource: awssdk.String("bucket/key"), CopySourceIfMatch: other})
			return err
		}, "PreconditionFailed", 412},
		"copy of nothing": {func() error {
			_, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: none, CopySource: awssdk.String("bucket/none")})
			return err
		}, "NoSuchKey", 404},
		"encryption": {func() error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, ServerSideEncryption: types.ServerSideEncryptionAwsKms})
			return err
		}, "NotImplemented", 501},
		"operation not supported": {func() error { _, err := c.DeleteBucketCors(ctx, &s3.DeleteBucketCorsInput{Bucket: bucket}); return err }, "NotImplemented", 501},
		"wrong MD5 of a document": {func() error {
			_, err := c.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: bucket, ContentMD5: awssdk.String("AAAAAAAAAAAAAAAAAAAAAA=="),
				VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
			return err
		}, "BadDigest", 400},
		"other owner": {func() error {
			_, err := c.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: bucket, ExpectedBucketOwner: awssdk.String("000000000001")})
			return err
		}, "Forbidden", 403},
		"empty versioning": {func() error {
			_, err := c.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: bucket, VersioningConfiguration: &types.VersioningConfiguration{}})
			return err
		}, "IllegalVersioningConfigurationException", 400},
	} {
		t.Run(name, func(t *testing.T) { wantAPIError(t, name, test.call(), test.code, test.status) })
	}
	_, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key, IfNoneMatch: put.ETag})
	var response interface{ HTTPStatusCode() int }
	if !errors.As(err, &response) || response.HTTPStatusCode() != http.StatusNotModified {
		t.Errorf("if-none-match: %v", err)
	}
	// Creating a bucket again is an error everywhere but in us-east-1.
	must(c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}))(t)
	inFrankfurt := func(o *s3.Options) { o.Region = "eu-central-1" }
	_, err = c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket, CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: "eu-central-1"}}, inFrankfurt)
	wantAPIError(t, "create again", err, "BucketAlreadyOwnedByYou", 409)
	_, err = c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: none}, inFrankfurt)
	wantAPIError(t, "no location", err, "IllegalLocationConstraintException", 400)
	must(c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: none, CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: "eu-central-1"}}, inFrankfurt))(t)
	if l := must(c.GetBucketLocation(ctx, &s3.GetBucketLocationInput{Bucket: none}))(t); l.LocationConstraint != "eu-central-1" {
		t.Errorf("location %q", l.LocationConstraint)
	}
	if l := must(c.GetBucketLocation(ctx, &s3.GetBucketLocationInput{Bucket: bucket}))(t); l.LocationConstraint != "" {
		t.Errorf("location %q", l.LocationConstraint)
	}
	if l := must(c.ListBuckets(ctx, &s3.ListBucketsInput{MaxBuckets: awssdk.Int32(1)}))(t); len(l.Buckets) != 1 || *l.Buckets[0].Name != "bucket" || l.ContinuationToken == nil {
		t.Errorf("buckets %+v", l)
	}
}

func TestSDKBucketTags(t *testing.T) {
	c, _ := client(t, false)
	bucket, ctx := "bucket-with-tags", t.Context()
	tag := func(key, value string) types.Tag { return types.Tag{Key: &key, Value: &value} }
	_, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket, CreateBucketConfiguration: &types.CreateBucketConfiguration{Tags: []types.Tag{tag("made", "with")}}})
	if err != nil {
		t.Fatal(err)
	}
	wantTags := func(want ...types.Tag) {
		t.Helper()
		got, err := c.GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: &bucket})
		if err != nil || !reflect.DeepEqual(got.TagSet, want) {
			t.Errorf("tags %+v, %v, want %+v", got, err, want)
		}
	}
	put := func(tags ...types.Tag) error {
		_, err := c.PutBucketTagging(ctx, &s3.PutBucketTaggingInput{Bucket: &bucket, Tagging: &types.Tagging{TagSet: tags}})
		return err
	}
	wantTags(tag("made", "with"))
	if err := put(tag("b", ""), tag("a", "1")); err != nil {
		t.Fatal(err)
	}
	wantTags(tag("a", "1"), tag("b", ""))

	many := make([]types.Tag, maxBucketTags+1)
	for i := range many {
		many[i] = tag(strconv.Itoa(i), "")
	}
	wantAPIError(t, "too many tags", put(many...), "BadRequest", 400)
	wantAPIError(t, "a tag twice", put(tag("a", "1"), tag("a", "2")), "InvalidTag", 400)
	wantAPIError(t, "a tag of AWS's own", put(tag("aws:a", "1")), "InvalidTag", 400)
	wantTags(tag("a", "1"), tag("b", ""))

	if _, err := c.DeleteBucketTagging(ctx, &s3.DeleteBucketTaggingInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	_, err = c.GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: &bucket})
	wantAPIError(t, "no tags", err, "NoSuchTagSet", 404)
	bucket = "no-such-bucket"
	wantAPIError(t, "no bucket", put(tag("a", "1")), "NoSuchBucket", 404)
}

func TestSDKRanges(t *testing.T) {
	c, _ := client(t, false)
	ctx := t.Context()
	bucket, key := awssdk.String("bucket"), awssdk.String("key")
	must(c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}))(t)
	must(c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("0123456789")}))(t)
	for header, want := range map[string]string{"bytes=2-4": "234 bytes 2-4/10", "bytes=-2": "89 bytes 8-9/10", "bytes=7-99": "789 bytes 7-9/10", "bytes=x": "0123456789 "} {
		got := must(c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key, Range: &header}))(t)
		body := must(io.ReadAll(got.Body))(t)
		if answer := string(body) + " " + awssdk.ToString(got.ContentRange); answer != want {
			t.Errorf("%s: %q, want %q", header, answer, want)
		}
	}
	// The status is what tells proxies and browsers of a partial answer.
	request := must(s3.NewPresignClient(c).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key, ResponseContentType: awssdk.String("text/x")}))(t)
	r := must(http.NewRequestWithContext(ctx, http.MethodGet, request.URL, nil))(t)
	r.Header.Set("Range", "bytes=0-0")
	response := must(http.DefaultClient.Do(r))(t)
	defer response.Body.Close()
	if response.StatusCode != http.StatusPartialContent || response.Header.Get("Content-Type") != "text/x" || response.Header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("%s %v", response.Status, response.Header)
	}
}

func TestSDKVersionsAndListings(t *testing.T) {
	c, _ := client(t, false)
	ctx := t.Context()
	bucket := awssdk.String("bucket")
	must(c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}))(t)
	must(c.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}}))(t)
	if v := must(c.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: bucket}))(t); v.Status != types.BucketVersioningStatusEnabled {
		t.Errorf("versioning %q", v.Status)
	}
	var want []string
	for i := range 25 {
		key := fmt.Sprintf("logs/%02d/a b", i)
		want = append(want, key)
		must(c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: strings.NewReader(key)}))(t)
	}
	var got []string
	for p := s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{Bucket: bucket, Prefix: awssdk.String("logs/"), MaxKeys: awssdk.Int32(7), EncodingType: types.EncodingTypeUrl, FetchOwner: awssdk.Bool(true)}); p.HasMorePages(); {
		page := must(p.NextPage(ctx))(t)
		for _, o := range page.Contents {
			got = append(got, strings.ReplaceAll(*o.Key, "%20", " "))
			if o.Owner == nil || *o.Size != 11 || o.StorageClass != types.ObjectStorageClassStandard {
				t.Fatalf("object %+v", o)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v", got)
	}
	folded := must(c.ListObjects(ctx, &s3.ListObjectsInput{Bucket: bucket, Delimiter: awssdk.String("/"), Prefix: awssdk.String("logs/"), MaxKeys: awssdk.Int32(3), Marker: awssdk.String("logs/03/")}))(t)
	if len(folded.CommonPrefixes) != 3 || *folded.CommonPrefixes[0].Prefix != "logs/04/" || *folded.NextMarker != "logs/06/" {
		t.Errorf("folded %+v", folded)
	}
	deleted := must(c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: &want[0]}, {Key: awssdk.String("nothing")}, {Key: &want[1], VersionId: awssdk.String("bad")}}}}))(t)
	if len(deleted.Deleted) != 2 || deleted.Deleted[0].DeleteMarkerVersionId == nil || len(deleted.Errors) != 1 || *deleted.Errors[0].Code != "InvalidArgument" {
		t.Errorf("deleted %+v", deleted)
	}
	versions := must(c.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: bucket, Prefix: awssdk.String("logs/00")}))(t)
	if len(versions.Versions) != 1 || len(versions.DeleteMarkers) != 1 || *versions.Versions[0].IsLatest || !*versions.DeleteMarkers[0].IsLatest {
		t.Errorf("versions %+v", versions)
	}
	old := must(c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: &want[0], VersionId: versions.Versions[0].VersionId}))(t)
	if body := must(io.ReadAll(old.Body))(t); string(body) != want[0] {
		t.Errorf("the old version is %q", body)
	}
}

// TestSDKMultipart uploads as transfer managers do: parts side by side, then a
// copied part, with the algorithms that SDKs use.
func TestSDKMultipart(t *testing.T) {
	c, s := client(t, true)
	ctx := t.Context()
	bucket := awssdk.String("bucket")
	must(c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}))(t)
	part := bytes.Repeat([]byte("p"), minPartSize)
	must(c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: awssdk.String("source"), Body: strings.NewReader("0123456789")}))(t)
	for _, test := range []struct {
		algorithm types.ChecksumAlgorithm
		kind      types.ChecksumType
	}{{"", ""}, {types.ChecksumAlgorithmCrc32, ""}, {types.ChecksumAlgorithmCrc32, types.ChecksumTypeFullObject}, {types.ChecksumAlgorithmCrc64nvme, ""}, {types.ChecksumAlgorithmSha256, ""}} {
		t.Run(fmt.Sprint(test.algorithm, test.kind), func(t *testing.T) {
			key := awssdk.String("multi" + string(test.algorithm))
			u := must(c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key, ChecksumAlgorithm: test.algorithm, ChecksumType: test.kind}))(t)
			parts := make([]types.CompletedPart, 3)
			done := make(chan error)
			for i := range parts[:2] {
				go func() {
					out, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: u.UploadId, PartNumber: awssdk.Int32(int32(i + 1)), Body: bytes.NewReader(part), ChecksumAlgorithm: test.algorithm})
					if err == nil {
						parts[i] = types.CompletedPart{PartNumber: awssdk.Int32(int32(i + 1)), ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32, ChecksumCRC64NVME: out.ChecksumCRC64NVME, ChecksumSHA256: out.ChecksumSHA256}
					}
					done <- err
				}()
			}
			for range 2 {
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			copied := must(c.UploadPartCopy(ctx, &s3.UploadPartCopyInput{Bucket: bucket, Key: key, UploadId: u.UploadId, PartNumber: awssdk.Int32(3), CopySource: awssdk.String("bucket/source"), CopySourceRange: awssdk.String("bytes=2-5")}))(t).CopyPartResult
			parts[2] = types.CompletedPart{PartNumber: awssdk.Int32(3), ETag: copied.ETag, ChecksumCRC32: copied.ChecksumCRC32, ChecksumCRC64NVME: copied.ChecksumCRC64NVME, ChecksumSHA256: copied.ChecksumSHA256}
			listed := must(c.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: bucket}))(t)
			if len(listed.Uploads) != 1 || *listed.Uploads[0].UploadId != *u.UploadId {
				t.Errorf("uploads %+v", listed)
			}
			out := must(c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: key, UploadId: u.UploadId, ChecksumType: test.kind, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}}))(t)
			if !strings.HasSuffix(*out.ETag, `-3"`) {
				t.Errorf("ETag %s", *out.ETag)
			}
			got := must(c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key, ChecksumMode: types.ChecksumModeEnabled}))(t)
			body := must(io.ReadAll(got.Body))(t) // the SDK verifies a checksum of the whole
			if want := append(bytes.Repeat(part, 2), "2345"...); !bytes.Equal(body, want) {
				t.Errorf("read %d bytes that differ", len(body))
			}
			must(c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: key}))(t)
		})
	}
	if n := countBlobs(t, s); n != 1 {
		t.Errorf("%d bodies for one object", n)
	}
}

func TestAClientThatGoesAwayLeavesNothing(t *testing.T) {
	c, s := client(t, false)
	must(c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: awssdk.String("bucket")}))(t)
	ctx, cancel := context.WithCancel(t.Context())
	body := io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), readerFunc(func([]byte) (int, error) { cancel(); <-ctx.Done(); return 0, ctx.Err() }))
	_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: awssdk.String("bucket"), Key: awssdk.String("k"), Body: body, ContentLength: awssdk.Int64(1 << 30)},
		s3.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware))
	if err == nil {
		t.Error("the put succeeded")
	}
	if _, err := get(t, s, "k", ""); err == nil {
		t.Error("there is an object")
	}
	if n := countBlobs(t, s); n != 0 {
		t.Errorf("%d bodies are left", n)
	}
}

func rootsOf(server *httptest.Server) *x509.CertPool {
	roots := x509.NewCertPool()
	if server.TLS != nil {
		roots.AddCert(server.Certificate())
	}
	return roots
}
