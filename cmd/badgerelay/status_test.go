package main

import (
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
)

func TestStatusPage(t *testing.T) {
	r := startRelay(t)
	r.subscribe(t, "ann@fabrikam.com", 1)
	r.publish(t, "ann@fabrikam.com", 7)

	code, everybody := get(t, "http://"+r.Ops+"/status")
	if code != http.StatusOK || !strings.Contains(everybody, "<h1>Working</h1>") || !strings.Contains(everybody, "delivered") {
		t.Errorf("GET /status = %d\n%s", code, everybody)
	}
	if strings.Contains(everybody, enrolledOrganization) || strings.Contains(everybody, "com.example.mail") {
		t.Error("everybody is shown who is enrolled")
	}
	if _, data := get(t, "http://"+r.Ops+"/status/json"); !strings.Contains(data, `"state": "working"`) || !strings.Contains(data, `"accepted": 1,`) {
		t.Errorf("GET /status/json = %s", data)
	}

	out := want(t, command.Done, "?key=", "status", "--page", "--admin", r.Admin)
	address, _, _ := strings.Cut(out, "\n")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	operator := &http.Client{Jar: jar}
	for _, path := range []string{address, "http://" + r.Ops + "/status/json"} {
		if body := getWith(t, operator, path); !strings.Contains(body, enrolledOrganization) || !strings.Contains(body, r.Instance) {
			t.Errorf("an operator's GET %s shows no organization:\n%s", path, body)
		}
	}
	if text, _ := r.log.read(); strings.Contains(text, strings.SplitAfter(address, "key=")[1]) {
		t.Error("the key is in the log")
	}
}
