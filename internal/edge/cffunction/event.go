package cffunction

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/trigger"
)

// item is one query parameter, header field or cookie. An object of such has each
// name once, with all values under it.
type item struct {
	name, value string
	attributes  string // of a Set-Cookie
	bare        bool   // a query parameter without an equals sign
}

// appendEvent appends the event of a function (CloudFront developer guide,
// "CloudFront Functions event structure").
func appendEvent(b []byte, d *distribution.Distribution, e distribution.EventType, x *trigger.Exchange) []byte {
	r := &x.Request
	b = append(b, `{"version":"1.0","context":{"distributionDomainName":`...)
	b = trigger.AppendString(b, d.DomainName)
	b = append(b, `,"distributionId":`...)
	b = trigger.AppendString(b, d.ID)
	b = append(b, `,"eventType":`...)
	b = trigger.AppendString(b, string(e))
	b = append(b, `,"requestId":`...)
	b = trigger.AppendString(b, x.RequestID)
	b = append(b, `},"viewer":{"ip":`...)
	b = trigger.AppendString(b, r.ClientIP)
	b = append(b, `},"request":{"method":`...)
	b = trigger.AppendString(b, r.Method)
	b = append(b, `,"uri":`...)
	b = trigger.AppendString(b, r.URI)
	b = append(b, `,"querystring":`...)
	b = appendItems(b, parseQuery(r.Query))
	b = append(b, `,"headers":`...)
	b = appendItems(b, shown(r.Header, "cookie"))
	b = append(b, `,"cookies":`...)
	b = appendItems(b, parseCookies(r.Header))
	b = append(b, '}')
	if a := x.Response; a != nil {
		b = append(b, `,"response":{"statusCode":`...)
		b = strconv.AppendInt(b, int64(a.Status), 10)
		b = append(b, `,"statusDescription":`...)
		b = trigger.AppendString(b, cmp.Or(a.Description, http.StatusText(a.Status)))
		b = append(b, `,"headers":`...)
		b = appendItems(b, shown(a.Header, "set-cookie"))
		b = append(b, `,"cookies":`...)
		b = appendItems(b, parseSetCookies(a.Header))
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendItems(b []byte, items []item) []byte {
	b = append(b, '{')
	for i, it := range items {
		if slices.ContainsFunc(items[:i], func(o item) bool { return o.name == it.name }) {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = trigger.AppendString(b, it.name)
		b = append(b, ':', '{')
		b = it.append(b)
		if all := named(items[i:], it.name); len(all) > 1 {
			b = append(b, `,"multiValue":[`...)
			for j, o := range all {
				if j > 0 {
					b = append(b, ',')
				}
				b = append(o.append(append(b, '{')), '}')
			}
			b = append(b, ']')
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

func (it item) append(b []byte) []byte {
	b = append(b, `"value":`...)
	b = trigger.AppendString(b, it.value)
	if it.attributes != "" {
		b = append(b, `,"attributes":`...)
		b = trigger.AppendString(b, it.attributes)
	}
	return b
}

func named(items []item, name string) (all []item) {
	for _, it := range items {
		if it.name == name {
			all = append(all, it)
		}
	}
	return all
}

func parseQuery(query string) (items []item) {
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		items = append(items, item{name: name, value: value, bare: !ok})
	}
	return items
}

func formatQuery(items []item) string {
	var b strings.Builder
	for i, it := range items {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(it.name)
		if !it.bare || it.value != "" {
			b.WriteByte('=')
			b.WriteString(it.value)
		}
	}
	return b.String()
}

// shown is the fields of a header that functions see; cookies are apart.
func shown(h trigger.Header, cookie string) (items []item) {
	for _, f := range h {
		if name := strings.ToLower(f.Name); !trigger.Hidden(name) && name != cookie {
			items = append(items, item{name: name, value: f.Value})
		}
	}
	return items
}

func parseCookies(h trigger.Header) (items []item) {
	for _, f := range h {
		if !strings.EqualFold(f.Name, "cookie") {
			continue
		}
		for part := range strings.SplitSeq(f.Value, ";") {
			if name, value, _ := strings.Cut(strings.TrimSpace(part), "="); name != "" {
				items = append(items, item{name: name, value: value})
			}
		}
	}
	return items
}

func parseSetCookies(h trigger.Header) (items []item) {
	for _, f := range h {
		if !strings.EqualFold(f.Name, "set-cookie") {
			continue
		}
		pair, attributes, _ := strings.Cut(f.Value, ";")
		name, value, _ := strings.Cut(pair, "=")
		items = append(items, item{name: strings.TrimSpace(name), value: strings.TrimSpace(value), attributes: strings.TrimSpace(attributes)})
	}
	return items
}

// value is an entry of an object of items.
type value struct {
	Value      *string `json:"value"`
	Attributes string  `json:"attributes"`
	MultiValue []struct {
		Value      *string `json:"value"`
		Attributes string  `json:"attributes"`
	} `json:"multiValue"`
}

// readItems reads such an object. Of a name with several values the changed ones
// count: multiValue's, or else value for the first ("Duplicate query strings,
// headers, and cookies"). Names come in the order of was, then the new ones.
func readItems(what string, raw json.RawMessage, was []item) ([]item, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var o map[string]*value
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, fmt.Errorf("%s must be an object of objects with a value that is a string", what)
	}
	var names []string
	for _, it := range was {
		if _, ok := o[it.name]; ok && !slices.Contains(names, it.name) {
			names = append(names, it.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var items []item
	for _, name := range names {
		v, old := o[name], named(was, name)
		if v == nil {
			return nil, fmt.Errorf("%s['%s'] is null", what, name)
		}
		var multi []item
		for _, m := range v.MultiValue {
			if m.Value == nil {
				return nil, fmt.Errorf("%s['%s'].multiValue has an entry without a value", what, name)
			}
			multi = append(multi, item{name: name, value: *m.Value, attributes: m.Attributes})
		}
		first := item{name: name, attributes: v.Attributes}
		switch {
		case v.Value != nil:
			first.value = *v.Value
		case len(multi) == 0:
			return nil, fmt.Errorf("%s['%s'] has no value", what, name)
		}
		switch {
		case len(multi) == 0:
			multi = []item{first}
		case len(old) > 1 && sameItems(multi, old) && v.Value != nil:
			multi[0] = first
		}
		for i := range multi {
			if i < len(old) {
				multi[i].bare = old[i].bare
			}
		}
		items = append(items, multi...)
	}
	return items, nil
}

func sameItems(a, b []item) bool {
	return slices.EqualFunc(a, b, func(a, b item) bool { return a.name == b.name && a.value == b.value && a.attributes == b.attributes })
}

// grouped is what appendItems and readItems make of items that nobody changes.
func grouped(items []item) (all []item) {
	for i, it := range items {
		if !slices.ContainsFunc(items[:i], func(o item) bool { return o.name == it.name }) {
			all = append(all, named(items[i:], it.name)...)
		}
	}
	return all
}

// readHeader reads headers and cookies back. cookie is the name of the field that
// cookies make, was the header before.
func readHeader(e distribution.EventType, headers, cookies json.RawMessage, was trigger.Header, cookie string, format func([]item) trigger.Header) (trigger.Header, error) {
	old := shown(was, cookie)
	items, err := readItems("headers", headers, old)
	if err != nil {
		return nil, err
	}
	h := make(trigger.Header, 0, len(items)+1)
	for _, it := range items {
		switch {
		case it.name != strings.ToLower(it.name):
			return nil, fmt.Errorf("the header name %q must be in lower case", it.name)
		case it.name == cookie:
			return nil, fmt.Errorf("the header %q cannot be set: cookies are in the object of that name", it.name)
		case !httpguts.ValidHeaderFieldName(it.name) || !httpguts.ValidHeaderFieldValue(it.value):
			return nil, fmt.Errorf("headers['%s'] is not a valid header", it.name)
		}
		name := trigger.Capitalised(it.name)
		for _, f := range was {
			if strings.EqualFold(f.Name, name) {
				name = f.Name // as the wire spells it
				break
			}
		}
		h = append(h, trigger.Field{Name: name, Value: it.value})
	}
	h.Restore(was)
	if err := trigger.CheckHeader(e, h, without(was, cookie)); err != nil {
		return nil, err
	}
	all, err := readItems("cookies", cookies, oldCookies(was, cookie))
	if err != nil {
		return nil, err
	}
	if sameItems(all, grouped(oldCookies(was, cookie))) {
		for _, f := range was {
			if strings.EqualFold(f.Name, cookie) {
				h = append(h, f)
			}
		}
		return h.WithHidden(was), nil
	}
	for _, f := range format(all) {
		if !httpguts.ValidHeaderFieldValue(f.Value) || strings.ContainsAny(f.Value, "\r\n") {
			return nil, errors.New("cookies has a value that is not valid")
		}
		h = append(h, f)
	}
	return h.WithHidden(was), nil
}

func oldCookies(h trigger.Header, cookie string) []item {
	if cookie == "cookie" {
		return parseCookies(h)
	}
	return parseSetCookies(h)
}

func without(h trigger.Header, name string) trigger.Header {
	return slices.DeleteFunc(slices.Clone(h), func(f trigger.Field) bool { return strings.EqualFold(f.Name, name) })
}

func cookieField(items []item) trigger.Header {
	if len(items) == 0 {
		return nil
	}
	pairs := make([]string, len(items))
	for i, it := range items {
		pairs[i] = it.name + "=" + it.value
	}
	return trigger.Header{{Name: "Cookie", Value: strings.Join(pairs, "; ")}}
}

func setCookieFields(items []item) (h trigger.Header) {
	for _, it := range items {
		v := it.name + "=" + it.value
		if it.attributes != "" {
			v += "; " + it.attributes
		}
		h = append(h, trigger.Field{Name: "Set-Cookie", Value: v})
	}
	return h
}

// applyResult takes what a function returned over into the exchange, or leaves it
// as it is.
func applyResult(e distribution.EventType, x *trigger.Exchange, result []byte) error {
	var o struct {
		Method, URI                   *string
		Querystring, Headers, Cookies json.RawMessage
		StatusCode                    json.RawMessage
		StatusDescription             *string
		Body                          json.RawMessage
	}
	if len(result) == 0 || result[0] != '{' {
		return errors.New("the function must return a request or response object")
	}
	if err := json.Unmarshal(result, &o); err != nil {
		return fmt.Errorf("the function returned an object with a member of the wrong type: %w", err)
	}
	if e == distribution.ViewerResponse || o.StatusCode != nil {
		r, err := readResponse(e, x, o.StatusCode, o.StatusDescription, o.Headers, o.Cookies, o.Body)
		if err == nil {
			x.Response = r
		}
		return err
	}
	r := x.Request
	switch {
	case o.Method != nil && *o.Method != r.Method:
		return errors.New("request.method cannot be changed")
	case o.URI == nil:
		return errors.New("request.uri is missing")
	}
	// What is left alone stays as the viewer sent it, whatever its encoding.
	if *o.URI != trigger.AsUTF8(r.URI) {
		r.URI = *o.URI
	}
	old := parseQuery(trigger.AsUTF8(r.Query))
	query, err := readItems("querystring", o.Querystring, old)
	if err != nil {
		return err
	}
	if !sameItems(query, grouped(old)) {
		r.Query = formatQuery(query)
	}
	if r.URI != x.Request.URI || r.Query != x.Request.Query {
		if err := trigger.CheckTarget(r.URI, r.Query); err != nil {
			return err
		}
	}
	if r.Header, err = readHeader(e, o.Headers, o.Cookies, r.Header, "cookie", cookieField); err != nil {
		return err
	}
	x.Request = r
	return nil
}

func readResponse(e distribution.EventType, x *trigger.Exchange, code json.RawMessage, description *string, headers, cookies, body json.RawMessage) (*trigger.Response, error) {
	status, err := strconv.Atoi(string(code))
	if err != nil || status < 200 || status > 599 {
		return nil, errors.New("response.statusCode must be an integer from 200 to 599")
	}
	var r trigger.Response
	var was trigger.Header
	if x.Response != nil {
		r, was = *x.Response, x.Response.Header
	}
	generated := x.Response == nil
	if description != nil {
		if !httpguts.ValidHeaderFieldValue(*description) {
			return nil, errors.New("response.statusDescription is not valid")
		}
		r.Description = *description
	} else if status != r.Status {
		r.Description = http.StatusText(status)
	}
	r.Status = status
	if r.Header, err = readHeader(e, headers, cookies, was, "set-cookie", setCookieFields); err != nil {
		return nil, err
	}
	if len(body) > 0 && !bytes.Equal(body, []byte("null")) {
		if r.Body, err = readBody(body); err != nil {
			return nil, err
		}
		r.Replaced = true
	}
	r.Replaced = r.Replaced || generated
	r.Header = trigger.Framed(r.Header, was, r.Replaced)
	return &r, nil
}

// readBody reads a body: a string, or an object with data and encoding.
func readBody(raw json.RawMessage) ([]byte, error) {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		var o struct{ Encoding, Data *string }
		if err := json.Unmarshal(raw, &o); err != nil || o.Data == nil {
			return nil, errors.New("response.body must be a string or an object with data and encoding")
		}
		text = *o.Data
		switch {
		case o.Encoding == nil || *o.Encoding == "text":
		case *o.Encoding == "base64":
			b, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return nil, errors.New("response.body is not valid base64")
			}
			text = string(b)
		default:
			return nil, fmt.Errorf("response.body.encoding must be text or base64, not %q", *o.Encoding)
		}
	}
	if limit := trigger.BodyLimit(distribution.ViewerResponse); len(text) > limit {
		return nil, fmt.Errorf("response.body has %d bytes; the limit is %d", len(text), limit)
	}
	return []byte(text), nil
}
