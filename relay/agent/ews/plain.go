package ews

import (
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"badgerelay/relay/agent/source"
)

// plainBody asks for one mailbox in plain XML. Source: POX Autodiscover web service
// reference, "Autodiscover request (POX)" (read 2026-11).
func plainBody(mailbox string) []byte {
	return []byte(`<?xml version="1.0" encoding="utf-8"?>` +
		`<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006"><Request>` +
		`<EMailAddress>` + escape(mailbox) + `</EMailAddress>` +
		`<AcceptableResponseSchema>http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a</AcceptableResponseSchema>` +
		`</Request></Autodiscover>`)
}

// plainUnknown is the code for a mailbox that is not there.
const plainUnknown = "500"

// parsePlain reads the answer. Source: POX Autodiscover web service reference,
// "Autodiscover response (POX)" (read 2026-11).
func parsePlain(text []byte) (located, error) {
	var e struct {
		XMLName  xml.Name
		Response struct {
			Error *struct {
				Code string `xml:"ErrorCode"`
				Text string `xml:"Message"`
			} `xml:"Error"`
			Account struct {
				Action    string `xml:"Action"`
				Address   string `xml:"RedirectAddr"`
				URL       string `xml:"RedirectUrl"`
				Protocols []struct {
					Type string `xml:"Type"`
					EWS  string `xml:"EwsUrl"`
				} `xml:"Protocol"`
			} `xml:"Account"`
		} `xml:"Response"`
	}
	if err := xml.Unmarshal(text, &e); err != nil || e.XMLName.Local != "Autodiscover" {
		return located{}, &Error{Status: http.StatusOK, Text: "the answer is not autodiscover's"}
	}
	account := e.Response.Account
	var l located
	for _, kind := range []string{"EXPR", "EXHTTP", "EXCH"} { // from outside, from anywhere, from inside
		for _, p := range account.Protocols {
			if strings.EqualFold(p.Type, kind) && l.place.url == "" {
				l.place.url = strings.TrimSpace(p.EWS)
			}
		}
	}
	switch failed := e.Response.Error; {
	case failed != nil && failed.Code == plainUnknown:
		l.err = fmt.Errorf("%w: autodiscover says %s", source.ErrMailbox, short(failed.Text))
	case failed != nil:
		return l, &Error{Status: http.StatusOK, Text: short("autodiscover says " + failed.Code + ": " + failed.Text)}
	case strings.HasPrefix(strings.ToLower(account.Action), "redirect"):
		l.err = fmt.Errorf("%w: autodiscover says that it is elsewhere: %s", source.ErrMailbox, short(account.Address+account.URL))
	case l.place.url == "":
		l.err = fmt.Errorf("%w: autodiscover names no address of Exchange Web Services", source.ErrMailbox)
	default:
		if err := CheckURL(l.place.url); err != nil {
			l.err = errors.Join(source.ErrMailbox, err)
		}
	}
	return l, nil
}
