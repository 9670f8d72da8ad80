package diagnosis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"badgerelay/relay/agent/backend"
	"badgerelay/relay/agent/daemon"
)

// Path is where an agent tells on its socket what it knows of a mailbox, as
// daemon.MailboxReport. It is for Ask and no API for programs.
const Path = "/explain"

const (
	maxQuestions = 4                // under way: each asks the mail server. Ours
	maxReport    = 1 << 20          // more than a report has
	agentTime    = 10 * time.Second // for the agent's answer, which waits for the mail server's. Ours
)

// Handler answers Ask with what report returns.
func Handler(report func(ctx context.Context, mailbox string) daemon.MailboxReport) http.Handler {
	slots := make(chan struct{}, maxQuestions)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mailbox := r.URL.Query().Get("mailbox")
		if mailbox == "" {
			backend.Refuse(w, http.StatusBadRequest, backend.CodeField, "mailbox is missing")
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			backend.Refuse(w, http.StatusServiceUnavailable, backend.CodeBusy, "too many requests at once")
			return
		}
		defer func() { <-slots }()
		told := report(r.Context(), mailbox)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(told) // the caller has gone; there is nobody to tell
	})
}

// Ask asks the agent that listens on a socket what it knows of a mailbox. Its errors
// are for people.
func Ask(ctx context.Context, socket, mailbox string) (*daemon.MailboxReport, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, agentTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+Path+"?mailbox="+url.QueryEscape(mailbox), nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("it does not run: nothing listens on %s", socket)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("you may not open %s; run this as root or as the agent's user", socket)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("it does not answer on %s in time", socket)
	case err != nil:
		return nil, err
	}
	defer answer.Body.Close() // it has been read
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s on %s", answer.Status, socket)
	}
	report := new(daemon.MailboxReport)
	if err := json.NewDecoder(http.MaxBytesReader(nil, answer.Body, maxReport)).Decode(report); err != nil {
		return nil, fmt.Errorf("read the agent's answer: %w", err)
	}
	return report, nil
}
