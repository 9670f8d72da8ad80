package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/badgeagent/internal/serve"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/diagnosis"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/daemon"
)

func (a *app) explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain <mailbox>", Short: "say why a mailbox's badge is wrong",
		Long: `Says in one sentence why the badge of a mailbox is what it is, and shows its whole
way: what the mail server counts now, what the running agent has sent, what every
relay has of it, and each device with what it shows and what APNs said last.

The running agent is asked on local.socket of its configuration, the relay as any
command asks it. Where one of them does not answer, the page says what the other knows.`,
		Example: `  badgeagent explain ann@fabrikam.com
  badgeagent explain ann@fabrikam.com --output json | jq -r .verdict.code`,
		RunE: a.do(func(ctx context.Context, args []string) error { return a.explainMailbox(ctx, args[0]) }),
	}
	configFlag(cmd, &a.config)
	a.relayFlags(cmd)
	a.OutputFlag(cmd)
	cmd.ValidArgsFunction = a.mailboxes()
	return cmd
}

// explainMailbox asks agent and relay at once, and says what they know.
func (a *app) explainMailbox(ctx context.Context, mailbox string) error {
	f := diagnosis.Facts{Mailbox: mailbox}
	var asking sync.WaitGroup
	asking.Go(func() { // ends with its call
		var err error
		if f.Agent, err = a.askAgent(ctx, mailbox); err != nil {
			f.AgentError = err.Error()
		}
	})
	err := a.call(ctx, func(ctx context.Context, c *agent.Client) (err error) {
		f.Report, err = c.Mailbox(ctx, mailbox)
		return err
	})
	asking.Wait()
	f.Now = time.Now()
	if refused := agent.Explain(err); refused.Code == codes.InvalidArgument {
		return err // of the mailbox's name
	} else if err != nil {
		f.RelayError, f.RelayReason = strings.ReplaceAll(err.Error(), "\n", "; "), refused.Reason // one line for each thing that is not set up
	}
	return diagnosis.Print(a.Terminal, &f)
}

// agentTime bounds the agent's answer, which waits for the mail server's. Ours.
const agentTime = 10 * time.Second

// maxReport is more than a report has.
const maxReport = 1 << 20

// askAgent asks the running agent what it knows of a mailbox.
func (a *app) askAgent(ctx context.Context, mailbox string) (*daemon.MailboxReport, error) {
	data, path, err := configfile.Read(a.config, config.DefaultPath)
	if err != nil {
		return nil, err
	}
	c, err := config.Parse(path, data)
	if err != nil {
		return nil, err
	}
	socket := c.Local.Socket
	switch {
	case path == "":
		return nil, fmt.Errorf("there is no %s; name its configuration with --config", config.DefaultPath)
	case socket == "":
		return nil, fmt.Errorf("local.socket is not set in %s, so that it can't be asked", path)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, agentTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+serve.ExplainPath+"?mailbox="+url.QueryEscape(mailbox), nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("it does not run: nothing listens on %s", socket)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("you may not open %s; run this as root or as the agent's user", socket)
	case err != nil:
		return nil, err
	}
	defer answer.Body.Close() // it has been read
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s on %s", answer.Status, socket)
	}
	report := new(daemon.MailboxReport)
	if err := json.NewDecoder(http.MaxBytesReader(nil, answer.Body, maxReport)).Decode(report); err != nil {
		return nil, fmt.Errorf("read the agent's answer: %w", err)
	}
	return report, nil
}
