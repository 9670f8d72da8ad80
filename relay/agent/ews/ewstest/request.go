package ewstest

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// element is a request's element, as it was sent.
type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Text     string     `xml:",chardata"`
	Children []*element `xml:",any"`
}

func (e *element) attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// at returns the element at a path of local names; nil: there is none.
func (e *element) at(path ...string) *element {
	for _, name := range path {
		if e == nil {
			return nil
		}
		at := slices.IndexFunc(e.Children, func(c *element) bool { return c.XMLName.Local == name })
		if at < 0 {
			return nil
		}
		e = e.Children[at]
	}
	return e
}

func (e *element) text(path ...string) string {
	found := e.at(path...)
	if found == nil {
		return ""
	}
	return strings.TrimSpace(found.Text)
}

const (
	soapSpace     = "http://schemas.xmlsoap.org/soap/envelope/"
	typesSpace    = "http://schemas.microsoft.com/exchange/services/2006/types"
	messagesSpace = "http://schemas.microsoft.com/exchange/services/2006/messages"
)

// schema is what may stand in an element, in this order: Exchange validates
// requests, and the order of elements is what clients get wrong. Elements that
// are not here are not looked into.
// Source: the schemas messages.xsd and types.xsd that every Exchange serves
// beside its Exchange.asmx (2013).
var schema = map[string][]string{
	"Envelope":                     {"Header", "Body"},
	"Subscribe":                    {"PullSubscriptionRequest", "PushSubscriptionRequest", "StreamingSubscriptionRequest"},
	"StreamingSubscriptionRequest": {"FolderIds", "EventTypes"},
	"GetStreamingEvents":           {"SubscriptionIds", "ConnectionTimeout"},
	"Unsubscribe":                  {"SubscriptionId"},
	"GetFolder":                    {"FolderShape", "FolderIds"},
	"FolderShape":                  {"BaseShape", "AdditionalProperties"},
	"FindFolder":                   {"FolderShape", "IndexedPageFolderView", "FractionalPageFolderView", "Restriction", "ParentFolderIds"},
	"ExchangeImpersonation":        {"ConnectingSID"},
	"ConnectingSID":                {"PrincipalName", "SID", "PrimarySmtpAddress", "SmtpAddress"},
	"Mailbox":                      {"Name", "EmailAddress", "RoutingType", "MailboxType"},
}

// check says where an element breaks the schema.
func (e *element) check() error {
	order, known := schema[e.XMLName.Local]
	last := -1
	for _, c := range e.Children {
		if known {
			at := slices.Index(order, c.XMLName.Local)
			if at < 0 {
				return fmt.Errorf("the element '%s' has an invalid child element '%s'", e.XMLName.Local, c.XMLName.Local)
			}
			if at <= last {
				return fmt.Errorf("the element '%s' has '%s' in the wrong place", e.XMLName.Local, c.XMLName.Local)
			}
			last = at
		}
		if err := c.check(); err != nil {
			return err
		}
	}
	return nil
}

// maxRequest bounds a request, in bytes.
const maxRequest = 1 << 20

// parseRequest reads a request: its header and the operation.
func parseRequest(r io.Reader) (header, operation *element, err error) {
	var e element
	if err := xml.NewDecoder(io.LimitReader(r, maxRequest)).Decode(&e); err != nil {
		return nil, nil, fmt.Errorf("the request failed schema validation: %w", err)
	}
	if e.XMLName.Space != soapSpace || e.XMLName.Local != "Envelope" {
		return nil, nil, errors.New("the request is not a SOAP envelope")
	}
	if err := e.check(); err != nil {
		return nil, nil, fmt.Errorf("the request failed schema validation: %w", err)
	}
	body := e.at("Body")
	if body == nil || len(body.Children) != 1 {
		return nil, nil, errors.New("the body holds not one operation")
	}
	header = e.at("Header")
	if header == nil {
		header = new(element)
	}
	return header, body.Children[0], nil
}
