package apple

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Console is the address of a simulator's page and management interface, such as
// http://127.0.0.1:2198/.
type Console string

// Ask sends a question as JSON to a path of the interface, and reads the answer. Nil:
// there is none.
func (c Console) Ask(ctx context.Context, method, path string, question, answer any) error {
	var body []byte
	if question != nil {
		var err error
		if body, err = json.Marshal(question); err != nil {
			return fmt.Errorf("ask apnssim for %s: %w", path, err)
		}
	}
	said, err := c.call(ctx, method, path, "application/json", body)
	if err != nil || answer == nil {
		return err
	}
	if err := json.Unmarshal(said, answer); err != nil {
		return fmt.Errorf("ask apnssim for %s: %w", path, err)
	}
	return nil
}

func (c Console) call(ctx context.Context, method, path, kind string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, string(c)+"api/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask apnssim for %s: %w", path, err)
	}
	r.Header.Set("Content-Type", kind)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask apnssim for %s: %w", path, err)
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("ask apnssim for %s: %w", path, err)
	}
	if answer.StatusCode >= http.StatusBadRequest {
		return nil, fmt.Errorf("ask apnssim for %s: %s: %s", path, answer.Status, bytes.TrimSpace(said))
	}
	return said, nil
}
