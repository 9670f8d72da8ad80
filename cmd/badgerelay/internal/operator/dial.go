package operator

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
)

type clientTLS struct{ certificate, key, authorities, name string }

// dial connects when it is first used; where is the address for messages.
func (t *Terminal) dial(c *cobra.Command) (conn *grpc.ClientConn, where string, err error) {
	where, err = t.where(c)
	if err != nil {
		return nil, "", err
	}
	target, creds := "passthrough:///"+where, insecure.NewCredentials()
	if strings.Contains(where, "://") {
		return nil, "", command.Usage("--admin %q is neither a socket's path nor host:port", where)
	}
	if strings.Contains(where, "/") {
		target = "unix:" + where
	} else if creds, err = t.tls.credentials(where); err != nil {
		return nil, "", err
	}
	conn, err = grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, "", command.Usage("--admin %s: %v", where, err)
	}
	return conn, where, nil
}

// where returns the admin listener's address: that of --admin, or the one in the
// configuration. A configuration on the command line is nearer than an address in
// the environment.
func (t *Terminal) where(cmd *cobra.Command) (string, error) {
	given := t.config != "" && !command.FromEnvironment(cmd, "config")
	if t.address != "" && !(given && command.FromEnvironment(cmd, "admin")) {
		return socketPath(t.address), nil
	}
	c, err := config.Read(t.config)
	if err != nil {
		return "", err
	}
	if socket := c.AdminSocket(); socket != "" {
		return socketPath(socket), nil
	}
	return c.Admin.Address, nil
}

// socketPath makes a path of what is not host:port, so that "admin.sock" in
// the working directory is one.
func socketPath(address string) string {
	if strings.Contains(address, "/") || strings.Contains(address, ":") {
		return address
	}
	return "./" + address
}

func (c clientTLS) credentials(where string) (credentials.TransportCredentials, error) {
	if c.certificate == "" || c.key == "" {
		return nil, command.Usage("an admin listener on TCP wants --tls-cert and --tls-key")
	}
	if bad := configfile.BadAddress(where); bad != "" {
		return nil, command.Usage("--admin: %s", bad)
	}
	pair, err := keyPair(c.certificate, c.key)
	if err != nil {
		return nil, command.Usage("--tls-cert, --tls-key: %v", err)
	}
	cfg, err := configfile.ClientTLS(c.authorities)
	if err != nil {
		return nil, command.Usage("--ca: %v", err)
	}
	host, _, _ := net.SplitHostPort(where) // it has both
	cfg.Certificates, cfg.ServerName = []tls.Certificate{pair}, cmp.Or(c.name, host)
	return credentials.NewTLS(cfg), nil
}

func keyPair(certificate, key string) (tls.Certificate, error) {
	cert, err := configfile.ReadNamed(certificate)
	if err != nil {
		return tls.Certificate{}, err
	}
	secret, err := configfile.ReadNamed(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	if configfile.HasPassphrase(secret) {
		return tls.Certificate{}, fmt.Errorf("%s has a passphrase: 'openssl pkey -in %[1]s -out FILE' writes the key without one", key)
	}
	return tls.X509KeyPair(cert, secret)
}

// flagsOf are the flags that stand for fields of requests, where they have other names.
var flagsOf = map[string]string{
	"start_at": "start", "end_at": "end", "removed_from": "since", "removed_until": "until", "metadata_url": "metadata-url",
	"device_token": "device-token", "name": "organization", "get.mailbox": "mailbox", "limits.apps": "apps",
	"limits.max_mailboxes": "max-mailboxes", "limits.max_subscriptions": "max-subscriptions",
}

// named says which rule a field of a request breaks in words of the command line: the
// flag, or the argument that stands for it, with its value. What has neither keeps the
// field's name.
func named(c *cobra.Command, v *errdetails.BadRequest_FieldViolation) string {
	name := cmp.Or(flagsOf[v.GetField()], v.GetField())
	given := c.Flags().Lookup(name)
	what := v.GetField()
	switch n := c.Flags().NArg(); {
	case given != nil && given.Changed:
		what = fmt.Sprintf("--%s %q", name, given.Value)
	case (name == "organization" || name == "id") && n > 0:
		what = fmt.Sprintf("%q", c.Flags().Arg(0))
	case name == "mailbox" && n > 0:
		what = fmt.Sprintf("%q", c.Flags().Arg(n-1))
	case given != nil:
		what = "--" + name
	}
	return what + " " + v.GetDescription()
}

// explain turns a status into an error for people. advise says what to do about a
// reason; empty: nothing special.
func explain(c *cobra.Command, err error, where string, advise func(reason string) string) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	message, reason := st.Message(), reasonOf(st)
	switch reason {
	case "":
	case "TOKEN_MISSING":
		return command.Invalidf("%s is where agents send counts; the admin listener is at admin.address or admin.socket of the relay's configuration", where)
	case "FIELD_INVALID": // what was given breaks a rule, which the relay names
		for _, d := range st.Details() {
			if bad, ok := d.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) > 0 {
				message = named(c, bad.GetFieldViolations()[0])
			}
		}
		return command.Invalidf("%s (%s)", message, reason)
	default:
		return fmt.Errorf("%s (%s)%s", message, reason, advise(reason))
	}
	switch st.Code() {
	case codes.Unavailable:
		return fmt.Errorf("%w at %s: %s (%s)", command.ErrUnreachable, where, unreachableAdvice(where, st.Message()), st.Message())
	case codes.DeadlineExceeded:
		return fmt.Errorf("%w: no answer from %s in time; --timeout gives it more", command.ErrUnreachable, where)
	case codes.Unimplemented:
		return errors.New("this relay does not know the command; it is of another version: " + st.Message())
	}
	return fmt.Errorf("%s (%s)", st.Message(), st.Code())
}

// reasonOf returns the contract's reason of a refusal; empty: it has none.
func reasonOf(st *status.Status) (reason string) {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			reason = info.GetReason()
		}
	}
	return reason
}

// unreachableAdvice says what to do where nothing answers at an address; text is
// how gRPC puts it.
func unreachableAdvice(where, text string) string {
	socket := strings.Contains(where, "/")
	switch {
	case strings.Contains(text, syscall.EACCES.Error()):
		return "you may not open its admin socket; run this as the relay's user, or as root"
	case socket && strings.Contains(text, syscall.ENOENT.Error()):
		return "there is no such socket; start the relay (if you have, its log says why it ended), or name its admin listener with --admin, or its configuration with --config"
	case strings.Contains(text, syscall.ECONNREFUSED.Error()):
		return "no relay listens there; start it, or name its admin listener with --admin"
	case strings.Contains(text, "x509: certificate signed by unknown authority"):
		return "its certificate is signed by an authority that this machine does not know; name it with --ca"
	case strings.Contains(text, "x509: certificate is"), strings.Contains(text, "x509: cannot validate certificate for"):
		return "its certificate has another name; say which with --tls-name"
	case strings.Contains(text, "tls: "), strings.Contains(text, "handshake"):
		return "the handshake failed: is that the admin listener, and is your certificate (--tls-cert) signed by its admin.client_ca_file?"
	}
	return "is it running, and is that its admin listener?"
}
