package process

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"

	"badgerelay/cmd/internal/configfile"
)

// NewLogger returns the process's logger. Device tokens redact themselves;
// attributes that carry tokens or mailbox names are taken care of here. A failure
// that repeats is counted, and so are lines that an Output has dropped.
func NewLogger(w io.Writer, level *slog.LevelVar, c configfile.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: redact(c.Mailboxes == "clear")}
	handler := func(w io.Writer) slog.Handler {
		if c.Format == "text" {
			return slog.NewTextHandler(w, options)
		}
		return slog.NewJSONHandler(w, options)
	}
	if o, ok := w.(*Output); ok {
		tell := func(dropped int) []byte {
			var line bytes.Buffer
			slog.New(handler(&line)).Error("lines of the log are missing here: its reader did not keep up, or they could not be written", "lines", dropped)
			return line.Bytes()
		}
		o.tell.Store(&tell)
	}
	return slog.New(newRepeats(handler(w)))
}

// redact hides bearer tokens for good and, unless clear, mailbox names behind
// a hash whose key is new at each start: equal names can be matched in
// one process's log, and not looked up.
func redact(clear bool) func([]string, slog.Attr) slog.Attr {
	key := []byte(rand.Text())
	return func(_ []string, a slog.Attr) slog.Attr {
		switch a.Key {
		case "token", "authorization", "bearer":
			if a.Value.Kind() == slog.KindString {
				return slog.String(a.Key, "redacted")
			}
		case "mailbox", "left_mailbox":
			if !clear {
				mac := hmac.New(sha256.New, key)
				_, _ = io.WriteString(mac, a.Value.String()) // a hash takes everything
				return slog.String(a.Key, "mailbox:"+hex.EncodeToString(mac.Sum(nil)[:6]))
			}
		}
		if a.Value.Kind() == slog.KindDuration {
			return slog.String(a.Key, a.Value.Duration().String())
		}
		return a
	}
}
