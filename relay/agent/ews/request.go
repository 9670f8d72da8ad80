package ews

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
)

// eventTypes are those that change what is unread, in any way: with NewMail
// alone nothing tells that mail was read elsewhere.
var eventTypes = []string{"NewMailEvent", "CreatedEvent", "DeletedEvent", "ModifiedEvent", "MovedEvent", "CopiedEvent"}

// schema is the version of the schema that requests are written in: the first
// whose servers route by X-AnchorMailbox.
const schema = "Exchange2013"

// soap writes a request on behalf of a mailbox. Where it is impersonated, so
// says the header; empty: nobody is.
func soap(impersonated, body string) []byte {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="utf-8"?>` +
		`<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"` +
		` xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types"` +
		` xmlns:m="http://schemas.microsoft.com/exchange/services/2006/messages">` +
		`<soap:Header><t:RequestServerVersion Version="` + schema + `"/>`)
	if impersonated != "" {
		fmt.Fprintf(&b, `<t:ExchangeImpersonation><t:ConnectingSID><t:SmtpAddress>%s</t:SmtpAddress></t:ConnectingSID></t:ExchangeImpersonation>`, escape(impersonated))
	}
	b.WriteString(`</soap:Header><soap:Body>` + body + `</soap:Body></soap:Envelope>`)
	return b.Bytes()
}

// folderID is one folder of a mailbox: a name that every mailbox knows, such as
// inbox, or an id that the server gave.
type folderID struct{ wellKnown, id string }

// write writes the folder's id. With mailbox it is a folder of another's
// mailbox, which the caller has rights to.
func (f folderID) write(mailbox string) string {
	if f.id != "" { // it says itself whose it is
		return fmt.Sprintf(`<t:FolderId Id="%s"/>`, escape(f.id))
	}
	if mailbox == "" {
		return fmt.Sprintf(`<t:DistinguishedFolderId Id="%s"/>`, escape(f.wellKnown))
	}
	return fmt.Sprintf(`<t:DistinguishedFolderId Id="%s"><t:Mailbox><t:EmailAddress>%s</t:EmailAddress></t:Mailbox></t:DistinguishedFolderId>`,
		escape(f.wellKnown), escape(mailbox))
}

func writeFolders(folders []folderID, mailbox string) string {
	var b strings.Builder
	for _, f := range folders {
		b.WriteString(f.write(mailbox))
	}
	return b.String()
}

func subscribeBody(folders []folderID, mailbox string) string {
	var types strings.Builder
	for _, t := range eventTypes {
		types.WriteString("<t:EventType>" + t + "</t:EventType>")
	}
	return "<m:Subscribe><m:StreamingSubscriptionRequest><t:FolderIds>" + writeFolders(folders, mailbox) +
		"</t:FolderIds><t:EventTypes>" + types.String() + "</t:EventTypes></m:StreamingSubscriptionRequest></m:Subscribe>"
}

func streamBody(subscriptions []string, minutes int) string {
	var ids strings.Builder
	for _, s := range subscriptions {
		ids.WriteString("<t:SubscriptionId>" + escape(s) + "</t:SubscriptionId>")
	}
	return fmt.Sprintf("<m:GetStreamingEvents><m:SubscriptionIds>%s</m:SubscriptionIds><m:ConnectionTimeout>%d</m:ConnectionTimeout></m:GetStreamingEvents>", ids.String(), minutes)
}

func unsubscribeBody(subscription string) string {
	return "<m:Unsubscribe><m:SubscriptionId>" + escape(subscription) + "</m:SubscriptionId></m:Unsubscribe>"
}

func countBody(folders []folderID, mailbox string) string {
	return `<m:GetFolder><m:FolderShape><t:BaseShape>IdOnly</t:BaseShape><t:AdditionalProperties><t:FieldURI FieldURI="folder:UnreadCount"/>` +
		"</t:AdditionalProperties></m:FolderShape><m:FolderIds>" + writeFolders(folders, mailbox) + "</m:FolderIds></m:GetFolder>"
}

// findBody asks for the folder of that name directly below parent.
func findBody(parent folderID, name, mailbox string) string {
	return `<m:FindFolder Traversal="Shallow"><m:FolderShape><t:BaseShape>IdOnly</t:BaseShape></m:FolderShape>` +
		`<m:Restriction><t:IsEqualTo><t:FieldURI FieldURI="folder:DisplayName"/><t:FieldURIOrConstant><t:Constant Value="` + escape(name) +
		`"/></t:FieldURIOrConstant></t:IsEqualTo></m:Restriction><m:ParentFolderIds>` + parent.write(mailbox) + `</m:ParentFolderIds></m:FindFolder>`
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}
