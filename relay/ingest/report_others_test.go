package ingest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	pb "badgerelay/proto/badgerelay/v1"
)

// beside are scripts of what an organization does with one device, a step a line: "set"
// puts the device on these mailboxes and no others, "count" sends mailboxes', "mute" and
// "unmute" stop and start APNs, "wait" lets a minute pass, "restart" ends the relay's
// process and starts another one.
var beside = map[string]string{
	"counted before it is subscribed":              "count box 2; set box; wait; count box 2; count box 3",
	"counted, left and subscribed again":           "set box; count box 2; set; count box 3; set box; wait; count box 3",
	"registered again":                             "set box; count box 2; set box; wait; count box 2; set box; count box 2",
	"two, and one of them":                         "set box never; count box 2; wait; count box 3; set box; wait; count box 4",
	"two, both counted, and one of them":           "set box too; count box 2; count too 3; set too; wait; count too 3; count too 4",
	"one, and another":                             "set box; count box 2; set box too; wait; count too 3; count box 4",
	"one, and another that is counted":             "set box; count box 2; set box too; count too 3; count box 4; set box; set box too",
	"one that is never counted, and more":          "set never; wait; set never box; count box 2; wait; count box 3",
	"one that was counted, and another":            "count box 2; set never; wait; set never box; wait; count box 3",
	"moved":                                        "set box; count box 2; count too 5; set too; wait; count too 5; set box; count box 2",
	"two that wait for APNs":                       "set box too; count box 2; count too 3; mute; count box 4; count box 5; unmute; count too 3",
	"one that waits for APNs":                      "set box; count box 2; mute; count box 3; count box 4; set box; unmute; count box 4",
	"two that nobody has counted":                  "set never box; wait; count box 1; set never",
	"a count that waits for another's part":        "set box never; count box 2; count box 3; count never 1; count box 3",
	"one leaves while another is awaited":          "set box too; count box 2; count too 3; set box never; count box 2; count box 4; wait; count never 1",
	"the one that is awaited leaves":               "set box too; count box 2; count too 3; set box too never; count box 4; set box too; count too 3; count box 4",
	"all but the awaited one leave":                "set box too; count box 2; count too 3; set never; wait; count never 4; set never box; count box 2",
	"the same count while another waits":           "set box; count box 2; set box never; count box 2; count box 2; wait; count box 2",
	"one that is in flight as another comes":       "set box too; count box 2; count too 3; mute; count box 4; set box too never; unmute; count box 4; wait; count box 5",
	"another comes while APNs is silent":           "set box; count box 2; mute; set box never; unmute; wait",
	"a third comes while APNs is silent":           "set box too; count box 2; count too 3; mute; set box too never; unmute; wait",
	"it is counted while APNs is silent":           "set box too; count box 2; count too 3; set box too never; mute; count never 1; unmute; wait",
	"counts that wait while APNs is silent":        "set box; count box 2; set box never; mute; count box 3; count box 3; unmute; wait",
	"a wait that ends while APNs is silent":        "set box never; count box 2; mute; wait; count box 3; unmute; wait; count box 3",
	"one leaves, and APNs is silent":               "set box too; count box 2; count too 3; set box never; mute; wait; unmute; wait",
	"one comes and leaves while APNs is silent":    "set box too; count box 2; count too 3; mute; set box too never; set box too; unmute; wait",
	"the same counts while APNs is silent":         "set box too; count box 2; count too 3; mute; wait; count too 3; unmute; wait",
	"the awaited one leaves while APNs is silent":  "set box too; count box 2; count too 3; set box too never; mute; count box 4; set box too; unmute; wait",
	"another comes, and APNs is silent for long":   "set box; count box 2; mute; set box never; count box 3; wait; unmute; wait",
	"it comes again while APNs is silent":          "set box never; count box 2; set box; mute; set box never; count never 1; unmute; wait",
	"disjoint lists while APNs is silent":          "set box too; count box 2; mute; count too 3; set never third; unmute; wait; count third 2; wait",
	"a list grows and shrinks":                     "set box too; mute; count box 2; count too 3; count box 2; unmute; set box too never; set box; wait",
	"one that is never counted, and a silent APNs": "set box never; wait; count box 2; mute; set box never too; unmute; count box 2; wait; count box 2",
	"a restart":                             "set box; count box 2; restart; wait; count box 2; count box 3",
	"a restart, and another comes":          "set box; count box 2; restart; set box never; wait; count never 1; count box 2",
	"a restart, and another is counted":     "set box; count box 2; restart; set box too; count too 3; wait; count box 2; count too 3",
	"a restart, and it is registered again": "set box; count box 2; restart; set box; count box 2; set; set box; wait; count box 2",
	"a restart, and it moves":               "set box; count box 2; restart; set too; wait; count too 1; set box; wait; count box 2",
	"two, and a restart":                    "set box too; count box 2; count too 3; restart; wait; count box 2; count box 4; count too 3",
	"a restart, and one of two":             "set box too; count box 2; count too 3; restart; set too; wait; set box too; count box 2; wait; count too 3",
	"one is awaited, and a restart":         "set box; count box 2; set box never; restart; count box 4; wait; count never 1",
	"a restart while APNs is silent":        "set box; count box 2; mute; count box 3; restart; wait; unmute; wait; count box 3",
	"two, a restart, and APNs is silent":    "set box too; count box 2; count too 3; mute; count box 4; restart; unmute; wait; count box 4",
	"their sum stays":                       "set box too; count box 2 too 3; count box 3 too 2; wait; count box 3 too 2; count box 1 too 4; count box 0 too 4; set too; count too 4",
	"disjoint lists":                        "set box too; count box 2; count too 3; set never third; count third 1; wait; count never 2; set box too; count box 2; count too 3",
}

// TestNothingOfOthersIsTold runs each script with and without another organization on the
// device, whose count is newer at each step. What the organization is told after each of
// them is the same.
func TestNothingOfOthersIsTold(t *testing.T) {
	for name, script := range beside {
		t.Run(name, func(t *testing.T) {
			steps := strings.Split(script, "; ")
			var alone, shared [][]string
			bubble(t, func(t *testing.T) { alone = toldAfter(t, steps, false) })
			bubble(t, func(t *testing.T) { shared = toldAfter(t, steps, true) })
			for i := range alone {
				alone[i], shared[i] = withoutConnections(alone[i], shared[i]), withoutConnections(shared[i], alone[i])
				if !slices.Equal(alone[i], shared[i]) {
					t.Fatalf("after step %d of %q beside another organization it is told %q, and alone %q",
						i/2+1, script, without(shared[i], alone[i]), without(alone[i], shared[i]))
				}
			}
		})
	}
}

// toldAfter returns what an organization is told after each step.
func toldAfter(t *testing.T, steps []string, others bool) (told [][]string) {
	w := newWorld(t)
	o, c := w.enrol("fabrikam.com", testKey(0)), w.enrol("contoso.com", testKey(1))
	var a, their *agent
	var heard func() string
	sent, began := uint64(0), 0
	connect := func() {
		hello := helloOf(&pb.Agent{Name: "mx"})
		hello.GetHello().AgentId = "mx"
		a = w.open(o.token(time.Hour))
		a.send(hello)
		a.welcome()
		heard, sent = a.listen(), 0
		if others {
			their = c.connect()
			their.listen()
		}
	}
	if others {
		c.subscribe("cid", "a")
	}
	connect()
	for i, step := range steps {
		theirs := func(n int) {
			if others {
				their.batch(uint64(2*(i-began)+n), &pb.Event{Mailbox: "cid", UnreadCount: uint32(10*i + n)})
			}
			time.Sleep(3 * time.Second)
		}
		theirs(1)
		words := strings.Fields(step)
		switch words[0] {
		case "set":
			_, err := pb.NewSubscriptionServiceClient(w.conn).SetDevice(o.ctx(), &pb.SetDeviceRequest{App: testApp, DeviceToken: device("a"), Mailboxes: words[1:]})
			if err != nil {
				t.Fatal(err)
			}
		case "count":
			var events []*pb.Event
			for i := 1; i < len(words); i += 2 {
				n, _ := strconv.Atoi(words[i+1])
				events = append(events, &pb.Event{Mailbox: words[i], UnreadCount: uint32(n)})
			}
			a.batch(sent+1, events...)
			sent += uint64(len(events))
		case "mute", "unmute":
			w.setMute(words[0] == "mute")
		case "wait":
			time.Sleep(time.Minute)
		case "restart":
			a.cancel()
			w.restart()
			connect()
			began = i
		}
		time.Sleep(3 * time.Second) // relays look at sums once a second
		told = append(told, o.told(heard))
		theirs(2)
		time.Sleep(3 * time.Second)
		told = append(told, o.told(heard))
	}
	a.cancel()
	return told
}

// listen has the agent note how its events end.
func (a *agent) listen() (heard func() string) {
	var mu sync.Mutex
	through, outcomes := uint64(0), []string(nil)
	go func() { // until the stream ends
		for {
			m, err := a.stream.Recv()
			if err != nil {
				return
			}
			mu.Lock()
			through = max(through, m.GetSettlement().GetThrough())
			for _, o := range m.GetSettlement().GetOutcomes() {
				outcomes = append(outcomes, fmt.Sprint(o.GetSequence(), " ", o.GetOutcome()))
			}
			mu.Unlock()
		}
	}()
	return func() string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(outcomes)
		return fmt.Sprint("settled through ", through, ": ", outcomes)
	}
}

// told returns how the organization's events have ended, and what it is told of its
// mailboxes, a field a line.
func (o *organization) told(heard func() string) []string {
	lines := []string{heard()}
	for _, name := range []string{"box", "too", "never"} {
		r := o.report(name)
		timeless(r.ProtoReflect())
		data, err := protojson.Marshal(r)
		var fields any
		if err != nil || json.Unmarshal(data, &fields) != nil {
			o.w.t.Fatal(err)
		}
		lines = appendFields(lines, name, fields)
	}
	slices.Sort(lines)
	return lines
}

// withoutConnections leaves out that a device waits for a connection, and with what, where
// of the others it waits for nothing: while APNs is silent the pool gives connections up and
// opens others at random moments, and another organization's push may be the one in flight,
// which is the one delay that it may cause.
func withoutConnections(lines, others []string) []string {
	left := slices.Clone(lines)
	for _, line := range lines {
		device, waits := strings.CutSuffix(line, ".wait=WAIT_STREAM")
		of := func(l string) bool {
			return strings.HasPrefix(l, device+".wait=") || strings.HasPrefix(l, device+".wanted=")
		}
		if waits && !slices.ContainsFunc(others, of) {
			left = slices.DeleteFunc(left, of)
		}
	}
	return left
}

func appendFields(lines []string, path string, v any) []string {
	switch v := v.(type) {
	case map[string]any:
		for name, of := range v {
			lines = appendFields(lines, path+"."+name, of)
		}
	case []any:
		for i, of := range v {
			lines = appendFields(lines, fmt.Sprint(path, "[", i, "]"), of)
		}
	default:
		lines = append(lines, fmt.Sprint(path, "=", v))
	}
	return lines
}

// without returns the lines that are not among the others.
func without(lines, others []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return slices.Contains(others, line) })
}
