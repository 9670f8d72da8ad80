package operator

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"badgerelay/cmd/badgerelay/internal/config"
)

// AddressVariable names the environment variable that says where the admin
// listener is.
const AddressVariable = "BADGERELAY_ADMIN"

type clientTLS struct{ certificate, key, authorities, name string }

// dial connects when it is first used; where is the address for messages.
func (t *Terminal) dial() (conn *grpc.ClientConn, where string, err error) {
	where, err = t.where()
	if err != nil {
		return nil, "", err
	}
	target, creds := "passthrough:///"+where, insecure.NewCredentials()
	if strings.Contains(where, "/") {
		target = "unix:" + where
	} else if creds, err = t.tls.credentials(where); err != nil {
		return nil, "", err
	}
	conn, err = grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, "", usage("--admin %s: %v", where, err)
	}
	return conn, where, nil
}

// where returns the admin listener's address: flag, environment, file.
func (t *Terminal) where() (string, error) {
	if t.address != "" {
		return socketPath(t.address), nil
	}
	if v := t.Getenv(AddressVariable); v != "" && t.config == "" {
		return socketPath(v), nil
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
		return nil, usage("an admin listener on TCP wants --tls-cert and --tls-key")
	}
	pair, err := tls.LoadX509KeyPair(c.certificate, c.key)
	if err != nil {
		return nil, usage("--tls-cert, --tls-key: %v", err)
	}
	host, _, err := net.SplitHostPort(where)
	if err != nil {
		return nil, usage("--admin %q is neither a path nor host:port", where)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, ServerName: host}
	if c.name != "" {
		cfg.ServerName = c.name
	}
	if c.authorities == "" {
		return credentials.NewTLS(cfg), nil
	}
	data, err := os.ReadFile(c.authorities)
	if err != nil {
		return nil, usage("--tls-ca: %v", err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(data) {
		return nil, usage("--tls-ca: %s holds no PEM certificate", c.authorities)
	}
	return credentials.NewTLS(cfg), nil
}

// explain turns a status into an error for people.
func explain(err error, where string) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return fmt.Errorf("%s (%s)", st.Message(), info.GetReason())
		}
	}
	switch st.Code() {
	case codes.Unavailable:
		return fmt.Errorf("%w at %s: is it running, and may you open its admin listener? (%s)", ErrUnreachable, where, st.Message())
	case codes.DeadlineExceeded:
		return errors.New("no answer within --timeout")
	case codes.Unimplemented:
		return errors.New("this relay does not know the command; it is of another version: " + st.Message())
	}
	return fmt.Errorf("%s (%s)", st.Message(), st.Code())
}
