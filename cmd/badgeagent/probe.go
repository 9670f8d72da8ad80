package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"badgerelay/cmd/internal/command"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"
)

// doubt is what a stage returns that went well but asks for attention.
type doubt struct{ text string }

func (d *doubt) Error() string { return d.text }

func doubtful(format string, args ...any) error { return &doubt{fmt.Sprintf(format, args...)} }

func (a *app) probeCommand() *cobra.Command {
	p := &probe{app: a}
	cmd := &cobra.Command{
		Use: "probe", Short: "test the whole way to the relay, stage by stage",
		Long: `Tests the whole way: configuration, certificate, name resolution, TCP, TLS, the
clock, the metadata document, whether the token is accepted and the organization
enabled, whether subscriptions can be read, whether Apple accepts the relay (a push
to an impossible device token must come back as BadDeviceToken) and not nearly all
of the app's devices are refused, whether the mail
server lets the daemon in, and whether Exchange does: with which authentication,
for one mailbox, whose subscription is made and heard. The first stage that fails
ends the probe and says what to do. A warning is no failure.
` + command.ProbeHelp + `

Exit code 0: succeeded; 1: a stage failed; 2: the configuration is wrong or missing;
3: no relay was reached, or not its metadata document.`,
		Example: `  badgeagent probe
  badgeagent probe --app mail --mailbox ann@fabrikam.com
  badgeagent probe --relay relay.example:443 --ca ca.pem --output json`,
		RunE: a.do(func(ctx context.Context, _ []string) error { return p.run(ctx) }),
	}
	a.relayFlags(cmd)
	configFlag(cmd, &a.config)
	cmd.Flags().StringVar(&p.wanted.App, "app", "", "the `app` for which Apple is tried (default: that of the first subscription)")
	cmd.Flags().StringVar(&p.wanted.Mailbox, "mailbox", "", "the `mailbox` that is counted (default: that of the first subscription)")
	command.FlagCompletion(cmd, "app", a.apps())
	command.FlagCompletion(cmd, "mailbox", a.mailboxes())
	return a.OutputFlag(cmd)
}

func (p *probe) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.app.timeout)
	defer cancel()
	defer p.close()
	result := &command.Probe{}
	var failure error // of the stage that failed
	for _, s := range []struct {
		name string
		run  func(context.Context) (string, error)
	}{
		{"Configuration", p.configuration},
		{"Certificate", p.certificate},
		{"Name resolution", reaches(p.resolve)},
		{"TCP", reaches(p.connect)},
		{"TLS", reaches(p.handshake)},
		{"Clock", p.clock},
		{"Metadata", p.metadata},
		{"Token", p.token},
		{"Organization", p.organization},
		{"Subscriptions", p.subscriptions},
		{"APNs", p.credentials},
		{"Mail server", p.mailServer},
	} {
		done := command.Stage{Name: s.name, ResultType: command.Skipped}
		exception := ""
		if result.ResultType != command.Broken {
			began := time.Now()
			detail, err := s.run(ctx)
			done.ResultType, done.Detail, exception = judge(detail, err)
			done.Seconds = time.Since(began).Seconds()
			if done.ResultType == command.Broken {
				failure = err
			}
		}
		p.app.AddStage(result, done, exception)
	}
	err := p.app.Finish(result)
	if errors.Is(err, command.ErrReported) {
		return errors.Join(err, failure) // which says the exit code
	}
	return err
}

// reaches makes a stage's failure one to reach a relay.
func reaches(run func(context.Context) (string, error)) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		found, err := run(ctx)
		if err != nil {
			err = command.Unreached(err)
		}
		return found, err
	}
}

// judge says what a stage came to that has returned found and err; exception is what
// came back where it failed.
func judge(found string, err error) (kind, detail, exception string) {
	detail = found
	if d, ok := errors.AsType[*doubt](err); ok {
		if detail != "" {
			detail += "; "
		}
		return command.Warning, detail + d.text, ""
	}
	if err == nil {
		return command.Succeeded, detail, ""
	}
	if errors.Is(err, errSkipped) {
		return command.Skipped, detail, ""
	}
	if e, ok := errors.AsType[*explained](err); ok {
		return command.Broken, oneLine(e.text), oneLine(e.cause.Error())
	}
	return command.Broken, oneLine(err.Error()), oneLine(err.Error())
}

// oneLine joins what errors.Join has parted: a probe's results are lines.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

// errSkipped ends a stage that has nothing to test. What it has found says why.
var errSkipped = errors.New("nothing to test")

// explained is a failure with a sentence that says what to do.
type explained struct {
	text  string
	cause error
}

// Error adds the cause in its own words, without what gRPC puts around them.
func (e *explained) Error() string {
	if s, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](e.cause); ok {
		return e.text + ": " + s.GRPCStatus().Message()
	}
	return e.text + ": " + e.cause.Error()
}

func (e *explained) Unwrap() error { return e.cause }

func explain(cause error, format string, args ...any) error {
	return &explained{text: fmt.Sprintf(format, args...), cause: cause}
}

// days is how long until t, in whole days.
func days(t time.Time) int { return int(time.Until(t).Hours() / 24) }

func daysLeft(t time.Time) string { return command.Counted(days(t), "day", "days") + " left" }
