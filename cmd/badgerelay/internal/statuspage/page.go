// Package statuspage is the page that shows what badgerelay.v1.AdminService says of
// a relay, and the same as JSON; the judgement is added here. It needs nothing from
// outside, no script either.
//
// Everybody who reaches the ops listener sees health: what the metrics beside
// it tell anyway. Who holds a key, which the admin listener gives out, sees
// organizations and the words of errors too.
//
// It shows what is now, and counts since the start. What was before, how long
// counts took, and what APNs answered how often is for Prometheus to keep.
package statuspage

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "badgerelay/proto/badgerelay/v1"
)

//go:embed page.html
var page string

//go:embed page.css
var style string

// Page serves the page and its JSON. All fields are required.
type Page struct {
	// Admin returns the operators' service, which says everything that is shown.
	// While the relay starts, its status has no ledger, and nothing else is asked.
	Admin func() pb.AdminServiceServer
	Keys  *Keys
}

// cookie holds the key, so that it is in no address and no log.
const cookie = "badgerelay_status"

const keyEnded = "this key has ended; badgerelay status --page makes a new one"

// Handlers returns what serves the page and its JSON, by their paths.
func (p *Page) Handlers() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{"/status": p.page, "/status/json": p.json}
}

// page shows HTML. With a key in its address it puts that into a cookie first.
func (p *Page) page(w http.ResponseWriter, r *http.Request) {
	if secret := r.URL.Query().Get("key"); secret != "" {
		if !p.Keys.opens(secret) {
			http.Error(w, keyEnded, http.StatusForbidden)
			return
		}
		http.SetCookie(w, &http.Cookie{
			Name: cookie, Value: secret, Path: "/status", MaxAge: int(keyLifetime / time.Second),
			HttpOnly: true, SameSite: http.SameSiteStrictMode,
		})
		w.Header().Set("Referrer-Policy", "no-referrer")
		http.Redirect(w, r, "/status", http.StatusSeeOther)
		return
	}
	if p.refused(w, r) {
		return
	}
	admin := p.Admin()
	v, err := p.view(r, admin)
	if err != nil {
		fail(w, v, err)
		return
	}
	if v.Details && v.Status.GetLedger() != nil && v.Status.GetRegistryError() == "" {
		v.list(r.Context(), admin)
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, v); err != nil {
		http.Error(w, "the page can't be rendered: "+err.Error(), http.StatusInternalServerError)
		return
	}
	secure(w, "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // the reader is gone; nobody is left to tell
}

// json answers with the judgement, and with the status as badgerelay status prints it.
func (p *Page) json(w http.ResponseWriter, r *http.Request) {
	if p.refused(w, r) {
		return
	}
	if r.URL.Query().Has("key") {
		http.Error(w, "a script gives its key in a header: Authorization: Bearer KEY", http.StatusBadRequest)
		return
	}
	v, err := p.view(r, p.Admin())
	if err != nil {
		fail(w, v, err)
		return
	}
	status, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(v.Status)
	if err != nil {
		fail(w, v, err)
		return
	}
	secure(w, "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(struct { // the reader is gone; nobody is left to tell
		State    State           `json:"state"`
		Troubles []string        `json:"troubles"`
		Status   json.RawMessage `json:"status"`
	}{v.State, v.Troubles, status})
}

// view is the status as this reader may see it. With an error it is not known.
func (p *Page) view(r *http.Request, admin pb.AdminServiceServer) (*view, error) {
	v := &view{At: time.Now().UTC().Truncate(time.Second), Details: p.admitted(r)}
	var err error
	if v.Status, err = admin.GetStatus(r.Context(), &pb.GetStatusRequest{}); err != nil {
		return v, err
	}
	if !v.Details {
		redact(v.Status)
	}
	v.judge()
	return v, nil
}

// fail answers with an error, whose words are for who holds a key.
func fail(w http.ResponseWriter, v *view, err error) {
	text := "the relay can't say how it is"
	if v.Details {
		text += ": " + err.Error()
	}
	http.Error(w, text, http.StatusInternalServerError)
}

// refused answers a script whose key opens nothing: less than it asks for, without a
// word, would go unnoticed.
func (p *Page) refused(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Authorization") == "" || p.admitted(r) {
		return false
	}
	http.Error(w, keyEnded, http.StatusForbidden)
	return true
}

// admitted reports whether the request carries a key, as a browser does or as
// a script does.
func (p *Page) admitted(r *http.Request) bool {
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return p.Keys.opens(bearer)
	}
	c, err := r.Cookie(cookie)
	return err == nil && p.Keys.opens(c.Value)
}

var (
	// policy lets the page load nothing and run nothing; only its own style.
	policy = func() string {
		sum := sha256.Sum256([]byte(style))
		return fmt.Sprintf("default-src 'none'; img-src data:; style-src 'sha256-%s'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
			base64.StdEncoding.EncodeToString(sum[:]))
	}()
	pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
		"style": func() template.CSS { return template.CSS(style) },
		"span":  func(d *durationpb.Duration) string { return span(d.AsDuration()) },
		"until": func(now time.Time, end *timestamppb.Timestamp) string { return span(end.AsTime().Sub(now)) },
		"since": func(now time.Time, then *timestamppb.Timestamp) string {
			return span(now.Sub(then.AsTime()).Truncate(time.Second))
		},
		"day":   func(t *timestamppb.Timestamp) string { return t.AsTime().Format("2 Jan 2006") },
		"near":  func(now time.Time, end *timestamppb.Timestamp) bool { return end.AsTime().Sub(now) <= soon },
		"group": group,
		"word":  word,
	}).Parse(page))
)

func secure(w http.ResponseWriter, kind string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
}

// A key is for looking at one incident; a working day's worth of forgotten tabs
// is not. Ours.
const (
	keyLifetime = time.Hour
	mostKeys    = 16 // at once; the oldest goes
)

// Keys are the keys that open the details. The zero value has none. It is safe
// for concurrent use.
type Keys struct {
	mu   sync.Mutex // guards live
	live []key      // oldest first
}

// key is remembered by its hash, so that comparing it tells nothing of it.
type key struct {
	hash [sha256.Size]byte
	end  time.Time
}

// Create makes a key.
func (k *Keys) Create() (secret string, end time.Time) {
	secret, end = rand.Text(), time.Now().Add(keyLifetime)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.live = append(k.live, key{sha256.Sum256([]byte(secret)), end})
	k.live = k.live[max(0, len(k.live)-mostKeys):]
	return secret, end
}

// opens reports whether the secret is a live key.
func (k *Keys) opens(secret string) bool {
	hash, now := sha256.Sum256([]byte(secret)), time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.live, func(l key) bool { return l.hash == hash && now.Before(l.end) })
}
