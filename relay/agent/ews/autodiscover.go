package ews

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"badgerelay/relay/agent/source"
)

// maxUsers is how many mailboxes one request of autodiscover may name. Source:
// Autodiscover web service reference, GetUserSettings (read 2026-11).
const maxUsers = 100

// endpoint is an address of autodiscover.
type endpoint struct {
	url   string
	plain bool // it speaks plain XML (POX), of one mailbox at a time; else SOAP
}

// The paths of autodiscover: SOAP's, which Exchange has since 2010, and that of
// plain XML, which older ones and grommunio have.
const (
	soapPath  = "/autodiscover/autodiscover.svc"
	plainPath = "/autodiscover/autodiscover.xml"
)

// discovery remembers where autodiscover has answered. It is safe for concurrent
// use.
type discovery struct{ found atomic.Pointer[endpoint] }

// atOnce is how many mailboxes may be asked for at once.
func (d *discovery) atOnce() int {
	if at := d.found.Load(); at != nil && !at.plain {
		return maxUsers
	}
	return 1
}

// discover asks autodiscover for mailboxes, where it has answered before, or else
// wherever it may be. The result has an entry for each mailbox, by its name in
// lower case, and where it is from.
func (s *Source) discover(ctx context.Context, l *connection, mailboxes []string) (found map[string]located, where *endpoint, err error) {
	known := s.discovery.found.Load()
	if known != nil {
		found, err = s.discoverAt(ctx, l, *known, mailboxes)
		s.metrics.requested(opLocate, err)
		if _, unlike := errors.AsType[*Error](err); err == nil || !unlike || isBusy(err) || s.config.explicit() {
			return found, known, wrapDiscovery(err)
		}
	}
	var errs []error
	for at, err := range s.config.endpoints(ctx) {
		if err == nil {
			found, err = s.discoverAt(ctx, l, at, mailboxes)
			s.metrics.requested(opLocate, err)
		}
		if err == nil {
			return found, &at, nil
		}
		errs = append(errs, err)
	}
	return nil, nil, wrapDiscovery(errors.Join(errs...))
}

func wrapDiscovery(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("autodiscover: %w", err)
}

// explicit says whether the address of autodiscover is configured.
func (c *Config) explicit() bool { return strings.Contains(c.Autodiscover, "://") }

// endpoints yields where autodiscover may be, or why a place is passed over.
// Source: Autodiscover for Exchange, "Generate a list of Autodiscover endpoints"
// (read 2026-11). The one over http is left out, a redirect that anybody on the
// network could give; and so is one that DNS names outside of the mail domain:
// passwords would go there.
func (c *Config) endpoints(ctx context.Context) iter.Seq2[endpoint, error] {
	return func(yield func(endpoint, error) bool) {
		if c.explicit() {
			yield(endpoint{c.Autodiscover, strings.HasSuffix(strings.ToLower(c.Autodiscover), ".xml")}, nil)
			return
		}
		both := func(host string) bool {
			return yield(endpoint{"https://" + host + soapPath, false}, nil) && yield(endpoint{"https://" + host + plainPath, true}, nil)
		}
		if !both("autodiscover."+c.Autodiscover) || !both(c.Autodiscover) {
			return
		}
		host, err := c.lookUp(ctx)
		if err != nil {
			yield(endpoint{}, err)
			return
		}
		both(host)
	}
}

// lookUp asks DNS for the domain's autodiscover.
func (c *Config) lookUp(ctx context.Context) (host string, err error) {
	look := c.LookupSRV
	if look == nil {
		look = net.DefaultResolver.LookupSRV
	}
	_, records, err := look(ctx, "autodiscover", "tcp", c.Autodiscover)
	if err != nil {
		return "", fmt.Errorf("look up SRV: %w", err)
	}
	if len(records) == 0 {
		return "", errors.New("look up SRV: no record")
	}
	target := strings.ToLower(strings.TrimSuffix(records[0].Target, "."))
	if domain := strings.ToLower(c.Autodiscover); target != domain && !strings.HasSuffix(target, "."+domain) {
		return "", fmt.Errorf("the SRV record names %s, which is outside of %s: set ews.autodiscover to https://%s%s if it is yours", target, domain, target, soapPath)
	}
	return net.JoinHostPort(target, strconv.Itoa(int(records[0].Port))), nil
}

// discoverAt asks at one address.
func (s *Source) discoverAt(ctx context.Context, l *connection, at endpoint, mailboxes []string) (map[string]located, error) {
	if !at.plain {
		text, err := s.askDiscovery(ctx, l, at.url, mailboxes[0], discoverBody(at.url, mailboxes))
		if err != nil {
			return nil, err
		}
		return parseSettings(text, mailboxes)
	}
	found := make(map[string]located)
	for _, mailbox := range mailboxes {
		text, err := s.askDiscovery(ctx, l, at.url, mailbox, plainBody(mailbox))
		if err != nil {
			return nil, err
		}
		f, err := parsePlain(text)
		if err != nil {
			return nil, err
		}
		found[strings.ToLower(mailbox)] = f
	}
	return found, nil
}

// askDiscovery sends one request for an XML document.
func (s *Source) askDiscovery(ctx context.Context, l *connection, url, anchor string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.timeout(), fmt.Errorf("no answer within %v", s.config.timeout()))
	defer cancel()
	leave, err := s.slots.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	answer, err := l.post(ctx, url, http.Header{"X-Anchormailbox": {anchor}}, body)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	defer drain(answer.Body)
	if answer.StatusCode != http.StatusOK {
		_, err := read(answer)
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxEnvelope+1))
	if err == nil && len(text) > maxEnvelope {
		err = &Error{Status: answer.StatusCode, Text: "the answer is too long"}
	}
	return text, err
}

func discoverBody(url string, mailboxes []string) []byte {
	var users strings.Builder
	for _, m := range mailboxes {
		users.WriteString("<a:User><a:Mailbox>" + escape(m) + "</a:Mailbox></a:User>")
	}
	return []byte(`<?xml version="1.0" encoding="utf-8"?>` +
		`<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/" xmlns:wsa="http://www.w3.org/2005/08/addressing"` +
		` xmlns:a="http://schemas.microsoft.com/exchange/2010/Autodiscover"><soap:Header>` +
		`<a:RequestedServerVersion>` + schema + `</a:RequestedServerVersion>` +
		`<wsa:Action>http://schemas.microsoft.com/exchange/2010/Autodiscover/Autodiscover/GetUserSettings</wsa:Action>` +
		`<wsa:To>` + escape(url) + `</wsa:To></soap:Header><soap:Body><a:GetUserSettingsRequestMessage><a:Request><a:Users>` + users.String() +
		`</a:Users><a:RequestedSettings><a:Setting>ExternalEwsUrl</a:Setting><a:Setting>InternalEwsUrl</a:Setting><a:Setting>GroupingInformation</a:Setting>` +
		`</a:RequestedSettings></a:Request></a:GetUserSettingsRequestMessage></soap:Body></soap:Envelope>`)
}

// parseSettings reads what autodiscover answers, in the order in which it was
// asked. Source: Autodiscover web service reference, GetUserSettings (read 2026-11).
func parseSettings(text []byte, mailboxes []string) (map[string]located, error) {
	var e struct {
		Fault *struct {
			Text string `xml:"faultstring"`
		} `xml:"Body>Fault"`
		Response struct {
			Code  string `xml:"ErrorCode"`
			Text  string `xml:"ErrorMessage"`
			Users []struct {
				Code     string `xml:"ErrorCode"`
				Text     string `xml:"ErrorMessage"`
				Redirect string `xml:"RedirectTarget"`
				Settings []struct {
					Name  string `xml:"Name"`
					Value string `xml:"Value"`
				} `xml:"UserSettings>UserSetting"`
			} `xml:"UserResponses>UserResponse"`
		} `xml:"Body>GetUserSettingsResponseMessage>Response"`
	}
	if err := xml.Unmarshal(text, &e); err != nil {
		return nil, &Error{Status: http.StatusOK, Text: "the answer holds no SOAP envelope"}
	}
	switch r := e.Response; {
	case e.Fault != nil:
		return nil, &Error{Status: http.StatusOK, Text: short(e.Fault.Text)}
	case r.Code != "" && r.Code != "NoError":
		code := r.Code
		if code == "ServerBusy" {
			code = "ErrorServerBusy"
		}
		return nil, &Error{Status: http.StatusOK, Code: code, Text: short(r.Text)}
	case len(r.Users) != len(mailboxes):
		return nil, &Error{Status: http.StatusOK, Text: fmt.Sprintf("the answer holds %d users, not %d", len(r.Users), len(mailboxes))}
	}
	found := make(map[string]located, len(mailboxes))
	for n, u := range e.Response.Users {
		var l located
		values := make(map[string]string)
		for _, setting := range u.Settings {
			values[setting.Name] = strings.TrimSpace(setting.Value)
		}
		l.place = place{url: or(values["ExternalEwsUrl"], values["InternalEwsUrl"]), key: values["GroupingInformation"], grouped: values["GroupingInformation"] != ""}
		switch {
		case u.Code == "RedirectAddress" || u.Code == "RedirectUrl":
			l.err = fmt.Errorf("%w: autodiscover says that it is elsewhere: %s", source.ErrMailbox, short(u.Redirect))
		case u.Code != "" && u.Code != "NoError":
			l.err = fmt.Errorf("%w: autodiscover says %s: %s", source.ErrMailbox, u.Code, short(u.Text))
		case l.place.url == "":
			l.err = fmt.Errorf("%w: autodiscover names no address of Exchange Web Services", source.ErrMailbox)
		default:
			if err := CheckURL(l.place.url); err != nil {
				l.err = errors.Join(source.ErrMailbox, err)
			}
		}
		found[strings.ToLower(mailboxes[n])] = l
	}
	return found, nil
}
