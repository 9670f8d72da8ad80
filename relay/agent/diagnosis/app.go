package diagnosis

import (
	"cmp"
	"slices"

	pb "badgerelay/proto/badgerelay/v1"
)

// tellOperator is the next step where only the relay's operator can mend it.
const tellOperator = "Tell the relay's operator, who has to act."

// appOf returns an app as a relay has it; nil: it does not have it.
func appOf(r *pb.RelayReport, name string) *pb.AppReport {
	i := slices.IndexFunc(r.GetApps(), func(a *pb.AppReport) bool { return a.GetName() == name })
	if i < 0 {
		return nil
	}
	return r.GetApps()[i]
}

// appUnknown: the relay that has the count can't push it, or, where none has one, no relay
// could.
func appUnknown(f *Facts, d *device) *Verdict {
	_, at := f.newest()
	where := ""
	switch told := func(r *pb.RelayReport) bool { return r.GetStartedAt() != nil }; {
	case at != nil && told(at):
		if appOf(at, d.app) != nil {
			return nil
		}
	case !slices.ContainsFunc(f.Report.GetRelays(), told), slices.ContainsFunc(f.Report.GetRelays(), func(r *pb.RelayReport) bool { return appOf(r, d.app) != nil }):
		return nil
	}
	which := "the relay"
	if at != nil && f.several() {
		which, where = relayName(at)+", where the count is,", " of that relay"
	}
	return verdict(AppUnknown, "%s is subscribed with the app %q, which %s does not have.%s", d.Name(f), d.app, which,
		f.step("See apps[] in the configuration"+where+".", "Its operator adds it to apps[] in the relay's configuration, or the mail app registers with another name."))
}

// appTrouble says how an app fares as a whole at a relay; nil: well, or it is not known.
func (f *Facts) appTrouble(r *pb.RelayReport, name string) *Verdict {
	a := appOf(r, name)
	where, since, failure := "", "", ""
	if f.several() {
		where = " at " + relayName(r)
	}
	if at := cmp.Or(a.GetRefusedSince(), a.GetBreakerOpenSince()); at != nil {
		since = " since " + f.clock(at)
	}
	if a.GetLastError() != "" {
		failure = ": " + a.GetLastError()
	}
	switch a.GetState() {
	case "refused":
		reason := cmp.Or(a.GetReason(), "no reason is known")
		what, correct := refused(reason)
		return verdict(AppRefused, "APNs refuses the app's %s%s: %s%s.%s", what, where, reason, since, f.step(correct, tellOperator))
	case "outage":
		return verdict(APNsUnreachable, "There is no connection to APNs for the app %s%s%s%s.%s", name, where, since, failure,
			f.step("'badgerelay probe' says at which stage it fails.", tellOperator))
	case "misconfigured":
		return verdict(AppMisconfigured, "APNs refuses nearly every device of the app %s%s. Nothing is lost: subscriptions are kept.%s", name, where,
			f.step("See apps[].environment, topic and credential.", tellOperator))
	}
	if a.GetBreakerOpenSince() != nil {
		return verdict(APNsOutage, "APNs answers the app %s%s with errors%s, so pushes go one by one until it accepts them%s.", name, where, since, failure)
	}
	return nil
}

// several reports whether more than one relay is known, so that a sentence has to say which.
func (f *Facts) several() bool { return len(f.Report.GetRelays()) > 1 }

// refused says what APNs refuses of an app, and what its operator corrects.
func refused(reason string) (what, correct string) {
	switch reason {
	case "TopicDisallowed", "BadTopic", "MissingTopic":
		return "topic", "See apps[].topic, and restart the relay."
	case "BadCertificate", "BadCertificateEnvironment":
		return "certificate", "See apps[].certificate and environment; reload with SIGHUP for a new certificate, restart for the environment."
	case "ExpiredProviderToken":
		return "token", "The token is new, so the relay's clock is wrong: set it right, and pushes go on by themselves."
	case "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken":
		return "token", "See apps[].environment and token, and restart the relay."
	case "InvalidProviderToken", "MissingProviderToken":
		return "token", "See apps[].token.key_file, key_id and team_id, and reload with SIGHUP; if the key was good before, the relay's clock is wrong."
	}
	return "pushes", "See Apple's page on responses from APNs."
}
