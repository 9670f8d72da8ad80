package ews

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"badgerelay/relay/agent/source"
)

// place is where a mailbox is to be found.
type place struct {
	url string
	key string // mailboxes of the same url and key may share a stream
}

// maxGenerations is how many servers behind one URL a mailbox is looked for on
// without a pause. Ours.
const maxGenerations = 8

// maxUsers is how many mailboxes one request of autodiscover may name. Source:
// Autodiscover web service reference, GetUserSettings (read 2026-11).
const maxUsers = 100

// locate finds the places of a mailbox, and of others that have none.
func (s *Source) locate(ctx context.Context, l *lane, b *box) {
	if s.config.Autodiscover == "" {
		s.gate.leave()
		s.mu.Lock()
		if !b.gone {
			s.place(b, place{s.config.URL, fmt.Sprint(b.generation % maxGenerations)})
		}
		s.mu.Unlock()
		s.finish(b, done, nil)
		return
	}
	all := append(s.takeUnplaced(maxUsers-1, time.Now()), b)
	found, err := s.discover(ctx, l, names(all))
	verdict := s.judge(ctx, b.mailbox, err)
	for _, b := range all {
		f := found[strings.ToLower(b.mailbox)]
		switch {
		case err != nil:
			s.finish(b, verdict, err)
		case f.err != nil:
			s.finish(b, mailboxRefused, f.err)
		default:
			s.mu.Lock()
			if !b.gone && b.group == nil {
				s.place(b, f.place)
			}
			s.mu.Unlock()
			s.finish(b, done, nil)
		}
	}
}

// locateOne finds the place of one mailbox.
func (s *Source) locateOne(ctx context.Context, l *lane, mailbox string) (place, error) {
	if s.config.Autodiscover == "" {
		return place{url: s.config.URL}, nil
	}
	found, err := s.discover(ctx, l, []string{mailbox})
	if err != nil {
		return place{}, err
	}
	f := found[strings.ToLower(mailbox)]
	return f.place, f.err
}

// located is what autodiscover says of a mailbox.
type located struct {
	place place
	err   error
}

// discover asks autodiscover for mailboxes. The result has an entry for each, by
// its name in lower case.
func (s *Source) discover(ctx context.Context, l *lane, mailboxes []string) (found map[string]located, err error) {
	for _, url := range s.config.discoverURLs() {
		found, err = s.discoverAt(ctx, l, url, mailboxes)
		s.metrics.requested(opLocate, err)
		if err == nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("autodiscover: %w", err)
}

// discoverURLs returns the addresses of autodiscover. Source: Autodiscover for
// Exchange, "Defining the candidate pool" (read 2026-11); the one over http, a
// redirect that anybody on the network could give, is left out.
func (c *Config) discoverURLs() []string {
	if strings.Contains(c.Autodiscover, "://") {
		return []string{c.Autodiscover}
	}
	const path = "/autodiscover/autodiscover.svc"
	return []string{"https://autodiscover." + c.Autodiscover + path, "https://" + c.Autodiscover + path}
}

func (s *Source) discoverAt(ctx context.Context, l *lane, url string, mailboxes []string) (map[string]located, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.timeout(), fmt.Errorf("no answer within %v", s.config.timeout()))
	defer cancel()
	leave, err := s.slots.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	answer, err := l.post(ctx, url, http.Header{"X-Anchormailbox": {mailboxes[0]}}, discoverBody(url, mailboxes))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	defer drain(answer.Body)
	if answer.StatusCode != http.StatusOK {
		_, err := read(answer)
		return nil, err
	}
	text, err := newFrames(io.LimitReader(answer.Body, maxEnvelope), maxEnvelope).next()
	if err != nil {
		return nil, &Error{Status: answer.StatusCode, Text: "the answer holds no SOAP envelope"}
	}
	return parseSettings(text, mailboxes)
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
		return nil, fmt.Errorf("read answer: %w", err)
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
		l.place = place{url: or(values["ExternalEwsUrl"], values["InternalEwsUrl"]), key: values["GroupingInformation"]}
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
