package ews

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// What the server answers, as far as a count needs it. Elements are matched by
// their local names: the namespaces say nothing more here.
// Source: Exchange Web Services reference, Subscribe, GetStreamingEvents,
// GetFolder, "ResponseMessages" and "MessageXml" (read 2026-11).
type (
	envelope struct {
		Body struct {
			Fault  *fault `xml:"Fault"`
			Answer struct {
				Messages struct {
					All []message `xml:",any"`
				} `xml:"ResponseMessages"`
			} `xml:",any"`
		} `xml:"Body"`
	}

	// fault is a request refused as a whole.
	fault struct {
		Code   string  `xml:"faultcode"`
		Text   string  `xml:"faultstring"`
		Detail string  `xml:"detail>ResponseCode"`
		Values []value `xml:"detail>MessageXml>Value"`
	}

	// message is the answer to one part of a request.
	message struct {
		Class         string         `xml:"ResponseClass,attr"`
		Text          string         `xml:"MessageText"`
		Code          string         `xml:"ResponseCode"`
		Values        []value        `xml:"MessageXml>Value"`
		Subscription  string         `xml:"SubscriptionId"`
		Lost          []string       `xml:"ErrorSubscriptionIds>SubscriptionId"`
		Status        string         `xml:"ConnectionStatus"`
		Notifications []notification `xml:"Notifications>Notification"`
		Folders       struct {
			All []folder `xml:",any"`
		} `xml:"Folders"`
		Root struct { // of FindFolder
			Folders struct {
				All []folder `xml:",any"`
			} `xml:"Folders"`
		} `xml:"RootFolder"`
	}

	// notification tells of one subscription, at most 50 events at once.
	notification struct {
		Subscription string  `xml:"SubscriptionId"`
		More         string  `xml:"MoreEvents"`
		Events       []event `xml:",any"`
	}

	event struct {
		XMLName xml.Name
		Folder  id     `xml:"FolderId"`
		Unread  string `xml:"UnreadCount"`
	}

	folder struct {
		Folder id     `xml:"FolderId"`
		Unread string `xml:"UnreadCount"`
	}

	id struct {
		ID string `xml:"Id,attr"`
	}

	value struct {
		Name string `xml:"Name,attr"`
		Text string `xml:",chardata"`
	}
)

// Error is what the server says instead of doing what it was asked for.
type Error struct {
	Code    string        // such as ErrorServerBusy; empty: it gave none
	Text    string        // its words
	Status  int           // of HTTP
	BackOff time.Duration // how long it asks to be left alone; 0: it does not say
}

// Error returns the code with the server's words.
func (e *Error) Error() string {
	said := e.Code
	if said == "" {
		said = fmt.Sprintf("HTTP status %d", e.Status)
	}
	if e.Text != "" {
		said += ": " + e.Text
	}
	return said
}

// maxBackOff bounds what a server may ask for. Ours: Exchange's own are below
// five minutes.
const maxBackOff = time.Hour

// parse reads one envelope. A fault is returned as an *Error.
func parse(text []byte) ([]message, error) {
	var e envelope
	if err := xml.Unmarshal(text, &e); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if f := e.Body.Fault; f != nil {
		code := f.Detail
		if code == "" {
			_, code, _ = strings.Cut(f.Code, ":")
		}
		return nil, &Error{Code: code, Text: short(f.Text), BackOff: backOff(f.Values)}
	}
	return e.Body.Answer.Messages.All, nil
}

// failure is what is wrong with a part of a request; nil: nothing.
func (m *message) failure() *Error {
	if m.Class != "Error" && (m.Code == "" || m.Code == "NoError") {
		return nil
	}
	return &Error{Code: m.Code, Text: short(m.Text), Status: 200, BackOff: backOff(m.Values)}
}

func backOff(values []value) time.Duration {
	for _, v := range values {
		if v.Name != "BackOffMilliseconds" {
			continue
		}
		ms, err := strconv.ParseFloat(strings.TrimSpace(v.Text), 64)
		if err != nil || ms <= 0 {
			return 0
		}
		return time.Duration(min(ms, float64(maxBackOff.Milliseconds()))) * time.Millisecond
	}
	return 0
}

// unread reads an UnreadCount; the schema makes it optional.
func unread(text string) (uint32, bool) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	if err != nil || n > math.MaxInt32 {
		return 0, false
	}
	return uint32(n), true
}

// isEvent says whether the element is an event, and not of the notification's
// own fields.
func (e *event) isEvent() bool { return strings.HasSuffix(e.XMLName.Local, "Event") }

// short keeps a server's words to a line of a log.
func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + " ..."
	}
	return s
}

// readOne reads the answer to a short request.
func readOne(body io.Reader, status int) ([]message, error) {
	text, err := newFrames(io.LimitReader(body, maxEnvelope), maxEnvelope).next()
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, &Error{Status: status, Text: "the answer holds no SOAP envelope"}
		}
		return nil, err
	}
	messages, err := parse(text)
	if e, ok := errors.AsType[*Error](err); ok {
		e.Status = status
	}
	return messages, err
}
