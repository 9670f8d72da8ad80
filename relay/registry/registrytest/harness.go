package registrytest

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"badgerelay/apns"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// Run tests the registries that open makes. Each must be empty, have
// subscriptions that live for ever, and be closed by open's t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) registry.Registry) {
	for _, c := range []struct {
		name string
		test func(h *harness)
	}{
		{"how the harness is used", testHarness},
		{"organization names", testOrganizationNames},
		{"organization life", testOrganizationLife},
		{"organization pages", testOrganizationPages},
		{"credential life", testCredentialLife},
		{"credential rules", testCredentialRules},
		{"one key, one organization", testCredentialOwner},
		{"credential use", testCredentialUse},
		{"credential published again", testCredentialPublishedAgain},
		{"subscribe and renew", testSubscribe},
		{"device moves", testDeviceMoves},
		{"device on several mailboxes", testSeveralMailboxes},
		{"device with its whole list", testSetDevice},
		{"limits of a device", testDeviceLimits},
		{"device of two organizations", testTwoOrganizations},
		{"shared ones end", testSharedEnd},
		{"import of several mailboxes", testImportSeveral},
		{"restore of several mailboxes", testRestoreSeveral},
		{"organizations are apart", testApart},
		{"limits", testLimits},
		{"registration rules", testRegistrationRules},
		{"odd mailboxes", testOddMailboxes},
		{"import", testImport},
		{"import within limits", testImportLimits},
		{"dry run of an import in parts", testDryImport},
		{"large import", testLargeImport},
		{"subscription pages", testSubscriptionPages},
		{"mailboxes", testMailboxes},
		{"lookup", testLookup},
		{"remove", testRemove},
		{"removed ones", testRemovedList},
		{"restore", testRestore},
		{"restore what is asked for", testRestoreFilter},
		{"restore takes no device away", testRestoreSuperseded},
		{"restore within limits", testRestoreLimits},
		{"restore many", testRestoreMany},
		{"refuse", testRefuse},
		{"removal budget", testRemovalBudget},
		{"note accepted", testNoteAccepted},
		{"shared devices", testShared},
		{"shared by registration", testSharedByRegistration},
		{"shared by one organization", testSharedOfOneOrganization},
		{"counts of shared devices", testSharedCounts},
		{"a count that waits for another mailbox", testSharedWaits},
		{"two updates of a device in one exchange", testSharedTwice},
		{"who pushes to shared devices", testSharedPusher},
		{"sums change", testSumsChange},
		{"due sums", testDueSums},
		{"shared devices of a mailbox", testSharedDevicesOf},
		{"exchanges at once", testExchangesAtOnce},
		{"the clock of exchanges at once", testExchangesClock},
		{"a push of the process before", testStray},
		{"exchanges that were lost", testSharedLost},
		{"scan", testScan},
		{"organization removed", testOrganizationRemoved},
		{"organization restored", testOrganizationRestored},
		{"feed", testFeed},
		{"feed order", testFeedOrder},
		{"concurrent changes", testConcurrent},
		{"ended context", testEndedContext},
		{"closed", testClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &harness{T: t, Registry: open(t)}
			h.OnChange(func(changes []registry.Change) {
				h.mu.Lock()
				defer h.mu.Unlock()
				h.changes = append(h.changes, changes...)
			})
			c.test(h)
		})
	}
}

// harness makes tests scripts: do, want, do, want. A step that fails
// unexpectedly ends the test.
type harness struct {
	*testing.T
	registry.Registry

	mu      sync.Mutex
	changes []registry.Change // told since told was last called
}

// testHarness shows how the harness is used.
func testHarness(h *harness) {
	org := h.org("fabrikam.com")
	h.subscribe(org, reg("anna", 1)) // a step
	h.told("subscribed anna live")   // what listeners were told of it
	h.check(1, 1)                    // the counts, and all invariants
}

func (h *harness) ok(err error) {
	h.Helper()
	if err != nil {
		h.Fatalf("unexpected error: %v", err)
	}
}

// want checks that err is the sentinel.
func (h *harness) want(err, sentinel error) {
	h.Helper()
	if !errors.Is(err, sentinel) {
		h.Fatalf("got error %v, want %v", err, sentinel)
	}
}

// invalid checks that err blames the field.
func (h *harness) invalid(err error, field string) {
	h.Helper()
	e, ok := errors.AsType[*registry.InvalidError](err)
	if !ok || e.Field != field {
		h.Errorf("got error %v, want an InvalidError of %s", err, field)
	}
}

// limit checks that err names the limit.
func (h *harness) limit(err error, limit string, most uint64) {
	h.Helper()
	e, ok := errors.AsType[*registry.LimitError](err)
	if !ok || e.Limit != limit || e.Max != most {
		h.Errorf("got error %v, want a LimitError of %s %d", err, limit, most)
	}
}

// org enrols an organization and forgets what was told of it.
func (h *harness) org(name string, limits ...registry.Limits) relay.OrganizationID {
	h.Helper()
	n := registry.NewOrganization{Name: name}
	if len(limits) > 0 {
		n.Limits = limits[0]
	}
	o, err := h.AddOrganization(h.Context(), n)
	h.ok(err)
	h.forget()
	return o.ID
}

func (h *harness) subscribe(org relay.OrganizationID, r registry.Registration) registry.SubscribeResult {
	h.Helper()
	result, err := h.Subscribe(h.Context(), org, r)
	h.ok(err)
	return result
}

func (h *harness) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes = nil
}

// told checks what listeners were told since the last call.
func (h *harness) told(want ...string) {
	h.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	var got []string
	for _, c := range h.changes {
		got = append(got, describe(c))
	}
	h.changes = nil
	shared := func(s string) int { return len(s) - len(strings.TrimPrefix(s, registry.ChangeDeviceShared.String())) }
	slices.SortStableFunc(got, func(a, b string) int { return shared(a) - shared(b) }) // of no organization, and so in no order with others
	if !slices.Equal(got, want) {
		h.Errorf("listeners were told %q, want %q", got, want)
	}
}

// toldAnyOrder is told for changes of a call that orders them as it likes.
func (h *harness) toldAnyOrder(want ...string) {
	h.Helper()
	h.mu.Lock()
	slices.SortFunc(h.changes, func(a, b registry.Change) int { return cmp.Compare(describe(a), describe(b)) })
	h.mu.Unlock()
	slices.Sort(want)
	h.told(want...)
}

func describe(c registry.Change) string {
	switch c.Kind {
	case registry.ChangeSubscribed, registry.ChangeUnsubscribed:
		s := c.Kind.String() + " " + c.Mailbox
		if c.Live {
			s += " live"
		}
		return s
	case registry.ChangeOrganizationChanged:
		return fmt.Sprintf("%v %s %t", c.Kind, c.OrganizationName, c.OrganizationEnabled)
	}
	return c.Kind.String() + " " + c.OrganizationName
}

// check verifies the counts of live mailboxes and subscriptions, and what holds
// at all times: every count says what is there, each knows the others of its
// device, and Scan goes in order.
func (h *harness) check(mailboxes, subscriptions uint64) {
	h.Helper()
	type counts struct{ mailboxes, subscriptions uint64 }
	type place struct {
		app    string
		device apns.DeviceToken
	}
	per := make(map[relay.OrganizationID]counts)
	places := make(map[place][]registry.Entry)
	var last relay.MailboxKey
	h.ok(h.Scan(h.Context(), func(batch []registry.Entry) error {
		for _, e := range batch {
			c := per[e.Key.Organization]
			c.subscriptions++
			if e.Key != last {
				c.mailboxes++
				if e.Key.Organization < last.Organization || e.Key.Organization == last.Organization && e.Key.Mailbox < last.Mailbox {
					h.Errorf("scan goes back from %v to %v", last, e.Key)
				}
			}
			last, per[e.Key.Organization] = e.Key, c
			p := place{e.Subscription.App, e.Subscription.Device}
			places[p] = append(places[p], e)
		}
		return nil
	}))
	listed := make(map[relay.Subscriber]registry.Subscription)
	for org, got := range per {
		h.listed(org, listed)
		o, err := h.OrganizationByID(h.Context(), org)
		h.ok(err)
		if want := (counts{o.Mailboxes, o.Subscriptions}); got != want {
			h.Errorf("organization %s has %+v, says %+v", o.Name, got, want)
		}
	}
	scanned := uint64(0)
	for _, on := range places {
		scanned += uint64(len(on))
		h.checkOthers(on, listed)
	}
	got, err := h.Counts(h.Context())
	h.ok(err)
	if got.Mailboxes != mailboxes || got.Subscriptions != subscriptions || scanned != subscriptions {
		h.Errorf("got %d mailboxes, %d subscriptions, %d of them scanned; want %d and %d",
			got.Mailboxes, got.Subscriptions, scanned, mailboxes, subscriptions)
	}
}

// checkOthers checks, of all subscriptions of a device, that each organization is
// shown its own others alone.
func (h *harness) checkOthers(on []registry.Entry, listed map[relay.Subscriber]registry.Subscription) {
	h.Helper()
	for _, e := range on {
		var others []string
		for _, other := range on {
			if other.Key.Organization == e.Key.Organization && other.Key.Mailbox != e.Key.Mailbox {
				others = append(others, other.Key.Mailbox)
			}
		}
		slices.Sort(others)
		if got, ok := listed[subscriber(e)]; !ok || !slices.Equal(got.OtherMailboxes, others) {
			h.Errorf("%v is listed %t with the other mailboxes %q, want %q", e.Key, ok, got.OtherMailboxes, others)
		}
	}
}

func subscriber(e registry.Entry) relay.Subscriber {
	return relay.Subscriber{Key: e.Key, App: e.Subscription.App, Device: e.Subscription.Device}
}

// listed returns all live subscriptions of an organization, as they are listed.
func (h *harness) listed(org relay.OrganizationID, into map[relay.Subscriber]registry.Subscription) {
	h.Helper()
	for page := (registry.Page{Size: registry.MaxPageSize}); ; {
		subs, next, err := h.ListSubscriptions(h.Context(), registry.SubscriptionFilter{Organization: org}, page)
		h.ok(err)
		for _, s := range subs {
			into[relay.Subscriber{Key: key(org, s.Mailbox), App: s.App, Device: s.Device}] = s
		}
		if page.Token = next; next == "" {
			return
		}
	}
}

const testApp = "com.example.mail"

// reg is the registration of a device by number.
func reg(mailbox string, n int) registry.Registration {
	return registry.Registration{Mailbox: mailbox, App: testApp, Device: token(n)}
}

// token is the nth device token.
func token(n int) apns.DeviceToken {
	sum := sha256.Sum256(fmt.Append(nil, n))
	t, err := apns.DeviceTokenFromBytes(sum[:])
	if err != nil {
		panic(err) // a hash is 32 bytes
	}
	return t
}

func key(org relay.OrganizationID, mailbox string) relay.MailboxKey {
	return relay.MailboxKey{Organization: org, Mailbox: mailbox}
}
