package dovecot

import (
	"encoding/json"
	"errors"
	"net/http"
)

// refusal is why a request was not taken.
type refusal struct {
	status  int
	result  result // its String is the code
	message string
}

var (
	errStarting = &refusal{http.StatusServiceUnavailable, starting, "the agent is starting"}
	errMethod   = &refusal{http.StatusMethodNotAllowed, wrongMethod, "this path does not take the method"}
	errTooLarge = &refusal{http.StatusRequestEntityTooLarge, tooLarge, "it is larger than a notification can be"}
	errBody     = &refusal{http.StatusBadRequest, malformed, "the notification has to be in the query, and there is a body"}
	errBroken   = &refusal{http.StatusBadRequest, malformed, "the body did not arrive whole"}
)

// unread judges why a body could not be read.
func unread(err error) *refusal {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return errTooLarge
	}
	return errBroken
}

func (e *refusal) answer(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // the caller is gone; nobody is left to tell
		"error": map[string]string{"code": e.result.String(), "message": e.message},
	})
}
