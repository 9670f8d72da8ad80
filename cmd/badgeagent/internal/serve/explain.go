package serve

import (
	"encoding/json"
	"net/http"

	"badgerelay/relay/agent/backend"
)

// ExplainPath is where the agent tells on its socket what it knows of a mailbox, as
// daemon.MailboxReport. It is for 'badgeagent explain' and no API for programs.
const ExplainPath = "/explain"

// maxExplain bounds the questions under way: each asks the mail server. Ours.
const maxExplain = 4

func (s *Server) buildExplain() error {
	slots := make(chan struct{}, maxExplain)
	return s.local.Handle(ExplainPath, "", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
		report := s.daemon.Report(r.Context(), mailbox)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(report) // the caller has gone; there is nobody to tell
	}))
}
