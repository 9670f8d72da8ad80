package console

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

// maxTokens bounds the devices of a benchmark, which no page shows; ours.
const maxTokens = 20_000_000

// registerTokens registers nameless devices of one topic by their tokens: many
// more, and much faster, than register. It takes all of a request or none.
func (c *console) registerTokens(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	_, env, err := registration{Topic: query.Get("topic"), Environment: query.Get("environment")}.check()
	if err != nil {
		refuseErr(w, err)
		return
	}
	tokens, err := readTokens(w, r)
	if err == nil && c.sim.DeviceCount()+len(tokens) > maxTokens {
		err = problem{"", "max_devices", fmt.Sprintf("at most %d devices in all", maxTokens)}
	}
	if err != nil {
		refuseErr(w, err)
		return
	}
	for _, token := range tokens {
		c.sim.RegisterDevice(token, query.Get("topic"), env, apnstest.Meta{})
	}
	answer(w, http.StatusCreated, map[string]int{"registered": len(tokens)})
}

// badges answers what the devices show, as text: a number a line.
func (c *console) badges(w http.ResponseWriter, r *http.Request) {
	tokens, err := readTokens(w, r)
	if err != nil {
		refuseErr(w, err)
		return
	}
	shown := make([]byte, 0, 4*len(tokens)) // counts of one to three digits, mostly
	for i, token := range tokens {
		d, ok := c.sim.Device(token)
		if !ok {
			refuseErr(w, problem{"line " + strconv.Itoa(i+1), "known", "there is no such device"})
			return
		}
		shown = append(strconv.AppendUint(shown, uint64(d.Badge), 10), '\n')
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(shown) // the client is gone; nobody is left to tell
}

// readTokens reads a list of tokens, one a line.
func readTokens(w http.ResponseWriter, r *http.Request) ([]apns.DeviceToken, error) {
	body, err := readKind(w, r, "text/plain")
	if err != nil {
		return nil, err
	}
	var tokens []apns.DeviceToken
	for line := range strings.Lines(string(body)) {
		token, err := knownToken(strings.TrimSpace(line))
		if err != nil {
			return nil, problem{"line " + strconv.Itoa(len(tokens)+1), "device_token", err.Error()}
		}
		tokens = append(tokens, token)
	}
	return tokens, nil
}
