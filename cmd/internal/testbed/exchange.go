package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"badgerelay/relay/agent/ews/ewstest"
)

// startExchange runs a simulated Exchange in this process, and writes the agent's
// configuration for it.
func (w *Testbed) startExchange() (err error) {
	c := *w.Exchange
	for _, user := range w.Users {
		c.Mailboxes = append(c.Mailboxes, Mailbox(user))
	}
	if w.EWS, err = ewstest.New(c); err == nil {
		err = w.EWS.Start()
	}
	if err != nil {
		return err
	}
	access := "impersonation"
	if c.NoImpersonation {
		access = "delegate"
	}
	return errors.Join(os.WriteFile(w.path("exchange-ca.pem"), w.EWS.CA(), 0o600), w.SetPasswordFile(c.Password),
		w.writeAgent(fmt.Sprintf("ews: {url: %q, ca_file: %q, user: %q, password_file: %q, authentication: %s, access: %s, mailboxes_per_stream: 3}",
			w.EWS.URL(), w.path("exchange-ca.pem"), c.User, w.path("exchange-password"), strings.ToLower(c.Schemes[0]), access), ""))
}

// SetPasswordFile writes the service account's password where the agent reads it.
func (w *Testbed) SetPasswordFile(password string) error {
	return os.WriteFile(w.path("exchange-password"), []byte(password+"\n"), 0o600)
}
