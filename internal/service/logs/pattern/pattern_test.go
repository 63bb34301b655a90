package pattern

import (
	"strings"
	"testing"
)

// The messages and patterns below are the examples of AWS's text.
const (
	badRequest   = "[ERROR 400] BAD REQUEST"
	unauthorized = "[ERROR 401] UNAUTHORIZED REQUEST"
	missing      = "[ERROR 419] MISSING ARGUMENTS"
	invalidArgs  = "[ERROR 420] INVALID ARGUMENTS"
	serverError  = "[ERROR 500] INTERNAL SERVER ERROR"

	trail = `{"eventType": "UpdateTrail", "sourceIPAddress": "111.111.111.111", "arrayKey": ["value", "another value"],
		"objectList": [{"name": "a", "id": 1}, {"name": "b", "id": 2}], "SomeObject": null, "cluster.name": "c", "ThisFlag": true}`
	user = `{"user": {"id": 1, "email": "John.Stiles@example.com"}, "users": [{"id": 2, "email": "John.Doe@example.com"},
		{"id": 3, "email": "Jane.Doe@example.com"}], "actions": ["GET", "PUT", "DELETE"], "coordinates": [[0, 1, 2], [4, 5, 6], [7, 8, 9]]}`
	numbers = `{"bandwidth": 80, "latency": 49.5, "refreshRate": 60, "responseTime": 5, "errorCode": 400, "number": [1000, "x"], "text": "500"}`

	apache = `127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534`
	get    = "INFO 09/25/2014 12:00:00 GET /service/resource/67 1200"
	post   = "INFO 09/25/2014 12:00:01 POST /service/resource/67/part/111 1310"
	warn   = "WARNING 09/25/2014 12:00:02 Invalid user request"
	fail   = "ERROR 09/25/2014 12:00:02 Failed to process request"
)

func TestPatternsMatch(t *testing.T) {
	tests := []struct {
		pattern string
		yes, no []string
	}{
		{``, []string{"", "x"}, nil},
		{`  `, []string{"", "x"}, nil},
		{`" "`, []string{"", "x"}, nil},
		{`""`, []string{"", "x"}, nil},
		// Terms.
		{`ERROR`, []string{badRequest, unauthorized, missing, invalidArgs, "Exiting with ERRORCODE: -1"}, []string{"error", "WARN"}},
		{`ERROR ARGUMENTS`, []string{missing, invalidArgs}, []string{badRequest, unauthorized}},
		{`?ERROR ?ARGUMENTS`, []string{badRequest, missing, "ARGUMENTS"}, []string{"WARN"}},
		{`?ERROR ?ARGUMENTS REQUEST`, []string{"[INFO] REQUEST FAILED", "[WARN] UNAUTHORIZED REQUEST", "[ERROR] 400 BAD REQUEST"}, []string{missing}},
		{`"INTERNAL SERVER ERROR"`, []string{serverError}, []string{"INTERNAL ERROR SERVER"}},
		{`ERROR -ARGUMENTS`, []string{badRequest, unauthorized}, []string{missing, invalidArgs}},
		{`-ERROR`, []string{"INFO"}, []string{badRequest}},
		{`ERROR -"BAD REQUEST" -MISSING`, []string{unauthorized, invalidArgs}, []string{badRequest, missing}},
		{`?"a b" ?c`, []string{"a b", "xcx"}, []string{"a  b"}},
		{`"say \"hi\" \\ "`, []string{`say "hi" \ `}, []string{`say hi`}},
		{`Größe_2`, []string{"die Größe_2 ist"}, []string{"Größe"}},
		// Regular expressions.
		{`%AUTHORIZED%`, []string{unauthorized, "[SUCCESS 200] AUTHORIZED REQUEST"}, []string{badRequest}},
		{`%^[hc]at%`, []string{"hat", "cat is"}, []string{"that", "bat"}},
		{`%[hc]at$%`, []string{"a hat", "cat\n"}, []string{"hats"}},
		{`%colou?r%`, []string{"color", "colour"}, []string{"colouur"}},
		{`%^a{3,5}$%`, []string{"aaa", "aaaaa"}, []string{"aa", "aaaaaa"}},
		{`%^a{,2}b$%`, []string{"b", "aab"}, []string{"aaab"}},
		{`%^starting|^initializing|^shutting down%`, []string{"starting x", "shutting down"}, []string{"skipping initializing"}},
		{`%\[.\]%`, []string{"[a]", "[]]"}, []string{"[]"}},
		{`%10\.10\.0\.1%`, []string{"from 10.10.0.1"}, []string{"10010,051"}},
		{`%ab[0-9]*c% -%\x28%`, []string{"ab12c"}, []string{"ab12c(", "ac"}},
		{`%\d\s\w%`, []string{"1 a"}, []string{"1a"}},
		// JSON.
		{`{ $.eventType = "UpdateTrail" }`, []string{trail, "\n " + trail + "\n"}, []string{user, "UpdateTrail", trail + "x", trail + trail, "{", ""}},
		{`{$.eventType=UpdateTrail}`, []string{trail}, []string{user}},
		{`{ $.eventType = Update* }`, []string{trail}, []string{user}},
		{`{ $.eventType = "*Trail" }`, []string{trail}, []string{user}},
		{`{ $.eventType = "*pdate*" }`, []string{trail}, []string{user}},
		{`{ $.eventType = "Up*Trail" }`, nil, []string{trail}},
		{`{ $.eventType = * }`, []string{trail}, []string{user}},
		{`{ $.SomeObject = * }`, nil, []string{trail}},
		{`{ $.sourceIPAddress != 123.123.* }`, []string{trail}, []string{user}},
		{`{ $.sourceIPAddress != 111.111.* }`, nil, []string{trail}},
		{`{ $.arrayKey[0] = "value" }`, []string{trail}, nil},
		{`{ $.arrayKey[1] = "value" }`, nil, []string{trail}},
		{`{ $.arrayKey[9] != "value" }`, nil, []string{trail}},
		{`{ $.arrayKey = "value" }`, nil, []string{trail}},
		{`{ $.arrayKey != "value" }`, nil, []string{trail}},
		{`{ $.objectList[1].id = 2 }`, []string{trail}, nil},
		{`{ $.objectList[*].id = 2 }`, []string{trail}, nil},
		{`{ $.objectList[*].id = 3 }`, nil, []string{trail}},
		{`{ $.eventType = %Trail% }`, []string{trail}, []string{user}},
		{`{ $.eventType != %Trail% }`, nil, []string{trail}},
		{`{ $.arrayKey[*] = %val.{2}% }`, []string{trail}, []string{user}},
		{`{ $.* = %111\.111\.111\.1[0-9]{1,2}% }`, []string{trail}, []string{user}},
		{`{ $.['cluster.name'] = "c" }`, []string{trail}, nil},
		{`{ $["cluster.name"] = "c" }`, []string{trail}, nil},
		{`{ $.SomeObject IS NULL }`, []string{trail}, []string{user}},
		{`{ $.eventType IS NULL }`, nil, []string{trail}},
		{`{ $.ThisFlag IS TRUE }`, []string{trail}, []string{user}},
		{`{ $.ThisFlag is false }`, nil, []string{trail}},
		{`{ $.ThisFlag = true }`, []string{trail}, []string{user}},
		{`{ $.SomeOtherObject NOT EXISTS }`, []string{trail}, []string{`{"SomeOtherObject": 1}`, "text"}},
		{`{ $.SomeObject NOT EXISTS }`, []string{user}, []string{trail}},
		{`{ ($.user.id = 1) && ($.users[0].email = "John.Doe@example.com") }`, []string{user}, []string{trail}},
		{`{ $.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = "nonmatch" && $.actions[2] = "nonmatch" }`, []string{user}, nil},
		{`{ ($.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = "nonmatch") && $.actions[2] = "nonmatch" }`, nil, []string{user}},
		{`{ ($.user.id = 2 && $.users[0].email = "nonmatch") || $.actions[2] = "GET" }`, nil, []string{user}},
		{`{ $.coordinates[1][2] = 6 }`, []string{user}, nil},
		{`{ $.bandwidth > 75 }`, []string{numbers}, []string{`{"bandwidth": 75}`}},
		{`{ $.latency < 50 }`, []string{numbers}, []string{`{"latency": 50}`}},
		{`{ $.refreshRate >= 60 && $.responseTime <= 5 }`, []string{numbers}, nil},
		{`{ $.errorCode = 400}`, []string{numbers, `{"errorCode": 400.0}`, `{"errorCode": "400"}`}, []string{`{"errorCode": 401}`}},
		{`{ $.errorCode != 500 }`, []string{numbers}, []string{`{"errorCode": 5e2}`, `{}`}},
		{`{ $.errorCode = 4* }`, []string{numbers}, []string{`{"errorCode": 500}`}},
		{`{ $.number[0] = 1e+3 }`, []string{numbers}, nil},
		{`{ $.number[0] != 1e-3 }`, []string{numbers}, nil},
		{`{ $.bandwidth > +70 && $.bandwidth > -70 }`, []string{numbers}, nil},
		{`{ $.text > 400 }`, nil, []string{numbers}},
		{`{ $.number[1] < 400 }`, nil, []string{numbers}},
		// Fields.
		{`[ip=%127\.0\.0\.[1-9]%, user, username, timestamp, request =*.html*, status_code = 4*, bytes]`, []string{apache}, []string{get}},
		{`[..., request =*.html*, status_code = 4*, bytes]`, []string{apache}, []string{get}},
		{`[..., request=*.html*, status_code=4*,]`, []string{apache}, nil},
		{`[ip, user, ..., status_code, bytes > 1000]`, []string{apache}, []string{strings.Replace(apache, "1534", "999", 1)}},
		{`[ip, user, ...]`, []string{apache, get}, []string{"one"}},
		{`[...]`, []string{apache, ""}, nil},
		{`[ip, user, username, timestamp = 10/Oct/2000*, request, status_code = 404, bytes]`, []string{apache}, nil},
		{`[ip, user, username, timestamp, request =*.html*, status_code = 404 || status_code = 410, bytes]`, []string{apache}, []string{strings.Replace(apache, "404", "200", 1)}},
		{`[ip, user, username, timestamp, request, status_code = 4* && status_code != 403, bytes]`, []string{apache}, []string{strings.Replace(apache, "404", "403", 1)}},
		{`[ip, user, username, timestamp, request, (status_code = 4* || status_code = 5*) && status_code != 404, bytes]`, nil, []string{apache}},
		{`[a, b, c, d, e, f, g, h]`, nil, []string{apache}},
		{`[w1=ERROR, w2]`, []string{fail}, []string{get, warn, "ERROR"}},
		{`[w1=ERROR || w1=WARNING, w2]`, []string{fail, warn}, []string{get, post}},
		{`[w1!=ERROR && w1!=WARNING, w2]`, []string{get, post}, []string{fail, warn}},
		{`[logLevel, date, time, method, url=%/service/resource/[0-9]+$%, response_time]`, []string{get}, []string{post, warn}},
		{`[logLevel, date, time, method, url=%/service/resource/[0-9]+/part/[0-9]+$%, response_time]`, []string{post}, []string{get}},
		{`[timestamp=*Z, request_id="*-*", event]`, []string{"2026-11-24T00:00:00Z\ta-b\tthe rest of it"}, []string{"2026-11-24T00:00:00Z\tab\tx"}},
		{`[a, b=x*, c="y z"]`, []string{"1 xx y z", `1 xx "y z"`, "1 xx [y z]\n"}, []string{"1 xx y"}},
		{`[a, b > 5]`, []string{"x 6"}, []string{"x 5", "x y"}},
		{`[a, b != 5]`, []string{"x 6", "x y"}, []string{"x 5", "x 5.0"}},
	}
	for _, tt := range tests {
		p, err := Parse(tt.pattern)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		for _, m := range tt.yes {
			if !p.Match(m) {
				t.Errorf("%s does not match %s", tt.pattern, m)
			}
		}
		for _, m := range tt.no {
			if p.Match(m) {
				t.Errorf("%s matches %s", tt.pattern, m)
			}
		}
	}
}

func TestWrongPatternsAreRefused(t *testing.T) {
	tests := []struct{ pattern, want string }{
		{`ERROR:`, "Invalid character(s) in term 'ERROR:'"},
		{`a-b`, "Invalid character(s) in term 'a-b'"},
		{`-`, "Invalid character(s) in term ''"},
		{`"open`, "unexpected end"},
		{`%open`, "unexpected end"},
		{`%%`, "unsupported character"},
		{`%something!%`, "unsupported character"},
		{`%(a)%`, "unsupported character"},
		{`%größe%`, "unsupported character"},
		{`%[a%`, "invalid regular expression"},
		{`%a{2000}%`, "invalid regular expression"},
		{`{`, "unexpected end"},
		{`{}`, "expected a property selector"},
		{`{ $ = 1 }`, "expected '.'"},
		{`{ $. = 1 }`, "expected a property name"},
		{`{ $.a }`, "expected an operator"},
		{`{ $.a = }`, "expected a value"},
		{`{ $.a = 1`, "unexpected end"},
		{`{ $.a = 1 } x`, "expected the end at 'x'"},
		{`{ $.a = 1 $.b = 2 }`, "expected '&&', '||' or '}'"},
		{`{ ($.a = 1 }`, "expected ')'"},
		{`{ $.a > x }`, "'x' is not a number"},
		{`{ $.a > "5" }`, "is not a number"},
		{`{ $.a > %x% }`, "expected a number"},
		{`{ $.a IS NOT NULL }`, "expected NULL, TRUE or FALSE"},
		{`{ $.a EXISTS }`, "expected an operator"},
		{`{ $.a NOT NULL }`, "expected EXISTS"},
		{`{ $.a[x] = 1 }`, "expected an array index"},
		{`{ $.a[1 = 1 }`, "expected ']'"},
		{`{ $.*[*] = 1 }`, "more than 1 wildcard"},
		{`{ $.a[*] = 1 || $.b[*] = 1 || $.c[*] = 1 || $.* = 1 }`, "more than 3 wildcard"},
		{`{ $.a = %a% && $.b = %b% && $.c = %c% }`, "more than 2 regular expressions"},
		{`[a`, "unexpected end"},
		{`[a b]`, "expected ',' or ']'"},
		{`[a = ]`, "expected a value"},
		{`[..., a, ...]`, "expected one ellipsis"},
		{`[a = 1 && b = 2]`, "condition on 'b'"},
		{`[a] x`, "expected the end"},
		{strings.Repeat("x", maxLength+1), "longer than 1024"},
	}
	for _, tt := range tests {
		_, err := Parse(tt.pattern)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.pattern, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`?a ?"b" -c %d%`, `{ ($.a.b[0].* = "x*" && $.c > 3) || $.['d.e'] IS NULL || $.f NOT EXISTS }`,
		`[ip, user=%x%, ..., status=4* || status != "5", bytes > 1e3]`,
	} {
		f.Add(s, `{"a": {"b": [{"c": "x"}]}, "c": 4}`)
		f.Add(s, apache)
	}
	f.Fuzz(func(t *testing.T, s, message string) {
		p, err := Parse(s)
		if err != nil {
			if _, ok := err.(*SyntaxError); !ok {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		p.Match(message)
		p.Match(user)
	})
}

func BenchmarkMatch(b *testing.B) {
	for _, s := range []string{`ERROR -ARGUMENTS`, `%AUTH[A-Z]*%`, `{ $.users[1].email = "Jane*" }`, `[..., status=4*, bytes]`} {
		b.Run(strings.ReplaceAll(s, " ", ""), func(b *testing.B) {
			p, err := Parse(s)
			if err != nil {
				b.Fatal(err)
			}
			messages := []string{unauthorized, user, apache}
			n := 0
			for b.Loop() {
				n++
				p.Match(messages[n%len(messages)])
			}
		})
	}
}
