package backend

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"
)

// object is a part of the document.
type object = map[string]any

type document struct {
	t    *testing.T
	root object
}

func readDocument(t *testing.T) *document {
	t.Helper()
	d := &document{t: t}
	if err := yaml.Unmarshal(OpenAPI, &d.root); err != nil {
		t.Fatal(err)
	}
	return d
}

// at follows member names and references.
func (d *document) at(o any, path ...string) object {
	d.t.Helper()
	for {
		m, ok := o.(object)
		if !ok {
			d.t.Fatalf("%v: %v is no object", path, o)
		}
		if ref, ok := m["$ref"].(string); ok {
			o = d.at(d.root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
			continue
		}
		if len(path) == 0 {
			return m
		}
		o, path = m[path[0]], path[1:]
	}
}

// valid checks a value of JSON against a schema: types, required and unknown
// members.
func (d *document) valid(what string, schema any, v any) {
	d.t.Helper()
	s := d.at(schema)
	switch s["type"] {
	case "object":
		members, ok := v.(map[string]any)
		if !ok {
			d.t.Errorf("%s is %T, want an object", what, v)
			return
		}
		for _, name := range s["required"].([]any) {
			if _, ok := members[name.(string)]; !ok {
				d.t.Errorf("%s has no %s", what, name)
			}
		}
		properties := d.at(s["properties"])
		for name, value := range members {
			if properties[name] == nil {
				d.t.Errorf("%s has %s, which is not documented", what, name)
				continue
			}
			d.valid(what+"."+name, properties[name], value)
		}
	case "array":
		items, ok := v.([]any)
		if !ok {
			d.t.Errorf("%s is %T, want a list", what, v)
		}
		for i, item := range items {
			d.valid(fmt.Sprintf("%s[%d]", what, i), s["items"], item)
		}
	case "string":
		text, ok := v.(string)
		if _, err := time.Parse(time.RFC3339, text); !ok || s["format"] == "date-time" && err != nil {
			d.t.Errorf("%s is %v, want a string, of format %v", what, v, s["format"])
		}
	case "integer":
		if n, ok := v.(float64); !ok || n != math.Trunc(n) {
			d.t.Errorf("%s is %v, want an integer", what, v)
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			d.t.Errorf("%s is %v, want a boolean", what, v)
		}
	default:
		d.t.Errorf("%s: schema of type %v", what, s["type"])
	}
}

// check checks that an answer is documented for the operation.
func (d *document) check(method, target string, w *httptest.ResponseRecorder) {
	d.t.Helper()
	path, _, _ := strings.Cut(target, "?")
	what := fmt.Sprintf("%s %s: %d", method, target, w.Code)
	response := d.at(d.root, "paths", path, strings.ToLower(method), "responses", fmt.Sprint(w.Code))
	kind, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";")
	schema := d.at(response, "content", kind, "schema")
	if !strings.HasSuffix(kind, "json") {
		return
	}
	var v any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		d.t.Fatalf("%s: %v in %s", what, err, w.Body)
	}
	d.valid(what, schema, v)
}

func TestDocumentHasEveryRoute(t *testing.T) {
	d := readDocument(t)
	var documented, served []string
	for path, operations := range d.at(d.root, "paths") {
		for method := range d.at(operations) {
			documented = append(documented, strings.ToUpper(method)+" "+path)
		}
	}
	for _, r := range newAPI(t).routes() {
		served = append(served, r.method+" "+r.path)
	}
	slices.Sort(documented)
	slices.Sort(served)
	if !slices.Equal(documented, served) {
		t.Errorf("documented %v, served %v", documented, served)
	}
}

// TestAnswersAreDocumented compares an answer of every kind with the document.
func TestAnswersAreDocumented(t *testing.T) {
	d := readDocument(t)
	for _, test := range []struct {
		method, target, body string
		refusal              error
		want                 int
	}{
		{"POST", "/v1/subscribe", ann, nil, 201},
		{"POST", "/v1/subscribe", `{}`, nil, 400},
		{"POST", "/v1/subscribe", strings.Repeat(" ", MaxBody+1), nil, 413},
		{"POST", "/v1/subscribe", "", nil, 415},
		{"POST", "/v1/subscribe", ann, refusal(codes.PermissionDenied, "APP_NOT_ALLOWED", "", 0), 403},
		{"POST", "/v1/subscribe", ann, refusal(codes.ResourceExhausted, "QUOTA_EXCEEDED", "", 0), 429},
		{"POST", "/v1/subscribe", ann, refusal(codes.Unauthenticated, "TOKEN_REALM", "", 0), 502},
		{"PUT", "/v1/device", `{"app":"mail","deviceToken":"ab","mailboxes":["a"]}`, nil, 200},
		{"PUT", "/v1/device", `{"app":"mail","deviceToken":"ab"}`, nil, 400},
		{"PUT", "/v1/device", `{"app":"mail","deviceToken":"ab","mailboxes":[]}`, refusal(codes.PermissionDenied, "APP_NOT_ALLOWED", "", 0), 403},
		{"POST", "/v1/unsubscribe", ann, nil, 200},
		{"POST", "/v1/unsubscribe", `{`, nil, 400},
		{"GET", "/v1/subscriptions", "", nil, 200},
		{"GET", "/v1/subscriptions?limit=0", "", nil, 400},
		{"GET", "/v1/subscriptions", "", refusal(codes.DeadlineExceeded, "", "", 0), 504},
		{"GET", "/v1/removed", "", nil, 200},
		{"GET", "/v1/removed?wait=x", "", nil, 400},
		{"GET", "/v1/removed", "", refusal(codes.Unavailable, "DRAINING", "", 0), 503},
		{"GET", "/v1/openapi.yaml", "", nil, 200},
	} {
		a := newAPI(t)
		a.relay.refusal = test.refusal
		a.relay.live = nil
		a.relay.remove("gone")
		if test.method == "GET" && test.refusal == nil {
			a.do("POST", "/v1/subscribe", ann)
		}
		w := a.do(test.method, test.target, test.body)
		if w.Code != test.want {
			t.Errorf("%s %s: %d %s, want %d", test.method, test.target, w.Code, w.Body, test.want)
		}
		d.check(test.method, test.target, w)
	}
}
