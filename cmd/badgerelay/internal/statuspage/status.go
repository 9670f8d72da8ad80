package statuspage

import (
	"fmt"
	"time"
)

// Status is how a relay is. Times are UTC; absent ones are zero.
type Status struct {
	State    State     `json:"state"`
	Troubles []string  `json:"troubles"` // for people; empty: none
	Version  string    `json:"version"`
	Go       string    `json:"go"`
	At       time.Time `json:"at"`
	Started  time.Time `json:"startedAt"`

	// What follows is missing while the relay starts.
	Load         *Load         `json:"load,omitempty"`
	Events       *Events       `json:"events,omitempty"`
	Registry     *Registry     `json:"registry,omitempty"`
	Apps         []App         `json:"apps,omitempty"`
	Certificates []Certificate `json:"certificates,omitempty"`
	// Details is there for who holds a key.
	Details *Details `json:"details,omitempty"`
}

// State is the answer to "is it working?".
type State string

// The states.
const (
	Working    State = "working"     // yes
	Troubled   State = "troubled"    // events are taken, and not all of them get through
	NotWorking State = "not_working" // no
)

// Load is what the relay holds now.
type Load struct {
	Streams        int `json:"streams"`
	Mailboxes      int `json:"mailboxes"`
	Devices        int `json:"devices"`
	DevicesQueued  int `json:"devicesQueued"`  // for a connection with room
	DevicesWaiting int `json:"devicesWaiting"` // for a time
}

// Events is what became of events since the start.
type Events struct {
	Accepted uint64  `json:"accepted"`
	Pending  uint64  `json:"pending"`
	Outcomes []Count `json:"outcomes"`
}

// Count is how many events ended so.
type Count struct {
	Name  string `json:"name"`
	Total uint64 `json:"total"`
}

// Seconds is a duration as JSON has it.
type Seconds float64

// Registry is how the registry is.
type Registry struct {
	Organizations uint64 `json:"organizations"`
	Credentials   uint64 `json:"credentials"`
	Mailboxes     uint64 `json:"mailboxes"`
	Subscriptions uint64 `json:"subscriptions"`
	Failed        bool   `json:"failed"` // the counts are not known
}

// App is one configured app and its way to Apple.
type App struct {
	Name           string    `json:"name"`
	State          string    `json:"state"`       // up, connecting, outage, refused, misconfigured
	Quarantined    int       `json:"quarantined"` // subscriptions whose device Apple refuses, and that are kept
	Breaker        bool      `json:"breakerOpen"`
	Connections    int       `json:"connections"`
	StreamsGranted int       `json:"streamsGranted"`
	PushesInFlight int       `json:"pushesInFlight"`
	TokenAge       Seconds   `json:"providerTokenAgeSeconds,omitempty"`
	CertificateEnd time.Time `json:"certificateExpiresAt,omitzero"`
	Topic          string    `json:"topic,omitempty"`
	Environment    string    `json:"environment,omitempty"`
	LastError      string    `json:"lastError,omitempty"`
}

// Certificate is one of our own listeners'.
type Certificate struct {
	Listener string    `json:"listener"`
	End      time.Time `json:"expiresAt"`
}

// Details is what the admin listener protects.
type Details struct {
	Instance      string         `json:"instance"`
	Relays        []Relay        `json:"relays"` // that share the registry, this one included
	Organizations []Organization `json:"organizations"`
	More          bool           `json:"moreOrganizations"` // than are listed
}

// Relay is one of those that share the registry.
type Relay struct {
	Name      string    `json:"name"`
	State     string    `json:"state"` // ready, not_ready, stopped, silent
	Reason    string    `json:"reason,omitempty"`
	Here      bool      `json:"here"` // it is the relay that was asked
	Heard     Seconds   `json:"heardSeconds"`
	Version   string    `json:"version"`
	Started   time.Time `json:"startedAt,omitzero"`
	Streams   uint32    `json:"streams"`
	Mailboxes uint64    `json:"mailboxes"`
	Accepted  uint64    `json:"accepted"`
	Pending   uint64    `json:"pending"`
}

// Organization is one that is enrolled.
type Organization struct {
	Name          string       `json:"name"`
	Enabled       bool         `json:"enabled"`
	Mailboxes     uint64       `json:"mailboxes"`
	Subscriptions uint64       `json:"subscriptions"`
	Streams       int          `json:"streams"` // open here
	Credentials   []Credential `json:"credentials"`
}

// Credential is a certificate that signs an organization's tokens.
type Credential struct {
	Thumbprint string    `json:"thumbprint"`
	End        time.Time `json:"expiresAt"`
	LastUsed   time.Time `json:"lastUsedAt,omitzero"`
}

// soon is when an end is worth a word: Prometheus' alert turns from a note into
// a warning then.
const soon = 7 * 24 * time.Hour

// judge sets State and Troubles from what is known. notReady is why the relay
// takes no work; empty: it does.
func (s *Status) judge(notReady string) {
	s.State, s.Troubles = Working, []string{}
	if notReady != "" {
		s.State = NotWorking
		s.Troubles = append(s.Troubles, "It takes no work: "+notReady+".")
	}
	for _, a := range s.Apps {
		switch {
		case a.State == "refused":
			s.trouble("Apple refuses the key, certificate or topic of %s.", a.Name)
		case a.State == "misconfigured":
			s.trouble("Apple refuses nearly every device of %s: its environment, topic or credential is wrong. Subscriptions are kept.", a.Name)
		case a.State == "outage":
			s.trouble("%s has no connection to Apple.", a.Name)
		case a.Breaker:
			s.trouble("APNs returns errors for %s; only half-open probes are sent.", a.Name)
		}
		s.ends("The certificate of "+a.Name, a.CertificateEnd)
	}
	for _, c := range s.Certificates {
		s.ends("The certificate of "+c.Listener, c.End)
	}
}

func (s *Status) trouble(format string, args ...any) {
	s.Troubles = append(s.Troubles, fmt.Sprintf(format, args...))
	if s.State == Working {
		s.State = Troubled
	}
}

func (s *Status) ends(what string, end time.Time) {
	switch left := end.Sub(s.At); {
	case end.IsZero() || left > soon:
	case left <= 0:
		s.trouble("%s has ended.", what)
	default:
		s.trouble("%s ends in %s.", what, span(left))
	}
}
