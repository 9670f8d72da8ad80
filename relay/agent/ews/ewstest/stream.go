package ewstest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// subscription belongs to Server.mu.
type subscription struct {
	id      string
	backEnd *backEnd
	mailbox *mailbox
	folders []*folder
	types   []string
	events  []event
	stream  *stream // that tells of it; nil: none
	deaf    bool    // it was made in a way that hears nothing
}

// stream is one hanging connection. Its fields belong to Server.mu, save the
// channels.
type stream struct {
	identity      string
	backEnd       *backEnd
	subscriptions []*subscription
	wake          chan struct{} // one slot
	end           chan bool     // one slot: end it, true: in order
	stalled       bool          // it tells nothing any more, and what happens is lost
	silent        bool          // it tells nothing any more
	page          bool          // a proxy's page comes next
}

// maxEvents is how many events one notification has at most.
const maxEvents = 50

func (s *Server) subscribe(c *call) string {
	request := c.operation.at("StreamingSubscriptionRequest")
	if request == nil || request.at("FolderIds") == nil || request.at("EventTypes") == nil {
		s.violateLocked("a subscription that is not a streaming one of some folders")
		return failed(c.name, "ErrorInvalidSubscriptionRequest", "", "")
	}
	sub := &subscription{deaf: c.header.at("ExchangeImpersonation", "ConnectingSID", "PrimarySmtpAddress") != nil}
	for _, t := range request.at("EventTypes").Children {
		sub.types = append(sub.types, strings.TrimSpace(t.Text))
	}
	if !slices.Contains(sub.types, "ModifiedEvent") {
		s.violateLocked("a subscription without ModifiedEvent never hears of what is read elsewhere")
	}
	for _, id := range request.at("FolderIds").Children {
		m, f, code := s.open(c, id)
		if code != "" {
			return failed(c.name, code, "", "")
		}
		if sub.mailbox != nil && sub.mailbox != m {
			s.violateLocked("a subscription for two mailboxes")
			return failed(c.name, "ErrorInvalidSubscriptionRequest", "", "")
		}
		sub.mailbox, sub.folders = m, append(sub.folders, f)
	}
	if sub.mailbox == nil {
		return failed(c.name, "ErrorInvalidSubscriptionRequest", "", "")
	}
	if len(sub.mailbox.subscriptions) >= or(s.config.Subscriptions, 5000) {
		return failed(c.name, "ErrorExceededSubscriptionCount", "", "")
	}
	s.number++
	sub.id = fmt.Sprintf("JgBl%s%08d=", c.backEnd.name, s.number)
	c.backEnd.subscriptions[sub.id] = sub
	sub.backEnd, sub.mailbox.subscriptions = c.backEnd, append(sub.mailbox.subscriptions, sub)
	return response(c.name, part(c.name, "", "<m:SubscriptionId>"+sub.id+"</m:SubscriptionId>"))
}

func (s *Server) unsubscribe(c *call) string {
	id := c.operation.text("SubscriptionId")
	sub := c.backEnd.subscriptions[id]
	if sub == nil {
		return failed(c.name, "ErrorSubscriptionNotFound", "", "")
	}
	s.drop(sub)
	return response(c.name, part(c.name, "", ""))
}

// drop ends a subscription; a stream that tells of it says so, and is silent
// then. The caller holds mu.
func (s *Server) drop(sub *subscription) {
	delete(sub.backEnd.subscriptions, sub.id)
	sub.mailbox.subscriptions = slices.DeleteFunc(sub.mailbox.subscriptions, func(other *subscription) bool { return other == sub })
	if sub.stream != nil {
		notify(sub.stream.wake)
	}
}

// lose drops the subscriptions of a mailbox. The caller holds mu.
func (s *Server) lose(m *mailbox) {
	for _, sub := range slices.Clone(m.subscriptions) {
		s.drop(sub)
	}
}

// openStream admits a stream; otherwise it returns the answer that refuses it.
// The caller holds mu.
func (s *Server) openStream(c *call) (st *stream, minutes int, refusal string) {
	ids := c.operation.at("SubscriptionIds")
	minutes, err := strconv.Atoi(c.operation.text("ConnectionTimeout"))
	if err != nil || minutes < 1 || minutes > 30 || ids == nil || len(ids.Children) == 0 {
		s.violateLocked("a stream of %q minutes; 1 to 30", c.operation.text("ConnectionTimeout"))
		return nil, 0, failed(c.name, "ErrorInvalidRequest", "", "")
	}
	if len(ids.Children) > 200 {
		s.violateLocked("a stream of %d subscriptions; at most 200", len(ids.Children))
		return nil, 0, failed(c.name, "ErrorInvalidSubscriptionRequest", "", "")
	}
	of := 0
	for other := range s.streams {
		if other.identity == c.identity {
			of++
		}
	}
	if of >= or(s.config.Streams, 10) {
		return nil, 0, failed(c.name, "ErrorExceededConnectionCount", "", "")
	}
	st = &stream{identity: c.identity, backEnd: c.backEnd, wake: make(chan struct{}, 1), end: make(chan bool, 1)}
	var lost []string
	for _, e := range ids.Children {
		id := strings.TrimSpace(e.Text)
		sub := c.backEnd.subscriptions[id]
		if sub == nil {
			lost = append(lost, id)
			continue
		}
		st.subscriptions = append(st.subscriptions, sub)
	}
	if len(lost) > 0 {
		return nil, 0, response(c.name, part(c.name, "ErrorSubscriptionNotFound", lostIDs(lost)))
	}
	for _, sub := range st.subscriptions {
		sub.stream = st
	}
	s.streams[st] = struct{}{}
	s.stats.MostStreams = max(s.stats.MostStreams, len(s.streams))
	notify(st.wake)
	return st, minutes, ""
}

func lostIDs(ids []string) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString("<t:SubscriptionId>" + id + "</t:SubscriptionId>")
	}
	return "<m:ErrorSubscriptionIds>" + b.String() + "</m:ErrorSubscriptionIds>"
}

func (s *Server) closeStream(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
	for _, sub := range st.subscriptions {
		if sub.stream == st {
			sub.stream = nil
		}
	}
}

// serveStream serves GetStreamingEvents.
func (s *Server) serveStream(c *call) {
	s.mu.Lock()
	st, minutes, refusal := s.openStream(c)
	down := s.down
	s.mu.Unlock()
	c.w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	out := &writer{s: s, w: c.w, flush: http.NewResponseController(c.w)}
	if refusal != "" {
		out.envelope(refusal)
		return
	}
	defer s.closeStream(st)
	out.envelope(response(c.name, part(c.name, "", "<m:ConnectionStatus>OK</m:ConnectionStatus>")))
	heartbeat := time.NewTicker(or(s.config.Heartbeat, 45*time.Second))
	defer heartbeat.Stop()
	timeout := time.NewTimer(time.Duration(minutes) * time.Minute)
	defer timeout.Stop()
	for {
		select {
		case <-st.wake:
		case <-heartbeat.C:
			if !s.isStalled(st) {
				out.envelope(s.status(st))
			}
			continue
		case <-timeout.C:
			out.envelope(response(c.name, part(c.name, "", "<m:ConnectionStatus>Closed</m:ConnectionStatus>")))
			return
		case inOrder := <-st.end:
			if inOrder {
				out.envelope(response(c.name, part(c.name, "", "<m:ConnectionStatus>Closed</m:ConnectionStatus>")))
				return
			}
			panic(http.ErrAbortHandler) // the connection is cut
		case <-c.r.Context().Done():
			return
		case <-down:
			panic(http.ErrAbortHandler)
		}
		page, bodies := s.pending(c.name, st)
		if page {
			out.page()
		}
		for _, body := range bodies {
			out.envelope(body)
		}
	}
}

func (s *Server) isStalled(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return st.stalled || st.silent
}

func (s *Server) status(st *stream) string {
	return response("GetStreamingEvents", part("GetStreamingEvents", "", fmt.Sprintf(
		"<m:Notifications><m:Notification><t:SubscriptionId>%s</t:SubscriptionId><t:MoreEvents>false</t:MoreEvents><t:StatusEvent/></m:Notification></m:Notifications>", st.subscriptions[0].id)))
}

// pending takes what a stream has to tell. A stalled one swallows it.
func (s *Server) pending(operation string, st *stream) (page bool, bodies []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.stalled {
		for _, sub := range st.subscriptions {
			sub.events = nil
		}
		return false, nil
	}
	if st.silent {
		return false, nil
	}
	page, st.page = st.page, false
	var lost []string
	now := time.Now()
	for _, sub := range st.subscriptions {
		if st.backEnd.subscriptions[sub.id] != sub {
			lost = append(lost, sub.id)
			continue
		}
		for len(sub.events) > 0 {
			n := min(len(sub.events), maxEvents)
			var b strings.Builder
			for _, e := range sub.events[:n] {
				b.WriteString(e.xml(now))
			}
			sub.events = sub.events[n:]
			bodies = append(bodies, response(operation, part(operation, "", fmt.Sprintf(
				"<m:Notifications><m:Notification><t:SubscriptionId>%s</t:SubscriptionId><t:MoreEvents>%v</t:MoreEvents>%s</m:Notification></m:Notifications>", sub.id, len(sub.events) > 0, b.String()))))
		}
	}
	if len(lost) > 0 { // the good ones' news stays with their subscriptions
		st.silent = true
		bodies = append(bodies, response(operation, part(operation, "ErrorReadEventsFailed", lostIDs(lost))))
	}
	return page, bodies
}

// writer writes a stream's envelopes, with the faults of the server.
type writer struct {
	s     *Server
	w     http.ResponseWriter
	flush *http.ResponseController
}

// envelope writes an envelope as Exchange does: without a prefix, and the next
// one right behind it.
func (o *writer) envelope(body string) {
	o.s.mu.Lock()
	cut, declare, mute := o.s.faults.Cut, o.s.faults.Declare, o.s.faults.Mute
	o.s.mu.Unlock()
	if mute {
		return
	}
	text := fmt.Sprintf(`<Envelope xmlns=%q><soap11:Header xmlns:soap11=%q><ServerVersionInfo xmlns=%q MajorVersion="15" MinorVersion="2" MajorBuildNumber="2562" MinorBuildNumber="17" Version="V2017_07_11"/></soap11:Header><soap11:Body xmlns:soap11=%q>%s</soap11:Body></Envelope>`,
		soapSpace, soapSpace, typesSpace, soapSpace, body)
	if declare {
		text = "\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n" + text + "\r\n"
	}
	o.write(text, cut)
}

// page writes what a proxy puts into a stream.
func (o *writer) page() {
	o.write("<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title><meta charset=utf-8></head><body><h1>Bad Gateway</h1><p>try &nbsp; again<br></body></html>\n", 0)
}

func (o *writer) write(text string, cut int) {
	for len(text) > 0 {
		n := len(text)
		if cut > 0 {
			n = min(cut, n)
		}
		if _, err := o.w.Write([]byte(text[:n])); err != nil {
			return
		}
		if err := o.flush.Flush(); err != nil {
			return
		}
		text = text[n:]
	}
}
