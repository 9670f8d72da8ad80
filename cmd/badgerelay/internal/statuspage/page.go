package statuspage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"
)

//go:embed page.html page.css
var files embed.FS

// Page serves the page and its JSON. All fields are required.
type Page struct {
	// Collect returns the relay's status, and why it takes no work; empty: it does.
	// Details are asked for only where they will be shown, and notReady may hold
	// the words of an error only with them: it is shown as it is.
	Collect func(ctx context.Context, details bool) (s *Status, notReady string)
	Keys    *Keys
}

// cookie holds the key, so that it is in no address and no log.
const cookie = "badgerelay_status"

// Register adds /status and /status/json.
func (p *Page) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /status", p.page)
	mux.HandleFunc("GET /status/json", p.json)
}

// page shows HTML. With a key in its address it puts that into a cookie first.
func (p *Page) page(w http.ResponseWriter, r *http.Request) {
	if secret := r.URL.Query().Get("key"); secret != "" {
		if !p.Keys.opens(secret) {
			http.Error(w, "this key has ended; badgerelay status --page makes a new one", http.StatusForbidden)
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
	s := p.status(r)
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, s); err != nil {
		http.Error(w, "the page can't be rendered: "+err.Error(), http.StatusInternalServerError)
		return
	}
	secure(w, "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // the reader is gone; nobody is left to tell
}

func (p *Page) json(w http.ResponseWriter, r *http.Request) {
	s := p.status(r)
	secure(w, "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(s) // the reader is gone; nobody is left to tell
}

// status collects what this reader may see.
func (p *Page) status(r *http.Request) *Status {
	details := p.admitted(r)
	s, notReady := p.Collect(r.Context(), details)
	s.At = time.Now().UTC().Truncate(time.Second)
	if !details {
		s.Details = nil
		for i := range s.Apps {
			s.Apps[i].Topic, s.Apps[i].Environment, s.Apps[i].LastError = "", "", ""
		}
	}
	s.judge(notReady)
	return s
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
	style = func() template.CSS {
		css, err := files.ReadFile("page.css")
		if err != nil {
			panic(err) // it is part of the program
		}
		return template.CSS(css)
	}()
	// policy lets the page load nothing and run nothing; only its own style.
	policy = func() string {
		sum := sha256.Sum256([]byte(style))
		return fmt.Sprintf("default-src 'none'; img-src data:; style-src 'sha256-%s'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
			base64.StdEncoding.EncodeToString(sum[:]))
	}()
	pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
		"style": func() template.CSS { return style },
		"span":  func(s Seconds) string { return span(time.Duration(float64(s) * float64(time.Second))) },
		"until": func(now, end time.Time) string { return span(end.Sub(now)) },
		"since": func(now, then time.Time) string { return span(now.Sub(then).Truncate(time.Second)) },
		"day":   func(t time.Time) string { return t.UTC().Format("2 Jan 2006") },
		"near":  func(now, end time.Time) bool { return end.Sub(now) <= soon },
		"group": group,
	}).ParseFS(files, "page.html"))
)

func secure(w http.ResponseWriter, kind string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
}
