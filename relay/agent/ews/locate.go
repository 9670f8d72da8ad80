package ews

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// place is where a mailbox is to be found.
type place struct {
	url     string
	key     string // mailboxes of the same url and key may share a stream
	grouped bool   // the server has said so; else it is tried
}

// maxGenerations is how many servers behind one URL a mailbox is looked for on
// without a pause. Ours.
const maxGenerations = 8

// locate finds the places of a mailbox, and of others that have none.
func (s *Source) locate(ctx context.Context, l *connection, b *box) {
	if s.config.Autodiscover == "" {
		s.gate.leave()
		s.mu.Lock()
		if !b.gone {
			s.place(b, b.guess(s.config.URL))
		}
		s.mu.Unlock()
		s.finish(b, done, nil)
		return
	}
	all := append(s.takeUnplaced(s.discovery.atOnce()-1, time.Now()), b)
	found, where, err := s.discover(ctx, l, names(all))
	if err == nil {
		s.discovery.found.Store(where)
	}
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
			if !f.place.grouped {
				f.place = b.guess(f.place.url)
			}
			if !b.gone && b.group == nil {
				s.place(b, f.place)
			}
			s.mu.Unlock()
			s.finish(b, done, nil)
		}
	}
}

// guess is a place at a URL that nobody has told the server behind of. The caller
// holds mu.
func (b *box) guess(url string) place {
	return place{url: url, key: fmt.Sprint(b.generation % maxGenerations)}
}

// locateOne finds the place of one mailbox, and remembers nothing.
func (s *Source) locateOne(ctx context.Context, l *connection, mailbox string) (place, error) {
	if s.config.Autodiscover == "" {
		return place{url: s.config.URL}, nil
	}
	found, _, err := s.discover(ctx, l, []string{mailbox})
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
