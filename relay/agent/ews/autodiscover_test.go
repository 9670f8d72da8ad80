package ews_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"badgerelay/relay/agent/ews"
	"badgerelay/relay/agent/ews/ewstest"
	"badgerelay/relay/agent/source"
)

// Where autodiscover speaks plain XML only, which mailboxes share a server is found
// by trying, as where there is none.
func TestPlainAutodiscover(t *testing.T) {
	all := people(30)
	server := ewstest.Config{Mailboxes: all, BackEnds: 3, PlainDiscovery: true, Autodiscover: "http://127.0.0.1" + ewstest.Path}
	bubble(t, server, ews.Config{Autodiscover: "http://127.0.0.1" + ewstest.PlainDiscoverPath}, func(r *rig) {
		r.watch(all...)
		r.watch("nobody@fabrikam.com")
		time.Sleep(10 * time.Second)
		for _, m := range all {
			r.server.Deliver(m)
		}
		r.within(time.Second, "mail for everybody", all...)
		if _, err := r.source.Count(t.Context(), "nobody@fabrikam.com"); !errors.Is(err, source.ErrMailbox) {
			t.Errorf("a mailbox that is not there: %v, want it refused", err)
		}
	})
}

// site is a mail domain whose hosts are one server, or not there.
type site struct {
	t      *testing.T
	server *ewstest.Server
	hosts  []string          // that answer
	srv    map[string]string // targets with ports, by domain
}

func (s *site) config(domain string) ews.Config {
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(s.server.CA()) {
		s.t.Fatal("no CA")
	}
	address := strings.TrimSuffix(strings.TrimPrefix(s.server.URL(), "https://"), ewstest.Path)
	return ews.Config{
		Autodiscover: domain, Credentials: ews.BasicLogin(account, password),
		TLS: func() *tls.Config {
			return &tls.Config{RootCAs: authorities, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
		},
		Dial: func(ctx context.Context, network, to string) (net.Conn, error) {
			for _, h := range append(s.hosts, address) {
				if h == to {
					return new(net.Dialer).DialContext(ctx, network, address)
				}
			}
			return nil, &net.DNSError{Err: "no such host", Name: to, IsNotFound: true}
		},
		LookupSRV: func(_ context.Context, _, _, name string) (string, []*net.SRV, error) {
			target, ok := s.srv[name]
			if !ok {
				return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
			}
			host, port, _ := strings.Cut(target, ":")
			number, err := strconv.ParseUint(port, 10, 16)
			return "", []*net.SRV{{Target: host + ".", Port: uint16(number)}}, err
		},
	}
}

// A mail domain's autodiscover is found wherever it may be, and nowhere else.
func TestWhereAutodiscoverIs(t *testing.T) {
	const domain = "fabrikam.test"
	for name, c := range map[string]struct {
		hosts []string
		srv   string
		plain bool
		want  string // in the error; empty: it is found
	}{
		"its own host":           {hosts: []string{"autodiscover.fabrikam.test:443"}},
		"the domain":             {hosts: []string{"fabrikam.test:443"}},
		"plain XML":              {hosts: []string{"autodiscover.fabrikam.test:443"}, plain: true},
		"an SRV record":          {hosts: []string{"mail.fabrikam.test:8443"}, srv: "mail.fabrikam.test:8443"},
		"an SRV record, plain":   {hosts: []string{"mail.fabrikam.test:443"}, srv: "mail.fabrikam.test:443", plain: true},
		"an SRV record, outside": {hosts: []string{"mail.evil.test:443"}, srv: "mail.evil.test:443", want: "outside of fabrikam.test"},
		"a longer name":          {hosts: []string{"evilfabrikam.test:443"}, srv: "evilfabrikam.test:443", want: "outside of fabrikam.test"},
		"nowhere":                {want: "look up SRV"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, err := ewstest.New(ewstest.Config{Mailboxes: people(1), User: account, Password: password, TLS: true, PlainDiscovery: c.plain})
			if err == nil {
				err = server.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			defer server.Stop()
			at := &site{t: t, server: server, hosts: c.hosts, srv: map[string]string{}}
			if c.srv != "" {
				at.srv[domain] = c.srv
			}
			report, err := ews.Check(t.Context(), at.config(domain), people(1)[0])
			switch {
			case c.want == "" && (err != nil || report.Address != server.URL() || !report.Heard):
				t.Errorf("found %+v, %v, want %s", report, err, server.URL())
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("found %+v, %v, want %q", report, err, c.want)
			}
		})
	}
}
