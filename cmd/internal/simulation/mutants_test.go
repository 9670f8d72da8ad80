package simulation

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// mutant is a fault that is planted in the product, alone, to see that the
// simulation finds it: in a file, one text is replaced by another. The text is
// short, so that it lives long, and has to be there once. Rows of one name that
// follow each other are one fault.
type mutant struct {
	name     string
	file     string
	old, new string
}

// mutants are the faults. A text that is not there any more fails the run: find
// where its rule lives now.
var mutants = []mutant{
	// Order: what keeps an older count from following a newer one.
	{"an older version is taken from another agent", "relay/order.go",
		"return e.version < o.version", "return false"},
	{"two pushes in flight to one device", "relay/device.go",
		"	case stageIdle:\n		d.enqueue(false)\n		return countQueued, preempted\n", "	case stageIdle, stageInFlight:\n		d.enqueue(false)\n		return countQueued, preempted\n"},
	{"a retry carries the old count", "relay/answer.go",
		"		front = true\n", "		front = true\n		d.want = d.sent\n"},
	{"what was pending on a stream that closed stays claimed", "relay/mailbox.go",
		"	if outcome == OutcomeAbandoned {\n		m.cancel()", "	if false {\n		m.cancel()"},
	{"among several relays what APNs accepted once is always shown", "relay/device.go",
		"if r.maxInFlight > 0 && (m.stream == nil", "if false && (m.stream == nil"},
	{"the resend after a half-open move is left out", "relay/agent/uncertain.go",
		"		if e.uncertainUntil.Before(until) {", "		if false {"},
	{"a newer count does not wait for the older one on a relay that leaves", "relay/agent/unsettled.go",
		"if e.sentOn != nil && e.sentOn != f {", "if false {"},
	{"a newer count is not sent while an older one is in flight", "relay/agent/unsettled.go",
		"	case placeUncertain, placeFlight:\n		u.enqueue(e)", "	case placeUncertain:\n		u.enqueue(e)"},

	{"a count for a device that came is not sent once more", "relay/agent/uncertain.go",
		"	u.arrivals.recent[mailbox] = u", "	_ = u"},
	{"among several relays a young registration is trusted", "relay/device.go",
		"max(m.stream.activeAt.Load(), r.at(t.registeredAt))", "max(m.stream.activeAt.Load(), 0*r.at(t.registeredAt))"},
	{"versions order the counts of one agent", "relay/order.go",
		"o.remembersVersion(e.now) && o.versionAgent != e.agent", "o.remembersVersion(e.now)"},

	// Settlement: what is settled has been shown, and all is settled.
	{"an event settles before APNs' answer", "relay/fanout.go",
		"t.setOutstanding(result == countGoing || result == countQueued)", "t.setOutstanding(false)"},
	{"a settlement reaches one event too far", "relay/stream.go",
		"settlement.Through = s.batches[0].first - 1", "settlement.Through = s.batches[0].first"},
	{"the settlement of an older count settles the newer one", "relay/agent/in_flight.go",
		"if e.sentOn != f || e.sequence != sequence {\n			continue // a newer", "if false {\n			continue // a newer"},
	{"counts that have not settled are dropped with their stream", "relay/agent/in_flight.go",
		"		if e.place != placeReady {\n			u.enqueue(e)\n		}\n	}\n	f.bySequence = nil", "		_ = e.place\n	}\n	f.bySequence = nil"},
	{"a refused push settles as shown", "relay/mailbox.go",
		"	case m.refused != nil:\n		r.settleAs(m, OutcomeUndeliverable, acts)", "	case m.refused != nil:\n		r.settleAs(m, OutcomeDelivered, acts)"},
	{"an abandoned event stays in the ledger", "relay/mailbox.go",
		"	m.pending, m.held = false, false\n	sh.record(outcome)", "	m.pending, m.held = false, false\n	if outcome != OutcomeAbandoned {\n		sh.record(outcome)\n	}"},

	{"a count that was replaced stays in an agent's ledger", "relay/agent/unsettled.go",
		"		u.ledger.Replaced++\n", ""},
	{"what a call has not settled it calls delivered", "relay/stream.go",
		"Outcome: OutcomePending}", "Outcome: OutcomeDelivered}"},

	// Time: what waits goes on.
	{"a coalescing window never ends", "relay/fanout.go",
		"	m.windowOpen = false\n	if m.held", "	if m.held"},
	{"a device that waits is not woken", "relay/answer.go",
		"	d.goOn(false, now, r, acts)", ""},
	{"a breaker that opened lets no probe through", "relay/dispatch/breaker.go",
		"b.allowance = max(b.allowance, 1)", "b.allowance = max(b.allowance, 0)"},
	{"a count comes again at once after a 5xx", "relay/answer.go",
		"Block(d.sent, res.Err.Reason, now, r.serverErrorWait(res.Err)", "Block(d.sent, res.Err.Reason, now, 0*r.serverErrorWait(res.Err)"},
	{"a push that is never answered is waited for all day", "apns/native_watch.go",
		"w.giveUpOverdue(now, 3*timeout)", "w.giveUpOverdue(now, 3000*timeout)"},
	{"pushes of a connection that broke are not returned", "apns/native.go",
		"c.failStreams(0, ReasonConnectionLost, err)", "c.failStreams(1<<31, ReasonConnectionLost, err)"},
	{"a connection that is silent is never given up", "apns/native_watch.go",
		"		if left <= 0 {\n			return 0, errPingTimeout", "		if left <= 0 {\n			left = timeout\n		}\n		if false {\n			return 0, errPingTimeout"},
	{"what waits for a sign of life asks again at once", "apns/native_watch.go",
		"		if left <= 0 {\n			return 0, errPingTimeout", "		if false {\n			return 0, errPingTimeout"},

	// Subscriptions: who is told what.
	{"a subscription that changes while it is read is not read again", "relay/lookup/state.go",
		"	case Loading:\n		*s = Changed", "	case Loading:"},
	{"subscriptions that changed are not read again", "relay/lookup/state.go",
		"		*s = Unknown\n		return needed && s.BeginLoad()", "		return false"},
	{"a device that registers anew is taken to show what it did", "relay/device.go",
		"	if before(d.shownAt) {", "	if false {"},
	{"a 410 is believed whatever its timestamp", "relay/quarantine.go",
		"return f.GoneSince.After(q.Registered) ||", "return true ||"},
	{"a watch is not told of devices that come", "relay/ingest/watch.go",
		"	case c.Kind == registry.ChangeSubscribed && c.Live:\n", "	case c.Kind == registry.ChangeSubscribed && c.Live:\n		return\n"},
	{"a registry that fails means no subscriptions", "relay/subscriptions.go",
		"	if err != nil {\n		return err\n	}\n	r.lookedUp", "	if err != nil {\n		found = make([][]Subscription, len(keys))\n	}\n	r.lookedUp"},
	{"a change feed skips what commits late", "relay/registry/position.go",
		"	p.seen = read.seen", "	p.seen = Snapshot{Next: 1 << 62}"},
	{"a change feed skips what commits late above its snapshot", "relay/registry/position.go",
		"return xid < s.Next && !slices.Contains(s.Running, xid)", "return !slices.Contains(s.Running, xid)"},
	{"keep_others is lost", "relay/internal/service/subscriptions.go",
		"	r.KeepOthers = m.GetKeepOthers()", "	r.KeepOthers = false"},
	{"a change feed is read only when notified", "relay/registry/memory/handle.go",
		"		case <-poll.C:\n", "		case <-make(chan time.Time):\n"},

	// Sums of shared devices.
	{"a sum is of what has changed alone", "relay/shared_device.go",
		"p.hasCount() && !p.Disabled {", "p.hasCount() && !p.Disabled && p.Sequence > d.Accepted {"},
	{"what a relay remembers of a mailbox does not come into the sum", "relay/shared_result.go",
		"		if c, ok := r.rememberedCount(p.Key); ok && (", "		if c, ok := r.rememberedCount(p.Key); ok && false && ("},
	{"every relay pushes to a shared device", "relay/shared_device.go",
		"	if d.Pusher == \"\" || t.Lifetime == 0 || t.PusherFree {", "	if true {"},
	{"a late count of an older relay comes into the sum", "relay/shared_device.go",
		"p.State != PartUnreported && c.ReceivedAt.Before(p.ReceivedAt) &&", "p.State != PartUnreported && false &&"},
	{"an event never hears that another relay pushed its sum", "relay/shared_exchange.go",
		"				touchAll(e.elsewhere)\n", ""},
	{"nobody takes over from a relay that pushed sums and is gone", "relay/registry/memory/shared.go",
		"PusherFree: !pushes || result.Now.Sub(seen) >= x.Lifetime,", "PusherFree: !pushes,"},

	{"a stranger holds a sum back", "relay/shared_wait.go",
		"return p.Key.Organization == org && p.Awaited(now)", "return p.Awaited(now)"},
	{"a sum is pushed that lacks what its organization has not reported", "relay/shared_device.go",
		"return p.waits() && !p.Disabled && !d.incomplete(p.Key.Organization, now)", "return p.waits() && !p.Disabled"},
	{"a count waits for a mailbox that is never reported", "relay/shared_wait.go",
		"	partTimeout = time.Minute\n", "	partTimeout = 1000 * time.Minute\n"},
	{"a disabled organization's counts stay in the sum", "relay/shared_device.go",
		"p.hasCount() && !p.Disabled {", "p.hasCount() {"},
	{"sums are asked for only when there is a hint", "relay/shared_exchange.go",
		"		ask = true\n		touchAll(e.pending)", "		touchAll(e.pending)"},
	{"a relay does not store what it remembers of a compact mailbox", "relay/shared_changes.go",
		"			r.devices.withShared(deviceKey{app, key.Device}, func(d *device) { d.touchFor(nil) })\n		}\n	}\n}\n\n// SumsChanged", "		}\n	}\n}\n\n// SumsChanged"},
	{"a relay pushes sums however long nobody has heard of it", "relay/shared_exchange.go",
		"	if l == nil || l.number != number || l.until.Passed() {", "	if l == nil {"},
	{"a sum that waited while its relay was silent is pushed", "relay/shared_exchange.go",
		"l == nil || l.number != number ||", "l == nil ||"},
	{"a sum is not pushed once more after its device became shared", "relay/shared_again.go",
		"	case was.first && t.Lifetime > 0:", "	case false:"},
	{"a count that its window held is not exchanged again", "relay/shared_update.go",
		" || c.open && !had.open) {", ") {"},
	{"a sum is not pushed anew to a device that registered since", "relay/shared_device.go",
		"	return registered || t.Now", "	return registered && false || t.Now"},
	{"an event of a shared device settles when its count is stored", "relay/shared_push.go",
		"if c.open && d.shared.hasAccepted(c) {", "if c.open {"},
	{"an older answer ends that a device is shared", "relay/devices.go",
		"if d.shared.exchanging = false; d.shared.dirty {", "if d.shared.exchanging = false; false {"},
	{"counts are dated before the shared clock is known", "relay/shared_exchange.go",
		"	if !e.clock.known(r.now()) {", "	if false {"},
	{"a device shows counts of two organizations where it may not", "relay/shared_device.go",
		"	if u.OneOrganization {", "	if false && u.OneOrganization {"},
	{"a device is the organization's that registered it last", "relay/shared_one_organization.go",
		"first.CreatedAt.Compare(l.CreatedAt), cmp.Compare(owner, org))", "l.CreatedAt.Compare(first.CreatedAt), cmp.Compare(owner, org))"},
	{"a device goes to another organization when its own moves it", "relay/shared_one_organization.go",
		"compareBool(had[org], had[owner])", "compareBool(false, false)"},
	{"a relay whose pushes reach nobody keeps shared devices", "relay/shared_update.go",
		"st.stalled && !st.isProbe(", "false && !st.isProbe("},
	{"a sum stays when one of its mailboxes is left", "relay/shared_reconcile.go",
		"		d.Sequence++ // the sum is another\n", ""},
	{"a sum stays when one of its mailboxes is left", "relay/registry/memory/shared.go",
		"		d.Sequence++\n		t.shared[key] = d\n", "		t.shared[key] = d\n"},
	{"of a device's list its first mailbox alone is taken", "relay/internal/service/subscriptions.go",
		"Mailboxes: m.GetMailboxes()})", "Mailboxes: m.GetMailboxes()[:min(1, len(m.GetMailboxes()))]})"},

	// Isolation.
	{"a compact mailbox is found by its name alone", "relay/relay.go",
		"	hash := maphash.String(r.seed, name) ^ uint64(org)*odd\n", "	hash := maphash.String(r.seed, name)\n"},
	{"a compact mailbox is found by its name alone", "relay/compact.go",
		"	if own != key {", "	if own.Mailbox != key.Mailbox {"},
	{"look-ups of one batch are mixed up", "relay/subscriptions.go",
		"		r.applySubscriptions(m, found[i], now, &acts)", "		r.applySubscriptions(m, found[len(found)-1-i], now, &acts)"},
}

// mutantSeeds is within how many seeds each is found.
const mutantSeeds = 2000

// TestMutants is `make simulate-mutants`.
func TestMutants(t *testing.T) {
	wanted, ok := os.LookupEnv("SIMULATE_MUTANTS")
	if !ok {
		t.Skip("make simulate-mutants starts it")
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	only, err := regexp.Compile(wanted)
	if err != nil {
		t.Fatalf("ONLY: %v", err)
	}
	seeds := mutantSeeds
	if text := os.Getenv("SIMULATE_WITHIN"); text != "" {
		if seeds, err = strconv.Atoi(text); err != nil {
			t.Fatalf("WITHIN %q is not a number", text)
		}
	}
	var hunts []*hunt
	for _, fault := range faults() {
		if only.MatchString(fault[0].name) {
			hunts = append(hunts, &hunt{root: root, dir: t.TempDir(), fault: fault, seeds: seeds})
		}
	}
	began := time.Now()
	runAll(t.Context(), hunts)
	summary := mutantSummary{Mutants: len(hunts), Missed: []string{}, Chance: []uint64{}}
	for _, h := range hunts {
		summary.Seeds += h.ran
		summary.Chance = append(summary.Chance, h.chance...)
		if h.found != nil {
			summary.Found++
			continue
		}
		summary.Missed = append(summary.Missed, h.name())
		t.Errorf("%v", h)
	}
	say("found %d of %d within %d seeds", summary.Found, summary.Mutants, seeds)
	summary.Seconds = time.Since(began).Seconds()
	lastLine = summary
}

// runAll looks for every fault, for one on each core.
func runAll(ctx context.Context, hunts []*hunt) {
	next := make(chan *hunt)
	var hunters sync.WaitGroup
	for range runtime.NumCPU() {
		hunters.Go(func() { // ends with next
			for h := range next {
				h.err = h.run(ctx)
				say("%v", h)
			}
		})
	}
	for _, h := range hunts {
		next <- h
	}
	close(next)
	hunters.Wait()
}

func say(format string, args ...any) {
	fmt.Printf(format+"\n", args...) //nolint:forbidigo // it is what the target prints
}

// mutantSummary is the last line of `make simulate-mutants`.
type mutantSummary struct {
	Mutants int      `json:"mutants"`
	Found   int      `json:"found"`
	Missed  []string `json:"missed"`
	Seeds   int      `json:"seeds"` // of all of them, until each was found
	// Chance are seeds that failed with a fault and without it.
	Chance  []uint64 `json:"chance"`
	Seconds float64  `json:"seconds"`
}

// faults are the mutants, each with all its rows.
func faults() (all [][]mutant) {
	for i := range mutants {
		if n := len(all); n > 0 && all[n-1][0].name == mutants[i].name {
			all[n-1] = append(all[n-1], mutants[i])
			continue
		}
		all = append(all, mutants[i:i+1:i+1])
	}
	return all
}

// TestMutantsApply keeps the table true.
func TestMutantsApply(t *testing.T) {
	for _, fault := range faults() {
		if _, err := apply(fault, "../../.."); err != nil {
			t.Errorf("%s: %v", fault[0].name, err)
		}
	}
}

// apply returns the files with the fault in them.
func apply(fault []mutant, root string) (map[string]string, error) {
	files := map[string]string{}
	for _, m := range fault {
		text, seen := files[m.file]
		if !seen {
			data, err := os.ReadFile(filepath.Join(root, m.file))
			if err != nil {
				return nil, err
			}
			text = string(data)
		}
		if n := strings.Count(text, m.old); n != 1 || m.old == m.new {
			return nil, fmt.Errorf("no longer applies: %q is %d times in %s", m.old, n, m.file)
		}
		files[m.file] = strings.Replace(text, m.old, m.new, 1)
	}
	return files, nil
}

// hunt looks for a fault.
type hunt struct {
	root, dir string
	fault     []mutant
	seeds     int // at most

	ran     int
	seconds float64
	found   *Result  // of the seed that finds it; nil: none does
	chance  []uint64 // seeds that failed, and do without the fault
	err     error
}

func (h *hunt) name() string { return h.fault[0].name }

// String says what came of it.
func (h *hunt) String() string {
	switch {
	case h.err != nil:
		return fmt.Sprintf("%s: %v", h.name(), h.err)
	case h.found == nil:
		return fmt.Sprintf("NOT FOUND in %4d seeds, %3.0fs: %s", h.ran, h.seconds, h.name())
	}
	return fmt.Sprintf("found after %4d seeds, %3.0fs: %s (seed %d at %.150q)", h.ran, h.seconds, h.name(), h.found.Seed, h.found.Problems[0])
}

// run builds the simulation with the fault and runs seeds until one fails, again too,
// that passes without it.
func (h *hunt) run(ctx context.Context) error {
	began := time.Now()
	program, err := h.build(ctx, h.fault)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(program) }() // all of them would fill a disk
	c := Campaign{Program: program, Worker: "TestWorker", First: 1, Seeds: h.seeds, Processes: 1}
	c.Enough = func(r *Result) bool {
		if !r.Crashed && !fails(ctx, program, r.Seed, 3) {
			return false // not again
		}
		if fails(ctx, os.Args[0], r.Seed, 10) {
			h.chance = append(h.chance, r.Seed)
			say("seed %d fails without the fault, too", r.Seed)
			return false
		}
		h.found = r
		return true
	}
	summary, _, err := c.Run(ctx)
	h.ran, h.seconds = summary.Seeds, time.Since(began).Seconds()
	return err
}

// build returns the simulation with the fault in it.
func (h *hunt) build(ctx context.Context, fault []mutant) (program string, err error) {
	files, err := apply(fault, h.root)
	if err != nil {
		return "", err
	}
	replaced := map[string]string{}
	for file, text := range files {
		mutated := filepath.Join(h.dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(mutated, []byte(text), 0o600); err != nil {
			return "", err
		}
		replaced[filepath.Join(h.root, file)] = mutated
	}
	overlay := filepath.Join(h.dir, "overlay.json")
	program = filepath.Join(h.dir, "simulation.test")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": replaced})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlay, "-o", program, "badgerelay/cmd/internal/simulation")
	build.Dir = h.root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("does not compile: %w: %s", err, out)
	}
	return program, nil
}

// fails reports whether a seed fails of so many times: no two runs of it need be alike.
func fails(ctx context.Context, program string, seed uint64, times int) bool {
	c := Campaign{Program: program, Worker: "TestWorker", First: seed, Seeds: times, Repeat: true, Processes: 1,
		Enough: func(*Result) bool { return true }}
	_, results, err := c.Run(ctx)
	return err != nil || len(results) > 0
}
