package backend

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"
)

// TestStrictBodies sends what encoding/json takes and the document does not.
func TestStrictBodies(t *testing.T) {
	a := newAPI(t)
	const rest = `,"app":"mail","deviceToken":"ab"`
	for body, field := range map[string]string{
		`{"Mailbox":"a"` + rest + `}`:                   "Mailbox",
		`{"mailbox":"a","keepothers":true` + rest + `}`: "keepothers",
		`{"mailbox":"a","mailbox":"a"` + rest + `}`:     "mailbox",
		`{"mailbox":null` + rest + `}`:                  "mailbox",
		`{"mailbox":1` + rest + `}`:                     "mailbox",
		`{"mailbox":["a"]` + rest + `}`:                 "mailbox",
		`{"mailbox":"a","keepOthers":null` + rest + `}`: "keepOthers",
		`{"mailbox":"a","keepOthers":1` + rest + `}`:    "keepOthers",
		`{"mailbox":"a\ud800"` + rest + `}`:             "mailbox",
		`{"mailbox":"\udc00\ud800"` + rest + `}`:        "mailbox",
		`{"mailbox":"\ud800\u0041"` + rest + `}`:        "mailbox",
		`{"mailbox":"\ud800\\udc00"` + rest + `}`:       "mailbox",
		`{"mailbox":"\uD83Dx"` + rest + `}`:             "mailbox",
	} {
		w := a.do("POST", "/v1/subscribe", body)
		a.wantProblem(body, w.Code, w.Body.Bytes(), Problem{Status: 400, Code: CodeMalformed, Field: field})
	}
	for mailboxes, field := range map[string]string{
		`null`: "mailboxes", `"a"`: "mailboxes", `{}`: "mailboxes", `["a",1]`: "mailboxes[1]", `[null]`: "mailboxes[0]", `["\ud800"]`: "mailboxes[0]",
	} {
		w := a.do("PUT", "/v1/device", `{"app":"mail","deviceToken":"ab","mailboxes":`+mailboxes+`}`)
		a.wantProblem(mailboxes, w.Code, w.Body.Bytes(), Problem{Status: 400, Code: CodeMalformed, Field: field})
	}
	if n := len(a.relay.live); n > 0 {
		t.Errorf("%d subscriptions after bad requests", n)
	}
	for escaped, mailbox := range map[string]string{
		`\ud83d\ude00`: "😀", `\\ud800`: `\ud800`, `\ufffd`: "\ufffd", `a\"\u0062\n`: "a\"b\n", `\ud83d\ude00\uD83D\uDE00x`: "😀😀x",
	} {
		a.do("POST", "/v1/subscribe", ` { "mailbox" : "`+escaped+`"`+rest+`,"keepOthers":true } `)
		if a.relay.find(mailbox, "mail", "ab") < 0 {
			t.Errorf("%s: not subscribed as %q", escaped, mailbox)
		}
	}
}

// wantProblem checks a problem's status, code and field, and that it tells of no
// names of the program's own.
func (a *api) wantProblem(what string, status int, body []byte, want Problem) {
	a.t.Helper()
	var p Problem
	if err := json.Unmarshal(body, &p); err != nil {
		a.t.Errorf("%s: answer %s: %v", what, body, err)
	}
	if status != want.Status || p.Status != want.Status || p.Code != want.Code || p.Field != want.Field || p.Title == "" {
		a.t.Errorf("%s: got %s, want %d %s for %q", what, body, want.Status, want.Code, want.Field)
	}
	for _, inner := range []string{"backend.", "Go ", "json:", "invalid character", "Registration", "[]string"} {
		if strings.Contains(p.Detail, inner) {
			a.t.Errorf("%s: the detail is %q", what, p.Detail)
		}
	}
}

// TestStrictQueries asks with parameters that a server might drop, and so answer
// something else.
func TestStrictQueries(t *testing.T) {
	a := newAPI(t)
	a.do("POST", "/v1/subscribe", ann)
	for target, want := range map[string]Problem{
		"/v1/subscriptions?mailbox=no%zz":           {Code: CodeMalformed},
		"/v1/subscriptions?mailbox=no;such":         {Code: CodeMalformed},
		"/v1/subscriptions?mailbox=no%":             {Code: CodeMalformed},
		"/v1/subscriptions?limit=5000;x":            {Code: CodeMalformed},
		"/v1/subscriptions?%zz":                     {Code: CodeMalformed},
		"/v1/subscriptions?mailboxes=a":             {Code: CodeField, Field: "mailboxes"},
		"/v1/subscriptions?Mailbox=a":               {Code: CodeField, Field: "Mailbox"},
		"/v1/subscriptions?mailbox=a&mailbox=b":     {Code: CodeField, Field: "mailbox"},
		"/v1/subscriptions?limit=1&limit=2":         {Code: CodeField, Field: "limit"},
		"/v1/removed?wait=60;":                      {Code: CodeMalformed},
		"/v1/removed?mailbox=a":                     {Code: CodeField, Field: "mailbox"},
		"/v1/openapi.yaml?x":                        {Code: CodeField, Field: "x"},
		"/v1/subscriptions?mailbox=a&page=&%6Cimit": {}, // a name may be escaped, a value empty
	} {
		if want.Code == "" {
			a.want(a.do("GET", target, ""), 200)
			continue
		}
		want.Status = 400
		w := a.do("GET", target, "")
		a.wantProblem(target, w.Code, w.Body.Bytes(), want)
	}
	a.want(a.do("POST", "/v1/unsubscribe?dryRun=true", ann), 400, `"field":"dryRun"`)
	if n := len(a.relay.live); n != 1 {
		t.Errorf("%d subscriptions, want the one that was not to be taken off", n)
	}
}

// served sends the text of a request to the API on a listener that waits ten
// seconds for one, as the agent's does.
func (a *api) served(request string) (status int, body []byte) {
	a.t.Helper()
	listener := bufconn.Listen(1 << 16)
	server := &http.Server{Handler: a, ReadTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // ends with Close
	defer server.Close()
	conn, err := listener.DialContext(context.Background())
	if err != nil {
		a.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		a.t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		a.t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err = io.ReadAll(answer.Body); err != nil {
		a.t.Fatal(err)
	}
	return answer.StatusCode, body
}

func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		status, body := a.served("POST /v1/subscribe HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
		a.wantProblem("slow body", status, body, Problem{Status: 408, Code: CodeSlow})
	})
}
