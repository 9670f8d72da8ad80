package ews_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/relay/agent/ews"
	"badgerelay/relay/agent/ews/ewstest"
	"badgerelay/relay/agent/source"
)

// Four thousand mailboxes take twenty connections, and eight requests at once.
func TestFourThousandMailboxes(t *testing.T) {
	all := people(4000)
	server := ewstest.Config{Mailboxes: all, BackEnds: 2, Autodiscover: "http://127.0.0.1" + ewstest.Path}
	bubble(t, server, ews.Config{Autodiscover: "http://127.0.0.1" + ewstest.DiscoverPath}, func(r *rig) {
		for n, m := range all {
			for range n % 4 {
				r.server.Deliver(m)
			}
		}
		r.watch(all...)
		r.within(10*time.Second, "at the start", all...)
		if stats := r.server.Stats(); stats.Streams != 20 || stats.MostAtOnce > 8 {
			t.Errorf("%d streams and up to %d requests at once, want 20 and at most 8", stats.Streams, stats.MostAtOnce)
		}
		before := r.server.Stats().Requests
		for _, m := range all {
			r.server.Deliver(m)
		}
		r.within(0, "mail for everybody", all...)
		if after := r.server.Stats().Requests; fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("requests were %v and are %v: the events say all", before, after)
		}
	})
}

// Where autodiscover does not say who is on which server, trying does: and the
// connections are not many more for it.
func TestServersBehindOneURL(t *testing.T) {
	all := people(600)
	bubble(t, ewstest.Config{Mailboxes: all, BackEnds: 3}, ews.Config{}, func(r *rig) {
		r.watch(all...)
		r.within(10*time.Second, "at the start", all...)
		r.within(35*time.Minute, "streams opened anew", all...)
		if n := r.server.Stats().Streams; n > 4 {
			t.Errorf("%d streams for 200 mailboxes on each of 3 servers, want 3, or one more", n)
		}
	})
}

// A stream that is silent for 90 seconds is dead, and not before.
func TestSilentStream(t *testing.T) {
	ann := people(1)[0]
	bubble(t, ewstest.Config{Mailboxes: people(1)}, ews.Config{}, func(r *rig) {
		r.watch(ann)
		r.within(10*time.Minute, "nothing happens for ten minutes", ann)
		if n := r.server.Stats().Requests["GetStreamingEvents"]; n != 1 {
			t.Errorf("%d streams were opened in ten quiet minutes, want 1", n)
		}
		r.server.StallStreams()
		r.server.Deliver(ann)
		time.Sleep(44 * time.Second) // the last word was not more than 45 seconds ago
		if n := r.server.Stats().Requests["GetStreamingEvents"]; n != 1 {
			t.Error("a stream was given up within 45 seconds")
		}
		r.within(47*time.Second, "mail that a dead stream did not tell of", ann)
		if n := r.server.Stats().Requests["GetStreamingEvents"]; n != 2 {
			t.Errorf("%d streams were opened, want a second one", n)
		}
	})
}

// Where something holds streams back, mailboxes are counted now and then, and it
// is told.
func TestStreamsThatAreHeldBack(t *testing.T) {
	all := people(30)
	bubble(t, ewstest.Config{Mailboxes: all}, ews.Config{MailboxesPerStream: 10}, func(r *rig) {
		r.server.Misbehave(ewstest.Faults{Mute: true})
		r.watch(all...)
		r.within(time.Second, "at the start", all...)
		for range 5 {
			r.server.Deliver(all[3])
			r.within(125*time.Second, "counted now and then", all...)
		}
		if notes := r.source.Status().Notes; len(notes) != 1 || notes[0] != "mailboxes without a stream now, counted every 1m0s: 30" {
			t.Errorf("notes are %q", notes)
		}
		if n := r.server.Stats().Requests["GetStreamingEvents"]; n > 30 {
			t.Errorf("%d streams were opened in ten minutes, where none says anything", n)
		}
		r.server.Misbehave(ewstest.Faults{})
		time.Sleep(125 * time.Second)
		r.server.Deliver(all[4])
		r.within(time.Second, "when they are not any more", all...)
	})
}

// What ends a stream costs nobody two seconds.
func TestStreamEnds(t *testing.T) {
	all := people(90)
	ann, bob := all[0], all[89]
	for name, fault := range map[string]func(*ewstest.Server){
		"closed in order":          func(s *ewstest.Server) { s.CloseStreams(true) },
		"cut":                      func(s *ewstest.Server) { s.CloseStreams(false) },
		"one subscription is lost": func(s *ewstest.Server) { s.LoseSubscription(ann) },
		"a mailbox moves":          func(s *ewstest.Server) { s.MoveMailbox(ann) },
		"many mailboxes move": func(s *ewstest.Server) {
			for _, m := range all[:30] {
				s.MoveMailbox(m)
			}
		},
		"affinity is lost":   func(s *ewstest.Server) { s.Misbehave(ewstest.Faults{LoseAffinity: 3}); s.CloseStreams(true) },
		"a page comes":       func(s *ewstest.Server) { s.PageInStreams() },
		"pieces":             func(s *ewstest.Server) { s.Misbehave(ewstest.Faults{Cut: 1, Declare: true}) },
		"no count in events": func(s *ewstest.Server) { s.Misbehave(ewstest.Faults{OmitUnreadCount: true}) },
	} {
		for _, discover := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/autodiscover %v", name, discover), func(t *testing.T) {
				server, config := ewstest.Config{Mailboxes: all, BackEnds: 3}, ews.Config{MailboxesPerStream: 20}
				if discover {
					server.Autodiscover, config.Autodiscover = "http://127.0.0.1"+ewstest.Path, "http://127.0.0.1"+ewstest.DiscoverPath
				}
				bubble(t, server, config, func(r *rig) {
					r.watch(all...)
					r.within(10*time.Second, "at the start", all...)
					first := r.server.Deliver(bob)
					for range 3 {
						fault(r.server)
						r.server.Deliver(ann)
						r.server.MarkRead(bob, true, first)
						r.within(2*time.Second, "two seconds later", all...)
						r.server.Deliver(bob)
						first = r.server.Deliver(ann)
						r.within(2*time.Second, "and the next news", all...)
						r.server.MarkRead(bob, false, first)
						r.server.ReadAll(ann)
						r.within(10*time.Second, "and the one after", all...)
					}
				})
			})
		}
	}
}

// A server that asks to be left alone is left alone as long as it says; the
// simulator holds it against the source otherwise.
func TestBusyServer(t *testing.T) {
	all := people(20)
	for _, access := range []string{ews.Impersonation, ews.Delegate} {
		for _, status := range []int{http.StatusOK, http.StatusInternalServerError, http.StatusServiceUnavailable} {
			t.Run(fmt.Sprintf("%s/%d", access, status), func(t *testing.T) {
				bubble(t, ewstest.Config{Mailboxes: all}, ews.Config{Access: access, MaxRequests: 1}, func(r *rig) {
					r.watch(all...)
					r.within(5*time.Second, "at the start", all...)
					r.server.Misbehave(ewstest.Faults{OmitUnreadCount: true, Busy: []ewstest.Busy{{BackOff: time.Minute, Status: status}}})
					r.server.Deliver(all[3])
					synctest.Wait()
					r.server.Deliver(all[4])
					if access == ews.Delegate {
						time.Sleep(59 * time.Second)
						if got := r.sink.all()[all[4]]; got != 0 {
							t.Errorf("%s was counted while the server was to be left alone", all[4])
						}
					}
					r.within(2*time.Minute, "when it may be asked again", all...)
				})
			})
		}
	}
}

// One mailbox that is charged does not hold up the others.
func TestBusyMailbox(t *testing.T) {
	all := people(20)
	bubble(t, ewstest.Config{Mailboxes: all}, ews.Config{}, func(r *rig) {
		r.watch(all...)
		r.within(5*time.Second, "at the start", all...)
		r.server.Misbehave(ewstest.Faults{OmitUnreadCount: true, Busy: []ewstest.Busy{{BackOff: 5 * time.Minute, Mailbox: all[3]}}})
		r.server.Deliver(all[3])
		r.server.Deliver(all[4])
		r.within(time.Second, "others", all[4])
		r.within(6*time.Minute, "when it may be asked again", all...)
	})
}

// A server that allows few connections gets few, and the other mailboxes are
// counted now and then.
func TestConnectionLimit(t *testing.T) {
	all := people(50)
	bubble(t, ewstest.Config{Mailboxes: all, Streams: 3}, ews.Config{Access: ews.Delegate, MailboxesPerStream: 10}, func(r *rig) {
		r.watch(all...)
		r.within(5*time.Second, "at the start", all...)
		for _, m := range all {
			r.server.Deliver(m)
		}
		r.within(61*time.Second, "within the interval", all...)
		if stats := r.server.Stats(); stats.Streams != 3 {
			t.Errorf("%d streams, want the 3 that are allowed", stats.Streams)
		}
		if n := r.server.Stats().Requests["GetStreamingEvents"]; n > 10 {
			t.Errorf("%d streams were asked for in a minute, where 3 are allowed", n)
		}
		if status := r.source.Status(); len(status.Notes) != 1 || status.Notes[0] != "streaming connections that Exchange allows: 3; mailboxes streamed: 30, counted every 1m0s: 20" {
			t.Errorf("status is %q", status)
		}
	})
}

// With impersonation the anchor is charged: another one is taken.
func TestAnchorOfManyConnections(t *testing.T) {
	all := people(30)
	bubble(t, ewstest.Config{Mailboxes: all, Streams: 1}, ews.Config{MailboxesPerStream: 10}, func(r *rig) {
		r.watch(all...)
		r.within(5*time.Second, "at the start", all...)
		for range 5 {
			r.server.CloseStreams(false)
			r.server.Deliver(all[7])
			r.within(2*time.Second, "streams opened anew", all...)
		}
		if stats := r.server.Stats(); stats.Streams != 3 {
			t.Errorf("%d streams, want 3", stats.Streams)
		}
	})
}

// A mailbox that may have no subscription more is counted now and then.
func TestSubscriptionLimit(t *testing.T) {
	all := people(5)
	bubble(t, ewstest.Config{Mailboxes: all, Subscriptions: 1}, ews.Config{}, func(r *rig) {
		r.watch(all...)
		r.within(5*time.Second, "at the start", all...)
		r.stop() // and its subscriptions stay for a while
		r.restart()
		r.within(2*time.Second, "subscriptions stay", all...)
		r.server.Deliver(all[1])
		r.within(62*time.Second, "counted now and then", all...)
	})
}

// Mailboxes that can't be counted delay nobody, however they fail.
func TestFailingMailboxes(t *testing.T) {
	all := people(200)
	good, bad := all[100:], all[:100]
	for name, fault := range map[string]func(*ewstest.Server, string){
		"refused": func(s *ewstest.Server, m string) { s.Refuse(m, true) },
		"hanging": func(s *ewstest.Server, m string) { s.Hang(m, true) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, ewstest.Config{Mailboxes: all}, ews.Config{}, func(r *rig) {
				r.watch(good...)
				r.within(5*time.Second, "at the start", good...)
				few := bad
				if name == "hanging" {
					few = bad[:6]
				}
				for _, m := range few {
					fault(r.server, m)
				}
				r.watch(few...)
				r.watch("nobody@fabrikam.com")
				for range 40 {
					r.server.Deliver(good[5])
					r.within(2*time.Second, "beside those that fail", good...)
				}
				if n := r.server.Stats().Requests["Subscribe"]; n > len(good)+len(few)*8+20 {
					t.Errorf("%d subscriptions were asked for", n)
				}
				for _, m := range few {
					r.server.Refuse(m, false)
					r.server.Hang(m, false)
				}
				r.within(31*time.Minute, "when they can be counted again", few...)
			})
		})
	}
}

// Mailboxes that hang from the start hold up the others for two seconds.
func TestMailboxesThatHangAtTheStart(t *testing.T) {
	all := people(400)
	bad, good := all[:8], all[8:]
	bubble(t, ewstest.Config{Mailboxes: all}, ews.Config{}, func(r *rig) {
		for _, m := range bad {
			r.server.Hang(m, true)
		}
		r.watch(all...)
		for range 5 {
			r.server.Deliver(good[0])
			r.within(5*time.Second, "beside those that hang", good...)
		}
		if n := r.server.Stats().MostAtOnce; n > 16 {
			t.Errorf("%d requests at once, want 8, and 8 that take long", n)
		}
		for _, m := range bad {
			r.server.Hang(m, false)
		}
	})
}

// A server that goes away for a while is found again, and so is one that changes
// its password.
func TestServerGoesAway(t *testing.T) {
	all := people(300)
	synctest.Test(t, func(t *testing.T) {
		server, err := ewstest.New(ewstest.Config{Mailboxes: all, User: account, Password: password})
		if err != nil {
			t.Fatal(err)
		}
		n := new(network)
		n.listen(server)
		source, err := ews.New(ews.Config{URL: "http://127.0.0.1" + ewstest.Path, Dial: n.dial, Credentials: ews.BasicLogin(account, password)})
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{t: t, server: server, source: source, sink: &sink{counts: make(map[string]uint32)}}
		r.run()
		r.watch(all...)
		r.within(5*time.Second, "at the start", all...)
		server.Stop()
		for _, m := range all {
			server.Deliver(m)
		}
		time.Sleep(300 * time.Millisecond)
		n.listen(server)
		r.within(2*time.Second, "restarted", all...)
		server.Deliver(all[5])
		r.within(2*time.Second, "after the restart", all...)

		server.SetPassword("another")
		server.CloseStreams(false)
		server.Deliver(all[6])
		time.Sleep(time.Hour)
		if !strings.Contains(r.source.Status().Trouble, "lets nobody in") {
			t.Errorf("status is %q", r.source.Status())
		}
		if n := server.Stats().Logins; n > 30 {
			t.Errorf("%d logins with a wrong password in an hour: accounts are locked for less", n)
		}
		r.source.SetCredentials(ews.BasicLogin(account, "another"))
		r.within(2*time.Second, "with the new password", all...)
		if status := r.source.Status(); status.Trouble != "" || status.Notes != nil {
			t.Errorf("status is %q", status)
		}
		r.stop()
		server.Stop()
	})
}

// Who asks for a count waits neither for a mailbox that is left alone nor for a
// server in trouble: others may be waiting behind.
func TestCountDoesNotWait(t *testing.T) {
	all := people(4)
	bubble(t, ewstest.Config{Mailboxes: all}, ews.Config{}, func(r *rig) {
		ask := func(mailbox string, want error, why string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
			defer cancel()
			count, err := r.source.Count(ctx, mailbox)
			if !errors.Is(err, want) || want == nil && (err != nil || count.Unread != r.server.Unread(mailbox)) {
				t.Errorf("%s: %+v, %v; want %v", why, count, err, want)
			}
		}
		r.server.Deliver(all[0])
		ask(all[0], nil, "one that nobody watches")
		ask("nobody@fabrikam.com", source.ErrElsewhere, "one that is not there")
		ask("nobody", source.ErrElsewhere, "no address")
		r.server.Refuse(all[1], true)
		r.watch(all[0], all[1], "nobody@fabrikam.com")
		time.Sleep(10 * time.Minute)
		for range 10 {
			ask(all[0], nil, "one that is watched")
			ask(all[1], source.ErrMailbox, "one that is refused")
			ask("nobody@fabrikam.com", source.ErrElsewhere, "one that is watched and not there")
			time.Sleep(time.Minute)
		}
		r.server.SetPassword("another")
		r.server.CloseStreams(false)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		if _, err := r.source.Count(ctx, all[0]); err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, source.ErrMailbox) {
			t.Errorf("a server that lets nobody in: %v", err)
		}
	})
}

// Mailboxes come and go.
func TestWatchAndUnwatch(t *testing.T) {
	all := people(450)
	bubble(t, ewstest.Config{Mailboxes: all}, ews.Config{}, func(r *rig) {
		for _, m := range all {
			r.watch(m)
			time.Sleep(10 * time.Millisecond)
		}
		r.within(2*time.Second, "they have come", all...)
		for _, m := range all[:300] { // anchors among them
			r.source.Unwatch(m)
		}
		for range 3 {
			for _, m := range all {
				r.server.Deliver(m)
			}
			r.server.CloseStreams(false)
			r.within(2*time.Second, "those that stayed", all[300:]...)
			if n := r.server.Stats().Subscriptions; n != 150 {
				t.Errorf("%d subscriptions for the 150 mailboxes that stayed", n)
			}
			if got := r.sink.all()[all[7]]; got != 0 {
				t.Errorf("a mailbox that is not watched any more has %d", got)
			}
		}
		r.watch(all[:100]...)
		r.within(2*time.Second, "those that came back", all[:100]...)
		for _, m := range all {
			r.source.Unwatch(m)
		}
		time.Sleep(3 * time.Second)
		if stats := r.server.Stats(); stats.Streams != 0 || stats.Subscriptions != 0 {
			t.Errorf("%d streams and %d subscriptions for nobody", stats.Streams, stats.Subscriptions)
		}
	})
}

// A delegate's requests are all charged to one account: they are bounded like
// those of who impersonates, also while mailboxes hang.
func TestDelegatesRequestsAreBounded(t *testing.T) {
	all := people(600)
	bubble(t, ewstest.Config{Mailboxes: all, NoImpersonation: true}, ews.Config{Access: ews.Delegate, MaxRequests: 5}, func(r *rig) {
		for _, m := range all[:20] {
			r.server.Hang(m, true)
		}
		r.watch(all...)
		for _, m := range all {
			r.server.Deliver(m)
		}
		r.within(time.Minute, "those that answer", all[20:]...)
		if most := r.server.Stats().MostAtOnce; most > 10 {
			t.Errorf("%d requests at once, want 5 that are quick and 5 that are slow at most", most)
		}
		for _, m := range all[:20] {
			r.server.Hang(m, false)
		}
	})
}

// A source that ends leaves no subscription behind, and waits for no server.
func TestNoSubscriptionIsLeft(t *testing.T) {
	all := people(300)
	bubble(t, ewstest.Config{Mailboxes: all}, ews.Config{}, func(r *rig) {
		r.watch(all...)
		r.within(3*time.Second, "at the start", all...)
		r.stop()
		if n := r.server.Stats().Subscriptions; n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
		r.restart()
		r.watch(all...)
		r.within(3*time.Second, "again", all...)
		for _, m := range all {
			r.server.Hang(m, true)
		}
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("the end took %v while the server hangs", took)
		}
		for _, m := range all {
			r.server.Hang(m, false)
		}
	})
}

// Folders beside the inbox are added up; one that is not there is told.
func TestFolders(t *testing.T) {
	ann, bob := people(2)[0], people(2)[1]
	for _, access := range []string{ews.Impersonation, ews.Delegate} {
		t.Run(access, func(t *testing.T) {
			bubble(t, ewstest.Config{Mailboxes: people(2)}, ews.Config{Access: access, Folders: []string{"Inbox", "inbox/Orders & Co"}}, func(r *rig) {
				r.server.AddFolder(ann, "Orders & Co")
				r.watch(ann, bob)
				time.Sleep(time.Second)
				r.server.Deliver(ann)
				r.server.DeliverTo(ann, "Orders & Co")
				r.server.DeliverTo(ann, "Orders & Co")
				r.server.DeliverTo(ann, "drafts")
				time.Sleep(time.Second)
				if got := r.sink.all()[ann]; got != 3 {
					t.Errorf("%d unread in two folders, want 3", got)
				}
				if _, known := r.sink.all()[bob]; known || !strings.Contains(r.log.String(), `it has no folder \"inbox/Orders & Co\"`) {
					t.Errorf("a mailbox without the folder has a count (%v), and the log does not name the folder", known)
				}
			})
		})
	}
}

// Whatever happens, in the end every count is right. EWS_TEST_SEEDS=200 tries more
// of what may happen.
func TestUnrest(t *testing.T) {
	all := people(60)
	seeds := uint64(2)
	if more, err := strconv.ParseUint(os.Getenv("EWS_TEST_SEEDS"), 10, 16); err == nil {
		seeds = more
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, ewstest.Config{Mailboxes: all, BackEnds: 3}, ews.Config{MailboxesPerStream: 15}, func(r *rig) {
				r.watch(all...)
				ctx, cancel := context.WithCancel(r.t.Context())
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					r.server.Unrest(ctx, seed, time.Second, 10*time.Second)
				}()
				random := rand.New(rand.NewPCG(seed, 1))
				var mails []string
				for range 2000 {
					m := all[random.IntN(len(all))]
					switch random.IntN(4) {
					case 0, 1:
						mails = append(mails, r.server.Deliver(m))
					case 2:
						if len(mails) > 0 {
							r.server.MarkRead(m, random.IntN(3) > 0, mails[random.IntN(len(mails))])
						}
					case 3:
						r.server.ReadAll(m)
					}
					time.Sleep(time.Duration(random.Int64N(int64(300 * time.Millisecond))))
				}
				cancel()
				<-ended
				r.server.Misbehave(ewstest.Faults{})
				r.within(92*time.Second, "in the end", all...)
			})
		})
	}
}
