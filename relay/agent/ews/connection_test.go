package ews

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// asks is a server that asks for authentication, and a connection to it.
func asks(t *testing.T, c Credentials, handler http.HandlerFunc) (*connection, string) {
	server := httptest.NewServer(handler)
	config := &Config{credentials: func() (Credentials, int) { return c, 1 }}
	l := newConnection(config)
	t.Cleanup(func() { l.close(); server.Close() })
	return l, server.URL
}

// A connection that does not stay open between the steps of NTLM is named, and
// not taken for a wrong password.
func TestConnectionsThatEndWithinALogin(t *testing.T) {
	message := append([]byte("NTLMSSP\x00\x02\x00\x00\x00"), make([]byte, 44)...)
	copy(message[20:], "\x01\x02\x88\xa0") // Unicode, NTLM, extended security, target information
	challenge := "NTLM " + base64.StdEncoding.EncodeToString(message)
	var requests atomic.Int32
	l, url := asks(t, NTLMLogin("user", "password"), func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("WWW-Authenticate", challenge)
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusUnauthorized)
	})
	answer, err := l.post(context.Background(), url, make(http.Header), nil)
	if err == nil {
		_ = answer.Body.Close()
	}
	if !errors.Is(err, errSteps) {
		t.Errorf("post: %v, want that the connection changed", err)
	}
	if n := requests.Load(); n > 8 {
		t.Errorf("%d requests for one", n)
	}
}

// An authenticated connection needs no more tokens, until the server asks again;
// one that asks each time is given one each time.
func TestTokensAreSentWhereTheyAreAskedFor(t *testing.T) {
	for _, each := range []bool{false, true} {
		var with, without atomic.Int32
		known := make(map[string]bool)
		l, url := asks(t, oneToken{}, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				with.Add(1)
				known[r.RemoteAddr] = true
				return
			}
			without.Add(1)
			if each || !known[r.RemoteAddr] {
				w.Header().Set("WWW-Authenticate", "Negotiate, NTLM")
				w.WriteHeader(http.StatusUnauthorized)
			}
		})
		for range 10 {
			answer, err := l.post(context.Background(), url, make(http.Header), []byte("body"))
			if err != nil {
				t.Fatal(err)
			}
			drain(answer.Body)
			_ = answer.Body.Close()
		}
		if each && (with.Load() != 10 || without.Load() != 1) {
			t.Errorf("a server that asks each time got %d requests with a token and %d without, want 10 and the first that was tried without", with.Load(), without.Load())
		}
		if !each && (with.Load() != 1 || without.Load() != 9) {
			t.Errorf("a server that asks once got %d requests with a token and %d without, want 1 and 9", with.Load(), without.Load())
		}
	}
}

type oneToken struct{}

func (oneToken) Scheme() string                                    { return Negotiate }
func (o oneToken) Begin(context.Context, string) (Exchange, error) { return o, nil }
func (oneToken) Next(challenge []byte) ([]byte, error) {
	if challenge != nil {
		return nil, errNoMore
	}
	return []byte("token"), nil
}

func TestSchemesThatAreOffered(t *testing.T) {
	for line, want := range map[string]string{
		"Negotiate":                       "Negotiate",
		"NTLM, Negotiate":                 "NTLM Negotiate",
		`Basic realm="mail.fabrikam.com"`: "Basic",
		`Basic realm="a, b", NTLM`:        "Basic b\" NTLM",
		"ntlm":                            "NTLM",
		`Bearer client_id="x", trusted_issuers="y"`: "Bearer",
		"": "",
	} {
		offered, _ := challenges(http.Header{"Www-Authenticate": {line}}, NTLM)
		if got := strings.Join(offered, " "); got != want {
			t.Errorf("%q offers %q, want %q", line, got, want)
		}
	}
	_, challenge := challenges(http.Header{"Www-Authenticate": {"Negotiate", "NTLM dG9rZW4="}}, NTLM)
	if !slices.Equal(challenge, []byte("token")) {
		t.Errorf("the challenge is %q", challenge)
	}
}

// A server's challenge may be anything.
func FuzzNTLM(f *testing.F) {
	f.Add(append([]byte("NTLMSSP\x00\x02\x00\x00\x00"), make([]byte, 44)...))
	f.Fuzz(func(t *testing.T, challenge []byte) {
		exchange, err := NTLMLogin(`FABRIKAM\user`, "password").Begin(t.Context(), "mail")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = exchange.Next(append([]byte("NTLMSSP\x00\x02\x00\x00\x00"), challenge...)) // it must not panic
	})
}

// What a server answers may be anything.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`<s:Envelope><s:Body><m:R><m:ResponseMessages><m:M ResponseClass="Error"><m:ResponseCode>ErrorServerBusy</m:ResponseCode><m:MessageXml><t:Value Name="BackOffMilliseconds">1e300</t:Value></m:MessageXml></m:M></m:ResponseMessages></m:R></s:Body></s:Envelope>`))
	f.Add([]byte(`<Envelope><Body><Fault><faultcode>a:x</faultcode></Fault></Body></Envelope>`))
	f.Add([]byte(`<Envelope><Body><GetUserSettingsResponseMessage><Response><ErrorCode>NoError</ErrorCode><UserResponses><UserResponse/></UserResponses></Response></GetUserSettingsResponseMessage></Body></Envelope>`))
	f.Add([]byte(`<Autodiscover><Response><Account><Protocol><Type>EXPR</Type><EwsUrl>ftp://x</EwsUrl></Protocol></Account></Response></Autodiscover>`))
	f.Fuzz(func(t *testing.T, text []byte) {
		messages, err := parse(text)
		if e, ok := errors.AsType[*Error](err); ok && (e.BackOff < 0 || e.BackOff > maxBackOff) {
			t.Errorf("a back-off of %v", e.BackOff)
		}
		for _, m := range messages {
			if e := m.failure(); e != nil && (e.BackOff < 0 || e.BackOff > maxBackOff || len(e.Text) > 400) {
				t.Errorf("a back-off of %v with %d bytes of text", e.BackOff, len(e.Text))
			}
		}
		found, err := parseSettings(text, []string{"ann@fabrikam.com"})
		if err == nil && found["ann@fabrikam.com"].err == nil && CheckURL(found["ann@fabrikam.com"].place.url) != nil {
			t.Errorf("the place is %q", found["ann@fabrikam.com"].place.url)
		}
		if l, err := parsePlain(text); err == nil && l.err == nil && CheckURL(l.place.url) != nil {
			t.Errorf("the place is %q", l.place.url)
		}
	})
}
