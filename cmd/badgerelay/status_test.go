package main

import (
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"reflect"
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
	if _, data := get(t, "http://"+r.Ops+"/status/json"); !strings.Contains(data, `"state": "working"`) || !strings.Contains(data, `"accepted": "1",`) {
		t.Errorf("GET /status/json = %s", data)
	}

	out := want(t, command.Done, "?key=", "status", "--page", "--admin", r.Admin)
	address, _, _ := strings.Cut(out, "\n")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	operator := &http.Client{Jar: jar}
	if body := getWith(t, operator, address); !strings.Contains(body, enrolledOrganization) || !strings.Contains(body, r.Instance) {
		t.Errorf("an operator's page shows no organization:\n%s", body)
	}
	var page struct{ Status map[string]any }
	var printed map[string]any
	for text, v := range map[string]any{
		getWith(t, operator, "http://"+r.Ops+"/status/json"):                        &page,
		want(t, command.Done, "", "status", "--output", "json", "--admin", r.Admin): &printed,
	} {
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	for _, status := range []map[string]any{page.Status, printed} {
		for _, app := range status["apps"].([]any) {
			delete(app.(map[string]any), "providerTokenAge") // goes on meanwhile
		}
	}
	if !reflect.DeepEqual(page.Status, printed) || len(printed) == 0 {
		t.Errorf("GET /status/json has the status\n%v\nand the command line\n%v", page.Status, printed)
	}
	want(t, command.Done, "LISTENER  CERTIFICATE_END\nlisten ", "status", "--admin", r.Admin)
	if text, _ := r.log.read(); strings.Contains(text, strings.SplitAfter(address, "key=")[1]) {
		t.Error("the key is in the log")
	}
}
