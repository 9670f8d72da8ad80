package statuspage

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "badgerelay/proto/badgerelay/v1"
)

// view is what the page shows.
type view struct {
	At       time.Time
	State    State
	Troubles []string // for people; empty: none
	Status   *pb.GetStatusResponse
	Details  bool // the reader holds a key

	// What follows is for who holds a key, where the registry answers.
	Listed        bool
	Relays        []*pb.Relay // that share the registry, this one included
	Organizations []organization
	More          bool  // organizations than are listed
	ListError     error // why relays or organizations are missing; nil: none are
}

// organization is one with its credentials.
type organization struct {
	*pb.Organization
	Credentials []*pb.Credential
}

// State is the answer to "is it working?".
type State string

// The states.
const (
	Working    State = "working"     // yes
	Troubled   State = "troubled"    // events are taken, and not all of them get through
	NotWorking State = "not_working" // no
)

// organizationsShown is the most that the page lists; a list of thousands is
// for the command line.
const organizationsShown = 100

// listTimeout bounds what the lists ask of the registry.
const listTimeout = 3 * time.Second

// list adds relays and organizations.
func (v *view) list(ctx context.Context, admin pb.AdminServiceServer) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	v.Listed = true
	relays, err := admin.ListRelays(ctx, &pb.ListRelaysRequest{})
	v.Relays = relays.GetRelays()
	if v.ListError = v.listOrganizations(ctx, admin); err != nil {
		v.ListError = err
	}
}

func (v *view) listOrganizations(ctx context.Context, admin pb.AdminServiceServer) error {
	listed, err := admin.ListOrganizations(ctx, &pb.ListOrganizationsRequest{PageSize: organizationsShown})
	if err != nil {
		return err
	}
	v.More = listed.GetNextPageToken() != ""
	for _, o := range listed.GetOrganizations() {
		credentials, err := admin.ListCredentials(ctx, &pb.ListCredentialsRequest{Organization: o.GetName()})
		if err != nil {
			return err
		}
		v.Organizations = append(v.Organizations, organization{o, credentials.GetCredentials()})
	}
	return nil
}

// redact leaves what everybody may see, which is what the metrics tell anyway.
func redact(s *pb.GetStatusResponse) {
	s.Instance = ""
	if s.GetRegistryError() != "" {
		s.RegistryError = "the registry does not answer" // its own words may name the database's host and user
	}
	for _, a := range s.GetApps() {
		a.Topic, a.Environment, a.Engine = "", pb.Environment_ENVIRONMENT_UNSPECIFIED, ""
		a.Reason, a.LastError = "", ""
	}
}

// soon is when an end is worth a word: Prometheus' alert turns from a note into
// a warning then.
const soon = 7 * 24 * time.Hour

// judge sets State and Troubles from what is known.
func (v *view) judge() {
	v.State, v.Troubles = Working, []string{}
	if reason := v.Status.GetNotReadyReason(); reason != "" {
		v.State = NotWorking
		v.Troubles = append(v.Troubles, "It takes no work: "+reason+".")
	}
	for _, a := range v.Status.GetApps() {
		switch {
		case a.GetState() == "refused":
			v.trouble("Apple refuses the key, certificate or topic of %s.", a.GetName())
		case a.GetState() == "misconfigured":
			v.trouble("Apple refuses nearly every device of %s: its environment, topic or credential is wrong. Subscriptions are kept.", a.GetName())
		case a.GetState() == "outage":
			v.trouble("%s has no connection to Apple.", a.GetName())
		case a.GetBreakerOpenSince() != nil:
			v.trouble("APNs returns errors for %s; only half-open probes are sent.", a.GetName())
		}
		v.ends("The certificate of "+a.GetName(), a.GetCertificateExpiresAt())
	}
	for _, c := range v.Status.GetCertificates() {
		v.ends("The certificate of "+c.GetListener(), c.GetExpiresAt())
	}
}

func (v *view) trouble(format string, args ...any) {
	v.Troubles = append(v.Troubles, fmt.Sprintf(format, args...))
	if v.State == Working {
		v.State = Troubled
	}
}

func (v *view) ends(what string, end *timestamppb.Timestamp) {
	switch left := end.AsTime().Sub(v.At); {
	case end == nil || left > soon:
	case left <= 0:
		v.trouble("%s has ended.", what)
	default:
		v.trouble("%s ends in %s.", what, span(left))
	}
}

// span writes a duration as people say it: "1.5 s", "12 minutes", "3 days".
func span(d time.Duration) string {
	switch {
	case d <= 0:
		return "no time"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + " s"
	case d < 2*time.Hour:
		return many(int(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return many(int(d/time.Hour), "hour")
	}
	return many(int(d/(24*time.Hour)), "day")
}

// word is an enum's value without the name of the enum: "not_ready".
func word(e fmt.Stringer, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(e.String(), prefix))
}

func many(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}

// group writes a whole number with a space between thousands.
func group(n any) string {
	digits := fmt.Sprint(n)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteRune('\u202f') // narrow, and no line ends there
		}
		b.WriteRune(d)
	}
	return b.String()
}
