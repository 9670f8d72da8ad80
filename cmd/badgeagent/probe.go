package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"badgerelay/cmd/badgeagent/internal/config"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"
)

// Result types, as Exchange's monitoring calls them. Warning is
// Test-OAuthConnectivity's.
const (
	succeeded = "Succeeded"
	warning   = "Warning"
	failed    = "Failed"
	skipped   = "Skipped"
)

// stage is one step of the way and what came of it.
type stage struct {
	Name   string `json:"stage"`
	Result string `json:"resultType"`
	Detail string `json:"detail"`
}

// probeResult is what Invoke-MonitoringProbe prints, and the stages.
type probeResult struct {
	ResultType string  `json:"resultType"`
	Error      string  `json:"error"`
	Exception  string  `json:"exception"`
	Stages     []stage `json:"stages"`
}

// doubt is what a stage returns that went well but asks for attention.
type doubt struct{ text string }

func (d *doubt) Error() string { return d.text }

func doubtful(format string, args ...any) error { return &doubt{fmt.Sprintf(format, args...)} }

func (a *app) probeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "probe", Short: "test the whole way to the relay, stage by stage", Args: cobra.NoArgs,
		Long: `Tests the whole way: configuration, certificate, name resolution, TCP, TLS, the
clock, the metadata document, whether the token is accepted and the organization
enabled, whether subscriptions can be read, whether Apple accepts the relay (a push
to an impossible device token must come back as BadDeviceToken) and not nearly all
of the app's devices are refused, whether the mail
server lets the daemon in, and whether Exchange does: with which authentication,
for one mailbox, whose subscription is made and heard. The first stage that fails
ends the probe and says what to do. Then prints ResultType, Error and Exception, like Exchange's
Invoke-MonitoringProbe. A warning is no failure.

Exit code 0: succeeded. 1: failed.`,
		Example: `  badgeagent probe
  badgeagent probe --app mail --mailbox ann@fabrikam.com
  badgeagent probe --relay relay.example:443 --ca ca.pem --output json`,
		RunE: a.do(func(ctx context.Context, _ []string) error { return a.probe(ctx) }),
	}
	a.relayFlags(cmd)
	cmd.Flags().StringVar(&a.config, "config", "", "the daemon's configuration, for the mail server (default "+config.DefaultPath+", if it exists)")
	cmd.Flags().StringVar(&a.probeApp, "app", "", "the `app` for which Apple is tried (default: that of the first subscription)")
	cmd.Flags().StringVar(&a.probeMailbox, "mailbox", "", "the `mailbox` that is counted (default: that of the first subscription)")
	return cmd
}

func (a *app) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	p := &probe{app: a}
	defer p.close()
	result := probeResult{ResultType: succeeded}
	for _, s := range []struct {
		name string
		run  func(context.Context) (string, error)
	}{
		{"Configuration", p.configuration},
		{"Certificate", p.certificate},
		{"Name resolution", p.resolve},
		{"TCP", p.connect},
		{"TLS", p.handshake},
		{"Clock", p.clock},
		{"Metadata", p.metadata},
		{"Token", p.token},
		{"Organization", p.organization},
		{"Subscriptions", p.subscriptions},
		{"APNs", p.credentials},
		{"Mail server", p.mailServer},
	} {
		done := stage{Name: s.name, Result: skipped}
		if result.ResultType != failed {
			done.Result, done.Detail = p.judge(ctx, s.name, s.run, &result)
		}
		result.Stages = append(result.Stages, done)
		if a.output == "text" && done.Result != skipped {
			fmt.Fprintf(a.out, "%-15s  %-9s  %s\n", done.Name, done.Result, done.Detail)
		}
	}
	return a.reportProbe(&result)
}

// judge runs a stage and enters its failure into the result.
func (p *probe) judge(ctx context.Context, name string, run func(context.Context) (string, error), result *probeResult) (kind, detail string) {
	detail, err := run(ctx)
	if d, ok := errors.AsType[*doubt](err); ok {
		if detail != "" {
			detail += "; "
		}
		return warning, detail + d.text
	}
	if err == nil {
		return succeeded, detail
	}
	if errors.Is(err, errSkipped) {
		return skipped, ""
	}
	cause := err
	if e, ok := errors.AsType[*explained](err); ok {
		detail, cause = e.text, e.cause
	} else {
		detail = err.Error()
	}
	result.ResultType, result.Error, result.Exception = failed, name+": "+detail, cause.Error()
	return failed, detail
}

// errSkipped ends a stage that has nothing to test.
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

func (a *app) reportProbe(r *probeResult) error {
	if a.output == "text" {
		fmt.Fprintln(a.out)
		list(a.out, []field{{"ResultType", r.ResultType}, {"Error", r.Error}, {"Exception", r.Exception}})
	}
	if err := a.result(r); err != nil {
		return err
	}
	if r.ResultType == failed {
		return errReported
	}
	return nil
}

// days is how long until t, in whole days.
func days(t time.Time) int { return int(time.Until(t).Hours() / 24) }
