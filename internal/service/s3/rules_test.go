package s3

import (
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/s3"
	"lapwing.dev/lapwing/internal/state"
)

// members iterates over the names of a generated structure's members.
func members(shape any) iter.Seq[string] {
	return func(yield func(string) bool) {
		for field := range reflect.ValueOf(shape).Elem().Fields() {
			if !yield(field.Name) {
				return
			}
		}
	}
}

func TestBucketNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"abc": true, "a.b-c.1": true, strings.Repeat("a", 63): true, "1ab": true,
		"ab": false, strings.Repeat("a", 64): false, "Abc": false, "a_b": false, "-ab": false, "ab-": false, "a..b": false,
		"192.168.5.4": false, "xn--ab": false, "sthree-ab": false, "amzn-s3-demo-ab": false, "ab-s3alias": false, "ab--x-s3": false, "": false, "a/b": false,
	} {
		if err := checkBucketName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestRanges(t *testing.T) {
	const size = 10
	for header, want := range map[string]string{
		"bytes=0-4": "0+5", "bytes=5-": "5+5", "bytes=-3": "7+3", "bytes=-30": "0+10", "bytes=8-100": "8+2", "bytes=9-9": "9+1", "Bytes=1-1": "1+1",
		"bytes=10-": "InvalidRange", "bytes=10-12": "InvalidRange", "bytes=-0": "InvalidRange",
		"bytes=4-2": "whole", "bytes=a-b": "whole", "bytes=-": "whole", "items=0-1": "whole", "bytes=0-1,3-4": "whole", "bytes": "whole", "": "whole", "bytes=+1-2": "whole",
		"bytes=99999999999999999999-": "whole",
	} {
		span, err := parseRange(&header, size)
		got := fmt.Sprintf("%d+%d", span.offset, span.length)
		if err != nil {
			got = wantCode(t, header, err, "InvalidRange").Code
		} else if !span.partial {
			got = "whole"
		}
		if got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
	empty := "bytes=0-0"
	_, err := parseRange(&empty, 0)
	wantCode(t, "range of nothing", err, "InvalidRange")
}

func TestConditions(t *testing.T) {
	v := &version{Modified: time.Unix(1000, 0), content: content{ETag: `"tag"`}}
	before, at, after := aws.Ptr(time.Unix(999, 0)), aws.Ptr(time.Unix(1000, 0)), aws.Ptr(time.Unix(1001, 0))
	tag, other := aws.Ptr(`"tag"`), aws.Ptr(`"other"`)
	for _, test := range []struct {
		conditions
		failed    string
		unchanged bool
	}{
		{conditions{ifMatch: tag}, "", false},
		{conditions{ifMatch: aws.Ptr("tag")}, "", false},
		{conditions{ifMatch: aws.Ptr(`"x", "tag"`)}, "", false},
		{conditions{ifMatch: aws.Ptr("*")}, "", false},
		{conditions{ifMatch: other}, "If-Match", false},
		{conditions{ifNoneMatch: tag}, "If-None-Match", true},
		{conditions{ifNoneMatch: other}, "", false},
		{conditions{ifModifiedSince: before}, "", false},
		{conditions{ifModifiedSince: at}, "If-Modified-Since", true},
		{conditions{ifModifiedSince: after}, "If-Modified-Since", true},
		{conditions{ifUnmodifiedSince: before}, "If-Unmodified-Since", false},
		{conditions{ifUnmodifiedSince: at}, "", false},
		// An entity tag beats a date.
		{conditions{ifMatch: tag, ifUnmodifiedSince: before}, "", false},
		{conditions{ifNoneMatch: other, ifModifiedSince: after}, "", false},
		{conditions{ifMatch: other, ifNoneMatch: tag}, "If-Match", false},
	} {
		if failed, unchanged := test.check(v); failed != test.failed || unchanged != test.unchanged {
			t.Errorf("%+v: %q, %v", test.conditions, failed, unchanged)
		}
	}
}

// simpleList is the specification of a listing: by all keys, one after the
// other.
func simpleList(keys []string, prefix, delimiter, after string, most int) (page []string, truncated bool) {
	for _, key := range slices.Sorted(slices.Values(keys)) {
		if !strings.HasPrefix(key, prefix) || key <= after {
			continue
		}
		if delimiter != "" {
			if i := strings.Index(key[len(prefix):], delimiter); i >= 0 {
				key = key[:len(prefix)+i+len(delimiter)]
				if key == after || slices.Contains(page, key) {
					continue
				}
			}
		}
		if len(page) == most {
			return page, most > 0
		}
		page = append(page, key)
	}
	return page, false
}

func TestListingAgreesWithASimpleOne(t *testing.T) {
	s := newBucket(t, "Enabled")
	makeBucket(t, s, "bbb-other", "")
	random := rand.New(rand.NewPCG(1, 2))
	parts := []string{"a", "b", "/", "//", "é", "z", " ", "\x01", "-"}
	live := map[string]bool{}
	for range 150 {
		key := ""
		for range 1 + random.IntN(6) {
			key += parts[random.IntN(len(parts))]
		}
		if random.IntN(4) == 0 {
			remove(t, s, key, "") // leaves a delete marker
			delete(live, key)
		} else {
			put(t, s, key, "x")
			live[key] = true
		}
	}
	var keys []string
	for key := range live {
		keys = append(keys, key)
	}
	for range 1000 {
		prefix, after := "", ""
		if random.IntN(2) == 0 {
			prefix = keys[random.IntN(len(keys))][:1]
		}
		delimiter := []string{"", "/", "a", "//"}[random.IntN(4)]
		most := random.IntN(20)
		if random.IntN(3) == 0 {
			after = keys[random.IntN(len(keys))]
		}
		what := fmt.Sprintf("prefix %q delimiter %q after %q most %d", prefix, delimiter, after, most)
		if strings.ToValidUTF8(prefix, "") != prefix {
			continue
		}
		in := &api.ListObjectsV2Input{Bucket: aws.Ptr("bbb"), Prefix: &prefix, Delimiter: &delimiter, MaxKeys: aws.Ptr(int32(most)), StartAfter: &after}
		for range 10 {
			want, wantTruncated := simpleList(keys, prefix, delimiter, after, most)
			out, err := s.ListObjectsV2(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range out.Contents {
				got = append(got, *o.Key)
			}
			for _, p := range out.CommonPrefixes {
				got = append(got, *p.Prefix)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) || *out.IsTruncated != wantTruncated {
				t.Fatalf("%s:\n got %q %v\nwant %q %v", what, got, *out.IsTruncated, want, wantTruncated)
			}
			if !wantTruncated {
				break
			}
			in.ContinuationToken, after = out.NextContinuationToken, want[len(want)-1]
		}
	}
}

func TestVersionListingPagesWithoutGapOrRepeat(t *testing.T) {
	s := newBucket(t, "")
	var want []string
	put(t, s, "b", "null")
	setVersioning(t, s, "bbb", "Enabled")
	for _, key := range []string{"a", "b", "c/1", "c/2"} {
		var ids []string
		for i := range 3 {
			ids = append(ids, key+" "+put(t, s, key, fmt.Sprint(i)))
		}
		if key == "b" {
			ids = append([]string{"b null"}, append(ids, "b "+*remove(t, s, "b", "").VersionId)...)
		}
		slices.Reverse(ids)
		want = append(want, ids...)
	}
	for most := int32(1); most < 15; most++ {
		var got []string
		in := &api.ListObjectVersionsInput{Bucket: aws.Ptr("bbb"), MaxKeys: &most}
		for {
			out, err := s.ListObjectVersions(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range out.DeleteMarkers { // there is one, and it is the latest of its key
				got = append(got, *v.Key+" "+*v.VersionId)
				if !*v.IsLatest {
					t.Error("the delete marker is not the latest")
				}
			}
			for _, v := range out.Versions {
				got = append(got, *v.Key+" "+*v.VersionId)
			}
			if !*out.IsTruncated {
				break
			}
			in.KeyMarker, in.VersionIdMarker = out.NextKeyMarker, out.NextVersionIdMarker
		}
		// A page gives delete markers first.
		if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
			t.Errorf("%d a page: %v, want %v", most, got, want)
		}
	}
	out, err := s.ListObjectVersions(t.Context(), &api.ListObjectVersionsInput{Bucket: aws.Ptr("bbb"), Delimiter: aws.Ptr("/"), KeyMarker: aws.Ptr("b")})
	if err != nil || len(out.Versions) != 0 || len(out.CommonPrefixes) != 1 || *out.CommonPrefixes[0].Prefix != "c/" {
		t.Errorf("with a delimiter: %+v, %v", out, err)
	}
}

func TestEncodedKeys(t *testing.T) {
	s := newBucket(t, "")
	put(t, s, "a b+c/é", "x")
	out, err := s.ListObjectsV2(t.Context(), &api.ListObjectsV2Input{Bucket: aws.Ptr("bbb"), EncodingType: "url", Prefix: aws.Ptr("a b")})
	if err != nil || *out.Contents[0].Key != "a%20b%2Bc/%C3%A9" || *out.Prefix != "a%20b" {
		t.Errorf("%+v, %v", out, err)
	}
	_, err = s.ListObjectsV2(t.Context(), &api.ListObjectsV2Input{Bucket: aws.Ptr("bbb"), ContinuationToken: aws.Ptr("%%")})
	wantCode(t, "bad token", err, "InvalidArgument")
	_, err = s.ListObjectsV2(t.Context(), &api.ListObjectsV2Input{Bucket: aws.Ptr("bbb"), MaxKeys: aws.Ptr(int32(-1))})
	wantCode(t, "bad limit", err, "InvalidArgument")
}

func FuzzCopySource(f *testing.F) {
	f.Add("/bucket/key%20x?versionId=1")
	f.Add("arn:aws:s3:::x/y")
	f.Fuzz(func(t *testing.T, header string) {
		name, key, _, err := parseCopySource(header)
		if err == nil && (key == "" || len(key) > maxKey || strings.Contains(name, "/") || strings.Contains(key, separator)) {
			t.Errorf("%q gives %q %q", header, name, key)
		}
	})
}

func FuzzTagging(f *testing.F) {
	f.Add("a=b&c=%20")
	f.Fuzz(func(t *testing.T, header string) {
		tags, err := parseTagging(&header)
		if err == nil && len(tags) > maxObjectTags {
			t.Errorf("%q gives %d tags", header, len(tags))
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add(encodeToken("key"))
	f.Fuzz(func(t *testing.T, token string) {
		if key, err := decodeToken(token); err == nil && key == "" {
			t.Errorf("%q gives nothing", token)
		}
	})
}

func FuzzRange(f *testing.F) {
	f.Add("bytes=0-1", int64(10))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		span, err := parseRange(&header, size)
		if err == nil && (span.offset < 0 || span.length < 0 || span.length > size-span.offset) {
			t.Errorf("%q of %d: %+v", header, size, span)
		}
	})
}

func TestLargestMultipartObjectFitsIntoItsRecord(t *testing.T) {
	v := version{Upload: strings.Repeat("U", 52), description: description{Metadata: map[string]string{"m": strings.Repeat("&", maxMetadata)}}}
	v.Multipart = true
	v.Checksum = &checksum{Algorithm: "SHA512", Value: strings.Repeat("s", 94), Type: composite}
	for range maxParts {
		v.Blobs = append(v.Blobs, extent{Digest: state.Digest(strings.Repeat("d", 64)), Size: maxBody, Sum: strings.Repeat("s", 88)})
	}
	if b, err := json.Marshal(v); err != nil || len(b) > state.MaxValueSize {
		t.Errorf("%d bytes of at most %d, %v", len(b), state.MaxValueSize, err)
	}
}
