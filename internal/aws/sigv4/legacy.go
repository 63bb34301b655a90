package sigv4

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file verifies S3 URLs that were presigned with Signature Version 2,
// which `aws s3 presign` and boto3 still make unless told otherwise. Nothing
// else is accepted with that version. The rules are in "Signing and
// Authenticating REST Requests" (Amazon S3 Developer Guide).

// signedParameters are the query parameters that a version 2 signature covers.
var signedParameters = []string{
	"accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "inventory", "lifecycle", "location", "logging",
	"metrics", "notification", "object-lock", "partNumber", "policy", "replication", "requestPayment", "restore", "select",
	"select-type", "storageClass", "tagging", "torrent", "uploadId", "uploads", "versionId", "versioning", "versions", "website",
	"response-cache-control", "response-content-disposition", "response-content-encoding", "response-content-language",
	"response-content-type", "response-expires",
}

// freeParameters are those that it does not cover and that make no other
// request of the signed one. All others are refused.
var freeParameters = []string{
	"AWSAccessKeyId", "Signature", "Expires", "x-id", "content-md5", "content-type",
	"continuation-token", "delimiter", "encoding-type", "fetch-owner", "key-marker", "list-type", "marker", "max-keys",
	"max-parts", "max-uploads", "part-number-marker", "prefix", "start-after", "upload-id-marker", "version-id-marker",
}

// hasLegacyPresignature tells whether a query claims to carry a version 2
// signature.
func hasLegacyPresignature(rawQuery string) bool {
	return strings.Contains(rawQuery, "AWSAccessKeyId=")
}

// parseLegacy reads the parameters of a URL presigned with version 2.
func parseLegacy(r *http.Request) (*Authorization, error) {
	a := &Authorization{Presigned: true, Service: "s3", expires: -1}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return a, failLegacy()
	}
	a.AccessKeyID, a.Signature = query.Get("AWSAccessKeyId"), query.Get("Signature")
	seconds, err := strconv.ParseInt(query.Get("Expires"), 10, 64)
	if a.AccessKeyID == "" || a.Signature == "" || err != nil {
		return a, failLegacy()
	}
	if a.SessionToken = query.Get("x-amz-security-token"); a.SessionToken == "" {
		a.SessionToken = r.Header.Get("X-Amz-Security-Token")
	}
	a.legacy = &legacy{query: query, expires: time.Unix(seconds, 0).UTC()}
	return a, nil
}

// legacy is what a version 2 signature says beyond an Authorization.
type legacy struct {
	query   url.Values
	expires time.Time
}

// verifyLegacy is Verify for version 2.
func verifyLegacy(r *http.Request, a *Authorization, secret string, rules *Rules, now time.Time) error {
	if rules.Dialect != S3 {
		return failMechanism("AWS")
	}
	if now.After(a.legacy.expires) {
		return s3Only(http.StatusForbidden, "AccessDenied", "Request has expired").
			extra("Expires", a.legacy.expires.Format(time.RFC3339), "ServerTime", now.Format(time.RFC3339))
	}
	for name, values := range a.legacy.query {
		signed := slices.Contains(signedParameters, name) || strings.HasPrefix(name, "x-amz-")
		if !signed && !slices.Contains(freeParameters, name) || len(values) > 1 {
			return s3Only(http.StatusForbidden, "AccessDenied", "The query parameter "+name+" is not covered by the signature")
		}
	}
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(legacyString(r, a, rules.Bucket)))
	if want := base64.StdEncoding.EncodeToString(mac.Sum(nil)); !hmac.Equal([]byte(a.Signature), []byte(want)) {
		return failSignature(a)
	}
	payload, err := unhashed(r, rules)
	if err != nil {
		return err
	}
	payload.install(r)
	return nil
}

// legacyString is the string to sign:
//
//	method \n Content-MD5 \n Content-Type \n expires \n x-amz-… headers, each with \n, path and subresources
//
// What is a header may stand in the query instead.
func legacyString(r *http.Request, a *Authorization, bucket string) string {
	query := a.legacy.query
	header := func(name string) string {
		if v := r.Header.Get(name); v != "" {
			return v
		}
		return query.Get(name)
	}
	amz := map[string]string{}
	for name, values := range query {
		if strings.HasPrefix(name, "x-amz-") {
			amz[name] = values[0]
		}
	}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "X-Amz-") {
			amz[strings.ToLower(name)] = strings.Join(values, ",")
		}
	}

	var b strings.Builder
	b.WriteString(r.Method + "\n" + header("content-md5") + "\n" + header("content-type") + "\n" + query.Get("Expires") + "\n")
	for _, name := range sortedKeys(amz) {
		b.WriteString(name + ":" + strings.TrimSpace(amz[name]) + "\n")
	}
	if bucket != "" {
		b.WriteString("/" + bucket)
	}
	b.WriteString(rawPath(r))
	separator := "?"
	for _, name := range sortedKeys(query) {
		if !slices.Contains(signedParameters, name) {
			continue
		}
		b.WriteString(separator + name)
		if v := query.Get(name); v != "" {
			b.WriteString("=" + v)
		}
		separator = "&"
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func failLegacy() *Failure {
	return s3Only(http.StatusForbidden, "AccessDenied", "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters")
}
