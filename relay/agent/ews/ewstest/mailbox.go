package ewstest

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The folders that every mailbox has, by the names that requests may use.
var wellKnown = map[string]string{
	"msgfolderroot": "", "inbox": "Inbox", "junkemail": "Junk Email", "drafts": "Drafts", "sentitems": "Sent Items", "deleteditems": "Deleted Items",
}

// mailbox belongs to Server.mu.
type mailbox struct {
	address       string
	home          int // the back end that it lives on
	folders       []*folder
	messages      []*message
	subscriptions []*subscription // on all back ends
	refused       bool            // nobody may act for it
	hanging       chan struct{}   // requests for it wait until this is closed
}

type folder struct {
	id, name, parent string
	wellKnown        string // empty: its owner made it
}

type message struct {
	id     string
	folder *folder
	read   bool
}

func newMailbox(address string, home int) *mailbox {
	m := &mailbox{address: address, home: home}
	for known, name := range wellKnown {
		f := &folder{id: folderID(address, known), name: name, wellKnown: known}
		if known != "msgfolderroot" {
			f.parent = folderID(address, "msgfolderroot")
		}
		m.folders = append(m.folders, f)
	}
	return m
}

// folderID is the id of a folder. Ids are Base64 in Exchange, and opaque.
func folderID(address, name string) string { return fmt.Sprintf("AAMk%x==", address+"/"+name) }

func (m *mailbox) folder(name string) *folder {
	for _, f := range m.folders {
		if f.id == name || f.wellKnown == strings.ToLower(name) || f.wellKnown == "" && f.name == name {
			return f
		}
	}
	return nil
}

func (m *mailbox) unread(f *folder) int {
	n := 0
	for _, message := range m.messages {
		if message.folder == f && !message.read {
			n++
		}
	}
	return n
}

// find returns the mailbox of an address.
func (s *Server) find(address string) *mailbox { return s.mailboxes[strings.ToLower(address)] }

// AddFolder makes a folder below the inbox.
func (s *Server) AddFolder(address, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(address)
	f := &folder{id: folderID(address, "inbox/"+name), name: name, parent: folderID(address, "inbox")}
	m.folders = append(m.folders, f)
	s.byFolder[f.id] = m
}

// Deliver puts an unread message into the inbox and returns its id.
func (s *Server) Deliver(address string) string { return s.DeliverTo(address, "inbox") }

// DeliverTo is Deliver into a folder.
func (s *Server) DeliverTo(address, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(address)
	f := m.folder(name)
	s.number++
	id := fmt.Sprintf("AAMkMessage%08d==", s.number)
	m.messages = append(m.messages, &message{id: id, folder: f})
	s.tell(m, f, itemEvent("CreatedEvent", id, f), itemEvent("NewMailEvent", id, f), s.folderEvent(m, f))
	return id
}

// MarkRead sets messages read, or unread again.
func (s *Server) MarkRead(address string, read bool, ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(address)
	for _, message := range m.messages {
		if !slices.Contains(ids, message.id) || message.read == read {
			continue
		}
		message.read = read
		s.tell(m, message.folder, itemEvent("ModifiedEvent", message.id, message.folder), s.folderEvent(m, message.folder))
	}
}

// ReadAll sets every message of the inbox read.
func (s *Server) ReadAll(address string) {
	s.mu.Lock()
	m := s.find(address)
	var ids []string
	for _, message := range m.messages {
		ids = append(ids, message.id)
	}
	s.mu.Unlock()
	s.MarkRead(address, true, ids...)
}

// Move moves a message to a folder.
func (s *Server) Move(address, id, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(address)
	for _, message := range m.messages {
		if message.id != id {
			continue
		}
		from := message.folder
		message.folder = m.folder(to)
		moved := movedEvent(id, from, message.folder)
		s.tell(m, from, moved, s.folderEvent(m, from))
		s.tell(m, message.folder, moved, s.folderEvent(m, message.folder))
	}
}

// Delete deletes a message for good.
func (s *Server) Delete(address, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(address)
	at := slices.IndexFunc(m.messages, func(message *message) bool { return message.id == id })
	if at < 0 {
		return
	}
	f := m.messages[at].folder
	m.messages = slices.Delete(m.messages, at, at+1)
	s.tell(m, f, itemEvent("DeletedEvent", id, f), s.folderEvent(m, f))
}

// Unread is how many messages of the inbox are unread.
func (s *Server) Unread(address string) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(address)
	return uint32(m.unread(m.folder("inbox")))
}

// MoveMailbox moves a mailbox to the next back end: its subscriptions end.
func (s *Server) MoveMailbox(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(address)
	m.home = (m.home + 1) % len(s.backEnds)
	s.lose(m)
}

// event is one event, as XML without its end tag's sibling order: what the
// schema has between TimeStamp and the end.
type event struct{ name, body string }

func itemEvent(name, id string, f *folder) event {
	return event{name, fmt.Sprintf(`<t:ItemId Id="%s" ChangeKey="CQAAAA=="/><t:ParentFolderId Id="%s" ChangeKey="AQAAAA=="/>`, id, f.id)}
}

func movedEvent(id string, from, to *folder) event {
	return event{"MovedEvent", fmt.Sprintf(`<t:ItemId Id="%s" ChangeKey="CQAAAA=="/><t:ParentFolderId Id="%s" ChangeKey="AQAAAA=="/><t:OldItemId Id="%s" ChangeKey="CQAAAA=="/><t:OldParentFolderId Id="%s" ChangeKey="AQAAAA=="/>`, id, to.id, id, from.id)}
}

func (s *Server) folderEvent(m *mailbox, f *folder) event {
	count := ""
	if !s.faults.OmitUnreadCount {
		count = fmt.Sprintf("<t:UnreadCount>%d</t:UnreadCount>", m.unread(f))
	}
	return event{"ModifiedEvent", fmt.Sprintf(`<t:FolderId Id="%s" ChangeKey="AQAAAA=="/><t:ParentFolderId Id="%s" ChangeKey="AQAAAA=="/>%s`, f.id, f.parent, count)}
}

func (e event) xml(now time.Time) string {
	return fmt.Sprintf("<t:%s><t:TimeStamp>%s</t:TimeStamp>%s</t:%s>", e.name, now.UTC().Format(time.RFC3339), e.body, e.name)
}

// tell puts events into the subscriptions of a folder.
func (s *Server) tell(m *mailbox, f *folder, events ...event) {
	for _, sub := range m.subscriptions {
		if !slices.Contains(sub.folders, f) {
			continue
		}
		for _, e := range events {
			if slices.Contains(sub.types, e.name) && !sub.deaf {
				sub.events = append(sub.events, e)
			}
		}
		if sub.stream != nil {
			notify(sub.stream.wake)
		}
	}
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
