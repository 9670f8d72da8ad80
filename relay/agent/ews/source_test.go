package ews_test

import (
	"testing"
	"time"

	"badgerelay/relay/agent/ews"
	"badgerelay/relay/agent/ews/ewstest"
)

// What changes in a mailbox is told within two seconds, in both kinds of access.
func TestFollowsAMailbox(t *testing.T) {
	for _, access := range []string{ews.Impersonation, ews.Delegate} {
		t.Run(access, func(t *testing.T) {
			ann := people(1)[0]
			bubble(t, ewstest.Config{Mailboxes: people(1), NoImpersonation: access == ews.Delegate, NoDelegation: access == ews.Impersonation},
				ews.Config{Access: access}, func(r *rig) {
					first := r.server.Deliver(ann)
					r.watch(ann)
					r.within(time.Second, "at the start", ann)
					second := r.server.Deliver(ann)
					r.within(0, "new mail", ann)
					r.server.MarkRead(ann, true, first)
					r.within(0, "read elsewhere", ann)
					r.server.MarkRead(ann, false, first)
					r.within(0, "unread again", ann)
					r.server.Move(ann, first, "junkemail")
					r.within(0, "moved out", ann)
					r.server.Move(ann, first, "inbox")
					r.within(0, "moved back", ann)
					r.server.Delete(ann, second)
					r.within(0, "deleted", ann)
					for range 120 {
						r.server.Deliver(ann)
					}
					r.within(0, "120 mails", ann)
					r.server.ReadAll(ann)
					r.within(0, "all read", ann)
				})
		})
	}
}
