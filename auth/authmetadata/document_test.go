package authmetadata_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/authmetadata"
	"badgerelay/auth/authtest"
	"badgerelay/auth/certs"
)

const realm = "fabrikam.com"

func document(keys ...authmetadata.Key) authmetadata.Document {
	return authmetadata.Document{Version: "1.0", Name: "Exchange", Realm: "*", ServiceName: auth.PrincipalExchange,
		Issuer: auth.PrincipalExchange + "@*", AllowedAudiences: []string{auth.PrincipalExchange + "@*"}, Keys: keys}
}

func TestMetadataRoundTrip(t *testing.T) {
	key := authtest.NewKey(realm, time.Now())
	want := document(authmetadata.SigningKey(key.Certificate))
	data, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := authmetadata.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(*got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", *got, want)
	}
	certs := got.SigningCertificates()
	if len(certs) != 1 || !certs[0].Equal(key.Certificate) {
		t.Errorf("got certificates %v, want the published one", certs)
	}
}

func TestSigningCertificates(t *testing.T) {
	key, other := authtest.NewKey(realm, time.Now()), authtest.NewKey("other.example", time.Now())
	for name, test := range map[string]struct {
		change func(*authmetadata.Key)
		want   int
	}{
		"good":              {func(*authmetadata.Key) {}, 2},
		"x5t padded":        {func(k *authmetadata.Key) { k.KeyInfo.X5T += "=" }, 2},
		"x5t absent":        {func(k *authmetadata.Key) { k.KeyInfo.X5T = "" }, 2},
		"x5t of another":    {func(k *authmetadata.Key) { k.KeyInfo.X5T = certs.FormatX5T(certs.X5T(other.Certificate)) }, 1},
		"usage":             {func(k *authmetadata.Key) { k.Usage = "encryption" }, 1},
		"type":              {func(k *authmetadata.Key) { k.KeyValue.Type = "rsa" }, 1},
		"not base64":        {func(k *authmetadata.Key) { k.KeyValue.Value = "%" }, 1},
		"not a certificate": {func(k *authmetadata.Key) { k.KeyValue.Value = "AAAA" }, 1},
	} {
		published := authmetadata.SigningKey(key.Certificate)
		test.change(&published)
		m := document(published, authmetadata.SigningKey(other.Certificate))
		if got := len(m.SigningCertificates()); got != test.want {
			t.Errorf("%s: got %d certificates, want %d", name, got, test.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "array": "[]", "duplicate": `{"keys":[],"keys":[]}`, "trailing": `{}{}`,
		"keys an object": `{"keys":{}}`, "key a string": `{"keys":["x"]}`, "realm a number": `{"realm":1}`,
		"keyinfo a string": `{"keys":[{"keyinfo":"x"}]}`, "deep": `{"x":[[[[1]]]]}`,
		"many keys": `{"keys":[` + strings.Repeat("{},", 64) + `{}]}`,
		"large":     `{"x":"` + strings.Repeat("x", authmetadata.MaxSize) + `"}`,
	} {
		if got, err := authmetadata.Parse([]byte(text)); !errors.Is(err, authmetadata.ErrDocument) {
			t.Errorf("%s: got %v and %v, want %v", name, got, err, authmetadata.ErrDocument)
		}
	}
}

func TestHandler(t *testing.T) {
	handler, err := authmetadata.NewHandler(authmetadata.HandlerConfig{
		Principal: authtest.Principal, Authorities: []string{authtest.Authority, "relay.example.com:443"},
		Location: "https://relay.example.com/metadata/json/1", Relay: "https://" + authtest.Authority,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(handler)
	defer server.Close()
	for _, path := range []string{"/metadata/json/1", "/metadata/json/1/"} {
		m, err := authmetadata.Fetch(t.Context(), server.Client(), server.URL+path+"?realm="+realm)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		want := []string{authtest.Principal + "/" + authtest.Authority + "@" + realm, authtest.Principal + "/relay.example.com@" + realm}
		if !slices.Equal(m.AllowedAudiences, want) || m.Realm != realm || m.Issuer != authtest.Principal+"@"+realm || len(m.Endpoints) != 2 {
			t.Errorf("%s: got %+v, want audiences %v", path, m, want)
		}
	}
	for _, test := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/metadata/json/1", 200}, {"HEAD", "/metadata/json/1/", 200}, {"POST", "/metadata/json/1", 405},
		{"GET", "/metadata/json/1/x", 404}, {"GET", "/metadata/json/1?realm=a@b", 400},
		{"GET", "/metadata/json/1?realm=" + strings.Repeat("x", 256), 400},
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
		if w.Code != test.want {
			t.Errorf("%s %s: got %d, want %d", test.method, test.path, w.Code, test.want)
		}
	}
}

func TestFetchRefuses(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	mux := http.NewServeMux()
	mux.Handle("/away", http.RedirectHandler(plain.URL, http.StatusFound))
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(append([]byte(`{"name":"`), append(bytes.Repeat([]byte("x"), authmetadata.MaxSize), `"}`...)...))
	})
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	for _, url := range []string{plain.URL, "", "file:///etc/passwd", server.URL + "/away", server.URL + "/loop", server.URL + "/large", server.URL + "/gone"} {
		if _, err := authmetadata.Fetch(t.Context(), server.Client(), url); !errors.Is(err, authmetadata.ErrDocument) {
			t.Errorf("%q: got %v, want %v", url, err, authmetadata.ErrDocument)
		}
	}
	if _, err := authmetadata.Fetch(t.Context(), &http.Client{}, server.URL); err == nil {
		t.Error("got no error for a server that nobody vouches for")
	}
}

// roundTrip is a server in memory: sockets don't let a bubble's time advance.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(w func(http.ResponseWriter)) *http.Response {
	recorder := httptest.NewRecorder()
	w(recorder)
	return recorder.Result()
}

func sourcesOf(sources ...authmetadata.Source) func(context.Context) ([]authmetadata.Source, error) {
	return func(context.Context) ([]authmetadata.Source, error) { return sources, nil }
}
