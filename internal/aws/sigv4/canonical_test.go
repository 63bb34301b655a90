package sigv4

import "testing"

func TestCanonicalPath(t *testing.T) {
	tests := []struct{ path, s3, other string }{
		{"", "/", "/"},
		{"/", "/", "/"},
		{"/a/b", "/a/b", "/a/b"},
		{"/a/b/", "/a/b/", "/a/b/"},
		{"/a//b", "/a//b", "/a/b"},
		{"/./a/../b/.", "/./a/../b/.", "/b"},
		{"/../..", "/../..", "/"},
		{"//", "//", "/"},
		{"/a/./", "/a/./", "/a/"},
		{"/.a", "/.a", "/.a"},
		{"/a%20b", "/a%20b", "/a%2520b"},
		{"/a b", "/a%20b", "/a%20b"},
		{"/%7Ea%2Fb%e4", "/~a%2Fb%E4", "/%257Ea%252Fb%25e4"},
		{"/a%2", "/a%252", "/a%252"},
		{"/a:b@c$d", "/a%3Ab%40c%24d", "/a%3Ab%40c%24d"},
		{"/\xe4", "/%E4", "/%E4"},
	}
	for _, tt := range tests {
		if got := string(appendS3Path(nil, tt.path)); got != tt.s3 {
			t.Errorf("S3 path %q is %q, want %q", tt.path, got, tt.s3)
		}
		if got := string(appendPath(nil, tt.path)); got != tt.other {
			t.Errorf("path %q is %q, want %q", tt.path, got, tt.other)
		}
	}
}

func TestCanonicalQuery(t *testing.T) {
	tests := []struct{ raw, want string }{
		{"", ""},
		{"b=2&a=1", "a=1&b=2"},
		{"a=2&a=1", "a=1&a=2"},
		{"a", "a="},
		{"a=b=c", "a=b%3Dc"},
		{"a-b=1&a=2", "a=2&a-b=1"},
		{"a=x+y", "a=x%20y"},
		{"a=%7e%2f", "a=~%2F"},
		{"a=%zz", "a=%25zz"},
		{"&&a=1&", "a=1"},
		{"A=1&a=1", "A=1&a=1"},
		{"a;b=1", "a%3Bb=1"},
	}
	for _, tt := range tests {
		if got := string(appendQuery(nil, tt.raw, false)); got != tt.want {
			t.Errorf("query %q is %q, want %q", tt.raw, got, tt.want)
		}
	}
	if got := string(appendQuery(nil, "X-Amz-Signature=1&a=1", true)); got != "a=1" {
		t.Errorf("presigned query is %q", got)
	}
}

func TestCanonicalHeader(t *testing.T) {
	for value, want := range map[string]string{"": "", "  a  ": "a", "a   b  c": "a b c", "a b": "a b", "  ": ""} {
		if got := string(appendTrimmed(nil, value)); got != want {
			t.Errorf("value %q is %q, want %q", value, got, want)
		}
	}
}

func TestKeyCacheIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	c := keyCache[keyID, signingKey]{derive: deriveKey}
	want := deriveKey(keyID{"s", "20150830", "us-east-1", "lambda"})
	for i := range 3 * generation {
		if got := c.get(keyID{"s", "20150830", "us-east-1", "lambda"}); got != want {
			t.Fatal("another key")
		}
		c.get(keyID{string(rune(i)), "20150830", "us-east-1", "lambda"})
	}
	if n := len(c.young) + len(c.old); n > 2*generation {
		t.Errorf("%d keys", n)
	}
	if _, ok := c.young[keyID{"s", "20150830", "us-east-1", "lambda"}]; !ok {
		if _, ok := c.old[keyID{"s", "20150830", "us-east-1", "lambda"}]; !ok {
			t.Error("the key in use was dropped")
		}
	}
}
