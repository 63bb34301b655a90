package wire

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/iam"
	"lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/aws/s3"
	"lapwing.dev/lapwing/internal/aws/schema"
	cloudwatch "lapwing.dev/lapwing/internal/aws/wire/internal/testapi/cloudwatchtest"
	"lapwing.dev/lapwing/internal/aws/wire/internal/testapi/ec2"
	"lapwing.dev/lapwing/internal/aws/wire/internal/testapi/sqs"
)

// Shapes to decode into: their services never run.
var (
	lambdaService     = lambda.NewService(struct{ lambda.API }{})
	s3Service         = s3.NewService(struct{ s3.API }{})
	iamService        = iam.NewService(struct{ iam.API }{})
	sqsService        = sqs.NewService(struct{ sqs.API }{})
	ec2Service        = ec2.NewService(struct{ ec2.API }{})
	cloudwatchService = cloudwatch.NewService(struct{ cloudwatch.API }{})
)

// decoded decodes into a new input and checks what holds for every input: the
// error is AWS's, and what was decoded can be validated.
func decoded(t *testing.T, call *Call, decode func(in reflect.Value) error) (reflect.Value, bool) {
	in := reflect.ValueOf(call.Operation.New()).Elem()
	if err := decode(in); err != nil {
		if e, ok := errors.AsType[*aws.Error](err); !ok || e.Status < 400 || e.Code == "" {
			t.Fatalf("not an error of AWS: %v", err)
		}
		return in, false
	}
	if err := call.validate(in); err != nil {
		if _, ok := errors.AsType[*aws.Error](err); !ok {
			t.Fatalf("not an error of AWS: %v", err)
		}
	}
	return in, true
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"FunctionName":"f","Code":{"ZipFile":"AAE="},"MemorySize":128,"Publish":true,"Tags":{"a":"b"},"Layers":["x",null]}`,
		`{"Environment":{"Variables":{"A":"\u0000\ud83d"}},"Timeout":1e2,"VpcConfig":{}}`, `[`, `{"Code":[]}`, ` `} {
		f.Add([]byte(s))
	}
	call := &Call{Service: lambdaService, Operation: lambdaService.Operation("CreateFunction"), Protocol: aws.RESTJSON}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := call.Operation.Input
		in, ok := decoded(t, call, func(in reflect.Value) error { return decodeJSON(body, s, in) })
		if !ok {
			return
		}
		encoded := appendJSON(nil, s, in)
		again := reflect.ValueOf(call.Operation.New()).Elem()
		if err := decodeJSON(encoded, s, again); err != nil {
			t.Fatalf("%s: %v", encoded, err)
		}
		if b := appendJSON(nil, s, again); !bytes.Equal(b, encoded) {
			t.Fatalf("%s became %s", encoded, b)
		}
	})
}

func FuzzCBOR(f *testing.F) {
	for _, v := range []any{map[string]any{"Namespace": "N", "MetricData": []any{map[string]any{"MetricName": "m", "Timestamp": cbor.Tag{Number: 1, Content: 1.5}, "Values": []float64{1}, "StorageResolution": 60}}}, 1, []int{}} {
		b, err := cbor.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\xbf\x69Namespace\x61N\xff"))
	f.Add([]byte("\xa1\x69StartTime\xc1\xf9\x7e\x00"))
	call := &Call{Service: cloudwatchService, Operation: cloudwatchService.Operation("PutMetricData"), Protocol: aws.CBOR}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := call.Operation.Input
		in, ok := decoded(t, call, func(in reflect.Value) error { return decodeCBOR(body, s, in) })
		if !ok {
			return
		}
		encoded, err := encodeCBOR(s, in)
		if err != nil {
			t.Fatal(err)
		}
		again := reflect.ValueOf(call.Operation.New()).Elem()
		if err := decodeCBOR(encoded, s, again); err != nil {
			t.Fatalf("%x: %v", encoded, err)
		}
	})
}

func FuzzXML(f *testing.F) {
	for _, s := range []string{`<Delete><Object><Key>a&amp;</Key><Size>1</Size></Object><Object><Key>b</Key></Object><Quiet>true</Quiet></Delete>`,
		`<?xml version="1.0"?><a xmlns="x"><b/><!-- c --><![CDATA[d]]></a>`, `<a>`, `<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`} {
		f.Add([]byte(s))
	}
	call := &Call{Service: s3Service, Operation: s3Service.Operation("DeleteObjects"), Protocol: aws.RESTXML}
	payload := call.Operation.Input.Bound(schema.Payload)
	f.Fuzz(func(t *testing.T, body []byte) {
		in, ok := decoded(t, call, func(in reflect.Value) error {
			return decodeXML(body, payload.Shape, target(in.Field(payload.Index)))
		})
		if !ok {
			return
		}
		v := target(in.Field(payload.Index))
		encoded := xmlDocument("Delete", "", payload.Shape, v)
		again := reflect.New(v.Type()).Elem()
		if err := decodeXML(encoded, payload.Shape, again); err != nil {
			t.Fatalf("%s: %v", encoded, err)
		}
	})
}

func FuzzForm(f *testing.F) {
	for _, s := range []string{"Action=CreateRole&RoleName=r&Tags.member.1.Key=a&Tags.member.1.Value=b&MaxSessionDuration=3600", "Tags=", "Tags.member.2.Key", "a.b.c=1&a.b=2",
		"MessageAttribute.1.Name=x&MessageAttribute.1.Value.BinaryValue=AA==", "Filter.1.Value.1=x&Size=8&Encrypted=true", "%zz", "IpPermissions.1.IpRanges.1.CidrIp=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		form, err := parseForm(raw)
		if err != nil {
			if _, ok := errors.AsType[*aws.Error](err); !ok {
				t.Fatalf("not an error of AWS: %v", err)
			}
			return
		}
		for _, call := range []*Call{
			{Service: iamService, Operation: iamService.Operation("CreateRole"), Protocol: aws.Query},
			{Service: sqsService, Operation: sqsService.Operation("SendMessage"), Protocol: aws.Query},
			{Service: cloudwatchService, Operation: cloudwatchService.Operation("PutMetricData"), Protocol: aws.Query},
			{Service: ec2Service, Operation: ec2Service.Operation("CreateVolume"), Protocol: aws.EC2Query},
		} {
			decoded(t, call, func(in reflect.Value) error {
				return formDecoder{ec2: call.Protocol == aws.EC2Query}.structure(form, call.Operation.Input, in, 0)
			})
		}
	})
}

// FuzzREST fuzzes what is around a body: method, path, query and a header.
func FuzzREST(f *testing.F) {
	f.Add("GET", "/b/k%2Fx", "versionId=1&partNumber=2", "x-amz-meta-a", "=?UTF-8?B?w7w=?=")
	f.Add("PUT", "/b", "versioning", "content-md5", "x")
	f.Add("POST", "/2015-03-31/functions/f/invocations", "Qualifier=x", "x-amz-log-type", "Tail")
	f.Add("GET", "/2017-03-31/tags/arn%3Aaws", "tagKeys=a&tagKeys=b", "range", "")
	f.Add("DELETE", "//", "%", "if-modified-since", "Wed, 04 Mar 2026 05:06:07 GMT")
	f.Fuzz(func(t *testing.T, method, path, query, header, value string) {
		target := &url.URL{Path: path, RawPath: path, RawQuery: query}
		for _, svc := range []*aws.Service{s3Service, lambdaService} {
			r := &http.Request{Method: method, URL: target, Header: http.Header{http.CanonicalHeaderKey(header): {value}}, Body: http.NoBody}
			call, err := Find(svc, r)
			if err != nil {
				e, ok := errors.AsType[*aws.Error](err)
				if !ok || call != nil {
					t.Fatalf("call %v, error %v", call, err)
				}
				w := httptest.NewRecorder()
				WriteError(w, r, svc, nil, e, "id")
				continue
			}
			decoded(t, call, func(in reflect.Value) error { return call.decode(r, in) })
		}
	})
}
