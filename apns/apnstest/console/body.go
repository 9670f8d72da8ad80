package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

// maxBody is room for 5,000 devices of some 400 bytes each, or for 30,000 tokens
// of 32 bytes; nothing else that is sent here comes near it.
const maxBody = 2 << 20

// problem says what is wrong with a request. It is the JSON of a refusal.
type problem struct {
	Field   string `json:"field,omitempty"`
	Rule    string `json:"rule"`
	Message string `json:"message"`
}

func (p problem) Error() string {
	if p.Field == "" {
		return p.Message
	}
	return p.Field + ": " + p.Message
}

func refuse(w http.ResponseWriter, status int, p problem) {
	answer(w, status, map[string]problem{"error": p})
}

// refuseErr refuses with what err says, 400 unless it says otherwise.
func refuseErr(w http.ResponseWriter, err error) {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		refuse(w, http.StatusRequestEntityTooLarge, problem{"", "max_bytes", fmt.Sprintf("the body is larger than %d bytes", large.Limit)})
		return
	}
	p, ok := errors.AsType[problem](err)
	if !ok {
		p = problem{"", "invalid", err.Error()}
	}
	status := http.StatusBadRequest
	switch p.Rule {
	case "content_type":
		status = http.StatusUnsupportedMediaType
	case "known":
		status = http.StatusNotFound
	}
	refuse(w, status, p)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone; nobody is left to tell
}

// readBody returns the body of r, JSON of at most maxBody bytes.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return readKind(w, r, "application/json")
}

func readKind(w http.ResponseWriter, r *http.Request, want string) ([]byte, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != want {
		return nil, problem{"Content-Type", "content_type", "has to be " + want}
	}
	return io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
}

// decode reads exactly one JSON value into v, and refuses unknown fields.
func decode(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return jsonProblem(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return problem{"", "one_value", "the body has to be one JSON value"}
	}
	return nil
}

func jsonProblem(err error) problem {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return problem{e.Field, "type", fmt.Sprintf("has to be %s, not a JSON %s", jsonName(e.Type.Kind().String()), e.Value)}
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return problem{strings.Trim(name, `"`), "unknown_field", "there is no such field"}
	}
	if errors.Is(err, io.EOF) {
		return problem{"", "json", "the body is empty"}
	}
	return problem{"", "json", "the body is not JSON: " + strings.TrimPrefix(err.Error(), "json: ")}
}

// jsonName turns the kind of a Go value into what a writer of JSON calls it.
func jsonName(kind string) string {
	switch {
	case strings.Contains(kind, "int"):
		return "a whole number"
	case strings.HasPrefix(kind, "float"):
		return "a number"
	case kind == "bool":
		return "true or false"
	case kind == "slice":
		return "an array"
	case kind == "struct", kind == "map":
		return "an object"
	}
	return "a " + kind
}

// at says which element of an array the problem is in.
func at(err error, array string, i int) error {
	if p, ok := errors.AsType[problem](err); ok {
		p.Field = fmt.Sprintf("%s[%d].%s", array, i, p.Field)
		return p
	}
	return err
}
