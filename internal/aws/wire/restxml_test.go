package wire_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	client "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/s3"
	"lapwing.dev/lapwing/internal/aws/wire/internal/testapi/s3acl"
)

type s3API struct {
	s3.API
	put      func(*s3.PutObjectInput) (*s3.PutObjectOutput, error)
	get      func(*s3.GetObjectInput) (*s3.GetObjectOutput, error)
	head     func(*s3.HeadObjectInput) (*s3.HeadObjectOutput, error)
	list     func(*s3.ListObjectsV2Input) (*s3.ListObjectsV2Output, error)
	remove   func(*s3.DeleteObjectsInput) (*s3.DeleteObjectsOutput, error)
	complete func(*s3.CompleteMultipartUploadInput) (*s3.CompleteMultipartUploadOutput, error)
	location func(*s3.GetBucketLocationInput) (*s3.GetBucketLocationOutput, error)
}

func (a s3API) PutObject(_ context.Context, in *s3.PutObjectInput) (*s3.PutObjectOutput, error) {
	return a.put(in)
}
func (a s3API) GetObject(_ context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	return a.get(in)
}
func (a s3API) HeadObject(_ context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	return a.head(in)
}
func (a s3API) ListObjectsV2(_ context.Context, in *s3.ListObjectsV2Input) (*s3.ListObjectsV2Output, error) {
	return a.list(in)
}
func (a s3API) DeleteObjects(_ context.Context, in *s3.DeleteObjectsInput) (*s3.DeleteObjectsOutput, error) {
	return a.remove(in)
}
func (a s3API) CompleteMultipartUpload(_ context.Context, in *s3.CompleteMultipartUploadInput) (*s3.CompleteMultipartUploadOutput, error) {
	return a.complete(in)
}
func (a s3API) GetBucketLocation(_ context.Context, in *s3.GetBucketLocationInput) (*s3.GetBucketLocationOutput, error) {
	return a.location(in)
}

func s3Client(t *testing.T, svc *aws.Service) (*client.Client, string, <-chan error) {
	address, late := serve(t, svc)
	return client.NewFromConfig(config(address), func(o *client.Options) {
		o.UsePathStyle = true
		o.RequestChecksumCalculation = sdk.RequestChecksumCalculationWhenRequired
	}), address, late
}

func TestRESTXMLStreamsBodiesAndCarriesHeaders(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 1<<18)
	var got *s3.PutObjectInput
	var body []byte
	c, _, _ := s3Client(t, s3.NewService(s3API{
		put: func(in *s3.PutObjectInput) (*s3.PutObjectOutput, error) {
			got = in
			var err error
			body, err = io.ReadAll(in.Body)
			return &s3.PutObjectOutput{ETag: aws.Ptr(`"tag"`)}, err
		},
		get: func(in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
			return &s3.GetObjectOutput{Body: io.NopCloser(bytes.NewReader(data)), ContentLength: aws.Ptr(int64(len(data))), ContentType: aws.Ptr("text/plain"),
				LastModified: aws.Ptr(moment), Metadata: map[string]string{"color": "grün"}, ContentRange: aws.Ptr("bytes 0-2621439/9999999")}, nil
		},
	}))
	key := "a b/ü+%?#/c"
	out, err := c.PutObject(t.Context(), &client.PutObjectInput{Bucket: sdk.String("bucket"), Key: &key, Body: bytes.NewReader(data),
		ContentType: sdk.String("text/plain"), Metadata: map[string]string{"Color": "green"}, Expires: aws.Ptr(moment), StorageClass: types.StorageClassStandard})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "ETag", *out.ETag, `"tag"`)
	equal(t, "key", *got.Key, key)
	equal(t, "metadata", got.Metadata, map[string]string{"color": "green"})
	equal(t, "ContentLength", *got.ContentLength, int64(len(data)))
	equal(t, "class", got.StorageClass, s3.StorageClassStandard)
	if !bytes.Equal(body, data) {
		t.Error("the body changed on its way")
	}

	object, err := c.GetObject(t.Context(), &client.GetObjectInput{Bucket: sdk.String("bucket"), Key: &key, Range: sdk.String("bytes=0-")})
	if err != nil {
		t.Fatal(err)
	}
	defer object.Body.Close()
	if b, err := io.ReadAll(object.Body); err != nil || !bytes.Equal(b, data) {
		t.Errorf("the object changed on its way: %v", err)
	}
	equal(t, "LastModified", object.LastModified.UTC(), moment)
	equal(t, "metadata", object.Metadata["color"], "=?UTF-8?b?Z3LDvG4=?=")
}

func TestPartOfAnObjectHasStatus206(t *testing.T) {
	_, address, _ := s3Client(t, s3.NewService(s3API{get: func(*s3.GetObjectInput) (*s3.GetObjectOutput, error) {
		return &s3.GetObjectOutput{Body: io.NopCloser(strings.NewReader("ab")), ContentRange: aws.Ptr("bytes 0-1/9")}, nil
	}}))
	resp, body := send(t, "GET", address+"/b/k", "")
	equal(t, "response", []any{resp.StatusCode, body}, []any{206, "ab"})
}

func TestBodyThatFailsHalfwayBreaksTheConnection(t *testing.T) {
	_, address, late := s3Client(t, s3.NewService(s3API{get: func(*s3.GetObjectInput) (*s3.GetObjectOutput, error) {
		failing := io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), failingReader{})
		return &s3.GetObjectOutput{Body: io.NopCloser(failing), ContentLength: aws.Ptr(int64(2 << 20))}, nil
	}}))
	resp, err := http.Get(address + "/b/k")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("half a body was taken for a whole one")
	}
	if err := <-late; !strings.Contains(err.Error(), "bad sector") {
		t.Errorf("reported: %v", err)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("bad sector") }

func TestRESTXMLListsAndDocuments(t *testing.T) {
	var deleted *s3.DeleteObjectsInput
	var parts *s3.CompleteMultipartUploadInput
	c, address, _ := s3Client(t, s3.NewService(s3API{
		list: func(in *s3.ListObjectsV2Input) (*s3.ListObjectsV2Output, error) {
			equal(t, "parameters", []any{*in.Prefix, *in.MaxKeys, *in.FetchOwner}, []any{"p/", int32(7), true})
			return &s3.ListObjectsV2Output{Name: in.Bucket, KeyCount: aws.Ptr(int32(2)), IsTruncated: aws.Ptr(false),
				Contents:       []*s3.Object{{Key: aws.Ptr("a<&>\r\n"), Size: aws.Ptr(int64(5)), LastModified: aws.Ptr(moment)}, {Key: aws.Ptr("b")}},
				CommonPrefixes: []*s3.CommonPrefix{{Prefix: aws.Ptr("p/q/")}}}, nil
		},
		remove: func(in *s3.DeleteObjectsInput) (*s3.DeleteObjectsOutput, error) {
			deleted = in
			return &s3.DeleteObjectsOutput{Deleted: []*s3.DeletedObject{{Key: aws.Ptr("x")}}, Errors: []*s3.Error{{Key: aws.Ptr("y"), Code: aws.Ptr("AccessDenied")}}}, nil
		},
		complete: func(in *s3.CompleteMultipartUploadInput) (*s3.CompleteMultipartUploadOutput, error) {
			parts = in
			return &s3.CompleteMultipartUploadOutput{ETag: aws.Ptr(`"e-2"`)}, nil
		},
		location: func(*s3.GetBucketLocationInput) (*s3.GetBucketLocationOutput, error) {
			return &s3.GetBucketLocationOutput{LocationConstraint: s3.BucketLocationConstraint("eu-west-1")}, nil
		},
	}))
	bucket := sdk.String("bucket")
	list, err := c.ListObjectsV2(t.Context(), &client.ListObjectsV2Input{Bucket: bucket, Prefix: sdk.String("p/"), MaxKeys: sdk.Int32(7), FetchOwner: sdk.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "contents", []any{len(list.Contents), *list.Contents[0].Key, *list.Contents[0].Size, *list.Contents[0].LastModified}, []any{2, "a<&>\r\n", int64(5), moment})
	equal(t, "prefixes", *list.CommonPrefixes[0].Prefix, "p/q/")

	out, err := c.DeleteObjects(t.Context(), &client.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Quiet: sdk.Bool(true),
		Objects: []types.ObjectIdentifier{{Key: sdk.String("x")}, {Key: sdk.String(" y&\n"), VersionId: sdk.String("v")}}}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "to delete", deleted.Delete, &s3.Delete{Quiet: aws.Ptr(true), Objects: []*s3.ObjectIdentifier{{Key: aws.Ptr("x")}, {Key: aws.Ptr(" y&\n"), VersionId: aws.Ptr("v")}}})
	equal(t, "deleted", []string{*out.Deleted[0].Key, *out.Errors[0].Code}, []string{"x", "AccessDenied"})

	if _, err := c.CompleteMultipartUpload(t.Context(), &client.CompleteMultipartUploadInput{Bucket: bucket, Key: sdk.String("k"), UploadId: sdk.String("u"),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{PartNumber: sdk.Int32(1), ETag: sdk.String(`"a"`)}, {PartNumber: sdk.Int32(2), ETag: sdk.String(`"b"`)}}}}); err != nil {
		t.Fatal(err)
	}
	equal(t, "parts", parts.MultipartUpload, &s3.CompletedMultipartUpload{Parts: []*s3.CompletedPart{{PartNumber: aws.Ptr(int32(1)), ETag: aws.Ptr(`"a"`)}, {PartNumber: aws.Ptr(int32(2)), ETag: aws.Ptr(`"b"`)}}})

	location, err := c.GetBucketLocation(t.Context(), &client.GetBucketLocationInput{Bucket: bucket})
	if err != nil || location.LocationConstraint != "eu-west-1" {
		t.Errorf("got %v, %v", location, err)
	}
	_, body := send(t, "GET", address+"/bucket?location", "")
	contains(t, body, `<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/">eu-west-1</LocationConstraint>`)
}

func TestHeadCarriesHeadersOnly(t *testing.T) {
	c, _, _ := s3Client(t, s3.NewService(s3API{head: func(in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
		if *in.Key == "missing" {
			return nil, s3.NewNoSuchKey("The specified key does not exist.")
		}
		return &s3.HeadObjectOutput{ContentLength: aws.Ptr(int64(12345)), LastModified: aws.Ptr(moment), ETag: aws.Ptr(`"e"`), Metadata: map[string]string{"a": "b"}}, nil
	}}))
	out, err := c.HeadObject(t.Context(), &client.HeadObjectInput{Bucket: sdk.String("b"), Key: sdk.String("k")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "head", []any{*out.ContentLength, *out.LastModified, *out.ETag, out.Metadata["a"]}, []any{int64(12345), moment, `"e"`, "b"})
	_, err = c.HeadObject(t.Context(), &client.HeadObjectInput{Bucket: sdk.String("b"), Key: sdk.String("missing")})
	if _, ok := errors.AsType[*types.NotFound](err); !ok {
		t.Errorf("got %v", err)
	}
}

func TestRESTXMLErrorsAreTyped(t *testing.T) {
	c, address, _ := s3Client(t, s3.NewService(s3API{get: func(in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
		e := s3.NewNoSuchKey("The specified key does not exist.")
		e.Extra = map[string]string{"Key": *in.Key}
		return nil, e
	}}))
	_, err := c.GetObject(t.Context(), &client.GetObjectInput{Bucket: sdk.String("b"), Key: sdk.String("k")})
	if e, ok := errors.AsType[*types.NoSuchKey](err); !ok || *e.Message != "The specified key does not exist." {
		t.Fatalf("got %v", err)
	}
	resp, body := send(t, "GET", address+"/b/k", "")
	equal(t, "status", resp.StatusCode, 404)
	contains(t, body, "<Error><Code>NoSuchKey</Code>", "<Key>k</Key>", "<Resource>/b/k</Resource>", "<RequestId>"+requestID+"</RequestId>", "<HostId>")
}

func TestOperationsOfOneTemplateAreToldApart(t *testing.T) {
	_, address, _ := s3Client(t, s3.NewService(s3API{
		put: func(in *s3.PutObjectInput) (*s3.PutObjectOutput, error) { return nil, s3.NewNoSuchKey("PutObject") },
		get: func(in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
			return nil, s3.NewNoSuchKey("GetObject %s", *in.Key)
		},
	}))
	for _, tt := range []struct{ method, path, want string }{
		{"PUT", "/b/k", "PutObject"},
		{"PUT", "/b/k?x-id=PutObject", "PutObject"},
		{"GET", "/b/k/", "GetObject k/"},
		{"GET", "/b//k", "GetObject /k"},
		{"GET", "/b/a%2Fb", "GetObject a/b"},
		{"GET", "/b/k?torrent", "GetObjectTorrent"},
		{"GET", "/b?metadataTable", "GetBucketMetadataTableConfiguration"},
		{"PUT", "/b/k?tagging=", "MalformedXML"},
		{"POST", "/b", "POST /b"},
	} {
		_, body := send(t, tt.method, address+tt.path, "<")
		contains(t, body, tt.want)
	}
}

func TestMalformedXMLIsRefused(t *testing.T) {
	_, address, _ := s3Client(t, s3.NewService(s3API{}))
	for name, body := range map[string]string{
		"cut off": "<Delete><Object>", "not XML": "{}", "two roots": "<Delete/><Delete/>", "entity": `<!DOCTYPE x [<!ENTITY e "x">]><Delete>&e;</Delete>`,
		"deep": strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100), "not a number": "<Delete><Quiet>maybe</Quiet></Delete>",
	} {
		t.Run(name, func(t *testing.T) {
			resp, text := send(t, "POST", address+"/b?delete", body)
			equal(t, "status", resp.StatusCode, 400)
			contains(t, text, "<Code>MalformedXML</Code>")
		})
	}
}

func TestUploadsOverTheLimitAreRefused(t *testing.T) {
	_, address, _ := s3Client(t, s3.NewService(s3API{}))
	r, err := http.NewRequestWithContext(t.Context(), "PUT", address+"/b/k", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = 5<<30 + 1
	r.Header.Set("Expect", "100-continue")
	transport := &http.Transport{ExpectContinueTimeout: time.Minute}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	contains(t, string(b), "<Code>EntityTooLarge</Code>")
}

type aclAPI struct {
	s3acl.API
	put *s3acl.PutBucketAclInput
}

func (a *aclAPI) PutBucketAcl(_ context.Context, in *s3acl.PutBucketAclInput) (*s3acl.PutBucketAclOutput, error) {
	a.put = in
	return &s3acl.PutBucketAclOutput{}, nil
}

func (a *aclAPI) GetBucketAcl(context.Context, *s3acl.GetBucketAclInput) (*s3acl.GetBucketAclOutput, error) {
	return &s3acl.GetBucketAclOutput{Owner: a.put.AccessControlPolicy.Owner, Grants: a.put.AccessControlPolicy.Grants}, nil
}

func TestXMLAttributesAndNamespacesRoundTrip(t *testing.T) {
	api := &aclAPI{}
	c, address, _ := s3Client(t, s3acl.NewService(api))
	policy := &types.AccessControlPolicy{Owner: &types.Owner{ID: sdk.String("me")}, Grants: []types.Grant{
		{Permission: types.PermissionRead, Grantee: &types.Grantee{Type: types.TypeGroup, URI: sdk.String("http://acs.amazonaws.com/groups/global/AllUsers")}},
		{Permission: types.PermissionFullControl, Grantee: &types.Grantee{Type: types.TypeCanonicalUser, ID: sdk.String("me")}},
	}}
	if _, err := c.PutBucketAcl(t.Context(), &client.PutBucketAclInput{Bucket: sdk.String("b"), AccessControlPolicy: policy}); err != nil {
		t.Fatal(err)
	}
	equal(t, "type", api.put.AccessControlPolicy.Grants[0].Grantee.Type, s3acl.TypeGroup)
	out, err := c.GetBucketAcl(t.Context(), &client.GetBucketAclInput{Bucket: sdk.String("b")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "grants", out.Grants, policy.Grants)
	_, body := send(t, "GET", address+"/b?acl", "")
	contains(t, body, `<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="Group">`)
}
