package ewstest

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// affinity is the cookie by which a client stays with a back end.
const affinity = "X-BackEndOverrideCookie"

const (
	// enoughTold is how many identities may ask a busy server before a client
	// should have understood that it is not one mailbox's limit.
	enoughTold = 4
	// inFlight is how long requests may have been on their way, and mostInFlight
	// how many of an identity.
	inFlight     = 10 * time.Millisecond
	mostInFlight = 4
)

// knowsBusy says whether a client should know that it is to leave the server
// alone for an identity. The caller holds mu.
func (s *Server) knowsBusy(identity string) bool {
	answers := s.told[identity]
	if len(answers) == 0 {
		return len(s.told) >= enoughTold
	}
	return time.Since(answers[0]) > inFlight || len(answers) > mostInFlight
}

// call is one request, as it is worked on.
type call struct {
	s         *Server
	w         http.ResponseWriter
	r         *http.Request
	header    *element
	operation *element
	name      string   // the operation's
	actor     *mailbox // who is impersonated; nil: nobody, the service account acts
	identity  string   // who is charged
	backEnd   *backEnd
}

// operate serves Exchange Web Services.
func (s *Server) operate(w http.ResponseWriter, r *http.Request) {
	header, operation, err := parseRequest(r.Body)
	if err != nil {
		s.violate("%v", err)
		fault(w, http.StatusInternalServerError, "ErrorSchemaValidation", err.Error(), 0)
		return
	}
	c := &call{s: s, w: w, r: r, header: header, operation: operation, name: operation.XMLName.Local}
	s.mu.Lock()
	s.stats.Requests[c.name]++
	refusal := s.enter(c)
	var hanging chan struct{}
	if refusal == nil && c.actor != nil {
		hanging = c.actor.hanging
	}
	s.mu.Unlock()
	defer s.leave(c)
	if refusal != nil {
		refusal(c)
		return
	}
	if hanging != nil {
		select {
		case <-hanging:
		case <-r.Context().Done():
			return
		}
	}
	if c.name == "GetStreamingEvents" {
		s.serveStream(c)
		return
	}
	s.mu.Lock()
	body := s.answer(c)
	s.mu.Unlock()
	c.send(body)
}

// enter routes and admits a request. It returns how it is refused; nil: it is
// not. The caller holds mu.
func (s *Server) enter(c *call) func(*call) {
	if c.r.Header.Get(affinity) != "" {
		s.violateLocked("%s is a header, not a cookie", affinity)
	}
	if c.r.Header.Get("X-AnchorMailbox") == "" && len(s.backEnds) > 1 {
		s.violateLocked("%s has no X-AnchorMailbox", c.name)
	}
	if c.name != "GetStreamingEvents" {
		s.requests++
		s.stats.MostAtOnce = max(s.stats.MostAtOnce, s.requests)
	}
	sid := c.header.at("ExchangeImpersonation", "ConnectingSID")
	if sid != nil {
		address := strings.TrimSpace(sid.Children[0].Text)
		if c.actor = s.find(address); c.actor == nil {
			return refuse("ErrorNonExistentMailbox", "The SMTP address has no mailbox associated with it.")
		}
		if sid.Children[0].XMLName.Local == "PrimarySmtpAddress" && c.name == "Subscribe" {
			s.violateLocked("a subscription by PrimarySmtpAddress hears nothing; use SmtpAddress")
		}
		if s.config.NoImpersonation || c.actor.refused {
			return refuse("ErrorImpersonateUserDenied", "The account does not have permission to impersonate the requested user.")
		}
		c.identity = strings.ToLower(c.actor.address)
	}
	s.route(c)
	if until := latest(s.busyUntil[""], s.busyUntil[c.identity]); time.Now().Before(until) {
		if s.knowsBusy(c.identity) {
			s.violateLocked("%s for %q came %v before the end of the back-off", c.name, c.identity, time.Until(until).Round(time.Millisecond))
		}
		s.told[c.identity] = append(s.told[c.identity], time.Now())
		return busy(time.Until(until), http.StatusInternalServerError)
	}
	if b := s.faults.takeBusy(c); b != nil {
		s.busyUntil[b.key(c)] = time.Now().Add(b.BackOff)
		if b.Mailbox == "" {
			clear(s.told)
		}
		s.told[c.identity] = []time.Time{time.Now()}
		return busy(b.BackOff, b.Status)
	}
	if most := or(s.config.Requests, 27); s.requests > most {
		s.violateLocked("more than %d requests at once", most)
		return busy(time.Second, http.StatusServiceUnavailable)
	}
	return nil
}

func (s *Server) leave(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.name != "GetStreamingEvents" {
		s.requests--
	}
}

// route picks the back end: the affinity's, or the anchor's. The caller holds mu.
func (s *Server) route(c *call) {
	home := 0
	if c.actor != nil {
		home = c.actor.home
	}
	if anchor := s.find(c.r.Header.Get("X-AnchorMailbox")); anchor != nil {
		home = anchor.home
	}
	c.backEnd = s.backEnds[home]
	if cookie, err := c.r.Cookie(affinity); err == nil {
		if at := slices.IndexFunc(s.backEnds, func(b *backEnd) bool { return b.name == cookie.Value }); at >= 0 {
			c.backEnd = s.backEnds[at]
		}
	}
	if s.faults.LoseAffinity > 0 && len(s.backEnds) > 1 {
		s.faults.LoseAffinity--
		at := slices.Index(s.backEnds, c.backEnd)
		c.backEnd = s.backEnds[(at+1)%len(s.backEnds)]
	}
	if strings.EqualFold(c.r.Header.Get("X-PreferServerAffinity"), "true") {
		http.SetCookie(c.w, &http.Cookie{Name: affinity, Value: c.backEnd.name, Path: "/", HttpOnly: true})
	}
	c.w.Header().Set("X-BEServer", c.backEnd.name)
}

// answer does an operation and returns the answer's body. The caller holds mu.
func (s *Server) answer(c *call) string {
	switch c.name {
	case "Subscribe":
		return s.subscribe(c)
	case "Unsubscribe":
		return s.unsubscribe(c)
	case "GetFolder":
		return s.getFolder(c)
	case "FindFolder":
		return s.findFolder(c)
	}
	return failed(c.name, "ErrorInvalidRequest", "The simulator does not have the operation.", "")
}

// owner returns whose folder an id names, and why it may not be opened. The
// caller holds mu.
func (s *Server) open(c *call, id *element) (*mailbox, *folder, string) {
	m := c.actor
	if other := id.text("Mailbox", "EmailAddress"); other != "" {
		m = s.find(other)
	}
	if id.XMLName.Local == "FolderId" {
		m = s.byFolder[id.attr("Id")]
	}
	switch {
	case m == nil && c.actor == nil && id.at("Mailbox") == nil:
		return nil, nil, "ErrorMissingEmailAddress" // the service account has no mailbox
	case m == nil:
		return nil, nil, "ErrorNonExistentMailbox"
	case m != c.actor && (s.config.NoDelegation || m.refused):
		return nil, nil, "ErrorAccessDenied"
	case s.backEnds[m.home] != c.backEnd:
		return nil, nil, "ErrorProxyRequestNotAllowed"
	}
	f := m.folder(id.attr("Id"))
	if f == nil {
		return nil, nil, "ErrorFolderNotFound"
	}
	return m, f, ""
}

func (s *Server) getFolder(c *call) string {
	var parts strings.Builder
	wantsUnread := false
	if properties := c.operation.at("FolderShape", "AdditionalProperties"); properties != nil {
		for _, p := range properties.Children {
			wantsUnread = wantsUnread || p.attr("FieldURI") == "folder:UnreadCount"
		}
	}
	for _, id := range c.operation.at("FolderIds").Children {
		m, f, code := s.open(c, id)
		if code != "" {
			parts.WriteString(part(c.name, code, ""))
			continue
		}
		count := ""
		if wantsUnread {
			count = fmt.Sprintf("<t:UnreadCount>%d</t:UnreadCount>", m.unread(f))
		}
		parts.WriteString(part(c.name, "", fmt.Sprintf(`<m:Folders><t:Folder><t:FolderId Id="%s" ChangeKey="AQAAAA=="/>%s</t:Folder></m:Folders>`, f.id, count)))
	}
	return response(c.name, parts.String())
}

func (s *Server) findFolder(c *call) string {
	m, parent, code := s.open(c, c.operation.at("ParentFolderIds").Children[0])
	if code != "" {
		return failed(c.name, code, "", "")
	}
	name := c.operation.at("Restriction", "IsEqualTo", "FieldURIOrConstant", "Constant")
	var found []string
	for _, f := range m.folders {
		if f.parent == parent.id && (name == nil || strings.EqualFold(f.name, name.attr("Value"))) {
			found = append(found, fmt.Sprintf(`<t:Folder><t:FolderId Id="%s" ChangeKey="AQAAAA=="/></t:Folder>`, f.id))
		}
	}
	return response(c.name, part(c.name, "", fmt.Sprintf(`<m:RootFolder TotalItemsInView="%d" IncludesLastItemInRange="true"><t:Folders>%s</t:Folders></m:RootFolder>`, len(found), strings.Join(found, ""))))
}

// response wraps the parts of an answer.
func response(operation, parts string) string {
	return fmt.Sprintf("<m:%sResponse xmlns:m=%q xmlns:t=%q><m:ResponseMessages>%s</m:ResponseMessages></m:%sResponse>", operation, messagesSpace, typesSpace, parts, operation)
}

// part is one part: a success, or an error of that code.
func part(operation, code, body string) string {
	if code == "" {
		return fmt.Sprintf(`<m:%sResponseMessage ResponseClass="Success"><m:ResponseCode>NoError</m:ResponseCode>%s</m:%sResponseMessage>`, operation, body, operation)
	}
	return fmt.Sprintf(`<m:%sResponseMessage ResponseClass="Error"><m:MessageText>%s.</m:MessageText><m:ResponseCode>%s</m:ResponseCode><m:DescriptiveLinkKey>0</m:DescriptiveLinkKey>%s</m:%sResponseMessage>`,
		operation, code, code, body, operation)
}

func failed(operation, code, _, body string) string {
	return response(operation, part(operation, code, body))
}

// send sends the answer to a short request.
func (c *call) send(body string) {
	c.w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	_, _ = fmt.Fprintf(c.w, `<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s=%q><s:Header><h:ServerVersionInfo MajorVersion="15" MinorVersion="2" MajorBuildNumber="2562" MinorBuildNumber="17" Version="V2017_07_11" xmlns:h=%q/></s:Header><s:Body>%s</s:Body></s:Envelope>`,
		soapSpace, typesSpace, body) // who is gone hears nothing
}

func refuse(code, text string) func(*call) {
	return func(c *call) { fault(c.w, http.StatusInternalServerError, code, text, 0) }
}

// busy refuses with ErrorServerBusy: as a fault, or as an error in an answer.
func busy(d time.Duration, status int) func(*call) {
	return func(c *call) {
		if status != http.StatusOK {
			fault(c.w, status, "ErrorServerBusy", "The server cannot service this request right now. Try again later.", d)
			return
		}
		c.send(failed(c.name, "ErrorServerBusy", "", "<m:MessageXml>"+backOff(d)+"</m:MessageXml>"))
	}
}

func backOff(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return fmt.Sprintf(`<t:Value Name="BackOffMilliseconds" xmlns:t=%q>%s</t:Value>`, typesSpace, strconv.FormatInt(d.Milliseconds(), 10))
}

// fault refuses a request as a whole.
func fault(w http.ResponseWriter, status int, code, text string, back time.Duration) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(status)
	var escaped strings.Builder
	_ = xml.EscapeText(&escaped, []byte(text)) // a strings.Builder takes everything
	detail := ""
	if back > 0 {
		detail = fmt.Sprintf(`<t:MessageXml xmlns:t=%q>%s</t:MessageXml>`, typesSpace, backOff(back))
	}
	_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s=%q><s:Body><s:Fault><faultcode xmlns:a=%q>a:%s</faultcode><faultstring xml:lang="en-US">%s</faultstring><detail><e:ResponseCode xmlns:e="http://schemas.microsoft.com/exchange/services/2006/errors">%s</e:ResponseCode><e:Message xmlns:e="http://schemas.microsoft.com/exchange/services/2006/errors">%s</e:Message>%s</detail></s:Fault></s:Body></s:Envelope>`,
		soapSpace, typesSpace, code, escaped.String(), code, escaped.String(), detail) // who is gone hears nothing
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
