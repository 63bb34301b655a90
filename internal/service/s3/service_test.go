package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	checksums "lapwing.dev/lapwing/internal/aws/checksum"
	api "lapwing.dev/lapwing/internal/aws/s3"
	"lapwing.dev/lapwing/internal/state"
)

const account = "123456789012"

// openService opens the service on a data directory. The store is closed at
// the end of the test, or by close.
func openService(t testing.TB, dir string) (_ *Service, close func()) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	store, err := state.Open(t.Context(), state.Options{Dir: dir, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	close = sync.OnceFunc(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(close)
	s, err := New(t.Context(), Options{Store: store, AccountID: account, Region: "us-east-1", Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	return s, close
}

// newBucket opens a service with one bucket, named b.
func newBucket(t testing.TB, versioning api.BucketVersioningStatus) *Service {
	t.Helper()
	s, _ := openService(t, t.TempDir())
	makeBucket(t, s, "bbb", versioning)
	return s
}

func makeBucket(t testing.TB, s *Service, name string, versioning api.BucketVersioningStatus) {
	t.Helper()
	if _, err := s.CreateBucket(t.Context(), &api.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	if versioning != "" {
		setVersioning(t, s, name, versioning)
	}
}

func setVersioning(t testing.TB, s *Service, name string, versioning api.BucketVersioningStatus) {
	t.Helper()
	_, err := s.PutBucketVersioning(t.Context(), &api.PutBucketVersioningInput{
		Bucket: &name, VersioningConfiguration: &api.VersioningConfiguration{Status: versioning}})
	if err != nil {
		t.Fatal(err)
	}
}

func put(t testing.TB, s *Service, key, body string) (versionID string) {
	t.Helper()
	out, err := s.PutObject(t.Context(), putInput(key, body))
	if err != nil {
		t.Fatal(err)
	}
	return aws.Value(out.VersionId)
}

func putInput(key, body string) *api.PutObjectInput {
	return &api.PutObjectInput{Bucket: aws.Ptr("bbb"), Key: &key, Body: io.NopCloser(strings.NewReader(body))}
}

func get(t testing.TB, s *Service, key, versionID string) (string, error) {
	t.Helper()
	body, _, _, _, err := s.OpenObject(t.Context(), "bbb", key, versionID)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(body)
	return string(b), errors.Join(err, body.Close())
}

func remove(t testing.TB, s *Service, key, versionID string) *api.DeleteObjectOutput {
	t.Helper()
	out, err := s.DeleteObject(t.Context(), &api.DeleteObjectInput{Bucket: aws.Ptr("bbb"), Key: &key, VersionId: optional(versionID)})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// wantCode checks an error's S3 code.
func wantCode(t testing.TB, what string, err error, code string) *aws.Error {
	t.Helper()
	e, ok := errors.AsType[*aws.Error](err)
	if !ok || e.Code != code {
		t.Errorf("%s: error %v, want %s", what, err, code)
		return &aws.Error{}
	}
	return e
}

func countBlobs(t testing.TB, s *Service) (n int) {
	t.Helper()
	for _, err := range s.blobs.All() {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func TestBodiesAreRemovedWithTheLastObjectThatNeedsThem(t *testing.T) {
	s := newBucket(t, "")
	put(t, s, "a", "one")
	put(t, s, "b", "one")
	put(t, s, "b", "one") // itself again
	if n := countBlobs(t, s); n != 1 {
		t.Fatalf("%d bodies for one content", n)
	}
	_, err := s.CopyObject(t.Context(), &api.CopyObjectInput{Bucket: aws.Ptr("bbb"), Key: aws.Ptr("c"), CopySource: aws.Ptr("bbb/a")})
	if err != nil {
		t.Fatal(err)
	}
	remove(t, s, "a", "")
	put(t, s, "b", "two")
	if got, err := get(t, s, "c", ""); err != nil || got != "one" {
		t.Errorf("the copy holds %q, %v", got, err)
	}
	if n := countBlobs(t, s); n != 2 {
		t.Errorf("%d bodies for two contents", n)
	}
	// Someone who reads keeps the body until the end.
	body, _, _, _, err := s.OpenObject(t.Context(), "bbb", "c", "")
	if err != nil {
		t.Fatal(err)
	}
	remove(t, s, "c", "")
	if got, err := io.ReadAll(body); err != nil || string(got) != "one" {
		t.Errorf("reading while it is deleted gave %q, %v", got, err)
	}
	for range 2 {
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	}
	remove(t, s, "b", "")
	if n := countBlobs(t, s); n != 0 {
		t.Errorf("%d bodies are left of deleted objects", n)
	}
}

func TestARefusedPutLeavesNoBody(t *testing.T) {
	s := newBucket(t, "")
	wrong := putInput("k", "body")
	wrong.ContentMD5 = aws.Ptr("AAAAAAAAAAAAAAAAAAAAAA==")
	_, err := s.PutObject(t.Context(), wrong)
	wantCode(t, "wrong MD5", err, "BadDigest")
	short := putInput("k", "body")
	short.ContentLength = aws.Ptr(int64(5))
	_, err = s.PutObject(t.Context(), short)
	wantCode(t, "short body", err, "IncompleteBody")
	// The condition becomes false while the body is read.
	late := putInput("k", "")
	late.IfNoneMatch = aws.Ptr("*")
	late.Body = io.NopCloser(io.MultiReader(strings.NewReader("late"), readerFunc(func([]byte) (int, error) {
		if _, ok := s.versions.Get(versionKey("bbb", "k", nullVersion)); !ok {
			put(t, s, "k", "early")
		}
		return 0, io.EOF
	})))
	_, err = s.PutObject(t.Context(), late)
	wantCode(t, "late condition", err, "PreconditionFailed")
	if got, err := get(t, s, "k", ""); err != nil || got != "early" {
		t.Errorf("got %q, %v", got, err)
	}
	if n := countBlobs(t, s); n != 1 {
		t.Errorf("%d bodies for one object", n)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestOneConditionalPutWins(t *testing.T) {
	for _, versioning := range []api.BucketVersioningStatus{"", "Enabled", "Suspended"} {
		s := newBucket(t, versioning)
		for round := range 5 {
			key := fmt.Sprint(round)
			var won atomic.Int32
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					in := putInput(key, fmt.Sprint(i))
					in.IfNoneMatch = aws.Ptr("*")
					_, err := s.PutObject(t.Context(), in)
					if err == nil {
						won.Add(1)
					} else {
						wantCode(t, "loser", err, "PreconditionFailed")
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("versioning %q: %d puts won", versioning, won.Load())
			}
		}
	}
}

func TestReadersSeeWholeObjectsWhileTheyAreReplacedAndDeleted(t *testing.T) {
	s := newBucket(t, "")
	bodies := map[string]bool{}
	for i := range 4 {
		bodies[strings.Repeat(fmt.Sprint(i), 100_000)] = true
	}
	ctx, cancel := context.WithCancel(t.Context())
	var writers, readers sync.WaitGroup
	for body := range bodies {
		writers.Go(func() {
			for range 10 {
				put(t, s, "k", body)
				remove(t, s, "k", "")
			}
		})
	}
	read := 0
	readers.Go(func() {
		for ctx.Err() == nil {
			got, err := get(t, s, "k", "")
			if err != nil {
				wantCode(t, "read", err, "NoSuchKey")
			} else if !bodies[got] {
				t.Errorf("read %d bytes that nobody wrote", len(got))
			} else {
				read++
			}
		}
	})
	writers.Wait()
	cancel()
	readers.Wait()
	if read == 0 {
		t.Error("nothing was read")
	}
	if n := countBlobs(t, s); n != 0 {
		t.Errorf("%d bodies are left", n)
	}
}

// zeros is a large body that takes no memory.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestALargePutAndGetTakeLittleMemory(t *testing.T) {
	s := newBucket(t, "")
	const size = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	in := putInput("k", "")
	in.Body = io.NopCloser(io.LimitReader(zeros{}, size))
	if _, err := s.PutObject(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	body, n, _, _, err := s.OpenObject(t.Context(), "bbb", "k", "")
	if err != nil || n != size {
		t.Fatal(n, err)
	}
	defer body.Close()
	if n, err := io.Copy(io.Discard, body); err != nil || n != size {
		t.Fatal(n, err)
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 4<<20 {
		t.Errorf("allocated %d bytes for an object of %d", allocated, size)
	}
}

func TestVersions(t *testing.T) {
	s := newBucket(t, "")
	if id := put(t, s, "k", "before"); id != "" {
		t.Errorf("version id %q without versioning", id)
	}
	setVersioning(t, s, "bbb", "Enabled")
	one, two := put(t, s, "k", "one"), put(t, s, "k", "two")
	marker := remove(t, s, "k", "")
	if !aws.Value(marker.DeleteMarker) || len(aws.Value(marker.VersionId)) != 32 {
		t.Errorf("delete gave %+v", marker)
	}
	_, err := get(t, s, "k", "")
	e := wantCode(t, "get of what is deleted", err, "NoSuchKey")
	if e.Header.Get("X-Amz-Delete-Marker") != "true" || e.Header.Get("X-Amz-Version-Id") != *marker.VersionId {
		t.Errorf("headers %v", e.Header)
	}
	_, err = get(t, s, "k", *marker.VersionId)
	if e := wantCode(t, "get of a delete marker", err, "MethodNotAllowed"); e.Header.Get("Allow") != "DELETE" {
		t.Errorf("headers %v", e.Header)
	}
	for id, want := range map[string]string{nullVersion: "before", one: "one", two: "two"} {
		if got, err := get(t, s, "k", id); err != nil || got != want {
			t.Errorf("version %s holds %q, %v", id, got, err)
		}
	}
	if undone := remove(t, s, "k", *marker.VersionId); !aws.Value(undone.DeleteMarker) {
		t.Errorf("deleting the marker gave %+v", undone)
	}
	remove(t, s, "k", two)
	if got, _ := get(t, s, "k", ""); got != "one" {
		t.Errorf("current is %q after the newest was deleted", got)
	}
	setVersioning(t, s, "bbb", "Suspended")
	if id := put(t, s, "k", "null"); id != nullVersion {
		t.Errorf("version id %q while suspended", id)
	}
	if got, _ := get(t, s, "k", ""); got != "null" {
		t.Errorf("current is %q after a put while suspended", got)
	}
	_, err = get(t, s, "k", two)
	wantCode(t, "get of a deleted version", err, "NoSuchVersion")
	_, err = get(t, s, "k", "bad")
	wantCode(t, "get of a bad version id", err, "InvalidArgument")
	remove(t, s, "k", "") // replaces the null version
	if n := countBlobs(t, s); n != 1 {
		t.Errorf("%d bodies for the one version that is left", n)
	}
}

func TestWhatIsNotOfferedIsRefused(t *testing.T) {
	s := newBucket(t, "")
	for _, test := range []struct {
		change func(*api.PutObjectInput)
		code   string
	}{
		{func(in *api.PutObjectInput) { in.ACL = "public-read" }, "AccessControlListNotSupported"},
		{func(in *api.PutObjectInput) { in.GrantRead = aws.Ptr("id=1") }, "AccessControlListNotSupported"},
		{func(in *api.PutObjectInput) { in.ServerSideEncryption = "aws:kms" }, "NotImplemented"},
		{func(in *api.PutObjectInput) { in.SSECustomerKey = aws.Ptr("x") }, "NotImplemented"},
		{func(in *api.PutObjectInput) { in.StorageClass = "GLACIER" }, "InvalidStorageClass"},
		{func(in *api.PutObjectInput) { in.ObjectLockMode = "GOVERNANCE" }, "InvalidRequest"},
		{func(in *api.PutObjectInput) { in.WriteOffsetBytes = aws.Ptr(int64(1)) }, "NotImplemented"},
		{func(in *api.PutObjectInput) { in.ExpectedBucketOwner = aws.Ptr("000000000001") }, "AccessDenied"},
		{func(in *api.PutObjectInput) { in.IfNoneMatch = aws.Ptr(`"x"`) }, "NotImplemented"},
		{func(in *api.PutObjectInput) { in.IfMatch = aws.Ptr(`"x"`) }, "NoSuchKey"},
		{func(in *api.PutObjectInput) { in.Key = aws.Ptr(strings.Repeat("k", 1025)) }, "KeyTooLongError"},
		{func(in *api.PutObjectInput) { in.Key = aws.Ptr("a\x00b") }, "InvalidURI"},
		{func(in *api.PutObjectInput) { in.Bucket = aws.Ptr("nobody") }, "NoSuchBucket"},
		{func(in *api.PutObjectInput) { in.Metadata = map[string]string{"k": strings.Repeat("v", 2048)} }, "MetadataTooLarge"},
		{func(in *api.PutObjectInput) { in.Tagging = aws.Ptr("a=1&a=2") }, "InvalidArgument"},
		{func(in *api.PutObjectInput) { in.Tagging = aws.Ptr("=1") }, "InvalidTag"},
		{func(in *api.PutObjectInput) { in.Tagging = aws.Ptr("a&b&c&d&e&f&g&h&i&j&k") }, "BadRequest"},
		{func(in *api.PutObjectInput) { in.ContentMD5 = aws.Ptr("x") }, "InvalidDigest"},
		{func(in *api.PutObjectInput) { in.ContentLength = aws.Ptr(int64(6 << 30)) }, "EntityTooLarge"},
		{func(in *api.PutObjectInput) { in.WebsiteRedirectLocation = aws.Ptr("ftp://x") }, "InvalidRedirectLocation"},
	} {
		in := putInput("k", "body")
		test.change(in)
		_, err := s.PutObject(t.Context(), in)
		wantCode(t, fmt.Sprintf("%+v", in), err, test.code)
	}
	harmless := putInput("k", "body")
	harmless.ACL, harmless.StorageClass, harmless.ExpectedBucketOwner = "private", "STANDARD", aws.Ptr(account)
	harmless.RequestPayer, harmless.BucketKeyEnabled = "requester", aws.Ptr(false)
	if _, err := s.PutObject(t.Context(), harmless); err != nil {
		t.Error(err)
	}
}

func TestHonouredMembersExist(t *testing.T) {
	// A name in the lists that no operation has is a mistake.
	known := map[string]bool{}
	for _, op := range api.NewService(&Service{}).Operations {
		for name := range members(op.New()) {
			known[name] = true
		}
	}
	for _, name := range honoured {
		if !known[name] {
			t.Errorf("no operation has a member %s", name)
		}
	}
}

func TestChecksums(t *testing.T) {
	s := newBucket(t, "")
	const body = "The quick brown fox"
	for _, header := range []string{"X-Amz-Checksum-Crc32", "X-Amz-Checksum-Sha256", "X-Amz-Checksum-Xxhash64"} {
		ctx := aws.WithRequest(t.Context(), &aws.Request{Header: http.Header{header: {"AA=="}}})
		_, err := s.PutObject(ctx, putInput("k", body))
		wantCode(t, header, err, "InvalidRequest")
	}
	for _, a := range checksums.Algorithms {
		h := a.New()
		io.WriteString(h, body)
		good := checksums.Encode(h)
		h.Write([]byte("x"))
		bad := checksums.Encode(h)
		header := "X-Amz-Checksum-" + a.Name
		for name, test := range map[string]struct {
			request aws.Request
			code    string
		}{
			"right header":    {aws.Request{Header: http.Header{http.CanonicalHeaderKey(header): {good}}}, ""},
			"wrong header":    {aws.Request{Header: http.Header{http.CanonicalHeaderKey(header): {bad}}}, "BadDigest"},
			"right trailer":   {aws.Request{Header: http.Header{"X-Amz-Trailer": {header}}, Trailer: http.Header{http.CanonicalHeaderKey(header): {good}}}, ""},
			"wrong trailer":   {aws.Request{Header: http.Header{"X-Amz-Trailer": {header}}, Trailer: http.Header{http.CanonicalHeaderKey(header): {bad}}}, "BadDigest"},
			"missing trailer": {aws.Request{Header: http.Header{"X-Amz-Trailer": {header}}}, "MalformedTrailerError"},
			"two headers":     {aws.Request{Header: http.Header{http.CanonicalHeaderKey(header): {good}, "X-Amz-Checksum-Other": {good}}}, "InvalidRequest"},
		} {
			_, err := s.PutObject(aws.WithRequest(t.Context(), &test.request), putInput("k", body))
			if test.code != "" {
				wantCode(t, a.Name+" "+name, err, test.code)
				continue
			}
			if err != nil {
				t.Errorf("%s %s: %v", a.Name, name, err)
				continue
			}
			out, err := s.HeadObject(t.Context(), &api.HeadObjectInput{Bucket: aws.Ptr("bbb"), Key: aws.Ptr("k"), ChecksumMode: "ENABLED"})
			if err != nil {
				t.Fatal(err)
			}
			if c, err := getChecksum(out); err != nil || c == nil || c.Algorithm != a.Name || c.Value != good {
				t.Errorf("%s %s: HeadObject says %+v, %v", a.Name, name, c, err)
			}
		}
	}
}

func TestPartsChecksumsCombine(t *testing.T) {
	bodies := []string{"first", "", strings.Repeat("second", 100_000), "3"}
	for _, a := range checksums.Algorithms {
		if a.Polynomial == 0 {
			continue
		}
		whole := a.New()
		var sums []*checksum
		var sizes []int64
		for _, body := range bodies {
			h := a.New()
			io.WriteString(h, body)
			io.WriteString(whole, body)
			sums, sizes = append(sums, &checksum{Value: checksums.Encode(h)}), append(sizes, int64(len(body)))
		}
		if got, err := fullChecksum(a, sums, sizes); err != nil || got.Value != checksums.Encode(whole) {
			t.Errorf("%s: combined %+v, %v, want %s", a.Name, got, err, checksums.Encode(whole))
		}
	}
}

func TestCRC64NVMEIsTheStandardOne(t *testing.T) {
	// The check value of CRC-64/NVME in the catalogue of parametrised CRC
	// algorithms: ae8b14860a799888 for "123456789".
	a, err := checksums.Find("CRC64NVME")
	if err != nil {
		t.Fatal(err)
	}
	h := a.New()
	io.WriteString(h, "123456789")
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != "ae8b14860a799888" {
		t.Errorf("check value %s", got)
	}
}

func TestMultipart(t *testing.T) {
	s := newBucket(t, "")
	ctx := t.Context()
	bucketName, key := aws.Ptr("bbb"), aws.Ptr("big")
	created, err := s.CreateMultipartUpload(ctx, &api.CreateMultipartUploadInput{Bucket: bucketName, Key: key, ContentType: aws.Ptr("text/x")})
	if err != nil {
		t.Fatal(err)
	}
	id := created.UploadId
	part := func(n int32, body string) *api.CompletedPart {
		t.Helper()
		out, err := s.UploadPart(ctx, &api.UploadPartInput{Bucket: bucketName, Key: key, UploadId: id, PartNumber: &n, Body: io.NopCloser(strings.NewReader(body))})
		if err != nil {
			t.Fatal(err)
		}
		return &api.CompletedPart{PartNumber: &n, ETag: out.ETag}
	}
	complete := func(parts ...*api.CompletedPart) (*api.CompleteMultipartUploadOutput, error) {
		return s.CompleteMultipartUpload(ctx, &api.CompleteMultipartUploadInput{Bucket: bucketName, Key: key, UploadId: id, MultipartUpload: &api.CompletedMultipartUpload{Parts: parts}})
	}
	a, b := strings.Repeat("a", minPartSize), strings.Repeat("b", minPartSize+1)
	part(2, "replaced")
	p2, p5, p9, unused := part(2, a), part(5, b), part(9, "end"), part(7, "unused")
	_, err = complete()
	wantCode(t, "no parts", err, "MalformedXML")
	_, err = complete(p5, p2)
	wantCode(t, "wrong order", err, "InvalidPartOrder")
	_, err = complete(p2, p2)
	wantCode(t, "a part twice", err, "InvalidPartOrder")
	_, err = complete(p2, unused, p9)
	wantCode(t, "a small part", err, "EntityTooSmall")
	_, err = complete(p2, &api.CompletedPart{PartNumber: p5.PartNumber, ETag: p2.ETag})
	wantCode(t, "a wrong ETag", err, "InvalidPart")
	_, err = complete(p2, &api.CompletedPart{PartNumber: aws.Ptr(int32(6)), ETag: p2.ETag})
	wantCode(t, "a missing part", err, "InvalidPart")
	listed, err := s.ListParts(ctx, &api.ListPartsInput{Bucket: bucketName, Key: key, UploadId: id, MaxParts: aws.Ptr(int32(2)), PartNumberMarker: aws.Ptr(int32(2))})
	if err != nil || len(listed.Parts) != 2 || *listed.Parts[1].PartNumber != 7 || !*listed.IsTruncated || *listed.NextPartNumberMarker != 7 {
		t.Errorf("ListParts = %+v, %v", listed, err)
	}
	done, err := complete(p2, p5, p9)
	if err != nil {
		t.Fatal(err)
	}
	sums := md5.New()
	for _, body := range []string{a, b, "end"} {
		sum := md5.Sum([]byte(body))
		sums.Write(sum[:])
	}
	if want := fmt.Sprintf(`"%x-3"`, sums.Sum(nil)); *done.ETag != want {
		t.Errorf("ETag %s, want %s", *done.ETag, want)
	}
	again, err := complete(p2, p5, p9)
	if err != nil || *again.ETag != *done.ETag {
		t.Errorf("completing again: %v", err)
	}
	if got, err := get(t, s, "big", ""); err != nil || got != a+b+"end" {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if n := countBlobs(t, s); n != 3 || s.parts.Len() != 0 || s.uploads.Len() != 0 {
		t.Errorf("%d bodies, %d parts, %d uploads are left", n, s.parts.Len(), s.uploads.Len())
	}
	out, err := s.GetObject(ctx, &api.GetObjectInput{Bucket: bucketName, Key: key, PartNumber: aws.Ptr(int32(2))})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(out.Body)
	if err != nil || string(got) != b || *out.PartsCount != 3 || aws.Value(out.ContentType) != "text/x" {
		t.Errorf("part 2: %d bytes, %v, %+v", len(got), err, out)
	}
	out.Body.Close()
	// A range over the border of two parts.
	out, err = s.GetObject(ctx, &api.GetObjectInput{Bucket: bucketName, Key: key, Range: aws.Ptr(fmt.Sprintf("bytes=%d-%d", minPartSize-2, minPartSize+1))})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(out.Body); err != nil || !bytes.Equal(got, []byte("aabb")) {
		t.Errorf("over the border: %q, %v", got, err)
	}
	out.Body.Close()
	_, err = s.AbortMultipartUpload(ctx, &api.AbortMultipartUploadInput{Bucket: bucketName, Key: key, UploadId: id})
	wantCode(t, "abort of what is complete", err, "NoSuchUpload")
	remove(t, s, "big", "")
	if n := countBlobs(t, s); n != 0 {
		t.Errorf("%d bodies are left", n)
	}
}

func TestAbortAndDeleteBucketDropParts(t *testing.T) {
	s := newBucket(t, "")
	ctx := t.Context()
	for _, abort := range []bool{true, false} {
		created, err := s.CreateMultipartUpload(ctx, &api.CreateMultipartUploadInput{Bucket: aws.Ptr("bbb"), Key: aws.Ptr("k")})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.UploadPart(ctx, &api.UploadPartInput{Bucket: aws.Ptr("bbb"), Key: aws.Ptr("k"), UploadId: created.UploadId, PartNumber: aws.Ptr(int32(1)), Body: io.NopCloser(strings.NewReader("x"))})
		if err != nil {
			t.Fatal(err)
		}
		if abort {
			_, err = s.AbortMultipartUpload(ctx, &api.AbortMultipartUploadInput{Bucket: aws.Ptr("bbb"), Key: aws.Ptr("k"), UploadId: created.UploadId})
		} else {
			_, err = s.DeleteBucket(ctx, &api.DeleteBucketInput{Bucket: aws.Ptr("bbb")})
		}
		if err != nil {
			t.Fatal(err)
		}
		if n := countBlobs(t, s); n != 0 || s.parts.Len() != 0 || s.uploads.Len() != 0 {
			t.Errorf("%d bodies, %d parts, %d uploads are left", n, s.parts.Len(), s.uploads.Len())
		}
	}
}
