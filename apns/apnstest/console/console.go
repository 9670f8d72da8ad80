package console

import (
	"embed"
	"html/template"
	"net/http"
	"sync/atomic"

	"badgerelay/apns/apnstest"
)

// console answers for one simulator. Everything it shows is the simulator's.
type console struct {
	sim     *apnstest.Simulator
	streams atomic.Int32 // pages that follow events now
}

// Handler returns the management interface and the page of sim. status returns the
// address of the status page of the relay that pushes here, for the page to link
// to; nil, or empty: there is none.
//
// It is safe for concurrent use and starts nothing. A page that is open holds
// a request for as long as it lives: cancel the server's base context before
// http.Server.Shutdown, which would wait for it.
func Handler(sim *apnstest.Simulator, status func() string) http.Handler {
	c := &console{sim: sim}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", index(status))
	mux.HandleFunc("GET /page.css", file("page.css", "text/css; charset=utf-8"))
	mux.HandleFunc("GET /page.js", file("page.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("GET /mail.svg", file("mail.svg", "image/svg+xml"))
	mux.HandleFunc("GET /app.svg", file("app.svg", "image/svg+xml"))

	mux.HandleFunc("GET /api/devices", c.list)
	mux.HandleFunc("POST /api/devices", c.register)
	mux.HandleFunc("DELETE /api/devices/{token}", c.unregister)
	mux.HandleFunc("POST /api/tokens", c.registerTokens)
	mux.HandleFunc("POST /api/badges", c.badges)
	mux.HandleFunc("GET /api/events", c.events)
	mux.HandleFunc("POST /api/script", c.script)
	mux.HandleFunc("DELETE /api/script", c.clearScript)
	mux.HandleFunc("POST /api/strike", c.strike)
	mux.HandleFunc("GET /api/history", c.history)
	mux.HandleFunc("DELETE /api/history", c.clearHistory)
	mux.HandleFunc("GET /api/stats", c.getStats)
	mux.HandleFunc("GET /api/faults", c.faults)
	mux.HandleFunc("PUT /api/faults", c.setFaults)
	mux.HandleFunc("GET /api/trust", c.trust)
	mux.HandleFunc("/api/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, problem{"", "path", "there is no such path, or it does not take this method"})
	})
	return guard(mux)
}

//go:embed page
var page embed.FS

// index serves the page, with its link to the relay's status page where there is
// one.
func index(status func() string) http.HandlerFunc {
	t := template.Must(template.New("index.html").Parse(string(content("index.html"))))
	return func(w http.ResponseWriter, _ *http.Request) {
		address := ""
		if status != nil {
			address = status()
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		_ = t.Execute(w, struct{ Status string }{address}) // the client is gone; nobody is left to tell
	}
}

func content(name string) []byte {
	body, err := page.ReadFile("page/" + name)
	if err != nil {
		panic(err) // a file that is not embedded: the build is broken
	}
	return body
}

func file(name, kind string) http.HandlerFunc {
	body := content(name)
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(body) // the client is gone; nobody is left to tell
	}
}
