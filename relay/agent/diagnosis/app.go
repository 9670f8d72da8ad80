package diagnosis

import (
	"cmp"

	pb "badgerelay/proto/badgerelay/v1"
)

// tellOperator is the next step where only the relay's operator can mend it.
const tellOperator = "Tell the relay's operator, who has to act."

// appTrouble says how an app fares as a whole; nil: well.
func (f *Facts) appTrouble(name string) *Verdict {
	a := f.app(name)
	since := ""
	if at := cmp.Or(a.GetRefusedSince(), a.GetBreakerOpenSince()); at != nil {
		since = " since " + f.clock(at)
	}
	failure := ""
	if a.GetLastError() != "" {
		failure = ": " + a.GetLastError()
	}
	switch a.GetState() {
	case "refused":
		reason := cmp.Or(a.GetReason(), "no reason is known")
		return verdict(AppRefused, "APNs refuses the app's %s: %s%s.%s", refusedWhat(reason), reason, since,
			f.step("See apps[]."+refusedField(reason)+", and reload with SIGHUP.", tellOperator))
	case "outage":
		return verdict(APNsUnreachable, "There is no connection to APNs for the app %s%s%s.%s", name, since, failure,
			f.step("'badgerelay probe' says at which stage it fails.", tellOperator))
	case "misconfigured":
		return verdict(AppMisconfigured, "APNs refuses nearly every device of the app %s. Nothing is lost: subscriptions are kept.%s", name,
			f.step("See apps[].environment, topic and credential.", tellOperator))
	}
	if a.GetBreakerOpenSince() != nil {
		return verdict(APNsOutage, "APNs answers the app %s with errors%s, so pushes go one by one until it accepts them%s.", name, since, failure)
	}
	return nil
}

func refusedWhat(reason string) string {
	switch reason {
	case "TopicDisallowed", "BadTopic", "MissingTopic":
		return "topic"
	case "BadCertificate", "BadCertificateEnvironment":
		return "certificate"
	case "InvalidProviderToken", "ExpiredProviderToken", "MissingProviderToken", "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken":
		return "token"
	}
	return "pushes"
}

func refusedField(reason string) string {
	switch refusedWhat(reason) {
	case "topic":
		return "topic"
	case "certificate":
		return "certificate and environment"
	}
	return "token.key_file, key_id and team_id"
}

// app returns an app as the relay has it that is worst off; nil: no relay has it.
func (f *Facts) app(name string) (worst *pb.AppReport) {
	for _, r := range f.Report.GetRelays() {
		for _, a := range r.GetApps() {
			if a.GetName() == name && (worst == nil || illness(a) > illness(worst)) {
				worst = a
			}
		}
	}
	return worst
}

// illness orders the states of apps.
func illness(a *pb.AppReport) int {
	switch a.GetState() {
	case "refused":
		return 5
	case "outage":
		return 4
	case "misconfigured":
		return 3
	}
	if a.GetBreakerOpenSince() != nil {
		return 2
	}
	if a.GetState() == "connecting" {
		return 1
	}
	return 0
}
