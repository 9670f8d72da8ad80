package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"badgerelay/apns"
	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/registry"
)

// restoreFlags say what to restore.
type restoreFlags struct {
	pb           pb.RestoreSubscriptionsRequest
	since, until string
	all          bool
	limit        int
}

func (t *Terminal) subscriptionRestore() *cobra.Command {
	var r restoreFlags
	c := &cobra.Command{
		Use: "restore", Short: "bring back subscriptions that Apple or their lifetime ended within 30 days",
		Long: `Brings back subscriptions that ended although they should not have: when an
app's configuration was wrong, when a clock was, or when Apple was. The flags
narrow down which; without any, --all has to be said. Look with --dry-run first.

A device that has registered on another mailbox since stays there, and one
that was taken off stays off. The organization's limits hold. A restored
subscription counts as registered now; if Apple calls its device gone, it
ends again after three refusals within some hours. Repeating the command is
harmless, and goes on where one was interrupted.`,
		Example: `  badgerelay subscription restore --app mail --reason DeviceTokenNotForTopic --since 6h --dry-run
  badgerelay subscription restore --organization fabrikam.com --since 2026-11-20T08:00:00Z --until 2026-11-20T09:30:00Z`,
		RunE: t.within(0, func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			m, err := r.request(time.Now())
			if err != nil {
				return err
			}
			done, err := restoreAll(ctx, admin, m, r.limit)
			if err != nil {
				return err
			}
			if done.all() == 0 {
				if err := mayExist(ctx, admin, m); err != nil {
					return err
				}
			}
			return t.showRestored(done)
		}),
	}
	f := c.Flags()
	f.StringVar(&r.pb.Organization, "organization", "", "only of this organization (default: of all)")
	f.StringVar(&r.pb.Mailbox, "mailbox", "", "only of this `mailbox`")
	f.StringVar(&r.pb.App, "app", "", "only of this `app`")
	f.StringVar(&r.pb.Reason, "reason", "", "only those that ended for this reason, as subscription list --removed shows it")
	f.StringVar(&r.since, "since", "", "only those that ended then or later: a time (RFC 3339), or so long ago (90m, 6h)")
	f.StringVar(&r.until, "until", "", "only those that ended before: a time, or so long ago")
	f.BoolVar(&r.all, "all", false, "all that ended within 30 days, where nothing else narrows it down")
	f.BoolVar(&r.pb.ValidateOnly, "dry-run", false, "change nothing, and say what would be restored")
	command.Count(f, &r.limit, "limit", 0, math.MaxInt32, 100, "show at most this many of them, and count all; 0 shows all")
	command.FlagCompletion(c, "organization", t.organizations())
	command.FlagCompletion(c, "mailbox", t.mailboxes())
	command.FlagCompletion(c, "app", t.apps())
	return c
}

// request checks the flags at a time.
func (r *restoreFlags) request(now time.Time) (*pb.RestoreSubscriptionsRequest, error) {
	m := &r.pb
	var err error
	if m.RemovedFrom, err = pointInTime("--since", r.since, now); err != nil {
		return nil, err
	}
	if m.RemovedUntil, err = pointInTime("--until", r.until, now); err != nil {
		return nil, err
	}
	if m.GetRemovedFrom().AsTime().After(now) {
		return nil, command.Usage("--since %q is in the future: nothing has ended since", r.since)
	}
	narrow := m.GetOrganization()+m.GetMailbox()+m.GetApp()+m.GetReason()+r.since+r.until != ""
	switch {
	case !narrow && !r.all:
		return nil, command.Usage("say which subscriptions to restore, by --organization, --mailbox, --app, --reason, --since or --until, or --all")
	case narrow && r.all:
		return nil, command.Usage("--all goes with none of the flags that narrow it down")
	}
	return m, nil
}

// mayExist is asked where nothing was found: it says which name is why. What ended of
// an app that is not configured any more was found.
func mayExist(ctx context.Context, admin pb.AdminServiceClient, m *pb.RestoreSubscriptionsRequest) error {
	if m.GetApp() != "" {
		known, err := listApps(ctx, admin, "")
		if err != nil {
			return err
		}
		if !slices.Contains(known, m.GetApp()) {
			return fmt.Errorf("no subscription of app %q has ended, and the relay has no such app; its apps are %s", m.GetApp(), command.Words(known))
		}
	}
	if m.GetReason() == "" {
		return nil
	}
	known := []string{string(apns.ReasonUnregistered), string(apns.ReasonBadDeviceToken), string(apns.ReasonDeviceTokenNotForTopic),
		string(apns.ReasonExpiredToken), string(registry.ReasonExpired)}
	if slices.Contains(known, m.GetReason()) {
		return nil
	}
	return command.Invalidf("no subscription has ended for reason %q; reasons are %s", m.GetReason(), command.Words(known))
}

// pointInTime reads a time, or how long ago it is.
func pointInTime(flag, s string, now time.Time) (*timestamppb.Timestamp, error) {
	if s == "" {
		return nil, nil
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return timestamppb.New(now.Add(-ago)), nil
	}
	at, err := command.ParseTime(flag, s)
	if err != nil {
		return nil, command.Usage("%w, nor how long ago, such as 6h", err)
	}
	return timestamppb.New(at), nil
}

// restored adds up what became of subscriptions.
type restored struct {
	DryRun       bool              `json:"dryRun"`
	Restored     int               `json:"restored"`
	Superseded   int               `json:"superseded"`
	LimitReached int               `json:"limitReached"`
	Restorations []*pb.Restoration `json:"-"` // the first ones
}

func (r *restored) add(one *pb.Restoration, limit int) {
	switch one.GetOutcome() {
	case pb.RestorationOutcome_RESTORATION_OUTCOME_RESTORED:
		r.Restored++
	case pb.RestorationOutcome_RESTORATION_OUTCOME_LIMIT_REACHED:
		r.LimitReached++
	default:
		r.Superseded++
	}
	if limit == 0 || len(r.Restorations) < limit {
		r.Restorations = append(r.Restorations, one)
	}
}

// all is how many were counted.
func (r *restored) all() int { return r.Restored + r.Superseded + r.LimitReached }

// restoreAll reads what becomes of all, and keeps up to limit of them, 0 for all.
func restoreAll(ctx context.Context, admin pb.AdminServiceClient, m *pb.RestoreSubscriptionsRequest, limit int) (*restored, error) {
	done := &restored{DryRun: m.GetValidateOnly()}
	stream, err := admin.RestoreSubscriptions(ctx, m)
	if err != nil {
		return nil, err
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return done, nil
		}
		if err != nil {
			return nil, err
		}
		for _, one := range part.GetRestorations() {
			done.add(one, limit)
		}
	}
}

func (t *Terminal) showRestored(r *restored) error {
	list := make([]json.RawMessage, len(r.Restorations))
	for i, one := range r.Restorations {
		var err error
		if list[i], err = protojson.Marshal(one); err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
	}
	if err := t.Print(struct {
		*restored
		Restorations []json.RawMessage `json:"restorations"`
		Truncated    bool              `json:"truncated"` // there are more than these
	}{r, list, len(list) < r.all()}, func() { t.restoredText(r) }); err != nil {
		return err
	}
	if r.LimitReached > 0 && !r.DryRun {
		return fmt.Errorf("%s not restored, because their organizations' limits are reached", subscriptions(r.LimitReached))
	}
	return nil
}

func (t *Terminal) restoredText(r *restored) {
	var rows [][]string
	for _, one := range r.Restorations {
		s := one.GetSubscription()
		became := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(one.GetOutcome().String(), "RESTORATION_OUTCOME_"), "_", " "))
		if one.GetDetail() != "" {
			became += ": " + one.GetDetail()
		}
		rows = append(rows, []string{one.GetOrganization(), s.GetMailbox(), s.GetApp(), s.GetDeviceToken(), when(s.GetRemovedAt()), s.GetRemovalReason(), became})
	}
	if all := r.all(); all > 0 {
		t.Table("ORGANIZATION MAILBOX APP DEVICE_TOKEN REMOVED REASON OUTCOME", rows)
		if len(rows) < all {
			t.Say("... and %d more; --limit 0 shows all.", all-len(rows))
		}
	}
	verb := "restored"
	if r.DryRun {
		verb = "would be restored"
	}
	t.Say("%s %s.", subscriptions(r.Restored), verb)
	if r.Superseded > 0 {
		t.Say("%s left out: the device has registered elsewhere since, or was taken off.", subscriptions(r.Superseded))
	}
	if r.LimitReached > 0 {
		t.Say("%s left out: the organization's limits are reached.", subscriptions(r.LimitReached))
	}
}

func subscriptions(n int) string { return command.Counted(n, "subscription", "subscriptions") }
