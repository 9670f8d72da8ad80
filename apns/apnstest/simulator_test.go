package apnstest

import (
	"testing"
	"testing/synctest"
)

// TestPush shows how the harness is used: a push is accepted, changes the
// badge, and leaves a record.
func TestPush(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, nil)
		defer s.Close()
		c := trusted(t, s)
		defer c.close()
		if got := c.push(`{"aps":{"badge":7}}`); got != "200" {
			t.Errorf("push: got %s, want 200", got)
		}
		if d, _ := s.Device(phone(1)); d.Badge != 7 || d.Accepted != 2 {
			t.Errorf("device: got badge %d after %d pushes, want 7 after 2", d.Badge, d.Accepted)
		}
		if a := c.wait(3); a.fields["apns-id"] != pushID || a.body != "" {
			t.Errorf("answer: got id %q and body %q, want the id sent and no body", a.fields["apns-id"], a.body)
		}
		if got := c.push(`{"aps":{"badge":0}}`); got != "200" {
			t.Errorf("push: got %s, want 200", got)
		}
		if d, _ := s.Device(phone(1)); d.Badge != 0 {
			t.Errorf("badge: got %d, want none", d.Badge)
		}
		if h := s.History(); len(h) != 3 || h[1].Badge != 7 || h[1].Status != 200 || h[1].KeyID != keyID {
			t.Errorf("history: got %+v", h)
		}
		if got := clientFaultsOf(s); got != "" {
			t.Errorf("client faults: got %s, want none", got)
		}
	})
}
